"""What a marked copy carries of its original: enough to rebuild the original's encoded bytes exactly.

Of an uncompressed original: every byte but the pixels, and the residual between marked and original stored values.
The marked *stored values* are all that rebuilding asks of the copy, so the copy may be coerced, re-encoded or
losslessly compressed on its way. Of any other original (compressed, deflated, YBR that became RGB) and
whenever the residual does not give the exact bytes back: the whole of it, compressed, behind a fingerprint of the
copy's pixels. Either way a copy whose pixels were changed gives nothing back, and the reason is told. Layout:
deploy/formats.md, "carried body".
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import zstandard

from gateway.dicom.encoding import values
from gateway.dicom.encoding.encoded import describe, open_source, split_header, walk
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.limits import MAX_HEADER
from gateway.dicom.encoding.parts import Parts, split
from gateway.dicom.encoding.private import PrivateBlock, read_block
from gateway.dicom.encoding.syntaxes import syntax_of
from gateway.dicom.pixels.fingerprint import SIZE, is_same, of_frames, of_object, stored_digest
from gateway.dicom.pixels.residual import original_of, residual
from gateway.dicom.pixels.stored_values import Pixels, decode_pixels
from gateway.errors import DicomError

WHOLE, RESIDUAL = 1, 2
VERSIONS = {WHOLE: 2, RESIDUAL: 1}  # as written; what version 1 carries whole comes back from any pixels
_HEAD = struct.Struct(">BB")  # version, method
_SHAPE = struct.Struct(">32sQIIIBBBB")  # digest of the marked values, offset, frames, rows, columns, 4 small ones
_LEVEL_SLICE = 19  # of zstd, for residuals up to _SLICE: they go out with every copy; 0.1 s for 512x512x16 bit
_LEVEL_LARGE = 12  # a tenth longer, ten times as fast: 1 s for 18 MB
_SLICE = 4 << 20
_LEVEL_WHOLE = 3  # mostly codestreams, which do not get shorter
_WINDOW_LOG = 27  # the most that a reader takes: 128 MiB
_MAX_COPY_HEADER = MAX_HEADER + (
    512 << 20
)  # a payload is no longer than its original, and that is what is marked at most
_BIG_ENDIAN, _SWAPPED, _PLANAR = 1, 2, 4


@dataclass(frozen=True)
class _Layout:
    """Where and how the pixels lie in the original's bytes.

    order: ``_BIG_ENDIAN`` words, ``_SWAPPED`` pairs of bytes (8-bit pixels in OW words of the big endian syntax, PS3.5
    A.3), ``_PLANAR`` samples, or none of them.
    """

    digest: bytes
    offset: int
    frames: int
    rows: int
    columns: int
    samples: int
    allocated: int
    shift: int
    order: int

    @property
    def shape(self) -> tuple[int, ...]:
        shape = (self.frames, self.rows, self.columns)
        return shape if self.samples == 1 else (*shape, self.samples)

    @property
    def length(self) -> int:
        """Bytes of the pixels."""
        return self.frames * self.rows * self.columns * self.samples * self.allocated // 8

    def fits(self, size: int) -> bool:
        """Whether an original of `size` bytes can have pixels like this."""
        orders = {(8, 1): (0, _SWAPPED), (8, 3): (0, _SWAPPED, _PLANAR, _SWAPPED | _PLANAR)}
        orders |= {(16, 1): (0, _BIG_ENDIAN), (16, 3): (0, _BIG_ENDIAN, _PLANAR, _BIG_ENDIAN | _PLANAR)}
        is_known = self.order in orders.get((self.allocated, self.samples), ()) and self.shift < self.allocated
        is_even = not (self.order & _SWAPPED and self.length % 2)
        return is_known and is_even and self.offset + self.length <= size

    @property
    def word(self) -> str:
        return "u1" if self.allocated == 8 else ">u2" if self.order & _BIG_ENDIAN else "<u2"

    def in_order(self, frames: np.ndarray) -> np.ndarray:
        """Stored values as flat containers in the order of the original's bytes.

        Bits above Bits Stored hold the sign, those below the lowest bit zero; whatever the original has there instead
        (overlays) is part of the residual.
        """
        kind = np.uint8 if self.allocated == 8 else np.uint16
        containers = np.left_shift(frames.astype(kind), self.shift, dtype=kind)
        if self.order & _PLANAR:
            containers = containers.transpose(0, 3, 1, 2)
        flat = containers.reshape(-1)
        return flat.reshape(-1, 2)[:, ::-1].reshape(-1) if self.order & _SWAPPED else flat


def pack(
    original: bytes, transfer_syntax_uid: str, pixels: Pixels, marked: np.ndarray, parts: Parts | None = None
) -> bytes:
    """The body that `rebuild` makes `original` of again. It is rebuilt here once, to be sure.

    Parameters
    ----------
    original
        Encoded data set as received.
    pixels
        Of the original.
    marked
        Stored values of the copy, as `Pixels.frames`.
    parts
        What `split` gave for `original`, when the caller has it still.
    """
    layout = _layout_of(parts or split(original, transfer_syntax_uid), pixels, marked)
    if layout is not None:
        body = _pack_residual(original, layout, marked)
        if _unpack_residual(body, len(original), marked) == original:
            return body
    return _pack_whole(original, of_frames(marked))


def pack_referring(original: bytes, transfer_syntax_uid: str) -> bytes:
    """The same for an object that only refers to images: its copy's pixels, if it has any, are its own.

    Raises
    ------
    DicomError
        as `gateway.dicom.pixels.fingerprint.of_object`.
    """
    return _pack_whole(original, of_object(original, transfer_syntax_uid))


def rebuild(body: bytes, size: int, copy: bytes, transfer_syntax_uid: str) -> bytes:
    """The original's bytes. That they are the right ones is for the caller to check, by their digest.

    Parameters
    ----------
    body
        What `pack` gave, from a signed payload.
    size
        Bytes of the original: no more than that is ever made.
    copy
        Encoded data set of the marked copy as it came back, in `transfer_syntax_uid`.

    Raises
    ------
    DicomError
        "carried-format"; "marked-pixels-changed" when the copy's stored values are not those that went out (lossy
        compression, cropping, editing); all of `decode_pixels` and `gateway.dicom.pixels.fingerprint.is_same`.
    """
    head, rest = body[: _HEAD.size], body[_HEAD.size :]
    if head == _HEAD.pack(1, WHOLE):
        return _decompress(rest, size)
    if head == _HEAD.pack(2, WHOLE) and len(rest) > SIZE:
        if not is_same(rest[:SIZE], copy, transfer_syntax_uid):
            raise _changed("they are not those that were sent out")
        return _decompress(rest[SIZE:], size)
    return _unpack_residual(body, size, decode_pixels(copy, transfer_syntax_uid).frames)


def read_copy(copy: BinaryIO, transfer_syntax_uid: str) -> tuple[str, PrivateBlock | None]:
    """SOP Instance UID and private block of a marked copy, a long payload included; the pixels are not read.

    Raises
    ------
    DicomError
        as `gateway.dicom.encoding.encoded.read_header`.
    """
    with foreign_errors("undecodable-header", "the data set cannot be read"):
        source, layout = open_source(copy, syntax_of(transfer_syntax_uid))
        header, pixels = split_header(source, layout, bulk=_MAX_COPY_HEADER, at_most=_MAX_COPY_HEADER)
        found = describe(walk(header, layout), pixels.tag if pixels else None)
        return found.sop_instance_uid, read_block(found.dataset)


def _pack_whole(original: bytes, fingerprint: bytes) -> bytes:
    frame = zstandard.ZstdCompressor(level=_LEVEL_WHOLE).compress(original)
    return _HEAD.pack(VERSIONS[WHOLE], WHOLE) + fingerprint + frame


def _layout_of(parts: Parts, pixels: Pixels, marked: np.ndarray) -> _Layout | None:
    """None where pixels do not lie one by one in the original's bytes."""
    header, frames = parts.header, pixels.frames
    native = not (parts.syntax.encapsulated or parts.syntax.deflated)
    if parts.pixels is None or not native or (header.samples == 3 and header.photometric != "RGB"):
        return None
    order = 0
    if pixels.bits_allocated == 16:
        order |= 0 if parts.layout.little_endian else _BIG_ENDIAN
    elif not parts.layout.little_endian and parts.pixels.vr != b"OB":
        order |= _SWAPPED
    if header.samples == 3 and values.integer(header.dataset, "PlanarConfiguration") == 1:
        order |= _PLANAR
    layout = _Layout(
        digest=stored_digest(marked),
        offset=parts.pixels.value,
        frames=frames.shape[0],
        rows=frames.shape[1],
        columns=frames.shape[2],
        samples=header.samples,
        allocated=pixels.bits_allocated,
        shift=pixels.shift,
        order=order,
    )
    return layout if layout.fits(layout.offset + len(parts.value)) else None


