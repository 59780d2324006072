"""What every mark keeps: region of interest and padding untouched, budget, nothing visible outside strokes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gateway.config.marking import AIR_TIERS
from gateway.mark import MarkedImage, MarkRequest, MarkSettings
from gateway.mark.settings import TEXTURE_FLOOR
from gateway.mark.visibility.budget import psnr
from gateway.mark.visibility.display import DisplayMap
from gateway.mark.visibility.threshold import step_limit, visibility_threshold
from tests.support.mark.samples import (
    BRAIN,
    CT,
    FAST,
    GRAY,
    KEY,
    RGB,
    SHORT,
    disc,
    gray8,
    marker,
    phantom,
    requests,
    rgb8,
)
from tests.support.mark.samples import small_marker as small


def only(results: list) -> MarkedImage:
    """Return the one result, which must be a marked image."""
    (result,) = results
    assert isinstance(result, MarkedImage), result
    return result


def sixteen(signed: bool) -> MarkRequest:
    """Return a 16-bit CT-like request: air at the bottom, padding ring, window of the middle values."""
    plane = phantom(128, 128)
    stored = np.rint(plane * 1500.0 - (1000.0 if signed else 0.0)).astype(np.int16 if signed else np.uint16)
    padding = ~disc((128, 128), 0.49)
    stored[padding] = -2000 if signed else 4095
    window = (-1000.0, 300.0) if signed else (0.0, 1300.0)
    return MarkRequest(stored, KEY, padding=padding, roi=disc((128, 128), 0.1), display=window)


CASES = {
    "uint8": (MarkRequest(gray8(), KEY, roi=disc((96, 96), 0.15)), BRAIN),
    "uint8 wide": (MarkRequest(gray8(64, 160), KEY, roi=disc((64, 160), 0.15)), GRAY),
    "uint8 larger than the working size": (MarkRequest(gray8(300, 300), KEY, roi=disc((300, 300), 0.1)), BRAIN),
    "uint16 padded": (sixteen(signed=False), CT),
    "int16 padded": (sixteen(signed=True), CT),
    "monochrome1": (MarkRequest(255 - gray8(), KEY, roi=disc((96, 96), 0.15), inverted=True), GRAY),
    "saliency": (MarkRequest(gray8(seed=3), KEY), BRAIN),
}


TIERS = ["notice", "lettered", "air", "discreet"]


@pytest.mark.some(12)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("case", CASES)
def test_promises(case: str, tier: str) -> None:
    request, profile = CASES[case]
    settings = SHORT.model_copy(update={"tier": tier})
    check(request, only(small(settings).mark([request], profile)), settings, profile.noise_factor)


@pytest.mark.parametrize("tier", TIERS)
def test_promises_rgb(tier: str) -> None:
    settings = FAST.model_copy(update={"tier": tier})
    request = MarkRequest(rgb8(), KEY, roi=disc((96, 96), 0.15))
    check(request, only(marker(settings).mark([request], RGB)), settings, RGB.noise_factor)


def check(request: MarkRequest, result: MarkedImage, settings: MarkSettings, factor: float) -> None:
    """Measure a result from its stored values alone, without the package's own quality figures where it can be done."""
    image = request.image
    assert result.image.dtype == image.dtype and result.image.shape == image.shape
    assert result.residual.dtype == np.int32
    assert np.array_equal(result.image.astype(np.int32) - result.residual, image)
    changed = (result.residual != 0).any(axis=2) if image.ndim == 3 else result.residual != 0
    assert changed.any()
    assert not (changed & ~result.region).any()
    if request.roi is not None:
        assert not (result.region & request.roi).any()
    if request.padding is not None:
        assert not (result.region & request.padding).any()
    assert not (result.region & result.roi).any()
    low, high = request.display or (0.0, 255.0)
    window = DisplayMap(low, high, request.inverted)
    before, after = window.shown(image), window.shown(result.image)
    air, anatomy = np.zeros_like(result.strokes), np.ones_like(result.strokes)
    if result.air is not None and result.anatomy is not None and result.air.any():
        air, anatomy = result.air, result.anatomy
    assert not (air & anatomy).any()
    assert psnr(before[anatomy], after[anatomy]) >= settings.floor_of(result.tier)
    assert result.quality.psnr == pytest.approx(psnr(before[anatomy], after[anatomy]))
    assert not (result.strokes & ~result.region).any()
    assert (result.strokes & ~air).mean() <= settings.max_stroke_share
    assert result.tier == settings.tier or (settings.tier in AIR_TIERS and not (result.strokes & air).any())
    assert result.strokes.any() == (result.tier != "discreet")
    if result.tier != "lettered":
        assert not (result.strokes & ~air).any()
    if result.tier == "air":
        assert not (changed & ~air).any()
    assert not (changed & air & ~result.strokes).any()
    step = np.abs(after - before)
    step = step.max(axis=2) if image.ndim == 3 else step
    visible = step > step_limit(visibility_threshold(before, factor), window.unit) + 1e-6
    assert (visible & ~result.strokes).mean() <= 0.01
    assert result.quality.roi_difference == 0
    if result.strokes.any():
        # ... and it is seen: most of the strokes are above the threshold
        assert (visible & result.strokes).sum() > 0.5 * result.strokes.sum()
        outside = np.where(result.strokes if image.ndim == 2 else result.strokes[..., None], before, after)
        assert psnr(before[anatomy], outside[anatomy]) >= TEXTURE_FLOOR


def test_valid_range_of_12_bits_is_kept() -> None:
    stored = np.rint(phantom() * 4095.0).astype(np.uint16)
    request = MarkRequest(stored, KEY, valid_range=(0, 4095), display=(0.0, 4095.0), roi=disc((96, 96), 0.1))
    bright = replace(request, image=np.where(stored > 0, np.maximum(stored, 4000), 0).astype(np.uint16))
    for one in (request, bright):
        result = only(small(FAST).mark([one], GRAY))
        assert result.image.max() <= 4095
        assert (result.residual != 0).any()


def test_padding_value_is_neither_changed_nor_made() -> None:
    stored = np.rint(phantom() * 40.0).astype(
        np.int16
    )  # few values, so that the mark would often hit the padding value
    stored[:10] = 5
    request = MarkRequest(stored, KEY, reserved=((5, 5),), display=(0.0, 40.0), roi=disc((96, 96), 0.1))
    result = only(small(FAST).mark([request], GRAY))
    assert np.array_equal(result.image == 5, stored == 5)
    assert result.quality.saturated > 0


def test_other_windows_are_reported_not_limited() -> None:
    request = replace(sixteen(signed=True), other_windows={"narrow": (-450.0, -350.0)})
    quality = only(small(FAST).mark([request], CT)).quality
    assert set(quality.psnr_windows) == {"narrow"}
    assert quality.psnr_windows["narrow"] < quality.psnr


def test_monochrome1_is_the_same_mark_turned_over() -> None:
    plain = only(small().mark(requests(), GRAY))
    (request,) = requests()
    turned = only(small().mark([replace(request, image=255 - request.image, inverted=True)], GRAY))
    assert np.array_equal(turned.strokes, plain.strokes)
    # floats of v and 1 - (1 - v) differ in the last bit (the networks' may have 16): a sign may flip here and there,
    # nothing more
    assert (turned.residual != -plain.residual).mean() < 0.05
