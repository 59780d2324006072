"""Figures against cases worked out by hand or by another library."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from gateway.mark.budget import (
    JND,
    Canvas,
    apply_change,
    fit_to_floor,
    inside_amplitude,
    outside_amplitude,
    psnr,
    visibility_threshold,
)
from gateway.mark.display import DisplayMap
from gateway.mark.quality import measure, ssim
from tests.mark.samples import phantom


def canvas() -> Canvas:
    """Return a 40x40 image of stored value 100, window 0..200, mark allowed in the upper half, strokes in 4 rows."""
    region = np.zeros((40, 40), bool)
    region[:20] = True
    strokes = np.zeros((40, 40), bool)
    strokes[:4] = True
    return Canvas(
        stored=np.full((40, 40), 100, np.int32),
        display=DisplayMap(0.0, 200.0),
        valid=(0, 255),
        padding_value=None,
        region=region,
        strokes=strokes,
        threshold=np.full((40, 40), 0.012, np.float32),  # 2.4 stored values
        outside=np.where(region & ~strokes, 0.012, 0.0).astype(np.float32),
        inside=0.1,
        lift=np.where(strokes, np.float32(0.4), np.float32(0.0)),
        outline=np.zeros_like(strokes),
    )


def test_quality_by_hand() -> None:
    marked = canvas().stored.copy()
    marked[:4] += 20  # 160 of 1600 pixels by 0.1 of the window: mean square 0.001
    marked[4, :8] += 3  # 8 pixels outside strokes above the threshold of 2.4
    marked[39, 0] -= 5  # and one in what may not be touched
    untouchable = np.zeros((40, 40), bool)
    untouchable[30:] = True
    quality = measure(canvas(), marked, untouchable, {"W40": (90.0, 130.0)}, 7)
    square = 160 * 0.1**2 + 8 * 0.015**2 + 0.025**2
    assert quality.psnr == pytest.approx(-10 * math.log10(square / 1600), abs=1e-4)
    square = 160 * 0.5**2 + 8 * 0.075**2 + 0.125**2
    assert quality.psnr_windows["W40"] == pytest.approx(-10 * math.log10(square / 1600), abs=1e-3)
    assert quality.stroke_share == 0.1
    assert quality.above_threshold == pytest.approx(9 / 1600)
    assert quality.roi_difference == 5
    assert quality.saturated == 7
    assert set(quality.as_dict()) >= {"psnr", "psnr_windows", "ssim", "roi_difference"}


def test_ssim_agrees_with_scikit_image() -> None:
    first = phantom().astype(np.float32)
    second = np.clip(first + 0.1 * np.random.default_rng(1).standard_normal(first.shape), 0, 1).astype(np.float32)
    assert ssim(first, first) == pytest.approx(1.0)
    assert ssim(first, second) == pytest.approx(structural_similarity(first, second, data_range=1.0), abs=1e-4)


def test_psnr_of_equal_images_is_capped() -> None:
    assert psnr(np.zeros((4, 4)), np.zeros((4, 4))) == 100.0


def test_rounding_outside_strokes_never_crosses_the_threshold() -> None:
    change = np.full((40, 40), 0.0149, np.float32)  # 2.98 stored values, rounds to 3; 2.4 are allowed outside strokes
    marked, cut = apply_change(canvas(), change)
    assert (marked[:4] == 103).all() and (marked[4:20] == 102).all() and (marked[20:] == 100).all()
    assert cut == 0
    assert (apply_change(canvas(), -change)[0][4:20] == 98).all()


def test_valid_range_and_padding_value_are_kept_and_counted() -> None:
    change = np.full((40, 40), 0.1, np.float32)
    marked, cut = apply_change(replace(canvas(), valid=(0, 110)), change)
    assert marked.max() == 110 and cut == 160
    marked, cut = apply_change(replace(canvas(), padding_value=120), change)
    assert (marked[:4] == 100).all() and cut == 160


def test_fit_spends_the_budget_and_not_more() -> None:
    texture = np.random.default_rng(0).choice(np.float32([-1, 1]), (40, 40))
    for floor in (26.0, 32.0, 45.0):
        marked, _ = fit_to_floor(canvas(), texture, floor, peak=0.25)
        assert psnr(canvas().display.shown(canvas().stored), canvas().display.shown(marked)) >= floor


def test_amplitudes_meet_the_budget_in_the_mean() -> None:
    strokes = np.zeros((100, 100), bool)
    strokes[:10] = True
    outline = strokes.copy()
    outline[2:] = False
    nothing = np.zeros((100, 100), np.float32)
    amplitude = inside_amplitude(strokes, outline, nothing, 26.0, peak=1.0)
    # outline lifted by 0.8; inside 0.4 one way, texture 0.6 either way
    square = amplitude**2 * (0.02 * 0.8**2 + 0.08 * (0.4**2 + 0.6**2))
    assert -10 * math.log10(square) == pytest.approx(26.0)
    assert inside_amplitude(strokes, outline, nothing, 26.0, peak=0.1) == 0.1
    outside = outside_amplitude(np.full((10, 10), 0.5), np.ones((10, 10), bool), 0.02, 40.0)
    assert -10 * math.log10(float(np.mean(outside**2))) == pytest.approx(40.0, abs=1e-4)


def test_threshold_is_one_jnd_on_flat_ground_and_follows_noise() -> None:
    flat = np.full((64, 64), 0.5, np.float32)
    assert np.allclose(visibility_threshold(flat, 1.0), JND)
    noisy = flat + 0.05 * np.random.default_rng(0).standard_normal(flat.shape).astype(np.float32)
    middle = visibility_threshold(noisy, 1.0)[16:48, 16:48]
    assert 0.025 < middle.mean() < 0.05  # the high-pass keeps most of white noise; the minimum takes some away
    assert np.allclose(visibility_threshold(noisy, 0.5), np.maximum(JND, 0.5 * visibility_threshold(noisy, 1.0)))
    edge = flat.copy()
    edge[:, 32:] = 0.9
    assert np.allclose(visibility_threshold(edge, 1.0)[:, :22], JND)
