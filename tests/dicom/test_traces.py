"""The search for pixels in the rest of a copy, where that rest is long: it finds them all the same, in linear time."""

from __future__ import annotations

import time

import numpy as np
import pytest

from gateway.dicom.copy.traces import Traces

RNG = np.random.default_rng(36)
FRAMES = RNG.integers(0, 4096, (360, 64, 64)).astype("<u2")
LONG = RNG.bytes(2 << 20)  # as diverse as bytes can be: the tables fill up


def test_pixels_in_a_long_header_are_found_wherever_they_come_from():
    row = FRAMES[300, 40].tobytes()  # far behind the first blocks of the pixels
    place = 1_400_001
    assert Traces(LONG[:place] + row + LONG[place:]).find(FRAMES) == place
    thumbnail = np.ascontiguousarray(FRAMES[300, ::2, ::2]).byteswap().tobytes()
    assert Traces(LONG[:place] + thumbnail + LONG[place:]).find(FRAMES) is not None


@pytest.mark.parametrize("repeated", [False, True])
def test_the_search_takes_seconds_at_most(repeated):
    """Minutes, when each hash that met another cost a search of its own."""
    outside = FRAMES[0, 0, :8].tobytes() * (len(LONG) // 16) if repeated else LONG
    frames = np.tile(FRAMES[0, 0, :8], 512 * 360).reshape(FRAMES.shape[0], 64, 64) if repeated else FRAMES
    frames = frames ^ (np.arange(frames.size) % 61 == 0).reshape(frames.shape) if repeated else frames
    begin = time.process_time()
    Traces(outside).find(frames.astype("<u2"))
    assert time.process_time() - begin < 10
