"""Traces of an original's pixels in bytes that must not hold any: the self-check of a marked copy (promise 3).

A trace is a run of `RUN` bytes or more, neither background nor one step alone, that stands in the pixels too: as they
are, with the bytes of their words swapped, or every second pixel of a row or of rows and columns (thumbnails). What was
scaled, windowed or compressed on its way is not found so: the rule of `gateway.dicom.copy.bulk` keeps that out.

Every run of `RUN` bytes covers a whole block of `_BLOCK` bytes at a multiple of `_BLOCK`. So the blocks of the pixels
are looked up by a hash among all blocks of the other bytes, wherever they begin; what is found there is compared. The
other bytes are gone through once for their hashes, and once more for the places of those hashes that the pixels have
too: however long they are, the time is linear in them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RUN = 64
_ENOUGH = RUN - 2  # a run of swapped words may begin and end within a word
_BLOCK = 16
_LEAST_BITS, _MOST_BITS = 20, 26  # of the tables: 8 places for each byte outside, 64 MiB each at most
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
        self._tables = _Tables(len(outside))
        for form in self._forms:
            for _, mixed in _hashes(form):
                self._tables.add(mixed)

    def find(self, frames: np.ndarray) -> int | None:
        """Where in `outside` a trace of these frames begins; None without one.

        Parameters
        ----------
        frames
            Containers of 8 or 16 bits, (N, H, W) or (N, H, W, 3), or bytes as they came, (n,) uint8.
        """
        if len(self._forms[0]) < RUN:
            return None
        met = [self._met(pixels) for pixels in _forms_of(frames)]
        wanted = np.unique(np.concatenate([hashes for _, hashes in met]))
        places = [_places(form, wanted) for form in self._forms] if wanted.size else []
        numbers = np.array(sorted({number for found in places for number in found}), np.int64)
        if not numbers.size:
            return None
        for pixels, (blocks, hashes) in zip(_forms_of(frames), met, strict=True):
            there = np.flatnonzero(np.isin(hashes, wanted[numbers]))[:_MAX_COMPARED]
            data = pixels.reshape(-1).view(np.uint8)
            for block, number in zip(blocks[there], np.searchsorted(wanted, hashes[there]), strict=True):
                for form, found in zip(self._forms, places, strict=True):
                    if (place := _compared(form, found.get(int(number), []), data, int(block) * _BLOCK)) is not None:
                        return place
        return None

    def _met(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Blocks of the pixels that may stand outside, the first of each hash, and their hashes."""
        data = pixels.reshape(-1).view(np.uint8)
        words = data[: data.size // _BLOCK * _BLOCK].view("<u8").reshape(-1, 2)
        mixed = _mixed(words[:, 0], words[:, 1])
        candidates = self._tables.among(mixed)
        candidates = candidates[_telling(words[candidates])]
        candidates = np.sort(candidates[np.unique(mixed[candidates], return_index=True)[1]])
        return candidates, mixed[candidates]


class _Tables:
    """A set of hashes that may hold more than was put into it, by few."""

    def __init__(self, size: int) -> None:
        bits = min(max((8 * size).bit_length(), _LEAST_BITS), _MOST_BITS)
        self._shift, self._mask = np.uint64(64 - bits), np.uint64((1 << bits) - 1)
        self._first, self._second = np.zeros((2, 1 << bits), bool)

    def add(self, mixed: np.ndarray) -> None:
        self._first[mixed >> self._shift] = True
        self._second[mixed & self._mask] = True

    def among(self, mixed: np.ndarray) -> np.ndarray:
        """Indices of those that were added, and of a few others."""
        found = np.flatnonzero(self._first[mixed >> self._shift])
        return found[self._second[mixed[found] & self._mask]]


def _hashes(form: bytes) -> Iterator[tuple[int, np.ndarray]]:
    """Of all blocks in `form`, in eight parts: the place of the first, and the hashes of those at every eighth byte."""
    for start in range(min(8, max(len(form) - _BLOCK + 1, 0))):
        words = np.frombuffer(form, "<u8", (len(form) - start) // 8, start)
        yield start, _mixed(words[:-1], words[1:])


def _places(form: bytes, wanted: np.ndarray) -> dict[int, list[int]]:
    """Where in `form` blocks with these hashes (sorted) begin: index -> the first `_MAX_PLACES` places."""
    tables = _Tables(len(wanted))
    tables.add(wanted)
    where, which = [], []
    for start, mixed in _hashes(form):
        near = tables.among(mixed)
        number = np.minimum(np.searchsorted(wanted, mixed[near]), len(wanted) - 1)
        exact = wanted[number] == mixed[near]
        where.append(near[exact] * 8 + start)
        which.append(number[exact])
    if not any(map(len, which)):
        return {}
    place, index = np.concatenate(where), np.concatenate(which)
    order = np.lexsort((place, index))
    place, index = place[order], index[order]
    numbers, begins = np.unique(index, return_index=True)
    ends = [*begins[1:].tolist(), len(index)]
    return {
        int(number): place[begin : min(end, begin + _MAX_PLACES)].tolist()
        for number, begin, end in zip(numbers, begins, ends, strict=True)
    }


def _compared(form: bytes, places: list[int], data: np.ndarray, start: int) -> int | None:
    """A place in `form` that agrees with `data` over a whole run around the block at `start`."""
    for at in places:
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
