"""A file of encrypted chunks: bounded memory, every byte authenticated, truncation and reordering noticed.

The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015) over AES-256-GCM. A file is a header of 80 bytes and
then chunks of `chunk` plaintext bytes, each followed by its tag; the last chunk may be shorter, and is empty only when
the whole plaintext is. Layout, byte by byte: deploy/formats.md, "chunked file".

The file's own key and a commitment to it come from the given key and a random salt by HKDF: plain GCM does not commit
to its key, and a given key may serve any number of files.
"""

from __future__ import annotations

import hmac
import io
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import SealError
from gateway.keys.derive import hkdf

MAGIC = b"MGCF"
VERSION = 1
CHUNK = 1 << 20
SMALLEST_CHUNK, LARGEST_CHUNK = 1 << 10, 1 << 24  # what a reader accepts: bounds its memory
TAG = 16
SALT = 32
_HEAD = struct.Struct(">4sBI32s32s7s")  # magic, version, chunk size, salt, commitment, nonce prefix
HEADER_SIZE = _HEAD.size
_MOST_CHUNKS = 1 << 32


class ChunkedWriter:
    """Encrypts what is written to it into `file`.

    Parameters
    ----------
    file
        Where the header and the chunks go; it is neither flushed nor closed here.
    key
        32 bytes.
    context
        What the reader must know as well: bound to every chunk, not stored.
    chunk
        Plaintext bytes per chunk.

    Only `close` makes the file complete: a file left without it reads as truncated.
    """

    def __init__(self, file: BinaryIO, key: bytes, context: bytes, chunk: int = CHUNK) -> None:
        if not SMALLEST_CHUNK <= chunk <= LARGEST_CHUNK:
            raise ValueError(f"chunk must be {SMALLEST_CHUNK} to {LARGEST_CHUNK} bytes, not {chunk}")
        salt, prefix = os.urandom(SALT), os.urandom(7)
        file_key, commitment = _file_key(key, salt)
        header = _HEAD.pack(MAGIC, VERSION, chunk, salt, commitment, prefix)
        file.write(header)
        self._file = file
        self._cipher = AESGCM(file_key)
        self._aad = header + context
        self._prefix = prefix
        self._chunk = chunk
        self._waiting = bytearray()
        self._count = 0
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take `data`; returns its length in bytes."""
        if self._closed:
            raise ValueError("write after close")
        view = memoryview(data).cast("B")
        taken = 0
        # the last full chunk waits: it may turn out to be the final one
        while len(self._waiting) + len(view) - taken > self._chunk:
            missing = self._chunk - len(self._waiting)
            self._put(self._waiting + view[taken : taken + missing], final=False)
            self._waiting = bytearray()
            taken += missing
        self._waiting += view[taken:]
        return len(view)

    def flush(self) -> None:
        """Nothing can be flushed before a chunk is full; here for those who expect a file."""

    def close(self) -> None:
        """Write the final chunk. Does not close the file beneath. May be called again."""
        if not self._closed:
            self._put(self._waiting, final=True)
            self._waiting = bytearray()
            self._closed = True

    def _put(self, plaintext: bytearray, *, final: bool) -> None:
        if self._count >= _MOST_CHUNKS:
            raise SealError("too-long", "more chunks than one file can number")
        self._file.write(self._cipher.encrypt(_nonce(self._prefix, self._count, final), plaintext, self._aad))
        self._count += 1


class Scratch:
    """Memory for one chunk, sealed and plain, that is used again and again: the system clears what it gives anew."""

    def __init__(self) -> None:
        self._sealed, self._plain = bytearray(), bytearray()

    def room(self, length: int) -> tuple[memoryview, memoryview]:
        """Room for `length` sealed bytes, and for what they hold."""
        if len(self._sealed) < length:
            self._sealed, self._plain = bytearray(length), bytearray(length)
        return memoryview(self._sealed)[:length], memoryview(self._plain)[: length - TAG]


class ChunkedReader(io.RawIOBase):
    """Decrypts a file of `ChunkedWriter`: readable, seekable, memory bounded by one chunk.

    Nothing is handed out before its chunk's tag was checked. That the *whole* file is there is known once the end was
    read: read until the empty answer before trusting completeness. Iterating yields plaintext chunk by chunk.
    `close` closes the file beneath.

    Parameters
    ----------
    file
        Seekable; the chunked file begins at its current position and reaches to its end.
    key, context
        As given to the writer.

    Raises
    ------
    SealError
        ``seal-format`` (not such a file, or a version or size that this reader does not know), ``truncated``,
        ``wrong-key`` (key, salt or commitment differ), ``tampered`` (a chunk, the header or the context differ).
    """

    def __init__(self, file: BinaryIO, key: bytes, context: bytes) -> None:
        super().__init__()
        header = file.read(HEADER_SIZE)
        if len(header) < HEADER_SIZE:
            raise SealError("truncated", "an encrypted file ends inside its header")
        magic, version, chunk, salt, commitment, prefix = _HEAD.unpack(header)
        if magic != MAGIC or version != VERSION or not SMALLEST_CHUNK <= chunk <= LARGEST_CHUNK:
            raise SealError("seal-format", "this is not an encrypted file of a known version")
        file_key, expected = _file_key(key, salt)
        if not hmac.compare_digest(commitment, expected):
            raise SealError("wrong-key", "another key encrypted this file, or the file's header was changed")
        start = file.tell()
        body = file.seek(0, io.SEEK_END) - start
        full, rest = divmod(body, chunk + TAG)
        count = full + (rest > 0)
        if count == 0 or 0 < rest < TAG:
            raise SealError("truncated", "an encrypted file ends too early")
        self._file = file
        self._cipher = AESGCM(file_key)
        self._aad = header + context
        self._prefix = prefix
        self._chunk = chunk
        self._start = start
        self._count = count
        self._size = body - count * TAG
        self._position = 0
        self._current: tuple[int, bytes] = (-1, b"")

    @property
    def size(self) -> int:
        """Plaintext bytes as the file's length tells; certain only once the end was read."""
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("seek before the start")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """`size` bytes, fewer only at the end; all that is left when negative or None."""
        wanted = self._size + 1 if size is None or size < 0 else size
        parts: list[bytes] = []
        while wanted > 0 and (part := self._part(wanted)):
            parts.append(part)
            wanted -= len(part)
        if wanted:  # the end was asked for: make sure that it is the end, also when the plaintext is empty
            self._load(self._count - 1)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readall(self) -> bytes:
        return self.read(-1)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        index, offset = divmod(self._position, self._chunk)
        length = min(self._chunk, self._size - self._position)
        if offset or not 0 < length <= len(view):
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)
        self._file.seek(self._start + index * (self._chunk + TAG))
        self._decrypt_into(index, memoryview(bytearray(length + TAG)), view[:length])
        self._position += length
        return length

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        part = self.read(self._chunk)
        if not part:
            raise StopIteration
        return part

    def pieces(self, scratch: Scratch) -> Iterator[memoryview]:
        """Every chunk from the first on, in memory that is used again: each is good until the next is asked for.

        Parameters
        ----------
        scratch
            For this alone while it runs.
        """
        self._file.seek(self._start)
        for index in range(self._count):
            sealed, plaintext = scratch.room(min(self._chunk, self._size - index * self._chunk) + TAG)
            self._decrypt_into(index, sealed, plaintext)
            yield plaintext

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()

    def _part(self, wanted: int) -> bytes:
        """At most `wanted` bytes from the chunk at the position; empty at the end."""
        if self._position >= self._size:
            return b""
        index, offset = divmod(self._position, self._chunk)
        plaintext = self._load(index)
        part = plaintext if offset == 0 and wanted >= len(plaintext) else plaintext[offset : offset + wanted]
        self._position += len(part)
        return part

    def _load(self, index: int) -> bytes:
        if self._current[0] == index:
            return self._current[1]
        self._file.seek(self._start + index * (self._chunk + TAG))
        final = index == self._count - 1
        sealed = self._file.read(self._chunk + TAG)
        plaintext = self._decrypt(sealed, index, final)
        if plaintext is None:
            self._explain(sealed, index, final)
        self._current = (index, plaintext)
        return plaintext

    def _decrypt_into(self, index: int, sealed: memoryview, plaintext: memoryview) -> None:
        """Read a chunk, at which the file stands, into `sealed`, and open it into `plaintext`."""
        if self._file.readinto(sealed) != len(sealed):  # type: ignore[attr-defined]  # of a buffered file: all there is
            raise SealError("truncated", "an encrypted file ends too early")
        final = index == self._count - 1
        try:
            self._cipher.decrypt_into(_nonce(self._prefix, index, final), sealed, self._aad, plaintext)
        except InvalidTag:
            plaintext[:] = bytes(len(plaintext))  # what was decrypted is nobody's
            self._explain(bytes(sealed), index, final)

    def _explain(self, sealed: bytes, index: int, final: bool) -> NoReturn:
        """Why a chunk does not open."""
        if final and self._decrypt(sealed, index, False) is not None:
            raise SealError("truncated", "an encrypted file ends too early, at the border of a chunk")
        raise SealError("tampered", f"chunk {index} of an encrypted file, or its context, was changed")

    def _decrypt(self, sealed: bytes, index: int, final: bool) -> bytes | None:
        try:
            return self._cipher.decrypt(_nonce(self._prefix, index, final), sealed, self._aad)
        except InvalidTag:
            return None


def _nonce(prefix: bytes, index: int, final: bool) -> bytes:
    return prefix + struct.pack(">IB", index, final)


def _file_key(key: bytes, salt: bytes) -> tuple[bytes, bytes]:
    if len(key) != 32:
        raise ValueError("a key has 32 bytes")
    return hkdf(key, "miad/chunked/1/key", salt), hkdf(key, "miad/chunked/1/commitment", salt)
