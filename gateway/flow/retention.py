"""Deletes what need not be kept: received bytes after delivery, derived files and vault payloads after their time."""

from __future__ import annotations

import time

import structlog

from gateway.config.models import Retention
from gateway.flow.spool import Spool
from gateway.flow.store import FlowStore
from gateway.protect import Protector

DAY_S = 86_400.0
ORPHAN_AGE_S = 3600.0  # a file without a row is younger than this only while its commit is under way

log = structlog.get_logger(__name__)


class Retainer:
    """Applies the retention settings, a batch at a time."""

    def __init__(
        self, settings: Retention, store: FlowStore, spool: Spool, derived: Spool, protector: Protector
    ) -> None:
        self._settings = settings
        self._store = store
        self._spool = spool
        self._derived = derived
        self._protector = protector

    def once(self, now: float | None = None) -> int:
        """Delete one batch of everything that is due. Returns how many files were deleted."""
        now = time.time() if now is None else now
        deleted = self._purge_spool() + self._purge_derived(now) + self._purge_vault(now) + self._sweep_orphans()
        if deleted:
            log.info("retention", files=deleted)
        return deleted

    def _purge_spool(self) -> int:
        rows = self._store.spool_to_purge()
        for row in rows:
            self._spool.delete(row.spool_file)
        if rows:
            self._store.forget_spool_file([row.id for row in rows])
        return len(rows)

    def _purge_derived(self, now: float) -> int:
        names = self._store.derived_to_purge(now - self._settings.derived_days * DAY_S)
        for name in names:
            self._derived.delete(name)
        if names:
            self._store.forget_derived_file(names)
        return len(names)

    def _purge_vault(self, now: float) -> int:
        if not self._settings.vault_days:
            return 0
        before = now - self._settings.vault_days * DAY_S
        return self._protector.expire(before, self._store.records_in_use(delivered_since=before))

    def _sweep_orphans(self) -> int:
        """Files that a crash left between writing and committing: nobody was told that they are safe."""
        deleted = self._protector.sweep(time.time() - ORPHAN_AGE_S)
        for folder in (self._spool, self._derived):
            for name in self._store.unknown_files(list(folder.names(ORPHAN_AGE_S))):
                folder.delete(name)
                deleted += 1
        return deleted
