"""A site's logo: from an image file to a shape that can be drawn; damaged and hostile files are refused.

Ink is bool (h, w), trimmed to what is drawn. Of an image with transparency, ink is what is opaque; of one without, what
is darker than middle gray. So a logo is dark on a light ground, or anything on a transparent one.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from scipy import ndimage

from gateway.errors import ConfigError

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""Plain raster formats only: Pillow hands others (EPS) to programs outside."""
MAX_BYTES = 8 * 2**20
"""Largest logo file."""
MAX_PIXELS = 16 * 2**20
"""Most pixels of a logo, judged by the header before anything is decoded."""
LEAST_STROKE = 1.5
"""Thinnest stroke in image pixels that still reads as drawn."""
MAX_LOSS = 1.0 / 3.0
"""A logo is too fine where more than this share of its ink does not survive at its size (edges cost about a tenth)."""
MAX_INK = 0.98
"""A logo that fills more than this share of the image is a blank sheet."""

_SMALLER = f"use an image of at most {MAX_BYTES >> 20} MiB and {MAX_PIXELS >> 20} million pixels"


def load_logo(path: Path) -> np.ndarray:
    """Return the ink of a logo file, bool (h, w), trimmed; of an animation, its first picture.

    Raises
    ------
    ConfigError
        ``logo-unreadable`` (not there, no image, damaged), ``logo-too-large`` (bytes or pixels; nothing
        is decoded), ``logo-empty`` (no ink, or nothing but ink).
    """
    try:
        if not path.is_file():
            raise ConfigError(
                "logo-unreadable", f"the logo {path} is not there or not a regular file", "correct the path"
            )
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError("logo-too-large", f"the logo {path} has more than {MAX_BYTES >> 20} MiB", _SMALLER)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    message = f"the logo {path} has {image.width}x{image.height} pixels"
                    raise ConfigError("logo-too-large", message, _SMALLER)
                ink = _ink(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ConfigError("logo-too-large", f"the logo {path} has far too many pixels", _SMALLER) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, MemoryError):
        # Pillow's decoders raise each of these on damaged files
        hint = f"use a whole image file: {', '.join(FORMATS)}"
        raise ConfigError("logo-unreadable", f"the logo {path} is no image that can be read", hint) from None
    if not ink.any() or ink.mean() > MAX_INK:
        what = "nothing but ink" if ink.any() else "no ink"
        raise ConfigError("logo-empty", f"the logo {path} holds {what}", "draw it dark on white, or on transparency")
    return trim(ink)


def _ink(image: Image.Image) -> np.ndarray:
    """Return the bool (h, w) ink of an opened image."""
    if image.mode.startswith("I") or image.mode == "F":  # 16-bit and floating-point gray: dark is the lower half
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("gray values that are not finite")
        return values < (values.min() + values.max()) / 2.0
    layers = np.asarray(image.convert("RGBA"))
    opaque = layers[:, :, 3] > 127
    if not opaque.all():
        return opaque
    return np.asarray(image.convert("L")) < 128


def trim(ink: np.ndarray) -> np.ndarray:
    """Return ink, bool (h, w), without empty rows and columns around it; it must not be empty."""
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def scale_ink(ink: np.ndarray, longest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ink scaled to ``longest`` pixels on its longer side, bool (h, w), and its coverage 0..1, float32 (h, w).

    Parameters
    ----------
    ink
        bool (h, w), not empty.
    longest
        pixels, at least 1.
    """
    factor = longest / max(ink.shape)
    height, width = (max(1, round(side * factor)) for side in ink.shape)
    # BOX: the mean over what a target pixel covers
    small = Image.fromarray(ink.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    coverage = np.asarray(small, dtype=np.float32) / 255.0
    return coverage > 0.5, coverage


def is_too_fine(ink: np.ndarray, coverage: np.ndarray, oversample: float) -> bool:
    """Return whether scaled ink loses too much of what it should show to strokes thinner than ``LEAST_STROKE``.

    Parameters
    ----------
    ink
        bool (h, w) from ``scale_ink``.
    coverage
        its float32 (h, w) coverage.
    oversample
        pixels of ``ink`` per image pixel.

    A morphological opening with a disc takes thin strokes away; strokes that scaling already blurred into the ground
    (or grounds into ink) differ from their coverage.
    """
    radius = LEAST_STROKE * oversample / 2.0
    reach = np.arange(-int(radius), int(radius) + 1)
    disc = np.hypot(reach[:, None], reach[None, :]) <= radius
    left = ndimage.binary_opening(np.pad(ink, len(reach)), disc)[len(reach) : -len(reach), len(reach) : -len(reach)]
    return float(np.abs(left - coverage).sum()) > MAX_LOSS * float(coverage.sum())
