"""Filters against what ``scipy.ndimage`` gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from gateway.mark.visibility import filters

SHAPES = ((96, 131), (33, 32), (7, 5))
"""Height and width: no multiples of a strip, and narrower than a window."""


def plane(shape: tuple[int, int]) -> np.ndarray:
    """Return noise on a slope with an edge, float32 in 0..1."""
    rows, columns = np.mgrid[0 : 1 : shape[0] * 1j, 0 : 1 : shape[1] * 1j]
    noise = np.random.default_rng(shape[0]).normal(0.0, 0.05, shape)
    return np.clip(0.3 * rows + 0.4 * (columns > 0.6) + 0.1 + noise, 0.0, 1.0).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("deviation", (1.0, 1.5, 3.0, 4.0))
def test_gaussian_mean_and_gradient_as_scipy(shape: tuple[int, int], deviation: float) -> None:
    given = plane(shape)
    np.testing.assert_allclose(
        filters.gaussian(given, deviation), ndimage.gaussian_filter(given, deviation), rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        filters.gradient(given, deviation), ndimage.gaussian_gradient_magnitude(given, deviation), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", (1, 3, 5, 7, 9))
def test_windows_as_scipy(shape: tuple[int, int], side: int) -> None:
    given = plane(shape)
    np.testing.assert_allclose(filters.box_mean(given, side), ndimage.uniform_filter(given, side), rtol=0, atol=1e-6)
    pairs: list[tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = [
        (filters.largest, ndimage.maximum_filter),
        (filters.least, ndimage.minimum_filter),
    ]
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours(given, side), theirs(given, side))
        np.testing.assert_array_equal(ours(given > 0.5, side), theirs(given > 0.5, side))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", (0.9, 1.0, 1.5, 2.0, 3.7, 8.0, 20.5))
def test_growth_by_a_disc_as_by_distance(shape: tuple[int, int], radius: float) -> None:
    mask = np.random.default_rng(1).random(shape) > 0.99
    mask[0, 0] = mask[shape[0] // 2, -1] = True
    np.testing.assert_array_equal(filters.grow(mask, radius), ndimage.distance_transform_edt(~mask) <= radius)
    assert not filters.grow(np.zeros(shape, bool), radius).any()


@pytest.mark.parametrize("steps", (0, 1, 4))
def test_growth_by_steps_as_by_repeated_dilation(steps: int) -> None:
    mask = np.random.default_rng(2).random((40, 51)) > 0.99
    wanted = ndimage.binary_dilation(mask, iterations=steps) if steps else mask
    np.testing.assert_array_equal(filters.grow_steps(mask, steps), wanted)
