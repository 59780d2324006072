"""Originals out of their marked copies alone: no vault, no database, only the private key and the trusted signers.

The order of work keeps foreign bytes away from codecs: key and payload are opened, signer, signature and digest of the
body checked, and only then are the copy's pixels decoded. What comes out is compared with the signed SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import io
from collections.abc import Iterator
from typing import BinaryIO

from gateway.dicom.copy.carried_body import read_copy, rebuild
from gateway.errors import DicomError, IntegrityError, VaultError
from gateway.keys import OpeningKeys
from gateway.restore.agreement import check_agreement
from gateway.restore.ofrecord import OfRecord
from gateway.vault import Carried, open_carried

_PIECE = 1 << 20


class CopyRestorer:
    """Rebuilds originals from what marked copies carry. Safe for any number of threads.

    Parameters
    ----------
    keys
        Private restore key and accepted signers.
    """

    def __init__(self, keys: OpeningKeys) -> None:
        self._keys = keys

    def by_copy(self, copy: BinaryIO, transfer_syntax_uid: str) -> CarriedOriginal:
        """The original that a marked copy carries; nothing is rebuilt before `CarriedOriginal.verify`.

        Parameters
        ----------
        copy
            The marked copy as it came back: seekable, at the beginning of its data set.

        Raises
        ------
        DicomError
            ``nothing-carried``, and when it is no readable data set.
        SealError
            As `gateway.vault.open_carried`.
        """
        start = copy.tell()
        uid, block = read_copy(copy, transfer_syntax_uid)
        if block is None or block.sealed_key is None or block.payload is None:
            raise DicomError(
                "nothing-carried",
                "the object carries no sealed original: it is no marked copy, or its private elements were dropped",
                "restore it where the vault is, if the route kept one",
            )
        carried = open_carried(block.sealed_key, block.payload, uid, self._keys.restore_private, self._keys.verifier)
        copy.seek(start)
        return CarriedOriginal(carried, copy.read(), transfer_syntax_uid)


class CarriedOriginal(OfRecord):
    """One original, by its signed document and the copy that carries it; used as `gateway.restore.Original` is.

    It stays in memory, the rebuilt bytes as well, until it is closed. For one thread at a time.
    """

    def __init__(self, carried: Carried, copy: bytes, transfer_syntax_uid: str) -> None:
        super().__init__(carried.record)
        self._body = carried.body
        self._copy = copy
        self._copy_syntax = transfer_syntax_uid
        self._data: bytes | None = None

    def verify(self) -> None:
        """Rebuild the original and compare its SHA-256; nothing happens when that was done already.

        Raises
        ------
        DicomError
            As `gateway.dicom.copy.carried_body.rebuild`; ``marked-pixels-changed`` above all.
        IntegrityError
            ``digest-differs``, and as `check_agreement`.
        """
        if self._data is not None:
            return
        data = rebuild(self._body, self.size, self._copy, self._copy_syntax)
        if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), self.sha256):
            raise IntegrityError("digest-differs", f"the original of record {self.locator} was not rebuilt exactly")
        check_agreement(self._record, io.BytesIO(data))
        self._data = data

    def stream(self) -> Iterator[bytes]:
        """The verified bytes, in pieces of at most 1 MiB.

        Raises
        ------
        VaultError
            ``not-verified``: `verify` has not passed.
        """
        if self._data is None:
            raise VaultError("not-verified", f"record {self.locator} is to be released before it was verified")
        data = memoryview(self._data)
        return (bytes(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE))

    def close(self) -> None:
        """Forget what was rebuilt."""
        self._data = None
