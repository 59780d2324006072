"""Media types as HTTP and PS3.18 8.7 write them: reading Accept and Content-Type, strictly and in time that grows with
their length.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.network.http.exchange import Answered

_MOST = 32  # ranges of one Accept, parameters of one range
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE = re.compile(rf"[ \t]*({_TOKEN})/({_TOKEN})[ \t]*")
_PARAMETER = re.compile(
    rf';[ \t]*({_TOKEN})=(?:({_TOKEN}(?:/{_TOKEN})?)|"((?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*)")[ \t]*'
)
_QUALITY = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True)
class MediaRange:
    """One media type or range: everything in lower case but the values of parameters."""

    type: str
    parameters: dict[str, str]
    quality: float = 1.0


def accepted(text: str) -> tuple[MediaRange, ...]:
    """The ranges of an Accept header, the best first; those of quality 0 are left out.

    An empty header accepts anything (RFC 9110 12.5.1).

    Raises
    ------
    Answered
        400: it cannot be read.
    """
    if not text.strip():
        return (MediaRange("*/*", {}),)
    ranges, at = [], 0
    while True:
        one, at = _one(text, at, "Accept")
        ranges.append(one)
        if at == len(text):
            break
        if text[at] != "," or len(ranges) == _MOST:
            raise Answered(400, "the Accept header cannot be read")
        at += 1
    return tuple(sorted((one for one in ranges if one.quality > 0), key=lambda one: -one.quality))


def media_type(text: str) -> MediaRange:
    """A Content-Type header.

    Raises
    ------
    Answered
        415: there is none, or it cannot be read.
    """
    try:
        one, at = _one(text, 0, "Content-Type")
    except Answered:
        raise Answered(415, "the Content-Type header cannot be read") from None
    if at != len(text):
        raise Answered(415, "the Content-Type header cannot be read")
    return one


def _one(text: str, at: int, name: str) -> tuple[MediaRange, int]:
    found = _TYPE.match(text, at)
    if found is None:
        raise Answered(400, f"the {name} header cannot be read")
    kind = f"{found[1]}/{found[2]}".lower()
    parameters: dict[str, str] = {}
    at = found.end()
    while at < len(text) and text[at] == ";":
        found = _PARAMETER.match(text, at)
        if found is None or len(parameters) == _MOST or found[1].lower() in parameters:
            raise Answered(400, f"the {name} header cannot be read")
        plain, quoted = found[2], found[3]
        parameters[found[1].lower()] = plain if plain is not None else re.sub(r"\\(.)", r"\1", quoted)
        at = found.end()
    quality = parameters.pop("q", "1")
    if not _QUALITY.fullmatch(quality):
        raise Answered(400, f"the {name} header cannot be read")
    return MediaRange(kind, parameters, float(quality)), at
