"""Notices by mail and webhook: to a real SMTP server and a real HTTPS server, across failures and restarts."""

from __future__ import annotations

import email
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from gateway.audit import AuditLog
from gateway.config.models import Tls
from gateway.config.notify import PLAIN_STATEMENT, Mail, Notify, Webhook
from gateway.config.secret import SecretRef
from gateway.errors import ConfigError, GatewayError, UnreachableError
from gateway.flow.notices import MOST, Ending, Notices, trial_notice
from gateway.network.notifying import SIGNATURE, MailChannel, WebhookChannel, text
from gateway.service.notifying import Notifying, channels_of, state_file
from tests.conftest import needed
from tests.network.test_ingress import until
from tests.support.flow import ct
from tests.support.network.certificates import Authority
from tests.support.network.peers import free_port
from tests.web.conftest import PATIENT, Shown

aiosmtpd = needed("aiosmtpd.controller")
smtp = needed("aiosmtpd.smtp")
SECRET = b"a shared secret"


class Hook:
    """What a receiver got; `status` is what it answers."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.url = ""
        self.location = ""

    @property
    def notices(self) -> list[dict]:
        return [json.loads(body) for _, body in self.got]


@contextmanager
def receiving(tls: Tls) -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            hook.got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(hook.status)
            if hook.location:
                self.send_header("Location", hook.location)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.private_key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    hook.url = f"https://localhost:{server.server_address[1]}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("notify-tls"))


@pytest.fixture
def hook(authority: Authority) -> Iterator[Hook]:
    with receiving(authority.issue("chat")) as hook:
        yield hook


@pytest.fixture
def secret(tmp_path: Path) -> SecretRef:
    file = tmp_path / "hook.secret"
    file.touch(mode=0o600)
    file.write_bytes(SECRET + b"\n")
    return SecretRef(f"file:{file}")


class Watch:
    """One channel over a site, on a clock of its own; `again` is what a restart makes of it."""

    def __init__(self, shown: Shown, channel, folder: Path, endings: tuple[Ending, ...] = ()) -> None:
        self.now = 1_000_000.0
        self.endings = list(endings)
        self.audit = AuditLog(folder / "audit.jsonl")
        self.file = folder / "notified-x.json"
        self._made = (channel, shown.config.site.name, self.file, lambda: shown.flow.engine, lambda: self.endings)
        self.again()

    def again(self) -> None:
        self.notices = Notices(*self._made, self.audit, 3600.0, clock=lambda: self.now)

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in (self.file.parent / "audit.jsonl").read_text().splitlines()]


@pytest.fixture
def watch(own: Shown, hook: Hook, secret: SecretRef, authority: Authority, tmp_path: Path) -> Watch:
    webhook = Webhook(name="chat", url=hook.url, secret=secret, trust=authority.trust)
    return Watch(own, WebhookChannel(webhook, secret.resolve), tmp_path)


def hold(shown: Shown, number: int) -> str:
    one = shown.flow.receive(ct(number, **PATIENT), called_ae="ASKED")
    shown.flow.run()
    assert shown.flow.row(one).state == "held"
    return one


def test_what_is_held_is_told_once_signed_and_without_a_patient(own: Shown, watch: Watch, hook: Hook) -> None:
    assert watch.notices.once()
    ((headers, body),) = hook.got
    at, _, mac = headers[SIGNATURE].removeprefix("t=").partition(",v1=")
    assert hmac.new(SECRET, f"{at}.".encode() + body, hashlib.sha256).hexdigest() == mac
    assert abs(time.time() - int(at)) < 300
    (notice,) = hook.notices
    assert notice["held_in_all"] == 2
    by_reason = {one["reason"]: one for one in notice["held"]}
    assert by_reason["route-holds"]["instances"] == [own.ids["held"]] and by_reason["route-holds"]["route"] == "asked"
    assert by_reason["context-refused"]["destinations"] == ["outside"]
    row = own.flow.row(own.ids["held"])
    for word in (*PATIENT.values(), "Doe", row.sop_instance_uid, row.calling_ae, row.reason or "x"):
        assert word.encode() not in body and word not in text(notice)
    assert set(notice) == {"version", "id", "kind", "site", "at", "held", "held_in_all", "certificates"}
    for _ in range(3):
        watch.now += 10_000
        assert not watch.notices.once()
    assert len(hook.got) == 1
    (line,) = watch.lines()
    assert (line["event"], line["outcome"], line["operation"]) == ("notice-sent", "success", "chat")
    assert (line["request_id"], line["count"]) == (notice["id"], 2)


def test_a_flood_is_summed_up(own: Shown, watch: Watch, hook: Hook) -> None:
    assert watch.notices.once()
    new = [hold(own, 100 + number) for number in range(8)]
    for _ in range(10):
        watch.now += 60
        assert not watch.notices.once()  # within the hour
    watch.now += 3000
    assert watch.notices.once() and not watch.notices.once()
    (group,) = hook.notices[1]["held"]
    assert group["count"] == 8 and len(group["instances"]) == 5 and set(group["instances"]) <= set(new)


def test_a_restart_neither_repeats_nor_forgets(own: Shown, watch: Watch, hook: Hook) -> None:
    hook.status = 500
    assert not watch.notices.once()
    for _ in range(4):
        watch.again()
        watch.now += 4000
        assert not watch.notices.once()
    hold(own, 200)
    hook.status = 200
    watch.again()
    watch.now += 4000
    assert watch.notices.once()
    assert len({one["id"] for one in hook.notices}) == 1 and len(hook.got) == 6  # the same one until they have it
    assert {headers["X-MIAD-Notice"] for headers, _ in hook.got} == {hook.notices[0]["id"]}
    watch.again()
    assert not watch.notices.once()  # within the hour of it
    watch.now += 3601
    assert watch.notices.once()
    assert sum(one["count"] for one in hook.notices[-1]["held"]) == 1  # what came meanwhile, and nothing twice
    assert [line["outcome"] for line in watch.lines()] == ["failure"] * 5 + ["success"] * 2


def test_a_restart_right_after_it_was_sent_sends_the_same_again(own, watch: Watch, hook: Hook, monkeypatch) -> None:
    from gateway.flow import notices

    real, calls = notices._write, []

    def dies(file: Path, state: dict) -> None:
        calls.append(state["outbox"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(file, state)

    monkeypatch.setattr(notices, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        watch.notices.once()
    watch.again()
    assert watch.notices.once()
    assert len(hook.got) == 2 and len({one["id"] for one in hook.notices}) == 1


def test_tries_become_rarer(watch: Watch, hook: Hook) -> None:
    hook.status = 503
    for _ in range(600):
        watch.notices.once()
        watch.now += 10
    assert 6 <= len(hook.got) <= 10


def test_what_is_held_again_is_news(own: Shown, watch: Watch, hook: Hook) -> None:
    watch.notices.once()
    state = json.loads(watch.file.read_text())
    state["told"] = [one for one in state["told"] if one != own.ids["held"]]  # as after its release
    watch.file.write_text(json.dumps(state))
    watch.now += 4000
    assert watch.notices.once()
    assert hook.notices[1]["held"][0]["instances"] == [own.ids["held"]]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"told": 7}', "null", '{"sent_at": "x"}'])
def test_a_state_that_is_none_tells_anew(watch: Watch, hook: Hook, content: str) -> None:
    watch.file.write_text(content)
    assert watch.notices.once() and len(hook.got) == 1


def test_where_the_state_cannot_be_kept_nothing_is_sent(watch: Watch, hook: Hook) -> None:
    watch.file.with_suffix(".new").mkdir()
    with pytest.raises(GatewayError) as caught:
        watch.notices.once()
    assert caught.value.code == "notices-not-kept" and hook.got == []


def test_more_than_can_be_told_apart_is_told_by_its_number(own, watch, hook, monkeypatch) -> None:
    monkeypatch.setattr("gateway.flow.notices.MOST", 2)
    assert MOST > 1000
    assert watch.notices.once() and hook.notices[0]["held_in_all"] == 2
    watch.now += 4000
    assert not watch.notices.once()
    hold(own, 300)
    assert watch.notices.once() and hook.notices[1]["held_in_all"] == 3


def test_certificates_are_told_of_as_they_run_out(own: Shown, watch: Watch, hook: Hook) -> None:
    watch.notices.once()
    watch.endings = [Ending("restore.tls.certificate", watch.now + 40 * 86_400)]
    told = []
    for day in range(45):
        watch.now += 86_400
        if watch.notices.once():
            told.append((day, hook.notices[-1]["certificates"]))
        assert not watch.notices.once()
    lefts = [one[0]["days_left"] for _, one in told]
    assert len(told) == 4 and lefts == sorted(lefts, reverse=True) and lefts[-1] <= 1
    assert told[0][1][0]["where"] == "restore.tls.certificate"
    watch.endings = [Ending("restore.tls.certificate", watch.now + 5 * 86_400)]  # a new one, that ends soon too
    watch.now += 4000
    assert watch.notices.once()


# --- webhooks


def test_no_redirect_is_followed_and_no_stranger_believed(hook, authority, secret, tmp_path) -> None:
    with receiving(authority.issue("elsewhere")) as other:
        hook.status, hook.location = 307, other.url
        webhook = Webhook(name="chat", url=hook.url, secret=secret, trust=authority.trust)
        with pytest.raises(UnreachableError) as caught:
            WebhookChannel(webhook, secret.resolve).send(trial_notice("here"))
        assert caught.value.code == "webhook-refused" and other.got == []
    stranger = webhook.model_copy(update={"trust": Authority(tmp_path / "stranger").trust})
    with pytest.raises(UnreachableError) as caught:
        WebhookChannel(stranger, secret.resolve).send(trial_notice("here"))
    assert caught.value.code == "certificate-not-trusted" and len(hook.got) == 1


def test_proxies_of_the_environment_are_not_used(hook, authority, secret, monkeypatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    webhook = Webhook(name="chat", url=hook.url, secret=secret, trust=authority.trust)
    WebhookChannel(webhook, secret.resolve).send(trial_notice("here"))
    assert hook.notices[0]["kind"] == "test"


def test_clear_text_wants_its_sentence(secret: SecretRef) -> None:
    with pytest.raises(ValidationError, match="must read"):
        Webhook(name="chat", url="http://chat.example/x", secret=secret)
    Webhook(name="chat", url="http://chat.example/x", secret=secret, plain_statement=PLAIN_STATEMENT)
    base = {"host": "mail", "sender": "a@b.example", "to": ["c@d.example"]}
    with pytest.raises(ValidationError, match="must read"):
        Mail(**base, tls="none")
    with pytest.raises(ValidationError, match="clear text"):
        Mail(**base, tls="none", plain_statement=PLAIN_STATEMENT, user="u", password=secret)
    for address in ("a b@c.example", "a@b\r\nBcc: x@y.example", "a", "<a@b.example>"):
        with pytest.raises(ValidationError):
            Mail(**{**base, "to": [address]})
    with pytest.raises(ValidationError, match="ASCII alone"):
        Mail(**base, user="jörg", password=secret)
    with pytest.raises(ValidationError, match="nobody would be told"):
        Notify()


# --- mail


class Mailbox:
    """What an SMTP server took, and who logged in there."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.tls: list[bool] = []
        self.refuses = False

    async def handle_DATA(self, server, session, envelope) -> str:
        if self.refuses:
            return "554 no"
        self.tls.append(session.ssl is not None)
        self.mails.append(email.message_from_bytes(envelope.content))
        return "250 OK"


