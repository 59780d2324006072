"""Where whole words lie: regular, upright lines inside a free area, each word wholly in it or not at all.

Lines have fixed places for words. A place counts where the word's whole box is free; what is left of a line then takes
words in the middle of its gaps, and shorter parts of the text, and lines of smaller letters follow where no larger word
fits. Places come from the key and drift slowly with the slice position; whether a place counts depends on the image
alone. So slices of one series agree without waiting for one another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations, pairwise

import numpy as np

from gateway.mark.placement.stamps import Stamp, text_stamp
from gateway.mark.randomness import keyed
from gateway.mark.visibility.budget import Lifts, stroke_lift

DRIFT_MM = 80.0
"""Wavelength of the drift along the slice normal, in millimetres."""
DRIFT = 0.25
"""How far lines drift either way, as a share of their pitch."""
UNEVEN = 0.04
"""Standard deviations under two words that differ by less than this (display units) count as alike."""
ROUGH = 0.2
"""The same above which a ground is no ground for a word (a border of tissues, vessels at the hilum): what lies there
is hard to tell from strokes. Such words are left out where there are others."""
_SHIFTS = (0.0, 0.5, 0.25, 0.75)  # of the lines, tried until a word fits: an area may lie between two of them
_RANKS = 64  # places further apart than this share a rank


@dataclass(frozen=True)
class Placement:
    """Where the lines of an image begin.

    Attributes
    ----------
    line
        shift down, as a share of the pitch of lines.
    word
        shift along the lines, as a share of the pitch of words.
    size
        factor of the letter height.
    """

    line: float
    word: float
    size: float = 1.0


def place(key: bytes, position: float) -> Placement:
    """Return the placement for a key (32 bytes) and a slice position (mm): neighbouring slices nearly agree."""
    random = keyed(key, "placement")
    line, word = random.uniform(0.0, 1.0, 2)
    phases = random.uniform(0.0, 2.0 * math.pi, 2)
    turn = 2.0 * math.pi * position / DRIFT_MM
    return Placement(
        float(line) + DRIFT * math.sin(turn + phases[0]), float(word) + 0.2 * DRIFT * math.sin(0.7 * turn + phases[1])
    )


def draw_placements(key: bytes, count: int) -> list[Placement]:
    """Return ``count`` keyed placements for an image that belongs to no series, to choose from."""
    random = keyed(key, "placements")
    return [
        Placement(float(random.uniform()), float(random.uniform()), float(random.uniform(0.85, 1.1)))
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Style:
    """How words are set.

    Attributes
    ----------
    leading
        empty space between lines, as a share of the letter height.
    gap
        least empty space between words of a line, as a share of the letter height.
    spread
        more of it, as a share of the word's width.
    rimmed
        words have a rim of the other polarity, which reads on any ground.
    plain
        how many words are drawn plainly, the largest on the most even ground; the others carry the texture.
    """

    leading: float
    gap: float
    spread: float
    rimmed: bool
    plain: int


IN_AIR = Style(leading=0.5, gap=0.8, spread=0.0, rimmed=False, plain=4)
"""Nothing lies under these words: many, close together."""
ON_ANATOMY = Style(leading=0.8, gap=0.6, spread=0.6, rimmed=True, plain=2)
"""What lies under these has to be seen: few, each legible on what it lies on."""


@dataclass(frozen=True)
class Lettering:
    """What a text became in one image.

    Attributes
    ----------
    strokes
        (H, W) bool, ink and rim.
    words
        (H, W) int32, which word a pixel of a stroke belongs to, from 1; 0 outside strokes.
    outline
        (H, W) bool, the words' rim, part of ``strokes``.
    plain
        (H, W) bool, the words that are drawn plainly, part of ``strokes``.
    """

    strokes: np.ndarray
    words: np.ndarray
    outline: np.ndarray
    plain: np.ndarray

    @classmethod
    def none(cls, shape: tuple[int, int]) -> Lettering:
        """Return an image of ``shape`` without any words."""
        empty = np.zeros(shape, bool)
        return cls(empty, np.zeros(shape, np.int32), empty, empty)

    def joined(self, other: Lettering) -> Lettering:
        """Return both letterings as one; their strokes must not overlap."""
        words = np.where(other.strokes, other.words + self.words.max(initial=0), self.words)
        outline, plain = self.outline | other.outline, self.plain | other.plain
        return Lettering(self.strokes | other.strokes, words.astype(np.int32), outline, plain)

    def polarity(self, gray: np.ndarray, turning_point: float = 0.5) -> np.ndarray:
        """Return (H, W) float32: per word +1 (brighter than what is under it) or -1 (darker), its rim the other way.

        Parameters
        ----------
        gray
            (H, W) float32 in 0..1, display luminance.
        turning_point
            mean luminance under a word below which it is brighter.

        0 outside strokes. A whole word goes one way, so that it reads, and about the way that has more room.
        """
        inside = self.words[self.strokes]
        count = np.maximum(np.bincount(inside), 1)
        mean = np.bincount(inside, gray[self.strokes], len(count)) / count
        sign = np.where(mean < turning_point, np.float32(1.0), np.float32(-1.0))[self.words]
        return np.where(self.strokes, np.where(self.outline, -sign, sign), np.float32(0.0))

    def lift(self, gray: np.ndarray, lifts: Lifts) -> np.ndarray:
        """Return the (H, W) float32 share of the stroke amplitude that shifts each pixel (``budget.stroke_lift``).

        Parameters
        ----------
        gray
            (H, W) float32 in 0..1, display luminance.
        lifts
            of the ground that the words lie on.
        """
        return stroke_lift(self.polarity(gray), self.outline, self.plain, lifts)


@cache
def ways_of(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the ways to set a text, the widest first: in one line, in two and so on, in the end a word a line.

    Of the ways in as many lines the narrowest, but rather broken at a sign (the dash of ``COPY - NOT FOR DIAGNOSIS``)
    than within a phrase; signs at the ends of a line are left out where it is broken.
    """
    words = text.split()
    ways: list[tuple[str, ...]] = [(" ".join(words),)]
    for count in range(2, len(words) + 1):
        broken = [
            tuple(" ".join(words[i:j]) for i, j in pairwise((0, *breaks, len(words))))
            for breaks in combinations(range(1, len(words)), count - 1)
        ]
        bare = [tuple(map(_bare, lines)) for lines in broken]
        ways += [min((lines for lines in bare if all(lines)), key=partial(_cost, words=words), default=())]
    return tuple(lines for lines in ways if lines)


