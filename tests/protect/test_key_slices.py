"""Key slices: which they are, what is kept of them, and what begins from them."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import pytest

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import MarkError
from gateway.mark import Marker, MarkRequest, MarkSettings
from gateway.protect.key_slices import EVERY, KeyTextures, SlicePlace, Start, is_key, mark_frames, slice_number, uses
from tests.support.dicom.samples import encode, image
from tests.support.flow import ct
from tests.support.mark.samples import BRAIN, KEY, gray8, small_pack

SERIES = ("a series",)


def header_of(ds):
    return read_header(io.BytesIO(encode(ds)), EXPLICIT_LITTLE)


def number(place: float, **told: object) -> int | None:
    return slice_number(header_of(ct(ImagePositionPatient=[0, 0, place], **told)))


def start(value: int, uid: str = "", side: int = 4) -> Start:
    return Start(np.full((side, side), value, np.int8), uid)


def kept(*numbers: int) -> KeyTextures:
    textures = KeyTextures()
    for one in numbers:
        textures.keep(SlicePlace(SERIES, one), start(one, f"2.25.{one}"))
    return textures


@pytest.mark.parametrize(("spacing", "shift"), [(1.0, 0.0), (0.625, 0.3125), (5.0, 0.013), (2.5, -1211.25)])
def test_every_8th_slice_is_a_key_slice_wherever_the_series_begins(spacing, shift):
    random = np.random.default_rng(0)
    found = []
    for one in range(5 * EVERY):  # scanners round positions
        place = round(shift + spacing * one + random.uniform(-0.001, 0.001), 3)
        found.append(number(place, SpacingBetweenSlices=spacing))
    assert np.array_equal(np.diff(found), np.ones(5 * EVERY - 1))
    assert sum(map(is_key, found)) == 5


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"SpacingBetweenSlices": 2, "SliceThickness": 5}, 8),  # the gap alone is told
        ({"SliceThickness": 4}, 10),
        ({"SpacingBetweenSlices": -5}, 8),
        ({"SpacingBetweenSlices": 0, "SliceThickness": 0}, None),
        ({"SpacingBetweenSlices": 1e9}, None),
        ({"SliceThickness": 1e-9}, None),
        ({}, None),
    ],
)
def test_the_number_follows_from_the_header_alone(told, expected):
    assert number(40.0, **told) == expected


@pytest.mark.parametrize("place", [1e300, -1e300, 1e7])
def test_a_place_that_cannot_be_meant_is_none(place):
    assert number(place, SliceThickness=0.01) is None


def test_without_a_place_there_is_no_number():
    bare = ct(SliceThickness=4)
    del bare.ImagePositionPatient
    assert slice_number(header_of(bare)) is None
    many = image(np.zeros((3, 64, 64), np.int16), SliceThickness=4, SliceLocation=8)
    assert slice_number(header_of(many)) is None


@pytest.mark.parametrize(("one", "expected"), [(1, 0), (4, 0), (5, 8), (7, 8), (9, 8), (15, 8), (17, None), (-3, 0)])
def test_the_nearest_key_slice_that_is_there_is_begun_from(one, expected):
    found = kept(0, 8).near(SERIES, one)
    assert (found and found.copy_uid) == (None if expected is None else f"2.25.{expected}")
    assert kept(0, 8).near(("another",), one) is None


def test_what_began_from_itself_stands_in_until_its_key_slice_comes():
    textures = kept(6)
    assert textures.near(SERIES, 5).copy_uid == textures.near(SERIES, 9).copy_uid == "2.25.6"
    textures.keep(SlicePlace(SERIES, 7), start(7, "2.25.7"))
    assert textures.near(SERIES, 9).copy_uid == "2.25.6"
    textures.keep(SlicePlace(SERIES, 8), start(8, "2.25.8"))
    textures.keep(SlicePlace(SERIES, 7), start(7, "2.25.7"))
    assert textures.near(SERIES, 9).copy_uid == "2.25.8"


def test_the_least_used_go_when_there_are_too_many():
    textures = KeyTextures(most_bytes=3 * 16)
    for one in (0, 8, 16):
        textures.keep(SlicePlace(SERIES, one), start(one, str(one)))
    assert textures.at(SERIES, 0)  # used last
    textures.keep(SlicePlace(SERIES, 24), start(24, "24"))
    assert [textures.at(SERIES, one) is not None for one in (0, 8, 16, 24)] == [True, False, True, True]
    textures.keep(SlicePlace(SERIES, 32), start(32, "32", side=64))  # too large for all of it
    assert all(textures.at(SERIES, one) is None for one in (0, 8, 16, 24, 32))


@dataclass(frozen=True)
class Record:
    derived_sha256: str | None = None
    begun_from: str = ""


def test_what_is_fixed_is_made_anew_from_what_it_was_made_from():
    textures, place = kept(0, 8), SlicePlace(SERIES, 7)
    assert textures.start_of(place, Record()).copy_uid == "2.25.8"
    assert textures.start_of(place, Record("1" * 64)) is None
    assert textures.start_of(place, Record("1" * 64, "2.25.0")).copy_uid == "2.25.0"
    assert textures.start_of(place, Record("1" * 64, "2.25.5")) is None
    assert textures.start_of(SlicePlace(SERIES, 8), Record()) is None
    assert textures.start_of(None, Record()) is None


def test_only_what_takes_steps_begins_from_others():
    assert uses(MarkSettings())
    assert not uses(MarkSettings(key_slices=False))
    assert not uses(MarkSettings(mode="generator"))
    assert not uses(MarkSettings(steps=0))


def test_frames_begin_from_the_key_frame_before_them_in_one_piece_or_in_several():
    marker = Marker(MarkSettings(steps=1, device="cpu"), packs=[small_pack()])
    roi = np.zeros((48, 48), bool)
    requests = [MarkRequest(gray8(48, 48, 7), KEY, position=float(one), roi=roi) for one in range(10)]
    calls = []

    def mark(asked):
        calls.append(len(asked))
        return marker.mark(asked, BRAIN)

    whole = mark_frames(mark, requests, range(10), KeyTextures())
    assert calls == [2, 8]
    assert [one.has_begun for one in whole] == [one not in (0, 8) for one in range(10)]
    textures, pieces = KeyTextures(), []
    for first in range(0, 10, 3):
        piece = requests[first : first + 3]
        pieces += mark_frames(mark, piece, range(first, first + len(piece)), textures)
    assert all(np.array_equal(one.image, other.image) for one, other in zip(whole, pieces, strict=True))


def test_frames_whose_key_frame_cannot_be_marked_begin_from_themselves():
    def mark(asked):
        return [MarkError("no-free-area", "none") if one.image.max() == 0 else one.begin for one in asked]

    blank, requests = np.zeros((48, 48), np.uint8), [MarkRequest(gray8(48, 48), KEY)] * 3
    requests[0] = replace(requests[0], image=blank)
    results = mark_frames(mark, requests, range(3), KeyTextures())
    assert isinstance(results[0], MarkError) and results[1:] == [None, None]
