"""When to try again."""

from __future__ import annotations

STEP_ATTEMPTS = 5


def delay_s(attempt: int, first_s: float = 2.0, longest_s: float = 300.0) -> float:
    """Seconds to wait before the next attempt: doubling from `first_s`, never more than `longest_s`."""
    return min(longest_s, first_s * 2 ** min(attempt - 1, 30))