AT_SIGN = 6
"""So many letters wider may a line be when the text is broken at a sign instead of within a phrase."""


def _cost(lines: tuple[str, ...], words: Sequence[str]) -> int:
    signs = len(words) - sum(len(line.split()) for line in lines)
    return max(map(len, lines)) - AT_SIGN * signs


def _bare(line: str) -> str:
    """Return a line without words at its ends that hold no letter or digit; empty when there is no other."""
    words = line.split()
    reads = [index for index, word in enumerate(words) if any(one.isalnum() for one in word)]
    return " ".join(words[reads[0] : reads[-1] + 1]) if reads else ""


@dataclass(frozen=True)
class _Laid:
    stamp: Stamp
    row: int
    column: int
    rank: int

    def roughness(self, gray: np.ndarray | None) -> float:
        """Return the standard deviation of the ground in display units; 0 where it is even everywhere."""
        if gray is None:
            return 0.0
        tall, wide = self.stamp.ink.shape
        return float(gray[self.row : self.row + tall, self.column : self.column + wide].std())

    def unevenness(self, gray: np.ndarray | None) -> int:
        """Return how uneven the ground is, coarsely: so neighbouring slices leave out the same words."""
        return int(self.roughness(gray) / UNEVEN)


Draw = Callable[[int, int], Stamp]
"""From a letter height and the rows from line to line to a stamp."""


def lay_words(
    free: np.ndarray,
    wanted: Sequence[tuple[int, Draw]],
    key: bytes,
    placement: Placement,
    style: Style,
    most: int,
    scale: tuple[float, float] = (1.0, 1.0),
    gray: np.ndarray | None = None,
) -> Lettering:
    """Return whole words inside a free area, in regular lines.

    Parameters
    ----------
    free
        (H, W) bool.
    wanted
        letter heights (pixels of square shape) and how to set the text, the preferred ones first: each takes what room
        the ones before it have left.
    key
        32 bytes, for the order in which words are left out when there are too many.
    placement
        where lines begin.
    style
        how they are set.
    most
        pixels that strokes may cover.
    scale
        height and width of a pixel as it is shown, in pixels of square shape.
    gray
        (H, W) float32 in 0..1, what lies under the words: where there are too many, those on even ground stay, on which
        they read. None: it is even everywhere.

    Its strokes are empty where no word fits.
    """
    above = np.zeros((free.shape[0] + 1, free.shape[1]), np.int32)
    np.cumsum(free.astype(np.int32), axis=0, out=above[1:])
    order = keyed(key, "words").permutation(_RANKS**2)
    for shift in _SHIFTS:
        moved = replace(placement, line=placement.line + shift)
        pages = {height: _Page(above, height, moved, style, scale) for height, _ in wanted}
        laid: list[_Laid] = []
        for height, way in wanted:
            new = sorted(pages[height].fill(way, order), key=lambda one: (one.unevenness(gray), one.rank))
            for one in new:
                for page in pages.values():
                    page.take(one)
            laid += new
        laid = [one for one in laid if one.roughness(gray) <= ROUGH] or laid
        lettering = _drawn(laid, free.shape, most, style.plain)
        if lettering.strokes.any():
            break
    return lettering


