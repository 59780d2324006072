"""Displays that are no straight ramp: from a stored value to its shade by a table, and back along the same table.

Going back needs care where the table is flat (many stored values, one shade) or turns (one shade, several places). So
the table is unrolled: ``path`` is how far the shade has moved from the first stored value on, whichever way. It never
falls, so it can be searched; and a pixel stays on the monotone run of the table that it lies on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gateway.mark.types import Curve, RelativeWindow

REACH = 0.05
"""A letter needs the shade to move this much ..."""
MOST_REACH = 0.1
"""... within this share of the stored values over which the curve moves; elsewhere it would not be seen."""
MOST_MOVE = 0.5
"""No stored value moves further than this share of them: in another window it would be a hole or a spike."""
_ENDS = 0.01  # share of the whole way, left out at either end where the span of the curve is measured


@dataclass(frozen=True, eq=False)
class CurveMap:
    """The primary display of one image, by its table; the counterpart of ``display.DisplayMap``.

    Attributes
    ----------
    curve
        as in the request.
    inverted
        the shades are turned over (MONOCHROME1).
    """

    curve: Curve
    inverted: bool = False

    unit = None
    """No one number of display units per stored value: they are of all sizes."""

    @cached_property
    def shades(self) -> np.ndarray:
        """(n,) float32, display value of each stored value from ``curve.first`` on."""
        shades = np.clip(np.asarray(self.curve.shades, np.float32), 0.0, 1.0)
        return np.float32(1.0) - shades if self.inverted else shades

    @cached_property
    def _path(self) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(np.abs(np.diff(self.shades.astype(np.float64))))])

    @cached_property
    def _span(self) -> float:
        """Stored values over which the curve moves."""
        path = self._path
        low, high = np.searchsorted(path, [_ENDS * path[-1], (1.0 - _ENDS) * path[-1]])
        return max(1.0, float(high - low))

    @cached_property
    def _runs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each entry: first and last entry of its monotone run, and the run's way (1 rising, -1 falling)."""
        ways = np.sign(np.diff(self.shades))
        moving = np.flatnonzero(ways)
        count = len(self.shades)
        if moving.size == 0:
            return np.zeros(count, int), np.full(count, count - 1), np.ones(count)
        # a flat stretch belongs to the run before it, the first of all to the run behind it
        latest = np.maximum.accumulate(np.where(ways != 0, np.arange(len(ways)), -1))
        way = np.where(latest >= 0, ways[latest], ways[moving[0]])
        turns = np.flatnonzero(np.diff(way)) + 1  # entries at which one run ends and the next begins
        edges = np.concatenate([[0], turns, [count - 1]])
        number = np.minimum(np.searchsorted(turns, np.arange(count), "left"), len(edges) - 2)
        return edges[number], edges[number + 1], np.append(way, way[-1])[edges[number]]

    @cached_property
    def _plateaus(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each entry: first and last entry that the path does not tell from it."""
        return np.searchsorted(self._path, self._path, "left"), np.searchsorted(self._path, self._path, "right") - 1

    @cached_property
    def _readable(self) -> np.ndarray:
        """(n,) bool: the shade moves by ``REACH`` near by, one way or the other."""
        path, each = self._path, np.arange(len(self.shades))
        up, down = np.searchsorted(path, path + REACH), np.searchsorted(path, path - REACH, "right") - 1
        far = float(len(path))
        above = np.where(up < len(path), up - each, far)
        below = np.where(path >= REACH, each - down, far)
        return np.minimum(above, below) <= max(2.0, MOST_REACH * self._span)

    def _entries(self, stored: np.ndarray) -> np.ndarray:
        return np.clip(stored.astype(np.int64) - self.curve.first, 0, len(self.shades) - 1)

    def shown(self, stored: np.ndarray) -> np.ndarray:
        """Return display values float32 in 0..1."""
        return self.shades[self._entries(stored)]

    def readable(self, stored: np.ndarray) -> np.ndarray:
        """Return bool, shape of ``stored``: a change of these values can be seen."""
        return self._readable[self._entries(stored)]

    def brought_in(self, stored: np.ndarray) -> np.ndarray:
        """Return the stored values, those on a flat end of the curve moved to where it begins to move; int32."""
        first, last = self._plateaus
        entries = np.clip(self._entries(stored), last[0], first[-1])
        return np.where(self.readable(stored), stored, entries + self.curve.first).astype(np.int32)

    def limit_of(self, most: np.ndarray, units: float | None = None) -> tuple[np.ndarray, float | None]:
        """Return how far ``moved`` may move each stored value.

        Parameters
        ----------
        most
            largest change in display units, of a shape that broadcasts to the image's; infinite: as far as
            ``MOST_MOVE`` goes.
        units
            largest change in stored values where ``most`` is finite; None: no such limit.
        """
        return most, units

    def moved(self, stored: np.ndarray, change: np.ndarray, limit: tuple[np.ndarray, float | None]) -> np.ndarray:
        """Return the stored values int32 whose display is nearest to that of ``stored`` plus ``change``.

        Parameters
        ----------
        stored
            int.
        change
            display units, same shape.
        limit
            from ``limit_of``.
        """
        most, units = limit
        entries, path = self._entries(stored), self._path
        begin, end, way = (one[entries] for one in self._runs)
        wanted = way * np.clip(change, -most, most)
        here = path[entries]
        target = np.clip(here + wanted, path[begin], path[end])
        first, last = self._plateaus
        above = np.clip(np.searchsorted(path, target, "left"), begin, end)
        below = np.clip(np.searchsorted(path, target, "right") - 1, begin, end)
        forth = target > here
        # of all values with one shade the nearest to the pixel's own
        near, far = np.where(forth, first[below], last[above]), np.where(forth, above, below)
        within = np.abs(path[far] - here) <= most + 1e-7
        chosen = np.where(within & (np.abs(path[far] - target) < np.abs(path[near] - target)), far, near)
        chosen = np.where(target == here, entries, chosen)
        steps = np.where(np.isinf(most), MOST_MOVE * self._span, units or MOST_MOVE * self._span)
        whole = np.floor(np.broadcast_to(steps, stored.shape)).astype(np.int64)
        return (stored + np.clip(chosen - entries, -whole, whole)).astype(np.int32)

    def within(self, windows: tuple[RelativeWindow, ...]) -> dict[str, Curve]:
        """Return name -> curve of windows that are given as shares of this one."""
        found = {}
        for window in windows:
            shades = np.clip((self.shades - window.black) / (window.white - window.black), 0.0, 1.0)
            found[window.name] = Curve(self.curve.first, 1.0 - shades if self.inverted else shades)
        return found
