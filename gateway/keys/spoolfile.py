"""Spool files: encrypted under the key of the receiving roles, each bound to its name."""

from __future__ import annotations

from typing import BinaryIO

from gateway.keys.chunked import ChunkedReader, ChunkedWriter
from gateway.keys.derive import hkdf

_LABEL = "miad/spool/1"


class SpoolCipher:
    """Writes and reads spool files. A file moved to another name does not open."""

    def __init__(self, spool_key: bytes) -> None:
        self._key = hkdf(spool_key, _LABEL)

    def writer(self, file: BinaryIO, name: str) -> ChunkedWriter:
        """Encrypt into `file`; call `close` on the answer, then fsync and close the file."""
        return ChunkedWriter(file, self._key, _context(name))

    def reader(self, file: BinaryIO, name: str) -> ChunkedReader:
        """Decrypt `file`; errors as `ChunkedReader`. Closing the answer closes the file."""
        return ChunkedReader(file, self._key, _context(name))


def _context(name: str) -> bytes:
    return _LABEL.encode("ascii") + b"\0" + name.encode("utf-8")
