"""What a texture below the threshold of visibility becomes, so that the eye sees no more of many pixels than of one.

The eye adds up what neighbouring pixels do. So over a neighbourhood the root mean square of a change is at most a share
of its amplitude. Where one stored value is a coarse step (8 bits), the pixels that matter most change by a whole one
and the others not at all: spread thinly, and none of the energy goes into rounding.
"""

from __future__ import annotations

import numpy as np

from gateway.mark.visibility.filters import gaussian
from gateway.mark.visibility.threshold import SINGLE

CALM = 0.65
"""Root mean square of a change over a neighbourhood, as a share of that of its amplitude, at most."""
REACH = 2.0
"""Standard deviation of that neighbourhood in pixels."""
TILE = 16
"""Side in pixels of the squares in each of which whole steps are dealt out."""
ALIKE = 0.5
"""A colour changes with the strongest of its pixel where its change is at least this share of that."""
COARSE = 0.3
"""A stored value is a coarse step where it is more than this share of the amplitude."""


def _dispersed(side: int) -> np.ndarray:
    """Return a (side, side) float32 matrix of 0..1 in which values that are near lie far apart (Bayer 1973)."""
    order = np.zeros((1, 1))
    while len(order) < side:
        order = np.block([[4 * order, 4 * order + 2], [4 * order + 3, 4 * order + 1]])
    return (order / order.size).astype(np.float32)


_DISPERSED = np.float32(0.25) * _dispersed(TILE)
"""By how much, in amplitudes, a pixel goes before others in its tile, so that steps keep apart."""


def quiet(change: np.ndarray, amplitude: np.ndarray, unit: float | None) -> np.ndarray:
    """Return a change outside strokes, made quiet enough, float32.

    Parameters
    ----------
    change
        (H, W) or (H, W, 3) float32, display units; nowhere more than ``amplitude``.
    amplitude
        (H, W) float32, the largest change of a pixel, display units; 0 where there is none.
    unit
        one stored value in display units; None: they are of all sizes.
    """
    if not amplitude.any():
        return change
    coarse = np.zeros(amplitude.shape, bool)
    if unit is not None and unit <= SINGLE:
        coarse = (amplitude > 0) & (unit > COARSE * amplitude)
    planes = (slice(None), slice(None), *([None] * (change.ndim - 2)))
    steps = np.zeros_like(change)
    if unit is not None and coarse.any():
        strongest = np.abs(change) if change.ndim == 2 else np.abs(change).max(axis=2)
        chosen = _dealt(strongest, np.where(coarse, amplitude, np.float32(0.0)), unit)[planes]
        takes_part = chosen & (np.abs(change) >= ALIKE * strongest[planes])
        steps = np.where(takes_part, np.sign(change) * np.float32(unit), np.float32(0.0))
        if np.array_equal(coarse, amplitude > 0):
            return steps
    square = change**2 if change.ndim == 2 else (change**2).mean(axis=2)
    found, most = (gaussian(plane, REACH) for plane in (square, amplitude * amplitude))
    share = np.minimum(np.float32(1.0), np.float32(CALM) * np.sqrt(most / np.maximum(found, np.float32(1e-12))))
    result = change * share[planes]
    np.copyto(result, steps, where=coarse[planes])
    return result


def _dealt(strength: np.ndarray, amplitude: np.ndarray, unit: float) -> np.ndarray:
    """Return (H, W) bool: the pixels that change by a whole step, in each tile as many as its energy allows.

    Parameters
    ----------
    strength
        (H, W) float32, the size of the change that is wanted; the strongest come first.
    amplitude
        as ``quiet``; 0 where no whole steps are dealt out.
    unit
        display units.
    """
    height, width = strength.shape
    below, right = -height % TILE, -width % TILE

    def tiles(plane: np.ndarray) -> np.ndarray:
        padded = np.pad(plane, ((0, below), (0, right)))
        cut = padded.reshape(padded.shape[0] // TILE, TILE, -1, TILE).swapaxes(1, 2)
        return cut.reshape(-1, TILE * TILE)

    apart = np.tile(_DISPERSED, ((height + below) // TILE, (width + right) // TILE))[:height, :width]
    wanted, allowed = tiles(strength + amplitude * apart), tiles(np.minimum(1.0, (CALM * amplitude / unit) ** 2))
    open_ = (allowed > 0) & tiles(strength > 0)
    wanted = np.where(open_, wanted, np.float32(0.0))  # what is open wants more than 0
    count = np.rint(allowed.sum(axis=1)).astype(int)
    ordered = np.sort(wanted, axis=1)  # the largest last; of equal ones either all come or none
    bar = np.take_along_axis(ordered, (TILE * TILE - 1 - np.minimum(count, TILE * TILE - 1))[:, None], axis=1)
    chosen = open_ & ((wanted > bar) | (count >= TILE * TILE)[:, None])
    whole = chosen.reshape((height + below) // TILE, (width + right) // TILE, TILE, TILE).swapaxes(1, 2)
    result: np.ndarray = whole.reshape(height + below, width + right)[:height, :width]
    return result
