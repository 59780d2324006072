"""Limits of a header: of its bytes, and of the memory that it takes once it is decoded.

Not by a number of elements: an enhanced MR of 3,600 frames has 600,000 of them in 8 MB. Reading is linear in the bytes,
so their bound is one of time as well.
"""

from __future__ import annotations

from gateway.errors import DicomError

MAX_HEADER = 64 << 20  # bytes before the pixel data; enhanced multi-frame objects reach some ten MiB
MAX_DECODED = 768 << 20  # bytes of memory
ELEMENT = 320  # bytes that an element of 8 takes once it is decoded
ITEM = 2048  # that an item is counted as: it takes some 700, and the time of six elements wherever it is looked at
HINT = "have the system that it comes from make it again, or split it"


class Budget:
    """Counts elements and items of one header. Beyond `at_most` bytes of memory "too-many-elements" is raised, or
    "too-many-items" where those take more of it.
    """

    def __init__(self, at_most: int | None = None) -> None:
        self._left = self._whole = MAX_DECODED if at_most is None else at_most
        self.items = 0

    def element(self) -> None:
        """One more element or fragment."""
        self._left -= ELEMENT
        if self._left < 0:
            raise self._refusal()

    def item(self) -> None:
        """One more item of a sequence."""
        self.items += 1
        self._left -= ITEM
        if self._left < 0:
            raise self._refusal()

    def _refusal(self) -> DicomError:
        what = "items" if self.items * ITEM * 2 > self._whole else "elements"
        message = f"the {what} of the header, at all levels, would take more than {self._whole >> 20} MiB of memory"
        return DicomError(f"too-many-{what}", message, HINT)
