"""The guard (architecture, promise 8): what is above the threshold of visibility lies inside strokes, nowhere else.

Measured here from stored values alone, with a threshold computed apart from the package's own, and shown by a picture
whose painted pixels are counted in the file.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from gateway.errors import MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings, ModalityProfile
from gateway.mark.evaluation.picture import INSIDE, OUTSIDE, PANEL, Pair, paint_visible, pair_of, save_picture
from gateway.mark.visibility.ground import left_as_it_is
from gateway.training.labelled_sets import load_test
from plugins.modalities import brain_mr, cr_dx, ct, dermoscopy, fundus, generic_gray, generic_rgb, mr, us
from plugins.surrogates import rgb
from tests.support.mark.samples import KEY, disc, phantom, small_pack

TIERS = ("lettered", "discreet")
ROI = disc((96, 96), 0.15)
REAL = {
    "brain_mri": brain_mr.PROFILE,
    "chest_xray": cr_dx.PROFILE,
    "chest_ct": ct.PROFILE,
    "fundus": fundus.PROFILE,
    "skin": dermoscopy.PROFILE,
}


def quiet(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    """Return the phantom with a quarter of its noise, so that the threshold and not the 40 dB limit the mark."""
    picture = phantom(height, width, seed)
    return np.where(picture > 0, ndimage.gaussian_filter(picture, 1.0), 0.0)


def gray8(height: int = 96, width: int = 96) -> np.ndarray:
    return np.rint(quiet(height, width) * 255).astype(np.uint8)


def rgb8(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    plane = quiet(height, width, seed)
    return np.rint(np.stack([plane, 0.8 * plane, 0.6 * plane], axis=2) * 255).astype(np.uint8)


def ct_slice() -> MarkRequest:
    """Return a signed CT-like slice in Hounsfield units with a ring of padding."""
    stored = np.where(quiet() > 0, np.rint(quiet() * 400 - 150), -1000).astype(np.int16)
    padding = ~disc((96, 96), 0.49)
    stored[padding] = -2000
    return MarkRequest(
        stored, KEY, roi=ROI, padding=padding, reserved=((-2000, -2000),), display=(-160.0, 240.0), slope=1.0,
        other_windows={"W80": (0.0, 80.0)},
    )  # fmt: skip


PHANTOMS: dict[str, tuple[MarkRequest, ModalityProfile]] = {
    "brain-mr": (MarkRequest(np.rint(quiet() * 900).astype(np.uint16), KEY, roi=ROI), brain_mr.PROFILE),
    "mr": (MarkRequest(np.rint(quiet() * 4000 - 500).astype(np.int16), KEY, roi=ROI), mr.PROFILE),
    "ct": (ct_slice(), ct.PROFILE),
    "cr-dx": (
        MarkRequest(4095 - np.rint(quiet() * 4095).astype(np.uint16), KEY, roi=ROI, inverted=True,
                    valid_range=(0, 4095), display=(0.0, 4095.0)),
        cr_dx.PROFILE,
    ),
    "us": (MarkRequest(gray8(), KEY, roi=ROI), us.PROFILE),
    "us RGB": (MarkRequest(rgb8(), KEY, roi=ROI), us.PROFILE),
    "fundus": (MarkRequest(rgb8(seed=1), KEY, roi=ROI), fundus.PROFILE),
    "dermoscopy": (MarkRequest(255 - rgb8(seed=2), KEY, roi=ROI), dermoscopy.PROFILE),
    "generic-gray": (MarkRequest(gray8(64, 96), KEY, roi=disc((64, 96), 0.1)), generic_gray.PROFILE),
    "generic-rgb": (MarkRequest(rgb8(96, 64), KEY, roi=disc((96, 64), 0.1)), generic_rgb.PROFILE),
}  # fmt: skip


@cache
def marker(tier: str) -> Marker:
    """Return a marker with one small network for gray and one for RGB images, and two steps."""
    colour = replace(rgb.PACK, files=tuple(path for path in rgb.PACK.files if path.stem == "squeezenet"))
    return Marker(MarkSettings(tier=tier, steps=2, device="cpu"), packs=[small_pack(), colour])


def marked(request: MarkRequest, profile: ModalityProfile, tier: str) -> MarkedImage | None:
    """Return the mark; None where eight bits without noise take no change that is not seen: such an image is held."""
    (result,) = marker(tier).mark([request], profile)
    if tier == "discreet" and isinstance(result, MarkError):
        assert result.code == "over-budget" and request.image.dtype == np.uint8
        return None
    assert isinstance(result, MarkedImage), result
    return result


def shown(request: MarkRequest, stored: np.ndarray) -> np.ndarray:
    """Display values by hand: the window's share, cut, turned over for MONOCHROME1."""
    if request.display is not None:
        low, high = request.display
    elif request.image.dtype == np.uint8:
        low, high = 0.0, 255.0
    else:
        low, high = np.percentile(request.image[request.image > request.image.min()], (0.5, 99.5))
    share = np.clip((stored.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    return 1.0 - share if request.inverted else share


def threshold(display: np.ndarray, factor: float) -> np.ndarray:
    """The masked threshold by hand: the least of second differences in eight directions, none of it at structure."""
    gray = display if display.ndim == 2 else display @ np.array([0.299, 0.587, 0.114])
    wide, view = np.pad(gray, 2, "reflect"), np.lib.stride_tricks.sliding_window_view
    energies = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1)):
        kernel = np.zeros((5, 5))
        kernel[2, 2], kernel[2 + down, 2 + right], kernel[2 - down, 2 - right] = 2.0, -1.0, -1.0
        difference = (view(wide, (5, 5)) * kernel).sum(axis=(2, 3))
        energies.append(view(np.pad(difference**2 / 6.0, 4, "symmetric"), (9, 9)).mean(axis=(2, 3)))
    noise = ndimage.minimum_filter(1.15 * np.sqrt(np.min(energies, axis=0)), 3)
    gradient = ndimage.gaussian_gradient_magnitude(gray, 1.5)
    explained = 5.0 * ndimage.gaussian_filter(noise, 3.0) / 11.3 + 0.003
    structure = np.clip(ndimage.maximum_filter(gradient / explained, 5) - 1.0, 0.0, 1.0)
    contrast = factor * noise * (1.0 - structure) * 582.0
    return np.maximum(1.5, 1.05 * (1.0 + contrast**4) ** 0.175) / 582.0


