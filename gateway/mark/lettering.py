"""Lettering: which pixels are strokes.

A plane is tiled with lines of the text, turned and shifted; every image pixel looks up its place in that plane, so
edges are hard and placement is a smooth function of the slice position. All choices come from the key; with the
position the plane drifts slowly, so that neighbouring slices nearly agree and far ones do not (one fixed place in
every slice would be averaged away).

Words that lie mostly outside the free region are left out; of the others, as many as the share allows, in a keyed
order that is the same in every slice of a series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gateway.mark.randomness import keyed

DRIFT_MM = 80.0
"""Wavelength of the drift along the slice normal, in millimetres."""
_OVERSAMPLE = 3  # the stamp is drawn this much larger, so that a turned look-up keeps clean edges
LINE_GAP = 0.35
"""Empty space between lines, as a share of the letter height."""
WEIGHT = 0.035
"""How much bolder than the font the letters are drawn, as a share of the type size, on each side."""
_RANKS = 64  # words further apart than this share a rank


@dataclass(frozen=True)
class Stamp:
    """One line of text.

    Attributes:
        ink: (h, w) bool at ``_OVERSAMPLE`` times the image's resolution.
        word: (w,) int, which word a column belongs to.
    """

    ink: np.ndarray
    word: np.ndarray


@dataclass(frozen=True)
class Placement:
    """Where the plane of text lies: angle in radians, shifts as shares of line pitch and text pitch."""

    angle: float
    shift_line: float
    shift_text: float


def place(key: bytes, position: float) -> Placement:
    """Return the placement for a key (32 bytes) and a slice position (mm)."""
    random = keyed(key, "placement")
    angle = random.uniform(-0.45, 0.45)
    shifts = random.uniform(0.0, 1.0, 2)
    phases = random.uniform(0.0, 2.0 * math.pi, 3)
    turn = 2.0 * math.pi * position / DRIFT_MM
    drift = [math.sin(turn * pace + phase) for pace, phase in zip((1.0, 0.7, 0.9), phases, strict=True)]
    return Placement(angle + 0.06 * drift[0], float(shifts[0]) + 0.25 * drift[1], float(shifts[1]) + 0.06 * drift[2])


def render_stamp(text: str, height: float) -> Stamp:
    """Return the text as bold ink; ``height`` is that of a capital letter in image pixels."""
    size = max(8, round(height * _OVERSAMPLE / 0.72))  # capitals are about 0.72 of the type size
    font = ImageFont.load_default(size)
    weight = max(1, round(size * WEIGHT))
    words = text.split()
    box = font.getbbox(" ".join(words), stroke_width=weight)
    width = box[2] + size // 2
    canvas = Image.new("L", (width, box[3] - box[1]), 0)
    draw = ImageDraw.Draw(canvas)
    word_of = np.zeros(width, int)
    x = 0
    for number, word in enumerate(words):
        draw.text((x + weight, -box[1]), word, fill=255, font=font, stroke_width=weight)
        word_of[x:] = number
        x += round(font.getlength(word + " "))
    return Stamp(np.asarray(canvas) > 127, word_of)


def render_strokes(
    text: str, key: bytes, position: float, height: float, region: np.ndarray, max_pixels: int
) -> np.ndarray:
    """Return the (H, W) bool strokes of the lettering inside ``region``.

    Args:
        text: printable ASCII.
        key: 32 bytes.
        position: slice position in mm.
        height: of capital letters, in pixels.
        region: (H, W) bool, where strokes may lie.
        max_pixels: most pixels that strokes may cover.

    The result may be empty when no word fits.
    """
    stamp = render_stamp(text, height)
    placement = place(key, position)
    rows, columns = np.indices(region.shape, dtype=np.float32)
    rows -= region.shape[0] / 2.0
    columns -= region.shape[1] / 2.0
    cosine, sine = math.cos(placement.angle), math.sin(placement.angle)
    pitch = stamp.ink.shape[0] / _OVERSAMPLE + LINE_GAP * height
    length = stamp.ink.shape[1] / _OVERSAMPLE
    along = columns * cosine + rows * sine
    across = rows * cosine - columns * sine + (placement.shift_line + 100.0) * pitch
    line = np.floor(across / pitch).astype(int)
    # every second line is shifted by a keyed part of the text, so that words do not stand in columns
    stagger = keyed(key, "stagger").uniform(0.2, 0.8, _RANKS)[line % _RANKS]
    along = along + (placement.shift_text + stagger + 100.0) * length
    cell = np.floor(along / length).astype(int)
    v = ((across - line * pitch) * _OVERSAMPLE).astype(int)
    u = np.minimum(((along - cell * length) * _OVERSAMPLE).astype(int), stamp.ink.shape[1] - 1)
    ink = (v < stamp.ink.shape[0]) & stamp.ink[np.minimum(v, stamp.ink.shape[0] - 1), u]
    words = int(stamp.word.max()) + 1
    identity = ((line % _RANKS) * _RANKS + cell % _RANKS) * words + stamp.word[u]
    order = keyed(key, "words").permutation(_RANKS * _RANKS * words)
    return _choose_words(ink, identity, order, region, max_pixels)


def _choose_words(
    ink: np.ndarray, identity: np.ndarray, order: np.ndarray, region: np.ndarray, max_pixels: int
) -> np.ndarray:
    """Return ink & region of the words that lie mostly in the region, in keyed order, up to ``max_pixels``."""
    count = len(order)
    whole = np.bincount(identity[ink], minlength=count)
    inside = np.bincount(identity[ink & region], minlength=count)
    fits = np.flatnonzero((inside > 0) & (inside >= 0.4 * whole))
    fits = fits[np.argsort(order[fits])]
    chosen = fits[np.cumsum(inside[fits]) <= max_pixels]
    return ink & region & np.isin(identity, chosen)
