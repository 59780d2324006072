"""When to try again, and how to name an unexpected fault without quoting it."""

from __future__ import annotations

import traceback
from pathlib import Path

STEP_ATTEMPTS = 5


def delay_s(attempt: int, first_s: float = 2.0, longest_s: float = 300.0) -> float:
    """Seconds to wait before the next attempt: doubling from `first_s`, never more than `longest_s`."""
    return min(longest_s, first_s * 2 ** min(attempt - 1, 30))


def fault(error: BaseException) -> str:
    """Type and place of an exception. Its text is left out: it may quote a patient's data (design, promise 7)."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
