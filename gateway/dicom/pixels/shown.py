"""A frame as it is seen: stored values through a window, as shades or colours of 8 bits."""

from __future__ import annotations

import numpy as np

from gateway.dicom.pixels.stored_values import Pixels
from gateway.dicom.pixels.windows import Window


def shown(pixels: Pixels, index: int, window: Window | None = None) -> np.ndarray:
    """One frame as shades (H, W) or colours (H, W, 3), uint8.

    Parameters
    ----------
    pixels
        That hold the frame.
    index
        Where in them.
    window
        In output units; None: the header's first VOI, else from the smallest to the largest value. Colour has none.
    """
    frame = pixels.frames[index]
    if frame.ndim == 3:
        return (frame >> max(pixels.bits_stored - 8, 0)).astype(np.uint8)
    display = pixels.displays[index]
    low, high = pixels.limits
    if window is not None:
        output = np.arange(low, high + 1) * display.slope + display.intercept
        shades = window.shades(output)
    else:
        shades = _own(pixels, index, low, high)
    if display.inverted:
        shades = 1.0 - shades
    table = np.rint(shades * 255).astype(np.uint8)
    return table[frame.astype(np.int32) - low]


def _own(pixels: Pixels, index: int, low: int, high: int) -> np.ndarray:
    """The shade of each stored value by the header's first VOI, else from the smallest to the largest value shown."""
    display = pixels.displays[index]
    views = display.views(low, high)
    if views and isinstance(views[0][1], np.ndarray):
        return views[0][1]
    frame = pixels.frames[index]
    if views:
        black, white = views[0][1]
    else:
        seen = frame if pixels.padding is None else frame[~pixels.padding[index]]
        black, white = (float(seen.min()), float(seen.max())) if seen.size else (low, high)
    shades = np.clip((np.arange(low, high + 1) - black) / max(white - black, 1e-9), 0.0, 1.0)
    return 1.0 - shades if display.slope < 0 else shades
