"""Sealed payloads and the folder that they lie in."""

from __future__ import annotations

import errno
import io
import os
import stat
from dataclasses import replace

import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.errors import CapacityError, GatewayError, IntegrityError, NotFoundError, VaultError
from gateway.keys import ChunkedWriter, canonical
from gateway.keys.chunked import CHUNK, HEADER_SIZE, TAG
from gateway.keys.envelope import new_dek, wrap_dek
from gateway.vault import PayloadOpener, open_payload, seal_payload, sealed
from tests.support.vault import facts_of

HEAD = 16 + 80  # header and wrapped key
OPENER = PayloadOpener()


def seal(vault, record, data: bytes) -> bytes:
    out = io.BytesIO()
    seal_payload(out, io.BytesIO(data), record, vault.sealing.restore_public)
    return out.getvalue()


def opened(vault, record, payload: bytes) -> bytes:
    """Read in both ways: in pieces, and whole in memory that all payloads of these tests share."""
    private = vault.opening.restore_private
    into = bytearray(b"\xa5" * (record.original_size + 100))
    try:
        pieces = b"".join(open_payload(io.BytesIO(payload), record, private))
    except GatewayError as error:
        with pytest.raises(type(error)) as caught:
            OPENER.read(io.BytesIO(payload), record, private, into)
        assert caught.value.code == error.code
        raise
    OPENER.read(file := io.BytesIO(payload), record, private, into)
    assert file.closed
    assert into[: record.original_size] == pieces
    return pieces


def code_of(call) -> str:
    with pytest.raises(GatewayError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_round_trip(vault, size):
    data = os.urandom(size)
    record = vault.records.create(facts_of(data))
    payload = seal(vault, record, data)
    assert opened(vault, record, payload) == data
    reader = open_payload(io.BytesIO(payload), record, vault.opening.restore_private)
    assert reader.read(10) == data[:10] and reader.read() == data[10:] and reader.read(5) == b""


def test_what_compresses_gets_small_and_nothing_shows(vault):
    data = b"PATIENT^NAME" * 100_000
    record = vault.records.create(facts_of(data))
    payload = seal(vault, record, data)
    assert len(payload) < 2000 and b"PATIENT" not in payload and payload != seal(vault, record, data)


def test_the_source_must_be_what_the_record_names(vault):
    record = vault.records.create(facts_of(b"data"))
    for wrong in (b"", b"datA", b"data+", b"dat"):
        assert code_of(lambda wrong=wrong: seal(vault, record, wrong)) == "source-differs"


def test_changes_in_every_region_are_noticed(vault):
    data = os.urandom(2 * CHUNK + 100)
    record = vault.records.create(facts_of(data))
    payload = seal(vault, record, data)
    first = HEAD + HEADER_SIZE
    regions = [*range(0, first, 3), first, first + CHUNK, first + CHUNK + TAG, len(payload) - TAG, len(payload) - 1]
    for position in regions:
        changed = bytearray(payload)
        changed[position] ^= 1
        with pytest.raises(IntegrityError):
            opened(vault, record, bytes(changed))


def test_truncation_and_reordering(vault):
    data = os.urandom(3 * CHUNK)
    record = vault.records.create(facts_of(data))
    payload = seal(vault, record, data)
    first, step = HEAD + HEADER_SIZE, CHUNK + TAG
    for length in (0, 10, HEAD, first, first + step - 1, first + step, first + 2 * step, len(payload) - 1):
        with pytest.raises(IntegrityError):
            opened(vault, record, payload[:length])
    swapped = payload[:first] + payload[first + step : first + 2 * step] + payload[first : first + step]
    with pytest.raises(IntegrityError):
        opened(vault, record, swapped + payload[first + 2 * step :])
    with pytest.raises(IntegrityError):
        opened(vault, record, payload + b"\0")


@pytest.mark.parametrize(
    "change",
    [
        {"vault_id": "other"},
        {"locator": "0" * 32},
        {"original_sop_uid": "9.9"},
        {"sop_class_uid": "9.9"},
        {"transfer_syntax_uid": "9.9"},
        {"original_size": 5},
        {"policy": "other"},
    ],
)
def test_a_payload_opens_under_its_own_record_only(vault, change):
    record = vault.records.create(facts_of(b"data"))
    payload = seal(vault, record, b"data")
    other = replace(record, **change)
    assert code_of(lambda: opened(vault, other, payload)) == "payload-of-another-record"


@pytest.mark.parametrize("kept", [0, 10, 60])
def test_what_cannot_be_opened_is_closed(vault, kept):
    """Also while somebody holds the error, as a retrieval does that reads ahead."""
    record = vault.records.create(facts_of(b"data"))
    payload = io.BytesIO(seal(vault, replace(record, policy="other"), b"data")[: kept or None])
    with pytest.raises(IntegrityError) as held:
        open_payload(payload, record, vault.opening.restore_private)
    assert payload.closed and held.value


def test_another_private_key(vault):
    record = vault.records.create(facts_of(b"data"))
    payload = seal(vault, record, b"data")
    stranger = X25519PrivateKey.generate()
    assert code_of(lambda: open_payload(io.BytesIO(payload), record, stranger)) == "other-restore-key"
    assert code_of(lambda: seal_payload(io.BytesIO(), io.BytesIO(b"data"), record, stranger.public_key())) == (
        "other-restore-key"
    )


def crafted(vault, record, compressed: bytes) -> bytes:
    """A payload as only a holder of the public key can make it, with any content."""
    context, dek, out = sealed.payload_context(record), new_dek(), io.BytesIO()
    wrapped = wrap_dek(dek, vault.sealing.restore_public, context)
    head = sealed._HEAD.pack(b"MGSP", 2, 1, bytes.fromhex(record.key_id), len(wrapped)) + wrapped
    out.write(head)
    chunks = ChunkedWriter(out, dek, b"miad/payload/2\0" + head + canonical(context))
    chunks.write(compressed)
    chunks.close()
    return out.getvalue()


def test_a_decompression_bomb_stops_at_the_records_size(vault):
    record = vault.records.create(facts_of(b"x" * 1000))
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    reader = open_payload(io.BytesIO(crafted(vault, record, bomb)), record, vault.opening.restore_private)
    given = 0
    with pytest.raises(IntegrityError) as caught:
        for piece in reader:
            given += len(piece)
    assert caught.value.code == "payload-length" and given <= 1000
    into = bytearray(5000)
    with pytest.raises(IntegrityError) as caught:
        OPENER.read(io.BytesIO(crafted(vault, record, bomb)), record, vault.opening.restore_private, into)
    assert caught.value.code == "payload-length" and len(into) == 5000


def test_a_window_that_asks_for_too_much_memory(vault):
    record = vault.records.create(facts_of(b"x" * 1000))
    wide = zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=wide).compressobj()  # no size in the frame: the window counts
    payload = crafted(vault, record, frame.compress(b"x" * 1000) + frame.flush())
    assert code_of(lambda: opened(vault, record, payload)) == "payload-tampered"


