"""Reload: what is at hand ends under the old configuration, later ones find the new; errors change nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audit import AuditLog
from gateway.config import InvalidConfigError, Source
from gateway.errors import CapacityError, PermanentError
from gateway.keys.generate import make_keys
from gateway.network.scu import Peer, ScuAssociation
from gateway.service import places
from gateway.service.ingress import IngressParts
from gateway.service.link import Link
from gateway.service.part import StartAnew
from gateway.service.reading import Reading
from gateway.service.reload import Desk
from gateway.service.restore import RestoreParts
from gateway.service.runner import RoleRunner
from gateway.service.supervisor import Supervisor
from gateway.service.watch import Watcher
from gateway.service.wishes import Wish, Wishes
from tests.network.test_ingress import until
from tests.support.network import raw
from tests.support.network.peers import free_port
from tests.support.network.samples import CT, EXPLICIT, ct
from tests.support.reloading import Site, campaign

PARTS = {"ingress": IngressParts, "restore": RestoreParts}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


class Running:
    """One role in this process."""

    def __init__(self, site: Site, role: str = "ingress") -> None:
        self.site = site
        reading = Reading.of(site.file)
        self.audit = AuditLog(places(reading.config).audit(role))
        self.runner = RoleRunner(role, reading, self.audit, PARTS[role](reading.config, self.audit))
        self.runner.start()

    def reload(self) -> None:
        self.runner.prepare(None, "test")
        self.runner.commit()

    def refused(self) -> InvalidConfigError:
        """Reload as by a signal; what it was told, and nothing has changed."""
        before, part = self.runner.reading, self.runner._part
        Desk(self.runner, self.audit).do(Wish("reload", "test"))
        assert (self.runner.reading, self.runner._part) == (before, part)
        with pytest.raises(InvalidConfigError) as caught:
            self.runner.prepare(None, "test")
        return caught.value


@pytest.fixture
def ingress(site: Site) -> Iterator[Running]:
    running = Running(site)
    yield running
    running.runner.stop()


def called(port: int, calling_ae: str = "ARCHIVE", called_ae: str = "RELAY") -> Peer:
    return Peer("127.0.0.1", port, called_ae, calling_ae, response_timeout_s=30, connect_timeout_s=20)


def associate(port: int, calling_ae: str = "ARCHIVE", called_ae: str = "RELAY") -> ScuAssociation:
    return ScuAssociation(called(port, calling_ae, called_ae), [(CT, EXPLICIT)])


def store(association: ScuAssociation) -> int:
    uid, data = ct()
    return association.store(CT, uid, EXPLICIT, io.BytesIO(data), size=len(data)).status


def test_an_open_association_ends_under_the_old_one_and_later_ones_find_the_new(ingress: Running) -> None:
    site = ingress.site
    before = associate(site.port)
    old = ingress.runner._part
    site.file.write_text(site.file.read_text().replace('"ARCHIVE"', '"SCANNER"').replace('"RELAY"', '"OTHER"'))
    ingress.reload()
    assert store(before) == 0x0000  # its peer and its route are gone, for others
    with pytest.raises(PermanentError):
        associate(site.port)
    later = associate(site.port, "SCANNER", "OTHER")
    assert store(later) == 0x0000
    ((part, thread),) = ingress.runner._ending
    assert part is old and thread.is_alive()
    assert store(before) == 0x0000
    before.release()
    later.release()
    assert until(lambda: not thread.is_alive())
    with pytest.raises(CapacityError):  # and then its segment is closed
        old._receiver.admit("RELAY", "ARCHIVE", CT)
    assert site.states() == {"received": 3}


def test_who_has_connected_before_and_asks_after_is_served(ingress: Running) -> None:
    """A connection that is no association yet when the swap comes; and one that waits for its accept."""
    for when in ("before", "between"):
        if when == "between":
            ingress.runner.prepare(None, "test")
            ingress.runner._part.pause()
        with socket.create_connection(("127.0.0.1", ingress.site.port), 5) as client:
            time.sleep(0.3)
            if when == "before":
                ingress.runner.prepare(None, "test")
            ingress.runner.commit()
            client.sendall(raw.associate(called=b"RELAY"))
            client.settimeout(5)
            assert client.recv(1) == b"\x02"  # A-ASSOCIATE-AC


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_or_address_changes_and_the_old_one_is_given_up(ingress: Running, host: str) -> None:
    site, old = ingress.site, ingress.site.port
    before = associate(old)
    if host == "127.0.0.1":
        site.port = free_port()
    site.write(1)
    site.file.write_text(site.file.read_text().replace("[ingress]\n", f'[ingress]\nhost = "{host}"\n'))
    ingress.reload()
    associate(site.port).release()
    assert store(before) == 0x0000
    before.release()
    if site.port != old:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", old)) != 0


def tls_of(site: Site, port: int) -> bytes:
    """The certificate that the port shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(site.authority.trust)
    client = site.authority.issue("client")
    context.load_cert_chain(client.certificate, client.private_key)
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True)).encode()


