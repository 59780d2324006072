"""Contract of every modality profile, and which one takes what."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

import pytest

from gateway.mark import ImageTraits, ModalityProfile, choose_profile, load_profiles
from gateway.mark.placement.letters import LEAST_SHARE
from gateway.mark.profiles import GROUP
from plugins.surrogates import gray, rgb
from tests.conftest import missing

MODULES = ("brain_mr", "mr", "ct", "cr_dx", "fundus", "dermoscopy", "us", "generic_gray", "generic_rgb")
PROFILES = {
    profile.name: profile
    for profile in (importlib.import_module(f"plugins.modalities.{module}").PROFILE for module in MODULES)
}


@pytest.mark.parametrize("name", PROFILES)
def test_contract(name: str) -> None:
    profile = PROFILES[name]
    assert isinstance(profile, ModalityProfile)
    assert profile.channels and set(profile.channels) <= {1, 3}
    shipped = {pack.name: pack for pack in (gray.PACK, rgb.PACK)}
    for channels, names in profile.packs.items():
        assert names and all(shipped[pack].channels == channels for pack in names)
    assert 0.0 < profile.noise_factor <= 1.0 and profile.noise_reason
    assert 0.0 < profile.peak <= 6.0 / 255.0
    assert profile.peak < profile.stroke_peak <= 0.45  # over white a word has to go far down to read
    assert LEAST_SHARE <= profile.letter_height <= 0.2
    for window in profile.windows:
        low, high = window.limits()
        assert low < high and window.name
    for relative in profile.relative_windows:
        assert 0.0 <= relative.black < relative.white <= 1.0 and relative.name
    assert 1 not in profile.packs or profile.windows or profile.relative_windows, "nothing but the primary window"
    assert profile.peak_units is None or (profile.peak_units > 0.0 and profile.unit)
    assert 0.0 <= profile.chroma <= 0.5
    assert 64 <= profile.texture_side <= 299, "the texture would be finer than the largest usual classifier input"
    assert all(not profile.takes(ImageTraits("ZZ", samples=samples)) for samples in (2, 4))


def test_names() -> None:
    assert " ".join(PROFILES) == "brain-mr mr ct cr-dx fundus dermoscopy us generic-gray generic-rgb"


@pytest.mark.parametrize(
    ("traits", "name"),
    [
        (ImageTraits("MR", body_part="BRAIN"), "brain-mr"),
        (ImageTraits("MR", body_part="HEAD"), "brain-mr"),
        (ImageTraits("MR", body_part="KNEE"), "mr"),
        (ImageTraits("MR"), "mr"),
        (ImageTraits("CT", signed=True), "ct"),
        (ImageTraits("CR"), "cr-dx"),
        (ImageTraits("DX", photometric="MONOCHROME1"), "cr-dx"),
        (ImageTraits("OP", photometric="RGB", samples=3, bits_stored=8), "fundus"),
        (ImageTraits("XC", photometric="RGB", samples=3, bits_stored=8), "dermoscopy"),
        (ImageTraits("US", photometric="RGB", samples=3, bits_stored=8), "us"),
        (ImageTraits("US", bits_stored=8), "us"),
        (ImageTraits("XA"), "generic-gray"),
        (ImageTraits("RF"), "generic-gray"),
        (ImageTraits(""), "generic-gray"),
        (ImageTraits("OP"), "generic-gray"),
        (ImageTraits("OT", photometric="YBR_FULL", samples=3), "generic-rgb"),
        (ImageTraits("CT", photometric="RGB", samples=3), "generic-rgb"),
        (ImageTraits("OT", photometric="PALETTE COLOR"), None),
        (ImageTraits("OT", photometric="RGB", samples=4), None),
    ],
    ids=str,
)
def test_choice(traits: ImageTraits, name: str | None) -> None:
    chosen = choose_profile(traits, PROFILES)
    assert (chosen.name if chosen else None) == name


def test_ct_windows() -> None:
    assert [window.name for window in PROFILES["ct"].windows] == ["W400", "W1500", "W80"]
    assert PROFILES["ct"].windows[0].limits() == (-160.0, 240.0)


def test_installed_profiles_are_these() -> None:
    if not entry_points(group=GROUP):
        missing("the installed package (its entry points)")
    assert load_profiles() == PROFILES