@contextmanager
def mailing(tls: Tls, *, offers_tls: bool = True, wants_login: bool = True) -> Iterator[tuple[Mailbox, int]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.private_key)

    def known(server, session, envelope, mechanism, data) -> object:
        return smtp.AuthResult(success=(data.login, data.password) == (b"miad", SECRET), handled=False)

    box = Mailbox()
    options = {"tls_context": context, "require_starttls": True} if offers_tls else {}
    login = {"authenticator": known, "auth_required": True} if wants_login else {}
    controller = aiosmtpd.Controller(box, hostname="127.0.0.1", port=free_port(), ready_timeout=60, **options, **login)
    controller.start()
    try:
        yield box, controller.port
    finally:
        controller.stop()


def mail_of(port: int, authority: Authority, secret: SecretRef, **more: object) -> Mail:
    given = {"host": "localhost", "port": port, "user": "miad", "password": secret, "trust": authority.trust,
             "sender": "miad@hospital.example", "to": ("it@hospital.example", "pacs@hospital.example")}  # fmt: skip
    return Mail(**{**given, **more})


def test_a_mail_goes_out_over_starttls_after_a_login(own, watch, authority, secret, tmp_path) -> None:
    with mailing(authority.issue("mail")) as (box, port):
        channel = MailChannel(mail_of(port, authority, secret), secret.resolve)
        (tmp_path / "mail").mkdir()
        assert Watch(own, channel, tmp_path / "mail").notices.once()
    ((mail,), (was_tls,)) = box.mails, box.tls
    assert was_tls and mail["To"] == "it@hospital.example, pacs@hospital.example"
    assert mail["Subject"] == f"MIAD Gateway {own.config.site.name}: 2 held"
    body = mail.get_payload(decode=True).decode()
    assert "1 on route asked: route-holds" in body and own.ids["held"] in body
    assert "queue ls --state held --reason context-refused" in body
    assert all(word not in mail.as_string() for word in PATIENT.values())


