"""What one walk makes of every header: even lengths, the first of two, native byte order, notes of what was wrong."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate

from gateway.config.models import Route
from gateway.dicom.copy.derive import derive
from gateway.dicom.copy.references import derive_references
from gateway.dicom.encoding import notes
from gateway.dicom.encoding.check import check_encoding
from gateway.dicom.encoding.elements import LONG_VRS, UNDEFINED, Layout
from gateway.dicom.encoding.encoded import InstanceHeader, read_header
from gateway.dicom.encoding.fragments import even_fragments
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.syntaxes import (
    DEFLATED_LITTLE,
    ENCAPSULATED_UNCOMPRESSED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    RLE_LOSSLESS,
    syntax_of,
)
from gateway.dicom.pixels.frames import FrameReader
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from gateway.mark import load_profiles
from gateway.protect.policy import decide
from tests.support.dicom.samples import encode, facts, image

SYNTAXES = [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED_LITTLE]


def layout_of(syntax: str) -> Layout:
    return Layout(syntax_of(syntax).implicit, syntax_of(syntax).little_endian)


def element(tag: int, vr: bytes, value: bytes, syntax: str) -> bytes:
    layout = layout_of(syntax)
    head = struct.pack(layout.order + "HH", tag >> 16, tag & 0xFFFF)
    if layout.implicit:
        return head + struct.pack("<I", len(value)) + value
    if vr in LONG_VRS:
        return head + vr + b"\0\0" + struct.pack(layout.order + "I", len(value)) + value
    return head + vr + struct.pack(layout.order + "H", len(value)) + value


def item(content: bytes, syntax: str, *, open_ended: bool = False) -> bytes:
    pack = struct.Struct(layout_of(syntax).order + "HHI").pack
    if open_ended:
        return pack(0xFFFE, 0xE000, UNDEFINED) + content + pack(0xFFFE, 0xE00D, 0)
    return pack(0xFFFE, 0xE000, len(content)) + content


def with_elements(added: bytes, syntax: str, before: int = 0x00280002, **changes: object) -> bytes:
    """An image with more elements in front of one of its own."""
    plain = EXPLICIT_LITTLE if syntax == DEFLATED_LITTLE else syntax
    data = encode(image(**changes), plain)
    at = data.index(struct.pack(layout_of(plain).order + "HH", before >> 16, before & 0xFFFF))
    data = data[:at] + added + data[at:]
    if syntax != DEFLATED_LITTLE:
        return data
    squeeze = zlib.compressobj(wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


def header_of(data: bytes, syntax: str = EXPLICIT_LITTLE) -> InstanceHeader:
    return read_header(io.BytesIO(data), syntax)


def copies(data: bytes, syntax: str) -> list[bytes]:
    """The marked and the remapped copy."""
    frames = decode_pixels(data, syntax).frames
    return [derive(data, syntax, frames, facts()), derive_references(data, syntax, facts())]


def odd_lengths(data: bytes) -> list[str]:
    """Every length of elements, items and fragments that is odd, by a walk of its own (Explicit VR Little Endian)."""
    found, at = [], 0
    while at < len(data):
        group, number = struct.unpack_from("<HH", data, at)
        if group == 0xFFFE:
            length, at = struct.unpack_from("<I", data, at + 4)[0], at + 8
            is_fragment = number == 0xE000 and length not in (0, UNDEFINED) and not _begins_element(data, at)
        else:
            long = data[at + 4 : at + 6] in LONG_VRS
            length = struct.unpack_from("<I" if long else "<H", data, at + (8 if long else 6))[0]
            is_fragment = data[at + 4 : at + 6] != b"SQ" and length != UNDEFINED
            at += 12 if long else 8
        if length & 1 and length != UNDEFINED:
            found.append(f"({group:04X},{number:04X})")
        at += length if is_fragment else 0
    return found


def _begins_element(data: bytes, at: int) -> bool:
    return struct.unpack_from("<H", data, at)[0] in (0x0008, 0x0010, 0xFFFE)


# --- odd lengths (PS3.5 7.1.1, A.4)


ODD = {
    "text": (0x00101020, b"DS", b"1.8"),
    "person": (0x00101005, b"PN", b"A^B"),
    "UID": (0x00200052, b"UI", b"1.2.3"),
    "bytes": (0x00182003, b"OB", b"\1\2\3"),
    "private": (0x00110010, b"LO", b"OWN"),
    "number": (0x00181310, b"US", b"\1\2\3"),
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("name", ODD)
def test_a_copy_has_even_lengths_only(name, syntax):
    plain = EXPLICIT_LITTLE if syntax == DEFLATED_LITTLE else syntax
    tag, vr, value = ODD[name]
    odd = element(tag, vr, value, plain)
    nested = element(0x00081140, b"SQ", item(odd, plain, open_ended=True) + item(odd, plain), plain)
    for added in (odd, nested):
        data = with_elements(added, syntax, FrameOfReferenceUID=None)
        assert notes.ODD in header_of(data, syntax).notes
        for copy in copies(data, syntax):
            assert odd_lengths(copy) == [] and len(copy) % 2 == 0
            assert value in copy


@pytest.mark.parametrize("has_table", [True, False])
def test_odd_fragments_are_padded_and_the_offset_table_follows(has_table):
    frames = [bytes([number]) * length for number, length in enumerate((11, 8, 3, 7), 1)]
    lengths = [len(frame) for frame in frames]
    starts = [sum(8 + length for length in lengths[:number]) for number in range(len(frames))]
    pack = struct.Struct("<HHI").pack
    table = struct.pack("<4I", *starts) if has_table else b""
    value = pack(0xFFFE, 0xE000, len(table)) + table
    value += b"".join(pack(0xFFFE, 0xE000, len(frame)) + frame for frame in frames)
    even, padded = even_fragments(value)
    right = encapsulate([frame + b"\0" * (len(frame) % 2) for frame in frames], has_bot=has_table)
    assert padded and even == right
    assert even_fragments(right) == (right, False)


def test_odd_fragments_of_a_remapped_object():
    ds = image(np.zeros((2, 6, 8), np.uint8), NumberOfFrames=2)
    ds.PixelData = encapsulate([b"12345678", b"1234567890"])
    ds["PixelData"].is_undefined_length = True
    data = encode(ds)
    data = data.replace(
        struct.pack("<HHI", 0xFFFE, 0xE000, 8) + b"12345678", struct.pack("<HHI", 0xFFFE, 0xE000, 7) + b"1234567"
    )
    copy = derive_references(data, RLE_LOSSLESS, facts())
    assert odd_lengths(copy) == [] and b"1234567\0" in copy


# --- one tag twice (PS3.5 7.1)


TWICE = {
    "text": (0x00100040, b"CS", b"M ", b"F "),
    "number": (0x00181310, b"US", b"\1\1", b"\2\2"),
    "private": (0x00111001, b"UN", b"ab", b"cd"),
    "window": (0x00281050, b"DS", b"40", b"80"),
}
PLACES = ("top", "item", "deep", "open")


def place_of(two: bytes, place: str, syntax: str) -> bytes:
    if place == "top":
        return two
    inner = item(two, syntax, open_ended=place == "open")
    if place == "deep":
        inner = item(element(0x00081155, b"UI", b"1.2\0", syntax) + element(0x00081199, b"SQ", inner, syntax), syntax)
    return element(0x00081140, b"SQ", inner, syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", TWICE)
def test_equal_values_count_once_and_different_ones_hold(name, place, syntax):
    plain = EXPLICIT_LITTLE if syntax == DEFLATED_LITTLE else syntax
    tag, vr, first, second = TWICE[name]
    between = element(0x00080104, b"LO", b"between ", plain) if place != "top" else b""  # not side by side
    one, same, other = (element(tag, vr, value, plain) for value in (first, first, second))
    data = with_elements(place_of(one + between + same, place, plain), syntax)
    header = header_of(data, syntax)
    assert (header.notes, header.conflicts) == ((notes.DUPLICATE,), ())
    for copy in copies(data, syntax):
        assert header_of(copy).notes == ()
    data = with_elements(place_of(one + between + other, place, plain), syntax)
    header = header_of(data, syntax)
    assert header.conflicts == (tag,)
    route = Route(name="r", called_ae="R", destinations=("d",))
    assert decide(header, route, load_profiles()).code == "duplicate-element"
    if place == "top" and name != "number":
        assert first.strip() in (header.form.dataset().get_item(tag).value or b"")


def test_the_first_of_two_is_what_index_and_rules_see():
    data = with_elements(element(0x00100020, b"LO", b"SECOND", EXPLICIT_LITTLE), EXPLICIT_LITTLE)
    assert header_of(data).attributes["00100020"]["Value"] == ["P1"]
    data = with_elements(element(0x00080060, b"CS", b"MR", EXPLICIT_LITTLE), EXPLICIT_LITTLE)
    assert header_of(data).modality == "CT" and header_of(data).conflicts == (0x00080060,)


def test_what_stands_behind_the_pixels_again():
    same, other = (element(0x00100020, b"LO", value, EXPLICIT_LITTLE) for value in (b"P1", b"P2"))
    data = encode(image())
    (copy, _) = copies(data + same, EXPLICIT_LITTLE)
    assert copy == copies(data, EXPLICIT_LITTLE)[0]
    for read in (
        lambda: split(data + other, EXPLICIT_LITTLE),
        lambda: FrameReader(io.BytesIO(data + other), len(data + other), EXPLICIT_LITTLE),
    ):
        with pytest.raises(DicomError) as caught:
            read()
        assert caught.value.code == "duplicate-element" and caught.value.hint
    pixels = data[data.index(b"\xe0\x7f\x10\0") :]
    assert split(data + pixels, EXPLICIT_LITTLE).header.rows == 6
    with pytest.raises(DicomError):
        split(data + pixels[:-1] + b"\x77", EXPLICIT_LITTLE)


def test_field_objects_with_one_tag_twice_are_held(field_inputs):
    for name, tag in (("dup_patientid", 0x00100020), ("dup_studyuid", 0x0020000D), ("dup_window", 0x00281050)):
        with (field_inputs / "duplicates" / f"{name}.dcm").open("rb") as file:
            meta, _ = split_part10(file)
            header = header_of(file.read(), meta.transfer_syntax_uid)
        assert header.conflicts == (tag,)
        assert decide(header, Route(name="r", called_ae="R", destinations=("d",)), load_profiles()).action == "hold"


# --- native values


def test_big_endian_words_of_a_header_are_turned():
    words, floats = np.arange(24, dtype=np.uint16), np.linspace(-1, 1, 12, dtype=np.float32)
    added = b"".join(
        (
            element(0x00281201, b"OW", words.astype(">u2").tobytes(), EXPLICIT_BIG),
            element(0x00660016, b"OF", floats.astype(">f4").tobytes(), EXPLICIT_BIG),
            element(0x00660023, b"OW", words.astype(">u2").tobytes(), EXPLICIT_BIG),
            element(0x00720052, b"AT", struct.pack(">HH", 0x0010, 0x0020), EXPLICIT_BIG),
            element(0x00189087, b"FD", struct.pack(">d", 2.5), EXPLICIT_BIG),
            element(0x60003000, b"OW", b"\1\2\3\4", EXPLICIT_BIG),
        )
    )
    data = encode(image(), EXPLICIT_BIG)
    at = data.rindex(struct.pack(">HH", 0x7FE0, 0x0010))
    data = data[:at] + added + data[at:]
    for nested in (False, True):
        if nested:
            data = with_elements(element(0x00081140, b"SQ", item(added, EXPLICIT_BIG), EXPLICIT_BIG), EXPLICIT_BIG)
        ds = header_of(data, EXPLICIT_BIG).form.dataset()
        ds = ds.ReferencedImageSequence[0] if nested else ds
        assert ds[0x00281201].value == ds[0x00660023].value == words.tobytes()
        assert ds[0x00660016].value == floats.tobytes()
        assert (ds[0x00720052].value, ds[0x00189087].value, ds[0x60003000].value) == (0x00100020, 2.5, b"\2\1\4\3")


def test_the_field_overlay_in_big_endian_words(field_inputs):
    with (field_inputs / "native" / "be_overlay.dcm").open("rb") as file:
        meta, _ = split_part10(file)
        data = file.read()
    plane = header_of(data, meta.transfer_syntax_uid).form.dataset()[0x60003000].value
    turned = np.frombuffer(plane, ">u2").astype("<u2").tobytes()
    assert turned in data and plane in copies(data, meta.transfer_syntax_uid)[1]


BEHIND = {"two": bytes(2), "sixteen": bytes(16), "many": bytes(1 << 21), "junk": bytes(15) + b"\1"}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("name", BEHIND)
def test_zeros_behind_native_pixels_are_padding(name, syntax):
    plain = EXPLICIT_LITTLE if syntax == DEFLATED_LITTLE else syntax
    ds = image(np.full((1, 6, 8), 0x0707, np.uint16))
    ds.PixelData += BEHIND[name]
    data = encode(ds, plain)
    if syntax == DEFLATED_LITTLE:
        squeeze = zlib.compressobj(wbits=-15)
        data = squeeze.compress(data) + squeeze.flush()
    if name == "junk":
        with pytest.raises(DicomError) as caught:
            check_encoding(io.BytesIO(data), len(data), syntax)
        assert caught.value.code == "pixel-data-too-long"
        return
    assert check_encoding(io.BytesIO(data), len(data), syntax).rows == 6
    assert (decode_pixels(data, syntax).frames == 0x0707).all()
    copy = copies(data, syntax)[0]
    assert len(split(copy, EXPLICIT_LITTLE).value) == 96


def test_field_objects_whose_pixels_are_too_long(field_inputs):
    for name, code in (("too_long_16", ""), ("too_long_junk", "pixel-data-too-long")):
        with (field_inputs / "native" / f"{name}.dcm").open("rb") as file:
            meta, _ = split_part10(file)
            data = file.read()
        if not code:
            assert decode_pixels(data, meta.transfer_syntax_uid).frames.size
            continue
        with pytest.raises(DicomError) as caught:
            decode_pixels(data, meta.transfer_syntax_uid)
        assert caught.value.code == code


@pytest.mark.parametrize("fragments", [1, 2])
@pytest.mark.parametrize(
    "frames",
    [
        np.arange(48, dtype=np.uint16).reshape(1, 6, 8),
        np.arange(105, dtype=np.uint8).reshape(3, 5, 7),
        np.arange(180, dtype=np.uint8).reshape(2, 5, 6, 3),
    ],
)
def test_encapsulated_uncompressed_is_read(frames, fragments):
    ds = image(frames)
    ds.PixelData = encapsulate([frame.tobytes() for frame in frames], fragments_per_frame=fragments, has_bot=True)
    ds["PixelData"].is_undefined_length = True
    data = encode(ds)
    assert np.array_equal(decode_pixels(data, ENCAPSULATED_UNCOMPRESSED).frames, frames)
    copy = derive(data, ENCAPSULATED_UNCOMPRESSED, frames, facts())
    assert np.array_equal(decode_pixels(copy, EXPLICIT_LITTLE).frames, frames)
    reader = FrameReader(io.BytesIO(data), len(data), ENCAPSULATED_UNCOMPRESSED)
    assert np.array_equal(np.concatenate([pixels.frames for _, pixels in reader.pieces()]), frames)


# --- values that are read as they were meant


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_missing_high_bit_is_bits_stored_less_one(syntax):
    ds = image(np.full((1, 6, 8), 0x0303, np.uint16), BitsStored=12)
    del ds.HighBit
    data = encode(ds, EXPLICIT_LITTLE if syntax == DEFLATED_LITTLE else syntax)
    if syntax == DEFLATED_LITTLE:
        squeeze = zlib.compressobj(wbits=-15)
        data = squeeze.compress(data) + squeeze.flush()
    assert header_of(data, syntax).high_bit == 11
    assert (decode_pixels(data, syntax).frames == 0x0303).all()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_decimal_comma_is_read_as_a_point_and_noted(syntax):
    plain = EXPLICIT_LITTLE if syntax == DEFLATED_LITTLE else syntax
    added = element(0x00281050, b"DS", b"40,5", plain) + element(0x00281051, b"DS", b"400,25\\80,5 ", plain)
    added += element(0x00281052, b"DS", b"-1024,0 ", plain) + element(0x00281053, b"DS", b"1", plain)
    data = with_elements(added, syntax, before=0x7FE00010)
    header = header_of(data, syntax)
    assert notes.COMMA in header.notes and notes.NO_NUMBER not in header.notes
    windows = decode_pixels(data, syntax).displays[0].windows
    assert len(windows) >= 1 and b"40,5" in copies(data, syntax)[0]
    added = element(0x00281050, b"DS", b"much", plain)
    assert notes.NO_NUMBER in header_of(with_elements(added, syntax, before=0x7FE00010), syntax).notes


def test_the_field_window_with_a_comma(field_inputs):
    with (field_inputs / "display" / "win_comma.dcm").open("rb") as file:
        meta, _ = split_part10(file)
        data = file.read()
    assert notes.COMMA in header_of(data, meta.transfer_syntax_uid).notes
    assert decode_pixels(data, meta.transfer_syntax_uid).displays[0].windows


def test_every_note_has_a_sentence():
    codes = {value for name, value in vars(notes).items() if name.isupper() and isinstance(value, str)}
    assert codes == set(notes.SENTENCES) and len(notes.sentences(codes)) == len(codes)


def test_a_broken_sequence_stays_as_it_is():
    ds = Dataset()
    ds.PatientID = "x"
    broken = item(b"\x08\0\x55\x11UI\xff\x00", EXPLICIT_LITTLE)
    data = with_elements(element(0x00081140, b"SQ", broken, EXPLICIT_LITTLE), EXPLICIT_LITTLE)
    header = header_of(data)
    assert notes.UNREADABLE in header.notes and header.form.opaque
    assert header.dataset.get_item(0x00081140).value == broken
