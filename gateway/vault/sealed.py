"""A sealed payload: the received bytes, compressed, encrypted under a key that only the restore role can open.

zstd (level 1, streaming) inside chunked AES-256-GCM under a fresh key (DEK) per payload; the DEK is sealed by HPKE to
the restore role's public key. DEK and every chunk are bound to the record's facts, so that a payload put in another
record's place does not open. Layout: deploy/formats.md, "sealed payload".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import IO, BinaryIO, cast

import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.errors import IntegrityError, SealError, VaultError
from gateway.keys import ChunkedReader, ChunkedWriter, Scratch, canonical, key_id
from gateway.keys.envelope import WRAPPED_SIZE, new_dek, unwrap_dek, wrap_dek
from gateway.vault.record import INDEXED_VERSION, VaultRecord

MAGIC = b"MGSP"
VERSION = 2  # what it is bound to names the original in full; version 1 did not name study, series, generation, digest
_VERSIONS = (1, VERSION)
ZSTD = 1
_HEAD = struct.Struct(">4sBB8sH")  # magic, version, compression, key id, length of the wrapped DEK
_LABEL = {1: b"miad/payload/1\0", 2: b"miad/payload/2\0"}
_BOUND = ("study_uid", "original_series_uid", "generation", "original_sha256")  # beside what version 1 binds
_LEVEL = 1
_PIECE = 1 << 20  # bytes handled at a time
_LARGEST_WINDOW = 1 << 23  # bytes of memory that a zstd frame may ask for


def seal_payload(out: BinaryIO, source: BinaryIO, record: VaultRecord, restore_public: X25519PublicKey) -> None:
    """Seal all that `source` holds into `out`, for `record`.

    Raises
    ------
    VaultError
        ``source-differs`` when `source` is not, by length and SHA-256, the original that the record names;
        ``other-restore-key`` when the record names another key. What was written to `out` is then to be thrown away.
    """
    if key_id(restore_public) != record.key_id:
        raise VaultError("other-restore-key", f"record {record.locator} names another restore key")
    context = payload_context(record)
    dek = new_dek()
    wrapped = wrap_dek(dek, restore_public, context)
    version = payload_version(record)
    head = _HEAD.pack(MAGIC, version, ZSTD, bytes.fromhex(record.key_id), len(wrapped)) + wrapped
    out.write(head)
    chunks = ChunkedWriter(out, dek, _LABEL[version] + head + canonical(context))
    compressor = zstandard.ZstdCompressor(level=_LEVEL).stream_writer(cast(IO[bytes], chunks), closefd=False)
    digest, size = hashlib.sha256(), 0
    while piece := source.read(_PIECE):
        digest.update(piece)
        size += len(piece)
        compressor.write(piece)
    if size != record.original_size or digest.hexdigest() != record.original_sha256:
        raise VaultError("source-differs", f"what is to be sealed is not the original of record {record.locator}")
    compressor.flush(zstandard.FLUSH_FRAME)
    chunks.close()


class PayloadOpener:
    """Opens payloads whole, one after the other, in memory that is used again. For one thread at a time."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)

    def read(self, file: BinaryIO, record: VaultRecord, private: X25519PrivateKey, into: bytearray) -> None:
        """Write the original's bytes to the beginning of `into`, and close `file`.

        Parameters
        ----------
        into
            At least a byte longer than the original.

        Raises
        ------
        IntegrityError, SealError
            As `open_payload` and `PayloadReader.read`.
        """
        with closing(_open_chunks(file, record, private)) as chunks, _told_of(record):
            pieces, size = chunks.pieces(self._scratch), record.original_size
            source = cast(IO[bytes], _Pieces(pieces))
            with self._decompressor.stream_reader(source, read_size=_PIECE, closefd=False) as plain:
                length = plain.readinto(memoryview(into)[:size])
                # asking for one more byte shows a payload that is too long, and at most that one byte of it
                length += plain.readinto(memoryview(into)[size : size + 1])
            if length != size or next(pieces, None):
                raise IntegrityError(
                    "payload-length", f"the payload of record {record.locator} has not the record's length"
                )


class _Pieces:
    """What zstd reads from: one chunk at a time, however much it asks for."""

    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces

    def read(self, size: int) -> memoryview | bytes:
        return next(self._pieces, b"")


def open_payload(file: BinaryIO, record: VaultRecord, private: X25519PrivateKey) -> PayloadReader:
    """Read a payload that was made for `record`; closing the answer closes `file`, and so does an error.

    Raises
    ------
    IntegrityError
        ``payload-format``, ``payload-of-another-record`` (other facts, or a changed header), ``payload-tampered``.
    SealError
        ``other-restore-key``: sealed to a key that is not ours.
    """
    return PayloadReader(_open_chunks(file, record, private), record)


