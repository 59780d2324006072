"""Just noticeable differences (JND): the Grayscale Standard Display Function (GSDF) of DICOM PS3.14.

The GSDF numbers luminances by JND indices, 1 (0.05 cd/m2) to 1023 (3993 cd/m2): between two neighbouring indices a
standard target can just be told from its background. Two screens are told apart, both showing black at 1 and white at
350 cd/m2:

- ``CALIBRATED`` follows the GSDF, as PS3.14 asks of diagnostic displays: equal steps of the display value are equal
  steps of the index, about 582 of them from black to white, whatever the gray.
- ``OFFICE`` follows a power of 2.2, as uncalibrated screens do: there the JNDs of one step depend on the gray.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.polynomial.polynomial import polyval

# PS3.14, section 7.1: log10 L(j) as a ratio of polynomials in ln j (a, c, e, g, m over 1, b, d, f, h, k) ...
_UPPER = (-1.3011877, 8.0242636e-2, 1.3646699e-1, -2.5468404e-2, 1.3635334e-3)
_LOWER = (1.0, -2.5840191e-2, -1.0320229e-1, 2.8745620e-2, -3.1978977e-3, 1.2992634e-4)
# ... and j(L) as a polynomial in log10 L (A to I).
_INVERSE = (
    71.498068, 94.593053, 41.912053, 9.8247004, 0.28175407, -1.1878455, -0.18014349, 0.14710899, -0.017046845,
)  # fmt: skip

_GRID = 4096
"""Steps of the table that a power-law screen is looked up in: finer than a quarter of a JND each."""


def luminance_of(index: np.ndarray | float) -> np.ndarray:
    """Return the luminance in cd/m2 (float64) of JND indices, real numbers 1 to 1023 (PS3.14, 7.1).

    Raises
    ------
    ValueError
        an index outside 1..1023, where the function is not defined.
    """
    index = np.asarray(index, np.float64)
    if not ((index >= 1.0) & (index <= 1023.0)).all():
        raise ValueError("JND indices lie in 1..1023")
    logarithm = np.log(index)
    return 10.0 ** (polyval(logarithm, _UPPER) / polyval(logarithm, _LOWER))


def jnd_index_of(luminance: np.ndarray | float) -> np.ndarray:
    """Return the JND index (float64, no whole number) of luminances in cd/m2, 0.05 to 4000 (PS3.14, 7.1).

    Within 0.1 of the inverse of ``luminance_of``, within 0.03 between 1 and 350 cd/m2.

    Raises
    ------
    ValueError
        a luminance outside 0.05..4000 cd/m2.
    """
    luminance = np.asarray(luminance, np.float64)
    if not ((luminance >= 0.05) & (luminance <= 4000.0)).all():
        raise ValueError("the GSDF is defined from 0.05 to 4000 cd/m2")
    return polyval(np.log10(luminance), _INVERSE)


@dataclass(frozen=True)
class Screen:
    """What turns display values into luminance.

    Attributes
    ----------
    name
        as in reports.
    black
        luminance of display value 0, cd/m2.
    white
        luminance of display value 1, cd/m2; above ``black``.
    gamma
        exponent of the power law between them; None: the GSDF.
    """

    name: str
    black: float = 1.0
    white: float = 350.0
    gamma: float | None = None

    def index(self, display: np.ndarray) -> np.ndarray:
        """Return the JND index (float64) at which display values in 0..1 (any shape) are shown."""
        if self.gamma is None:
            low, high = jnd_index_of(np.array([self.black, self.white]))
            return low + (high - low) * np.asarray(display, np.float64)
        return np.interp(display, *_table(self.black, self.white, self.gamma))

    def difference(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Return the absolute difference in JND (float64) between display values in 0..1 of one shape."""
        return np.abs(self.index(after) - self.index(before))


@cache
def _table(black: float, white: float, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Display values 0..1 and the JND indices at which a power-law screen shows them."""
    display = np.linspace(0.0, 1.0, _GRID + 1)
    return display, jnd_index_of(black + (white - black) * display**gamma)


CALIBRATED = Screen("calibrated")
OFFICE = Screen("office", gamma=2.2)
SCREENS = (CALIBRATED, OFFICE)
"""The screens that quality is reported for."""
