"""Counting before decoding: never less than pydicom makes of the same bytes, and a limit that costs next to nothing."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from gateway.dicom.copy.carried_body import read_copy
from gateway.dicom.encoding import limits, source
from gateway.dicom.encoding.check import check_encoding
from gateway.dicom.encoding.element_count import count
from gateway.dicom.encoding.elements import MAX_DEPTH, Layout
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.limits import ELEMENT, ITEM, MAX_DECODED
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.syntaxes import DEFLATED_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, syntax_of
from gateway.dicom.pixels.frames import FrameReader
from gateway.errors import DicomError
from tests.dicom.test_properties import DATASETS, NATIVE, dataset
from tests.support.dicom.samples import corpus, decoded, encode, image
from tests.support.examples import examples

ELEMENTS = 20_000  # so many elements fit into the budget of these tests


@pytest.fixture
def little(monkeypatch):
    """A budget of a few MiB, so that these tests take no time; the real one is measured further below."""
    monkeypatch.setattr(limits, "MAX_DECODED", ELEMENTS * ELEMENT)
    monkeypatch.setattr(source, "MAX_ELEMENTS", ELEMENTS)


LAYOUTS = [Layout(implicit, little) for implicit, little in ((False, True), (True, True), (False, False))]


def code_of(read, *given) -> str:
    with pytest.raises(DicomError) as caught:
        read(*given)
    assert caught.value.hint or caught.value.code == "nested-too-deep"
    return caught.value.code


# --- as pydicom counts


@examples(100)
@example(described={0x1001: ("UN", bytes(8))}, undefined=False, syntax=NATIVE[0])
@given(described=DATASETS, undefined=st.booleans(), syntax=st.sampled_from(NATIVE))
def test_what_is_well_formed_is_counted_exactly(described, undefined, syntax):
    ds = dataset(described, undefined)
    layout = Layout(syntax_of(syntax).implicit, syntax_of(syntax).little_endian)
    counted, made = count(encode(ds, syntax), layout), decoded(dataset(described, undefined))
    # without a VR (or with UN), what may be a sequence is counted as one: pydicom knows better of private elements
    without_vr = layout.implicit or "'UN'" in repr(described)
    assert counted == made or (without_vr and counted >= made)


def test_real_headers_stay_far_below_the_limits(miad_data):
    most = (0, 0)
    for one in corpus(miad_data):
        try:
            parts = split(*one.read(), without_pixels=True)
        except DicomError:
            continue
        found = count(parts.header_bytes, parts.layout)
        made = decoded(read_dataset(io.BytesIO(parts.header_bytes), parts.layout.implicit, parts.layout.little_endian))
        assert found == made or (found > made and found[0] < 2 * made[0])
        most = max(most, found)
    assert most[0] > 100 and most[0] * ELEMENT + most[1] * ITEM < MAX_DECODED // 100


TAGS = st.sampled_from(
    # sequences by the dictionary, of a private creator, of nobody; text; items and delimiters
    (0x00081140, 0x52009230, 0x00711018, 0x00090010, 0x00091001, 0x00100010, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0)
)
VRS = st.sampled_from((b"SQ", b"UN", b"LO", b"OB", b"ZZ", b"\0\0"))
LENGTHS = st.integers(0, 40) | st.sampled_from((0xFFFFFFFF, 0xFFFF, 8, 16))
HEADS = st.lists(st.tuples(TAGS, VRS, LENGTHS, st.booleans()), max_size=25)


def made_of(heads: list, layout: Layout) -> bytes:
    """Heads of elements and items one behind the other, whose lengths fit by chance."""
    out = b""
    for tag, vr, length, long in heads:
        out += struct.pack(layout.order + "HH", tag >> 16, tag & 0xFFFF)
        if layout.implicit or tag >> 16 == 0xFFFE:
            out += struct.pack(layout.order + "I", length)
        elif long:
            out += vr + b"\0\0" + struct.pack(layout.order + "I", length)
        else:
            out += vr + struct.pack(layout.order + "H", length & 0xFFFF)
    return out


@examples(600)
@given(outer=HEADS, inner=HEADS, layout=st.sampled_from(LAYOUTS))
def test_whatever_pydicom_decodes_was_counted(outer, inner, layout):
    value = made_of(inner, layout)
    head = struct.pack(layout.order + "HH", 0x0008, 0x1140)
    head += b"" if layout.implicit else b"SQ\0\0"
    data = head + struct.pack(layout.order + "I", len(value)) + value + made_of(outer, layout)
    counted = count(data, layout)
    try:
        ds = read_dataset(io.BytesIO(data), layout.implicit, layout.little_endian)
    except Exception:
        return
    made = decoded(ds)
    assert counted[0] >= made[0] and counted[1] >= made[1]


# --- refused before it is decoded


def tiny(number: int, order: str, implicit: bool) -> bytes:
    """So many empty elements, each of another tag."""
    heads = np.zeros(number, [("group", order + "u2"), ("number", order + "u2"), ("vr", "S2"), ("length", "u2")])
    numbers = np.arange(number)
    heads["group"], heads["number"] = 0x0009 + 2 * (numbers >> 16), numbers & 0xFFFF
    heads["vr"] = b"" if implicit else b"LO"
    return heads.tobytes()


def with_element(value: bytes, syntax: str, length: int | None = None) -> bytes:
    """An image with that value in its Referenced Image Sequence."""
    order = ">" if syntax == EXPLICIT_BIG else "<"
    head = struct.pack(order + "HH", 0x0008, 0x1140) + (b"" if syntax == IMPLICIT_LITTLE else b"SQ\0\0")
    head += struct.pack(order + "I", len(value) if length is None else length)
    plain = EXPLICIT_LITTLE if syntax == DEFLATED_LITTLE else syntax
    whole = encode(image(), plain)
    at = whole.index(struct.pack(order + "HH", 0x0010, 0x0010))
    data = whole[:at] + head + value + whole[at:]
    if syntax != DEFLATED_LITTLE:
        return data
    squeeze = zlib.compressobj(1, wbits=-15)
    return squeeze.compress(data) + squeeze.flush()


def hostile(kind: str, syntax: str, number: int) -> bytes:
    """Millions of elements in little more than 8 bytes each."""
    order = ">" if syntax == EXPLICIT_BIG else "<"
    item = lambda length: struct.pack(order + "HHI", 0xFFFE, 0xE000, length)  # noqa: E731
    if kind == "items of any tag":
        return with_element(bytes(8 * number), syntax)
    elements = tiny(number, order, syntax == IMPLICIT_LITTLE)
    if kind == "one item":
        return with_element(item(len(elements)) + elements, syntax)
    if kind == "one item without length":
        end = struct.pack(order + "HHI", 0xFFFE, 0xE00D, 0)
        return with_element(item(0xFFFFFFFF) + elements + end, syntax)
    third = len(elements) // 24 * 8
    pieces = [elements[at : at + third] for at in range(0, len(elements), third)]  # none of them too many
    return with_element(b"".join(item(len(piece)) + piece for piece in pieces), syntax)


KINDS = {
    "one item": "too-many-elements",
    "one item without length": "too-many-elements",
    "several items": "too-many-elements",
    "items of any tag": "too-many-items",
}


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED_LITTLE])
@pytest.mark.parametrize("kind", KINDS)
def test_more_elements_than_memory_allows_are_refused(kind, syntax, little):
    assert code_of(split, hostile(kind, syntax, ELEMENTS + 10), syntax) == KINDS[kind]


@pytest.mark.parametrize("kind", ["one item", "items of any tag"])
def test_every_reader_of_headers_refuses_them(kind, little):
    data = hostile(kind, EXPLICIT_LITTLE, ELEMENTS + 10)
    assert code_of(read_header, io.BytesIO(data), EXPLICIT_LITTLE) == KINDS[kind]
    assert code_of(check_encoding, io.BytesIO(data), len(data), EXPLICIT_LITTLE) == KINDS[kind]
    assert code_of(FrameReader, io.BytesIO(data), len(data), EXPLICIT_LITTLE) == KINDS[kind]
    assert code_of(read_copy, io.BytesIO(data), EXPLICIT_LITTLE) == KINDS[kind]


def test_as_many_as_are_allowed_are_read(little):
    number = ELEMENTS - len(image()) - ITEM // ELEMENT - 2
    data = hostile("one item", EXPLICIT_LITTLE, number)
    assert len(read_header(io.BytesIO(data), EXPLICIT_LITTLE).dataset[0x00081140].value[0]) == number


def test_a_large_header_that_is_nested_too_deep_is_not_counted_on():
    value = tiny(300_000, "<", False)
    for _ in range(MAX_DEPTH + 1):
        value = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
        value = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, len(value)) + value
    data = with_element(struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value, EXPLICIT_LITTLE)
    assert code_of(read_header, io.BytesIO(data), EXPLICIT_LITTLE) == "nested-too-deep"


def test_values_whose_end_is_searched_for_again_and_again():
    endless = struct.pack("<HHI", 0xFFFE, 0xE000, 20) + struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 0xFFFFFFFF)
    endless += struct.pack("<HHI", 0x0009, 0x1002, 0)
    data = with_element(endless * 100_000, EXPLICIT_LITTLE)
    assert code_of(read_header, io.BytesIO(data), EXPLICIT_LITTLE) in ("bad-sequence", "too-many-items")
    assert read_header(io.BytesIO(with_element(endless * 10, EXPLICIT_LITTLE)), EXPLICIT_LITTLE).rows == 6


MEASURED = """
import io, resource, sys, time, zlib
from gateway.dicom.encoding.parts import split
from gateway.errors import DicomError
data = zlib.decompress(sys.stdin.buffer.read())
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    split(data, sys.argv[1])
except DicomError as error:
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(error.code, time.process_time() - start, more // 1024)
"""


@pytest.mark.parametrize("kind", ["one item", "items of any tag"])
def test_sixty_four_mebibytes_are_refused_with_little_memory_and_soon(kind):
    data = hostile(kind, EXPLICIT_LITTLE, (64 << 20) // 8)
    asked = [sys.executable, "-c", MEASURED, EXPLICIT_LITTLE]
    done = subprocess.run(asked, input=zlib.compress(data, 1), capture_output=True, timeout=120, check=True)
    code, seconds, more = done.stdout.decode().split()
    assert code == KINDS[kind]
    assert float(seconds) < 10  # 1 to 2; decoding takes a minute
    assert int(more) < 160  # MiB: the header is there once more; decoded it takes 2500
