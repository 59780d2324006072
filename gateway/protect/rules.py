"""Whether a rule of a route fits an object: what the object says of itself, where it came from, and when."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import UID

from gateway.config.models import Route
from gateway.config.rules import Rule, TagMatch
from gateway.config.schedule import is_open
from gateway.dicom.encoding import values
from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.private import blocks_of

_NO_TEXT = {"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN"}
DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName")


def is_known_class(uid: str) -> bool:
    """Whether a UID is a SOP class of the DICOM dictionary (PS3.6 annex A), retired ones included."""
    return UID(uid).type == "SOP Class"


@dataclass(frozen=True)
class Arrival:
    """How an object came: facts of its association, and the time. What is not known fits no rule that asks for it.

    Attributes
    ----------
    received_at
        Seconds since 1970. It stays what it was when the object is decided again, later: so does what rules make of it.
    """

    calling_ae: str = ""
    peer_address: str = ""
    received_at: float | None = None


UNKNOWN = Arrival()


def first_that_fits(route: Route, header: InstanceHeader, arrival: Arrival) -> int | None:
    """The place of the first rule of a route that fits, counted from 0; None: there is none."""
    return next((index for index, rule in enumerate(route.rules) if fits(rule, header, arrival)), None)


def fits(rule: Rule, header: InstanceHeader, arrival: Arrival) -> bool:
    """Whether all that the rule asks for is so."""
    return all(fitting for _, fitting in asked(rule, header, arrival))


def asked(rule: Rule, header: InstanceHeader, arrival: Arrival) -> Iterable[tuple[str, bool]]:
    """Each key that the rule gives, with whether it fits; what is cheap comes first."""
    for name, wanted, found in (
        ("sop_class", rule.sop_class, header.sop_class_uid),
        ("modality", rule.modality, header.modality),
        ("photometric", rule.photometric, header.photometric),
    ):
        if wanted:
            yield name, wanted == found
    if rule.calling_ae:
        yield "calling_ae", bool(arrival.calling_ae) and _any(rule.calling_ae, [arrival.calling_ae])
    if rule.addresses:
        yield "addresses", _listed(arrival.peer_address, rule.addresses)
    if rule.when:
        yield "when", arrival.received_at is not None and is_open(rule.when, rule.time_zone, arrival.received_at)
    if rule.body_part:
        yield "body_part", _any(rule.body_part, [header.body_part])
    if rule.description:
        texts = [text for keyword in DESCRIPTIONS for text in values.texts(header.dataset, keyword)]
        yield "description", _any(rule.description, texts or [""])
    for match in rule.tags:
        yield f"tags {match.tag}", _any((match.like,), _values(header.dataset, match) or [""])


def check_tag(match: TagMatch) -> str:
    """Why an element cannot be compared; empty when it can."""
    if match.creator:
        return ""
    tag = match.number if match.number is not None else tag_for_keyword(match.tag)
    if tag is None:
        return f"{match.tag} is no keyword of the DICOM dictionary"
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return f"{match.tag} is not in the DICOM dictionary"
    return f"{match.tag} holds no text or number" if vr.split(" or ")[0] in _NO_TEXT else ""


def _values(ds: Dataset, match: TagMatch) -> list[str]:
    """Values of the element as text; none of what is no text or number."""
    tag = match.number if match.number is not None else tag_for_keyword(match.tag)
    if tag is None:
        return []
    tags = [tag]
    if match.creator:
        tags = [tag | block << 8 for block in blocks_of(ds, tag >> 16, match.creator)]
    found = [value for one in tags for value in values.values(ds, one)]
    texts = [str(value).strip(" \0\r\n\t") for value in found if not isinstance(value, bytes | Dataset)]
    return [text for text in texts if text]


def _any(patterns: Iterable[str], texts: Iterable[str]) -> bool:
    return any(_compiled(pattern).match(text) for pattern in patterns for text in texts)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """As `fnmatch`, but that [ and ] are letters as any other."""
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")), re.IGNORECASE)


def _listed(address: str, networks: Iterable[str]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in ipaddress.ip_network(network, strict=False) for network in networks)
