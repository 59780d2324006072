"""The ways by which notices leave: mail by SMTP (RFC 5321), and signed JSON over HTTPS."""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from email.message import EmailMessage
from typing import Any

import structlog

from gateway.config.notify import Mail, Webhook
from gateway.errors import ConfigError, UnreachableError
from gateway.network.fetching import LONGEST_ANSWER, Fetcher
from gateway.network.patient_socket import PatientSocket
from gateway.network.tls import trusting_context

SIGNATURE = "X-MIAD-Signature"  # t=SECONDS,v1=HMAC-SHA256 of "SECONDS.BODY", hexadecimal

log = structlog.get_logger(__name__)


class MailChannel:
    """Tells by mail.

    Parameters
    ----------
    password
        Gives the password of `user`, where there is one.

    Raises
    ------
    ConfigError
        `trust` cannot be used.
    """

    name = "mail"

    def __init__(self, mail: Mail, password: Callable[[], bytes] | None) -> None:
        self._mail = mail
        self._password = password
        self._tls = None if mail.tls == "none" else trusting_context(mail.trust)

    def send(self, notice: Mapping[str, Any]) -> None:
        """Hand one mail to the server.

        Raises
        ------
        UnreachableError, ConfigError
            ``mail-unreachable``, ``mail-refused``; secrets that cannot be read.
        """
        mail = self._mail
        message = EmailMessage()
        message["From"], message["To"] = mail.sender, ", ".join(mail.to)
        message["Subject"] = subject(notice)
        message["Message-ID"] = f"<{notice['id']}@{mail.sender.partition('@')[2]}>"  # the same at each try
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence is answered
        message["Date"] = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(notice["at"]))
        message.set_content(text(notice))
        secret = self._password().strip() if self._password is not None else b""
        where = f"{mail.host} port {mail.port}"
        if not secret.isascii():  # smtplib has no way to say it
            hint = "give the gateway a password of ASCII letters, figures and signs there"
            raise ConfigError("mail-refused", f"the password for {where} has letters beyond ASCII", hint)
        try:
            with closing(self._connected()) as server:
                if mail.tls == "starttls":
                    server.starttls(context=self._tls)
                if mail.user:
                    server.login(mail.user, secret.decode("ascii"))
                refused = server.send_message(message)
                with suppress(smtplib.SMTPException, OSError):  # they have it, whatever they say to that
                    server.quit()
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError):
            hint = "compare host, tls, user and password of [notify.mail]"
            raise ConfigError("mail-refused", f"{where} does not take our login, or no TLS", hint) from None
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPSenderRefused, smtplib.SMTPDataError):
            raise UnreachableError("mail-refused", f"{where} does not take the mail", "see its own log") from None
        except smtplib.SMTPException:
            raise UnreachableError("mail-unreachable", f"{where} does not speak SMTP as it should") from None
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "verify_message", "") or type(error).__name__
            raise UnreachableError("mail-unreachable", f"cannot speak to {where}: {reason}") from None
        if refused:
            log.warning("mail not taken for all addresses", refused=len(refused), of=len(mail.to), server=where)

    def _connected(self) -> smtplib.SMTP:
        mail = self._mail
        if mail.tls == "tls":
            assert self._tls is not None
            return _ServerByTls(mail.host, mail.port, socket.gethostname(), timeout=mail.timeout_s, context=self._tls)
        return _Server(mail.host, mail.port, socket.gethostname(), timeout=mail.timeout_s)


class _Lines:
    """What a server says; stock, an answer may have lines without end, each as late as the timeout allows."""

    def __init__(self, connection: socket.socket) -> None:
        self._patient = PatientSocket(connection)
        self._file = self._patient.makefile("rb")
        self._left = 0

    def begin(self, within_s: float) -> None:
        """An answer: within so many seconds, and of no more than `LONGEST_ANSWER` bytes."""
        self._patient.begin(within_s)
        self._left = LONGEST_ANSWER

    def readline(self, size: int) -> bytes:
        """The next line; OSError where it comes too late, or is too much."""
        line = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise OSError("an answer without end")
        return line

    def close(self) -> None:
        """Read no more."""
        self._file.close()


