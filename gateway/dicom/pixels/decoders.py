"""Two decoders for a compressed frame: the one whose samples count, and another one that must agree where it matters.

Both give the samples as they lie in the codestream (a JPEG 2000 component transform undone), whatever a header says of
them. Always the same library for a syntax, whatever else is installed: the same bytes give the same pixels, and the
same pixels the same bytes, on every machine.

| codec | first | second |
|---|---|---|
| JPEG (DCT) | libjpeg-turbo (imagecodecs) | libjpeg-turbo (Pillow), another binding, 8 bits only |
| JPEG (lossless) | libjpeg-turbo (imagecodecs) | jpg_0XC3 (imagecodecs) |
| JPEG-LS | CharLS (pyjpegls) | CharLS (imagecodecs), another version and another binding |
| JPEG 2000 | OpenJPEG (pylibjpeg) | OpenJPEG (imagecodecs), another binding |
| HTJ2K | OpenJPEG (pylibjpeg) | OpenJPH (imagecodecs) |
| RLE | pydicom | PackBits (imagecodecs), segment by segment |

GDCM is not among them: it ends the process on damaged frames.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import imagecodecs
import jpeg_ls
import numpy as np
import openjpeg
from PIL import Image
from pydicom.pixels.decoders.rle import _rle_decode_frame

from gateway.dicom.encoding.syntaxes import Syntax
from gateway.dicom.pixels.codestream import Codestream
from gateway.dicom.pixels.facts import FrameFacts

_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_AS_THEY_LIE: dict[str, Any] = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}
_LOSSLESS_JPEG = 0xC3
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"  # transform 1: YCbCr


def first(codestream: Codestream, syntax: Syntax) -> np.ndarray:
    """Samples of a JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestream, (H, W) or (H, W, 3).

    uint8 or uint16; int8 or int16 where the codestream is signed. Raises whatever the library raises.
    """
    colour = codestream.components == 3
    if syntax.codec == "jpeg":
        return imagecodecs.jpeg8_decode(codestream.data, **(_AS_THEY_LIE if colour else {}))
    shape = (codestream.rows, codestream.columns)
    if syntax.codec == "jpeg-ls":
        raw, info = jpeg_ls.decode_pixel_data(codestream.data)
        samples = np.frombuffer(raw, np.uint8 if codestream.precision <= 8 else "<u2")
        if not colour:
            return samples.reshape(shape)
        if info["interleave_mode"] == 0:  # by plane
            return samples.reshape(3, *shape).transpose(1, 2, 0)
        return samples.reshape(*shape, 3)
    kind = ("i" if codestream.signed else "u") + ("1" if codestream.precision <= 8 else "2")
    raw = openjpeg.decode_pixel_data(codestream.data, version=2)
    return np.frombuffer(raw, f"<{kind}").reshape((*shape, 3) if colour else shape)


def first_of_rle(frame: bytes, facts: FrameFacts) -> np.ndarray:
    """Containers of an RLE frame, (H, W) or (H, W, 3); it has planes always (PS3.5 G.2)."""
    raw = _rle_decode_frame(frame, facts.rows, facts.columns, facts.samples, facts.bits_allocated)
    return _from_planes(np.frombuffer(raw, "u1" if facts.bits_allocated == 8 else "<u2"), facts)


def second(codestream: Codestream, syntax: Syntax) -> np.ndarray | None:
    """As `first`, by another decoder; None where there is none."""
    data = codestream.data
    if syntax.codec == "jpeg-ls":
        samples = imagecodecs.jpegls_decode(data)
    elif syntax.uid in _HTJ2K:
        samples = imagecodecs.htj2k_decode(data)
    elif syntax.codec == "jpeg-2000":
        samples = imagecodecs.jpeg2k_decode(data, numthreads=1)
    elif codestream.process == _LOSSLESS_JPEG:
        samples = imagecodecs.jpegsof3_decode(data)
    elif codestream.precision == 8:
        samples = _by_pillow(codestream)
    else:
        return None
    return samples


def _by_pillow(codestream: Codestream) -> np.ndarray:
    """Samples of a JPEG frame as they lie: an Adobe marker in place of its own tells Pillow to take them for YCbCr."""
    head, position = b"", 2
    while position < codestream.head:
        if codestream.data[position + 1] == 0xFF:  # fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(codestream.data[position + 2 : position + 4], "big")
        if not 0xE0 <= codestream.data[position + 1] <= 0xEF:
            head += codestream.data[position:end]
        position = end
    data = b"".join((b"\xff\xd8", _ADOBE, head, codestream.data[codestream.head :]))
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if codestream.components == 3:
            image.draft("YCbCr", image.size)
        return np.asarray(image)


def second_of_rle(frame: bytes, facts: FrameFacts) -> np.ndarray:
    """As `first_of_rle`, by another decoder."""
    count, *offsets = struct.unpack("<16I", frame[:64])  # PS3.5 G.5
    size = facts.bits_allocated // 8
    segments = []
    for start, end in zip(offsets[:count], [*offsets[1:count], len(frame)], strict=True):
        segment = np.frombuffer(imagecodecs.packbits_decode(frame[start:end]), np.uint8)
        segments.append(segment[: facts.rows * facts.columns])
    planes = np.stack(segments).reshape(facts.samples, size, -1)[:, ::-1]  # most significant byte first
    flat = np.ascontiguousarray(planes.transpose(0, 2, 1)).reshape(-1)
    return _from_planes(flat.view("u1" if size == 1 else "<u2"), facts)


def _from_planes(flat: np.ndarray, facts: FrameFacts) -> np.ndarray:
    if facts.samples == 1:
        return flat.reshape(facts.rows, facts.columns)
    return flat.reshape(facts.samples, facts.rows, facts.columns).transpose(1, 2, 0)


def jpeg_for_warming_up(frame: np.ndarray, *, lossless: bool) -> bytes:
    """A JPEG frame of ours, to load what decoders load late."""
    return bytes(imagecodecs.jpeg8_encode(frame, level=90, lossless=lossless))
