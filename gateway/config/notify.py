"""The keys of the table [notify]: whom role page tells when something is held or a certificate runs out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import Host, Model, Name, Port, Problem, ServiceUrl, checked, doubled
from gateway.config.secret import SecretRef

PLAIN_STATEMENT = "notices may travel in clear text"

_WORD = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
# RFC 5321 4.1.2. Of others the mail library makes an empty recipient, and says nothing.
_MAILBOX = re.compile(rf"(?=[^@]{{1,64}}@){_WORD}(?:\.{_WORD})*@{_LABEL}(?:\.{_LABEL})*")


def _mailbox(value: str) -> str:
    if len(value) > 254 or not _MAILBOX.fullmatch(value):
        raise ValueError("an address of mail: NAME@HOST")
    return value


Mailbox = Annotated[str, AfterValidator(_mailbox)]


class Mail(Model):
    """Notices by mail (SMTP)."""

    host: Host
    port: Port = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    plain_statement: str = ""  # for "none"
    trust: Path | None = None  # authorities of the server's certificate; unset: those of the system
    user: Annotated[str, Field(max_length=256)] = ""
    password: SecretRef | None = None
    sender: Mailbox
    to: Annotated[tuple[Mailbox, ...], Field(min_length=1)]
    timeout_s: Annotated[float, Field(gt=0, le=120)] = 20

    @model_validator(mode="after")
    def _agrees(self) -> Mail:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        if bool(self.user) != (self.password is not None):
            yield ("user",), "user and password go together"
        if not self.user.isascii():
            yield ("user",), "a login of the mail server has letters, figures and signs of ASCII alone"
        if self.tls == "none" and self.plain_statement != PLAIN_STATEMENT:
            yield ("plain_statement",), f'without TLS it must read "{PLAIN_STATEMENT}"'
        if self.tls == "none" and self.password is not None:
            yield ("password",), "a password does not go out in clear text: starttls or tls"


class Webhook(Model):
    """Notices as JSON, posted to one URL and nowhere else; the signature says that they are ours."""

    name: Name
    url: Annotated[ServiceUrl, Field(min_length=1)]
    secret: SecretRef  # the receiver has it too: HMAC-SHA256 of each notice
    plain_statement: str = ""  # for http://
    trust: Path | None = None  # authorities of its certificate; unset: those of the system
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10

    @model_validator(mode="after")
    def _agrees(self) -> Webhook:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        if self.url.startswith("http://") and self.plain_statement != PLAIN_STATEMENT:
            yield ("plain_statement",), f'for http:// it must read "{PLAIN_STATEMENT}"'


class Notify(Model):
    """Reason codes, counts, internal ids and names of routes and destinations go out: nothing of a patient."""

    interval_minutes: Annotated[float, Field(ge=1, le=1440)] = 60  # the first at once; what follows is summed up
    certificate_days: tuple[Annotated[int, Field(ge=0, le=365)], ...] = (30, 14, 7, 1)  # told of at each of these
    mail: Mail | None = None
    webhooks: tuple[Webhook, ...] = ()

    @model_validator(mode="after")
    def _agrees(self) -> Notify:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        yield from doubled("webhooks", "name", [one.name for one in self.webhooks])
        if self.mail is None and not self.webhooks:
            yield ("mail",), "there is neither [notify.mail] nor [[notify.webhooks]]: nobody would be told"
        for index, one in enumerate(self.webhooks):
            if one.name == "mail":
                yield ("webhooks", index, "name"), "'mail' is the name of [notify.mail]"
