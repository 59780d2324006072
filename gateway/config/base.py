"""What the tables of the configuration are made of: checked kinds of text, and the base of all tables."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from gateway.config.secret import SCHEMES, SecretRef


def _ae_title(value: str) -> str:
    """PS3.5 6.2, VR AE: 1 to 16 characters, no backslash or control character, not all spaces."""
    title = value.strip(" ")
    if not 1 <= len(title) <= 16 or "\\" in title or not title.isascii() or not title.isprintable():
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return title


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is no IP address and no network: write it as 10.1.2.3 or 10.1.0.0/16") from None
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", value):
        raise ValueError("a name has 1 to 32 lower-case letters, digits, '-' or '_' and starts with a letter or digit")
    return value


def _sha256(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("a SHA-256 digest has 64 lower-case hexadecimal digits")
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        raise ValueError("a device is 'auto', 'cpu', 'cuda' or 'cuda:N'")
    return value


def _lettering(value: str) -> str:
    if not (value.isascii() and value.isprintable() and any(one.isalnum() for one in value)):
        raise ValueError("words are drawn of printable ASCII characters, at least one of them a letter or digit")
    return value


def _word(value: str) -> str:
    if len(value.split()) != 1 or value != value.strip():
        raise ValueError("one word without spaces")
    return _lettering(value)


def url_or_reference(value: str) -> str:
    """A URL, or a reference to a secret that holds it."""
    return SecretRef(value) if value.startswith(SCHEMES) else value


def _service_url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~-]+)*/?", value):
        raise ValueError("a URL of a service: https:// (or http://), a host, and a path without query")
    return value


def _https_url(value: str) -> str:
    if value and not re.fullmatch(r"https://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~-]+)*/?", value):
        raise ValueError("a URL of a service: https://, a host, and a path without query")
    return value


AETitle = Annotated[str, AfterValidator(_ae_title), Field(json_schema_extra={"minLength": 1})]
Address = Annotated[str, AfterValidator(_network)]  # an IP address or a network in CIDR notation
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": "^[a-z0-9][a-z0-9_-]{0,31}$"})]
Sha256 = Annotated[str, AfterValidator(_sha256), Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})]
Device = Annotated[str, AfterValidator(_device)]
Lettering = Annotated[str, Field(min_length=1, max_length=32), AfterValidator(_lettering)]  # what a mark reads
Word = Annotated[str, Field(min_length=1, max_length=12), AfterValidator(_word)]
ServiceUrl = Annotated[str, AfterValidator(_service_url)]
HttpsUrl = Annotated[str, AfterValidator(_https_url)]
Host = Annotated[str, Field(min_length=1)]  # a name or an IP address
Port = Annotated[int, Field(ge=1, le=65535)]
# TOML has no word for nothing: false is it.
OptionalPort = Annotated[
    Port | None,
    BeforeValidator(lambda value: None if value is False else value),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"const": False}]}),
]


Problem = tuple[tuple[str | int, ...], str]  # a path below the table that is checked, and what is wrong there


class Disagreement(ValueError):
    """Values that are right one by one and wrong together."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(text for _, text in problems))
        self.problems = problems


class Model(BaseModel):
    """Base of all tables: unknown keys are refused and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyModel = TypeVar("AnyModel", bound=Model)


def checked(table: AnyModel, problems: Iterator[Problem]) -> AnyModel:
    """The table itself; raises `Disagreement` when there are problems."""
    if found := list(problems):
        raise Disagreement(found)
    return table


def doubled(table: str, key: str, values: list[str]) -> Iterator[Problem]:
    """A problem for each entry of an array of tables whose `key` repeats that of an earlier entry."""
    for index, value in enumerate(values):
        if value in values[:index]:
            yield (table, index, key), f"{value!r} is taken by {table}[{values.index(value)}]"
