"""Images and small surrogate packs that the mark's tests share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from pydicom import dcmread
from pydicom.data import get_testdata_file

from gateway.mark import Marker, MarkRequest, MarkSettings, SurrogatePack
from gateway.mark.placement.stamps import Stamp, text_stamp
from plugins.modalities import brain_mr, ct, generic_gray, generic_rgb
from plugins.surrogates import gray, rgb

KEY = bytes(range(32))
OTHER_KEY = bytes(reversed(range(32)))
FAST = MarkSettings(tier="lettered", steps=0, device="cpu")
SHORT = MarkSettings(tier="lettered", steps=3, device="cpu")
CPU = torch.device("cpu")

BRAIN, CT, GRAY, RGB = brain_mr.PROFILE, ct.PROFILE, generic_gray.PROFILE, generic_rgb.PROFILE


def phantom(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    """Return a (height, width) float64 head-like picture in 0..1: a noisy ellipse with a few blobs on black."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside = (rows / 0.9) ** 2 + (columns / 0.8) ** 2 < 1.0
    picture = 0.4 + 0.05 * random.standard_normal((height, width))
    for _ in range(5):
        y, x = random.uniform(-0.5, 0.5, 2)
        picture += 0.3 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 0.02)
    return np.where(inside, np.clip(picture, 0.1, 1.0), 0.0)


def gray8(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    """Return the phantom as uint8."""
    return np.rint(phantom(height, width, seed) * 255.0).astype(np.uint8)


def rgb8(height: int = 96, width: int = 96, seed: int = 0) -> np.ndarray:
    """Return three phantoms as one uint8 RGB picture."""
    plane = phantom(height, width, seed)
    return np.rint(np.stack([plane, 0.8 * plane, 0.6 * plane], axis=2) * 255.0).astype(np.uint8)


def word(height: int, pitch: int) -> Stamp:
    """Draw COPY with a rim."""
    return text_stamp(("COPY",), height, pitch, rimmed=True)


def disc(shape: tuple[int, int], radius: float) -> np.ndarray:
    """Return a bool disc of ``radius`` (share of the shorter side) a little off the centre."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(rows - 0.45 * shape[0], columns - 0.55 * shape[1]) < radius * min(shape)


def requests(count: int = 1, **changes: object) -> list[MarkRequest]:
    """Return ``count`` requests of different 96x96 8-bit phantoms in one series, 3 mm apart."""
    base = [MarkRequest(gray8(seed=i), KEY, position=3.0 * i, roi=disc((96, 96), 0.15)) for i in range(count)]
    return [replace(request, **changes) for request in base]


@cache
def marker(settings: MarkSettings = SHORT) -> Marker:
    """Return a marker with the shipped packs; one per settings, so that weights are read once."""
    return Marker(settings, packs=[gray.PACK, rgb.PACK])


@cache
def small_marker(settings: MarkSettings = SHORT) -> Marker:
    """Return a marker whose pack is one small network: quick, and enough for what does not measure strength."""
    return Marker(settings, packs=[small_pack()])


def small_pack() -> SurrogatePack:
    """Return the gray pack with its smallest network only."""
    return replace(gray.PACK, files=tuple(path for path in gray.PACK.files if path.stem == "squeezenet"))


@cache
def real(name: str) -> MarkRequest:
    """Return a real image that ships with pydicom as a request (first frame, stored values, header's window)."""
    dataset = dcmread(Path(str(get_testdata_file(name))))
    image = dataset.pixel_array
    low, high = np.percentile(image[image > image.min()], (0.5, 99.5))
    return MarkRequest(np.ascontiguousarray(image), KEY, display=(float(low), float(high)))
