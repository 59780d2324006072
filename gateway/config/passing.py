"""When unmarked originals may leave: the sentences that a site writes for it, and a pass that ends by itself.

A standing pass lasts until somebody changes the configuration. Break-glass is for an emergency: it carries its end and
its reason, and what comes after the end is held.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, StringConstraints

from gateway.config.base import Model

PASS_STATEMENT = "I trust these destinations with unmarked originals"  # of a route that passes, or has a rule that does
TRUST_STATEMENT = "this destination is trusted with unmarked originals"  # of every destination of such a route
BREAK_GLASS_HOURS = 24  # an emergency that lasts longer is looked at again, by a person


def _moment(value: object) -> datetime:
    """A date-time with its offset from UTC (RFC 3339, as TOML writes it)."""
    example = "write it as 2026-11-26T08:00:00+01:00"
    if not isinstance(value, str | datetime):
        raise ValueError(f"must be a date and a time: {example}")
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"is no date and time: {example}") from None
    if moment.utcoffset() is None:
        raise ValueError(f"does not say in which time zone it is: {example}")
    return moment


class BreakGlass(Model):
    """The end of a pass, and why there is one at all."""

    until: Annotated[datetime, BeforeValidator(_moment)]
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=200)]  # no patient data

    def state(self, now: float) -> Literal["open", "ended", "too-long"]:
        """Whether originals may pass at `now` (seconds since 1970): not after the end, and not so far before it that
        the end is beyond `BREAK_GLASS_HOURS`.
        """
        left = self.until.timestamp() - now
        if left <= 0:
            return "ended"
        return "open" if left <= timedelta(hours=BREAK_GLASS_HOURS).total_seconds() else "too-long"
