"""Rules of a route: exceptions to the policy table, by what an object is, where it came from, and when."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import Address, Model, Problem, checked
from gateway.config.schedule import WindowText, ZoneName

_KEYWORD = re.compile(r"[A-Z][A-Za-z0-9]{1,63}")
_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\)?")
_PRIVATE_TAG = re.compile(r"\(?([0-9A-Fa-f]{3}[13579BDFbdf]),[xX]{2}([0-9A-Fa-f]{2})\)?")
_HOW = 'a keyword as "StationName", a tag as "0008,1010", or with a creator a private one as "0029,xx08"'


def _pattern(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a pattern is printable text; * stands for any letters, ? for one")
    return value


Pattern = Annotated[str, Field(max_length=256), AfterValidator(_pattern)]
"""Text with * for any letters, also none, and ? for one; capital and small letters are the same."""


class TagMatch(Model):
    """One element of the object, by its value: any of several values is enough."""

    tag: str
    creator: Annotated[str, Field(max_length=64)] = ""  # of a private element's block
    like: Pattern  # "": the element is empty, or not there

    @model_validator(mode="after")
    def _agrees(self) -> TagMatch:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        if self.creator and not _PRIVATE_TAG.fullmatch(self.tag):
            yield ("tag",), 'with a creator, tag is as "0029,xx08": odd group, xx, and the last two digits'
        elif not self.creator and _PRIVATE_TAG.fullmatch(self.tag):
            yield ("creator",), "a private element is found by the creator of its block: name it"
        elif not (self.creator or _KEYWORD.fullmatch(self.tag) or _TAG.fullmatch(self.tag)):
            yield ("tag",), f"is no element: {_HOW}"
        elif not self.creator and (found := _TAG.fullmatch(self.tag)) and int(found[1], 16) % 2:
            yield ("tag",), 'group is odd: a private element is written as "0029,xx08", with its creator'

    @property
    def number(self) -> int | None:
        """The tag; None for a keyword, which the dictionary knows, and of a private element that of block 0."""
        form = _PRIVATE_TAG if self.creator else _TAG
        found = form.fullmatch(self.tag)
        return int(found[1], 16) << 16 | int(found[2], 16) if found else None


class Rule(Model):
    """An exception to the policy table; of a route's rules the first that fits decides.

    All keys that are given must fit, and of a list one entry. What an object says of itself, and its AE title, anybody
    may write; an address, and a peer that a certificate binds, are facts.
    """

    sop_class: str = ""  # SOP Class UID
    modality: str = ""  # (0008,0060), as "US"
    photometric: str = ""  # (0028,0004), as "PALETTE COLOR"
    body_part: tuple[Pattern, ...] = ()  # (0018,0015), or the region of an enhanced image's Frame Anatomy
    description: tuple[Pattern, ...] = ()  # Study or Series Description, or Protocol Name
    calling_ae: tuple[Pattern, ...] = ()
    addresses: tuple[Address, ...] = ()  # IP addresses and networks that it came from
    tags: tuple[TagMatch, ...] = ()  # all of them
    when: tuple[WindowText, ...] = ()  # it was received: windows of the week
    time_zone: ZoneName = ""  # of `when`; empty: the machine's
    action: Literal["mark", "remap", "hold", "block", "pass"]

    @model_validator(mode="after")
    def _agrees(self) -> Rule:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        asked = set(type(self).model_fields) - {"action", "time_zone"}
        if not any(getattr(self, name) for name in asked):
            named = ", ".join(name for name in type(self).model_fields if name in asked)
            yield (), f"a rule says what it is for: give one or more of {named}"
        if re.fullmatch(r"[0-9.]*", self.sop_class) is None:
            yield ("sop_class",), "sop_class is a UID: digits and dots"
        if self.time_zone and not self.when:
            yield ("time_zone",), "there is no `when` that it could be of"
