"""What rides along in a copy: small private values and listed bulk do, whatever could hold the picture does not."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_dataset

from gateway.dicom.copy.bulk import RideAlong
from gateway.dicom.copy.derive import derive
from gateway.dicom.copy.references import derive_references
from gateway.dicom.copy.sift import sift
from gateway.dicom.encoding.part10 import split_part10
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError, HoldError
from tests.support.dicom.samples import corpus, encode, facts, image, slightly_changed
from tests.support.dicom.traces import trace_of
from tests.support.examples import examples

SYNTAXES = [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG]
PIXELS = np.random.default_rng(3).integers(0, 4096, (1, 64, 64)).astype(np.uint16)
FRAME = PIXELS.tobytes()
THUMBNAIL = np.ascontiguousarray(PIXELS[:, ::2, ::2]).tobytes()


def copied(ds: Dataset, syntax: str = EXPLICIT_LITTLE, data: bytes | None = None, **rules: object) -> bytes:
    data = encode(ds, syntax) if data is None else data
    pixels = decode_pixels(data, syntax)
    marked = slightly_changed(pixels.frames, pixels.limits)
    return derive(data, syntax, marked, facts(ride_along=RideAlong(**rules)), pixels)


def read(copy: bytes) -> Dataset:
    return read_dataset(io.BytesIO(copy), False, True)


def picture(**changes: object) -> Dataset:
    return image(PIXELS, BitsStored=12, **changes)


def icon(value: bytes = THUMBNAIL, undefined: bool = False) -> Dataset:
    item = Dataset()
    item.Rows = item.Columns = 32
    item.BitsAllocated = 16
    item.add_new(0x7FE00010, "OW", value)
    item.is_undefined_length_sequence_item = undefined
    return item


def private(ds: Dataset, *elements: tuple[int, str, object], creator: str = "ACME", group: int = 0x0029) -> Dataset:
    if creator:
        ds.add_new(group << 16 | 0x10, "LO", creator)
    for number, vr, value in elements:
        ds.add_new(group << 16 | 0x1000 | number, vr, value)
    return ds


def sequence(ds: Dataset, tag: int, items: list[Dataset], undefined: bool) -> Dataset:
    ds[tag] = DataElement(tag, "SQ", items, is_undefined_length=undefined)
    return ds


def nested_icon(undefined: bool) -> Dataset:
    return sequence(private(picture()), 0x00291010, [sequence(Dataset(), 0x00880200, [icon()], undefined)], undefined)


def deep(undefined: bool) -> Dataset:
    inner = [icon(undefined=undefined)]
    for tag in (0x00291030, 0x00081140, 0x00291020, 0x00081115):
        inner = [sequence(Dataset(), tag, inner, undefined)]
    return sequence(picture(), 0x04000561, inner, undefined)


LEAKS = {
    "private OB": lambda undefined: private(picture(), (0x10, "OB", FRAME)),
    "private OW without a creator": lambda undefined: private(picture(), (0x10, "OW", FRAME), creator=""),
    "private UN": lambda undefined: private(picture(), (0x10, "UN", FRAME)),
    "private OF": lambda undefined: private(picture(), (0x10, "OF", FRAME)),
    "private OD": lambda undefined: private(picture(), (0x10, "OD", FRAME)),
    "private UT": lambda undefined: private(picture(), (0x10, "UT", FRAME[:4096].hex())),
    "7FE1": lambda undefined: private(picture(), (0x60, "OB", FRAME), group=0x7FE1),
    "7F00": lambda undefined: _with(picture(), 0x7F000010, "OW", FRAME),
    "7F02, small": lambda undefined: _with(picture(), 0x7F020010, "OW", FRAME[:128]),
    "icon": lambda undefined: sequence(picture(), 0x00880200, [icon()], undefined),
    "icon in a private sequence": nested_icon,
    "pixel data in a private sequence": lambda undefined: sequence(
        private(picture()), 0x00291010, [icon(undefined=undefined)], undefined
    ),
    "pixel data in Original Attributes": lambda undefined: sequence(picture(), 0x04000561, [icon()], undefined),
    "small pixel data in a sequence": lambda undefined: sequence(picture(), 0x04000561, [icon(FRAME[:128])], undefined),
    "five sequences deep": deep,
    "Encapsulated Document": lambda undefined: _with(picture(), 0x00420011, "OB", FRAME[:256]),
    "Spectroscopy Data": lambda undefined: _with(picture(), 0x56000020, "OF", FRAME[:256]),
    "Waveform Data": lambda undefined: sequence(
        picture(), 0x54000100, [_with(Dataset(), 0x54001010, "OW", FRAME)], undefined
    ),
    "curve": lambda undefined: _with(picture(), 0x50003000, "OW", FRAME),
    "maker note": lambda undefined: _with(picture(), 0x0016002B, "OB", FRAME),
    "unknown even group": lambda undefined: _with(picture(), 0x00520099, "OB", FRAME),
    "text as binary": lambda undefined: _with(picture(), 0x00104000, "OB", FRAME),
    "a small image in a private item": lambda undefined: sequence(
        private(picture()), 0x00291010, [private(_sized(), (1, "OB", FRAME[:900]))], undefined
    ),
}  # fmt: skip


def _with(ds: Dataset, tag: int, vr: str, value: object) -> Dataset:
    ds.add_new(tag, vr, value)
    return ds


def _sized() -> Dataset:
    ds = Dataset()
    ds.Rows = ds.Columns = 20
    return ds


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("name", LEAKS)
def test_what_may_hold_the_picture_does_not_leave(name, syntax, undefined):
    ds = LEAKS[name](undefined)
    try:
        copy = copied(ds, syntax)
    except HoldError as error:
        assert error.code == "pixels-outside" and (name, syntax) == ("text as binary", IMPLICIT_LITTLE)
        return
    assert trace_of(PIXELS, outside_pixels(copy)) is None
    assert np.array_equal(decode_pixels(copy, EXPLICIT_LITTLE).frames[:, 1:], PIXELS[:, 1:]) or len(copy) > len(FRAME)
    assert read(copy).PatientName == "Doe^Jane"


def outside_pixels(copy: bytes) -> bytes:
    """The encoded elements of a copy in front of its pixel data and behind it."""
    parts = split(copy, EXPLICIT_LITTLE)
    return parts.header_bytes + parts.trailer_bytes


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("name", LEAKS)
def test_what_refers_to_images_takes_none_along_either(name, syntax, undefined):
    ds = LEAKS[name](undefined)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.59"
    del ds.PixelData, ds.Rows, ds.Columns
    copy = read(derive_references(encode(ds, syntax), syntax, facts()))
    if (name, syntax) != ("text as binary", IMPLICIT_LITTLE):  # there the VR is the dictionary's: Patient Comments
        assert trace_of(PIXELS, encode(copy)) is None
    assert copy.PatientName == "Doe^Jane"


def test_what_the_copy_carries_is_ours():
    """A sealed payload may be as long as it needs to be, and is not looked into."""
    data = encode(picture())
    pixels = decode_pixels(data, EXPLICIT_LITTLE)
    marked = slightly_changed(pixels.frames, pixels.limits)
    copy = derive(data, EXPLICIT_LITTLE, marked, facts(sealed_key=b"k" * 80, payload=FRAME), pixels)
    assert FRAME in copy


@pytest.mark.parametrize("layout", [IMPLICIT_LITTLE, EXPLICIT_LITTLE])
@pytest.mark.parametrize("vr", ["UN", "OB"])
def test_a_sequence_in_the_guise_of_binary_data(vr, layout):
    items = Dataset()
    sequence(items, 0x00880200, [icon(FRAME[:256])], False)
    private(items, (0x01, "LO", "small"))
    hidden = encode(items, layout)
    value = struct.pack("<HHI", 0xFFFE, 0xE000, len(hidden)) + hidden
    out = read(copied(private(picture(), (0x10, vr, value), (0x11, "LO", "beside"))))
    assert out[0x00291011].value == "beside"
    kept = out.get_item(0x00291010).value
    assert b"small" in kept and FRAME[:64] not in kept and len(kept) == len(value) - len(encode_icon(layout))


def encode_icon(layout: str) -> bytes:
    return encode(sequence(Dataset(), 0x00880200, [icon(FRAME[:256])], False), layout)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_small_private_values_and_listed_bulk_stay(syntax):
    ds = private(picture(), (1, "LO", "text"), (2, "OB", bytes(range(200))), (3, "DS", "1.5"), (4, "UN", b"\1" * 1024))
    lut = Dataset()
    lut.LUTDescriptor = [4096, 0, 16]
    lut.LUTExplanation = "curve"
    lut.add_new(0x00283006, "OW", np.arange(4096, dtype="u2")[::-1].tobytes())
    ds.VOILUTSequence = [lut]
    ds.ICCProfile = b"profile " * 500
    ds.ImageComments = "long " * 1000
    ds.FilterType = "STANDARD EXTEND"  # of another module than those of a CT image
    out = read(copied(ds, syntax))
    assert out[0x00290010].value in ("ACME", b"ACME")
    assert bytes(out.get_item(0x00291002).value) == bytes(range(200))
    assert bytes(out.get_item(0x00291004).value) == b"\1" * 1024
    assert len(out.VOILUTSequence[0].LUTData) in (4096, 8192)
    assert out.ICCProfile == b"profile " * 500
    assert out.ImageComments.endswith("long " * 1000) or "long long" in out.ImageComments
    assert out.FilterType == "STANDARD EXTEND"


def test_a_private_block_has_a_bound():
    ds = private(picture(), *[(number, "OB", bytes([number]) * 1000) for number in range(100)])
    private(ds, (1, "OB", b"x" * 1000), group=0x0031)
    out = read(copied(ds))
    left = [tag for tag in out.keys() if tag >> 8 == 0x002910]  # noqa: SIM118
    assert len(left) == (64 << 10) // 1008 and 0x00311001 in out
    assert len(read(copied(ds, block_bytes=2000)).keys() & set(left)) == 1


@pytest.mark.parametrize("tags", [range(0x00520001, 0x005200C0), range(0x50003000, 0x50203000, 0x20000)])
def test_small_standard_values_that_no_list_has_have_a_bound_together(tags):
    ds = picture()
    for tag in tags:
        ds.add_new(tag, "OB", bytes([tag & 0xFF | 1, tag >> 16 & 0xFF]) * 500)
    out = read(copied(ds, block_bytes=8 * 1008))
    assert sum(tag in out for tag in tags) == 8


@pytest.mark.parametrize("undefined", [False, True])
def test_private_sequences_count_for_their_block_and_keep_their_bytes(undefined):
    small = [private(Dataset(), (1, "LO", f"item {number}")) for number in range(20)]
    ds = sequence(private(picture()), 0x00291020, small, undefined)
    original = encode(ds)
    at = original.index(b"\x29\x00\x20\x10")
    assert original[at : at + 200] in copied(ds)
    many = [private(Dataset(), (1, "OB", bytes([number % 251]) * 1000)) for number in range(200)]
    out = read(copied(sequence(private(picture()), 0x00291020, many, undefined)))
    kept = sum(0x00291001 in item for item in out[0x00291020].value)
    assert 60 <= kept <= 65 and len(out[0x00291020].value) == 200


def test_the_route_names_creators_that_stay():
    ds = private(picture(), (0x10, "OB", b"csa " * 5000), creator="SIEMENS CSA HEADER")
    private(ds, (0x10, "OB", b"other " * 500), creator="OTHER", group=0x0033)
    sequence(
        ds, 0x00291020, [sequence(icon(), 0x00291021, [_with(Dataset(), 0x00291001, "OB", b"y" * 3000)], False)], False
    )
    out = read(copied(ds, keep=frozenset({"SIEMENS CSA HEADER"})))
    assert out[0x00291010].value == b"csa " * 5000 and 0x00331010 not in out
    item = out[0x00291020].value[0]
    assert 0x7FE00010 not in item and item[0x00291021].value[0][0x00291001].value == b"y" * 3000


def test_the_route_holds_or_keeps_what_is_too_large():
    ds = private(picture(), (0x10, "OB", b"raw " * 5000))
    with pytest.raises(HoldError, match=r"\(0029,1010\), 20000 bytes") as held:
        copied(ds, private="hold")
    assert held.value.code == "private-bulk"
    assert copied(private(picture(), (1, "LO", "small")), private="hold")
    assert copied(sequence(picture(), 0x00880200, [icon()], False), private="hold"), "icons are left out, not held"
    kept = sequence(ds, 0x00880200, [icon()], False)
    out = read(copied(kept, private="keep"))
    assert out[0x00291010].value == b"raw " * 5000 and 0x00880200 not in out


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("form", ["as it is", "swapped", "every second", "chopped"])
def test_a_copy_with_pixels_elsewhere_is_held(form, syntax):
    """Where the rule keeps what holds pixels after all: small pieces, named creators, lookup tables."""
    value = {
        "as it is": FRAME,
        "swapped": PIXELS.byteswap().tobytes(),
        "every second": np.ascontiguousarray(PIXELS[:, :, 1::2]).tobytes(),
        "chopped": FRAME[640:768],
    }[form]
    rules = {} if form == "chopped" else {"keep": frozenset({"ACME"})}
    with pytest.raises(HoldError, match=r"0029,1010") as held:
        copied(private(picture(), (0x10, "OB", value)), syntax, **rules)
    assert held.value.code == "pixels-outside"
    lut = _with(Dataset(), 0x00283006, "OW", value[:4096])
    lut.LUTDescriptor = [len(value[:4096]) // 2, 0, 16]
    with pytest.raises(HoldError, match="pixels of the original stand outside"):
        copied(picture(VOILUTSequence=[lut]), syntax)


def test_encoded_pixels_elsewhere_are_found_too():
    fragment = np.random.default_rng(9).integers(0, 256, 4000).astype(np.uint8).tobytes()
    ds = picture()
    private(ds, (1, "OB", encapsulate([fragment])[:900]))
    parts = split(encode(ds), EXPLICIT_LITTLE)
    assert sift(parts, RideAlong())[1] == []
    item = Dataset()
    item[0x00291001] = DataElement(0x00291001, "OB", encapsulate([fragment]), is_undefined_length=True)
    ds = sequence(private(picture()), 0x00291010, [item], False)
    assert fragment[:64] not in copied(ds)


OVERLAYS = {
    "bit plane": lambda frame: frame >> 10 & 1,
    "threshold": lambda frame: frame > 2000,
    "inverse": lambda frame: frame <= 2000,
    "half-tone": lambda frame: np.random.default_rng(1).integers(0, 4096, frame.shape) < frame,
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("kind", OVERLAYS)
def test_an_overlay_that_shows_the_picture_goes(kind, syntax):
    smooth = (np.add.outer(np.arange(128), np.arange(128)) * 16 % 4096).astype(np.uint16)
    ds = image(smooth[None], BitsStored=12)
    out = read(copied(overlay(ds, OVERLAYS[kind](smooth), syntax), syntax))
    assert not [tag for tag in out.keys() if tag >> 16 == 0x6000]  # noqa: SIM118


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_an_overlay_that_says_where_something_is_stays(syntax):
    smooth = (np.add.outer(np.arange(128), np.arange(128)) * 16 % 4096).astype(np.uint16)
    drawn = np.zeros((128, 128), bool)
    drawn[30:60, 40:90] = True
    drawn[100:104, 3:120] = True
    out = read(copied(overlay(image(smooth[None], BitsStored=12), drawn, syntax), syntax))
    assert out[0x60000010].value == 128 and len(out[0x60003000].value) == 2048


def test_an_overlay_that_is_no_plane_goes():
    ds = overlay(picture(), np.zeros((64, 64), bool), EXPLICIT_LITTLE)
    ds[0x60003000].value = FRAME
    assert 0x60003000 not in read(copied(ds))


def overlay(ds: Dataset, plane: np.ndarray, syntax: str) -> Dataset:
    """The image with this plane in group 6000; the words of both are in the order of the syntax."""
    bits = np.packbits(plane.astype(bool).reshape(-1), bitorder="little").tobytes()
    if syntax == EXPLICIT_BIG:
        bits = np.frombuffer(bits, "u2").byteswap().tobytes()
        ds.PixelData = np.frombuffer(ds.PixelData, "u2").byteswap().tobytes()
    rows, columns = plane.shape
    for element, vr, value in ((0x10, "US", rows), (0x11, "US", columns), (0x40, "CS", "G"), (0x50, "SS", [1, 1]),
                               (0x100, "US", 1), (0x102, "US", 0), (0x3000, "OW", bits)):  # fmt: skip
        ds.add_new(0x60000000 | element, vr, value)
    return ds


def test_a_standard_sequence_that_cannot_be_looked_into_is_an_error():
    data = encode(sequence(picture(), 0x00081140, [icon()], False))
    at = data.index(b"\x08\x00\x40\x11SQ")
    broken = data[: at + 12] + b"\x08\x00\x18\x00" + data[at + 16 :]
    with pytest.raises(DicomError):
        copied(picture(), data=broken)


def test_guises_in_guises_do_not_take_for_ever():
    value = b"x"
    for _ in range(40):
        inner = struct.pack("<HH2sHI", 0x0029, 0x1001, b"UN", 0, len(value)) + value
        value = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner + b"garbage!"
    ds = private(picture(), (0x10, "UN", value))
    assert len(copied(ds)) < len(FRAME) + 8000


# -- property: nothing of the pixels anywhere else ---------------------------------------------------------------------


@st.composite
def privates(draw: st.DrawFn, depth: int = 0) -> Dataset:
    """A data set of private elements, some of which hold pieces of the picture."""
    ds = Dataset()
    for group in draw(st.lists(st.sampled_from([0x0009, 0x0029, 0x0031, 0x7F01, 0x7FE1, 0x7F00, 0x0088]), max_size=3)):
        if group & 1 and draw(st.booleans()):
            ds.add_new(group << 16 | 0x10, "LO", "ACME")
        for number in draw(st.lists(st.integers(0x1001, 0x10FF), max_size=3, unique=True)):
            if depth < 3 and draw(st.integers(0, 2)) == 0:
                items = [draw(privates(depth=depth + 1))]
                ds[group << 16 | number] = DataElement(
                    group << 16 | number, "SQ", items, is_undefined_length=draw(st.booleans())
                )
            else:
                ds.add_new(group << 16 | number, draw(st.sampled_from(["OB", "OW", "UN"])), draw(pieces()))
    return ds


def pieces() -> st.SearchStrategy[bytes]:
    forms = [FRAME, PIXELS.byteswap().tobytes(), np.ascontiguousarray(PIXELS[:, :, ::2]).tobytes(), THUMBNAIL]
    start, length = st.integers(0, 1000), st.integers(0, 700)
    return st.builds(lambda form, at, n: form[at : at + 2 * n], st.sampled_from(forms), start, length)


@examples(60)
@given(added=privates(), syntax=st.sampled_from(SYNTAXES))
def test_no_private_structure_takes_pixels_along(added, syntax):
    ds = picture()
    ds.update({tag: added[tag] for tag in added.keys()})  # noqa: SIM118
    try:
        copy = copied(ds, syntax)
    except HoldError as error:
        assert error.code == "pixels-outside"
        return
    assert trace_of(PIXELS, outside_pixels(copy)) is None


def test_real_and_field_objects_take_no_pixels_along(miad_data, field_inputs):
    kinds = {one.row["file"].split(".dcm_")[0]: one for one in corpus(miad_data) if one.path.stat().st_size < 150_000}
    seen = sum(takes_none_along(*one.read()) for one in kinds.values())
    assert seen > 40
    for path in sorted((field_inputs / "leaks").glob("*.dcm")):
        with path.open("rb") as file:
            meta, _ = split_part10(file)
            data = file.read()
        pixels = np.load(field_inputs / "leaks" / "pixels.npy")[None]
        frames = decode_pixels(data, meta.transfer_syntax_uid).frames
        assert np.array_equal(frames, pixels) and takes_none_along(data, meta.transfer_syntax_uid), path.name


def takes_none_along(data: bytes, syntax: str) -> bool:
    """Whether the object can be marked; then its copy holds none of its pixels elsewhere."""
    try:
        pixels = decode_pixels(data, syntax)
    except DicomError:
        return False
    copy = derive(data, syntax, slightly_changed(pixels.frames, pixels.limits), facts(), pixels)
    frames = pixels.containers(pixels.frames)
    assert trace_of(frames[: min(len(frames), 4)], outside_pixels(copy)) is None
    return True
