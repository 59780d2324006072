"""Finds a record, opens its payload, and gives the original's bytes only after all of them were verified.

Who asks, and whether they may, is decided elsewhere: by `Original.study_uid`, which comes from the signed record.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, cast

from sqlalchemy import Engine

from gateway.dicom.copy.carried_body import read_copy
from gateway.errors import GatewayError, IntegrityError, NotFoundError, VaultError
from gateway.keys import OpeningKeys, read_token
from gateway.restore.agreement import check_agreement, check_agreement_of
from gateway.restore.carried import CarriedOriginal, CopyRestorer
from gateway.restore.held import HeldMemory
from gateway.restore.ofrecord import OfRecord
from gateway.restore.seen import RecordWatch, SeenRecords
from gateway.vault import Payloads, PayloadStore, RecordStore, VaultRecord, open_payload


class Restorer:
    """Finds originals for the one role that can open them. Safe for any number of threads.

    Parameters
    ----------
    engine
        From `gateway.database.open_database`; only read.
    payloads
        Where they lie (`gateway.vault.open_payloads`), or the vault's folder.
    keys
        Private restore key and accepted signers.
    vault_id
        The site's name: records and tokens of other vaults are refused.
    seen
        The restore role's own list of records: what changed since it was first seen is refused. None: no list.
    memory
        Where verified originals may wait to be sent; None: `HeldMemory` with its own bounds.

    The methods raise NotFoundError (``no-such-record``, ``payload-missing``, ``other-vault``, ``carried``: the vault
    keeps no payload, the marked copy has it), IntegrityError (a record that is not what a trusted signer signed) and
    SealError (a token that is not one, not ours, or another object's).
    """

    def __init__(
        self,
        engine: Engine,
        payloads: Payloads | Path,
        keys: OpeningKeys,
        vault_id: str,
        seen: SeenRecords | None = None,
        memory: HeldMemory | None = None,
    ) -> None:
        self._records = RecordStore(engine, verifier=keys.verifier, vault_id=vault_id)
        self._payloads = PayloadStore(payloads) if isinstance(payloads, Path) else payloads
        self._keys = keys
        self._vault_id = vault_id
        self._copies = CopyRestorer(keys)
        self._seen = seen
        self._memory = memory or HeldMemory()

    def by_locator(self, locator: str, named: Collection[str] | None = None) -> Original:
        """The original that a record's locator names.

        Parameters
        ----------
        named
            SOP Instance UIDs that were asked for. A record whose derived UID is not among them has to be the newest
            generation that was ever seen. None: it was looked at before.
        """
        record = self._records.by_locator(locator)
        if named is not None and record.derived_sop_uid not in named:
            self._demand_newest(record)
        return self._original(record)

    def by_locators(
        self, locators: Sequence[str], named: Collection[str] | None = None
    ) -> dict[str, Original | GatewayError]:
        """As `by_locator`, of many at once: for each locator its original, or why there is none.

        What cannot be asked for any of them (the database or the list is away) is raised.
        """
        found: dict[str, Original | GatewayError] = {}
        good: dict[str, VaultRecord] = {}
        for locator, record in self._records.by_locators(locators).items():
            if isinstance(record, VaultRecord):
                good[locator] = record
            else:
                found[locator] = record
        if self._seen is not None:
            found |= self._seen.changed(good.values())
            if named is not None:
                asked = [one for one in good.values() if one.derived_sop_uid not in named and one.locator not in found]
                found |= self._seen.not_newest(asked)
        for locator in good.keys() - found.keys():
            try:
                found[locator] = self._held_here(good[locator])
            except GatewayError as error:
                found[locator] = error
        return found

    def watch(self) -> RecordWatch:
        """What notes new records in the list.

        Raises
        ------
        VaultError
            ``no-list``: this was made without one.
        """
        if self._seen is None:
            raise VaultError("no-list", "this restorer keeps no list of records")
        return RecordWatch(self._records, self._seen)

    def begins_list(self) -> bool:
        """Whether the list of records is empty although there are records: one that is new, or lost."""
        return self._seen is not None and self._seen.is_empty() and bool(self._records.page("")[0])

    def _demand_newest(self, record: VaultRecord) -> None:
        if self._seen is not None:
            self._seen.check_newest(record)

    def by_uid(self, uid: str, study_uid: str = "") -> Original:
        """By derived SOP Instance UID, else the newest generation of an original one (in that study, where told).

        Raises
        ------
        VaultError
            ``uid-collision``: originals of several studies have it.
        """
        try:
            return self.by_derived_uid(uid)
        except NotFoundError as error:
            if error.code != "no-such-record":
                raise
            record = self._records.by_original_uid(uid, study_uid)
            self._demand_newest(record)
            return self._original(record)

    def by_derived_uid(self, uid: str) -> Original:
        """The original of the marked copy with this SOP Instance UID."""
        return self._original(self._records.by_derived_uid(uid))

    def by_token(self, token: bytes, derived_uid: str) -> Original:
        """The original of the marked copy `derived_uid` that carries `token`.

        The token is bound to that UID; that the record names it as well is checked besides.
        """
        content = read_token(self._keys.restore_private, token, derived_uid)
        if content.vault_id != self._vault_id:
            raise NotFoundError("other-vault", f"the original lies in another vault: {content.vault_id}")
        record = self._records.by_locator(content.locator)
        if record.derived_sop_uid != derived_uid:
            raise IntegrityError("token-and-record-differ", f"record {record.locator} is of another marked copy")
        return self._original(record)

    def by_copy(self, copy: BinaryIO, transfer_syntax_uid: str) -> Original | CarriedOriginal:
        """The original of a whole marked copy: out of the vault when it lies there, else what the copy carries.

        Parameters
        ----------
        copy
            Seekable, at the beginning of its data set; read beyond its header only when it carries what is needed.

        Raises
        ------
        SealError, DicomError
            As `CopyRestorer.by_copy`, besides those above.
        """
        start = copy.tell()
        uid, block = read_copy(copy, transfer_syntax_uid)
        if block is None:
            return self.by_derived_uid(uid)  # an archive on the way dropped private tags
        try:
            return self.by_token(block.token, uid)
        except NotFoundError:
            if block.payload is None:
                raise
        copy.seek(start)
        return self._copies.by_copy(copy, transfer_syntax_uid)

    def _original(self, record: VaultRecord) -> Original:
        if self._seen is not None:
            self._seen.check(record)
        return self._held_here(record)

    def _held_here(self, record: VaultRecord) -> Original:
        """The original of a record that the list knows as it is, when its payload lies here."""
        if record.is_carried:
            record = self._elsewhere(record)
        if record.payload_file is None:
            raise NotFoundError("payload-missing", f"the retention of record {record.locator} has ended")
        if not self._payloads.exists(record.payload_file):
            raise NotFoundError("payload-missing", f"the sealed original of record {record.locator} is not there")
        return Original(record, self._payloads, self._keys, self._memory)

    def _elsewhere(self, record: VaultRecord) -> VaultRecord:
        """The record of the same bytes for another route, whose payload lies in the vault."""
        try:
            return self._records.with_payload(record)
        except NotFoundError:
            raise NotFoundError(
                "carried",
                f"the vault keeps no payload of record {record.locator}: its marked copy carries the original",
                "send the marked copy to the restore service, or use `miad-gateway restore FILE`",
            ) from None


class Original(OfRecord):
    """One original: what its signed record says, and its bytes. Close it, or use it in a `with` block.

    `verify` decrypts it once into memory, where there is room (`HeldMemory`), and what is sent are those very bytes. A
    larger one is decrypted twice, with a few MiB of memory: `verify` opens the payload file, and it stays open: deleted
    or replaced meanwhile, the verified one is still read; changed meanwhile, its tags fail in the second pass as in the
    first. No plaintext touches a disk. For one thread at a time.
    """

    def __init__(
        self, record: VaultRecord, payloads: Payloads, keys: OpeningKeys, memory: HeldMemory | None = None
    ) -> None:
        super().__init__(record)
        self._payloads = payloads
        self._keys = keys
        self._memory = memory or HeldMemory()
        self._payload: BinaryIO | None = None
        self._buffer: bytearray | None = None
        self._data: memoryview | None = None  # of the buffer
        self._taken = 0
        self._verified = False

    def verify(self) -> None:
        """Decrypt everything, check tags, length and SHA-256, and compare what it is with its record.

        Raises
        ------
        IntegrityError
            ``payload-tampered``, ``payload-format``, ``payload-of-another-record``, ``payload-length``,
            ``digest-differs``; ``original-differs-from-record`` or ``original-unreadable`` (`check_agreement`).
        NotFoundError
            ``payload-missing``.
        SealError
            ``other-restore-key``: not sealed to our key.
        """
        self.close()
        try:
            if self._memory.take(self.size):
                self._taken = self.size
                self._verify_in_memory()
            else:
                self._verify_in_pieces()
        except BaseException:
            self.close()
            raise
        self._verified = True

    def _verify_in_memory(self) -> None:
        self._buffer = self._memory.buffer(self.size)
        with self._memory.opener() as opener:
            opener.read(self._payloads.open(self.locator), self._record, self._keys.restore_private, self._buffer)
        data = memoryview(self._buffer)[: self.size].toreadonly()
        self._demand_digest(hashlib.sha256(data).hexdigest())
        check_agreement_of(self._record, data)
        self._data = data

    def _verify_in_pieces(self) -> None:
        self._payload = self._payloads.open(self.locator)
        for _ in self._pass(self._payload):
            pass
        with closing(open_payload(self._own_handle(self._payload), self._record, self._keys.restore_private)) as header:
            check_agreement(self._record, cast(BinaryIO, header))  # it reads forward only

    def stream(self) -> Iterator[bytes]:
        """The verified bytes: out of memory, whole and good until `close`; or in pieces of at most 1 MiB.

        The latter are decrypted and checked a second time.
        The last of them is held back until the digest of the whole is right, so what is wrong never becomes complete.

        Raises
        ------
        VaultError
            ``not-verified``: `verify` has not passed. As `verify` while iterating.
        """
        if not self._verified or (self._data is None and self._payload is None):
            raise VaultError("not-verified", f"record {self.locator} is to be released before it was verified")
        if self._data is not None:
            # A view, where bytes are promised: who writes, cuts or hashes them takes both, and nothing is copied.
            return iter([cast(bytes, self._data)] if len(self._data) else [])
        return self._pass(cast(BinaryIO, self._payload))

    def close(self) -> None:
        """Close the payload file and give the memory back; what was verified is then forgotten."""
        self._verified = False
        self._data = None
        if self._buffer is not None:
            self._memory.keep(self._buffer)
            self._buffer = None
        if self._taken:
            self._memory.give(self._taken)
            self._taken = 0
        if self._payload is not None:
            self._payload.close()
            self._payload = None

    @staticmethod
    def _own_handle(payload: BinaryIO) -> BinaryIO:
        # A reader closes what it reads from; the position is shared and set by every reader.
        file = os.fdopen(os.dup(payload.fileno()), "rb")
        file.seek(0)
        return file

    def _demand_digest(self, sha256: str) -> None:
        if not hmac.compare_digest(sha256, self._record.original_sha256):
            raise IntegrityError("digest-differs", f"the original of record {self.locator} has another SHA-256")

    def _pass(self, payload: BinaryIO) -> Iterator[bytes]:
        file = self._own_handle(payload)
        digest = hashlib.sha256()
        held = b""
        for piece in open_payload(file, self._record, self._keys.restore_private):
            if held:
                yield held
            digest.update(piece)
            held = piece
        self._demand_digest(digest.hexdigest())
        if held:
            yield held
