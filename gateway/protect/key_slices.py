"""Key slices: what the mark of a slice begins from, so that a series takes a fraction of the time.

Every 8th slice of a series, counted by its position along the normal, is a *key slice* and is marked from itself. The
others begin from the texture of the nearest key slice whose marked copy has committed, and from themselves where there
is none yet: nothing waits for an arrival. What had to begin from itself stands in for its key slice until that one has
come. Which slice is a key slice follows from its own header alone, never from what came before it. Of a multi-frame
image every 8th frame is a key frame.

Textures live in the memory of the worker process, and no more than `MOST_BYTES` of them: a restart forgets them,
another worker process has its own, and slices that find none take longer. What is begun from is a start and nothing
more: limits and masks are those of the slice itself, and its bytes are fixed when its derived file commits.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway.dicom.encoding import values
from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.errors import GatewayError
from gateway.mark import MarkedImage, MarkRequest, MarkSettings
from gateway.vault import VaultRecord

EVERY = 8
"""Slices from one key slice to the next."""
MOST_BYTES = 32 << 20
"""Of textures that are kept: five hundred gray key slices of 256x256 (one byte a pixel of that grid)."""
_SPACINGS = (0.01, 1000.0)  # mm between slices that can be meant
_FARTHEST = 1e6  # mm from the origin
_SHIFT = 0.25  # positions often are whole or half multiples of the spacing: neither may lie where rounding turns over
SeriesName = tuple[object, ...]
"""What slices have in common that may begin from each other: study, series, modality profile, settings."""
Results = list[MarkedImage | GatewayError]
Mark = Callable[[Sequence[MarkRequest]], Sequence[MarkedImage | GatewayError]]


def uses(settings: MarkSettings) -> bool:
    """Whether marks under these settings begin from key slices."""
    return settings.key_slices and settings.mode == "strong" and settings.steps > 0


def slice_number(header: InstanceHeader) -> int | None:
    """Number of a single-frame slice along its series' normal: its position over the distance between slices.

    That is the larger of Spacing Between Slices (0018,0088), in which some scanners tell the gap alone, and Slice
    Thickness (0018,0050). Where slices overlap, several have one number; where they leave gaps, numbers are left out.

    Returns
    -------
    int or None
        None where position or distance are not known: such a slice begins from itself.
    """
    place = header.slice_position
    if header.frames != 1 or place is None or not abs(place) <= _FARTHEST:
        return None
    told = (values.number(header.dataset, name) for name in ("SpacingBetweenSlices", "SliceThickness"))
    spacing = max((abs(distance) for distance in told if distance is not None), default=0.0)
    if not _SPACINGS[0] <= spacing <= _SPACINGS[1]:
        return None
    return math.floor(place / spacing + _SHIFT)


def is_key(number: int) -> bool:
    """Whether the slice (of a series) or frame (of an image) with this number is one that others begin from."""
    return number % EVERY == 0


@dataclass(frozen=True)
class Start:
    """What a mark may begin from. `copy_uid`: SOP Instance UID of the marked copy that it is the texture of, or ""."""

    texture: np.ndarray
    copy_uid: str = ""


@dataclass(frozen=True)
class SlicePlace:
    """Where a single-frame slice lies: its series, and its number in it."""

    series: SeriesName
    number: int

    @property
    def is_key(self) -> bool:
        """Whether others begin from it."""
        return is_key(self.number)


class KeyTextures:
    """Textures of key slices by series and slice number; the least used go first.

    Used by one thread at a time, as `gateway.protect.protector` is.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._bytes = most_bytes, 0
        self._kept: OrderedDict[tuple[object, int], Start] = OrderedDict()

    def keep(self, place: SlicePlace, start: Start) -> None:
        """Keep the texture of a slice that began from itself: a key slice's, another's while its key slice lacks."""
        nearest = EVERY * round(place.number / EVERY)
        if place.is_key or self.at(place.series, nearest) is None:
            self._put(place.series, nearest, start)

    def _put(self, series: object, number: int, start: Start) -> None:
        self._drop((series, number))
        self._kept[series, number] = start
        self._bytes += start.texture.nbytes
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def near(self, series: object, number: int, copy_uid: str | None = None) -> Start | None:
        """The texture of the nearest key slice that is kept, none farther than `EVERY` slices; None: there is none.

        Parameters
        ----------
        copy_uid
            It must be that of this marked copy; None: any.
        """
        before = number - number % EVERY
        for one in sorted((before, before + EVERY), key=lambda one: (abs(one - number), one)):
            found = self.at(series, one)
            if found is not None and copy_uid in (None, found.copy_uid):
                return found
        return None

    def at(self, series: object, number: int) -> Start | None:
        """The texture of this key slice; None: it is not kept."""
        found = self._kept.get((series, number))
        if found is not None:
            self._kept.move_to_end((series, number))
        return found

    def start_of(self, place: SlicePlace | None, record: VaultRecord) -> Start | None:
        """What the mark of a slice begins from; None: from itself.

        A copy whose bytes are fixed is made anew from what it was made from: so it becomes the same bytes, or else gets
        a UID of its own.
        """
        if place is None:
            return None
        if record.derived_sha256 is None:
            return None if place.is_key else self.near(place.series, place.number)
        return self.near(place.series, place.number, record.begun_from) if record.begun_from else None

    def _drop(self, name: tuple[object, int]) -> None:
        if (found := self._kept.pop(name, None)) is not None:
            self._bytes -= found.texture.nbytes


def mark_frames(mark: Mark, requests: Sequence[MarkRequest], numbers: Sequence[int], textures: KeyTextures) -> Results:
    """Mark frames of one image: its key frames first, then those that begin from the key frame before them.

    The one before, so that an image worked piece by piece (`gateway.protect.large`) comes out as in one piece.

    Parameters
    ----------
    mark
        marks requests together.
    numbers
        of the frames within their image, from 0.
    textures
        of the image's key frames so far; those of this call are put in.
    """
    results: dict[int, MarkedImage | GatewayError] = {}
    keys = [place for place, number in enumerate(numbers) if is_key(number)]
    for place, result in zip(keys, mark([requests[place] for place in keys]) if keys else (), strict=True):
        results[place] = result
        if isinstance(result, MarkedImage) and result.texture is not None:
            textures.keep(SlicePlace((), numbers[place]), Start(result.texture))
    others = [place for place in range(len(requests)) if place not in results]
    begun = [begin_near(requests[place], textures.at((), numbers[place] - numbers[place] % EVERY)) for place in others]
    results.update(zip(others, mark(begun) if begun else (), strict=True))
    return [results[place] for place in range(len(requests))]


def begin_near(request: MarkRequest, start: Start | None) -> MarkRequest:
    """Return the request, to begin from a start where there is one."""
    return request if start is None else replace(request, begin=start.texture)
