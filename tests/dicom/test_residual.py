"""The residual codec: any two images give each other back, and what a mark changes is short."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.dicom.copy.carried_body import pack, rebuild
from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.dicom.pixels.residual import original_of, residual
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.support.dicom.samples import encode, facts, image, slightly_changed
from tests.support.examples import examples

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


@examples(100)
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


# --- the body that a marked copy carries (deploy/formats.md, "carried body")

ORIGINAL = encode(image(BitsStored=12))
MARKED = slightly_changed(decode_pixels(ORIGINAL, EXPLICIT_LITTLE).frames, (0, 4095))
COPY = derive(ORIGINAL, EXPLICIT_LITTLE, MARKED, facts())
BODY = pack(ORIGINAL, EXPLICIT_LITTLE, decode_pixels(ORIGINAL, EXPLICIT_LITTLE), MARKED)
HEAD = 58  # bytes before the zstd frame
CUTS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.binary(max_size=9)), min_size=1, max_size=3)


def cut(data: bytes, cuts: list[tuple[float, int, bytes]]) -> bytes:
    """The data with some bytes taken out and others put in."""
    for where, out, junk in cuts:
        at = int(where * len(data))
        data = data[:at] + junk + data[at + out :]
    return data


def rebuilt(body: bytes) -> bytes | None:
    """What comes of a body; None for the typed error."""
    tracemalloc.start()
    try:
        return rebuild(body, len(ORIGINAL), COPY, EXPLICIT_LITTLE)
    except DicomError as error:
        assert error.code in ("carried-format", "marked-pixels-changed")
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20  # whatever sizes it claims: the original and its copy have 1 KiB


@examples(200)
@given(cuts=CUTS)
def test_a_damaged_body_is_refused_or_has_the_length_of_the_original(cuts):
    out = rebuilt(cut(BODY, cuts))
    assert out is None or len(out) == len(ORIGINAL)


@examples(200)
@given(cuts=CUTS)
def test_no_damage_to_the_residual_passes_for_the_original(cuts):
    content = zstandard.decompress(BODY[HEAD:])
    other = (cut(content, cuts) + bytes(len(content)))[: len(content)]
    out = rebuilt(BODY[:HEAD] + zstandard.compress(other))
    assert (out == ORIGINAL) == (other == content)  # so the signed digest of the original tells every change


@examples(100)
@given(sizes=st.tuples(*[st.sampled_from((0, 1, 6, 8, 0xFFFF, 0xFFFFFFFF))] * 3), offset=st.sampled_from((0, 2**63)))
def test_a_body_that_claims_any_size_is_refused_before_memory_is_taken(sizes, offset):
    if (sizes, offset) == ((1, 6, 8), 0):
        sizes = (1, 8, 6)
    head = BODY[:34] + struct.pack(">QIII", offset, *sizes) + BODY[54:HEAD]
    assert rebuilt(head + BODY[HEAD:]) is None


@pytest.mark.parametrize("says_its_size", [True, False])
def test_a_body_that_inflates_is_refused_before_memory_is_taken(says_its_size):
    bomb = zstandard.ZstdCompressor(write_content_size=says_its_size).compress(bytes(64 << 20))
    assert len(bomb) < 10_000 and rebuilt(BODY[:HEAD] + bomb) is None
