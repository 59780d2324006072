"""How many deliveries are claimed at once: what goes out within a moment.

Rows are claimed and settled in one transaction a batch, so a fast destination gains by large ones. What is claimed no
other worker takes, and a pause or another priority counts for the next batch alone, so a slow one has small ones.
"""

from __future__ import annotations

LEAST = 16
MOST = 64
MOMENT_S = 0.5


class Pace:
    """Of one destination; `size` is how many to claim now. Of use to one thread."""

    def __init__(self) -> None:
        self.size = LEAST

    def took(self, is_whole: bool, seconds: float) -> None:
        """A batch is over, in that time. `is_whole`: as many were tried as were asked for, so there may be more."""
        if seconds > MOMENT_S:
            self.size = max(self.size // 2, LEAST)
        elif is_whole and seconds < MOMENT_S / 2:
            self.size = min(self.size * 2, MOST)
