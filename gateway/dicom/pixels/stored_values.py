"""Pixels as stored values, out of any transfer syntax, and back into the containers they came in.

PS3.3 C.7.6.3 (Image Pixel module), PS3.5 section 8. What a mark cannot be put into exactly is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import expand_ybr422

from gateway.dicom.encoding import values
from gateway.dicom.encoding.check import native_length
from gateway.dicom.encoding.elements import Element
from gateway.dicom.encoding.encoded import PIXEL_DATA, InstanceHeader
from gateway.dicom.encoding.library import foreign_errors
from gateway.dicom.encoding.parts import Parts, split
from gateway.dicom.encoding.syntaxes import Syntax
from gateway.dicom.pixels.codecs import decode_frame
from gateway.dicom.pixels.codestream import starts_frame
from gateway.dicom.pixels.facts import decoded_type
from gateway.dicom.pixels.reserved import reserved_pixels, reserved_values
from gateway.dicom.pixels.windows import Display, displays_of
from gateway.errors import DicomError

MAX_PIXEL_BYTES = 512 << 20  # decoded at once; `gateway.dicom.pixels.frames` reads what is larger in pieces
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_RGB = ("RGB", "YBR_RCT")  # the codec itself gives RGB back of the latter, exactly
_NATIVE_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")


@dataclass(frozen=True, repr=False)
class Pixels:
    """Decoded pixels of one instance.

    Attributes
    ----------
    frames
        Stored values, (N, H, W) or (N, H, W, 3): uint8, uint16, or int16 when Pixel Representation is 1 (whatever Bits
        Allocated). Sign-extended from Bits Stored; unused bits are not in it. Colour is RGB.
    photometric
        Of `frames`: "MONOCHROME1", "MONOCHROME2" or "RGB".
    bits_allocated, bits_stored, shift, signed
        The container: a value occupies `bits_stored` bits, `shift` bits above the lowest.
    raw
        Containers as they came, unsigned, where the bits outside Bits Stored hold something else than zeros or the
        sign (old overlays, PS3.5 8.1.1); else None. `containers` puts those bits back.
    padding
        True where a pixel is padding or a colour of a supplemental palette (N, H, W); None when the header names
        neither.
    reserved
        (low, high) of the stored values that mean padding or a colour, inclusive: no marked pixel may take one.
    displays
        Rescale, windows and polarity of each frame.
    lossy
        True when the image was ever compressed with loss.
    """

    frames: np.ndarray
    photometric: str
    bits_allocated: int
    bits_stored: int
    shift: int
    signed: bool
    raw: np.ndarray | None
    padding: np.ndarray | None
    reserved: tuple[tuple[int, int], ...]
    displays: tuple[Display, ...]
    lossy: bool

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that Bits Stored can hold."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1

    def containers(self, frames: np.ndarray) -> np.ndarray:
        """Encode stored values into unsigned little endian containers, unused bits as they came.

        Raises
        ------
        DicomError
            "wrong-marked-frames" for another shape or type, or a value outside `limits`.
        """
        if frames.shape != self.frames.shape or frames.dtype != self.frames.dtype:
            raise DicomError("wrong-marked-frames", f"frames are {frames.shape} {frames.dtype}, not as decoded")
        low, high = self.limits
        if frames.size and (int(frames.min()) < low or int(frames.max()) > high):
            raise DicomError("wrong-marked-frames", f"a value lies outside {low} to {high}")
        container = np.dtype("u1" if self.bits_allocated == 8 else "<u2")
        if self.raw is None:  # the sign, where there is one, fills the bits above; there is no shift then
            return frames.astype(container)
        mask = ((1 << self.bits_stored) - 1) << self.shift
        stored = (frames.astype(np.int32) << self.shift) & mask
        return ((self.raw.astype(np.int32) & ~mask) | stored).astype(container)


def decode_pixels(dataset: bytes | BinaryIO, transfer_syntax_uid: str) -> Pixels:
    """Decode all frames of an encoded data set. The same bytes give the same pixels with the same library versions.

    Raises
    ------
    DicomError
        all of `check_encoding`, and "palette-colour", "float-pixels", "one-bit-pixels", "thirty-two-bit-pixels",
        "unsupported-bits", "unsupported-photometric", "unsupported-transfer-syntax", "modality-lut",
        "wrong-functional-groups",
        "pixels-too-large", "wrong-number-of-frames", "pixel-values-out-of-range", "undecodable-pixels".
    """
    data = dataset if isinstance(dataset, bytes) else dataset.read()
    return pixels_of(split(data, transfer_syntax_uid))


def pixels_of(parts: Parts, displays: tuple[Display, ...] | None = None) -> Pixels:
    """As `decode_pixels`, of an instance that is cut into its parts already.

    `displays`: of a piece of an instance, what `displays_of` the whole says of its frames.
    """
    header = parts.header
    _refuse(header, element_of(parts).tag)
    reserved = reserved_values(header)
    if displays is None:
        displays = displays_of(header.dataset, header.frames)
    with foreign_errors("undecodable-pixels", "the pixel data cannot be decoded"):
        if parts.syntax.codec == "none":
            parts = replace(parts, value=_unpacked(parts))
        decode = _decompress if parts.syntax.encapsulated and parts.syntax.codec != "none" else _native
        containers = decode(parts)
    frames, raw, shift = _stored_values(containers, header)
    return Pixels(
        frames=frames,
        photometric=header.photometric if header.samples == 1 else "RGB",
        bits_allocated=header.bits_allocated,
        bits_stored=header.bits_stored,
        shift=shift,
        signed=header.signed,
        raw=raw,
        padding=reserved_pixels(frames, raw, shift, header, reserved),
        reserved=reserved,
        displays=displays,
        lossy=is_lossy(header, parts.syntax),
    )


def element_of(parts: Parts) -> Element:
    """Head of the pixel data element; DicomError "no-pixels" for an object without one."""
    if parts.pixels is None:
        raise DicomError("no-pixels", "the object has no pixel data")
    return parts.pixels


def is_lossy(header: InstanceHeader, syntax: Syntax) -> bool:
    """Was the image ever compressed with loss (PS3.3 C.7.6.1.1.5)?

    The header's own word counts, except that a syntax which is always lossy overrules "00"; for a syntax that may be
    lossy a header that says nothing counts as lossy.
    """
    word = values.text(header.dataset, "LossyImageCompression")
    return word == "01" or syntax.lossy == "always" or (syntax.lossy == "possible" and word != "00")


def _refuse(header: InstanceHeader, tag: int) -> None:
    """Raise for pixels that cannot be marked exactly."""
    if tag != PIXEL_DATA:
        raise DicomError("float-pixels", "the pixels are floating point numbers")
    if header.photometric == "PALETTE COLOR":
        raise DicomError("palette-colour", "the pixels are indexes into a colour table")
    if header.bits_allocated == 1:
        raise DicomError("one-bit-pixels", "the pixels have one bit")
    if header.bits_allocated == 32:
        raise DicomError("thirty-two-bit-pixels", "the pixels have 32 bits")
    monochrome = header.photometric in _MONOCHROME and header.samples == 1
    if not monochrome and not (header.photometric in _COLOUR and header.samples == 3):
        name = header.photometric if header.photometric.replace("_", "").isalnum() else "(unreadable)"
        raise DicomError("unsupported-photometric", f"{name} with {header.samples} samples per pixel")
    unused = header.bits_allocated - header.bits_stored
    if header.bits_allocated not in (8, 16) or not 2 <= header.bits_stored <= header.bits_allocated:
        raise DicomError("unsupported-bits", f"{header.bits_stored} of {header.bits_allocated} bits")
    if not monochrome and (unused or header.signed or (header.photometric not in _RGB and header.bits_allocated != 8)):
        raise DicomError("unsupported-bits", "colour with unused bits, signed colour, or YBR with 16 bits")
    size = header.rows * header.columns * header.frames * header.samples * (header.bits_allocated // 8)
    if size > MAX_PIXEL_BYTES:
        raise DicomError(
            "pixels-too-large",
            f"the decoded pixels have {size} bytes, more than {MAX_PIXEL_BYTES} are not decoded at once",
            'a route with restoration = "escrow" works them in pieces',
        )


def _shape(header: InstanceHeader) -> tuple[int, ...]:
    shape = (header.frames, header.rows, header.columns)
    return shape if header.samples == 1 else (*shape, 3)


def _native(parts: Parts) -> np.ndarray:
    """Containers of uncompressed pixel data, unsigned, in this machine's byte order; colour as RGB by pixel."""
    header, value = parts.header, parts.value
    if header.photometric not in (*_MONOCHROME, *_NATIVE_COLOUR):
        raise DicomError("unsupported-photometric", f"uncompressed {header.photometric}")
    if header.bits_allocated == 16:
        flat = np.frombuffer(value[: len(value) // 2 * 2], parts.layout.order + "u2").astype(np.uint16)
    else:
        flat = np.frombuffer(value, np.uint8)
        if not parts.layout.little_endian and element_of(parts).vr != b"OB":
            # PS3.5 annex A.3: 8-bit pixels in OW words of the big endian syntax
            flat = flat[: len(flat) // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1)
    if header.photometric == "YBR_FULL_422":
        flat = np.frombuffer(expand_ybr422(flat.tobytes(), 8), np.uint8)
    shape = _shape(header)
    flat = flat[: int(np.prod(shape))]
    planar = header.samples == 3 and values.integer(header.dataset, "PlanarConfiguration") == 1
    if planar and header.photometric != "YBR_FULL_422":
        frames = flat.reshape(shape[0], 3, *shape[1:3]).transpose(0, 2, 3, 1)
    else:
        frames = flat.reshape(shape)
    if header.photometric.startswith("YBR"):
        frames = np.stack([convert_color_space(frame, "YBR_FULL", "RGB") for frame in frames])
    return np.ascontiguousarray(frames)


def _unpacked(parts: Parts) -> memoryview:
    """Native pixels out of the fragments of Encapsulated Uncompressed (PS3.5 A.4.11), without the padding of frames."""
    header = parts.header
    bits = native_length(replace(header, frames=1)) * 8
    if header.bits_allocated % 8:
        raise DicomError("unsupported-bits", "a frame does not end at a whole byte")
    frames = [frame[: bits // 8] for frame in _frames(parts)]
    if any(len(frame) * 8 < bits for frame in frames):
        raise DicomError("pixel-data-too-short", "a frame has fewer bytes than the header wants")
    return memoryview(b"".join(frames))


def _decompress(parts: Parts) -> np.ndarray:
    """Decoded frames: unsigned containers, or int16 where the codec itself tells what is signed."""
    header, syntax = parts.header, parts.syntax
    result = np.empty(_shape(header), decoded_type(header, syntax))
    for index, frame in enumerate(_frames(parts)):
        result[index] = decode_frame(frame, header, syntax)
    return result


def _frames(parts: Parts) -> Iterator[bytes]:
    """The encoded frames, put together from their fragments (PS3.5 A.4); errors as `first_fragments`."""
    table, fragments, starts = parts.fragments()
    firsts = first_fragments(parts.header.frames, table, starts, lambda i: bytes(fragments[i][:8]), parts.syntax)
    for first, end in zip(firsts, [*firsts[1:], len(fragments)], strict=True):
        yield b"".join(fragments[first:end])


def first_fragments(
    wanted: int, table: bytes, starts: list[int], head: Callable[[int], bytes], syntax: Syntax
) -> list[int]:
    """Numbers (from 0) of the fragments that frames begin with.

    One fragment a frame, which is also what an extended offset table stands for (PS3.3 C.7.6.3.1.8); else by the
    offset table; else a new frame wherever a codestream begins.

    Parameters
    ----------
    wanted
        Number of Frames.
    table
        Basic Offset Table.
    starts
        Offset of each fragment from the first one's item.
    head
        The first eight bytes of a fragment.

    Raises
    ------
    DicomError
        "wrong-number-of-frames" when none of these gives Number of Frames.
    """
    if len(starts) == wanted:
        firsts = list(range(wanted))
    elif wanted == 1 and syntax.codec == "none":
        firsts = [0]
    elif syntax.codec == "rle":
        firsts = []  # PS3.5 A.4.2: each frame is exactly one fragment
    else:
        offsets = np.frombuffer(table[: len(table) // 4 * 4], "<u4").tolist()
        numbers = {start: number for number, start in enumerate(starts)}
        if len(offsets) == wanted and set(offsets) <= numbers.keys():
            firsts = sorted(numbers[offset] for offset in offsets)
        else:
            firsts = [number for number in range(len(starts)) if starts_frame(head(number), syntax)]
    if len(firsts) != wanted or firsts[0] != 0:
        raise DicomError("wrong-number-of-frames", f"the fragments do not make up {wanted} frames")
    return firsts


def _stored_values(containers: np.ndarray, header: InstanceHeader) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Stored values, the containers when their unused bits hold something, and the shift of Bits Stored.

    Containers are unsigned, or int16 where the sign is worked out already.
    """
    bits, allocated = header.bits_stored, header.bits_allocated
    kind = np.dtype(np.int16 if header.signed else np.uint8 if allocated == 8 else np.uint16)
    if containers.dtype == np.int16 or (bits == allocated and not header.signed):
        shift, frames, raw = 0, containers, None
    else:
        shift = header.high_bit + 1 - bits
        if not 0 <= shift <= allocated - bits:
            raise DicomError("unsupported-bits", f"High Bit {header.high_bit} with {bits} of {allocated} bits stored")
        field = (containers.astype(np.int32) >> shift) & ((1 << bits) - 1)
        if header.signed:
            field = (field ^ (1 << (bits - 1))) - (1 << (bits - 1))
        frames = field.astype(kind)
        plain = shift == 0 and np.array_equal(frames.astype(containers.dtype), containers)
        raw = None if plain else containers
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if header.signed else (0, (1 << bits) - 1)
    if int(frames.min()) < low or int(frames.max()) > high:
        raise DicomError("pixel-values-out-of-range", f"a decoded value does not fit into {bits} bits")
    return frames, raw, shift
