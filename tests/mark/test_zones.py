"""Zones: what is air and what is not, on made pictures; `test_zones_drawn.py` has real ones."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.mark.placement.zones import LEAST_OFF, Zones, find_zones
from gateway.mark.profiles import load_profiles
from gateway.mark.visibility.region import dilate

PROFILES = load_profiles()
SIDE = 256


def disc(row: float, column: float, radius: float, side: int = SIDE) -> np.ndarray:
    """Return a (side, side) bool disc."""
    rows, columns = np.mgrid[:side, :side]
    return np.hypot(rows - row, columns - column) <= radius


def body(level: float = 0.0, noise: float = 0.01) -> np.ndarray:
    """Return a (256, 256) float32 display image: a bright disc on noisy air of one level."""
    random = np.random.default_rng(3)
    picture = np.where(disc(128, 128, 70), 0.5, level) + np.abs(random.normal(0.0, noise, (SIDE, SIDE)))
    return picture.astype(np.float32)


def zones_of(picture: np.ndarray, profile: str = "mr", **more: np.ndarray) -> Zones:
    """Return the zones; no padding but what is given."""
    padding = more.pop("padding", np.zeros(picture.shape[:2], bool))
    return find_zones(picture, padding, PROFILES[profile], **more)


@pytest.mark.parametrize("level", [0.0, 0.1])
@pytest.mark.parametrize("noise", [0.0, 0.004, 0.02])
def test_air_is_the_background_a_few_pixels_off_the_body(level: float, noise: float) -> None:
    zones = zones_of(body(level, noise))
    assert not (zones.air & dilate(disc(128, 128, 70), LEAST_OFF)).any()
    assert zones.air[~disc(128, 128, 84)].mean() > 0.98
    assert not (zones.air & zones.anatomy).any()
    assert zones.anatomy[disc(128, 128, 70)].all()


def test_air_that_is_brighter_than_any_air_is_none() -> None:
    assert not zones_of(body(0.3)).air.any()


def test_gas_inside_the_body_is_anatomy_even_where_it_opens_to_the_outside() -> None:
    picture = body()
    picture[disc(128, 128, 25)] = 0.0
    picture[122:134, :128] = 0.0  # a passage to the air
    zones = zones_of(picture)
    assert not zones.air[disc(128, 128, 70)].any()


def test_markers_text_and_a_limb_apart_are_anatomy() -> None:
    picture = body()
    picture[10:17, 20:24] = 0.4  # a letter
    picture[240, 30:60] = 0.3  # a thin line, as of a tube
    picture[disc(230, 220, 12)] = 0.05  # faint, as a finger
    zones = zones_of(picture)
    for place in (np.s_[10:17, 20:24], np.s_[240, 30:60], disc(230, 220, 12)):
        assert not zones.air[place].any()
        assert zones.anatomy[place].all()


def test_padding_is_no_air_and_air_beside_it_is() -> None:
    picture, padding = body(), ~disc(128, 128, 126)
    picture[padding] = 0.0
    zones = zones_of(picture, padding=padding)
    assert not (zones.air & padding).any() and not (zones.anatomy & padding).any()
    assert zones.air[disc(128, 128, 120) & ~disc(128, 128, 84)].mean() > 0.98


def test_what_a_shutter_hides_is_in_no_zone() -> None:
    hidden = np.zeros((SIDE, SIDE), bool)
    hidden[:, :30] = True
    zones = zones_of(body(), hidden=hidden)
    assert not (zones.air & hidden).any() and not (zones.anatomy & hidden).any() and zones.air.any()


def test_the_region_of_interest_is_anatomy_wherever_it_lies() -> None:
    region = disc(20, 20, 15)
    zones = zones_of(body(), region=region)
    assert (zones.region == region).all() and not (zones.air & dilate(region, LEAST_OFF)).any()
    assert zones.anatomy[region].all() and not (zones.free & region).any()


def test_a_picture_that_is_all_anatomy_has_no_air() -> None:
    random = np.random.default_rng(1)
    lung = 0.15 + 0.1 * random.random((SIDE, SIDE)).astype(np.float32)
    for profile in ("ct", "cr-dx", "mr"):
        zones = zones_of(lung, profile)
        assert not zones.air.any() and zones.anatomy.all()


@pytest.mark.parametrize("level", [0.0, 0.8])
def test_margins_of_one_value_are_air_whatever_their_level(level: float) -> None:
    picture = np.full((SIDE, SIDE), 0.5, np.float32)
    picture += np.random.default_rng(2).normal(0.0, 0.02, picture.shape).astype(np.float32)
    picture[:, :30] = picture[240:] = level
    picture[100:110, 10:14] = 0.4  # a letter in it
    zones = zones_of(picture, "cr-dx")
    assert zones.air[246:, 34:250].all() and not zones.air[:236, 34:].any()
    picture[100:110, 10:14] = level
    assert zones_of(picture, "cr-dx").air[:, 5:24].all()


def test_a_dark_shadow_of_ultrasound_is_no_air() -> None:
    random = np.random.default_rng(4)
    picture = random.uniform(0.2, 0.8, (SIDE, SIDE)).astype(np.float32)
    picture[140:] = random.integers(0, 6, (SIDE - 140, SIDE)) / 255.0
    assert not zones_of(picture, "us").air.any()
    corner = np.add.outer(np.arange(SIDE), np.arange(SIDE)) < 150
    picture[corner] = 0.0  # beyond the sector
    air = zones_of(picture, "us").air
    assert air.any() and not (air & ~corner).any()


def test_an_image_larger_than_the_grid_loses_nothing_small() -> None:
    picture = np.zeros((1500, 900), np.float32)
    picture[300:1200, 200:700] = 0.5
    picture[100:112, 60:64] = 0.5  # a letter
    zones = zones_of(picture)
    assert zones.air.shape == (1500, 900)
    assert not zones.air[95:117, 55:69].any() and not zones.air[290:1210, 190:710].any()
    assert zones.air[10:60, 10:850].all()
