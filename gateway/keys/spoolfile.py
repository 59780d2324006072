"""Files that wait on disk: received ones and derived ones, under different keys, each bound to its name."""

from __future__ import annotations

from typing import BinaryIO

from gateway.errors import SealError
from gateway.keys.chunked import ChunkedReader, ChunkedWriter
from gateway.keys.derive import hkdf

_SPOOL_LABEL = "miad/spool/1"
_DERIVED_LABEL = "miad/derived/1"


class SpoolCipher:
    """Writes and reads spool files. A file moved to another name does not open.

    Parameters
    ----------
    spool_key
        32 bytes, of every role that receives.
    label
        Of the key's use (deploy/formats.md, "labels").
    """

    def __init__(self, spool_key: bytes, label: str = _SPOOL_LABEL) -> None:
        self._key = hkdf(spool_key, label)
        self._label = label

    def writer(self, file: BinaryIO, name: str) -> ChunkedWriter:
        """Encrypt into `file`; call `close` on the answer, then fsync and close the file."""
        return ChunkedWriter(file, self._key, self._context(name))

    def reader(self, file: BinaryIO, name: str) -> ChunkedReader:
        """Decrypt what `writer` made under the same name; closing the answer closes `file`. SealError as
        `ChunkedReader`.
        """
        return ChunkedReader(file, self._key, self._context(name))

    def _context(self, name: str) -> bytes:
        return f"{self._label}\0{name}".encode()


class DerivedCipher(SpoolCipher):
    """Writes and reads derived files, under a key that the receiving role does not have.

    Parameters
    ----------
    mark_key
        32 bytes, of the role that marks.
    spool_key
        Opens derived files of versions that wrote them under the spool's key; what is in them is checked against a
        signed digest, as all that leaves.
    """

    def __init__(self, mark_key: bytes, spool_key: bytes) -> None:
        super().__init__(mark_key, _DERIVED_LABEL)
        self._before = SpoolCipher(spool_key)

    def reader(self, file: BinaryIO, name: str) -> ChunkedReader:
        """Decrypt a derived file; SealError as `ChunkedReader`."""
        try:
            return super().reader(file, name)
        except SealError as error:
            if error.code != "wrong-key":
                raise
            file.seek(0)
            return self._before.reader(file, name)
