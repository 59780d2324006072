"""When to try again, and when not."""

from __future__ import annotations

from gateway.errors import HoldError

STEP_ATTEMPTS = 5
MOST_DEATHS = 4  # the first may have been a neighbour's; from then on it goes alone


def delay_s(attempt: int, first_s: float = 2.0, longest_s: float = 300.0) -> float:
    """Seconds to wait before the next attempt: doubling from `first_s`, never more than `longest_s`."""
    return min(longest_s, first_s * 2 ** min(attempt - 1, 30))


def killed_the_worker(step: str, deaths: int) -> HoldError:
    """The error for what no process survives."""
    message = f"{deaths} processes died in the middle of this step ({step}), the last ones had no other work"
    return HoldError("killed-the-worker", message, "see the log and the machine's memory; release tries it alone")