@pytest.mark.parametrize("content", ["short", "nothing", "two frames", "rubbish"])
def test_wrong_content_under_right_keys(vault, content):
    data = b"x" * 1000
    frame = zstandard.ZstdCompressor().compress(data)
    compressed = {
        "short": zstandard.ZstdCompressor().compress(data[:-1]),
        "nothing": b"",
        "two frames": frame + frame,
        "rubbish": b"rubbish" * 10,
    }[content]
    record = vault.records.create(facts_of(data))
    with pytest.raises(IntegrityError):
        opened(vault, record, crafted(vault, record, compressed))
    assert opened(vault, record, seal(vault, record, data)) == data  # what was wrong leaves nothing behind


def test_put_is_all_or_nothing_and_repeatable(vault):
    record = vault.records.create(facts_of(b"data"))

    def failing(out):
        out.write(b"half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        vault.payloads.put(record.locator, failing)
    assert not vault.payloads.exists(record.locator) and not list(vault.payloads.folder.iterdir())
    vault.put(record, b"data")
    before = (vault.payloads.folder / record.locator).read_bytes()
    vault.payloads.put(record.locator, failing)  # there already: not written again
    assert (vault.payloads.folder / record.locator).read_bytes() == before
    mode = stat.S_IMODE((vault.payloads.folder / record.locator).stat().st_mode)
    assert mode & 0o007 == 0
    assert list(vault.payloads.locators()) == [record.locator]
    assert vault.payloads.delete(record.locator) and not vault.payloads.delete(record.locator)
    with pytest.raises(NotFoundError) as caught:
        vault.payloads.open(record.locator)
    assert caught.value.code == "payload-missing"


def test_a_full_disk(vault):
    def full(out):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(CapacityError) as caught:
        vault.payloads.put("0" * 32, full)
    assert caught.value.code == "disk-full" and not list(vault.payloads.folder.iterdir())


@pytest.mark.parametrize("which", ["file", "folder"])
@pytest.mark.parametrize("there", [False, True])
def test_a_payload_whose_flush_failed_gets_a_file_an_entry_and_flushes_of_its_own(vault, monkeypatch, which, there):
    """The kernel drops what it could not write, so that a second flush of the same may succeed and lie."""
    record, folder, fsync = vault.records.create(facts_of(b"data")), vault.payloads.folder, os.fsync
    if there:  # of a process that was killed before it flushed the folder, or of another that did
        vault.put(record, b"data")

    def fails(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), folder.stat()) is (which == "folder"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(CapacityError) as caught:
            vault.put(record, b"data")
    assert caught.value.code == "disk-error" and caught.value.hint
    assert [path.name for path in folder.iterdir() if path.name.startswith(".new-")] == []
    left = {path.stat().st_ino for path in folder.iterdir()}
    kept = [path.open("rb") for path in folder.iterdir()]  # so that no inode's number is given anew
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    vault.put(record, b"data")
    inode = (folder / record.locator).stat().st_ino
    assert inode not in left and flushed == [inode, folder.stat().st_ino]
    assert opened(vault, record, (folder / record.locator).read_bytes()) == b"data"
    for file in kept:
        file.close()


def test_half_written_files_of_killed_processes(vault):
    left = vault.payloads.folder / ".new-0123"
    left.write_bytes(b"half")
    assert list(vault.payloads.locators()) == []
    assert vault.payloads.sweep(left.stat().st_mtime - 1) == 0 and left.exists()
    assert vault.payloads.sweep(left.stat().st_mtime + 1) == 1 and not left.exists()


@pytest.mark.parametrize("locator", ["", "..", "../" + "0" * 29, "A" * 32, "0" * 31, "0" * 32 + "\n"])
def test_a_locator_is_never_a_path(vault, locator):
    with pytest.raises(VaultError) as caught:
        vault.payloads.open(locator)
    assert caught.value.code == "bad-locator"
