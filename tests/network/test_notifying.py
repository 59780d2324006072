"""Hostile and odd mail servers and webhooks: bounded memory and time, and what they took is not sent again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from gateway.config.notify import PLAIN_STATEMENT, Mail, Webhook
from gateway.config.secret import SecretRef
from gateway.errors import UnreachableError
from gateway.flow.notices import trial_notice
from gateway.network.notifying import MailChannel, WebhookChannel


@contextmanager
def speaking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that treats each connection so; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(60)


def mail_to(port: int, **more: object) -> MailChannel:
    told = {"host": "127.0.0.1", "port": port, "tls": "none", "plain_statement": PLAIN_STATEMENT,
            "sender": "miad@hospital.example", "to": ("a@hospital.example", "b@hospital.example")}  # fmt: skip
    return MailChannel(Mail.model_validate({**told, **more}), None)


def taking(taken: list[bytes], *, quit_answer: bytes = b"221 bye", refused: bytes = b"-") -> Callable:
    """A simple mail server's side of a connection."""

    def talk(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        connection.sendall(b"220 here\r\n")
        for line in lines:
            word = line[:4].upper()
            if word == b"DATA":
                connection.sendall(b"354 go on\r\n")
                body = b"".join(iter(lines.readline, b".\r\n"))
                taken.append(body)
            answer = (
                quit_answer if word == b"QUIT" else b"550 nobody" if refused in line and word == b"RCPT" else b"250 ok"
            )
            connection.sendall(answer + b"\r\n")

    return talk


def test_an_answer_without_end_is_not_collected() -> None:
    sent = [0]

    def talk(connection: socket.socket) -> None:
        connection.settimeout(60)
        while sent[0] < 64 << 20:
            sent[0] += connection.send(b"220-" + b"x" * 4000 + b"\r\n")

    with speaking(talk) as port, pytest.raises(UnreachableError):
        mail_to(port, timeout_s=60).send(trial_notice("here"))
    assert sent[0] < 32 << 20  # what lies in the sockets' buffers comes on top of what is read


def test_an_answer_that_drips_has_a_deadline() -> None:
    stopped = threading.Event()

    def talk(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(b"2")
            if stopped.wait(0.2):
                return

    with speaking(talk) as port:
        began = threading.Thread(target=lambda: _caught(lambda: mail_to(port, timeout_s=1).send(trial_notice("x"))))
        began.start()
        began.join(15)  # dripping takes 20 s
        is_over = not began.is_alive()
        stopped.set()
    assert is_over


def _caught(act: Callable[[], None]) -> None:
    with pytest.raises(UnreachableError):
        act()


def test_a_mail_that_was_taken_is_sent_whatever_follows() -> None:
    taken: list[bytes] = []
    with speaking(taking(taken, quit_answer=b"421 too late")) as port:
        mail_to(port).send(trial_notice("here"))
    assert len(taken) == 1


def test_one_of_the_addresses_that_is_refused_is_told() -> None:
    taken: list[bytes] = []
    with speaking(taking(taken, refused=b"b@hospital")) as port, capture_logs() as lines:
        mail_to(port).send(trial_notice("here"))
    assert len(taken) == 1
    assert [(one["event"], one["refused"], one["of"]) for one in lines] == [("mail not taken for all addresses", 1, 2)]


@pytest.mark.parametrize("length, body", [(1 << 30, b""), (400_000, b"x" * 400_000)])
def test_a_webhook_that_answers_2xx_has_it_whatever_its_page_holds(tmp_path: Path, length: int, body: bytes) -> None:
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_bytes(b"a shared secret")
    secret = SecretRef(f"file:{file}")

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + body)
        connection.settimeout(30)
        while connection.recv(65536):  # until they go
            pass

    with speaking(talk) as port:
        url = f"http://127.0.0.1:{port}/hook"
        webhook = Webhook(name="chat", url=url, secret=secret, plain_statement=PLAIN_STATEMENT, timeout_s=3)
        WebhookChannel(webhook, secret.resolve).send(trial_notice("here"))


@pytest.mark.parametrize(
    "address", ["a@hospital..example", "a@-.", "a@.", "a@.example", "a@hospital.", "a..b@x", ".a@x"]
)
def test_an_address_that_no_mail_can_have_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="NAME@HOST"):
        mail_to(25, to=("ok@hospital.example", address))
