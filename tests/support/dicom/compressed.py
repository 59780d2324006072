"""Compressed images made here, with what the field gets wrong about them: labels, markers, ends."""

from __future__ import annotations

import imagecodecs
import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import convert_color_space

from gateway.dicom.encoding.syntaxes import (
    HTJ2K_LOSSLESS,
    JPEG_2000_LOSSLESS,
    JPEG_LS_LOSSLESS,
    RLE_LOSSLESS,
    syntax_of,
)
from gateway.dicom.pixels.children import pool
from gateway.dicom.pixels.facts import FrameFacts
from tests.support.dicom.samples import encode, image

JPEG_BASELINE, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
LOSSLESS = (JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS, JPEG_LS_LOSSLESS, RLE_LOSSLESS)


def picture(rows: int = 48, columns: int = 64) -> np.ndarray:
    """A smooth colour picture whose channels differ, (H, W, 3) uint8."""
    y, x = np.mgrid[:rows, :columns]
    planes = (40 + 2 * y + x, 200 - 3 * y + 0 * x, 90 + 40 * np.sin(x / 9.0) + y)
    return np.clip(np.stack(planes, axis=2), 0, 255).astype(np.uint8)


def gray(rows: int = 64, columns: int = 64, bits: int = 12, seed: int = 0) -> np.ndarray:
    """A noisy ramp, (H, W) uint8 or uint16."""
    ramp = np.linspace(0, (1 << bits) * 0.8, rows * columns).reshape(rows, columns)
    noise = np.random.default_rng(seed).integers(0, 1 << (bits - 4), (rows, columns))
    return (ramp + noise).astype(np.uint8 if bits <= 8 else np.uint16)


def wrapped(ds: Dataset, *frames: bytes, has_bot: bool = True, **changes: object) -> bytes:
    """The image with these frames for pixels, encoded (Explicit VR Little Endian)."""
    ds.PixelData = encapsulate(list(frames), has_bot=has_bot)
    ds["PixelData"].is_undefined_length = True
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return encode(ds)


def lossless_frame(pixels: np.ndarray, syntax: str, **changes: object) -> bytes:
    """One frame, (H, W) or (H, W, 3), in one of `LOSSLESS`."""
    is_jpeg_2000 = pixels.ndim == 3 and syntax in (JPEG_2000_LOSSLESS, HTJ2K_LOSSLESS)
    ds = image(pixels[None], **changes)
    if is_jpeg_2000:
        ds.PhotometricInterpretation = "YBR_RCT"
    containers = pixels if pixels.dtype.kind == "u" else pixels.view(np.uint16)
    return pool.shared().encode(containers, facts_of_image(ds), syntax_of(syntax))


def facts_of_image(ds: Dataset) -> FrameFacts:
    """What a codec must know of its frames."""
    return FrameFacts(
        rows=ds.Rows,
        columns=ds.Columns,
        samples=ds.SamplesPerPixel,
        photometric=ds.PhotometricInterpretation,
        bits_allocated=ds.BitsAllocated,
        bits_stored=ds.BitsStored,
        high_bit=ds.HighBit,
        signed=bool(ds.PixelRepresentation),
    )


def jpeg_frame(rgb: np.ndarray, *, samples: str, subsampling: str = "444") -> bytes:
    """A baseline JPEG frame without any marker; `samples`: "RGB" or "YBR" is what lies in it. Identifiers 1, 2, 3."""
    lying = rgb if samples == "RGB" else convert_color_space(rgb, "RGB", "YBR_FULL")
    kept = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}  # no transform, whatever lies in it
    return without_markers(imagecodecs.jpeg8_encode(lying, level=97, subsampling=subsampling, **kept))


def without_markers(frame: bytes) -> bytes:
    """A JPEG frame without its application segments."""
    kept, position = frame[:2], 2
    while frame[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
        kept += frame[position:end] if not 0xE0 <= frame[position + 1] <= 0xEF else b""
        position = end
    return kept + frame[position:]


def adobe(transform: int) -> bytes:
    """An Adobe marker segment."""
    return b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])


def marked(frame: bytes, *segments: bytes) -> bytes:
    """A JPEG frame with these segments behind its start."""
    return frame[:2] + b"".join(segments) + frame[2:]


def identified(frame: bytes, ids: bytes) -> bytes:
    """A JPEG frame of three components with these identifiers instead of 1, 2, 3."""
    changed = bytearray(frame)
    start = frame.index(b"\xff\xc0") + 10
    scan = frame.index(b"\xff\xda") + 5
    for number, identifier in enumerate(ids):
        changed[start + 3 * number] = identifier
        changed[scan + 2 * number] = identifier
    return bytes(changed)
