"""Whether a change can be seen: a second measure of visibility, other than the one by which marks are placed.

A small visible differences predictor after Daly (1993) and Watson's model of masking: both pictures in just noticeable
differences of a calibrated screen (DICOM PS3.14); bands of one octave and four orientations (log-Gabor filters); in
each the difference, weighted by how well the eye sees that frequency (Mannos and Sakrison 1974), over a threshold that
the picture's own contrast in the band raises; bands pooled with an exponent of 4. The placement knows none of this: it
takes the noise that second differences leave (`gateway.mark.visibility.threshold`).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gateway.mark.visibility.jnd import CALIBRATED

PIXELS_PER_DEGREE = 32.0
"""Of a screen with 0.27 mm pixels seen from 50 cm, one image pixel a screen pixel; enlarged threefold it is a third."""
OCTAVES = 5
"""Bands, from half of the sampling frequency down."""
ORIENTATIONS = 4
SLOPE = 0.7
"""How much of the masker's contrast, as a power, raises the threshold (Daly: 0.7 for what is unknown to the reader)."""
POOLING = 4.0
NEIGHBOURHOOD = 1.0
"""Standard deviation of the neighbourhood that a band's contrast is taken over, in periods of the band."""
PEAK_SENSITIVITY = 0.9809
"""Of the contrast sensitivity function as Mannos and Sakrison give it, at 7.9 cycles per degree."""


def sensitivity(frequency: np.ndarray | float) -> np.ndarray:
    """Return how well the eye sees frequencies (cycles per degree, any shape): 1 at its best, and below that too.

    Mannos and Sakrison (IEEE Trans. Inf. Theory 20, 1974); below its peak held at 1, since a reader moves about.
    """
    scaled = 0.114 * np.asarray(frequency, np.float64)
    found = 2.6 * (0.0192 + scaled) * np.exp(-(scaled**1.1)) / PEAK_SENSITIVITY
    return np.where(scaled < 0.9, 1.0, np.minimum(found, 1.0))


def seen_differences(before: np.ndarray, after: np.ndarray, magnification: float = 1.0) -> np.ndarray:
    """Return (H, W) float32: by how many thresholds two gray pictures differ at each place; above 1 it can be seen.

    Parameters
    ----------
    before
        (H, W) float in 0..1, display values.
    after
        the same of the changed picture.
    magnification
        screen pixels per image pixel.
    """
    old, new = CALIBRATED.index(before), CALIBRATED.index(after)
    height, width = (side + side % 2 + 2 * _margin(side) for side in old.shape)
    shape = height, width
    spectra = [np.fft.rfft2(_padded(plane, shape)) for plane in (old, new - old)]
    top, left = ((whole - side) // 2 for whole, side in zip(shape, old.shape, strict=True))
    inside = np.s_[top : top + old.shape[0], left : left + old.shape[1]]
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    radius = np.hypot(rows, columns)
    angle = np.arctan2(rows, columns)
    total = np.zeros(old.shape)
    for octave in range(OCTAVES):
        centre = 0.35 / 2.0**octave  # cycles per pixel
        weight = float(sensitivity(centre * PIXELS_PER_DEGREE / magnification))
        with np.errstate(divide="ignore"):
            radial = np.exp(-((np.log2(np.maximum(radius, 1e-9) / centre)) ** 2) / (2.0 * 0.55**2))
        for number in range(ORIENTATIONS):
            turned = angle - np.pi * number / ORIENTATIONS
            spread = np.exp(-((np.arcsin(np.clip(np.abs(np.sin(turned)), 0.0, 1.0))) ** 2) / (2.0 * 0.42**2))
            masker, change = (np.fft.irfft2(one * radial * spread, s=shape)[inside] for one in spectra)
            reach = NEIGHBOURHOOD / centre / 2.0
            contrast, signal = (
                np.sqrt(np.maximum(ndimage.gaussian_filter(one**2, reach), 0.0)) * weight for one in (masker, change)
            )
            total += (signal / (1.0 + contrast**4) ** (SLOPE / 4.0)) ** POOLING
    return (total ** (1.0 / POOLING)).astype(np.float32)


def _margin(side: int) -> int:
    return min(side - 1, 24)


def _padded(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    before = [(whole - side) // 2 for whole, side in zip(shape, plane.shape, strict=True)]
    after = [whole - side - first for whole, side, first in zip(shape, plane.shape, before, strict=True)]
    return np.pad(plane, tuple(zip(before, after, strict=True)), mode="symmetric")
