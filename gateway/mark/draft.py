"""One frame on its way: what ``drafting`` decides and a method draws on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    note
        as ``MarkedImage.note``.
    """

    request: MarkRequest
    canvas: Canvas
    foreground: np.ndarray
    roi: np.ndarray
    untouchable: np.ndarray
    note: str = ""
