"""The records of sealed originals: made once, signed, found again.

The order of work is *record first, payload second*: `create` commits the record with its locator, token and derived
UID, then the caller puts the payload under that locator. Killed in between, the original still lies in the spool, and
the repeated step is given the same record and puts the payload. A record without a payload restores nothing:
`gateway.restore` answers ``payload-missing``. The other order would leave payloads that no record names.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from sqlalchemy import Engine, Select, exc, func, select, tuple_
from sqlalchemy.orm import Session

from gateway.database import ClockRow, VaultRow, reading, transaction
from gateway.dicom.copy.uids import in_new_study
from gateway.errors import GatewayError, IntegrityError, NotFoundError, VaultError
from gateway.keys import Signer, Verifier, key_id, make_token
from gateway.vault.checked import CheckedRecords
from gateway.vault.record import CARRIED, SHARED, RecordFacts, VaultRecord, index_columns, index_digest, read_row

DeriveUid = Callable[[Literal["instance", "series", "study"], str, int], str]  # level, original, generation -> new UID
_TRIES = 20  # of creating while other processes create under the same original UID
_PAGE = 500
_BEHIND_S = 7 * 86_400.0  # of the last time that was believed


class RecordStore:
    """Records in the database.

    Parameters
    ----------
    engine
        From `gateway.database.open_database`.
    signer
        Signs what this makes or changes; None for a store that only reads.
    verifier
        Checks the signature of every record read. None only where nothing is released.
    vault_id
        The site's name: in every new record, and demanded of every record read. Empty: any, and nothing is made.
    restore_public
        To whom tokens (and, by the caller, payloads) are sealed.
    derive_uid
        `(level, original UID, generation) -> UID`, e.g. `partial(gateway.dicom.copy.uids.derived_uid, uid_key)`.
    """

    def __init__(
        self,
        engine: Engine,
        signer: Signer | None = None,
        verifier: Verifier | None = None,
        *,
        vault_id: str = "",
        restore_public: X25519PublicKey | None = None,
        derive_uid: DeriveUid | None = None,
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._verifier = verifier
        self._vault_id = vault_id
        self._restore_public = restore_public
        self._derive_uid = derive_uid
        self._checked = CheckedRecords()

    # making and changing

    def create(self, facts: RecordFacts) -> VaultRecord:
        """The record of this original under this policy: the newest there is, else a new one.

        The same (original SOP UID, SHA-256, policy) gives the same record however often it is asked. Two exceptions:

        - retention ended that record: it stays ended, since its payload may just be being deleted;
        - other bytes came under the UID since: when `facts.received_at` is later than their record, the archive went
          back to these bytes.

        Both give a new generation, which is then the newest under the UID.

        Different bytes (or another policy) under one original UID get the next generation, and with it another
        derived UID: generations count over all studies, since derived UIDs are made of UID and generation alone.
        Another study's original under the UID supersedes nothing here. Safe for any number of processes at once.

        Whether the original is carried is part of the policy: a record is never found for facts that say otherwise.

        Raises
        ------
        VaultError
            ``is-a-marked-copy``: the original UID is one that this gateway gave to a marked copy.
        IntegrityError
            The record that is there fails its checks.
        """
        return self._settled(lambda session: self._find_or_insert(session, facts))

    def new_generation(self, record: VaultRecord) -> VaultRecord:
        """The record to use instead of `record`, whose derived bytes are gone and cannot be made again.

        Same original, next generation, so another derived UID: no derived UID ever names two byte strings. The payload
        has to be put again under the new locator. Repeated for the same `record` it gives the same new one.
        """
        facts = RecordFacts(
            original_sop_uid=record.original_sop_uid,
            original_series_uid=record.original_series_uid,
            study_uid=record.study_uid,
            sop_class_uid=record.sop_class_uid,
            transfer_syntax_uid=record.transfer_syntax_uid,
            original_sha256=record.original_sha256,
            original_size=record.original_size,
            policy=record.policy,
            attributes=record.attributes,
            is_carried=record.is_carried,
            has_new_study=bool(record.derived_study_uid),
        )
        return self._settled(lambda session: self._find_newer_or_insert(session, record, facts))

    def fix_derived(self, locator: str, sha256: str, begun_from: str = "") -> bool:
        """Fix the SHA-256 of the derived bytes, once and for all: to be done before the first delivery.

        Parameters
        ----------
        begun_from
            See `VaultRecord`; a record of a version before 4 has no place for it.

        Returns
        -------
        bool
            True when `sha256` is what is fixed now (by this call or an earlier one), false when another digest is.
        """
        with transaction(self._engine) as session:
            row = self._row_for_change(session, locator)
            record = self._read(row)
            if record.derived_sha256 is None:
                self._write(row, replace(record, derived_sha256=sha256, begun_from=begun_from))
                return True
            return record.derived_sha256 == sha256

    def expire(
        self,
        before: float,
        keep: Collection[str] = (),
        most: int | None = None,
        told: Callable[[str], None] | None = None,
    ) -> list[str]:
        """End the retention of records sealed before `before` (seconds since 1970) but not of those in `keep`.

        Their locators are answered; the index shows them no more, and what it told of patient and study is deleted with
        them. The caller then deletes the payloads. An ended record is never used again, so a payload that a kill left
        undeleted can be deleted at any later time.

        Parameters
        ----------
        most
            End no more than so many, the oldest first; None: all.
        told
            Called with each locator before its change is committed; what it raises undoes what was not.
        """
        expired: list[str] = []
        after = (0.0, "")
        while most is None or len(expired) < most:
            with transaction(self._engine) as session:
                rows = session.scalars(
                    select(VaultRow)
                    .where(VaultRow.created_at < before, VaultRow.payload_file.is_not(None))
                    .where(tuple_(VaultRow.created_at, VaultRow.locator) > after)
                    .order_by(VaultRow.created_at, VaultRow.locator)
                    .limit(_PAGE)
                    .with_for_update()
                ).all()
                for row in rows:
                    after = (row.created_at, row.locator)
                    if row.locator in keep or (most is not None and len(expired) >= most):
                        continue
                    if told is not None:
                        told(row.locator)
                    self._write(row, replace(self._read(row), payload_file=None))
                    row.attributes = {}
                    row.patient_id = row.study_date = row.accession_number = row.modality = ""
                    expired.append(row.locator)
            if len(rows) < _PAGE:
                break
        return expired

    # finding

    def by_locator(self, locator: str) -> VaultRecord:
        """The record at `locator`. This and the next two raise NotFoundError ``no-such-record``, or IntegrityError."""
        return self._one(select(VaultRow).where(VaultRow.locator == locator))

    def by_locators(self, locators: Sequence[str]) -> dict[str, VaultRecord | GatewayError]:
        """As `by_locator`, of many at once: for each its record, or why there is none.

        A record whose document and signature are those that were checked a moment ago is not checked again.
        """
        found: dict[str, VaultRecord | GatewayError] = {}
        with reading(self._engine) as session:
            for start in range(0, len(locators), _PAGE):
                part = locators[start : start + _PAGE]
                found |= self._checked.unchanged(session, part)
                anew = [locator for locator in part if locator not in found]
                read = {row.locator: row for row in session.scalars(select(VaultRow).where(VaultRow.locator.in_(anew)))}
                found |= {locator: self._found(read.get(locator)) for locator in anew}
        return found

    def by_original_uid(self, sop_uid: str, study_uid: str = "", series_uid: str = "") -> VaultRecord:
        """The newest generation of an original: by its SOP Instance UID, and where that is told, its study and series.

        Raises
        ------
        VaultError
            ``uid-collision``: several studies hold an original of this UID, and it was not told which one is meant.
        """
        found = _under_uid(sop_uid)
        if study_uid:
            found = found.where(VaultRow.study_uid == study_uid)
        if series_uid:
            found = found.where(VaultRow.original_series_uid == series_uid)
        with reading(self._engine) as session:
            studies = session.scalars(found.with_only_columns(VaultRow.study_uid).order_by(None).distinct()).all()
        if len(studies) > 1:
            raise VaultError("uid-collision", f"{len(studies)} studies hold an original of this UID", "name the study")
        return self._one(found)

    def is_of_another_study(self, sop_uid: str, study_uid: str) -> bool:
        """Whether a SOP Instance UID belongs to another study already: to the one that came first under it.

        Such an original is sealed and found in its own study. A marked copy of it would be taken for a newer one of
        the first study's original: references of both studies name one and the same UID.
        """
        first = _under_uid(sop_uid).with_only_columns(VaultRow.study_uid).order_by(None).order_by(VaultRow.generation)
        with reading(self._engine) as session:
            owner = session.scalars(first.limit(1)).first()
        return owner is not None and owner != study_uid

    def by_derived_uid(self, sop_uid: str) -> VaultRecord:
        """The record whose marked copy has this SOP Instance UID."""
        return self._one(select(VaultRow).where(VaultRow.derived_sop_uid == sop_uid))

    def with_payload(self, record: VaultRecord) -> VaultRecord:
        """Another record of the same original bytes whose payload lies in the vault; the newest. Errors as above."""
        same = _under_uid(record.original_sop_uid).where(VaultRow.original_sha256 == record.original_sha256)
        return self._one(same.where(VaultRow.payload_file.is_not(None), VaultRow.payload_file != CARRIED))

    def locators(self) -> Iterator[str]:
        """Every locator, in order, read page by page."""
        after = ""
        while True:
            with reading(self._engine) as session:
                page = session.scalars(
                    select(VaultRow.locator).where(VaultRow.locator > after).order_by(VaultRow.locator).limit(_PAGE)
                ).all()
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]

    def page(self, after: str) -> tuple[list[VaultRecord], str]:
        """Some records behind the locator `after`, and the locator to go on from ("" at the end: begin anew)."""
        with reading(self._engine) as session:
            rows = session.scalars(
                select(VaultRow).where(VaultRow.locator > after).order_by(VaultRow.locator).limit(_PAGE)
            ).all()
            return self._readable(rows), rows[-1].locator if len(rows) == _PAGE else ""

    def made_since(self, moment: float) -> tuple[list[VaultRecord], float]:
        """The newest records made since `moment` (seconds since 1970), at most a page, and when the newest was made."""
        with reading(self._engine) as session:
            rows = session.scalars(
                select(VaultRow).where(VaultRow.created_at > moment).order_by(VaultRow.created_at.desc()).limit(_PAGE)
            ).all()
            return self._readable(rows), max([moment, *(row.created_at for row in rows)])

    def count(self) -> int:
        """How many records there are, ended ones included."""
        with reading(self._engine) as session:
            return session.scalar(select(func.count()).select_from(VaultRow)) or 0

    def count_live(self) -> int:
        """How many records there are whose retention has not ended."""
        with reading(self._engine) as session:
            live = select(func.count()).select_from(VaultRow).where(VaultRow.payload_file.is_not(None))
            return session.scalar(live) or 0

    def ended(self, locators: Sequence[str]) -> list[str]:
        """Those of `locators` (at most a page of them) whose retention has ended."""
        with reading(self._engine) as session:
            found = select(VaultRow.locator).where(VaultRow.locator.in_(locators), VaultRow.payload_file.is_(None))
            return list(session.scalars(found))

    def without_payload(self, locators: Iterable[str]) -> list[str]:
        """Those of `locators` (at most a page of them) that no live record names."""
        asked = list(locators)
        with reading(self._engine) as session:
            live = set(
                session.scalars(
                    select(VaultRow.locator).where(VaultRow.locator.in_(asked), VaultRow.payload_file.is_not(None))
                )
            )
        return [locator for locator in asked if locator not in live]

    def _readable(self, rows: Sequence[VaultRow]) -> list[VaultRecord]:
        found = []
        for row in rows:
            with suppress(IntegrityError):
                found.append(self._read(row))
        return found

    # within one transaction

    def _settled(self, step: Callable[[Session], VaultRecord]) -> VaultRecord:
        """Do `step` in a transaction; once more when another process took the generation meanwhile."""
        for _ in range(_TRIES):
            try:
                with transaction(self._engine) as session:
                    return step(session)
            except exc.IntegrityError:
                continue
        raise VaultError("vault-busy", f"no generation could be taken in {_TRIES} tries", "try again")

    def _find_or_insert(self, session: Session, facts: RecordFacts) -> VaultRecord:
        # One statement, one snapshot: whoever adds a generation after it takes the number that is wanted here.
        rows = session.scalars(_under_uid(facts.original_sop_uid)).all()
        row = _live_record_of(rows, facts)
        if row is None or _is_superseded(row, rows, facts):
            return self._insert(session, facts, rows)
        return self._read(row)

    def _find_newer_or_insert(self, session: Session, record: VaultRecord, facts: RecordFacts) -> VaultRecord:
        rows = session.scalars(_under_uid(facts.original_sop_uid)).all()
        row = _live_record_of(rows, facts)
        if row is None or row.generation <= record.generation:
            return self._insert(session, facts, rows)
        return self._read(row)

    def _insert(self, session: Session, facts: RecordFacts, before: Sequence[VaultRow]) -> VaultRecord:
        """Add the next generation after those `before` (all under the original UID, newest first)."""
        if not self._vault_id or self._restore_public is None or self._derive_uid is None:
            raise VaultError("vault-read-only", "this record store was opened for reading")
        marked = select(VaultRow.locator).where(VaultRow.derived_sop_uid == facts.original_sop_uid)
        if session.scalar(marked) is not None:
            raise VaultError(
                "is-a-marked-copy", "this SOP Instance UID was given to a marked copy here: it is not an original"
            )
        generation = before[0].generation + 1 if before else 1
        locator = secrets.token_hex(16)
        # References name first copies (`in_new_study` ones or not): each of the two kinds is counted by itself.
        turn = generation - sum(bool(row.derived_study_uid) != facts.has_new_study for row in before)
        names = (facts.original_sop_uid, facts.original_series_uid)
        sop_name, series_name = map(in_new_study, names) if facts.has_new_study else names
        derived_sop_uid = self._derive_uid("instance", sop_name, turn)
        record = VaultRecord(
            vault_id=self._vault_id,
            locator=locator,
            generation=generation,
            original_sop_uid=facts.original_sop_uid,
            original_series_uid=facts.original_series_uid,
            study_uid=facts.study_uid,
            derived_sop_uid=derived_sop_uid,
            derived_series_uid=self._derive_uid("series", series_name, 0),
            derived_study_uid=self._derive_uid("study", facts.study_uid, 0) if facts.has_new_study else "",
            sop_class_uid=facts.sop_class_uid,
            transfer_syntax_uid=facts.transfer_syntax_uid,
            original_sha256=facts.original_sha256,
            original_size=facts.original_size,
            policy=facts.policy,
            derived_sha256=None,
            payload_file=CARRIED if facts.is_carried else locator,
            key_id=key_id(self._restore_public),
            created_at=_now(session),
            token=make_token(self._restore_public, self._vault_id, locator, derived_sop_uid),
            attributes=facts.attributes,
            index_sha256=index_digest(facts.attributes),
        )
        row = VaultRow(token=record.token, attributes=record.attributes, **index_columns(record.attributes))
        self._write(row, record)
        session.add(row)
        session.flush()
        return record

    def _write(self, row: VaultRow, record: VaultRecord) -> None:
        """Sign `record` and let the row repeat it."""
        if self._signer is None:
            raise VaultError("vault-read-only", "this record store has no signing key")
        row.document = record.document()
        row.signature = self._signer.sign(row.document)
        row.signer = self._signer.id
        for name in (*SHARED, "derived_study_uid", "created_at"):
            setattr(row, name, getattr(record, name))

    def _row_for_change(self, session: Session, locator: str) -> VaultRow:
        return _there(session.scalars(select(VaultRow).where(VaultRow.locator == locator).with_for_update()).first())

    def _one(self, statement: Select[VaultRow]) -> VaultRecord:
        with reading(self._engine) as session:
            row = session.scalars(statement.limit(1)).first()
        return self._read(_there(row))

    def _found(self, row: VaultRow | None) -> VaultRecord | GatewayError:
        try:
            record = self._read(_there(row))
        except GatewayError as error:
            return error
        if row is not None and self._verifier is not None:
            self._checked.add(row, record)
        return record

    def _read(self, row: VaultRow) -> VaultRecord:
        return read_row(row, self._verifier, self._vault_id)


def _there(row: VaultRow | None) -> VaultRow:
    if row is None:
        raise NotFoundError("no-such-record", "there is no such record")
    return row


def _under_uid(sop_uid: str) -> Select[VaultRow]:
    return select(VaultRow).where(VaultRow.original_sop_uid == sop_uid).order_by(VaultRow.generation.desc())


def _live_record_of(rows: Sequence[VaultRow], facts: RecordFacts) -> VaultRow | None:
    """The newest live record of the same bytes under the same policy; `rows` are newest first."""
    same = (row for row in rows if row.original_sha256 == facts.original_sha256 and row.policy == facts.policy)
    return next((row for row in same if row.payload_file is not None), None)


def _is_superseded(row: VaultRow, rows: Sequence[VaultRow], facts: RecordFacts) -> bool:
    """Whether other bytes of the same instance came after `row`, and those of `facts` after them."""
    others = (
        one
        for one in rows
        if one.generation > row.generation
        and one.original_sha256 != row.original_sha256
        and (one.study_uid, one.original_series_uid) == (row.study_uid, row.original_series_uid)
    )
    return facts.received_at is not None and any(one.created_at < facts.received_at for one in others)


def _now(session: Session) -> float:
    """Seconds since 1970 in whole milliseconds, as the document keeps them.

    Retention goes by it: where the clock runs more than a week behind the last time that this site believed (a flat
    battery, before the network tells the time), it is that time.
    """
    now, believed = time.time(), session.scalar(select(ClockRow.seen_at).where(ClockRow.id == 1)) or 0.0
    return round((believed if now < believed - _BEHIND_S else now) * 1000) / 1000
