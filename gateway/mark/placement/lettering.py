"""Lettering: which pixels are strokes.

A plane is tiled with lines of the text, turned and shifted; every image pixel looks up its place in that plane, so
edges are hard and placement is a smooth function of the slice position. All choices come from the key; with the
position the plane drifts slowly, so that neighbouring slices nearly agree and far ones do not (one fixed place in
every slice would be averaged away).

Letters and words that lie mostly outside the free region are left out; of the others, as many as the share allows, in
a keyed order that is the same in every slice of a series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from gateway.errors import MarkError
from gateway.mark.placement.logo import LEAST_STROKE, is_too_fine, scale_ink
from gateway.mark.randomness import keyed

DRIFT_MM = 80.0
"""Wavelength of the drift along the slice normal, in millimetres."""
_OVERSAMPLE = 3  # the stamp is drawn this much larger, so that a turned look-up keeps clean edges
LINE_GAP = 0.3
"""Empty space between lines, as a share of the letter height."""
WEIGHT = 0.06
"""How much bolder than the font the letters are drawn, as a share of the type size, on each side."""
LETTER_INSIDE = 0.85
"""Letters of which less lies in the region are left out: a fragment does not read as lettering."""
WORD_INSIDE = 0.4
"""Words of which less is left are left out."""
WHOLE = 0.98
"""Both where words are to be whole."""
OUTLINE = 0.04
"""Thickness of a letter's outline, as a share of the letter height; at least one pixel."""
LOGO_SIZE = 2.0
"""Geometric mean of a logo's sides in letter heights, so that wide and square ones weigh alike."""
_RANKS = 64  # words further apart than this share a rank


@dataclass(frozen=True)
class Stamp:
    """One line of text.

    Attributes
    ----------
    ink
        (h, w) bool at ``_OVERSAMPLE`` times the image's resolution.
    letter
        (w,) int, which character of the line a column belongs to.
    word_of
        (letters,) int, which word a character belongs to.
    """

    ink: np.ndarray
    letter: np.ndarray
    word_of: np.ndarray


@dataclass(frozen=True)
class Lettering:
    """What a text became in one image.

    Attributes
    ----------
    strokes
        (H, W) bool, the ink that is kept.
    letters
        (H, W) int32, which letter a pixel of the plane belongs to (numbered within this image).
    outline
        (H, W) bool, the edge of the strokes, from inside.
    """

    strokes: np.ndarray
    letters: np.ndarray
    outline: np.ndarray

    @classmethod
    def none(cls, shape: tuple[int, int]) -> Lettering:
        """Return an image of ``shape`` without any lettering."""
        empty = np.zeros(shape, bool)
        return cls(empty, np.zeros(shape, np.int32), empty)

    def joined(self, other: Lettering) -> Lettering:
        """Return both letterings as one; their strokes must not overlap."""
        letters = np.where(other.strokes, other.letters + int(self.letters.max()) + 1, self.letters)
        return Lettering(self.strokes | other.strokes, letters, self.outline | other.outline)

    def polarity(self, gray: np.ndarray, turning_point: float = 0.5) -> np.ndarray:
        """Return (H, W) float32: per letter +1 (brighter than what is under it) or -1 (darker), 0 outside strokes.

        Parameters
        ----------
        gray
            (H, W) float32 in 0..1, display luminance.
        turning_point
            mean luminance under a letter below which it is brighter.

        A whole letter goes one way, so that it reads, and about the way that has more room before black or white.
        """
        count = int(self.letters.max()) + 1
        ink = self.letters[self.strokes]
        mean = np.bincount(ink, gray[self.strokes], count) / np.maximum(np.bincount(ink, minlength=count), 1)
        sign = np.where(mean < turning_point, np.float32(1.0), np.float32(-1.0))
        return np.where(self.strokes, sign[self.letters], np.float32(0.0))