class _Server(smtplib.SMTP):
    """Reads bounded answers."""

    file: Any
    sock: Any
    timeout: float

    def getreply(self) -> tuple[int, bytes]:
        """See `smtplib.SMTP.getreply`."""
        if self.file is None:  # at the beginning, and anew under TLS
            self.file = _Lines(self.sock)
        self.file.begin(self.timeout)
        try:
            return super().getreply()
        finally:
            if self.sock is not None:
                self.sock.settimeout(self.timeout)


class _ServerByTls(_Server, smtplib.SMTP_SSL):
    """The same, under TLS from the beginning."""


class WebhookChannel:
    """Tells one URL.

    Parameters
    ----------
    secret
        Gives what the receiver knows too.

    Raises
    ------
    ConfigError
        `trust` cannot be used.
    """

    def __init__(self, webhook: Webhook, secret: Callable[[], bytes]) -> None:
        self._webhook = webhook
        self._secret = secret
        self._asks = Fetcher(webhook.url, webhook.trust, webhook.timeout_s)

    @property
    def name(self) -> str:
        """As the configuration names it."""
        return self._webhook.name

    def send(self, notice: Mapping[str, Any]) -> None:
        """Post it; 2xx means that they have it.

        Raises
        ------
        UnreachableError, ConfigError
            ``webhook-refused``, and those of `gateway.network.fetching.Fetcher.ask`; secrets that cannot be read.
        """
        body = json.dumps(notice, sort_keys=True).encode()
        key = self._secret().strip()
        if not key:
            raise ConfigError("secret-missing", f"the secret of webhook {self.name} is empty", "make one")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "miad-gateway",
            "X-MIAD-Notice": str(notice["id"]),  # the same at each try
            SIGNATURE: signature(key, body, int(time.time())),
        }
        status = self._asks.tell(self._webhook.url, body, headers)
        if not 200 <= status < 300:
            raise UnreachableError("webhook-refused", f"webhook {self.name} answered HTTP {status}", "see its own log")


def signature(key: bytes, body: bytes, at: int) -> str:
    """What `SIGNATURE` says: when, and by whom; a receiver refuses what is older than some minutes."""
    return f"t={at},v1={hmac.digest(key, f'{at}.'.encode() + body, hashlib.sha256).hex()}"


def subject(notice: Mapping[str, Any]) -> str:
    """One line for a mailbox."""
    if notice["kind"] == "test":
        return f"MIAD Gateway {notice['site']}: a test"
    held = sum(one["count"] for one in notice["held"])
    parts = [f"{held} held"] if held else []
    if endings := len(notice["certificates"]):
        parts.append(f"{endings} certificate{'s' if endings > 1 else ''} running out")
    return f"MIAD Gateway {notice['site']}: {', '.join(parts)}"


def text(notice: Mapping[str, Any]) -> str:
    """A notice for people."""
    if notice["kind"] == "test":
        return f"This is a test of the gateway {notice['site']}: notices arrive here.\n"
    lines = []
    if notice["held"]:
        lines += [f"Newly held, and waiting for a person ({notice['held_in_all']} held in all):", ""]
        for one in notice["held"]:
            to = f", for {', '.join(one['destinations'])}" if one["destinations"] else ""
            lines.append(f"  {one['count']} on route {one['route']}{to}: {one['reason']}")
            lines.append(f"    miad-gateway queue ls --state held --reason {one['reason']}")
            lines.append(f"    {' '.join(one['instances'])}")
        lines.append("")
    if notice["certificates"]:
        lines += ["Certificates that run out:", ""]
        for one in notice["certificates"]:
            days = one["days_left"]
            lines.append(f"  {one['where']}: {f'in {days:g} days' if days > 0 else 'it has ended'}")
        lines += ["", "  miad-gateway certificates show"]
    return "\n".join(lines) + f"\n\nNotice {notice['id']}\n"