class _Page:
    """The lines of one letter height, and what of each is free.

    Parameters
    ----------
    above
        (H + 1, W) int32, free pixels above each row: a difference tells how many there are between two.
    height
        of capital letters; the rest as ``lay_words``.
    """

    def __init__(
        self, above: np.ndarray, height: int, placement: Placement, style: Style, scale: tuple[float, float]
    ) -> None:
        self._above, self._height, self._style, self._placement = above, height, style, placement
        self._below, self._gap = (
            math.ceil(share * height / step) for share, step in zip((style.leading, style.gap), scale, strict=True)
        )
        self._tall = text_stamp(("Hg",), height, 0, scale, rimmed=style.rimmed).ink.shape[0]
        self._pitch = self._tall + self._below
        rows, columns = above.shape[0] - 1, above.shape[1]
        first, last = math.ceil(-placement.line), math.floor((rows - 1) / self._pitch - placement.line)
        self._numbers = np.arange(first, last + 1)
        self._tops = np.rint((self._numbers + placement.line) * self._pitch).astype(int).clip(0, rows - 1)
        self._taken = np.zeros((len(self._numbers), columns), bool)

    def take(self, one: _Laid) -> None:
        """Mark what a word of any height takes, and the space around it."""
        tall, wide = one.stamp.ink.shape
        first = np.searchsorted(self._tops, one.row - self._below - self._tall, "right")
        last = np.searchsorted(self._tops, one.row + tall + self._below, "left")
        self._taken[first:last, max(0, one.column - self._gap) : one.column + wide + self._gap] = True

    def fill(self, way: Draw, order: np.ndarray) -> list[_Laid]:
        """Return a text wherever it fits."""
        stamp = way(self._height, self._pitch)
        tall, wide = stamp.ink.shape
        count = math.ceil((tall + self._below) / self._pitch)  # lines that it takes
        starts = np.flatnonzero(self._tops + tall < self._above.shape[0])
        starts = starts[starts <= len(self._numbers) - count]
        if wide > self._above.shape[1] or not starts.size:
            return []
        between = self._above[self._tops[starts] + tall] - self._above[self._tops[starts]]
        band: np.ndarray = between == tall
        for line in range(count):
            band &= ~self._taken[starts + line]
        fits = _windows(band, wide)
        laid: list[_Laid] = []
        lines = np.flatnonzero(fits.any(axis=1))
        for at in lines[np.lexsort((lines, self._numbers[starts[lines]] % count != 0))]:
            line, room = int(starts[at]), fits[at]
            if count > 1 and laid:  # lines that texts of this very round have taken
                open_ = ~self._taken[line : line + count].max(axis=0, keepdims=True)
                room = room & _windows(open_, wide)[0]
            number = int(self._numbers[line])
            for column in self._columns_of(room, wide, number // count):
                rank = order[number % _RANKS * _RANKS + column // (wide + self._gap) % _RANKS]
                laid.append(_Laid(stamp, int(self._tops[line]), column, int(rank)))
                if count > 1:
                    self.take(laid[-1])
        return laid

    def _columns_of(self, room: np.ndarray, wide: int, number: int) -> list[int]:
        """Return where words begin in a line, of which ``room`` (bool) says where they may."""
        pitch = wide + self._gap + round(self._style.spread * wide)
        shift = round((self._placement.word + 0.5 * (number % 2)) * pitch) % pitch  # as bricks lie
        found = shift + pitch * np.flatnonzero(room[shift::pitch])
        rest = room.copy()
        for column in found:
            rest[max(0, column - pitch + 1) : column + pitch] = False
        ends = np.flatnonzero(rest[1:] != rest[:-1]) + 1
        edges = [*([0] if rest[0] else []), *ends.tolist(), *([len(rest)] if rest[-1] else [])]
        columns = found.tolist()
        for begin, end in zip(edges[::2], edges[1::2], strict=True):  # the middle of each gap
            more = (end - 1 - begin) // pitch
            first = (begin + end - 1 - more * pitch) // 2
            new = [first + index * pitch for index in range(more + 1)]
            columns += [one for one in new if all(abs(one - other) >= pitch for other in columns)]
        return columns


def _windows(band: np.ndarray, wide: int) -> np.ndarray:
    """Return (L, W - wide + 1) bool: whether the ``wide`` columns from each on are all set in ``band`` (L, W) bool."""
    before = np.zeros((band.shape[0], band.shape[1] + 1), np.int32)
    np.cumsum(band.astype(np.int32), axis=1, out=before[:, 1:])
    result: np.ndarray = before[:, wide:] - before[:, :-wide] == wide
    return result


def _drawn(laid: Sequence[_Laid], shape: tuple[int, int], most: int, plain: int) -> Lettering:
    """Return the words that come first, as many as ``most`` pixels allow, the first ``plain`` of them plain."""
    lettering = Lettering.none(shape)
    words, outline = lettering.words, lettering.outline.copy()
    covered = number = 0
    for one in laid:
        if covered + one.stamp.size > most:
            continue
        covered, number = covered + one.stamp.size, number + 1
        tall, wide = one.stamp.ink.shape
        box = np.s_[one.row : one.row + tall, one.column : one.column + wide]
        words[box][one.stamp.ink | one.stamp.rim] = number
        outline[box] |= one.stamp.rim
    return Lettering(words > 0, words, outline, (words > 0) & (words <= plain))
