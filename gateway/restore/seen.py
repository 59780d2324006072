"""The restore role's own list of records: what each of them was when it was first seen.

Whoever holds the worker's signing key and may write rows can sign an old record anew: move it to another study, name
another original, take back what was fixed. Payloads of version 2 do not open for such a record, and originals are
compared with it; this list finds the change itself, whatever was changed. It lies where only the restore role writes,
and it only grows: SQLite's own triggers refuse to change or delete a line. Replicas on one machine share the file.

First sight is trusted: a record that was forged before the restore role ever saw it is listed as it is. The restore
role looks at new records every minute (`RecordWatch`), so that this time is short.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from gateway.errors import IntegrityError, VaultError
from gateway.vault import RecordStore, VaultRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    locator TEXT NOT NULL,
    lasting_sha256 TEXT NOT NULL,
    derived_sha256 TEXT,
    ended INTEGER NOT NULL,
    original TEXT NOT NULL,
    generation INTEGER NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS seen_locator ON seen (locator, number);
CREATE INDEX IF NOT EXISTS seen_original ON seen (original, generation);
CREATE TRIGGER IF NOT EXISTS seen_never_changes BEFORE UPDATE ON seen BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS seen_never_ends BEFORE DELETE ON seen BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""
_LAST = "SELECT lasting_sha256, derived_sha256, ended FROM seen WHERE locator = ? ORDER BY number DESC LIMIT 1"
_ADD = (
    "INSERT INTO seen (locator, lasting_sha256, derived_sha256, ended, original, generation, at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_NEWEST = "SELECT MAX(generation) FROM seen WHERE original = ?"
_BUSY_S = 30.0
_OVERLAP_S = 3600.0  # clocks of several workers differ


class SeenRecords:
    """The list, in an SQLite file of its own (mode 0600). Safe for threads, and for processes that share the file.

    Parameters
    ----------
    file
        Made when it is not there; its folder has to be.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        _make(file)
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(_SCHEMA)

    def is_empty(self) -> bool:
        """Whether nothing was noted yet: whatever the database says will be trusted."""
        with self._open() as database:
            return database.execute("SELECT 1 FROM seen LIMIT 1").fetchone() is None

    def check(self, record: VaultRecord) -> None:
        """Compare a record, whose signature was checked, with the list; note it when it is new, or went on as it may.

        A record may change twice in its life: `derived_sha256` from nothing to a value, `payload_file` to nothing.

        Raises
        ------
        IntegrityError
            ``record-changed``: anything else is not what it was.
        """
        self.note([record])

    def note(self, records: Iterable[VaultRecord]) -> None:
        """As `check`, of many; all are looked at before the first that changed is told of."""
        changed = list(self._compare(list(records)))
        if changed:
            raise _changed(changed[0], len(changed) - 1)

    def changed(self, records: Iterable[VaultRecord]) -> dict[str, IntegrityError]:
        """As `note`; those that are not what they were by their locators, each with its error."""
        return {record.locator: _changed(record) for record in self._compare(list(records))}

    def _compare(self, known: Sequence[VaultRecord]) -> Sequence[VaultRecord]:
        """Note what is new, and give those that changed."""
        if not known:
            return []
        with self._lock, self._open() as database:
            changed, new = _sorted(database, known)  # mostly nothing is new, and nobody has to wait for a writer
            if new:
                database.execute("BEGIN IMMEDIATE")
                changed, new = _sorted(database, known)  # another process may have noted them meanwhile
                database.executemany(_ADD, [(*_facts(record), time.time()) for record in new])
                database.execute("COMMIT")
        return changed

    def check_newest(self, record: VaultRecord) -> None:
        """Demand that no later generation of the same original was ever seen.

        Raises
        ------
        IntegrityError
            ``newer-generation-gone``: the database offers an old one as the newest.
        """
        gone = self.not_newest([record])
        if gone:
            raise gone[record.locator]

    def not_newest(self, records: Iterable[VaultRecord]) -> dict[str, IntegrityError]:
        """As `check_newest`, of many: those of which a later generation was seen by their locators, with its error."""
        found = {}
        with self._open() as database:
            for record in records:
                (newest,) = database.execute(_NEWEST, (_original(record),)).fetchone()
                if newest is not None and newest > record.generation:
                    found[record.locator] = _not_newest(record, newest)
        return found

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection for as long as the block runs; what SQLite cannot do is a VaultError: nothing is released."""
        if self._file.is_symlink():  # whoever follows it as root would write where it points
            raise VaultError(
                "list-unavailable", "the restore role's list of records is a symbolic link", f"remove {self._file}"
            )
        try:
            # Never made here: a list that vanished must be missed, not begun anew by the next look at it.
            where = f"{self._file.absolute().as_uri()}?mode=rw"
            with closing(sqlite3.connect(where, timeout=_BUSY_S, isolation_level=None, uri=True)) as database:
                database.execute("PRAGMA synchronous=FULL")
                yield database
        except sqlite3.Error as error:
            raise VaultError(
                "list-unavailable",
                f"the restore role's list of records cannot be read or written: {error}",
                f"look at {self._file}: its folder has to be the restore role's own, and have room",
            ) from None


class RecordWatch:
    """Notes new records, and again those that were there before this process, one page after the other."""

    def __init__(self, records: RecordStore, seen: SeenRecords) -> None:
        self._records = records
        self._seen = seen
        self._after = ""
        self._newest = 0.0

    def once(self) -> int:
        """Look at one page of all records, and at what was made since the last call. Gives how many were looked at.

        Raises
        ------
        IntegrityError
            ``record-changed``: told again in each round over all records. Records that are not signed as they should be
            are passed over here; they are refused when they are asked for.
        """
        page, self._after = self._records.page(self._after)
        new, self._newest = self._records.made_since(self._newest - _OVERLAP_S)
        self._seen.note([*page, *new])
        return len(page) + len(new)


def _make(file: Path) -> None:
    """An empty list where there is none, the folder's owner's: an operator's command as root may come first.

    Nothing that lies there is touched: that folder is the restore role's, which root does not trust with what to own.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return  # there already, or SQLite says why not
    try:
        if os.geteuid() == 0:
            folder = file.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
    finally:
        os.close(descriptor)