@dataclass(frozen=True)
class Placement:
    """Where the plane of text lies, and how it is drawn there.

    Attributes
    ----------
    angle
        in radians.
    shift_line
        shift across the lines, as a share of the line pitch.
    shift_text
        shift along the lines, as a share of the text's length.
    size
        factor of the letter height.
    turning_point
        display luminance (0..1) below which letters are brighter than what is under them.
    """

    angle: float
    shift_line: float
    shift_text: float
    size: float = 1.0
    turning_point: float = 0.5

    def moved(self, number: int) -> Placement:
        """Return the placement of the ``number``-th lettering beside this one: its lines run between the others."""
        shift = 0.618 * number  # the golden ratio: no two of a few shifts come near each other
        return replace(self, shift_line=self.shift_line + shift, shift_text=self.shift_text + shift)


def place(key: bytes, position: float) -> Placement:
    """Return the placement for a key (32 bytes) and a slice position (mm): neighbouring slices nearly agree."""
    random = keyed(key, "placement")
    angle = random.uniform(-0.45, 0.45)
    shifts = random.uniform(0.0, 1.0, 2)
    phases = random.uniform(0.0, 2.0 * math.pi, 3)
    turn = 2.0 * math.pi * position / DRIFT_MM
    drift = [math.sin(turn * pace + phase) for pace, phase in zip((1.0, 0.7, 0.9), phases, strict=True)]
    return Placement(angle + 0.06 * drift[0], float(shifts[0]) + 0.25 * drift[1], float(shifts[1]) + 0.06 * drift[2])


def draw_placements(key: bytes, count: int) -> list[Placement]:
    """Return ``count`` keyed placements for an image that belongs to no series, to choose from."""
    random = keyed(key, "placements")
    return [
        Placement(
            angle=random.uniform(-0.45, 0.45),
            shift_line=random.uniform(0.0, 1.0),
            shift_text=random.uniform(0.0, 1.0),
            size=random.uniform(0.85, 1.3),
            turning_point=random.uniform(0.3, 0.7),
        )
        for _ in range(count)
    ]


def render_stamp(text: str, height: float) -> Stamp:
    """Return the text as bold ink; ``height`` is that of a capital letter in image pixels."""
    size = max(8, round(height * _OVERSAMPLE / 0.72))  # capitals are about 0.72 of the type size
    font = ImageFont.load_default(size)
    weight = max(1, round(size * WEIGHT))
    line = " ".join(text.split()) + " "
    box = font.getbbox(line, stroke_width=weight)
    width = round(font.getlength(line)) + size // 4
    canvas = Image.new("L", (width, math.ceil(box[3] - box[1])), 0)
    ImageDraw.Draw(canvas).text((weight, -box[1]), line, fill=255, font=font, stroke_width=weight)
    letter = np.zeros(width, int)
    for number in range(1, len(line)):
        letter[round(font.getlength(line[:number])) + weight :] = number
    word_of = np.cumsum([0, *(character == " " for character in line[:-1])])
    return Stamp(np.asarray(canvas) > 127, letter, word_of)


