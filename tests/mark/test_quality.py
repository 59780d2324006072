"""Figures against cases worked out by hand or by another library."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from gateway.mark import MarkRequest
from gateway.mark.visibility.budget import (
    ON_ANATOMY,
    Canvas,
    apply_change,
    fit_to_floor,
    inside_amplitude,
    outside_amplitude,
    peak_outside,
    psnr,
    stroke_lift,
)
from gateway.mark.visibility.display import DisplayMap, display_of, untouchable_of
from gateway.mark.visibility.jnd import CALIBRATED, OFFICE
from gateway.mark.visibility.quality import bias_of, jnd_figures, measure
from gateway.mark.visibility.region import find_foreground
from gateway.mark.visibility.threshold import BASE, JND, MASKED, SLOPE, visibility_threshold
from tests.support.mark.samples import (
    BRAIN,
    CT,
    FAST,
    KEY,
    RGB,
    disc,
    gray8,
    marker,
    phantom,
    requests,
    rgb8,
    small_marker,
)


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
        reserved=(),
        region=region,
        strokes=strokes,
        threshold=np.full((40, 40), 0.012, np.float32),  # 2.4 stored values
        outside=np.where(region & ~strokes, 0.012, 0.0).astype(np.float32),
        inside=0.1,
        lift=np.where(strokes, np.float32(0.4), np.float32(0.0)),
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
    assert "details" not in vars(quality)  # nobody has asked for what takes long
    assert set(quality.as_dict()) >= {"psnr", "psnr_windows", "ssim", "ms_ssim", "jnd", "bias", "roi_difference"}
    assert quality.details is quality.details
    assert "later" not in quality.as_dict()


def test_jnd_by_hand() -> None:
    """Changes of a known number of JNDs on a calibrated screen: 581.6 JND are the whole display range."""
    before = np.full((40, 40), 0.13, np.float32)
    after = before.copy()
    strokes = canvas().strokes
    after[:4] += 0.1  # in all strokes: 58.2 JND
    after[10, :8] += 0.003  # 1.74 JND outside
    after[11, :8] += 0.001  # 0.58 JND: not above
    figures = jnd_figures(before, after, strokes, CALIBRATED)
    assert (figures.over_jnd_inside, figures.over_jnd_outside) == (pytest.approx(0.1), pytest.approx(8 / 1600))
    assert figures.peak == pytest.approx(58.16, abs=0.01)
    assert figures.peak_outside == pytest.approx(1.745, abs=0.002)
    assert figures.percentile99 == pytest.approx(58.16, abs=0.01)
    # The same on a screen that is not calibrated: in dark gray a step is 1.67 times as many JND.
    office = jnd_figures(before, after, strokes, OFFICE)
    assert office.peak_outside == pytest.approx(1.745 * 1.667, rel=0.01)
    nothing = jnd_figures(before, before, strokes, OFFICE)
    assert (nothing.over_jnd_inside, nothing.over_jnd_outside, nothing.percentile99, nothing.peak) == (0, 0, 0, 0)


def test_jnd_of_rgb_is_that_of_the_channel_that_changes_most() -> None:
    before = np.full((32, 32, 3), 0.5, np.float32)
    after = before.copy()
    after[0, 0, 2] += 0.01
    figures = jnd_figures(before, after, np.zeros((32, 32), bool), CALIBRATED)
    assert figures.peak == pytest.approx(5.816, abs=0.01)
    assert figures.over_jnd_outside == pytest.approx(1 / 1024)


def test_bias_has_a_sign_and_the_unit_of_the_modality() -> None:
    residual = np.zeros((10, 10), np.int32)
    residual[:2] = -3
    foreground, region = np.ones((10, 10), bool), np.zeros((10, 10), bool)
    region[:4] = True
    stored = bias_of(residual, foreground, region)
    assert (stored.foreground, stored.region, stored.unit) == (pytest.approx(-0.6), pytest.approx(-1.5), "stored value")
    hounsfield = bias_of(residual, foreground, region, slope=-2.0, unit="HU")
    assert (hounsfield.foreground, hounsfield.unit) == (pytest.approx(1.2), "HU")
    assert bias_of(residual, foreground, region, slope=2.0).unit == "stored value"
    assert bias_of(residual, ~foreground, region).foreground == 0.0


def test_a_window_of_its_own_shows_more_jnd() -> None:
    marked = canvas().stored.copy()
    marked[:4] += 2
    quality = measure(canvas(), marked, np.zeros((40, 40), bool), {"W40": (90.0, 130.0)}, 0)
    assert set(quality.jnd) == {"primary", "W40"}
    peaks = [quality.jnd[name]["calibrated"].peak for name in ("primary", "W40")]
    assert peaks == pytest.approx([581.6 * 2 / 200, 581.6 * 2 / 40], rel=1e-3)


CASES = {
    "uint8": (requests()[0], BRAIN),
    "smallest": (MarkRequest(gray8(32, 48), KEY), BRAIN),
    "uint16": (MarkRequest(np.rint(phantom() * 4095).astype(np.uint16), KEY, roi=disc((96, 96), 0.15)), BRAIN),
    "int16": (
        MarkRequest(np.rint(phantom() * 1500 - 1000).astype(np.int16), KEY, roi=disc((96, 96), 0.15), slope=0.5),
        CT,
    ),
    "RGB": (MarkRequest(rgb8(), KEY, roi=disc((96, 96), 0.15)), RGB),
}


@pytest.mark.parametrize("case", CASES)
def test_quality_of_real_marks_is_whole_and_json(case: str) -> None:
    request, profile = CASES[case]
    (result,) = (marker if request.image.ndim == 3 else small_marker)(FAST).mark([request], profile)
    figures = json.loads(json.dumps(result.quality.as_dict(), allow_nan=False))
    assert figures["roi_difference"] == 0
    assert 0.5 < figures["ms_ssim"] < 1.0
    names = {"primary"} | ({window.name for window in profile.relative_windows} if request.image.ndim == 2 else set())
    assert set(figures["jnd"]) == names
    primary = figures["jnd"]["primary"]["calibrated"]
    assert (primary["over_jnd_inside"] > 0.0) == result.strokes.any()
    assert primary["over_jnd_inside"] <= figures["stroke_share"]
    assert primary["peak"] >= primary["percentile99"] > 0.0
    assert figures["bias"]["unit"] == ("HU" if case == "int16" else "stored value")
    mean = result.residual[result.region].mean() * (0.5 if case == "int16" else 1.0)
    assert figures["bias"]["region"] == pytest.approx(mean)
    skipped = untouchable_of(request)
    foreground = find_foreground(display_of(request, skipped).shown(request.image), skipped)
    mean = result.residual[foreground].mean() * (0.5 if case == "int16" else 1.0)
    assert figures["bias"]["foreground"] == pytest.approx(mean)


def test_the_peak_in_units_holds_where_a_wide_window_would_let_more_through() -> None:
    lung = DisplayMap(-1350.0, 150.0)  # slope 1: W1500
    assert peak_outside(CT, lung, slope=None) == CT.peak
    assert peak_outside(CT, lung, slope=1.0) * 1500.0 == pytest.approx(8.0)
    assert peak_outside(CT, lung, slope=-0.5) * 1500.0 == pytest.approx(16.0)  # stored values, 0.5 HU each
    assert peak_outside(CT, DisplayMap(0.0, 80.0), slope=1.0) == CT.peak  # W80: the gray levels are the stricter limit
    assert peak_outside(BRAIN, lung, slope=1.0) == BRAIN.peak


def test_marks_in_a_lung_window_keep_the_peak_in_hounsfield_units() -> None:
    noise = np.random.default_rng(0).normal(0, 60, (96, 96))  # loud, so that noise alone would allow more
    stored = np.where(disc((96, 96), 0.45), np.rint(phantom() * 600 - 800 + noise), -1300).astype(np.int16)
    request = MarkRequest(stored, KEY, roi=disc((96, 96), 0.15), display=(-1350.0, 150.0))
    largest = []
    for slope in (None, 1.0):
        (result,) = small_marker(FAST).mark([replace(request, slope=slope)], CT)
        largest.append(np.abs(result.residual[~result.strokes]).max())
    assert largest[0] > 10
    assert 4 <= largest[1] <= 8  # a texture of nothing but its limits is calmed to half of them


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
    marked, cut = apply_change(replace(canvas(), reserved=((120, 120),)), change)
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
    plain = np.zeros_like(strokes)
    plain[:5] = True
    lift = stroke_lift(strokes.astype(np.float32), outline, plain, ON_ANATOMY)
    amplitude = inside_amplitude(strokes, lift, nothing, 26.0, peak=1.0)
    # what is not shifted is texture, either way
    parts = ((0.02, ON_ANATOMY.rim), (0.03, ON_ANATOMY.ink), (0.05, ON_ANATOMY.textured_ink))
    square = amplitude**2 * sum(share * (lift**2 + (1.0 - lift) ** 2) for share, lift in parts)
    assert -10 * math.log10(square) == pytest.approx(26.0)
    assert inside_amplitude(strokes, lift, nothing, 26.0, peak=0.1) == 0.1
    outside = outside_amplitude(np.full((10, 10), 0.5), np.ones((10, 10), bool), 0.02, 40.0)
    assert -10 * math.log10(float(np.mean(outside**2))) == pytest.approx(40.0, abs=1e-4)


def test_threshold_is_its_base_on_flat_ground_and_follows_noise() -> None:
    flat = np.full((64, 64), 0.5, np.float32)
    assert np.allclose(visibility_threshold(flat, 1.0), BASE)
    noisy = flat + 0.05 * np.random.default_rng(0).standard_normal(flat.shape).astype(np.float32)
    middle = visibility_threshold(noisy, 1.0)[16:48, 16:48]
    expected = MASKED * (0.05 / JND) ** SLOPE
    assert 0.75 * expected < middle.mean() < 1.05 * expected  # the least of eight, and of what is beside it
    half = visibility_threshold(noisy, 0.5)[16:48, 16:48]
    assert np.allclose(half, middle * 0.5**SLOPE, rtol=1e-3)


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("kind", ["edge", "vessel", "rim", "speck"])
def test_structure_masks_nothing(kind: str, noise: float) -> None:
    rows, columns = np.mgrid[:96, :96]
    away = {
        "edge": columns - 0.3 * rows - 30.0,
        "vessel": np.abs(columns - 40.0 - 8.0 * np.sin(rows / 12.0)) - 2.0,
        "rim": np.abs(np.hypot(rows - 48.0, columns - 48.0) - 28.0) - 1.5,
        "speck": np.hypot(rows - 48.0, columns - 48.0) - 2.5,
    }[kind]
    picture = (0.3 + 0.4 * np.clip(0.5 - away, 0.0, 1.0)).astype(np.float32)
    picture += noise * np.random.default_rng(7).standard_normal(picture.shape).astype(np.float32)
    threshold = visibility_threshold(picture, 1.0)
    assert (threshold[np.abs(away) < 1.5] == np.float32(BASE)).mean() > 0.97
    if noise:
        assert (threshold[np.abs(away) > 12.0] > 4.5 * JND).mean() > 0.97


def test_the_two_thresholds_outside_strokes_have_names_of_their_own():
    """In noise a change of more than 1 JND stays hidden: one figure counts it, the figure of the promise does not."""
    given = canvas()
    marked = given.stored.copy()
    marked[10, :8] += 2  # below the masked threshold of 2.4 stored values, above 1 JND
    quality = measure(given, marked, np.zeros(given.stored.shape, bool), {}, 0)
    assert quality.above_threshold == 0
    assert quality.jnd["primary"]["calibrated"].over_jnd_outside == pytest.approx(8 / 1600)
