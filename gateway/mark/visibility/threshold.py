"""The masked threshold of visibility: how much each pixel may change before a reader could tell.

Only noise may hide a change, never structure: at an edge, along a vessel or around a speck a texture draws combs and
beads, which pass for findings. So noise is estimated in the direction in which there is least of anything: second
differences along eight directions; along an edge they see nothing of it. And where the picture rises more than its
noise explains (edges, rims, vessels, specks), nothing is masked at all.

How much noise hides follows Daly's model of masking (1993): thresholds rise with the 0.7th power of the contrast.
"""

from __future__ import annotations

import numpy as np

from gateway.mark.visibility.filters import gaussian, gradient, largest, least, windows
from gateway.mark.visibility.region import luminance

JND = 1.0 / 582.0
"""One just noticeable difference in display units: about 1/582 of the display range for 1 to 350 cd/m2 (PS3.14)."""
BASE = 2.0 * JND
"""Threshold where nothing masks: a texture of single pixels is seen less well than the standard's target (2 degrees of
4 cycles per degree), of which 1 JND can just be seen."""
MASKED = 1.05 * JND
"""The same in the model of masking, which adds noise to it."""
SINGLE = 2.5 * JND
"""A pixel may change by one stored value where that is no more than this (one of 255 gray levels is 2.3 JND): it is the
least step that there is, and what is planned to be less becomes rarer instead."""
SLOPE = 0.7
"""Power of the noise's contrast by which thresholds rise."""
DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1))
WINDOW = 9
"""Side in pixels of the window that noise is averaged over."""
LEAST_OF_EIGHT = 1.15
"""The least of eight estimates of one white noise is that much too small over such windows."""
EDGE_SCALE = 1.5
"""Standard deviation in pixels at which the picture's gradients are taken."""
EDGE_NOISE = 11.3
"""White noise over the gradient that it makes at that scale (the square root of 8 pi, times the scale squared)."""
SIGMAS, FAINT = 5.0, 0.003
"""A gradient is structure from so many standard deviations of that on, and this much (display units per pixel) more;
at twice that nothing is masked any more."""
REACH = 5
"""Side in pixels of the window in which structure counts for a pixel."""


def visibility_threshold(display: np.ndarray, factor: float) -> np.ndarray:
    """Return the (H, W) float32 masked threshold in display units, at least ``BASE``.

    Parameters
    ----------
    display
        (H, W) or (H, W, 3) float32, 0 black and 1 white.
    factor
        k of the profile: how much of the noise counts.
    """
    gray = luminance(display)
    noise = least(noise_of(gray), 3)
    contrast = noise * (np.float32(1.0) - structure_of(gray, noise)) * np.float32(factor / JND)
    contrast *= contrast
    contrast *= contrast
    contrast += np.float32(1.0)
    masked = np.power(contrast, np.float32(SLOPE / 4.0), out=contrast)
    masked *= np.float32(MASKED)
    return np.maximum(np.float32(BASE), masked, out=masked)


def step_limit(threshold: np.ndarray, step: float | None) -> np.ndarray:
    """Return the (H, W) float32 largest change of a pixel outside strokes, display units.

    Parameters
    ----------
    threshold
        (H, W) float32, from ``visibility_threshold``.
    step
        one stored value in display units; None: they are of all sizes.
    """
    return threshold if step is None or step > SINGLE else np.maximum(threshold, np.float32(step))


def noise_of(gray: np.ndarray) -> np.ndarray:
    """Return the (H, W) float32 standard deviation of the noise in a (H, W) image, whatever structure it lies on."""
    reach = max(max(abs(row), abs(column)) for row, column in DIRECTIONS)
    height, width = gray.shape
    wide = np.pad(gray.astype(np.float32), reach, mode="reflect")
    step = width + 2 * reach
    row, first, length = wide.ravel(), reach * step + reach, height * step - 2 * reach
    middle = row[first : first + length] * np.float32(2.0)
    # planes as one row of numbers: what lies between the lines is left out where they are cut apart again
    difference = np.empty(height * step, np.float32)
    lowest = None
    for down, across in DIRECTIONS:
        away = down * step + across
        part = difference[:length]
        np.subtract(middle, row[first + away : first + away + length], out=part)
        np.subtract(part, row[first - away : first - away + length], out=part)
        np.multiply(part, part, out=part)
        found = windows(difference.reshape(height, step)[:, :width], WINDOW, np.add)
        lowest = found if lowest is None else np.minimum(lowest, found, out=lowest)
    assert lowest is not None
    return np.sqrt(lowest) * np.float32(LEAST_OF_EIGHT / np.sqrt(6.0 * WINDOW**2))


def structure_of(gray: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return (H, W) float32: 1 where a (H, W) image rises more than its (H, W) noise explains, 0 where it does not."""
    explained = gaussian(noise, 2.0 * EDGE_SCALE) * np.float32(SIGMAS / EDGE_NOISE) + np.float32(FAINT)
    rises = largest(gradient(gray, EDGE_SCALE) / explained, REACH)
    return np.clip(rises - np.float32(1.0), np.float32(0.0), np.float32(1.0))