def test_a_renewed_certificate_a_revocation_and_a_port_of_the_restore_role(site: Site) -> None:
    running = Running(site, "restore")
    try:
        first = tls_of(site, site.restore_port)
        renewed = site.renew()
        assert tls_of(site, site.restore_port) == first != renewed
        running.reload()
        assert tls_of(site, site.restore_port) == renewed
        site.restore_port = free_port()
        site.write(1)
        text = site.file.read_text()
        site.file.write_text(text.replace("trust = ", f'crl = "{site.authority.revoke()}"\ntrust = '))
        running.reload()
        assert tls_of(site, site.restore_port) == renewed
        site.authority.revoke(site.authority.issue("client"))
        running.reload()
        with pytest.raises(OSError, match="revoked"), socket.create_connection(("127.0.0.1", site.restore_port)) as one:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(site.authority.trust)
            context.load_cert_chain(site.authority.folder / "client.pem", site.authority.folder / "client.key")
            with context.wrap_socket(one, server_hostname="localhost") as tls:
                tls.recv(1)
    finally:
        running.runner.stop()


# what is changed, by what, the code, the key and the line of the audit
BROKEN = {
    "syntax": ("[ingress]", "[ingress", "config-syntax", None, 4),
    "unknown key": ("max_pdu", "max_pud", "config-invalid", "destinations[0].max_pud", 19),
    "missing secret": (
        "[reload]",
        '[keys]\nspool_key = "file:keys/none.key"\n[reload]',
        "check-failed",
        "keys.spool_key",
        38,
    ),
    "state folder": ('name = "reloads"', 'name = "reloads"\nstate = "other"', "needs-restart", "site.state", 4),
    "database": ("[reload]", "[database]\nurl = 'sqlite:///x'\n[reload]", "needs-restart", "database.url", 38),
    "codecs": ("[reload]", "[codecs]\nprocesses = 3\n[reload]", "needs-restart", "codecs", 37),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_taken_over_changes_nothing_and_is_told_with_its_place(ingress: Running, kind: str) -> None:
    site = ingress.site
    old, new, code, key, line = BROKEN[kind]
    text = site.file.read_text()
    assert text.count(old) >= 1
    site.file.write_text(text.replace(old, new, 1))
    error = ingress.refused()
    assert error.code == code
    told = site.audited("ingress")[-1]
    assert (told["outcome"], told["operation"], told["reason"]) == ("failure", "reload-test", code)
    assert (told.get("configuration_key"), told["configuration_line"]) == (key, line)
    associate(site.port).release()
    site.file.write_text(text)
    ingress.reload()  # and it can be mended
    told = site.audited("ingress")[-1]
    assert (told["outcome"], told["configuration_sha256"]) == ("success", ingress.runner.reading.source.digest)


def test_where_what_waits_lies_changes_with_a_restart_alone(tmp_path: Path) -> None:
    text = """version = 1
durability = "cluster"
[database]
url = "postgresql+psycopg://db.example/miad"
[store]
url = "s3://vault/site"
endpoint = "https://store.example"
access_key_id = "env:ID"
secret_access_key = "env:KEY"
"""
    file = tmp_path / "gateway.toml"

    def reading(change: str, to: str) -> Reading:
        file.write_text(text.replace(change, to))
        return Reading.of(file)

    old = reading("", "")
    for change, to, where in (('"cluster"', '"disk"', "line 2, durability"), ("/site", "/other", "line 6, store.url")):
        with pytest.raises(InvalidConfigError) as caught:
            reading(change, to).check_follows(old)
        assert caught.value.code == "needs-restart" and where in str(caught.value)
    reading("https://store.example", "https://store-2.example").check_follows(old)


def test_no_role_comes_or_goes_without_a_restart(ingress: Running, site: Site) -> None:
    text = site.file.read_text()
    site.file.write_text(text[: text.index("[[routes]]")] + text[text.index("[restore]") :])
    assert "role ingress: there would be nothing for it to do" in str(ingress.refused())
    site.file.write_text(text[: text.index("[restore]")])
    ingress.reload()  # of another role, where each is by itself


def test_a_port_that_another_program_has_is_refused(ingress: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ingress.site.write(1, port=taken.getsockname()[1])
        error = ingress.refused()
    assert error.code == "check-failed" and "is taken by another program" in str(error)


def test_when_the_audit_is_full_nothing_is_swapped(ingress: Running) -> None:
    audit = ingress.site.folder / "state" / "audit" / "ingress.jsonl"
    audit.unlink(missing_ok=True)
    audit.symlink_to("/dev/full")
    part = ingress.runner._part
    Desk(ingress.runner, ingress.audit).do(Wish("reload", "test"))
    assert ingress.runner._part is part and ingress.runner._ready is None
    associate(ingress.site.port).release()


def test_who_prepared_and_is_gone_leaves_nothing_behind(ingress: Running) -> None:
    wishes = Wishes()
    desk = Desk(ingress.runner, ingress.audit)
    ours, theirs = Link.pair()
    other = Link(theirs)
    other.listen(lambda link, message: wishes.put(Wish("message", link=link, message=message)))
    flushers = _flushers()
    ours.send({"do": "prepare", "by": "command"})
    desk.do(wishes.get(50))
    assert ours.receive(5)["ok"] and ingress.runner._ready is not None
    assert _flushers() == flushers + 1
    ours.close()
    desk.do(wishes.get(50))
    assert ingress.runner._ready is None and _flushers() == flushers
    associate(ingress.site.port).release()


def _flushers() -> int:
    """Threads that write a segment: each part has one."""
    return sum(thread.name == "flusher" for thread in threading.enumerate())


def test_only_who_prepared_last_may_commit(ingress: Running) -> None:
    desk = Desk(ingress.runner, ingress.audit)
    links = [Link.pair() for _ in range(2)]
    for ours, theirs in links:
        desk.do(Wish("message", link=Link(theirs), message={"do": "prepare", "by": "command"}))
        assert ours.receive(5)["ok"]
    first = Link(links[0][1].dup())
    desk.do(Wish("message", link=first, message={"do": "commit"}))
    assert links[0][0].receive(5)["code"] == "superseded"


# --- the watch --------------------------------------------------------------------------------------------------------


def test_changed_files_ask_for_one_reload_and_what_was_refused_for_no_second(site: Site) -> None:
    site.file.write_text(site.file.read_text().replace("watch = false", "watch = true"))
    reading, wishes = Reading.of(site.file), Wishes()
    watcher = Watcher(lambda: reading, wishes, pause_s=0.05)
    try:
        assert wishes.get(0.5) is None
        site.renew()
        assert wishes.get(50) == Wish("reload", "watch")
        assert wishes.get(0.5) is None  # it was refused, say: not until it changes again
        (site.folder / "conf.d").mkdir()
        (site.folder / "conf.d" / "a.toml").write_text("[log]\nlevel = 'debug'\n")
        assert wishes.get(50) == Wish("reload", "watch")
        reading = Reading.of(site.file)
        assert wishes.get(0.5) is None
        site.file.write_text(site.file.read_text().replace("watch = true", "watch = false"))
        assert wishes.get(50) == Wish("reload", "watch")
        reading = Reading.of(site.file)
        site.renew()
        assert wishes.get(0.5) is None
    finally:
        watcher.close()


def test_a_path_that_cannot_be_looked_at_is_as_one_that_is_not_there(site: Site) -> None:
    """As one in a folder that is closed to this role's user: the watch must not end over it."""
    site.file.write_text(site.file.read_text().replace("tls/trust.pem", "a" * 300))
    reading = Reading.of(site.file)
    assert reading.look() == reading.state


# --- all roles, as processes ------------------------------------------------------------------------------------------


@pytest.mark.full
def test_instances_come_all_while_the_configuration_is_reloaded_twenty_times(tmp_path: Path) -> None:
    outcome = campaign(tmp_path, instances=150, reloads=20, breaks=5)  # a thousand: tests.benchmarks.reload
    assert outcome.problems == []
    assert outcome.refused_reloads == 5


ROLE = """
import json, sys
from gateway.service.link import Link
link = Link.from_environment()
said = [link.receive()]
while (message := link.receive()) is not None:
    said.append(message)
    open(sys.argv[1], "w").write(json.dumps([one["do"] for one in said]))
    if message["do"] == "prepare":
        refused = {"ok": False, "code": "check-failed", "problems": [{"path": "keys", "line": 3, "message": "no"}]}
        answer = refused if sys.argv[2] in message["texts"][0][1] else {"ok": True, "digest": "x"}
        link.send({**answer, "number": message["number"]})
    elif message["do"] == "commit":
        link.send({"ok": True, "digest": "x", "number": message["number"]})
"""


def test_the_supervisor_lets_all_commit_or_none(tmp_path: Path, monkeypatch) -> None:
    """Roles that do no more than answer. One refuses, then the other: it is heard, and not what it said before."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own
    file, refuses = tmp_path / "gateway.toml", {"ingress": "odd", "restore": "third"}

    def command(role: str) -> list[str]:
        return [sys.executable, "-c", ROLE, str(tmp_path / role), refuses[role]]

    def source(name: str) -> Source:
        return Source(((file, f"[site]\nname = '{name}'\n"),))

    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    supervisor = Supervisor(file, dict.fromkeys(refuses, environment), command, source("first"))
    told: list[str] = []

    def do(wish: Wish) -> None:
        try:
            supervisor.prepare(source(wish.by), "test")
        except InvalidConfigError as error:
            told.append(error.code)
            supervisor.drop()
        else:
            supervisor.commit(source(wish.by), dict.fromkeys(refuses, environment))
        if wish.by == "even":
            supervisor._stopping.set()

    wishes = Wishes()
    for name in ("odd", "third", "even"):
        wishes.put(Wish("reload", name))
    supervisor.run(wishes, do)
    said = {role: json.loads((tmp_path / role).read_text()) for role in refuses}
    assert told == ["check-failed"] * 2
    assert list(said.values()) == [["start", *["prepare", "drop"] * 2, "prepare", "commit"]] * 2


def test_an_answer_that_comes_too_late_is_not_taken_for_that_to_the_next_question() -> None:
    ours, theirs = Link.pair()
    other = Link(theirs)
    assert ours.answer(1, 0.05) is None
    for number in (1, 2):
        other.send({"number": number})
    assert ours.answer(2, 5) == {"number": 2}
    theirs.sendall(b'{"number"')
    assert ours.receive(0.05) is None  # half of it: the rest still counts
    theirs.sendall(b": 3}\n")
    assert ours.answer(3, 5) == {"number": 3}
    other.close()
    assert ours.answer(4, 5) is None


class Broken:
    """Parts whose second one does not begin to work."""

    def __init__(self, parts) -> None:
        self._parts = parts

    def build(self, config, before):
        part = self._parts.build(config, before)
        if before is not None:
            part.start = self._fail
        return part

    def _fail(self) -> None:
        raise OSError("no thread can be made")


@pytest.mark.parametrize("way", ["signal", "command"])
def test_a_swap_that_breaks_off_half_way_ends_the_role(site: Site, way: str) -> None:
    """The old part has paused: a role that went on would do nothing, and nobody would know."""
    reading = Reading.of(site.file)
    audit = AuditLog(places(reading.config).audit("ingress"))
    runner = RoleRunner("ingress", reading, audit, Broken(IngressParts(reading.config, audit)))
    runner.start()
    associate(site.port).release()
    desk = Desk(runner, audit)
    _ours, theirs = Link.pair()
    link = Link(theirs)
    wishes = [Wish("reload", "signal")]
    if way == "command":
        wishes = [Wish("message", link=link, message={"do": do, "by": "command"}) for do in ("prepare", "commit")]
    with pytest.raises(StartAnew):
        for wish in wishes:
            desk.do(wish)
    runner.stop()  # what serve does then, before the process ends and is started again
    assert not runner._ending or until(lambda: not runner._ending[0][1].is_alive())
    assert not _listens(site.port)


@pytest.mark.full
def test_all_roles_swap_or_none_and_a_role_that_dies_gets_what_is_in_force(site: Site) -> None:
    """Only the restore role reads the private key: that it is another pair's, it alone can say."""
    with site.running() as process:
        (answer,) = site.reload()
        assert answer["ok"] and answer["role"] == "supervisor"
        in_force = answer["digest"]
        key = site.folder / "keys" / "restore.private.pem"
        right = key.read_bytes()
        make_keys(site.folder / "other")
        shutil.copyfile(site.folder / "other" / "restore.private.pem", key)
        site.write(2)
        (answer,) = site.reload()
        assert not answer["ok"] and answer["code"] == "check-failed"
        assert site.audited("restore")[-1]["outcome"] == "failure"
        assert {site.audited(role)[-1]["configuration_sha256"] for role in ("ingress", "worker")} == {in_force}
        key.write_bytes(right)
        # now the file is broken, and a role dies
        site.file.write_text("[[[")
        pid = int(next(line for line in _children(process.pid) if "ingress" in line[1])[0])
        os.kill(pid, 9)
        started = len(site.audited("ingress"))
        site.wait(lambda: len(site.audited("ingress")) > started, process)
        assert site.audited("ingress")[-1]["configuration_sha256"] == in_force
        site.wait(lambda: _listens(site.port), process)
        associate(site.port).release()


def _children(parent: int) -> list[tuple[str, str]]:
    found = []
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        found.append((pid, Path(f"/proc/{pid}/cmdline").read_text()))
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
