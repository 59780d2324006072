"""Whether an overlay plane (PS3.3 C.9.2) shows the picture itself, as a bit plane, a threshold or a half-tone of it.

Graphics and regions of interest drawn on a picture say where something is, not what it looks like, and stay.
"""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from gateway.dicom.copy.unused_bits import GROUPS, number_of, overlay_bits
from gateway.dicom.pixels.stored_values import Pixels

_SAME = 0.97  # share of equal pixels from which on a plane counts as one of the picture's own
_ALIKE = 0.9  # correlation of local means from which on a plane counts as a half-tone
_BLOCK = 8  # pixels a side of what a local mean is taken over
_LEVELS = 64  # thresholds that are tried
_FEW = 0.005  # share of set pixels below which a plane, or its inverse, shows nothing


class Overlays:
    """The overlay planes of one image; `look` compares them with its frames, a few at a time."""

    def __init__(self, ds: Dataset, rows: int, columns: int) -> None:
        self._shape = rows, columns
        self._planes: dict[int, np.ndarray] = {}
        self._bits = overlay_bits(ds)
        self.showing: set[int] = set()
        present = {int(tag) >> 16 for tag in ds.keys() if int(tag) & 0xFFFF == 0x3000}  # noqa: SIM118
        for group in present & set(GROUPS):
            planes = self._read(ds, group)
            if planes is None:
                self.showing.add(group)  # not the bits of a plane: what it is cannot be told
            elif planes.size:
                self._planes[group] = planes

    def look(self, pixels: Pixels, first: int = 0) -> None:
        """Compare with the frames of an image, or some of them, of which the first is number `first`."""
        for index, frame in enumerate(pixels.frames):
            if frame.ndim == 3:
                frame = frame.mean(axis=2).astype(np.int32)
            for group, planes in self._planes.items():
                self._compare(group, planes[min(first + index, len(planes) - 1)], frame)
            if pixels.raw is not None:
                for group, bit in self._bits.items():
                    self._compare(group, (pixels.raw[index] >> bit & 1).astype(bool), frame)

    def _compare(self, group: int, plane: np.ndarray, frame: np.ndarray) -> None:
        if group not in self.showing and shows(plane, frame):
            self.showing.add(group)

    def _read(self, ds: Dataset, group: int) -> np.ndarray | None:
        """Planes (N, H, W) bool in the place of the image; None when they are no such planes, empty for no bits."""
        data = ds[group << 16 | 0x3000].value
        if not isinstance(data, bytes | bytearray):
            return None
        rows, columns, frames = (
            number_of(ds, group, element, default) for element, default in ((0x10, 0), (0x11, 0), (0x15, 1))
        )
        bits = rows * columns * frames
        if not bits or not -(-bits // 8) <= len(data) <= -(-bits // 8) + 1:
            return None if data else np.zeros((0, 0, 0), bool)
        planes = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[:bits].reshape(frames, rows, columns)
        top, left = _origin(ds, group)
        placed = np.zeros((frames, *self._shape), bool)
        height, width = min(rows, self._shape[0] - top), min(columns, self._shape[1] - left)
        if top < 0 or left < 0 or height <= 0 or width <= 0:
            return planes.astype(bool) if planes.shape[1:] == self._shape else np.zeros((0, 0, 0), bool)
        placed[:, top : top + height, left : left + width] = planes[:, :height, :width]
        return placed


def shows(plane: np.ndarray, frame: np.ndarray) -> bool:
    """Whether a plane (H, W) bool is a bit plane, a threshold or a half-tone of a frame (H, W) of stored values."""
    share = plane.mean()
    if not _FEW <= share <= 1 - _FEW or frame.min() == frame.max():
        return False
    return _is_bit_plane(plane, frame) or _is_threshold(plane, frame) or _is_half_tone(plane, frame)


def _is_bit_plane(plane: np.ndarray, frame: np.ndarray) -> bool:
    stored = frame.astype(np.int64)
    for bit in range(16):
        own = (stored >> bit & 1).astype(bool)
        if _FEW <= own.mean() <= 1 - _FEW and max(same := (own == plane).mean(), 1 - same) >= _SAME:
            return True
    return False


def _is_threshold(plane: np.ndarray, frame: np.ndarray) -> bool:
    """Best agreement of `frame > t` with the plane over all t, from the two distributions."""
    low, high = int(frame.min()), int(frame.max())
    bins = np.linspace(low, high + 1, min(_LEVELS, high - low + 1) + 1)
    inside = np.histogram(frame[plane], bins)[0]
    outside = np.histogram(frame[~plane], bins)[0]
    agree = np.cumsum(outside)[:-1] + (inside.sum() - np.cumsum(inside)[:-1])
    best = max(agree.max(), plane.size - agree.min()) / plane.size if len(agree) else 0
    trivial = max(plane.mean(), 1 - plane.mean())  # what a threshold beyond all values agrees with
    return bool(best >= _SAME and best - trivial >= (1 - trivial) / 2)


def _is_half_tone(plane: np.ndarray, frame: np.ndarray) -> bool:
    means, own = _local(plane), _local(frame)
    if means.size < 16 or means.std() == 0 or own.std() == 0:
        return False
    return abs(float(np.corrcoef(means.ravel(), own.ravel())[0, 1])) >= _ALIKE


def _local(image: np.ndarray) -> np.ndarray:
    rows, columns = (size // _BLOCK * _BLOCK for size in image.shape)
    blocks = image[:rows, :columns].astype(np.float64).reshape(rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK)
    return blocks.mean(axis=(1, 3))


def _origin(ds: Dataset, group: int) -> tuple[int, int]:
    """Row and column, from 0, of the plane's first pixel (60xx,0050)."""
    try:
        row, column = (int(value) for value in ds[group << 16 | 0x0050].value)
    except Exception:  # as above
        return 0, 0
    return row - 1, column - 1
