"""A whole encoded instance in memory, cut into header, pixel data and what follows: nothing copied that need not be."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field, replace

import numpy as np
from pydicom import Dataset

from gateway.dicom.encoding.check import check_pixel_data, walk_pixels
from gateway.dicom.encoding.depth import check_form
from gateway.dicom.encoding.elements import SEQUENCE_END, UNDEFINED, Element, Layout, skip_value, top_level
from gateway.dicom.encoding.encoded import InstanceHeader, describe, open_source, split_header, walk
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.normal_form import TRAILING_PADDING, NormalForm, duplicates
from gateway.dicom.encoding.source import MAX_INFLATED, InflatingReader, Source
from gateway.dicom.encoding.syntaxes import Syntax, syntax_of
from gateway.errors import DicomError


@dataclass(frozen=True, repr=False)
class Parts:
    """One instance, checked.

    Attributes
    ----------
    header
        Facts; its `dataset` holds every element before group 7FE0, large binary values included.
    header_bytes, trailer_bytes
        The encoded elements before and behind the pixel data.
    trailer
        What comes behind the pixel data, walked.
    data
        The whole data set as it came, inflated; empty where it is read in pieces.
    syntax, layout
        What the transfer syntax says, and how the elements really are encoded.
    pixels, value
        Head and bytes of the pixel data element (fragments with their item heads when encapsulated); None and empty
        for an object without pixel data.
    """

    header: InstanceHeader
    syntax: Syntax
    layout: Layout
    pixels: Element | None
    value: memoryview
    header_bytes: bytes
    trailer_bytes: bytes
    trailer: NormalForm = field(default_factory=lambda: NormalForm(()))
    data: bytes = b""

    def fresh_dataset(self) -> Dataset:
        """All elements but the pixel data, as in Explicit VR Little Endian, to be changed and encoded again.

        Not `header.dataset`: pydicom encodes an element otherwise once its value has been looked at, and the derived
        bytes must not depend on who looked at what before.
        """
        ds = self.header.form.dataset()
        for element in self.trailer.elements:
            ds[element.tag] = element
        return ds

    def with_elements(self, header_bytes: bytes, trailer_bytes: bytes) -> Parts:
        """The same pixels with these encoded elements before and behind them, of which some may have been taken out."""
        if header_bytes == self.header_bytes and trailer_bytes == self.trailer_bytes:
            return self
        form, behind = walk(header_bytes, self.layout), walk(trailer_bytes, self.layout)
        first = {element.tag for element in form.elements}
        behind = replace(behind, elements=tuple(one for one in behind.elements if one.tag not in first))
        return replace(
            self,
            header=replace(self.header, form=form, dataset=form.dataset()),
            header_bytes=header_bytes,
            trailer_bytes=trailer_bytes,
            trailer=behind,
        )

    def fragments(self) -> tuple[bytes, list[memoryview], list[int]]:
        """Offset table, fragments, and the offset of each from the first fragment's item (PS3.5 A.4)."""
        found: list[memoryview] = []
        starts: list[int] = []
        position = 0
        while position + 8 <= len(self.value):
            tag = self.layout.tag(bytes(self.value[position : position + 4]))
            length = struct.unpack_from(self.layout.order + "I", self.value, position + 4)[0]
            if tag == SEQUENCE_END:
                break
            if length == UNDEFINED:
                raise DicomError("bad-sequence", "a fragment of the pixel data has no length")
            found.append(self.value[position + 8 : position + 8 + length])
            starts.append(position)
            position += 8 + length
        return bytes(found[0]), found[1:], [start - starts[1] for start in starts[1:]] if starts[1:] else []


