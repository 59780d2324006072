"""A second search for pixels in other bytes, independent of `gateway.dicom.copy.traces`."""

from __future__ import annotations

import numpy as np

RUN = 64
_TABLE = 65521


def trace_of(frames: np.ndarray, outside: bytes) -> int | None:
    """Where in a form of the pixels a run begins that stands in `outside` as well; None: nowhere.

    Every run of 64 bytes covers 56 bytes from a multiple of 8 on: those are looked for, and the run around them. Runs
    of one value with little else, or of one step alone (tables), say nothing.
    """
    if len(outside) < RUN:
        return None
    heads = np.concatenate([np.frombuffer(outside, "<u8", (len(outside) - at) // 8, at) for at in range(8)])
    table = np.zeros(_TABLE, bool)
    table[heads % _TABLE] = True
    known = set(heads.tolist())
    for form in forms(frames):
        data = form.tobytes()
        words = np.frombuffer(data, "<u8", len(data) // 8)
        places = np.flatnonzero(table[words % _TABLE])
        for at in (places[[word in known for word in words[places].tolist()]] * 8).tolist():
            if data[at : at + RUN - 8] in outside:
                whole = (data[start : start + RUN] for start in range(max(at - 8, 0), at + 1))
                if any(len(run) == RUN and tells(run) and run in outside for run in whole):
                    return at
    return None


def forms(frames: np.ndarray) -> list[np.ndarray]:
    """As they are, every second of a row, every second of both; and these with the bytes of words swapped."""
    plain = [np.ascontiguousarray(one) for one in (frames, frames[:, :, ::2], frames[:, :, 1::2], frames[:, ::2, ::2])]
    return plain + [one.byteswap() for one in plain if one.itemsize == 2]


def tells(run: bytes) -> bool:
    """Whether a run is more than one step, or one value with little else."""
    steps = (set(np.diff(np.frombuffer(run, kind).astype(int)).tolist()) for kind in ("u1", "<u2"))
    commonest = max(run.count(value) for value in set(run))
    return all(len(different) > 2 for different in steps) and len(set(run)) >= 4 and commonest <= len(run) * 3 // 4