def test_mail_servers_that_cannot_be_trusted_get_nothing(authority, secret, tmp_path) -> None:
    with mailing(authority.issue("mail")) as (box, port):
        cases = [
            (mail_of(port, Authority(tmp_path / "stranger"), secret), secret.resolve, "mail-unreachable"),
            (mail_of(port, authority, secret), lambda: b"wrong", "mail-refused"),
            (mail_of(port, authority, secret), lambda: "schlüssel".encode(), "mail-refused"),
        ]
        for mail, password, code in cases:
            with pytest.raises(GatewayError) as caught:
                MailChannel(mail, password).send(trial_notice("here"))
            assert caught.value.code == code
        assert box.mails == []
        box.refuses = True
        with pytest.raises(UnreachableError):
            MailChannel(mail_of(port, authority, secret), secret.resolve).send(trial_notice("here"))
    with mailing(authority.issue("mail"), offers_tls=False, wants_login=False) as (box, port):
        with pytest.raises(ConfigError):  # who takes STARTTLS out on the way gets neither password nor mail
            MailChannel(mail_of(port, authority, secret), secret.resolve).send(trial_notice("here"))
        assert box.mails == []
        plain = mail_of(port, authority, secret, tls="none", plain_statement=PLAIN_STATEMENT, user="", password=None)
        MailChannel(plain, None).send(trial_notice("here"))
        assert [mail["Subject"] for mail in box.mails] == ["MIAD Gateway here: a test"]


