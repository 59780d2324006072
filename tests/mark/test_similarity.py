"""Similarity and series figures against another library, and against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity
from skimage.transform import downscale_local_mean

from gateway.mark.visibility.series import cross_key_correlation, flicker
from gateway.mark.visibility.similarity import ms_ssim, scales_of, ssim
from tests.support.mark.samples import gray8, phantom

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik 2003


def noisy(first: np.ndarray, seed: int = 1, strength: float = 0.1) -> np.ndarray:
    noise = strength * np.random.default_rng(seed).standard_normal(first.shape)
    return np.clip(first + noise, 0, 1).astype(np.float32)


def multi_scale_by_scikit_image(first: np.ndarray, second: np.ndarray, scales: int) -> float:
    """MS-SSIM from scikit-image's parts: with a huge K1 its index is contrast times structure alone."""
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    settings = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    product = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            height, width = (side // 2 * 2 for side in first.shape)
            first = downscale_local_mean(first[:height, :width], (2, 2))
            second = downscale_local_mean(second[:height, :width], (2, 2))
        whole = {} if scale == scales - 1 else {"K1": 1e5}
        product *= structural_similarity(first, second, **settings, **whole) ** weight
    return product


def test_ssim_agrees_with_scikit_image() -> None:
    first = phantom().astype(np.float32)
    second = noisy(first)
    assert ssim(first, first) == pytest.approx(1.0)
    assert ssim(first, second) == pytest.approx(structural_similarity(first, second, data_range=1.0), abs=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "scales"), [(256, 256, 5), (177, 203, 5), (175, 300, 4), (96, 96, 4), (32, 64, 2), (11, 11, 1)]
)
def test_ms_ssim_agrees_with_scikit_image(height: int, width: int, scales: int) -> None:
    first = phantom(height, width).astype(np.float32)
    second = noisy(first)
    assert scales_of(first.shape) == scales
    expected = multi_scale_by_scikit_image(first, second, scales)
    assert ms_ssim(first, second) == pytest.approx(expected, abs=2e-4)
    assert expected < 0.98


def test_ms_ssim_of_equal_opposite_and_constant_images() -> None:
    first = phantom(96, 96).astype(np.float32)
    assert ms_ssim(first, first) == pytest.approx(1.0, abs=1e-6)
    stripes = np.tile(np.float32([0.0, 1.0]), (64, 32))
    assert ms_ssim(stripes, 1.0 - stripes) == 0.0  # negative structure, no power of it
    flat = np.full((64, 64), 0.4, np.float32)
    assert ms_ssim(flat, flat) == pytest.approx(1.0)


def test_ms_ssim_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="at least 11"):
        ms_ssim(np.zeros((10, 40)), np.zeros((10, 40)))
    with pytest.raises(ValueError, match="shapes"):
        ms_ssim(np.zeros((40, 40)), np.zeros((40, 41)))


def test_flicker_by_hand() -> None:
    random = np.random.default_rng(0)
    anatomy = np.cumsum(random.normal(0, 10, (6, 32, 32)), axis=0)  # slices differ by an RMS of 10
    mark = random.normal(0, 1, (32, 32))
    assert flicker(anatomy, anatomy + mark) == pytest.approx(0.0, abs=1e-9)  # the same in each slice: steady
    sign = np.array([1, -1, 1, -1, 1, -1])[:, None, None]
    expected = 2.0 * np.sqrt((mark**2).mean()) / np.sqrt((np.diff(anatomy, axis=0) ** 2).mean())
    assert flicker(anatomy, anatomy + sign * mark) == pytest.approx(expected)


def test_flicker_of_stored_integers_does_not_wrap_around() -> None:
    original = np.stack([gray8(seed=0), gray8(seed=1)])
    assert flicker(original, original) == 0.0
    marked = original.copy()
    marked[1] -= 1  # zeros wrap to 255 in uint8: a change of 255 as far as stored values go
    delta = marked.astype(int) - original
    expected = np.sqrt((np.diff(delta, axis=0) ** 2.0).mean()) / np.sqrt(
        (np.diff(original.astype(int), axis=0) ** 2.0).mean()
    )
    assert flicker(original, marked) == pytest.approx(expected)


def test_flicker_where_the_anatomy_stands_still() -> None:
    still = np.ones((3, 8, 8))
    assert flicker(still, still + 1.0) == 0.0
    assert flicker(still, still * np.arange(3)[:, None, None]) == float("inf")
    for wrong in (still[:1], still[0]):
        with pytest.raises(ValueError, match="stacks"):
            flicker(wrong, wrong)


def test_cross_key_correlation_looks_at_touched_pixels_only() -> None:
    random = np.random.default_rng(0)
    first = np.zeros((3, 64, 64), np.int32)
    first[:, :16] = random.choice([-3, 3], (3, 16, 64))
    second = np.zeros_like(first)
    second[:, :16] = random.choice([-3, 3], (3, 16, 64))
    assert (cross_key_correlation(first, second) < 0.1).all()
    assert cross_key_correlation(first, -first) == pytest.approx([1.0] * 3)
    assert (cross_key_correlation(first, np.zeros_like(first)) == 0.0).all()
    shifted = np.where(first != 0, first + 100, 0)  # equal where both are 0: that alone must not look like agreement
    other = np.where(second != 0, second + 100, 0)
    assert (cross_key_correlation(shifted, other) < 0.1).all()
