"""From stored values to what a person sees, and the checks that an image can be shown at all.

Display values are float32 in 0..1: the primary window's black and white, MONOCHROME1 turned over. Budgets, PSNR and the
surrogates' input all live there. A window is a straight ramp (``DisplayMap``): a mark goes back to stored values by one
signed factor, ``DisplayMap.step``. Other displays (VOI LUT, sigmoid) go both ways by their table (``curve.CurveMap``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gateway.errors import MarkError
from gateway.mark.surrogates.nets import MIN_INPUT
from gateway.mark.types import Curve, MarkRequest, RelativeWindow
from gateway.mark.visibility.curve import CurveMap

BEYOND = 0.05
"""Pixels further than this outside the primary window (display units) carry no letters."""
_FARTHEST = 2**30
"""Stored values; changes are counted in int32."""
_FARTHEST_MOVE = 2**24
"""Stored values that a change goes at most where nothing limits it."""
SUPPORTED_DTYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16))


@dataclass(frozen=True)
class DisplayMap:
    """The primary window of one image.

    Attributes
    ----------
    low
        stored value shown black (white when inverted).
    high
        stored value shown white (black when inverted); above ``low``.
    inverted
        MONOCHROME1.
    """

    low: float
    high: float
    inverted: bool = False

    @property
    def step(self) -> float:
        """Stored values per display unit; negative when inverted."""
        return (self.low - self.high) if self.inverted else (self.high - self.low)

    @property
    def unit(self) -> float:
        """Display units per stored value, positive."""
        return 1.0 / (self.high - self.low)

    def raw(self, stored: np.ndarray) -> np.ndarray:
        """Return display values float32, not yet cut to 0..1."""
        share = (stored.astype(np.float32) - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.float32(1.0) - share if self.inverted else share

    def shown(self, stored: np.ndarray) -> np.ndarray:
        """Return display values float32 in 0..1."""
        return np.clip(self.raw(stored), 0.0, 1.0)

    def readable(self, stored: np.ndarray) -> np.ndarray:
        """Return bool, shape of ``stored``: the window shows these values, or nearly; beyond a letter is not seen."""
        return np.abs(self.raw(stored) - self.shown(stored)) <= BEYOND

    def brought_in(self, stored: np.ndarray) -> np.ndarray:
        """Return the stored values int32, those beyond the window moved to its nearer end."""
        return np.clip(stored, int(np.ceil(self.low)), int(np.floor(self.high))).astype(np.int32)

    def limit_of(self, most: np.ndarray, units: float | None = None) -> np.ndarray:
        """Return how far ``moved`` may move each stored value: int32, shape of ``most``.

        Parameters
        ----------
        most
            display units, of a shape that broadcasts to the image's; infinite: no limit.
        units
            largest change in stored values where ``most`` is finite; None: no such limit.
        """
        limit = np.minimum(most * np.float32(abs(self.step)) + np.float32(1e-4), np.float32(_FARTHEST_MOVE))
        if units is not None:
            limit = np.where(np.isfinite(most), np.minimum(limit, np.float32(units)), limit)
        return limit.astype(np.int32)

    def moved(self, stored: np.ndarray, change: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """Return the stored values int32 that are ``change`` (display units) brighter, at most ``limit`` either way.

        Parameters
        ----------
        stored
            int32.
        change
            display units, same shape.
        limit
            from ``limit_of``.
        """
        whole = np.rint(change * np.float32(self.step)).astype(np.int32)
        return stored + np.clip(whole, -limit, limit)

    def within(self, windows: Iterable[RelativeWindow]) -> dict[str, tuple[float, float]]:
        """Return name -> (low, high) in stored values of windows that are given as shares of this one."""
        found = {}
        for window in windows:
            ends = (window.black, window.white) if not self.inverted else (1.0 - window.white, 1.0 - window.black)
            first, last = (self.low + share * (self.high - self.low) for share in ends)
            found[window.name] = (first, last)
        return found


AnyDisplay = DisplayMap | CurveMap
"""What turns stored values into display values, and a change of those back into stored values."""


def map_of(window: tuple[float, float] | Curve, inverted: bool) -> AnyDisplay:
    """Return the display of a window or curve of a request."""
    if isinstance(window, Curve):
        return CurveMap(window, inverted)
    return DisplayMap(float(window[0]), float(window[1]), inverted)


def untouchable_of(request: MarkRequest) -> np.ndarray:
    """Return the (H, W) bool mask of what is no picture: padding, and what a shutter hides."""
    padding = padding_of(request)
    return padding if request.hidden is None else padding | request.hidden


def padding_of(request: MarkRequest) -> np.ndarray:
    """Return the (H, W) bool mask of padding: the given mask and every pixel with a reserved value."""
    height, width = request.image.shape[:2]
    mask = np.zeros((height, width), bool) if request.padding is None else request.padding.astype(bool)
    for low, high in request.reserved:
        inside = (request.image >= low) & (request.image <= high)
        mask = mask | (inside.all(axis=2) if inside.ndim == 3 else inside)
    return mask


def units_of(request: MarkRequest) -> np.ndarray | None:
    """Return (H, W) float32 modality values of a gray image; None where they are not known."""
    if request.slope is None or request.intercept is None or request.image.ndim != 2:
        return None
    return request.image.astype(np.float32) * np.float32(request.slope) + np.float32(request.intercept)


def check_request(request: MarkRequest) -> None:
    """Raise what makes the request unusable, before any work.

    Raises
    ------
    MarkError
        ``bad-request`` (dtype, shape, key, ranges), ``wrong-channels``, ``image-too-small``.
    """
    image = request.image
    if image.dtype not in SUPPORTED_DTYPES:
        raise MarkError("bad-request", f"pixel type {image.dtype} is not uint8, uint16 or int16")
    if image.ndim not in (2, 3):
        raise MarkError("bad-request", f"an image has 2 or 3 axes, not {image.ndim}")
    if image.ndim == 3 and image.shape[2] != 3:
        raise MarkError("wrong-channels", f"an image has 1 or 3 samples per pixel, not {image.shape[2]}")
    if min(image.shape[:2]) < MIN_INPUT:
        height, width = image.shape[:2]
        raise MarkError("image-too-small", f"{width}x{height} pixels; at least {MIN_INPUT} on each side are needed")
    if len(request.key) != 32:
        raise MarkError("bad-request", f"a mark key has 32 bytes, not {len(request.key)}")
    for name, mask in (("padding", request.padding), ("roi", request.roi), ("hidden", request.hidden)):
        if mask is not None and (mask.shape != image.shape[:2] or mask.dtype != np.bool_):
            raise MarkError("bad-request", f"the {name} mask must be bool of shape {image.shape[:2]}")
    if request.position is not None and not np.isfinite(request.position):
        raise MarkError("bad-request", "the slice position is not a finite number")
    for name, limits in (("primary", request.display), *request.other_windows.items()):
        if isinstance(limits, Curve):
            shades = np.asarray(limits.shades)
            empty = shades.ndim != 1 or not np.isfinite(shades).all() or shades.size < 2 or shades.min() == shades.max()
        else:
            empty = limits is not None and not (np.isfinite(limits).all() and limits[0] < limits[1])
            if not empty and limits is not None and max(map(abs, limits)) > _FARTHEST:
                raise MarkError("bad-request", f"the {name} window ends far beyond all stored values")
        if empty:
            raise MarkError("bad-request", f"the {name} window is empty")
    if not (np.isfinite(request.aspect) and request.aspect > 0.0):
        raise MarkError("bad-request", "the pixel aspect is no positive number")
    if request.slope is not None and not (np.isfinite(request.slope) and request.slope != 0):
        raise MarkError("bad-request", "the slope is 0 or no finite number; give None where it is not known")
    if request.intercept is not None and not np.isfinite(request.intercept):
        raise MarkError("bad-request", "the intercept is no finite number; give None where it is not known")
    low, high = valid_range_of(request)
    info = np.iinfo(image.dtype)
    if not info.min <= low < high <= info.max:
        raise MarkError("bad-request", f"the valid range {low}..{high} does not fit {image.dtype}")


def valid_range_of(request: MarkRequest) -> tuple[int, int]:
    """Return the stored values that a marked pixel may take: as requested, else all of the dtype."""
    if request.valid_range is not None:
        return request.valid_range
    info = np.iinfo(request.image.dtype)
    return int(info.min), int(info.max)


def display_of(request: MarkRequest, skipped: np.ndarray) -> AnyDisplay:
    """Return the primary display of a checked request.

    Parameters
    ----------
    request
        what is to be shown.
    skipped
        (H, W) bool, what does not count where the range comes from the pixels (``untouchable_of``).
    """
    if request.display is not None:
        return map_of(request.display, request.inverted)
    is_small = request.image.dtype == np.uint8
    pixels = request.image[:0] if is_small else request.image[~skipped]
    if is_small or pixels.size == 0 or pixels.min() == pixels.max():
        lowest, highest = valid_range_of(request)
        return DisplayMap(float(lowest), float(highest), request.inverted)
    low, high = np.percentile(pixels[pixels > pixels.min()], (0.5, 99.5))
    if high <= low:  # a picture of two values
        low, high = float(pixels.min()), float(pixels.max())
    return DisplayMap(float(low), float(high), request.inverted)
