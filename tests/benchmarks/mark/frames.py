"""One image with the region, the limits and the energy that every method gets, so that columns can be compared.

The reference is the ``strong`` mark of the same tier. Every other method changes the same pixels only (its strokes and
what lies outside them), keeps the same masked threshold outside strokes and is made as quiet there (``quiet``: what the
eye adds up), and is scaled by bisection, after rounding to stored values and cutting to the valid range, to the largest
change whose display PSNR is not below the reference's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gateway.mark import MarkRequest, ModalityProfile
from gateway.mark.settings import TEXTURE_FLOOR
from gateway.mark.visibility.budget import psnr
from gateway.mark.visibility.quiet import quiet
from gateway.mark.visibility.threshold import step_limit, visibility_threshold
from tests.benchmarks.mark.data import shown

LEVELS = 255.0
"""Stored values per display unit: the five sets are 8 bit and shown in full."""
OUTSIDE_FLOOR = TEXTURE_FLOOR
"""Display PSNR in dB that what lies outside strokes keeps by itself."""


@dataclass(frozen=True)
class Frame:
    """One image and its reference mark.

    Attributes
    ----------
    original
        uint8 (H, W[, 3]).
    reference
        uint8, the reference mark's stored values.
    strokes
        bool (H, W), the reference's.
    region
        bool (H, W), the reference's.
    profile
        for peak and noise factor.
    """

    original: np.ndarray
    reference: np.ndarray
    strokes: np.ndarray
    region: np.ndarray
    profile: ModalityProfile

    @cached_property
    def threshold(self) -> np.ndarray:
        """(H, W) float32 largest invisible change of a pixel, display units."""
        return step_limit(visibility_threshold(shown(self.original), self.profile.noise_factor), 1.0 / LEVELS)

    @property
    def request(self) -> MarkRequest:
        """A request with the reference's region of interest left out; for helpers that need the window only."""
        return MarkRequest(self.original, bytes(32))

    @cached_property
    def psnr(self) -> float:
        """Display PSNR of the reference in dB: the energy that every method spends."""
        return psnr(shown(self.original), shown(self.reference))

    @cached_property
    def envelope(self) -> np.ndarray:
        """(H, W) float32: largest change per pixel that attacks with a per-pixel limit get, before scaling.

        Inside strokes the reference's own root mean square; outside the masked threshold, at most the profile's peak,
        as a whole above ``OUTSIDE_FLOOR``.
        """
        outside = np.where(self.region & ~self.strokes, np.minimum(self.threshold, self.profile.peak), 0.0)
        energy = float(np.mean(outside**2))
        if energy > 0.0:
            outside = outside * min(1.0, float(np.sqrt(10.0 ** (-OUTSIDE_FLOOR / 10.0) / energy)))
        if not self.strokes.any():
            return outside.astype(np.float32)
        change = (shown(self.reference) - shown(self.original))[self.strokes]
        return np.where(self.strokes, float(np.sqrt(np.mean(change**2))), outside).astype(np.float32)

    def apply(self, change: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
        """Return uint8 stored values with a change (display units, shape of the image) rounded and cut to the limits.

        Parameters
        ----------
        change
            float.
        inside
            bool (H, W), pixels that count as strokes; None: the reference's strokes.
        """
        strokes = self.strokes if inside is None else inside
        planes = (slice(None), slice(None), *([None] * (self.original.ndim - 2)))
        hides = np.where(self.region & ~strokes, np.minimum(self.threshold, self.profile.peak), 0.0).astype(np.float32)
        below = np.clip(np.where(strokes[planes], 0.0, change), -hides[planes], hides[planes]).astype(np.float32)
        exact = np.where(strokes[planes], change, quiet(below, hides, 1.0 / LEVELS)) * LEVELS
        # changes of less than a level become rarer instead of none at all, as they do in the reference
        rounded = np.random.default_rng(0).random(strokes.shape)[planes]
        whole = np.copysign(np.floor(np.abs(exact) + rounded), exact)
        limit = np.where(strokes, LEVELS, np.floor(self.threshold * LEVELS + 1e-4))[planes]
        whole = np.where(self.region[planes], np.clip(whole, -limit, limit), 0.0)
        return np.clip(self.original + whole, 0.0, LEVELS).astype(np.uint8)

    def fit(self, change: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
        """Return ``apply`` of the change at the largest scale that does not fall below the reference's PSNR.

        Where limits cut the change before the energy is spent, the rest stays unspent (the report shows the gap).
        """
        before = shown(self.original)

        def keeps(scale: float) -> bool:
            return psnr(before, shown(self.apply(change * scale, inside))) >= self.psnr

        low, high = 0.0, 1.0
        while keeps(high) and high < 64.0:
            low, high = high, 2.0 * high
        for _ in range(14):
            middle = (low + high) / 2.0
            low, high = (middle, high) if keeps(middle) else (low, middle)
        return self.apply(change * low, inside)
