"""Accuracies as they are told: with their interval."""

from __future__ import annotations

from dataclasses import dataclass

Z = 1.96
"""Of a 95 % interval."""


@dataclass(frozen=True)
class Figure:
    """How many of some images were answered right; as text: share and 95 % interval.

    Attributes
    ----------
    right
        right answers.
    images
        at least one.
    """

    right: int
    images: int

    @property
    def share(self) -> float:
        """0..1."""
        return self.right / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson score interval of the share, 95 % (Wilson 1927)."""
        n, p = self.images, self.share
        middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z * (p * (1 - p) / n + Z * Z / (4 * n * n)) ** 0.5 / (1 + Z * Z / n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:.2f} ({low:.2f} to {high:.2f})"
