"""The residual codec: any two images give each other back, and what a mark changes is short."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.dicom.residual import original_of, residual
from gateway.errors import DicomError

TYPES = st.sampled_from([np.uint8, np.uint16])


@st.composite
def pairs(draw):
    """An original and a marked copy: equal, a little different, or with nothing in common."""
    kind, length = draw(TYPES), draw(st.integers(0, 200))
    original = draw(arrays.arrays(kind, length))
    if draw(st.booleans()):
        return original, draw(arrays.arrays(kind, length))
    change = draw(arrays.arrays(np.int8, length, fill=st.just(0)))
    return original, original + change.astype(kind)


@settings(deadline=None)
@given(pairs())
def test_the_original_comes_back(pair):
    original, marked = pair
    planes = residual(original, marked)
    back = original_of(planes, marked)
    assert back.dtype == original.dtype and np.array_equal(back, original)
    assert len(planes) == original.nbytes
    if np.array_equal(original, marked):
        assert not any(planes)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_ends_of_the_container(kind):
    low, high = 0, np.iinfo(kind).max
    original = np.array([low, high, low, high, high // 2], kind)
    marked = np.array([high, low, low, high, high // 2 + 1], kind)
    planes = residual(original, marked)
    assert np.array_equal(original_of(planes, marked), original)
    assert list(planes[:5]) == [2, 1, 0, 0, 1]  # 1, -1, 0, 0, -1: around the end of the container is one step


def test_few_small_differences_are_short():
    rng = np.random.default_rng(1)
    original = rng.integers(0, 4096, 65536).astype(np.uint16)
    marked = original.copy()
    marked[20000:30000] += np.where(rng.random(10000) < 0.5, 60, 40).astype(np.uint16)
    assert len(zstandard.compress(residual(original, marked), 19)) < 2000  # one bit for each, and little else


@pytest.mark.parametrize("planes", [b"", b"\0" * 7, b"\0" * 9])
def test_planes_of_another_length(planes):
    with pytest.raises(DicomError) as caught:
        original_of(planes, np.zeros(4, np.uint16))
    assert caught.value.code == "carried-format"


@pytest.mark.parametrize(
    ("original", "marked"),
    [
        (np.zeros(4, np.uint8), np.zeros(4, np.uint16)),
        (np.zeros(4, np.int16), np.zeros(4, np.int16)),
        (np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)),
    ],
)
def test_only_flat_containers_have_a_residual(original, marked):
    with pytest.raises(ValueError):
        residual(original, marked)
