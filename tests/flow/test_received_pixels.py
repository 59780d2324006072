"""Kinds of pixels, uncompressed: marked where that can be exact, else held with the reason (PS3.3 C.7.6.3, PS3.5 8)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pydicom import Dataset

from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from tests.support.dicom.samples import encode, image
from tests.support.flow import Flow, ct, decoded
from tests.support.received import Sent, check_marked_and_restored, outcomes

RGB = np.random.default_rng(3).integers(90, 160, (1, 64, 64, 3)).astype("u1")
PADDING = (-2000, -1500)


def colour(value: np.ndarray = RGB, **changes: object) -> Dataset:
    ds = image(RGB, **changes)
    ds.PixelData = np.ascontiguousarray(value).tobytes()
    return ds


def halved() -> Dataset:
    """Two luminances, then the chrominances that they share (PS3.3 C.7.6.3.1.2, YBR_FULL_422)."""
    pairs = np.stack([RGB[:, :, ::2, 0], RGB[:, :, 1::2, 0], RGB[:, :, ::2, 1], RGB[:, :, ::2, 2]], axis=-1)
    return colour(pairs, PhotometricInterpretation="YBR_FULL_422")


def overlaid(shift: int = 0, **changes: object) -> Dataset:
    """12 stored bits with an overlay in the four others, above them or, with `shift`, on both sides."""
    ds = ct(PixelRepresentation=0, BitsStored=12, HighBit=11 + shift, RescaleIntercept=-1024, **changes)
    values = np.frombuffer(ds.PixelData, "<i2").astype(int) + 1100
    noise = np.random.default_rng(4).integers(0, 65536, values.size) & ~(0xFFF << shift)
    ds.PixelData = (values.clip(0, 4095) << shift | noise).astype("<u2").tobytes()
    return ds


def padded() -> Dataset:
    """A frame of padding values of the whole range around the picture."""
    ds = ct()
    values = np.frombuffer(ds.PixelData, "<i2").reshape(64, 64).copy()
    values[:4], values[-4:], values[:, :4] = PADDING[0], PADDING[1], -1700
    ds.PixelData = values.tobytes()
    ds.add_new(0x00280120, "SS", PADDING[0])
    ds.add_new(0x00280121, "SS", PADDING[1])
    return ds


MARKED: dict[str, Callable[[], Dataset]] = {
    "RGB by pixel": colour,
    "RGB by plane": lambda: colour(RGB.transpose(0, 3, 1, 2), PlanarConfiguration=1),
    "YBR_FULL by pixel": lambda: colour(PhotometricInterpretation="YBR_FULL"),
    "YBR_FULL by plane": lambda: colour(
        RGB.transpose(0, 3, 1, 2), PhotometricInterpretation="YBR_FULL", PlanarConfiguration=1
    ),
    "YBR_FULL_422": halved,
    "overlay above": overlaid,
    "overlay on both sides": lambda: overlaid(2),
    "padding range": padded,
    "MONOCHROME1": lambda: ct(PhotometricInterpretation="MONOCHROME1"),
}


def with_table(ds: Dataset, keyword: str) -> Dataset:
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = np.arange(256, dtype="<u2").tobytes()
    setattr(ds, keyword, [table])
    return ds


def palette(bits: int) -> Dataset:
    ds = image(np.arange(64 * 64).reshape(1, 64, 64).astype(f"u{bits // 8}"), PhotometricInterpretation="PALETTE COLOR")
    for tag in (0x00281101, 0x00281102, 0x00281103):
        ds.add_new(tag, "US", [256, 0, 16])
        ds.add_new(tag + 0x100, "OW", np.arange(256, dtype="<u2").tobytes())
    return ds


# A palette's pixels are numbers of colours: one more is any other colour. A Modality LUT's output is no linear function
# of stored values, and what a mark may change is a budget in output. Neither can be marked within what is promised.
HELD: dict[str, Callable[[], Dataset]] = {
    "palette-colour": lambda: palette(8),
    "modality-lut": lambda: with_table(ct(), "ModalityLUTSequence"),
    "unsupported-photometric": lambda: image(RGB, PhotometricInterpretation="HSV"),
    "thirty-two-bit-pixels": lambda: ct(
        BitsAllocated=32, BitsStored=32, HighBit=31, PixelData=bytes(64 * 64 * 4), PixelRepresentation=0
    ),
    "unsupported-bits": lambda: image(RGB, BitsStored=7),
}


def numbered(kinds: dict[str, Callable[[], Dataset]], start: int) -> dict[str, tuple[bytes, str]]:
    archive = {}
    for number, (name, make) in enumerate(kinds.items(), start):
        ds = make()
        ds.SOPInstanceUID = f"1.2.826.0.1.99.{number}"
        archive[name] = encode(ds), EXPLICIT_LITTLE
    return archive


@pytest.fixture(scope="module")
def sent(whole_site: Flow) -> dict[str, Sent]:
    return outcomes(whole_site, numbered(MARKED, 100) | numbered(HELD, 200))


@pytest.mark.parametrize("kind", MARKED)
def test_it_is_marked_and_restored(whole_site, sent, kind):
    one = sent[kind]
    assert one.state == "delivered", one.reason
    check_marked_and_restored(whole_site, one)
    if "RGB" in kind or "YBR" in kind:
        copy = decoded(one.copy)
        assert (copy.PhotometricInterpretation, copy.PlanarConfiguration) == ("RGB", 0)


@pytest.mark.parametrize("code", HELD)
def test_it_is_held_with_the_reason_and_restored(whole_site, sent, code):
    one = sent[code]
    assert one.state == code and one.reason and not one.copy
    assert whole_site.restored(str(decoded(one.data).SOPInstanceUID)) == one.data


@pytest.mark.parametrize(("kind", "stored"), [("overlay above", 0x0FFF), ("overlay on both sides", 0x0FFF << 2)])
def test_a_copy_has_the_mark_in_bits_stored_and_nothing_beside_them(sent, kind, stored):
    """No header names an overlay there, so what lies there could be anything."""
    before, after = (np.frombuffer(decoded(data).PixelData, "<u2") for data in (sent[kind].data, sent[kind].copy))
    assert np.any((before ^ after) & np.uint16(stored))
    assert np.any(before & ~np.uint16(stored)) and not np.any(after & ~np.uint16(stored))


def test_padding_is_untouched_and_no_marked_pixel_becomes_padding(sent):
    one = sent["padding range"]
    before, after = decode_pixels(one.data, EXPLICIT_LITTLE), decode_pixels(one.copy, EXPLICIT_LITTLE)
    assert after.reserved == (PADDING,) and before.padding.sum() > 700
    assert np.array_equal(before.padding, after.padding)
    assert np.array_equal(before.frames[before.padding], after.frames[before.padding])


def test_a_window_table_is_no_reason_to_hold(whole_site):
    ds = with_table(ct(77), "VOILUTSequence")
    swapped = ct(78)
    swapped.PixelData = np.frombuffer(swapped.PixelData, "<i2").astype(">i2").tobytes()
    archive = {"VOI LUT": (encode(ds), EXPLICIT_LITTLE), "big endian": (encode(swapped, EXPLICIT_BIG), EXPLICIT_BIG)}
    for one in outcomes(whole_site, archive).values():
        assert one.state == "delivered", one.reason
        check_marked_and_restored(whole_site, one)
