"""Words and logos as ink, drawn once for a size and looked up ever after.

A stamp is as large as what it covers: ink, and around it a rim of the other polarity, so that a word reads on bright
and on dark ground alike, as subtitles do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from gateway.errors import MarkError
from gateway.mark.placement.logo import LEAST_STROKE, is_too_fine, scale_ink

WEIGHT = 0.045
"""How much bolder than the font letters are drawn, as a share of the type size, on each side."""
TRACKING = 0.09
"""Space added between letters, as a share of their height: rims must not touch the next letter."""
WORD_SPACE = 0.5
"""Space between words of one line, as a share of the letter height."""
RIM = 0.08
"""Thickness of the rim, as a share of the letter height; at least one pixel."""
CLEAR = 0.25
"""Empty space that belongs to a stamp with a rim, on each side, as a share of the letter height: such words keep off
the borders of what they lie in."""
LOGO_SIZE = 2.0
"""Geometric mean of a logo's sides in letter heights, so that wide and square ones weigh alike."""
_OVERSAMPLE = 3  # of a logo, whose strokes are judged


@dataclass(frozen=True)
class Stamp:
    """A text in one or more lines, or a logo.

    Attributes
    ----------
    ink
        (h, w) bool.
    rim
        (h, w) bool, apart from the ink; empty without a rim.
    """

    ink: np.ndarray
    rim: np.ndarray

    @property
    def size(self) -> int:
        """How many pixels it covers."""
        return int(self.ink.sum() + self.rim.sum())


@lru_cache(maxsize=256)  # images have sizes of many kinds
def text_stamp(
    lines: tuple[str, ...], height: int, pitch: int, scale: tuple[float, float] = (1.0, 1.0), *, rimmed: bool = False
) -> Stamp:
    """Return a text, its lines centred.

    Parameters
    ----------
    lines
        printable ASCII.
    height
        of a capital letter, in pixels of square shape.
    pitch
        rows of the image from line to line.
    scale
        height and width of a pixel as it is shown, in pixels of square shape.
    rimmed
        with a rim.
    """
    drawn = [_reshaped(_line(line, height), scale) for line in lines]
    width = max(one.shape[1] for one in drawn)
    block = np.zeros((pitch * (len(lines) - 1) + max(one.shape[0] for one in drawn), width), bool)
    for number, one in enumerate(drawn):
        left = (width - one.shape[1]) // 2
        block[number * pitch : number * pitch + one.shape[0], left : left + one.shape[1]] |= one
    return _stamp(block, height, scale, rimmed=rimmed)


def logo_stamp(
    ink: np.ndarray, height: float, scale: tuple[float, float] = (1.0, 1.0), *, rimmed: bool = False
) -> Stamp:
    """Return a logo, bool (h, w); ``height`` is that of the letters it stands for, the rest as ``text_stamp``.

    Raises
    ------
    MarkError
        ``logo-too-fine`` when its strokes would not show at that size.
    """
    longest = LOGO_SIZE * height * max(ink.shape) / math.sqrt(ink.shape[0] * ink.shape[1])
    drawn, coverage = scale_ink(ink, longest * _OVERSAMPLE)
    if is_too_fine(drawn, coverage, _OVERSAMPLE):
        message = f"strokes of the logo are thinner than {LEAST_STROKE:g} pixels where it is {longest:.0f} pixels long"
        raise MarkError("logo-too-fine", message, "use a plainer logo")
    return _stamp(_reshaped(drawn, (_OVERSAMPLE * scale[0], _OVERSAMPLE * scale[1])), height, scale, rimmed=rimmed)


def _reshaped(ink: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Return bool ink on pixels of ``scale`` (height, width) in its own; what they hold half of is ink."""
    if scale == (1.0, 1.0):
        return ink
    shape = [max(1, round(side / step)) for side, step in zip(ink.shape, scale, strict=True)]
    drawn = Image.fromarray(ink.astype(np.uint8) * 255).resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(drawn) > 127


def _stamp(ink: np.ndarray, height: float, scale: tuple[float, float], *, rimmed: bool) -> Stamp:
    if not rimmed:
        return Stamp(ink, np.zeros_like(ink))
    tall, wide = (max(1, round(RIM * height / step)) for step in scale)
    more = [max(1, round(RIM * height / step)) + round(CLEAR * height / step) for step in scale]
    ink = np.pad(ink, ((more[0], more[0]), (more[1], more[1])))
    reach = np.ogrid[-tall : tall + 1, -wide : wide + 1]
    disc = (reach[0] / (tall + 0.5)) ** 2 + (reach[1] / (wide + 0.5)) ** 2 <= 1.0
    return Stamp(ink, ndimage.binary_dilation(ink, disc) & ~ink)


@lru_cache(maxsize=32)  # each is a whole font in memory
def _font(height: int) -> ImageFont.FreeTypeFont:
    """Return the smallest font whose capitals, drawn with ``WEIGHT``, are at least ``height`` pixels high."""
    size = max(6.0, height / (0.72 + 2.0 * WEIGHT))
    while True:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        if _letter("H", font).any(axis=1).sum() >= height:
            return font
        size += 0.25


def _letter(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Return the bool ink of one character on a sheet of three type sizes, its origin a type size from each side."""
    side = math.ceil(font.size)
    sheet = Image.new("L", (3 * side, 3 * side), 0)
    ImageDraw.Draw(sheet).text(
        (side, 2 * side), character, fill=255, font=font, stroke_width=font.size * WEIGHT, anchor="ls"
    )
    return np.asarray(sheet) > 127


def _line(text: str, height: int) -> np.ndarray:
    """Return the bool ink of a line, trimmed. Letters begin at whole pixels: all of a kind look alike."""
    font = _font(height)
    side, at = math.ceil(font.size), 0.0
    placed = []
    for character in text:
        if character == " ":
            at += WORD_SPACE * height
            continue
        placed.append((round(at), _letter(character, font)))
        at = round(at) + font.getlength(character) + TRACKING * height
    line = np.zeros((3 * side, math.ceil(at) + 3 * side), bool)
    for left, letter in placed:
        line[:, left : left + 3 * side] |= letter
    rows = np.flatnonzero(line.any(axis=1))
    top, bottom = min(2 * side - height, rows[0]), max(2 * side, rows[-1] + 1)  # the base line at one height in all
    columns = np.flatnonzero(line.any(axis=0))
    return line[top:bottom, columns[0] : columns[-1] + 1]
