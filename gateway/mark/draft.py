"""One frame on its way: what ``drafting`` decides and a method draws on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gateway.mark.placement.zones import Zones
from gateway.mark.surrogates.consensus import Answers
from gateway.mark.types import MarkRequest
from gateway.mark.visibility.budget import Canvas


@dataclass(frozen=True)
class Draft:
    """One frame on its way: all that is known before the texture.

    Attributes
    ----------
    request
        what is to be marked.
    canvas
        the image and everything that limits its mark.
    foreground
        (H, W) bool, what is clearly brighter than black.
    roi
        (H, W) bool, region of interest as given or found, dilated.
    untouchable
        (H, W) bool, region of interest, padding and what a shutter hides.
    tier
        the one that it is marked in: the settings', or what they say of images without air.
    floor
        display PSNR in dB that its mark keeps.
    zones
        of the image; None: it shows no anatomy.
    note
        as ``MarkedImage.note``.
    answers
        what the networks that found the region of interest said of the image; empty: none was asked.
    """

    request: MarkRequest
    canvas: Canvas
    foreground: np.ndarray
    roi: np.ndarray
    untouchable: np.ndarray
    tier: str
    floor: float
    zones: Zones | None = None
    note: str = ""
    answers: Answers = field(default_factory=dict)
