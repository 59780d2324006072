"""Zones against what a person drew on real pictures: no air where anatomy was drawn, and most of the air that was."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gateway.mark.placement.zones import find_zones
from gateway.mark.profiles import load_profiles
from tests.support.mark.pictures import Shown, shown_in

DRAWN = json.loads((Path(__file__).parent / "drawn" / "zones.json").read_text())
PROFILES = load_profiles()
LEAST_FOUND = 0.7
"""Share of air that was drawn which must be found."""
LESIONS = {
    "open/brain_tumor/test.npz": ("brain-mr", "masks"),
    "open/dermoscopy/test.npz": ("dermoscopy", "masks"),
    "open/fundus_dr/fundus_lesions.npz": ("fundus", "masks_any"),
    "data/skin/test.npz": ("dermoscopy", "masks"),
}


def drawn(polygons: list[list[list[float]]], shape: tuple[int, int]) -> np.ndarray:
    """Return the (H, W) bool inside of polygons of (x, y) in percent of width and height."""
    sheet = Image.new("1", (shape[1], shape[0]))
    for polygon in polygons:
        ImageDraw.Draw(sheet).polygon([(x * shape[1] / 100.0, y * shape[0] / 100.0) for x, y in polygon], fill=1)
    return np.asarray(sheet)


def air_of(shown: Shown, profile: str) -> np.ndarray:
    """Return the (H, W) bool air of a picture."""
    return find_zones(shown.display, shown.padding, PROFILES[profile], shown.hidden, units=shown.units).air


@cache
def lesions(path: Path, masks: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images and masks of a set."""
    with np.load(path) as held:
        return held["images"], held[masks]


def test_what_was_drawn_covers_every_kind_of_image() -> None:
    assert len(DRAWN) >= 30
    kinds = {one["profile"] for one in DRAWN}
    assert kinds >= {"brain-mr", "mr", "ct", "cr-dx", "us", "fundus", "dermoscopy", "generic-gray"}


def test_air_lies_on_nothing_that_was_drawn_as_anatomy(miad_data: Path) -> None:
    carried = (miad_data / "STANDIN").exists()
    cases = [one for one in DRAWN if not carried or one["image"].startswith("data/dicom/pydicom/")]
    assert len(cases) >= (5 if carried else 30)
    wrong = {}
    for one in cases:
        shown = shown_in(miad_data, one["image"])
        shape, air = shown.padding.shape, air_of(shown, one["profile"])
        if (anatomy := drawn(one["anatomy"], shape) & air).any():
            wrong[one["image"]] = f"{anatomy.sum()} pixels of anatomy are taken for air"
        for polygon in one["air"]:
            found = air[drawn([polygon], shape) & ~shown.padding].mean()
            if found < LEAST_FOUND:
                wrong[one["image"]] = f"{found:.0%} of what was drawn as air is found"
    assert not wrong


@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.full), 8])
def test_no_lesion_lies_in_air(share: int, labelled_sets: Path) -> None:
    for name, (profile, masks) in LESIONS.items():
        images, found = lesions(labelled_sets.parent / name, masks)
        for index in range(0, len(images), share):
            display = (images[index] / 255.0).astype(np.float32)
            air = find_zones(display, np.zeros(display.shape[:2], bool), PROFILES[profile]).air
            assert not (air & found[index]).any(), (name, index)