def _open_chunks(file: BinaryIO, record: VaultRecord, private: X25519PrivateKey) -> ChunkedReader:
    """The compressed bytes of a payload; `file` is closed with what is returned, or where that cannot be had."""
    try:
        return _chunks_of(file, record, private)
    except BaseException:
        file.close()  # not when the error is forgotten: a vault of damaged payloads would take all descriptors
        raise


def _chunks_of(file: BinaryIO, record: VaultRecord, private: X25519PrivateKey) -> ChunkedReader:
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise IntegrityError("payload-format", f"the payload of record {record.locator} ends inside its header")
    magic, version, compression, sealed_to, length = _HEAD.unpack(head)
    if magic != MAGIC or version not in _VERSIONS or compression != ZSTD or length != WRAPPED_SIZE:
        raise IntegrityError("payload-format", f"the payload of record {record.locator} is of no known version")
    if version != payload_version(record):
        raise IntegrityError(
            "payload-of-another-record",
            f"the payload of record {record.locator} is of version {version}, not of its record's"
            f" {payload_version(record)}",
        )
    if sealed_to.hex() != record.key_id:
        raise IntegrityError("payload-of-another-record", f"the payload of record {record.locator} names another key")
    if record.key_id != _id_of(private):
        raise SealError("other-restore-key", f"record {record.locator} is sealed to another restore key")
    wrapped = file.read(length)
    context = payload_context(record)
    try:
        dek = unwrap_dek(wrapped, private, context)
    except SealError:
        raise IntegrityError(
            "payload-of-another-record", f"the payload of record {record.locator} belongs to another, or was changed"
        ) from None
    with _told_of(record):
        return ChunkedReader(file, dek, _LABEL[version] + head + wrapped + canonical(context))


@lru_cache(maxsize=4)
def _id_of(private: X25519PrivateKey) -> str:
    """Of the few keys that one process opens with: the public half has to be computed."""
    return key_id(private.public_key())


class PayloadReader:
    """The original's bytes, with bounded memory and never more of them than the record says."""

    def __init__(self, chunks: ChunkedReader, record: VaultRecord) -> None:
        self._chunks = chunks
        self._record = record
        self._left = record.original_size
        decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
        self._plain = decompressor.stream_reader(cast(IO[bytes], chunks), read_size=_PIECE, closefd=False)

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer only at the end, where the payload is known to be complete.

        Raises
        ------
        IntegrityError
            ``payload-tampered`` or ``payload-length``.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        with _told_of(self._record):
            # asking for one more byte than is left shows a payload that is too long, and at most that one byte of it
            data = self._plain.read(wanted + (wanted == self._left))
            if len(data) > self._left or (len(data) < wanted):
                raise IntegrityError(
                    "payload-length", f"the payload of record {self._record.locator} has not the record's length"
                )
            self._left -= len(data)
            if self._left == 0 and self._chunks.read(1):
                raise IntegrityError("payload-length", f"bytes follow the payload of record {self._record.locator}")
        return data

    def __iter__(self) -> Iterator[bytes]:
        while True:
            piece = self.read(_PIECE)
            if not piece:
                return
            yield piece

    def close(self) -> None:
        self._chunks.close()


def payload_version(record: VaultRecord) -> int:
    """Of the payload that belongs to this record."""
    return VERSION if record.version >= INDEXED_VERSION else 1


def payload_context(record: VaultRecord) -> dict[str, object]:
    """What DEK and chunks are bound to (architecture, life of an instance, step 3).

    A record that is moved to another study, or made to name another original, opens no payload of version 2.
    """
    version = payload_version(record)
    more = {} if version == 1 else {name: getattr(record, name) for name in _BOUND}
    return more | {
        "version": version,
        "vault": record.vault_id,
        "key_id": record.key_id,
        "locator": record.locator,
        "sop_class_uid": record.sop_class_uid,
        "original_sop_uid": record.original_sop_uid,
        "transfer_syntax_uid": record.transfer_syntax_uid,
        "original_size": record.original_size,
        "policy": record.policy,
    }


@contextmanager
def _told_of(record: VaultRecord) -> Iterator[None]:
    """What does not decrypt or decompress, as what became of this record's payload."""
    try:
        yield
    except SealError as error:
        raise IntegrityError("payload-tampered", f"the payload of record {record.locator}: {error.message}") from None
    except zstandard.ZstdError:
        raise IntegrityError(
            "payload-tampered", f"the payload of record {record.locator} does not decompress"
        ) from None
