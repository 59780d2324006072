"""What a C-STORE response says, in one table for delivery and retrieval (PS3.7 annex C, PS3.4 B.2.3)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from gateway.config.destination import FailureKind

SUCCESS = 0x0000
DUPLICATE_SOP_INSTANCE = 0x0111


class Kind(Enum):
    """What follows from a status."""

    STORED = "stored"
    WARNING = "stored, with a warning"  # it has the instance: told, never sent again
    HAS_IT = "has it already"
    LATER = "not stored, may be later"
    FAILED = "not stored"


class _Row(NamedTuple):
    first: int
    last: int
    kind: Kind
    where: str  # in the standard
    failure: FailureKind | None = None  # by which it is tried again, or not: `Destination.retry`


TABLE = (
    _Row(0x0000, 0x0000, Kind.STORED, "success, PS3.7 annex C"),
    _Row(0x0001, 0x0001, Kind.WARNING, "requested optional attributes are not supported, PS3.7 annex C"),
    _Row(0x0107, 0x0107, Kind.WARNING, "attribute list error, PS3.7 C.4.2"),
    _Row(0x0110, 0x0110, Kind.LATER, "processing failure, PS3.7 C.5.10", "processing"),
    _Row(0x0111, 0x0111, Kind.HAS_IT, "duplicate SOP instance, PS3.7 C.5"),
    _Row(0x0116, 0x0116, Kind.WARNING, "attribute value out of range, PS3.7 C.4.3"),
    _Row(0x0117, 0x0117, Kind.FAILED, "invalid object instance, PS3.7 C.5", "data-set"),
    _Row(0x0122, 0x0122, Kind.FAILED, "SOP class not supported, PS3.7 C.5.13", "context"),
    _Row(0x0124, 0x0124, Kind.FAILED, "refused, not authorized, PS3.7 C.5", "refused"),
    _Row(0x0213, 0x0213, Kind.LATER, "resource limitation, PS3.7 C.5", "resources"),
    _Row(0xA700, 0xA7FF, Kind.LATER, "refused, out of resources, PS3.4 B.2.3", "resources"),
    _Row(0xA900, 0xA9FF, Kind.FAILED, "data set does not match SOP class, PS3.4 B.2.3", "data-set"),
    _Row(0xB000, 0xBFFF, Kind.WARNING, "coercion of elements, data set does not match and others, PS3.4 B.2.3"),
    _Row(0xC000, 0xCFFF, Kind.FAILED, "cannot understand, PS3.4 B.2.3", "not-understood"),
)
"""Whatever is in no row is a failure that sending again does not mend."""


def failure_kind(status: int) -> FailureKind:
    """By which kind of failure a status that is none of success or warning is tried again."""
    return next((row.failure for row in TABLE if row.first <= status <= row.last and row.failure), "other")


def kind_of(status: int) -> Kind:
    """What follows from a C-STORE status."""
    return next((row.kind for row in TABLE if row.first <= status <= row.last), Kind.FAILED)


def is_stored(status: int) -> bool:
    """Whether the peer has stored what it was sent just now, with or without a warning."""
    return kind_of(status) in (Kind.STORED, Kind.WARNING)


def is_warning(status: int) -> bool:
    """Whether a status means stored, with a warning."""
    return kind_of(status) is Kind.WARNING


def delivered(status: int) -> bool:
    """Whether the peer has the instance now.

    Of a marked copy, whose UID names its bytes for ever, "duplicate" says so as well. Of an original that a workstation
    retrieves it does not: the object of that UID which the workstation holds may be another generation. So retrieval
    asks `is_stored`.
    """
    return kind_of(status) in (Kind.STORED, Kind.WARNING, Kind.HAS_IT)
