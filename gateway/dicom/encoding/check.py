"""Whether the encoding of an instance is consistent: walked to the last byte, only the header is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from gateway.dicom.encoding.elements import UNDEFINED, Element, Layout, skip_value, top_level
from gateway.dicom.encoding.encoded import (
    PIXEL_DATA,
    PIXEL_TAGS,
    InstanceHeader,
    describe,
    open_source,
    split_header,
    walk,
)
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.normal_form import NormalForm
from gateway.dicom.encoding.source import Source
from gateway.dicom.encoding.syntaxes import Syntax, syntax_of
from gateway.errors import DicomError

MAX_FRAME_BYTES = 256 << 20  # decoded; decoders take a few times this, and 100 bytes can claim any size
_PIECE = 1 << 20
_RLE_RATIO = 64  # PS3.5 annex G: two bytes hold 128 at most


def check_encoding(stream: BinaryIO, size: int, transfer_syntax_uid: str) -> InstanceHeader:
    """Walk the data set's elements to the end and check the pixel data against the header.

    Elements behind the pixel data and a tail of zeros are tolerated. An object without image (no Rows, no pixel data)
    is checked for its elements only.

    Parameters
    ----------
    size
        Bytes of the encoded data set (not of the file). A stream that can seek is not read through.

    Returns
    -------
    InstanceHeader
        as `read_header` gives it.

    Raises
    ------
    DicomError
        all of `read_header`, and "no-pixels" (no rows, columns, frames or pixel data in an image),
        "pixel-data-too-short", "pixel-data-too-long", "too-few-fragments", "pixels-too-large", "not-encapsulated",
        "encapsulated".
    """
    syntax = syntax_of(transfer_syntax_uid)
    with foreign_errors("undecodable-header", "the data set cannot be read"):
        source, layout = open_source(stream, syntax, size)
        header_bytes, element = split_header(source, layout)
        header = None
        if element is not None:
            form = walk(header_bytes, layout)
            # the value is walked first: a truncated one is "truncated", whatever the header says
            found = walk_pixels(source, layout, element, form)
            for following in top_level(source, layout):
                skip_value(source, following, layout)
            header = describe(form, element.tag)
            check_pixel_data(header, syntax, element, found)
        else:
            header = describe(walk(header_bytes, layout), None)
            if header.rows or header.columns:
                raise DicomError("no-pixels", "the image has no pixel data")
        return header


@dataclass(frozen=True)
class PixelValue:
    """What going past the value of the pixel data found.

    Attributes
    ----------
    fragments
        Items of encapsulated pixel data, the offset table included; 0 of native pixels.
    size
        Bytes of the value.
    end
        The position behind it.
    padded
        Behind the native pixels stand zeros only (PS3.5 8.1.1, note: such padding is ignored).
    """

    fragments: int
    size: int
    end: int
    padded: bool = False


def walk_pixels(source: Source, layout: Layout, element: Element, form: NormalForm) -> PixelValue:
    """Go past the value of the pixel data; of native pixels that are longer than the header says the rest is read.

    Raises
    ------
    DicomError
        As `skip_value`.
    """
    padded = False
    wanted = _native_length(form, element.tag) if element.length != UNDEFINED else 0
    if 0 < wanted < element.length:
        source.skip(wanted)
        left, padded = element.length - wanted, True
        while left:
            piece = source.take(min(left, _PIECE))
            padded = padded and piece.count(0) == len(piece)
            left -= len(piece)
        return PixelValue(0, element.length, source.position, padded)
    fragments = skip_value(source, element, layout)
    return PixelValue(fragments, source.position - element.value, source.position)


def _native_length(form: NormalForm, tag: int) -> int:
    """As `native_length`; 0 for a header that says nothing of use."""
    try:
        return native_length(describe(form, tag), tag)
    except DicomError:
        return 0


def check_pixel_data(header: InstanceHeader, syntax: Syntax, element: Element, found: PixelValue) -> None:
    """Check declared size and fragments of the pixel data against the Image Pixel module.

    Raises
    ------
    DicomError
        see `check_encoding`.
    """
    if element.tag not in PIXEL_TAGS:
        return
    if not (header.rows > 0 and header.columns > 0 and header.frames > 0 and header.samples > 0):
        raise DicomError("no-pixels", "rows, columns, samples or frames of the image are zero or missing")
    if element.length == UNDEFINED:
        if not syntax.encapsulated:
            raise DicomError("encapsulated", "the pixel data comes in fragments but the transfer syntax has none")
        fragments, size = found.fragments, found.size
        if fragments < 2:
            raise DicomError("pixel-data-too-short", "the pixel data holds no fragment")
        if fragments - 1 < header.frames:
            raise DicomError(
                "too-few-fragments", f"{fragments - 1} fragments cannot hold {header.frames} frames of pixel data"
            )
        expected = native_length(header, element.tag)
        if syntax.codec == "rle" and expected > _RLE_RATIO * size:
            raise DicomError("pixel-data-too-short", f"{size} bytes of RLE cannot hold the {expected} of the header")
        if expected > MAX_FRAME_BYTES * header.frames:
            raise DicomError("pixels-too-large", f"a compressed frame decodes to more than {MAX_FRAME_BYTES} bytes")
        return
    if syntax.encapsulated:
        raise DicomError("not-encapsulated", "the transfer syntax calls for fragments but the pixel data has none")
    expected = native_length(header, element.tag)
    padded = expected + expected % 2
    if element.length < expected:
        raise DicomError("pixel-data-too-short", f"pixel data has {element.length} bytes, the header wants {expected}")
    if element.length > padded and not found.padded:
        raise DicomError("pixel-data-too-long", f"pixel data has {element.length} bytes, the header wants {padded}")


def native_length(header: InstanceHeader, tag: int = PIXEL_DATA) -> int:
    """Bytes of uncompressed pixel data without padding (PS3.5 8.1.1, 8.2; PS3.3 C.7.6.3.1.2 for YBR_FULL_422)."""
    bits = {PIXEL_DATA: header.bits_allocated, 0x7FE00008: 32}.get(tag, 64)
    values = header.rows * header.columns * header.frames
    if header.photometric == "YBR_FULL_422" and header.samples == 3:
        values *= 2
    else:
        values *= header.samples
    return (values * bits + 7) // 8
