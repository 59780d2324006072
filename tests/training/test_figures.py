"""Accuracies as they are told."""

from __future__ import annotations

import pytest

from gateway.training.figures import Figure


@pytest.mark.parametrize(
    ("right", "images", "low", "high"), [(81, 263, 0.2553, 0.3662), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)]
)
def test_the_interval_is_wilson_s(right: int, images: int, low: float, high: float) -> None:
    """The first row: Newcombe 1998, Statistics in Medicine 17, table I."""
    assert Figure(right, images).interval == pytest.approx((low, high), abs=1e-4)


def test_a_figure_reads() -> None:
    assert str(Figure(144, 180)) == "0.80 (0.74 to 0.85)"