def _not_newest(record: VaultRecord, newest: int) -> IntegrityError:
    return IntegrityError(
        "newer-generation-gone",
        f"record {record.locator} is of generation {record.generation}; {newest} was seen and is gone",
        "rows of records are never deleted: somebody did; the old one is given by its marked copy's UID",
    )


def _changed(record: VaultRecord, more: int = 0) -> IntegrityError:
    return IntegrityError(
        "record-changed",
        f"record {record.locator} is not what it was when it was first seen"
        + (f"; so are {more} more" if more else ""),
        "somebody who can sign records changed it: compare with a backup, look for who writes the database",
    )


def _sorted(
    database: sqlite3.Connection, records: Sequence[VaultRecord]
) -> tuple[list[VaultRecord], list[VaultRecord]]:
    """Those records that are not what they were, and those that the list does not say as they are now."""
    changed, new = [], []
    for record in records:
        now = (record.lasting_sha256, record.derived_sha256, int(record.payload_file is None))
        last = database.execute(_LAST, (record.locator,)).fetchone()
        if last is not None and not _may_follow(last, now):
            changed.append(record)
        elif last != now:
            new.append(record)
    return changed, new


def _facts(record: VaultRecord) -> tuple[str, str, str | None, int, str, int]:
    ended = int(record.payload_file is None)
    lasting = record.lasting_sha256
    return record.locator, lasting, record.derived_sha256, ended, _original(record), record.generation


def _may_follow(before: tuple[str, str | None, int], now: tuple[str, str | None, int]) -> bool:
    """Whether a record may have become what it is now."""
    return before[0] == now[0] and (before[1] is None or before[1] == now[1]) and now[2] >= before[2]


def _original(record: VaultRecord) -> str:
    return f"{record.study_uid} {record.original_series_uid} {record.original_sop_uid}"
