"""Whole words in regular lines: inside the free area or not at all, alike in neighbouring slices."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from gateway.mark.placement.letters import least_height
from gateway.mark.placement.stamps import Stamp, text_stamp
from gateway.mark.placement.words import IN_AIR, ON_ANATOMY, Draw, Lettering, Style, lay_words, place, ways_of
from tests.support.mark.samples import KEY, OTHER_KEY, word

TEXT = "COPY - NOT FOR DIAGNOSIS"
STYLES = {"air": IN_AIR, "anatomy": ON_ANATOMY}


def wanted(style: Style, heights: tuple[int, ...] = (28, 20, 14)) -> list[tuple[int, Draw]]:
    """Return the text in all its ways at all heights, then the short word."""

    def draw(lines: tuple[str, ...]) -> Draw:
        return lambda height, pitch: text_stamp(lines, height, pitch, rimmed=style.rimmed)

    found = [(height, draw(lines)) for height in heights for lines in ways_of(TEXT)]
    return found + [(height, draw(("COPY",))) for height in heights]


def beside(shift: float = 0.0, side: int = 512) -> np.ndarray:
    """Return what lies beside an ellipse (a head) that ``shift`` makes larger."""
    rows, columns = np.mgrid[:side, :side] / side - 0.5
    return (rows / (0.45 + shift)) ** 2 + (columns / (0.37 + shift)) ** 2 > 1.0


def rough(seed: int, side: int = 256) -> np.ndarray:
    """Return a free area with a ragged edge and holes."""
    noise = np.random.default_rng(seed).standard_normal((side, side))
    return ndimage.gaussian_filter(noise, side / 16) > -0.01


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize("seed", range(4))
def test_every_word_is_whole_and_inside(style: Style, seed: int) -> None:
    free = rough(seed)
    heights = (14, 10, 8)
    found = lay_words(free, wanted(style, heights), KEY, place(KEY, 3.0 * seed), style, 10**6)
    assert found.strokes.any() and not (found.strokes & ~free).any()
    shapes = [stamp for height, draw in wanted(style, heights) for stamp in every_pitch(draw, height)]
    for number in range(1, int(found.words.max()) + 1):
        here = found.words == number
        rows, columns = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
        cut = here[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert any(np.array_equal(cut, shape) for shape in shapes), number


def every_pitch(draw: Draw, height: int) -> list[np.ndarray]:
    """Return the trimmed strokes of a text at all distances of lines that a style may have."""
    found = []
    for pitch in range(height, 3 * height):
        stamp = draw(height, pitch)
        strokes = stamp.ink | stamp.rim
        rows, columns = np.flatnonzero(strokes.any(axis=1)), np.flatnonzero(strokes.any(axis=0))
        found.append(strokes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return found


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
def test_neighbouring_slices_agree_and_far_ones_differ(style: Style) -> None:
    """The free area changes a little from slice to slice, as anatomy does, and the lines with the position."""

    def strokes(position: float, key: bytes = KEY) -> np.ndarray:
        free = beside(position / 4000.0) if style is IN_AIR else ~beside(position / 4000.0)
        return lay_words(free, wanted(style), key, place(key, position), style, 10**6).strokes

    assert np.array_equal(strokes(4.0), strokes(4.0))
    near = np.mean([overlap(strokes(z), strokes(z + 1.0)) for z in range(0, 40, 5)])
    far = np.mean([overlap(strokes(z), strokes(z + 25.0)) for z in range(0, 40, 5)])
    assert near > 0.5 > 0.35 > far
    assert overlap(strokes(0.0), strokes(0.0, OTHER_KEY)) < 0.4


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return float((first & second).sum() / (first | second).sum())


def test_lines_are_regular() -> None:
    """In an empty area words begin at the same distance from each other, in lines of one pitch, as bricks lie."""
    found = lay_words(np.ones((512, 512), bool), [(20, word)], KEY, place(KEY, 0.0), ON_ANATOMY, 10**6)
    boxes = ndimage.find_objects(found.words)
    tops = np.unique([box[0].start for box in boxes])
    assert len(tops) > 5 and np.ptp(np.diff(tops)) <= 1
    for top in tops:
        lefts = np.sort([box[1].start for box in boxes if box[0].start == top])
        assert len(lefts) >= 2 and np.diff(lefts).min() > 1.6 * word(20, 0).ink.shape[1]


def test_the_text_is_broken_between_words_and_rather_at_a_sign() -> None:
    assert ways_of("  COPY -  NOT FOR DIAGNOSIS") == (
        (TEXT,),
        ("COPY", "NOT FOR DIAGNOSIS"),
        ("COPY", "NOT FOR", "DIAGNOSIS"),
        ("COPY", "NOT", "FOR", "DIAGNOSIS"),
    )
    assert ways_of("COPY") == (("COPY",),)
    assert ways_of("a - - b") == (("a - - b",), ("a", "b"))
    assert all(
        [one for line in lines for one in line.split()] == ["one", "two", "three", "four"]
        for lines in ways_of("one two three four")
    )
    assert len(ways_of(" ".join("abcdefghijklmnop"))) == 16


def test_smaller_letters_and_shorter_words_follow_where_larger_ones_do_not_fit() -> None:
    narrow = np.zeros((512, 512), bool)
    narrow[:, 10:80] = True  # the text does not fit; COPY does, with letters of 14
    found = lay_words(narrow, wanted(IN_AIR), KEY, place(KEY, 0.0), IN_AIR, 10**6)
    widths = {box[1].stop - box[1].start for box in ndimage.find_objects(found.words)}
    assert found.words.max() > 5 and widths == {text_stamp(("COPY",), 14, 0).ink.shape[1]}
    narrow[:, 59:] = False  # nothing fits: nothing is written
    assert not lay_words(narrow, wanted(IN_AIR), KEY, place(KEY, 0.0), IN_AIR, 10**6).strokes.any()


@pytest.mark.parametrize("most", [0, 900, 4000])
def test_strokes_keep_their_limit_by_whole_words(most: int) -> None:
    found = lay_words(np.ones((256, 256), bool), [(14, word)], KEY, place(KEY, 0.0), ON_ANATOMY, most)
    assert found.strokes.sum() == int(found.words.max()) * word(14, 0).size <= most
    assert most - found.strokes.sum() < word(14, 0).size


@pytest.mark.parametrize("height", [8, 10, 14, 28, 57])
def test_capitals_are_as_high_as_they_are_said_to_be(height: int) -> None:
    for one in "HIMX":
        ink = text_stamp((one,), height, 0).ink
        tall = int(ink.any(axis=1).sum())
        assert height <= tall <= 1.15 * height + 1
    assert least_height((512, 600)) == 14 and least_height((256, 256)) == 8 and least_height((2048, 2500)) == 56


def test_a_rim_surrounds_the_ink() -> None:
    stamp: Stamp = word(20, 0)
    assert not (stamp.ink & stamp.rim).any()
    assert not (ndimage.binary_dilation(stamp.ink) & ~stamp.ink & ~stamp.rim).any()
    assert not stamp.ink[0].any() and not stamp.ink[:, -1].any()


def test_a_word_is_brighter_than_dark_ground_and_its_rim_darker() -> None:
    free = np.ones((64, 128), bool)
    found = lay_words(free, [(20, word)], KEY, place(KEY, 0.0), ON_ANATOMY, 10**6)
    ink = found.strokes & ~found.outline
    for level, sign in ((0.2, 1.0), (0.8, -1.0)):
        polarity = found.polarity(np.full(free.shape, level, np.float32))
        assert (polarity[ink] == sign).all() and (polarity[found.outline] == -sign).all()
        assert not polarity[~found.strokes].any()


def test_a_slice_takes_no_longer_than_two_fourier_transforms_of_it() -> None:
    """Of a processor's time, side by side, after the first, whose stamps are drawn; the best of several of each."""
    free, everything = beside(), wanted(IN_AIR)
    gray = np.random.default_rng(0).random(free.shape)
    laid, transformed = [], []
    for position in range(12):
        began = time.process_time()
        found: Lettering = lay_words(free, everything, KEY, place(KEY, float(position)), IN_AIR, 10**6)
        laid.append(time.process_time() - began)
        began = time.process_time()
        np.fft.fft2(gray)
        transformed.append(time.process_time() - began)
    assert found.strokes.any() and min(laid) <= 2 * min(transformed)


def test_no_word_lies_across_a_border_of_tissues_where_there_is_other_ground() -> None:
    gray = np.full((256, 256), 0.2, np.float32)
    gray[:, 128:] = 0.9
    free = np.ones(gray.shape, bool)
    heights = wanted(ON_ANATOMY, (20, 14))

    def across(gray: np.ndarray, free: np.ndarray) -> int:
        found = lay_words(free, heights, KEY, place(KEY, 0.0), ON_ANATOMY, 10**6, gray=gray)
        columns = [np.flatnonzero((found.words == one).any(axis=0)) for one in range(1, int(found.words.max()) + 1)]
        assert columns
        return sum(bool(one.min() < 128 <= one.max()) for one in columns)

    assert across(np.full_like(gray, 0.2), free) > 0  # it would lie there
    assert across(gray, free) == 0
    free[:, :90], free[:, 166:] = False, False
    assert across(gray, free) > 0  # no other ground
