"""Pictures of every kind of image: colour, inverted, several frames, deflated, and what cannot be shown."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import DicomError, MarkError, NotFoundError
from gateway.mark import load_profiles
from gateway.protect import viewing
from gateway.protect.viewing import Stored, Wish, picture
from tests.support.dicom.samples import encode, image

DEFLATED = "1.2.840.10008.1.2.1.99"


def stored(data: bytes, syntax: str = EXPLICIT_LITTLE) -> Stored:
    return Stored(lambda: io.BytesIO(data), len(data), syntax)


def seen(before: Stored | None, after: Stored | None, wish: Wish, decide: Callable = pytest.fail) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture(before, after, wish, decide).png)))


def test_each_frame_is_itself_and_no_other_one() -> None:
    frames = np.stack([np.full((6, 8), 100 * number, np.uint16) for number in range(1, 6)])
    one = stored(encode(image(frames, WindowCenter=250, WindowWidth=500, RescaleSlope=1, RescaleIntercept=0)))
    found = [int(seen(one, None, Wish("before", number))[0, 0]) for number in range(1, 6)]
    assert found == [51, 102, 153, 204, 255]
    for number in (0, 6, 1 << 30):
        with pytest.raises(NotFoundError, match="5 frames"):
            picture(one, None, Wish("before", number), pytest.fail)


def test_a_window_is_in_the_image_s_own_units_and_inverted_images_stay_so() -> None:
    frames = np.array([[[0, 1000], [1040, 2000]]], np.uint16).repeat(3, 1).repeat(4, 2)
    facts = {"RescaleSlope": 1, "RescaleIntercept": -1000}
    wish = Wish("before", window=(40.0, 80.0))
    assert seen(stored(encode(image(frames, **facts))), None, wish)[[0, 0, 3, 3], [0, 4, 0, 4]].tolist() == [
        0, 0, 128, 255,
    ]  # fmt: skip
    inverse = stored(encode(image(frames, PhotometricInterpretation="MONOCHROME1", **facts)))
    assert seen(inverse, None, wish)[[0, 0, 3, 3], [0, 4, 0, 4]].tolist() == [255, 255, 128, 0]


def test_colour_and_its_difference() -> None:
    before = np.full((1, 6, 8, 3), 100, np.uint8)
    after = before.copy()
    after[0, 0, 0, 1], after[0, 1, 1, 2] = 150, 90
    pair = (stored(encode(image(before))), stored(encode(image(after))))
    assert (seen(*pair, Wish("after")) == after[0]).all()
    made = picture(*pair, Wish("difference", window=(0, 100)), pytest.fail)
    change = np.asarray(Image.open(io.BytesIO(made.png)))
    assert (change[0, 0], change[1, 1], change[5, 5], made.span) == (255, 102, 128, 50.0)


def test_a_deflated_original_is_read_whole() -> None:
    made = zlib.compressobj(wbits=-15)
    data = encode(image())
    deflated = made.compress(data) + made.flush()
    assert (seen(stored(deflated, DEFLATED), None, Wish("before")) == seen(stored(data), None, Wish("before"))).all()


def test_a_large_picture_is_made_smaller_where_that_is_asked(monkeypatch) -> None:
    one = stored(encode(image(np.zeros((1, 40, 80), np.uint16))))
    assert seen(one, None, Wish("before", side=20)).shape == (10, 20)
    monkeypatch.setattr(viewing, "MOST_PIXELS", 40 * 80 - 1)
    with pytest.raises(DicomError, match="too large"):
        picture(one, None, Wish("before"), pytest.fail)


def test_what_is_not_there_or_no_pair_is_told() -> None:
    one, other = stored(encode(image())), stored(encode(image(np.zeros((1, 8, 8), np.uint16))))
    for before, after, view, code in (
        (None, one, "before", "received-gone"), (None, one, "difference", "received-gone"),
        (None, one, "zones", "received-gone"), (one, None, "after", "no-copy"), (one, None, "difference", "no-copy"),
        (one, other, "difference", "no-pair"),
    ):  # fmt: skip
        with pytest.raises((NotFoundError, DicomError)) as caught:
            picture(before, after, Wish(view), pytest.fail)
        assert caught.value.code == code
    for odd in (b"", b"\0" * 200, encode(image())[:-20]):
        with pytest.raises(DicomError):
            picture(stored(odd), None, Wish("before"), pytest.fail)


def test_zones_show_the_region_of_interest_that_the_mark_leaves() -> None:
    """And nothing of it where the image cannot be marked."""
    frames = np.zeros((1, 64, 64), np.uint16)
    frames[0, 12:52, 12:52] = 800
    one = stored(encode(image(frames, WindowCenter=500, WindowWidth=1000, RescaleSlope=1, RescaleIntercept=0)))
    profile = load_profiles()["ct"]
    region = np.zeros((64, 64), bool)
    region[30:36, 30:36] = True

    def chosen(_header: object) -> SimpleNamespace:
        return SimpleNamespace(profile=profile)

    def tinted(interest: Callable) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(picture(one, None, Wish("zones"), chosen, interest).png)))

    def cannot(*_: object) -> None:
        raise MarkError("no-free-area", "no part of the image is free")

    with_it, without = tinted(lambda *_: region), tinted(cannot)
    assert ((with_it != without).any(axis=2) == region).all()
    assert (without == tinted(lambda *_: None)).all()
