"""What a copy carries: the original's exact bytes, whatever lies in unused bits, behind the pixels, in the encoding."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from gateway.dicom.copy import carried_body as carry
from gateway.dicom.copy.carried_body import RESIDUAL, WHOLE, pack, pack_referring, read_copy, rebuild
from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.syntaxes import DEFLATED_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.fingerprint import FRAGMENTS, NATIVE, NONE, STORED, stored_digest
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.support.dicom.samples import OneWay, encode, facts, image, slightly_changed
from tests.support.examples import examples

JPEG_XL = "1.2.840.10008.1.2.4.110"
RNG = np.random.default_rng(7)
GRAY8 = RNG.integers(0, 255, (1, 6, 8)).astype(np.uint8)
SIGNED = RNG.integers(-2000, 2000, (2, 6, 8)).astype(np.int16)
COLOUR = RNG.integers(0, 255, (1, 6, 8, 3)).astype(np.uint8)


def with_overlay(ds):
    """An overlay plane in the four bits above Bits Stored 12 (PS3.5 8.1.1)."""
    words = np.frombuffer(ds.PixelData, "<u2") | np.uint16(0x5000)
    ds.PixelData = words.astype("<u2").tobytes()
    return ds


def planar(ds):
    ds.PlanarConfiguration = 1
    ds.PixelData = COLOUR.transpose(0, 3, 1, 2).tobytes()
    return ds


def high_bit_15(ds):
    """12 bits stored, left-justified."""
    ds.HighBit = 15
    ds.PixelData = (np.frombuffer(ds.PixelData, "<u2") << 4).astype("<u2").tobytes()
    return ds


def followed(ds):
    """Elements behind the pixel data: an own group, and padding."""
    ds.add_new(0x7FE10010, "LO", "SOMEBODY")
    ds.add_new(0x7FE11001, "UN", b"behind the pixels ")
    ds.add_new(0xFFFCFFFC, "OB", bytes(10))
    return ds


KINDS = {
    "plain": image(),
    "signed, several frames": image(SIGNED),
    "signed 12 bits": image(SIGNED, BitsStored=12),
    "8 bits": image(GRAY8),
    "8 bits, odd": image(GRAY8[:, :5, :7]),
    "overlay in unused bits": with_overlay(image(BitsStored=12)),
    "left-justified": high_bit_15(image(BitsStored=12)),
    "colour": image(COLOUR),
    "planar": planar(image(COLOUR)),
    "elements behind": followed(image()),
    "MONOCHROME1": image(PhotometricInterpretation="MONOCHROME1"),
}


def marked_of(data: bytes, syntax: str):
    pixels = decode_pixels(data, syntax)
    return pixels, slightly_changed(pixels.frames, pixels.limits)


def there_and_back(data: bytes, syntax: str) -> tuple[int, bytes]:
    """The method, and the original as it is rebuilt from body and derived copy."""
    pixels, marked = marked_of(data, syntax)
    body = pack(data, syntax, pixels, marked)
    copy = derive(data, syntax, marked, facts(), pixels)
    return body[1], rebuild(body, len(data), copy, EXPLICIT_LITTLE)


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
@pytest.mark.parametrize("kind", KINDS)
def test_uncompressed_originals_come_back_from_their_residual(kind, syntax):
    ds = KINDS[kind].copy()
    if syntax == EXPLICIT_BIG and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    data = encode(ds, syntax)
    assert there_and_back(data, syntax) == (RESIDUAL, data)


def test_eight_bit_pixels_in_big_endian_words():
    """PS3.5 A.3: OW words are swapped, so the pixels are too; an odd number of them ends before its last byte."""
    for frames, method in ((GRAY8, RESIDUAL), (GRAY8[:, :5, :7], WHOLE)):
        value = frames.tobytes() + b"\0" * (frames.size % 2)
        swapped = np.frombuffer(value, np.uint8).reshape(-1, 2)[:, ::-1].tobytes()
        ds = image(frames)
        del ds.PixelData
        data = encode(ds, EXPLICIT_BIG) + b"\x7f\xe0\x00\x10OW\0\0" + struct.pack(">I", len(value)) + swapped
        assert there_and_back(data, EXPLICIT_BIG) == (method, data)


def test_bytes_behind_the_data_set():
    data = encode(image()) + bytes(30)
    assert there_and_back(data, EXPLICIT_LITTLE) == (RESIDUAL, data)


def test_an_implicit_data_set_in_an_explicit_syntax():
    data = encode(image(), IMPLICIT_LITTLE)
    assert there_and_back(data, EXPLICIT_LITTLE) == (RESIDUAL, data)


def test_what_has_no_residual_is_carried_whole():
    ybr = encode(image(COLOUR, PhotometricInterpretation="YBR_FULL"))
    assert there_and_back(ybr, EXPLICIT_LITTLE) == (WHOLE, ybr)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = deflate.compress(encode(image())) + deflate.flush()
    assert there_and_back(deflated, DEFLATED_LITTLE) == (WHOLE, deflated)


def test_a_residual_that_does_not_give_the_exact_bytes_is_not_used(monkeypatch):
    data = encode(image(SIGNED))
    right = carry.residual
    monkeypatch.setattr(carry, "residual", lambda original, marked: right(original, marked)[:-1] + b"\1")
    assert there_and_back(data, EXPLICIT_LITTLE) == (WHOLE, data)


@examples(60)
@given(
    stored=st.integers(2, 16),
    signed=st.booleans(),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    seed=st.integers(0, 1 << 16),
    noise=st.booleans(),
    big=st.booleans(),
)
def test_any_gray_image(stored, signed, shape, seed, noise, big):
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 1 << 16, shape).astype(np.uint16)
    if not noise:  # nothing in the bits above Bits Stored but the sign
        low = -(1 << (stored - 1)) if signed else 0
        words = rng.integers(low, low + (1 << stored), shape).astype(np.int32).astype(np.uint16)
    syntax = EXPLICIT_BIG if big else EXPLICIT_LITTLE
    ds = image(words, BitsStored=stored, PixelRepresentation=int(signed))
    ds.PixelData = words.astype(">u2" if big else "<u2").tobytes()
    data = encode(ds, syntax)
    assert there_and_back(data, syntax) == (RESIDUAL, data)


# -- the copy --------------------------------------------------------------------------------------------------------


def carried(ds=None) -> tuple[bytes, bytes, np.ndarray]:
    data = encode(ds or image(SIGNED))
    pixels, marked = marked_of(data, EXPLICIT_LITTLE)
    return data, pack(data, EXPLICIT_LITTLE, pixels, marked), marked


def code_of(*arguments) -> str:
    with pytest.raises(DicomError) as caught:
        rebuild(*arguments)
    return caught.value.code


def test_only_the_stored_values_of_the_copy_count():
    data, body, marked = carried()
    changed = image(marked.copy(), PatientName="Somebody^Else", BitsStored=16, WindowCenter=4, WindowWidth=9)
    assert rebuild(body, len(data), encode(changed, IMPLICIT_LITTLE), IMPLICIT_LITTLE) == data
    cut = image(marked[:, :, :-1])
    assert code_of(body, len(data), encode(cut), EXPLICIT_LITTLE) == "marked-pixels-changed"
    assert code_of(body, len(data), encode(image(marked[:1])), EXPLICIT_LITTLE) == "marked-pixels-changed"
    one_off = marked.copy()
    one_off[1, 3, 3] += 1
    assert code_of(body, len(data), encode(image(one_off)), EXPLICIT_LITTLE) == "marked-pixels-changed"
    assert code_of(body, len(data), encode(image(marked))[:-5], EXPLICIT_LITTLE) == "truncated"


def test_the_digest_is_of_values_not_of_types():
    values = np.arange(120).reshape(2, 6, 10)
    assert len({stored_digest(values.astype(kind)) for kind in (np.uint8, np.uint16, np.int16)}) == 1
    assert stored_digest(values - 1) != stored_digest(values)


def test_what_is_carried_whole_comes_back_from_the_same_pixels_only():
    data, body, marked = carried(image(COLOUR, PhotometricInterpretation="YBR_FULL"))
    assert body[:3] == bytes([2, WHOLE, STORED])
    assert rebuild(body, len(data), encode(image(marked, PatientName="A^B"), IMPLICIT_LITTLE), IMPLICIT_LITTLE) == data
    one_off = marked.copy()
    one_off[0, 3, 3, 1] ^= 1
    turned = marked.reshape(1, 8, 6, 3)  # the same bytes in other rows
    for other in (one_off, turned, marked[:, :-1], marked[..., 0]):
        assert code_of(body, len(data), encode(image(other)), EXPLICIT_LITTLE) == "marked-pixels-changed"
    without = image(marked, PixelData=None, Rows=None, Columns=None)
    assert code_of(body, len(data), encode(without), EXPLICIT_LITTLE) == "marked-pixels-changed"
    assert code_of(body, len(data), b"", EXPLICIT_LITTLE) == "not-dicom"


def test_version_1_of_what_is_carried_whole_comes_back_from_any_pixels():
    data, body, marked = carried(image(COLOUR, PhotometricInterpretation="YBR_FULL"))
    assert rebuild(b"\1\1" + body[35:], len(data), encode(image(marked[:, :-1])), EXPLICIT_LITTLE) == data


def one_bit(value: bytes = b"\x5a\xa5") -> Dataset:
    """A segmentation of 3 x 5 pixels: 15 bits, so the last one of the value is none of a pixel (PS3.5 8.1.1)."""
    ds = image(Rows=3, Columns=5, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=None)
    ds.add_new(0x7FE00010, "OB", value)
    return ds


def floats(value: bytes = b"\1\2\3\4" * 6) -> Dataset:
    ds = image(Rows=2, Columns=3, BitsAllocated=32, PixelData=None)
    ds.add_new(0x7FE00008, "OF", value)
    return ds


def report() -> Dataset:
    return image(PixelData=None, Rows=None, Columns=None)


REFERRING = {
    "without pixels": (NONE, report(), image()),
    "stored values": (STORED, image(GRAY8), image(GRAY8 ^ 1)),
    "one bit": (NATIVE, one_bit(), one_bit(b"\x5b\xa5")),
    "floats": (NATIVE, floats(), floats(b"\1\2\3\5" * 6)),
}


@pytest.mark.parametrize("kind", REFERRING)
def test_an_object_that_refers_comes_back_from_the_same_pixels_only(kind):
    number, ds, other = REFERRING[kind]
    data = encode(ds)
    body = pack_referring(data, EXPLICIT_LITTLE)
    assert body[:3] == bytes([2, WHOLE, number])
    ds = ds.copy()
    ds.PatientName = "Somebody^Else"
    for syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG)[: 2 if kind == "floats" else 3]:
        assert rebuild(body, len(data), encode(ds, syntax), syntax) == data
    assert code_of(body, len(data), encode(other), EXPLICIT_LITTLE) == "marked-pixels-changed"


def test_the_order_of_bytes_in_big_endian_words_does_not_count():
    data = encode(one_bit())
    body = pack_referring(data, EXPLICIT_LITTLE)
    swapped = encode(one_bit(b"\xa5\x5a"), EXPLICIT_BIG).replace(b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10OW")
    assert rebuild(body, len(data), swapped, EXPLICIT_BIG) == data


def test_pixels_that_nothing_decodes_are_compared_as_they_are():
    fragment = struct.pack("<HHI", 0xFFFE, 0xE000, 4)
    head = encode(image(PixelData=None)) + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + fragment[:4] + bytes(4)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data = head + fragment + b"JXL1" + end
    body = pack_referring(data, JPEG_XL)
    assert body[:3] == bytes([2, WHOLE, FRAGMENTS])
    assert rebuild(body, len(data), data, JPEG_XL) == data
    assert code_of(body, len(data), head + fragment + b"JXL2" + end, JPEG_XL) == "marked-pixels-changed"
    assert code_of(body, len(data), encode(image()), EXPLICIT_LITTLE) == "marked-pixels-changed"
    of_bits = pack_referring(encode(one_bit()), EXPLICIT_LITTLE)
    assert code_of(of_bits, len(data), data, JPEG_XL) == "encapsulated"
    assert code_of(b"\2\1\x09" + bytes(40), len(data), data, JPEG_XL) == "carried-format"


def test_a_copy_is_read_up_to_its_pixels():
    payload = bytes(range(256)) * 8192  # 2 MiB
    data = encode(image())
    pixels, marked = marked_of(data, EXPLICIT_LITTLE)
    copy = derive(data, EXPLICIT_LITTLE, marked, facts(sealed_key=b"key.", payload=payload), pixels)
    uid, block = read_copy(OneWay(copy[: -len(pixels.frames.tobytes())]), EXPLICIT_LITTLE)
    assert (uid, block.sealed_key, block.payload) == ("2.25.1001", b"key.", payload)
    assert read_copy(io.BytesIO(data), EXPLICIT_LITTLE) == ("1.2.3.4", None)


# -- the body: it comes from a signed payload, and still nothing but `carried-format` may come of a wrong one --------


@examples(150)
@given(data=st.data())
def test_a_changed_body_is_an_error_of_ours(data):
    original, body, marked = carried()
    position = data.draw(st.integers(0, len(body) - 1))
    changed = body[:position] + bytes([body[position] ^ data.draw(st.integers(1, 255))]) + body[position + 1 :]
    changed = changed[: data.draw(st.sampled_from([len(changed), position]))]
    copy = encode(image(marked))
    try:
        result = rebuild(changed, len(original), copy, EXPLICIT_LITTLE)
    except DicomError as error:
        assert error.code in ("carried-format", "marked-pixels-changed")
    else:
        assert len(result) == len(original)  # for the caller's digest to refuse


def test_no_more_than_the_original_is_ever_inflated():
    bomb = b"\1\1" + zstandard.compress(bytes(1 << 26), 19)
    assert code_of(bomb, 1000, b"", EXPLICIT_LITTLE) == "carried-format"
    stream = zstandard.ZstdCompressor().compressobj()  # a frame that does not say how long it is
    unknown = b"\1\1" + stream.compress(bytes(1 << 22)) + stream.flush()
    assert code_of(unknown, 1 << 22, b"", EXPLICIT_LITTLE) == "carried-format"
