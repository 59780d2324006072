"""Frames of an encoded instance, read and decoded a few at a time: memory follows the piece, not the object.

What `gateway.dicom.encoding.parts` and `gateway.dicom.pixels.stored_values` do for an instance in memory, for one in a
file that can seek. Each piece is decoded by the same code, as if it were an instance of that many frames.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from pydicom.encaps import encapsulate

from gateway.dicom.encoding.check import native_length
from gateway.dicom.encoding.elements import SEQUENCE_END, UNDEFINED, Element, Layout
from gateway.dicom.encoding.encoded import InstanceHeader, describe, open_source, split_header, walk
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.limits import MAX_HEADER
from gateway.dicom.encoding.parts import Parts, read_behind
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, syntax_of
from gateway.dicom.pixels.stored_values import Pixels, element_of, first_fragments, pixels_of
from gateway.dicom.pixels.windows import displays_of
from gateway.errors import DicomError

PIECE_BYTES = 16 << 20  # decoded; one frame may have more, and pieces have two at least
MAX_NATIVE = 0xFFFFFFFE  # of uncompressed Pixel Data: its length has 32 bits and is even (PS3.5 7.1)


class FrameReader:
    """One instance in a file; all of it is walked and checked as by `check_encoding` first.

    Parameters
    ----------
    stream
        Can seek; at the beginning of the data set (behind the File Meta). Read from as long as this is in use.
    size
        Bytes of the data set.

    Raises
    ------
    DicomError
        all of `check_encoding` and `decode_pixels`; "pixels-too-large" for more than `MAX_NATIVE` decoded bytes;
        "deflated-too-large" for a deflated data set, which can only be read from its beginning.
    """

    def __init__(self, stream: BinaryIO, size: int, transfer_syntax_uid: str) -> None:
        self._stream, self._base = stream, stream.tell()
        syntax = syntax_of(transfer_syntax_uid)
        if syntax.deflated:
            raise DicomError("deflated-too-large", "a deflated object of this size cannot be read frame by frame")
        with foreign_errors("undecodable-header", "the data set cannot be read"):
            source, layout = open_source(stream, syntax, size)
            header_bytes, element = split_header(source, layout, bulk=UNDEFINED)
            if element is None:
                raise DicomError("no-pixels", "the object has no pixel data")
            header, end, behind, trailer = read_behind(source, layout, syntax, header_bytes, element, MAX_HEADER)
        self.encoded_bytes = end - element.value
        self.native_bytes = decoded_bytes(header)
        if self.native_bytes > MAX_NATIVE:
            raise DicomError("pixels-too-large", f"the decoded pixels have more than {MAX_NATIVE} bytes")
        self._displays = displays_of(header.dataset, header.frames)
        self.parts = Parts(header, syntax, layout, element, memoryview(b""), header_bytes, behind, trailer)
        self._places = self._frame_places(element, layout) if syntax.encapsulated else []

    @property
    def header(self) -> InstanceHeader:
        """The header; its `dataset` holds large binary values as well."""
        return self.parts.header

    def pieces(self) -> Iterator[tuple[int, Pixels]]:
        """Number of the first frame (from 0) and pixels of each piece, in order.

        Raises DicomError as `decode_pixels`.
        """
        header = self.header
        fitting = PIECE_BYTES // max(self.native_bytes // header.frames, 1)
        count = max(fitting // 2 * 2, 2)  # even: 8-bit pixels may lie in words
        for first in range(0, header.frames, count):
            yield first, self.piece(first, min(first + count, header.frames))

    def piece(self, first: int, end: int) -> Pixels:
        """The pixels of the frames from `first` (from 0, even) to `end`, which is not among them."""
        value = self._encapsulated(first, end) if self._places else self._native(first, end)
        return decode_piece(self.parts, value, end - first, self._displays[first:end])

    def _native(self, first: int, end: int) -> bytes:
        whole = native_length(self.header)
        start, stop = (whole // self.header.frames * frame for frame in (first, end))
        pixels = element_of(self.parts)
        return self._read(pixels.value + start, min(stop - start + stop % 2, pixels.length - start))

    def _encapsulated(self, first: int, end: int) -> bytes:
        frames = [b"".join(self._read(*place) for place in places) for places in self._places[first:end]]
        return encapsulate(frames, has_bot=False)

    def _frame_places(self, element: Element, layout: Layout) -> list[list[tuple[int, int]]]:
        """Position and length of the fragments of each frame."""
        places: list[tuple[int, int]] = []
        position = element.value
        while True:
            head = self._read(position, 8)
            length = struct.unpack_from(layout.order + "I", head, 4)[0]
            if layout.tag(head) == SEQUENCE_END:
                break
            if length == UNDEFINED:
                raise DicomError("bad-sequence", "a fragment of the pixel data has no length")
            places.append((position + 8, length))
            position += 8 + length
        table, fragments = self._read(*places[0]), places[1:]
        starts = [place - fragments[0][0] for place, _ in fragments]
        heads = lambda index: self._read(fragments[index][0], min(8, fragments[index][1]))  # noqa: E731
        firsts = first_fragments(self.header.frames, table, starts, heads, self.parts.syntax)
        ends = [*firsts[1:], len(fragments)]
        return [fragments[first:end] for first, end in zip(firsts, ends, strict=True)]

    def _read(self, position: int, length: int) -> bytes:
        self._stream.seek(self._base + position)
        pieces = []
        while length and (data := self._stream.read(length)):
            pieces.append(data)
            length -= len(data)
        if length:
            raise DicomError("truncated", "the pixel data ends inside a frame")
        return b"".join(pieces)


def decode_piece(parts: Parts, value: bytes, frames: int, displays: tuple) -> Pixels:
    """Decode some frames of an instance, whose encoded bytes (with item heads when encapsulated) are `value`."""
    some = replace(parts, header=replace(parts.header, frames=frames), value=memoryview(value))
    return pixels_of(some, displays)


def native_parts(head: bytes) -> Parts:
    """The parts of a derived data set (Explicit VR Little Endian) whose `head` ends where its pixels begin."""
    syntax = syntax_of(EXPLICIT_LITTLE)
    source, layout = open_source(io.BytesIO(head), syntax)
    header_bytes, element = split_header(source, layout, bulk=UNDEFINED, at_most=len(head))
    if element is None:
        raise DicomError("no-pixels", "the object has no pixel data")
    header = describe(walk(header_bytes, layout), element.tag)
    return Parts(header, syntax, layout, element, memoryview(b""), header_bytes, b"")


def decoded_bytes(header: InstanceHeader) -> int:
    """Bytes that the decoded pixels take, as the header declares them; nothing is allocated."""
    return header.rows * header.columns * header.frames * header.samples * max(header.bits_allocated // 8, 1)
