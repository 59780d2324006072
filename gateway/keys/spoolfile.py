"""What waits on disk, encrypted: received data sets and what is known of them; derived files under their own key."""

from __future__ import annotations

import os
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.errors import SealError
from gateway.keys.chunked import ChunkedReader, ChunkedWriter
from gateway.keys.derive import hkdf

_SPOOL_LABEL = "miad/spool/1"
_FACTS_LABEL = "miad/segment-facts/1"
_DERIVED_LABEL = "miad/derived/1"
_NONCE, _TAG = 12, 16


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
        self._facts_key = hkdf(spool_key, _FACTS_LABEL)
        self._label = label

    def writer(self, file: BinaryIO, name: str) -> ChunkedWriter:
        """Encrypt into `file`; call `close` on the answer, then fsync and close the file."""
        return ChunkedWriter(file, self._key, self._context(name))

    def reader(self, file: BinaryIO, name: str) -> ChunkedReader:
        """Decrypt what `writer` made under the same name; closing the answer closes `file`. SealError as
        `ChunkedReader`.
        """
        return ChunkedReader(file, self._key, self._context(name))

    def seal_facts(self, facts: bytes, name: str) -> bytes:
        """Encrypt what is known of the data set `name`: nonce || ciphertext || tag."""
        nonce = os.urandom(_NONCE)
        return nonce + self._facts_cipher(name).encrypt(nonce, facts, name.encode())

    def open_facts(self, sealed: bytes, name: str) -> bytes:
        """Decrypt what `seal_facts` made under the same name.

        Raises
        ------
        SealError
            ``tampered``: key, name or bytes are others.
        """
        if len(sealed) < _NONCE + _TAG:
            raise SealError("truncated", "the facts of a received instance end too early")
        try:
            return self._facts_cipher(name).decrypt(sealed[:_NONCE], sealed[_NONCE:], name.encode())
        except InvalidTag:
            raise SealError("tampered", "the facts of a received instance, or the spool key, are others") from None

    def _facts_cipher(self, name: str) -> AESGCM:
        # a key for each record: however many a site receives, no key meets many random nonces
        return AESGCM(hkdf(self._facts_key, _FACTS_LABEL, name.encode()))

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
