"""What a texture below the threshold of visibility becomes, so that the eye sees no more of many pixels than of one.

The eye adds up what neighbouring pixels do, the more so where they make a stripe or a blot. So of each width and
direction there may be so much in a place and no more (``gateway.mark.visibility.bands``). Where one stored value is a
coarse step (8 bits), a share of the pixels changes by a whole one and the others not at all, spread as evenly as can
be: the mean of the change is kept, and what rounding adds is as fine as the picture allows.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from gateway.mark.visibility.bands import evened, together
from gateway.mark.visibility.region import luminance
from gateway.mark.visibility.threshold import BASE, SINGLE

EVEN = 0.5
"""Largest root mean square of a wave of any width and direction, in thresholds of a single pixel."""
ROUNDED = 0.55
"""The same of all octaves together once pixels have whole steps; where there is more, there are fewer steps."""
ROUNDS = 3
"""Times that steps are taken away again, at most."""
TILE = 64
"""Side in pixels of the pattern by which steps are spread."""
APART = 1.5
"""Standard deviation in pixels of the neighbourhood in which steps keep apart."""
COARSE = 0.3
"""A stored value is a coarse step where it is more than this share of the amplitude."""


@cache
def spread() -> np.ndarray:
    """Return (TILE, TILE) float32 of 0..1: of any share of pixels with the least values none lie close together.

    Each place is the one farthest from all before it (after Ulichney 1993, void and cluster): no lines and no squares,
    as a regular pattern has them.
    """
    away = np.minimum(np.arange(TILE), TILE - np.arange(TILE))
    near = np.exp(-(away[:, None] ** 2 + away[None, :] ** 2) / (2.0 * APART**2))
    near = np.tile(near, (2, 2))
    taken = np.random.default_rng(0).uniform(0.0, 1e-3, (TILE, TILE))  # of equal places one is taken by lot
    order = np.empty(TILE**2, np.float32)
    for number in range(TILE**2):
        place = int(taken.argmin())
        row, column = divmod(place, TILE)
        order[place] = number
        taken += near[TILE - row : 2 * TILE - row, TILE - column : 2 * TILE - column]
        taken[row, column] = np.inf
    return ((order + np.float32(0.5)) / np.float32(TILE**2)).reshape(TILE, TILE)


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
    planes = (slice(None), slice(None), *([None] * (change.ndim - 2)))
    open_ = amplitude > 0
    hides = _tensor(amplitude)
    gray = luminance(change)
    evener = _thresholds(evened(_tensor(gray), hides, EVEN)) * np.float32(BASE)
    # a colour keeps its hue: what its luminance loses all of its channels lose
    calm = np.where(open_[planes], change + (evener - gray)[planes], np.float32(0.0))
    calm = np.clip(calm, -amplitude[planes], amplitude[planes])
    if unit is None or unit > SINGLE or not (unit > COARSE * amplitude[open_]).any():
        return calm
    steps = _steps(calm, unit)
    for _ in range(ROUNDS):
        seen = _thresholds(together(_tensor(luminance(steps)), hides))
        if float(seen.max()) <= ROUNDED:
            break
        fewer = np.minimum(np.float32(1.0), (np.float32(ROUNDED) / np.maximum(seen, np.float32(1e-6))) ** 2)
        calm = calm * fewer[planes]
        steps = _steps(calm, unit)
    return steps


def _steps(change: np.ndarray, unit: float) -> np.ndarray:
    """Return a change in whole steps, more of them where there is more of it, float32."""
    height, width = change.shape[:2]
    side = TILE
    bar = np.tile(spread(), (-(-height // side), -(-width // side)))[:height, :width]
    bar = bar.reshape(height, width, *([1] * (change.ndim - 2)))
    found: np.ndarray = np.sign(change) * np.floor(np.abs(change) / np.float32(unit) + bar) * np.float32(unit)
    return found


def _tensor(plane: np.ndarray) -> torch.Tensor:
    """Return a plane in display units as (1, 1, H, W) thresholds of flat ground."""
    return torch.from_numpy(np.asarray(plane, np.float32) * np.float32(1.0 / BASE))[None, None]


def _thresholds(plane: torch.Tensor) -> np.ndarray:
    found: np.ndarray = plane[0, 0].numpy()
    return found
