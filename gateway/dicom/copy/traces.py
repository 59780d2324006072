"""Traces of an original's pixels in bytes that must not hold any: the self-check of a marked copy (promise 3).

A trace is a run of `RUN` bytes or more, neither background nor one step alone, that stands in the pixels too: as they
are, with the bytes of their words swapped, or every second pixel of a row or of rows and columns (thumbnails). What was
scaled, windowed or compressed on its way is not found so: the rule of `gateway.dicom.copy.bulk` keeps that out.

Every run of `RUN` bytes covers a whole block of `_BLOCK` bytes at a multiple of `_BLOCK`. So the blocks of the pixels
are looked up by a hash among all blocks of the other bytes, wherever they begin; what is found there is compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RUN = 64
_ENOUGH = RUN - 2  # a run of swapped words may begin and end within a word
_BLOCK = 16
_TABLE_BITS = 20
_SHIFT, _MASK = np.uint64(64 - _TABLE_BITS), np.uint64((1 << _TABLE_BITS) - 1)
_FEW_ROWS = 4  # narrower thumbnails than so many runs a row are looked for across their rows too
_FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_MAX_COMPARED = 4096  # blocks with the hash of another that are compared in one form of the pixels,
_MAX_PLACES = 64  # and places in the other bytes where one of them is compared


class Traces:
    """Looks for pixels in `outside`, the bytes of a copy that are no pixel data."""

    def __init__(self, outside: bytes) -> None:
        even = len(outside) // 2 * 2
        odd = (len(outside) - 1) // 2 * 2 + 1 if outside else 0
        # as they stand, and with the bytes of words swapped, whether the words begin at even or at odd bytes
        self._forms = (outside, _swapped(outside[:even]), outside[:1] + _swapped(outside[1:odd]))
        self._table, self._second = np.zeros((2, 1 << _TABLE_BITS), bool)
        for form in self._forms:
            for start in range(min(8, max(len(form) - _BLOCK + 1, 0))):
                words = np.frombuffer(form, "<u8", (len(form) - start) // 8, start)
                mixed = _mixed(words[:-1], words[1:])
                self._table[mixed >> _SHIFT] = True
                self._second[mixed & _MASK] = True

    def find(self, frames: np.ndarray) -> int | None:
        """Where in `outside` a trace of these frames begins; None without one.

        Parameters
        ----------
        frames
            Containers of 8 or 16 bits, (N, H, W) or (N, H, W, 3), or bytes as they came, (n,) uint8.
        """
        if len(self._forms[0]) < RUN:
            return None
        for pixels in _forms_of(frames):
            if (place := self._find(pixels)) is not None:
                return place
        return None

    def _find(self, pixels: np.ndarray) -> int | None:
        data = pixels.reshape(-1).view(np.uint8)
        words = data[: data.size // _BLOCK * _BLOCK].view("<u8").reshape(-1, 2)
        mixed = _mixed(words[:, 0], words[:, 1])
        candidates = np.flatnonzero(self._table[mixed >> _SHIFT])
        candidates = candidates[self._second[mixed[candidates] & _MASK]]
        if not candidates.size:
            return None
        candidates = candidates[_telling(words[candidates])]
        once = np.unique(mixed[candidates], return_index=True)[1][:_MAX_COMPARED]
        candidates = candidates[np.sort(once)]
        for block in candidates:
            for form in self._forms:
                if (place := _compared(form, data, int(block) * _BLOCK)) is not None:
                    return place
        return None


def _compared(form: bytes, data: np.ndarray, start: int) -> int | None:
    """A place in `form` that agrees with `data` over a whole run around the block at `start`."""
    block = data[start : start + _BLOCK].tobytes()
    at = -1
    for _ in range(_MAX_PLACES):
        at = form.find(block, at + 1)
        if at < 0:
            break
        before = min(RUN - _BLOCK, at, start)
        behind = min(RUN, len(form) - at, data.size - start)
        there = np.frombuffer(form, np.uint8, before + behind, at - before)
        differ = np.flatnonzero(there != data[start - before : start + behind])
        first = int(differ[differ < before].max(initial=-1)) + 1
        last = int(differ[differ >= before].min(initial=before + behind))
        if last - first >= _ENOUGH and _says_much(there[first:last]):
            return at - before + first
    return None


def _says_much(run: np.ndarray) -> bool:
    """Whether a run is more than background with something in it: at least a quarter is not its commonest byte."""
    counts = np.bincount(run)
    return bool(np.count_nonzero(counts) >= 4 and counts.max() <= run.size * 3 // 4)


def _swapped(data: bytes) -> bytes:
    return np.frombuffer(data, "u2").byteswap().tobytes()


def _mixed(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    mixed = low * _FIRST
    mixed += high * _SECOND
    mixed ^= mixed >> np.uint64(29)
    return mixed


def _telling(words: np.ndarray) -> np.ndarray:
    """Which blocks (n, 2) say something: not one value, not one step of 8 or 16 bits alone, as a table's ramp is."""
    tells = np.ones(len(words), bool)
    for kind in ("u1", "<u2"):
        steps = np.diff(words.view(kind), axis=1)
        tells &= (steps != steps[:, :1]).any(axis=1)
    return tells


def _forms_of(frames: np.ndarray) -> Iterator[np.ndarray]:
    """The pixels as they are, and as they may stand elsewhere: every second one, or one sample of colours."""
    yield np.ascontiguousarray(frames)
    if frames.ndim == 1:
        return
    for phase in (0, 1):
        yield np.ascontiguousarray(frames[:, :, phase::2])
    row = frames.shape[2] * frames.itemsize // 2
    if row < _FEW_ROWS * RUN:
        for top in (0, 1):
            for left in (0, 1):
                yield np.ascontiguousarray(frames[:, top::2, left::2])
    if frames.ndim == 4:
        for sample in range(frames.shape[3]):
            yield np.ascontiguousarray(frames[..., sample])