def split(data: bytes, transfer_syntax_uid: str, *, without_pixels: bool = False) -> Parts:
    """Cut an instance into its parts; all of it is walked and checked as by `check_encoding`.

    Parameters
    ----------
    without_pixels
        Take objects without pixel data too (reports, presentation states, registrations).

    Raises
    ------
    DicomError
        all of `check_encoding`, and "no-pixels" for an object without pixel data that must have some.
    """
    syntax = syntax_of(transfer_syntax_uid)
    with foreign_errors("undecodable-header", "the data set cannot be read"):
        if syntax.deflated:
            data = _inflate(data)
        plain = Syntax(syntax.uid, implicit=syntax.implicit, little_endian=syntax.little_endian)
        source, layout = open_source(io.BytesIO(data), plain, len(data))
        header_bytes, pixels = split_header(source, layout, bulk=UNDEFINED, at_most=len(data))
        if pixels is None:
            if not without_pixels:
                raise DicomError("no-pixels", "the object has no pixel data")
            header = describe(walk(header_bytes, layout), None)
            check_form(header.form)
            if header.rows or header.columns:
                raise DicomError("no-pixels", "the object has no pixel data")
            return Parts(header, syntax, layout, None, memoryview(b""), header_bytes, b"", data=data)
        header, end, behind, trailer = read_behind(source, layout, syntax, header_bytes, pixels, len(data), data)
        value = memoryview(data)[pixels.value : end]
        return Parts(header, syntax, layout, pixels, value, header_bytes, behind, trailer, data)


def read_behind(
    source: Source,
    layout: Layout,
    syntax: Syntax,
    header_bytes: bytes,
    pixels: Element,
    at_most: int,
    data: bytes | None = None,
) -> tuple[InstanceHeader, int, bytes, NormalForm]:
    """Walk over the pixel data and what comes behind it, and check all of it as `check_encoding` does.

    Parameters
    ----------
    source
        At the value of the pixel data, as `split_header` leaves it.
    at_most
        Bytes that may come behind the pixel data.
    data
        The whole data set, where it is in memory: to see whether pixel data that stands there twice is the same.

    Returns
    -------
    tuple
        The header, the position where the pixel data ends, and the elements behind it: their bytes, and walked.
        What stands before the pixel data too is not among the latter.

    Raises
    ------
    DicomError
        all of `check_encoding`; "duplicate-element": an element stands behind the pixel data again, and differs.
    """
    form = walk(header_bytes, layout)
    found = walk_pixels(source, layout, pixels, form)
    end = found.end
    trailer = source.keep(at_most=at_most)
    for element in top_level(source, layout):
        skip_value(source, element, layout)
    source.keep_no_more()
    header = describe(form, pixels.tag)
    behind = walk(bytes(trailer), layout)
    check_form(header.form)
    check_form(behind)
    check_pixel_data(header, syntax, pixels, found)
    return (
        header,
        end,
        bytes(trailer),
        _only_behind(header.form, behind, {pixels.tag: data and data[pixels.value : end]}),
    )


def _only_behind(before: NormalForm, behind: NormalForm, pixels: dict[int, bytes | None]) -> NormalForm:
    """The elements behind the pixel data that do not stand before it already, or are it, with one value."""
    first: dict[int, bytes | None] = {element.tag: element.value for element in before.elements} | pixels
    twice = [one for one in behind.elements if one.tag in first and one.tag != TRAILING_PADDING]
    differing = {*behind.conflicts, *(one.tag for one in twice if first[one.tag] != one.value)}
    if differing:
        raise duplicates(differing)
    return replace(behind, elements=tuple(one for one in behind.elements if one.tag not in first))


def native_value(parts: Parts) -> bytes:
    """Uncompressed pixel data with the bytes of its words in little endian order (PS3.5 7.3), its padding included.

    Raises
    ------
    DicomError
        "swapped-pixels": big endian pixel data whose words cannot be told.
    """
    vr = (parts.pixels.vr if parts.pixels else b"") or b"OW"  # Implicit VR: OW (PS3.5 A.1)
    value = bytes(parts.value)
    if parts.layout.little_endian or vr == b"OB":
        return value
    if vr != b"OW" or len(value) % 2:
        raise DicomError("swapped-pixels", "big endian pixel data that is neither bytes nor 16-bit words")
    return np.frombuffer(value, ">u2").astype("<u2").tobytes()


def _inflate(data: bytes) -> bytes:
    reader = InflatingReader(io.BytesIO(data), MAX_INFLATED)
    out = io.BytesIO()
    while chunk := reader.read(1 << 20):
        out.write(chunk)
    return out.getvalue()
