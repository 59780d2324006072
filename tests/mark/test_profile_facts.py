"""What a profile says of windows, colour and band is what the mark does."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from gateway.mark import MarkedImage, MarkRequest, RelativeWindow
from gateway.mark.methods.strong import optimise_texture
from gateway.mark.resample import resize
from gateway.mark.visibility.budget import IN_AIR
from gateway.mark.visibility.chroma import limit_chroma
from gateway.mark.visibility.display import DisplayMap
from plugins.surrogates import rgb
from tests.support.mark.samples import BRAIN, FAST, GRAY, KEY, RGB, disc, gray8, marker, requests, rgb8
from tests.support.mark.samples import small_marker as small

LUMA = np.array([0.299, 0.587, 0.114])


def test_relative_windows_follow_the_primary_one_and_its_polarity() -> None:
    windows = (RelativeWindow("narrow", 0.25, 0.75), RelativeWindow("dark", 0.0, 0.5))
    assert DisplayMap(-100.0, 300.0).within(windows) == {"narrow": (0.0, 200.0), "dark": (-100.0, 100.0)}
    # MONOCHROME1: high stored values are the dark ones
    assert DisplayMap(-100.0, 300.0, inverted=True).within(windows)["dark"] == (100.0, 300.0)


def test_relative_windows_are_reported_beside_the_request_s_own() -> None:
    (request,) = requests(other_windows={"narrow": (0.0, 255.0), "own": (10.0, 60.0)})
    (result,) = small(FAST).mark([request], BRAIN)
    windows = result.quality.psnr_windows
    assert set(windows) == {"narrow", "dark", "own"}
    assert windows["narrow"] == pytest.approx(result.quality.psnr, abs=1e-3)  # a window of the request's comes first
    assert windows["dark"] < result.quality.psnr  # letters that are brighter than dark tissue, at twice the contrast


def test_chroma_is_limited_and_luma_kept() -> None:
    texture = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (2, 3, 40, 40)).astype(np.float32))
    limited = limit_chroma(texture, 0.5).numpy()
    luma = np.einsum("bchw,c->bhw", texture.numpy(), LUMA)
    assert np.allclose(np.einsum("bchw,c->bhw", limited, LUMA), luma, atol=1e-6)
    assert np.abs(limited - luma[:, None]).max() == pytest.approx(0.5, abs=1e-5)
    assert np.abs(limited).max() <= 1.0
    assert np.allclose(limit_chroma(texture, 2.0), texture, atol=1e-6)
    assert torch.equal(limit_chroma(texture[:, :1], 0.5), texture[:, :1])


def chroma_of(result: MarkedImage) -> np.ndarray:
    """Return (H, W): largest deviation of a channel's change from the luma of the change, stored values."""
    return np.abs(result.residual - (result.residual @ LUMA)[..., None]).max(axis=2)


def test_marks_on_rgb_are_mostly_luma() -> None:
    request = MarkRequest(rgb8(192, 192), KEY, roi=disc((192, 192), 0.1))
    coloured, limited = (marker(FAST).mark([request], replace(RGB, chroma=chroma))[0] for chroma in (2.0, RGB.chroma))
    inside = limited.strokes & limited.air
    # Without steps the texture is at its ends: the largest change is all of the amplitude, lift and texture.
    amplitude = np.abs(limited.residual[inside]).max() * (1.0 - IN_AIR.textured_ink)
    assert chroma_of(limited)[inside].max() <= 0.5 * amplitude + 1.0  # a stored value for rounding
    assert chroma_of(coloured)[inside].max() > 0.5 * amplitude + 1.0


def test_optimised_textures_keep_the_limit_too() -> None:
    clean = torch.from_numpy(rgb8(64, 64).transpose(2, 0, 1)[None].astype(np.float32) / 255.0)
    network = replace(rgb.PACK, files=rgb.PACK.files[-1:]).load(torch.device("cpu"))
    plain = torch.full((1, 1, 64, 64), 0.05)
    largest = []
    for constrain in (lambda texture: texture, partial(limit_chroma, share=0.5)):
        random = [np.random.default_rng(0)]
        texture = optimise_texture(clean, plain, 0 * plain, network, (), random, 6, constrain).numpy()
        luma = np.einsum("bchw,c->bhw", texture, LUMA)
        largest.append(np.abs(texture - luma[:, None]).max())
    assert largest[0] > 0.6
    assert largest[1] == pytest.approx(0.5, abs=1e-4)


def surviving(residual: np.ndarray, side: int) -> float:
    """Return the share of a residual's energy that is left when the image is resized to ``side`` pixels."""
    whole = torch.from_numpy(residual.astype(np.float32))[None, None]
    return float((resize(whole, side, side) ** 2).mean() / (whole**2).mean())


@pytest.mark.parametrize("classifier", [128, 224])
def test_the_band_survives_a_classifier_s_resize(classifier: int) -> None:
    """One texture on 512 pixels: in the profile's blocks nearly twice as much is left as pixel by pixel."""
    request = MarkRequest(gray8(512, 512), KEY, roi=disc((512, 512), 0.1))
    discreet = small(FAST.model_copy(update={"tier": "discreet"}))
    (blocks,), (pixels,) = (
        discreet.mark([request], replace(GRAY, texture_side=side)) for side in (GRAY.texture_side, 512)
    )
    kept = surviving(blocks.residual, classifier)
    assert kept > 1.7 * surviving(pixels.residual, classifier)
    assert kept > {128: 0.08, 224: 0.2}[classifier]


def test_a_slope_that_is_no_number_is_refused() -> None:
    for slope in (0.0, float("nan")):
        (result,) = small(FAST).mark(requests(slope=slope), BRAIN)
        assert result.code == "bad-request"
