"""A mark neither changes nor makes padding, nor a palette's colour; and inputs that failed in the field."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError, HoldError
from gateway.mark import MarkedImage, Marker, MarkSettings, load_profiles
from gateway.protect.marking import Opened, marked_frames, requests_of
from tests.support.dicom.samples import encode, image
from tests.support.mark.samples import phantom

KEY = b"k" * 32
MARKER = Marker(MarkSettings(steps=0, device="cpu", tier="lettered"))
PROFILE = load_profiles()["generic-gray"]


def read(data: bytes, syntax: str = EXPLICIT_LITTLE) -> Opened:
    return Opened(data, read_header(io.BytesIO(data), syntax), decode_pixels(data, syntax))


def marked(opened: Opened) -> tuple[np.ndarray, np.ndarray]:
    """Stored values before and after."""
    results = MARKER.mark(requests_of(opened, PROFILE, KEY), PROFILE)
    assert all(isinstance(result, MarkedImage) for result in results), results
    return opened.pixels.frames, marked_frames(opened, results)


def check(opened: Opened, least: float = 0.02) -> None:
    before, after = marked(opened)
    changed = before != after
    assert changed.mean() > least
    assert not (changed & opened.pixels.padding).any()
    for low, high in opened.pixels.reserved:
        assert not (changed & (after >= low) & (after <= high)).any()


def scan(values: int, signed: bool = False) -> np.ndarray:
    """A picture of a few values only, so that a mark would often hit the reserved ones."""
    frames = np.rint(phantom(96, 96) * values)[None]
    return frames.astype(np.int16) - 400 if signed else frames.astype(np.uint16)


def with_padding(frames: np.ndarray, first: int, last: int, vr: str, **changes: object):
    ds = image(frames, **changes)
    ds.add_new(0x00280120, vr, first)
    ds.add_new(0x00280121, vr, last)
    return ds


@pytest.mark.parametrize(
    "ds",
    [
        with_padding(scan(900), 0, 330, "US", BitsStored=12),
        with_padding(scan(900), 1000, 500, "US", BitsStored=12),
        with_padding(scan(900, signed=True), -400, -70, "SS", BitsStored=12),
        with_padding(scan(900, signed=True), 65136, 65236, "US", BitsStored=16),
    ],
    ids=["from below", "from above", "signed", "signed, written as US"],
)
def test_no_pixel_enters_or_leaves_a_padding_range(ds):
    check(read(encode(ds)))


def test_padding_of_whole_containers_stays():
    frames = scan(2500)
    frames[:, :20] = 63536  # beyond the 12 bits that are stored
    ds = image(frames, BitsStored=12)
    ds.add_new(0x00280120, "US", 63536)
    opened = read(encode(ds))
    check(opened)
    after = opened.pixels.containers(marked(opened)[1])
    assert (after[:, :20] == 63536).all() and not (after[:, 20:] == 63536).any()


def test_no_gray_pixel_becomes_a_colour():
    frames = scan(2040)
    frames[:, 30:60, 30:60] = np.arange(2048, 2048 + 900).reshape(30, 30)
    ds = image(frames, BitsStored=12)
    for tag in (0x00281101, 0x00281102, 0x00281103):
        ds.add_new(tag, "US", [256, 2048, 16])
    check(read(encode(ds)))


def test_a_marked_pixel_that_took_a_reserved_value_is_found_out():
    opened = read(encode(with_padding(scan(900), 0, 330, "US", BitsStored=12)))
    (result,) = MARKER.mark(requests_of(opened, PROFILE, KEY), PROFILE)
    at = tuple(np.argwhere(result.image > 330)[0])
    result.residual[at] += 7 - result.image[at].astype(int)
    result.image[at] = 7
    with pytest.raises(HoldError) as caught:
        marked_frames(opened, [result])
    assert caught.value.code == "self-check-failed"


def test_inputs_that_failed_in_the_field(field_inputs: Path):
    """Decoded as they should be, or held with the reason; what has reserved values is marked."""

    def load(path: Path) -> tuple[bytes, str]:
        with path.open("rb") as file:
            meta, _ = split_part10(file)
            return file.read(), meta.transfer_syntax_uid

    for folder, allowed in (("planar", 1), ("jpeg-colour", 6)):
        truth = np.load(field_inputs / folder / "truth.npy").astype(int)
        for path in sorted((field_inputs / folder).glob("*.dcm")):
            assert np.abs(decode_pixels(*load(path)).frames[0] - truth).mean() < allowed, path.name
    with pytest.raises(DicomError) as caught:
        decode_pixels(*load(field_inputs / "frames" / "j2k_mf_nf1_bot0.dcm"))
    assert caught.value.code == "wrong-number-of-frames"
    for path in sorted((field_inputs / "stream").glob("*.dcm")):
        assert decode_pixels(*load(path)).frames.std() > 10, path.name
    for folder in ("padding-range", "supplemental-palette"):
        for path in sorted((field_inputs / folder).glob("*.dcm")):
            check(read(*load(path)), least=0.005)  # whole words: two or three fit there