# --- in the role, and by command


def test_the_role_sends_and_a_dead_channel_keeps_no_other_waiting(own, hook, authority, secret) -> None:
    dead = Mail(host="127.0.0.1", port=9, sender="a@b.example", to=("c@d.example",), tls="starttls")
    good = Webhook(name="chat", url=hook.url, secret=secret, trust=authority.trust)
    config = own.config.model_copy(update={"notify": Notify(mail=dead, webhooks=(good,))})
    audit = AuditLog(own.config.site.state / "audit" / "page.jsonl")
    notifying = Notifying(config, lambda: own.flow.engine, lambda: [], audit, look_s=0.05)
    notifying.start()
    until(lambda: hook.got)
    notifying.stop()
    assert state_file(config, "chat").stat().st_mode & 0o777 == 0o600


def test_notify_test_says_what_became_of_each(own, hook, authority, secret, tmp_path) -> None:
    from gateway import cli

    file = tmp_path / "gateway.toml"
    file.write_text(
        f"""version = 1
[site]
state = "{own.config.site.state}"
[page]
[notify]
[notify.mail]
host = "127.0.0.1"
port = 9
sender = "a@b.example"
to = ["c@d.example"]
[[notify.webhooks]]
name = "chat"
url = "{hook.url}"
secret = "{secret}"
trust = "{authority.trust}"
"""
    )
    ended = CliRunner().invoke(cli.app, ["notify", "test", "--config", str(file)])
    said = " ".join(ended.output.split())
    assert ended.exit_code == 4
    assert "chat: sent" in said and "mail: cannot speak to 127.0.0.1 port 9" in said
    assert hook.notices[0]["kind"] == "test"
    lines = (own.config.site.state / "audit" / "operator.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines[-2:]] == ["notice-sent"] * 2


def test_the_secrets_are_read_by_the_page_alone(own, hook, secret) -> None:
    from gateway.config.duties import secrets_of

    notify = Notify(webhooks=(Webhook(name="chat", url=hook.url, secret=secret),))
    config = own.config.model_copy(update={"notify": notify})
    for role in ("ingress", "worker", "restore", "page"):
        assert any(path[0] == "notify" for path, _, _ in secrets_of(config, role)) == (role == "page")
    assert [one.name for one in channels_of(config)] == ["chat"]
