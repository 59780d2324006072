"""Zones of an image: air, where letters do no harm, and anatomy, where they would lie on what is read.

Air is background that is connected to the border of the picture, and margins that a collimator or a program left
there. Whatever else the picture holds is anatomy, in doubt too: gas inside the body (its openings are narrow, and gaps
that narrow are closed), limbs, tubes, side markers, burned-in text, what is faint or uneven. Between the two a few
pixels belong to neither.

All of it is found on a grid of blocks, the longest side at most ``GRID`` of them, of which one bright pixel counts, so
that nothing small is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.filters import gaussian, grow, grow_steps, largest, least

GRID = 256
"""Longest side of the grid, in blocks."""
OFF = 1.0 / 64.0
"""Distance of air from what is anatomy, as a share of the shorter side; at least ``LEAST_OFF`` pixels."""
LEAST_OFF = 3.0
RING = 3
"""Blocks along the border of the picture (and of padding) in which the level of air is looked for."""
DARKEST = 0.05
"""Share of that ring which is enough to show what the darkest level is."""
LEAST_RISE, MOST_RISE, SIGMAS = 0.012, 0.05, 4.0
"""A block is no air where its smoothed value lies this much above the level (display units), in standard deviations of
the smoothed noise, within these limits ..."""
LEAST_PEAK, PEAK_SIGMAS = 0.08, 6.5
"""... or where one of its pixels does."""
LEAST_SPECK = 12
"""Blocks of faint rise that are more than noise; a block that one bright pixel marks is never dropped."""
LEAST_AIR = 0.004
"""Share of the picture below which a piece of air is none: no word fits into it."""
LEAST_NOISE = 0.1
"""Share of what is dark that shows noise, from which on that is the level of air."""
LOWEST = 0.01
"""Share of the pixels that may be darker than what counts as the lowest value, or brighter than the highest."""
NEVER = -1.0
"""Level that nothing is as dark as."""
LEAST_PICTURE = 0.02
"""Share of the image from which on something in an ultrasound is the picture, and no text or scale."""
FLAT = 1.5 / 255.0
"""Two values that are nearer than this are one."""
BLACK = 3.0 / 255.0
"""What is no brighter over whole rows or columns is a margin."""
LEAST_MARGIN = 0.02
"""Share of the side that a margin of one value takes at least, to be told from a line of the picture."""


@dataclass(frozen=True)
class Zones:
    """Parts of one image, bool (H, W); what is in none of them (padding, a gap between air and body) is never touched.

    Attributes
    ----------
    air
        background and margins, a few pixels off all else.
    anatomy
        the body and whatever stands in the air, the region of interest included.
    region
        the region of interest, inside ``anatomy``.
    """

    air: np.ndarray
    anatomy: np.ndarray
    region: np.ndarray

    @property
    def free(self) -> np.ndarray:
        """(H, W) bool: anatomy outside the region of interest."""
        return self.anatomy & ~self.region


def find_zones(
    display: np.ndarray,
    padding: np.ndarray,
    profile: ModalityProfile,
    hidden: np.ndarray | None = None,
    region: np.ndarray | None = None,
    units: np.ndarray | None = None,
) -> Zones:
    """Return the zones of an image.

    Parameters
    ----------
    display
        (H, W) or (H, W, 3) float32, the primary window, 0 black and 1 white; not cut to it (``DisplayMap.raw``), since
        what lies beyond tells air from what is only shown black (lung in a window of soft tissue).
    padding
        (H, W) bool, no part of the picture.
    profile
        says how dark and how even air is and how wide the openings of the body are.
    hidden
        (H, W) bool, what a shutter covers; or None.
    region
        (H, W) bool, the region of interest, as it is to stay; None: none is known yet.
    units
        (H, W) float32, modality values; None: not known, and then a profile that says what air is in them finds margins
        alone.
    """
    skipped = padding if hidden is None else padding | hidden
    kept = np.zeros(padding.shape, bool) if region is None else region & ~skipped
    air, body = np.zeros(padding.shape, bool), ~skipped
    if profile.air_level > 0.0 and not skipped.all():
        bright = display if display.ndim == 2 else display.max(axis=2)
        level = profile.air_level
        if profile.air_units is not None:
            bright, level = _in_units(bright if units is None else units, skipped, *profile.air_units)
            level = level if units is not None else NEVER
        air, body = find_air(_deep(bright, skipped), skipped, kept, profile, level)
    return Zones(air, body | kept, kept)


def find_air(
    bright: np.ndarray, skipped: np.ndarray, kept: np.ndarray, profile: ModalityProfile, highest_level: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (H, W) bool air and body.

    Parameters
    ----------
    bright
        (H, W) float32 in 0..1.
    skipped
        (H, W) bool, no part of the picture.
    kept
        (H, W) bool, body whatever it looks like.
    profile
        as in ``find_zones``.
    highest_level
        the most that air may have of ``bright``.

    The level of air is the darkest that takes up a share of the border. Air are the blocks that lie no higher than its
    noise explains, hold no bright pixel and are not closed in by others nearer to each other than twice
    ``profile.air_gap``; the picture is mirrored at its border for that, since what it cuts off goes on there.
    """
    factor = -(-max(skipped.shape) // GRID)
    off = max(LEAST_OFF, OFF * min(skipped.shape)) / factor
    off = off if factor == 1 else np.ceil(off) + 1.0  # between the nearest pixels of two blocks
    out = blocks(skipped, factor, np.logical_or)
    highest, mean = blocks(bright, factor, np.maximum), blocks(bright, factor, np.add) / np.float32(factor**2)
    smooth = gaussian(mean, 1.0)
    content = _content(highest, mean, smooth, out, highest_level, profile.air_shadows)
    margins = blocks(margins_of(bright, skipped, 0.0 if profile.air_shadows else BLACK), factor, np.logical_and)
    if content is None:
        content = ~margins
    elif profile.air_shadows:
        content |= _below(content)
    content = (content & ~margins) | (blocks(kept, factor, np.logical_or) & ~out)
    if not content.any():  # nothing stands out: whether that is air is not for the border to say
        return np.zeros_like(skipped), ~skipped
    reach = max(1.0, profile.air_gap * min(out.shape))
    # the border of the picture, of padding and of a shutter alike
    edge = grow_steps(np.pad(out, 1, constant_values=True), 1 + round(off))[1:-1, 1:-1]
    body = closed(~_reached(~(content | out), edge) & ~out, reach) & ~out
    free = ~(body | out) | margins
    free &= ~grow(content, off)
    free &= ~grow(body, min(off, 1.0)) | margins
    air, body = _reached(free & ~out, edge, LEAST_AIR * (~out).sum()), body & ~margins
    return _whole(air, factor, skipped), _whole(body & ~air, factor, skipped)


def _reached(free: np.ndarray, edge: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Return those pieces of ``free`` (h, w) bool that ``edge`` touches and that have at least ``least`` blocks."""
    labels, count = ndimage.label(free)
    good = np.bincount(labels[edge], minlength=count + 1) > 0
    good &= np.bincount(labels.ravel(), minlength=count + 1) >= least
    good[0] = False
    return np.asarray(good[labels])


def _whole(plane: np.ndarray, factor: int, skipped: np.ndarray) -> np.ndarray:
    """Return an (h, w) bool plane of blocks as (H, W) pixels, none of ``skipped`` (H, W) bool."""
    pixels = np.repeat(np.repeat(plane, factor, 0), factor, 1)
    return np.asarray(pixels[: skipped.shape[0], : skipped.shape[1]] & ~skipped)


def _deep(bright: np.ndarray, skipped: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 in 0..1: the display with its black moved down to what is there, where values go below."""
    if bright.min() >= 0.0:
        return np.minimum(bright, np.float32(1.0))
    lowest = min(0.0, float(np.quantile(bright[~skipped], LOWEST)))
    return np.asarray(np.clip((bright - lowest) / (1.0 - lowest), 0.0, 1.0), np.float32)


def _in_units(units: np.ndarray, skipped: np.ndarray, lowest: float, highest: float) -> tuple[np.ndarray, float]:
    """Return (H, W) float32 from 0 (``lowest``) to 1 (nearly the highest value), and what ``highest`` is there."""
    top = max(highest + 1.0, float(np.quantile(units[~skipped] if skipped.any() else units, 1.0 - LOWEST)))
    return np.asarray(np.clip((units - lowest) / (top - lowest), 0.0, 1.0), np.float32), (highest - lowest) / (
        top - lowest
    )


def _below(content: np.ndarray) -> np.ndarray:
    """Return the (h, w) bool blocks below (and of) what is large: an echo's shadow goes down to the end."""
    labels, count = ndimage.label(ndimage.binary_closing(content, np.ones((3, 3), bool), iterations=2))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    large = sizes >= LEAST_PICTURE * content.size
    large[0] = False
    return np.asarray(np.logical_or.accumulate(large[labels], axis=0))


def _content(
    highest: np.ndarray, mean: np.ndarray, smooth: np.ndarray, out: np.ndarray, most: float, even: bool
) -> np.ndarray | None:
    """Return the (h, w) bool blocks that are no air; None where the border shows no level of air."""
    ring = grow_steps(np.pad(out, 1, constant_values=True), RING)[1:-1, 1:-1] & ~out
    if not ring.any():
        return None
    level = float(np.quantile(smooth[ring], DARKEST))
    if level > most:
        return None
    dark = (smooth <= level + MOST_RISE) & ~out
    labels, _ = ndimage.label(dark)
    at_border = np.bincount(labels[ring & dark], minlength=labels.max() + 1) > 0
    dark &= at_border[labels]
    if even:
        level = _mode(smooth[dark])
        return (np.abs(highest - level) > FLAT) & ~out
    # beside noise, a program may have left ground without any: what is darker than the noise is air as well
    noisy = dark & (largest(mean, 3) - least(mean, 3) > FLAT)
    if noisy.sum() >= LEAST_NOISE * dark.sum():
        dark = noisy
    level = _mode(smooth[dark])
    if level > most:
        return None
    below = level - smooth[dark & (smooth <= level)]
    spread = 1.4826 * float(np.median(below)) if below.size else 0.0
    quiet = dark & (smooth <= level + max(LEAST_RISE, 2.0 * spread))
    peaks = highest[quiet] - level
    high = 1.4826 * float(np.median(np.abs(peaks - np.median(peaks)))) if peaks.size else 0.0
    faint = (smooth - level > np.clip(SIGMAS * spread, LEAST_RISE, MOST_RISE)) & ~out
    plain = (highest - level - float(np.median(peaks)) > max(LEAST_PEAK, PEAK_SIGMAS * high)) & ~out
    found, count = ndimage.label(faint | plain, np.ones((3, 3), bool))
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    keep = (sizes >= LEAST_SPECK) | (np.bincount(found[plain], minlength=count + 1) > 0)
    keep[0] = False
    return np.asarray(keep[found])


def _mode(values: np.ndarray) -> float:
    """Return the most frequent of (n,) values, by 64 bins."""
    counts, edges = np.histogram(values, bins=64)
    number = int(counts.argmax())
    return float(edges[number] + edges[number + 1]) / 2.0


def blocks(plane: np.ndarray, factor: int, join: np.ufunc) -> np.ndarray:
    """Return an (H, W) plane by blocks of ``factor`` pixels, joined: (ceil(H / factor), ceil(W / factor)).

    Edges are repeated for what is no whole block.
    """
    if factor == 1:
        return plane
    if plane.dtype == np.bool_ and not plane.any():
        return np.zeros([-(-side // factor) for side in plane.shape], bool)
    rows, columns = (-side % factor for side in plane.shape)
    if rows or columns:
        plane = np.pad(plane, ((0, rows), (0, columns)), mode="edge")
    for axis in (0, 1):
        part = [plane[number::factor] if axis == 0 else plane[:, number::factor] for number in range(factor)]
        plane = part[0]
        for other in part[1:]:
            plane = join(plane, other)
    return plane


def closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return a (h, w) bool mask with gaps up to twice ``radius`` (blocks) filled, as if mirrored at its edges."""
    width = min(int(np.ceil(radius)) + 1, min(mask.shape))
    wide = np.pad(mask, width, mode="symmetric")
    grown = grow(wide, radius)
    if grown.all():
        return np.ones_like(mask)
    shrunk = ~grow(~grown, radius)
    return np.asarray((shrunk | wide)[width:-width, width:-width])


def margins_of(plane: np.ndarray, skipped: np.ndarray, black: float) -> np.ndarray:
    """Return the (H, W) bool margins: rows and columns of one value each, from an edge of the picture on.

    Parameters
    ----------
    plane
        (H, W) float32, display values.
    skipped
        (H, W) bool, no part of the picture.
    black
        what is no brighter counts as one value.

    Where fewer than ``LEAST_MARGIN`` of the side are, or all of the picture is, there are none.
    """
    found = np.zeros(skipped.shape, bool)
    level = np.maximum(plane, black)
    for lines, margin in ((level, found), (level.T, found.T)):
        flat = (lines == lines[:, :1]).all(axis=1)
        for step in (1, -1):
            same = flat[::step] & (lines[::step, 0] == lines[::step, 0][0])
            count = len(same) if same.all() else int(same.argmin())
            if LEAST_MARGIN * len(flat) <= count < len(flat):
                margin[::step][:count] = True
    return found & ~skipped
