"""A flat mark: one logo or block of text of one gray level, laid over the image at one opacity (alpha blending).

A candidate is six genes in 0..1: row and column of its centre within the region's bounding box, size, rotation,
opacity, and black or white.
"""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.placement.logo import LEAST_STROKE, is_too_fine, scale_ink, trim

GENES = 6
OVERSAMPLE = 3
"""Ink is drawn this much finer than the largest size that it may have in the image."""
SIZES = (0.25, 0.35, 0.5, 0.7, 0.9)
"""Longer side of the mark as a share of the image's shorter side: the last is the largest, the first that is not too
fine the smallest."""
LARGEST_TURN = math.pi / 4.0
"""Rotation either way, in radians: beyond it text is hard to read."""
LEAST_OPACITY = 0.1


@dataclass(frozen=True)
class Placements:
    """R candidates; every field is a (R,) float32 tensor.

    Attributes
    ----------
    row
        of the centre, as a share of the image's height.
    column
        of the centre, as a share of the image's width.
    size
        longer side as a share of the image's shorter side.
    angle
        radians.
    opacity
        above 0, at most 1.
    level
        display value of the mark, 0.0 or 1.0.
    """

    row: Tensor
    column: Tensor
    size: Tensor
    angle: Tensor
    opacity: Tensor
    level: Tensor


def text_ink(text: str) -> np.ndarray:
    """Return a text, bold and set in lines of about equal length, as bool (h, w) ink; capitals are 70 pixels high."""
    line = " ".join(text.split())
    longest = max(len(word) for word in line.split())
    # letters are about half as wide as a line is high: this makes the block wider than high, but no ribbon
    lines = textwrap.wrap(line, max(longest, math.ceil(math.sqrt(4.0 * len(line)))))
    font, weight = ImageFont.load_default(97), 3
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = measure.multiline_textbbox((0, 0), "\n".join(lines), font, stroke_width=weight)
    sheet = Image.new("L", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2), 0)
    ImageDraw.Draw(sheet).multiline_text(
        (1 - left, 1 - top), "\n".join(lines), 255, font, align="center", stroke_width=weight
    )
    ink = np.asarray(sheet) > 127
    return trim(ink) if ink.any() else ink


def least_size(ink: np.ndarray, shorter: int) -> float:
    """Return the smallest of ``SIZES`` at which the ink's strokes still show.

    Parameters
    ----------
    ink
        bool (h, w).
    shorter
        the image's shorter side in pixels.

    Raises
    ------
    MarkError
        ``logo-too-fine`` when they do not even at the largest.
    """
    for size in SIZES:
        if not is_too_fine(*scale_ink(ink, max(1.0, size * shorter * OVERSAMPLE)), OVERSAMPLE):
            return size
    raise MarkError(
        "logo-too-fine",
        f"strokes of the logo or text are thinner than {LEAST_STROKE:g} pixels at the largest size that it would have "
        f"in an image of {shorter} pixels",
        "use a plainer logo or a shorter text",
    )


def decode(genes: Tensor, box: Tensor, smallest: Tensor) -> Placements:
    """Return the placements of genes.

    Parameters
    ----------
    genes
        (R, 6) float32 in 0..1.
    box
        (R, 4) float32: top, bottom, left, right of the region's bounding box as shares of the image's sides.
    smallest
        (R,) float32, from ``least_size``.
    """
    return Placements(
        row=box[:, 0] + genes[:, 0] * (box[:, 1] - box[:, 0]),
        column=box[:, 2] + genes[:, 1] * (box[:, 3] - box[:, 2]),
        size=smallest + genes[:, 2] * (SIZES[-1] - smallest),
        angle=(2.0 * genes[:, 3] - 1.0) * LARGEST_TURN,
        opacity=LEAST_OPACITY + genes[:, 4] * (1.0 - LEAST_OPACITY),
        level=(genes[:, 5] >= 0.5).float(),
    )


def ink_masks(ink: Tensor, placements: Placements, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return (R, height, width) bool masks of the ink laid into the image, and (R,) how many pixels all of it covers.

    Parameters
    ----------
    ink
        (h, w) bool, on the placements' device.
    placements
        R of them.
    height
        of the image.
    width
        of the image.

    What lies beyond the image counts as covered, so that a mark that is half outside is known as half a mark.
    """
    device = ink.device
    pixels = placements.size * min(height, width)
    finer = (max(ink.shape) / pixels)[:, None, None]
    rows = (torch.arange(height, device=device) + 0.5)[None, :, None] - (placements.row * height)[:, None, None]
    columns = (torch.arange(width, device=device) + 0.5)[None, None, :] - (placements.column * width)[:, None, None]
    cosine, sine = (turn(placements.angle)[:, None, None] for turn in (torch.cos, torch.sin))
    v = torch.floor((rows * cosine - columns * sine) * finer + ink.shape[0] / 2.0).long()
    u = torch.floor((columns * cosine + rows * sine) * finer + ink.shape[1] / 2.0).long()
    within = (v >= 0) & (v < ink.shape[0]) & (u >= 0) & (u < ink.shape[1])
    masks = within & ink[v.clamp(0, ink.shape[0] - 1), u.clamp(0, ink.shape[1] - 1)]
    return masks, ink.sum() / finer[:, 0, 0] ** 2


def affordable_opacity(clean: Tensor, masks: Tensor, placements: Placements, floor: float) -> Tensor:
    """Return the (R,) opacity that is wanted, or as much of it as keeps the display PSNR (before rounding).

    Parameters
    ----------
    clean
        (R, C, h, w) float32 in 0..1.
    masks
        (R, h, w) bool.
    placements
        R of them.
    floor
        display PSNR in dB.
    """
    full = (placements.level[:, None, None, None] - clean) ** 2 * masks[:, None]
    most = (10.0 ** (-floor / 10.0) / full.mean((1, 2, 3)).clamp(min=1e-12)).sqrt()
    return torch.minimum(placements.opacity, most)


def blend_change(clean: Tensor, masks: Tensor, level: Tensor, opacity: Tensor) -> Tensor:
    """Return the (R, C, h, w) float32 change in display units: (1 - a) x + a c, minus x, inside the masks.

    Parameters
    ----------
    clean
        (R, C, h, w) float32 in 0..1.
    masks
        (R, h, w) bool.
    level
        (R,) c, display value of the mark.
    opacity
        (R,) a.
    """
    return (opacity[:, None, None, None] * (level[:, None, None, None] - clean)) * masks[:, None]