def visible(request: MarkRequest, image: np.ndarray, factor: float) -> np.ndarray:
    """Return (H, W) bool: what changes by more than the threshold (and 1 % of it, for rounding of floats).

    One gray level of 255 is the least that an image of 8 bits can change by.
    """
    before = shown(request, request.image)
    change = np.abs(shown(request, image) - before)
    least = 1.0 / 255.0 if image.dtype == np.uint8 and request.display is None else 0.0
    most = np.maximum(threshold(before, factor), least)
    return (change.max(axis=2) if change.ndim == 3 else change) > 1.01 * most


@dataclass(frozen=True)
class Painted:
    """Image pixels that the fourth panel of a one-row picture shows in colour."""

    inside: float
    outside: float


def painted(path: Path, shape: tuple[int, ...]) -> Painted:
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    panel = pixels[:, pixels.shape[1] * 3 // 4 :]
    per_pixel = max(1, round(PANEL / max(shape[:2]))) ** 2
    red = (panel == OUTSIDE).all(axis=2)
    coloured = panel.max(axis=2) != panel.min(axis=2)
    return Painted(float((coloured & ~red).sum() / per_pixel), float(red.sum() / per_pixel))


def check(request: MarkRequest, profile: ModalityProfile, tier: str, path: Path) -> None:
    result = marked(request, profile, tier)
    if result is None:
        return
    untouched = result.roi if request.roi is None else request.roi | result.roi
    assert untouched.any()
    assert np.array_equal(result.image[untouched], request.image[untouched])
    if request.padding is not None:
        assert np.array_equal(result.image[request.padding], request.image[request.padding])
    seen = visible(request, result.image, profile.noise_factor)
    outside = seen & ~result.strokes
    assert outside.mean() <= 0.01
    assert result.quality.above_threshold <= 0.01
    if tier == "lettered":
        assert (seen & result.strokes).sum() > 0.5 * result.strokes.sum() > 0
    else:
        assert not result.strokes.any()
    save_picture([pair_of(request, result, profile.noise_factor, profile.name)], path)
    colours = painted(path, request.image.shape)
    assert colours.outside <= 0.01 * outside.size
    assert colours.outside == pytest.approx(outside.sum(), abs=2)
    assert colours.inside == pytest.approx((seen & result.strokes).sum(), abs=2 + 0.01 * result.strokes.sum())


@pytest.mark.some(8)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("kind", PHANTOMS)
def test_what_is_visible_lies_inside_strokes(kind: str, tier: str, tmp_path: Path) -> None:
    check(*PHANTOMS[kind], tier, tmp_path / "picture.png")


@pytest.mark.some(5)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", REAL)
def test_what_is_visible_lies_inside_strokes_of_real_images(
    name: str, tier: str, miad_data: Path, tmp_path: Path
) -> None:
    image = load_test(miad_data / name).images[0]
    check(MarkRequest(image, KEY), REAL[name], tier, tmp_path / "picture.png")


@pytest.mark.parametrize("kind", ["us", "us RGB", "cr-dx"])
def test_a_breach_is_measured_and_painted_red(kind: str, tmp_path: Path) -> None:
    """The guard itself: changes that were put outside strokes by hand are found, counted and shown."""
    request, profile = PHANTOMS[kind]
    result = marked(request, profile, "discreet") or left_as_it_is(request)
    broken = result.image.copy()
    step = 40 if broken.dtype == np.uint8 else 700
    broken[48, 20:32] = np.where(broken[48, 20:32] > 2 * step, broken[48, 20:32] - step, broken[48, 20:32] + step)
    assert (visible(request, broken, profile.noise_factor) & ~result.strokes).sum() == 12
    save_picture([pair_of(request, replace(result, image=broken), profile.noise_factor, kind)], tmp_path / "red.png")
    assert painted(tmp_path / "red.png", request.image.shape) == Painted(inside=0.0, outside=12.0)


def test_what_is_inside_is_outlined_and_what_is_outside_is_solid() -> None:
    gray = np.full((12, 12), 0.5)
    strokes = np.zeros((12, 12), bool)
    strokes[2:7, 2:7] = True
    seen = strokes.copy()
    seen[9, 9] = True
    picture = paint_visible(gray, strokes, seen)
    assert (picture == INSIDE).all(axis=2).sum() == 16  # the rim of 5x5
    assert np.array_equal(picture[4, 4], [64, 139, 191])  # half gray, half blue
    assert np.argwhere((picture == OUTSIDE).all(axis=2)).tolist() == [[9, 9]]
    assert (picture[0] == 128).all()


def test_a_picture_of_a_large_image_loses_no_visible_pixel(tmp_path: Path) -> None:
    """At 1000 pixels several share one on the screen; a single red one must still be there."""
    plain = np.full((1000, 800), 0.5, np.float32)
    strokes, seen = np.zeros(plain.shape, bool), np.zeros(plain.shape, bool)
    strokes[:, :500] = True
    seen[501, 499:501] = True  # one inside and one outside, side by side
    save_picture([Pair("large", "", plain, plain, strokes, seen)], tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as file:
        pixels = np.asarray(file.convert("RGB"))
        assert file.width < 4 * 400
    assert (pixels == OUTSIDE).all(axis=2).sum() >= 1
    with pytest.raises(ValueError, match="at least one"):
        save_picture([], tmp_path / "none.png")