def _pack_residual(original: bytes, layout: _Layout, marked: np.ndarray) -> bytes:
    end = layout.offset + layout.length
    words = np.frombuffer(original[layout.offset : end], layout.word)
    planes = residual(words.astype(words.dtype.newbyteorder("=")), layout.in_order(marked))
    content = original[: layout.offset] + original[end:] + planes
    head = _SHAPE.pack(
        layout.digest,
        layout.offset,
        layout.frames,
        layout.rows,
        layout.columns,
        layout.samples,
        layout.allocated,
        layout.shift,
        layout.order,
    )
    level = _LEVEL_SLICE if len(content) <= _SLICE else _LEVEL_LARGE
    frame = zstandard.ZstdCompressor(level=level).compress(content)
    return _HEAD.pack(VERSIONS[RESIDUAL], RESIDUAL) + head + frame


def _unpack_residual(body: bytes, size: int, marked: np.ndarray) -> bytes:
    start = _HEAD.size + _SHAPE.size
    if len(body) < start or body[: _HEAD.size] != _HEAD.pack(VERSIONS[RESIDUAL], RESIDUAL):
        raise DicomError("carried-format", "what the copy carries has no known version")
    layout = _Layout(*_SHAPE.unpack_from(body, _HEAD.size))
    outside = size - layout.length  # bytes of the original that are no pixels
    if not layout.fits(size):
        raise DicomError("carried-format", "what the copy carries does not fit its original")
    if marked.shape != layout.shape:
        raise _changed(f"they have the shape {marked.shape}, not {layout.shape}")
    if not hmac.compare_digest(stored_digest(marked), layout.digest):
        raise _changed("their stored values are not those that were sent out")
    content = memoryview(_decompress(body[start:], size))
    words = original_of(content[outside:], layout.in_order(marked))
    return b"".join((content[: layout.offset], words.astype(layout.word).tobytes(), content[layout.offset : outside]))


def _changed(how: str) -> DicomError:
    return DicomError(
        "marked-pixels-changed",
        f"the pixels of the marked copy were changed on its way: {how}",
        "lossy compression, cropping and editing destroy what rebuilding needs: get the copy as it was delivered",
    )


def _decompress(frame: bytes, size: int) -> bytes:
    """One zstd frame of exactly `size` bytes."""
    try:
        declared = zstandard.get_frame_parameters(frame)
        if declared.content_size != size or declared.window_size > 1 << _WINDOW_LOG:
            raise DicomError("carried-format", "what the copy carries does not have the length of its original")
        return zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG).decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError:
        raise DicomError("carried-format", "what the copy carries does not decompress") from None
