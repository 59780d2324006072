"""Chunked encryption: round trips at every border, and every way of changing a file is noticed."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import SealError
from gateway.keys import ChunkedReader, ChunkedWriter, Scratch
from gateway.keys.chunked import HEADER_SIZE, TAG
from tests.support.examples import examples

KEY, CONTEXT, CHUNK = bytes(range(32)), b"context", 1024
SCRATCH = Scratch()
SEALED = CHUNK + TAG


def sealed(data: bytes, context: bytes = CONTEXT, step: int = 700) -> bytes:
    file = io.BytesIO()
    writer = ChunkedWriter(file, KEY, context, CHUNK)
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
    writer.close()
    return file.getvalue()


def opened(file: bytes, key: bytes = KEY, context: bytes = CONTEXT) -> bytes:
    """Read in each way: at once, piece by piece in memory that all files of these tests share, and into a buffer."""
    found = []
    for read in (ChunkedReader.read, lambda reader: b"".join(map(bytes, reader.pieces(SCRATCH))), read_into):
        try:
            found.append(read(ChunkedReader(io.BytesIO(file), key, context)))
        except SealError as error:
            found.append(error)
    whole, *others = found
    if isinstance(whole, SealError):
        assert {getattr(other, "code", None) for other in others} == {whole.code}
        raise whole
    assert others == [whole, whole]
    return whole


def read_into(reader: ChunkedReader) -> bytes:
    buffer, found = bytearray(CHUNK + 1), b""
    while count := reader.readinto(memoryview(buffer)):
        found += buffer[:count]
    return found


def code_of(file: bytes, **changes: bytes) -> str:
    with pytest.raises(SealError) as caught:
        opened(file, **changes)
    return caught.value.code


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3000), st.integers(0, 2600)), max_size=8))
@examples(200)
def test_it_reads_as_a_file_in_memory_does(steps):
    """Read and read into, from anywhere, in any order."""
    data = os.urandom(2600)
    ours, plain = ChunkedReader(io.BytesIO(sealed(data)), KEY, CONTEXT), io.BytesIO(data)
    for into, size, position in steps:
        ours.seek(position)
        plain.seek(position)
        wanted = plain.read(size)
        if into:
            buffer = bytearray(size)
            count = ours.readinto(memoryview(buffer))
            assert bytes(buffer[:count]) == wanted[:count] and (count > 0) == bool(wanted)
        else:
            assert ours.read(size) == wanted


def test_what_was_changed_does_not_stay_in_the_buffer():
    file = bytearray(sealed(bytes([255]) * 2 * CHUNK))
    file[-TAG - 1] ^= 1
    reader, buffer = ChunkedReader(io.BytesIO(file), KEY, CONTEXT), bytearray(CHUNK)
    assert reader.readinto(memoryview(buffer)) == CHUNK
    with pytest.raises(SealError, match="changed"):
        reader.readinto(memoryview(buffer))
    assert not any(buffer)


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("step", [1, 1024, 9000])
def test_round_trip_and_length(size, step):
    data = os.urandom(size)
    file = sealed(data, step=step)
    assert len(file) == HEADER_SIZE + size + TAG * max(1, -(-size // CHUNK))
    assert opened(file) == data
    assert b"".join(ChunkedReader(io.BytesIO(file), KEY, CONTEXT)) == data


@examples(50)
@given(st.lists(st.tuples(st.integers(0, 5100), st.integers(0, 3000)), max_size=8))
def test_seek_and_read_as_a_plain_file(moves):
    data = bytes(i * 7 % 251 for i in range(5000))
    reader, plain = ChunkedReader(io.BytesIO(sealed(data)), KEY, CONTEXT), io.BytesIO(data)
    assert reader.seek(0, io.SEEK_END) == reader.size == 5000
    for position, size in moves:
        assert reader.seek(position) == plain.seek(position)
        assert reader.read(size) == plain.read(size)
        assert reader.tell() == (plain.tell() if position <= 5000 else position)


def test_every_byte_is_authenticated():
    file = sealed(b"x" * 2500)
    for position in range(len(file)):
        changed = bytearray(file)
        changed[position] ^= 1
        assert code_of(bytes(changed)) in ("tampered", "wrong-key", "seal-format", "truncated"), position


def test_truncation_everywhere_is_noticed():
    file = sealed(b"x" * 3000)
    for length in range(len(file)):
        code = code_of(file[:length])
        assert code in ("truncated", "tampered")
        if length > HEADER_SIZE and (length - HEADER_SIZE) % SEALED == 0:
            assert code == "truncated"  # the border of a chunk is told for sure


def test_a_file_without_its_close_is_truncated():
    file = io.BytesIO()
    ChunkedWriter(file, KEY, CONTEXT, CHUNK).write(b"x" * 3000)
    assert code_of(file.getvalue()) == "truncated"


def test_reordered_doubled_dropped_and_appended_chunks():
    file = sealed(os.urandom(4 * CHUNK))
    head, chunks = file[:HEADER_SIZE], [file[HEADER_SIZE + i * SEALED :][:SEALED] for i in range(4)]
    for order in ([1, 0, 2, 3], [0, 0, 2, 3], [0, 2, 3], [0, 1, 2, 3, 3], [1, 2, 3], [3]):
        assert code_of(head + b"".join(chunks[i] for i in order)) == "tampered"
    assert code_of(file + b"\0") == "truncated" and code_of(file + b"\0" * 40) == "tampered"


def test_chunks_of_another_file_under_the_same_key():
    one, other = sealed(b"a" * 3000), sealed(b"b" * 3000)
    assert code_of(one[: HEADER_SIZE + SEALED] + other[HEADER_SIZE + SEALED :]) == "tampered"


def test_wrong_key_and_wrong_context():
    file = sealed(b"x")
    assert code_of(file, key=bytes(32)) == "wrong-key"
    assert code_of(file, context=b"other") == "tampered"


def test_an_empty_file_is_authenticated_too():
    file = bytearray(sealed(b""))
    file[-1] ^= 1
    assert code_of(bytes(file)) == "tampered"


@pytest.mark.parametrize("chunk", [0, 1023, (1 << 24) + 1, 0xFFFFFFFF])
def test_a_header_cannot_ask_for_any_memory(chunk):
    file = bytearray(sealed(b"x"))
    file[5:9] = chunk.to_bytes(4, "big")
    assert code_of(bytes(file)) == "seal-format"


def test_closing_the_reader_closes_the_file():
    file = io.BytesIO(sealed(b"x"))
    ChunkedReader(file, KEY, CONTEXT).close()
    assert file.closed
