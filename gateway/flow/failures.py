"""Failures of deliveries, sorted by what follows: how often and how soon they are tried again, and where else."""

from __future__ import annotations

import re

from gateway.config.destination import FailureKind
from gateway.errors import DeliveryError
from gateway.flow.statuses import failure_kind

# Codes of errors about a destination's certificate, or ours there: these, and all that begin so. They are no kind that
# an operator sets: nothing was sent, and what ends them is a person.
CERTIFICATE = ("certificate-", "tls-failed")

_STATUS = re.compile("status-([0-9a-f]{4})")
_KINDS: dict[str, FailureKind] = {
    "unreachable": "unreachable",  # no connection, or the handshake took too long
    "association-rejected-for-now": "refused-for-now",  # A-ASSOCIATE-RJ, result 2, PS3.8 9.3.4
    "association-rejected": "refused",  # A-ASSOCIATE-RJ, result 1
    "service-unavailable": "refused-for-now",  # HTTP 503, 429 and the like
    "service-refused": "refused",  # HTTP 401, 403, 404 and the like
    "no-answer": "timeout",
    "connection-lost": "aborted",
    "association-aborted": "aborted",  # A-ABORT, PS3.8 9.3.8
    "association-ended": "aborted",
    "unexpected-answer": "aborted",
    "context-refused": "context",  # PS3.8 9.3.3.2
    "no-exact-syntax": "context",
}

_OF_THE_PLACE = frozenset[FailureKind]({"unreachable", "refused-for-now", "refused", "timeout", "resources"})
"""Kinds that say that the destination takes nothing now, whatever it is sent."""


def kind_of_code(code: str | None) -> FailureKind | None:
    """The kind of a failure by its code, as rows keep it; None: it is none of a destination's."""
    if code is None:
        return None
    if status := _STATUS.fullmatch(code):
        return failure_kind(int(status[1], 16))
    return "unreachable" if is_certificate(code) else _KINDS.get(code)


def kind_of(error: DeliveryError) -> FailureKind:
    """The kind of a failure."""
    return kind_of_code(error.code) or "other"


def is_certificate(code: str) -> bool:
    """Whether it is about a certificate."""
    return code.startswith(CERTIFICATE)


def is_of_the_place(error: DeliveryError) -> bool:
    """Whether others would fare no better there now."""
    if error.about_instance:
        return False
    return is_certificate(error.code) or kind_of(error) in _OF_THE_PLACE or error.code == "connection-lost"


def counts_anew(before: str | None, kind: FailureKind) -> bool:
    """Whether tries are counted from 1 again: what failed before had nothing to do with this.

    Two kinds that may both be over the instance itself (no answer is one) go on being counted together: one that a
    destination always chokes on, now in this and now in that way, ends at last.
    """
    last = kind_of_code(before)
    return last is not None and last != kind and bool({last, kind} & _OF_THE_PLACE - {"timeout"})
