"""Records that were checked a moment ago, so that a retrieval of many looks twice and checks signatures once."""

from __future__ import annotations

from collections.abc import Collection
from threading import Lock

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from gateway.database import VaultRow
from gateway.vault.record import VaultRecord

_MOST = 4096  # records
_SIGNED = select(VaultRow.locator, VaultRow.document, VaultRow.signature, VaultRow.signer).where(
    VaultRow.locator.in_(bindparam("locators", expanding=True))
)

Signed = tuple[bytes, bytes, str]  # document, signature, signer


class CheckedRecords:
    """Signed documents by their locators, with the records that were read from them. Safe for any number of threads."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._known: dict[str, tuple[Signed, VaultRecord]] = {}
        self._lock = Lock()

    def add(self, row: VaultRow, record: VaultRecord) -> None:
        """Remember a record whose row passed all checks; the oldest is forgotten when there are too many."""
        with self._lock:
            self._known.pop(row.locator, None)
            if len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[row.locator] = ((row.document, row.signature, row.signer), record)

    def unchanged(self, session: Session, locators: Collection[str]) -> dict[str, VaultRecord]:
        """Those of `locators` (at most a page) whose rows hold the very document and signature that were checked."""
        known = {one: self._known[one] for one in locators if one in self._known}
        if not known:
            return {}
        rows = session.execute(_SIGNED, {"locators": list(known)})
        now = {locator: (document, signature, signer) for locator, document, signature, signer in rows}
        return {locator: record for locator, (signed, record) in known.items() if now.get(locator) == signed}
