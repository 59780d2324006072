"""Stacks of images, as the command line marks them."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.errors import MarkError
from gateway.mark.arrays import image_key, mark_arrays
from gateway.mark.marker import Marker
from tests.support.mark.samples import BRAIN, FAST, KEY, RGB, disc, gray8, phantom, rgb8

PROFILES = {"brain-mr": BRAIN, "generic-rgb": RGB}


def mark(images: np.ndarray, masks: np.ndarray | None = None, profile: str = "brain-mr", key: bytes = KEY) -> dict:
    """Mark without optimisation and without installed plug-ins."""
    return mark_arrays(images, masks, profile, FAST, key, marker=Marker(FAST, packs=[], profiles=PROFILES))


def test_gray_stack() -> None:
    images = np.stack([gray8(seed=seed) for seed in range(3)])
    masks = np.stack([disc((96, 96), 0.12)] * 3)
    result = mark(images, masks)
    assert result["images"].dtype == np.uint8 and result["images"].shape == images.shape
    assert (result["psnr"] >= 26.0).all() and result["psnr"].shape == (3,)
    assert np.array_equal(result["images"][masks], images[masks])
    assert not np.array_equal(result["strokes"][0], result["strokes"][1])  # a key per image
    assert np.array_equal(mark(images, masks)["images"], result["images"])
    assert not np.array_equal(mark(images, masks, key=KEY[::-1])["images"], result["images"])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_sixteen_bits(dtype: type) -> None:
    images = np.rint(np.stack([phantom(seed=seed) for seed in range(2)]) * 3000.0).astype(dtype)
    result = mark(images)
    assert result["images"].dtype == dtype and result["images"].shape == images.shape


def test_rgb_stack() -> None:
    images = np.stack([rgb8(), rgb8(seed=1)])
    assert mark(images, profile="generic-rgb")["images"].shape == images.shape


def test_failure_names_the_image() -> None:
    masks = np.stack([np.zeros((96, 96), bool), np.ones((96, 96), bool)])
    with pytest.raises(MarkError, match="image 1") as caught:
        mark_arrays(np.stack([gray8(), gray8()]), masks, "brain-mr", FAST, KEY)
    assert caught.value.code == "no-free-area"


def test_a_blank_slice_stays_and_the_others_are_marked() -> None:
    images = np.stack([gray8(), np.zeros((96, 96), np.uint8), gray8(seed=1)])
    result = mark(images)
    assert [str(note) for note in result["notes"]] == ["", "blank", ""]
    assert np.array_equal(result["images"][1], images[1])
    assert (result["images"] != images).any(axis=(1, 2)).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (np.zeros((4, 4), np.uint8), None),
        (np.zeros((0, 64, 64), np.uint8), None),
        (np.zeros((2, 64, 64), np.uint8), np.zeros((2, 64, 64), np.uint8)),
        (np.zeros((2, 64, 64), np.uint8), np.zeros((1, 64, 64), bool)),
        (np.zeros((2, 64, 64), np.float32), None),
    ],
)
def test_wrong_arrays(images: np.ndarray, masks: np.ndarray | None) -> None:
    with pytest.raises(MarkError) as caught:
        mark(images, masks)
    assert caught.value.code == "bad-request"


def test_keys_differ_per_image_and_site() -> None:
    keys = {image_key(site, index) for site in (KEY, KEY[::-1]) for index in range(4)}
    assert len(keys) == 8 and {len(key) for key in keys} == {32}
    with pytest.raises(MarkError):
        mark(np.stack([gray8()]), key=b"short")
