"""Displays that are no straight ramp (VOI LUT, sigmoid): limits, letters and figures go by what the table shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.errors import MarkError
from gateway.mark import Curve, MarkedImage, MarkRequest, MarkSettings, RelativeWindow
from gateway.mark.visibility.curve import CurveMap
from gateway.mark.visibility.threshold import visibility_threshold
from tests.support.mark.samples import CT, FAST, GRAY, KEY, disc, phantom, small_marker

STORED = np.arange(4096)
CURVES = {
    "gamma": (STORED / 4095.0) ** 2.2,
    "sigmoid": 1.0 / (1.0 + np.exp(-4.0 * (STORED - 1500) / 600.0)),
    "steep": np.clip((STORED - 1800) / 120.0, 0.0, 1.0),
    "falling": 1.0 - (STORED / 4095.0) ** 0.5,
    "steps": np.floor(STORED / 64.0) / 63.0,
    "there and back": np.abs(STORED / 2047.5 - 1.0),
}


def request(curve: np.ndarray, **changes: object) -> MarkRequest:
    """Return a request of a 12-bit head-like picture shown by a curve."""
    image = np.rint(phantom(128, 128, 3) * 3500.0 + 60.0).astype(np.uint16)
    base = MarkRequest(image, KEY, valid_range=(0, 4095), display=Curve(0, curve.astype(np.float32)), position=0.0)
    return replace(base, **changes)


def shown(request_: MarkRequest, stored: np.ndarray) -> np.ndarray:
    """Return the display by the table itself, none of the product's code."""
    shades = np.asarray(request_.display.shades)[stored.astype(int) - request_.display.first]
    return 1.0 - shades if request_.inverted else shades


@pytest.mark.parametrize("inverted", [False, True], ids=["", "inverted"])
@pytest.mark.parametrize("name", CURVES)
def test_marks_keep_their_limits_by_the_table(name: str, inverted: bool) -> None:
    asked = request(CURVES[name], inverted=inverted, roi=disc((128, 128), 0.15))
    (result,) = small_marker(FAST).mark([asked], GRAY)
    assert isinstance(result, MarkedImage), result
    before, after = shown(asked, asked.image), shown(asked, result.image)
    counted = result.anatomy if result.air is not None and result.air.any() else np.ones_like(result.strokes)
    psnr = -10.0 * np.log10(np.mean((before - after)[counted] ** 2))
    over = result.strokes if result.air is None else result.strokes & ~result.air
    if name == "steep" and not inverted:  # what it shows of the anatomy is too ragged for a word
        assert not over.any() and psnr >= 40.0
        return
    assert 26.0 <= psnr < 45.0 and result.quality.psnr == pytest.approx(psnr, abs=0.02)
    threshold = visibility_threshold(before.astype(np.float32), GRAY.noise_factor)
    assert (np.abs(after - before)[~result.strokes] <= threshold[~result.strokes] + 1e-5).all()
    assert not result.residual[asked.roi].any()
    # what is written is seen: letters change by what a reader sees, but for a rim where the window ends
    assert (np.abs(after - before)[result.strokes] > 4.0 / 255.0).mean() > 0.35


@pytest.mark.parametrize("name", CURVES)
def test_the_way_back_finds_the_nearest_shade_on_the_pixels_own_run(name: str) -> None:
    shades = CURVES[name].astype(np.float32)
    one = CurveMap(Curve(-100, shades))
    random = np.random.default_rng(2)
    stored, change = random.integers(-100, 3996, 400), random.uniform(-0.1, 0.1, 400)
    most = np.full(400, 0.06)
    moved = one.moved(stored, change, one.limit_of(most))
    before, after = shades[stored + 100].astype(float), shades[moved + 100].astype(float)
    assert (np.abs(after - before) <= most + 1e-6).all()
    assert ((after - before) * change >= -1e-7).all()  # never the other way
    if name in ("gamma", "falling"):  # no flat place, no turn: within half a step of what was asked
        reached = np.clip(before + np.clip(change, -most, most), shades.min(), shades.max())
        assert (np.abs(after - reached) <= 2.0 / 255.0).mean() > 0.9


def test_units_limit_what_lies_outside_strokes_where_the_curve_is_flat() -> None:
    one = CurveMap(Curve(0, CURVES["sigmoid"].astype(np.float32)))
    moved = one.moved(np.array([100, 1500]), np.array([0.05, 0.05]), one.limit_of(np.array([0.05, 0.05]), 8.0))
    assert (np.abs(moved - [100, 1500]) <= 8).all()
    wide = one.moved(np.array([1500]), np.array([0.3]), one.limit_of(np.array([np.inf]), 8.0))
    assert abs(float(CURVES["sigmoid"][wide[0]]) - 0.8) < 0.01


def test_letters_are_not_put_where_the_curve_is_flat() -> None:
    one = CurveMap(Curve(0, CURVES["steep"].astype(np.float32)))
    assert one.readable(np.array([1000, 1799, 1850, 1921, 3000])).tolist() == [False, True, True, True, False]
    assert one.brought_in(np.array([1000, 1850, 3000])).tolist() == [1800, 1850, 1920]


def test_windows_as_shares_of_a_curve() -> None:
    for inverted in (False, True):
        one = CurveMap(Curve(0, CURVES["gamma"].astype(np.float32)), inverted)
        found = one.within((RelativeWindow("narrow", 0.25, 0.75),))["narrow"]
        again = CurveMap(found, inverted).shown(STORED)
        assert np.allclose(again, np.clip((one.shown(STORED) - 0.25) / 0.5, 0.0, 1.0), atol=1e-5)


@pytest.mark.parametrize(
    "shades", [np.zeros(9), np.ones((3, 3)), np.array([0.0]), np.array([0.0, np.nan])], ids=["flat", "2-D", "1", "nan"]
)
def test_a_curve_that_shows_nothing_is_refused(shades: np.ndarray) -> None:
    (result,) = small_marker(FAST).mark([request(CURVES["gamma"], display=Curve(0, shades))], GRAY)
    assert isinstance(result, MarkError) and result.code == "bad-request"


def test_discreet_and_paper_go_by_the_table_too() -> None:
    for settings in (
        MarkSettings(tier="discreet", steps=0, device="cpu"),
        MarkSettings(mode="paper", steps=0, population=6, generations=1, device="cpu"),
    ):
        asked = request(CURVES["sigmoid"], slope=1.0)
        (result,) = small_marker(settings).mark([asked], CT)
        assert isinstance(result, MarkedImage), result
        error = np.mean((shown(asked, asked.image) - shown(asked, result.image)) ** 2)
        assert -10.0 * np.log10(error) >= settings.psnr_floor