def logo_stamp(ink: np.ndarray, height: float) -> Stamp:
    """Return a logo, bool (h, w), as a stamp of one letter; ``height`` is that of the letters it stands for.

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
    gap = round(LINE_GAP * height * _OVERSAMPLE)
    sheet = np.pad(drawn, ((0, 0), (0, gap)))
    return Stamp(sheet, np.zeros(sheet.shape[1], int), np.zeros(1, int))


def render_lettering(
    stamp: Stamp,
    key: bytes,
    placement: Placement,
    height: float,
    region: np.ndarray,
    max_pixels: int,
    scale: tuple[float, float] = (1.0, 1.0),
    whole: bool = False,
) -> Lettering:
    """Return the lettering inside ``region``.

    Parameters
    ----------
    stamp
        the text or logo, drawn for ``height``.
    key
        32 bytes.
    placement
        where the plane of text lies.
    height
        of capital letters, in pixels of square shape (the longer side of an oblong one).
    region
        (H, W) bool, where strokes may lie.
    max_pixels
        most pixels that strokes may cover.
    scale
        height and width of a pixel as it is shown, in such units (``shown_scale``).
    whole
        words are whole or left out.

    Its strokes may be empty when no word fits.
    """
    cosine, sine = np.float32(math.cos(placement.angle)), np.float32(math.sin(placement.angle))
    pitch = np.float32(stamp.ink.shape[0] / _OVERSAMPLE + LINE_GAP * height)
    length = np.float32(stamp.ink.shape[1] / _OVERSAMPLE)
    rows, columns = (
        (np.arange(side, dtype=np.float32) - np.float32(side / 2.0)) * np.float32(step)
        for side, step in zip(region.shape, scale, strict=True)
    )
    across = (rows * cosine)[:, None] - columns * sine + np.float32(placement.shift_line + 100.0) * pitch
    line = np.floor(across / pitch)
    v = ((across - line * pitch) * _OVERSAMPLE).astype(np.int32)
    line = line.astype(np.int32) % _RANKS
    # every second line is shifted by a keyed part of the text, so that words do not stand in columns
    stagger = keyed(key, "stagger").uniform(0.2, 0.8, _RANKS) + placement.shift_text + 100.0
    along = (rows * sine)[:, None] + columns * cosine + (stagger * length).astype(np.float32)[line]
    cell = np.floor(along / length)
    u = np.minimum(((along - cell * length) * _OVERSAMPLE).astype(np.int32), stamp.ink.shape[1] - 1)
    lined = np.pad(stamp.ink, ((0, 1), (0, 0)))  # below the ink of a line there is none
    ink = np.flatnonzero(lined[np.minimum(v, stamp.ink.shape[0]), u])
    # From here on ink alone counts: (n,) values, one per pixel of ink.
    place_id = line.ravel()[ink] * _RANKS + cell.ravel()[ink].astype(np.int32) % _RANKS  # one repetition of the text
    letter = stamp.letter[u.ravel()[ink]]
    letters, words = len(stamp.word_of), int(stamp.word_of.max()) + 1
    letter_id = place_id * letters + letter
    word_id = place_id * words + stamp.word_of[letter]
    inside = region.ravel()[ink]
    kept = inside & _mostly(inside, letter_id, WHOLE if whole else LETTER_INSIDE)
    kept &= _mostly(kept, word_id, WHOLE if whole else WORD_INSIDE)
    if whole:  # what lies beyond the image is not known of: a word at its edge may go on there
        edge = np.ones(region.shape, bool)
        edge[1:-1, 1:-1] = False
        cut = np.bincount(word_id, edge.ravel()[ink]) > 0
        kept &= ~cut[word_id]
    kept &= _first(kept, word_id, keyed(key, "words").permutation(_RANKS**2 * words), max_pixels)
    drawn = np.zeros(region.size, bool)
    drawn[ink] = kept
    strokes = drawn.reshape(region.shape)
    numbers = np.zeros(region.size, np.int32)
    present = np.bincount(letter_id) > 0
    numbers[ink] = (np.cumsum(present) - 1)[letter_id]
    inner = _core(strokes, max(1, round(OUTLINE * height)), scale)
    return Lettering(strokes, numbers.reshape(region.shape), strokes & ~inner)


def shown_scale(aspect: float) -> tuple[float, float]:
    """Return height and width of a pixel as it is shown, its longer side being 1; ``aspect`` is height over width."""
    return aspect / max(aspect, 1.0), 1.0 / max(aspect, 1.0)


def _core(strokes: np.ndarray, depth: int, scale: tuple[float, float]) -> np.ndarray:
    """Return the (H, W) bool strokes without an outline that is ``depth`` thick as it is shown."""
    if scale == (1.0, 1.0):
        return ndimage.binary_erosion(strokes, iterations=depth)
    tall, wide = (round(depth / step) for step in scale)
    return ndimage.binary_erosion(strokes, np.ones((2 * tall + 1, 2 * wide + 1), bool))


def _mostly(inside: np.ndarray, identity: np.ndarray, share: float) -> np.ndarray:
    """Return the (n,) bool pixels of those units of ink of which at least ``share`` is ``inside``."""
    whole, part = np.bincount(identity), np.bincount(identity[inside], minlength=int(identity.max(initial=0)) + 1)
    return (part >= share * whole)[identity]


def _first(kept: np.ndarray, identity: np.ndarray, order: np.ndarray, max_pixels: int) -> np.ndarray:
    """Return the (n,) bool pixels of the words that come first in ``order``, as many as ``max_pixels`` allow."""
    sizes = np.bincount(identity[kept], minlength=len(order))
    chosen = np.zeros(len(order), bool)
    chosen[order] = np.cumsum(sizes[order]) <= max_pixels
    return chosen[identity]
