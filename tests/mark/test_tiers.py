"""The four tiers: what each changes where, and what becomes of images without air to write on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gateway.errors import MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings, ModalityProfile
from gateway.mark.evaluation.sight import seen_differences
from gateway.mark.methods.strong import optimise_texture
from gateway.mark.profiles import load_profiles
from gateway.mark.visibility.region import luminance
from plugins.surrogates import rgb
from tests.mark.test_zones_drawn import DRAWN, drawn
from tests.support.mark.pictures import request_in
from tests.support.mark.samples import BRAIN, CPU, KEY, disc, gray8, phantom, small_pack

PROFILES = load_profiles()
WITH_AIR = MarkRequest(gray8(256, 256), KEY)
ALL_ANATOMY = MarkRequest(np.rint(phantom(400, 400)[100:292, 100:292] * 200.0 + 20.0).astype(np.uint8), KEY)


def marked(request: MarkRequest, profile: ModalityProfile = BRAIN, **settings: object) -> MarkedImage | MarkError:
    """Return the mark without any optimisation."""
    chosen = MarkSettings(steps=0, device="cpu", **settings)
    (result,) = Marker(chosen, packs=[small_pack(), rgb.PACK]).mark([request], profile)
    return result


def whole(result: MarkedImage | MarkError) -> MarkedImage:
    """Return a result that is no error."""
    assert isinstance(result, MarkedImage), result
    return result


def test_notice_is_the_default_and_writes_in_the_air_alone() -> None:
    result = whole(marked(WITH_AIR))
    assert MarkSettings().tier == result.tier == "notice" and result.air is not None and result.anatomy is not None
    assert result.strokes.any() and not (result.strokes & ~result.air).any()
    change = np.abs(result.residual)
    assert np.median(change[result.strokes]) > 60 and change[result.strokes].max() <= 0.6 * 255 + 1
    assert change[result.anatomy].max() <= 6 and result.quality.psnr >= 42.0
    assert not change[result.air & ~result.strokes].any()


def test_lettered_writes_over_the_anatomy_too() -> None:
    result = whole(marked(WITH_AIR, tier="lettered"))
    assert result.air is not None and (result.strokes & result.air).any() and (result.strokes & ~result.air).any()
    assert 26.0 <= result.quality.psnr < 42.0


def test_plain_words_over_anatomy_leave_energy_to_those_that_mislead() -> None:
    """Two words read; most of the strokes carry texture, under one budget."""
    result = whole(marked(ALL_ANATOMY, tier="lettered"))
    change = np.abs(result.residual[result.strokes]) / 255.0
    strong, weak = change[change > 0.2], change[(change > 0.03) & (change <= 0.2)]
    assert 26.0 <= result.quality.psnr < 26.5
    assert weak.size > strong.size > 0.1 * change.size  # random texture: half of a pixel's amplitude goes either way
    assert 0.1 < np.sum(weak**2) / np.sum(change**2) < 0.4


def test_discreet_shows_nothing_anywhere() -> None:
    result = whole(marked(WITH_AIR, tier="discreet"))
    assert not result.strokes.any() and result.air is not None and not result.residual[result.air].any()
    assert result.residual.any() and np.abs(result.residual).max() <= 6 and result.quality.psnr >= 42.0


@pytest.mark.parametrize("tier", ["notice", "air"])
@pytest.mark.parametrize("instead", ["lettered", "discreet"])
def test_an_image_without_air_is_marked_as_the_settings_say(tier: str, instead: str) -> None:
    result = whole(marked(ALL_ANATOMY, tier=tier, without_air=instead))
    assert result.tier == instead and result.strokes.any() == (instead == "lettered") and result.residual.any()
    same = whole(marked(ALL_ANATOMY, replace(BRAIN, without_air=instead), tier=tier))
    assert same.tier == instead and np.array_equal(same.image, result.image)


@pytest.mark.parametrize("tier", ["notice", "air"])
def test_an_image_without_air_is_held_where_the_settings_say_so(tier: str) -> None:
    result = marked(ALL_ANATOMY, tier=tier, without_air="hold")
    assert isinstance(result, MarkError) and result.code == "no-air" and tier in str(result)


def test_without_air_goes_with_tiers_that_need_air() -> None:
    with pytest.raises(ValidationError, match="notice"):
        MarkSettings(tier="lettered", without_air="hold")


def test_the_paper_mode_is_lettered_where_no_tier_is_named() -> None:
    assert MarkSettings(mode="paper").tier == "lettered"


@pytest.mark.parametrize("tier", ["notice", "lettered", "air", "discreet"])
def test_the_region_of_interest_is_bit_identical_in_every_tier_wherever_it_lies(tier: str) -> None:
    roi = disc((256, 256), 0.1)
    roi[:60, :60] = True  # in the air
    result = whole(marked(replace(WITH_AIR, roi=roi), tier=tier))
    assert not result.residual[roi].any() and result.residual.any()


def test_tier_air_leaves_anatomy_that_a_person_drew_bit_identical(miad_data: Path) -> None:
    carried = (miad_data / "STANDIN").exists()
    cases = [one for one in DRAWN if not carried or one["image"].startswith("data/dicom/pydicom/")]
    written = 0
    for one in cases[:: 1 if carried else 3]:
        request = request_in(miad_data, one["image"])
        result = marked(request, PROFILES[one["profile"]], tier="air", without_air="hold")
        if isinstance(result, MarkError):
            assert result.code == "no-air", (one["image"], str(result))
            continue
        written += 1
        changed = result.residual != 0
        changed = changed.any(axis=2) if changed.ndim == 3 else changed
        assert changed.any() and not (changed & drawn(one["anatomy"], changed.shape)).any(), one["image"]
    assert written >= (1 if carried else 8)


@pytest.mark.parametrize(
    ("name", "profile"),
    [("brain_mri", "brain-mr"), ("chest_xray", "cr-dx"), ("fundus", "fundus"), ("skin", "dermoscopy")],
)
def test_a_second_measure_sees_nothing_on_the_anatomy(name: str, profile: str, miad_data: Path) -> None:
    with np.load(miad_data / name / "test.npz") as held:
        images = held["images"][:2]
    for image in images:
        request = MarkRequest(np.ascontiguousarray(image), KEY)
        result = marked(request, PROFILES[profile], tier="discreet")
        if isinstance(result, MarkError):  # no change below visibility survives eight bits
            assert result.code in ("over-budget", "no-free-area")
            continue
        before, after = (luminance(one.astype(np.float32) / np.float32(255.0)) for one in (image, result.image))
        for magnification in (1.0, 3.0):
            assert (seen_differences(before, after, magnification) > 1.0).mean() < 0.001


def test_the_second_measure_knows_threshold_from_plain() -> None:
    random = np.random.default_rng(0)
    flat = np.full((96, 96), 0.5)
    texture = random.choice([-1.0, 1.0], flat.shape)
    assert seen_differences(flat, flat).max() == 0.0
    assert seen_differences(flat, flat + texture * 0.3 / 255.0).max() < 1.0
    assert np.median(seen_differences(flat, flat + texture * 4.0 / 255.0)) > 2.0
    noisy = flat + random.normal(0.0, 0.05, flat.shape)
    masked = np.median(seen_differences(noisy, noisy + texture * 4.0 / 255.0))
    assert masked < 0.4 * np.median(seen_differences(flat, flat + texture * 4.0 / 255.0))
    edge = np.where(np.arange(96) < 48, 0.2, 0.8)[None, :] * np.ones((96, 1))
    beads = np.zeros_like(edge)
    beads[::4, 47:49] = 6.0 / 255.0
    assert seen_differences(edge, edge + beads)[:, 47:49].max() > 1.0  # an edge hides no beads along it


def test_every_second_step_sees_the_background_black() -> None:
    (surrogate,) = small_pack().load(CPU)
    seen: list[torch.Tensor] = []
    handle = surrogate.net.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda _, given: seen.append(given[0].detach()) if given[0].requires_grad else None
    )
    clean = torch.full((1, 1, 64, 64), 0.5)
    blanked = torch.zeros(1, 1, 64, 64)
    blanked[..., :32] = 1.0
    amplitude, offset = torch.full_like(clean, 0.01), torch.zeros_like(clean)
    optimise_texture(clean, amplitude, offset, [surrogate], (), [np.random.default_rng(0)], 6, blanked=blanked)
    handle.remove()
    black = [bool((one < 0.1).float().mean() > 0.25) for one in seen]
    assert black == [False, True] * 3
