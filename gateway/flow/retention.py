"""Deletes what need not be kept: received bytes after delivery, derived files and vault payloads after their time.

What goes by age waits while the clock is not believed (`gateway.flow.clock`): one wrong clock must not delete a site's
originals. Of originals one pass ends a small part at most, each told of in the audit before it is gone, and the next
pass over originals is an hour later, over restarts too: whoever sees the lines can still stop it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from gateway.audit import AuditLog, events
from gateway.config.models import Retention
from gateway.flow.durability import durability_of
from gateway.flow.segments.spool import ReceivedSpool
from gateway.flow.spool import Spool
from gateway.flow.store import FlowStore
from gateway.protect import Protector

DAY_S = 86_400.0
# A file without a row is younger than this only while its commit is under way; twice what the clock may jump unseen.
ORPHAN_AGE_S = 7200.0
MOST_ORIGINALS = 1000  # in one pass, or a share of all if that is more
MOST_SHARE = 0.05
ORIGINALS_S = 3600.0  # from one pass over originals to the next

log = structlog.get_logger(__name__)


class Retainer:
    """Applies the retention settings, a batch at a time.

    Parameters
    ----------
    believed
        Whether the clock, which says this (seconds since 1970), is to be believed: `ClockGuard.believes`.
    audit
        Each original that goes is told of.
    """

    def __init__(
        self,
        settings: Retention,
        store: FlowStore,
        spool: ReceivedSpool,
        derived: Spool,
        protector: Protector,
        believed: Callable[[float], bool],
        audit: AuditLog,
    ) -> None:
        self._settings = settings
        self._store = store
        self._spool = spool
        self._derived = derived
        self._protector = protector
        self._believed = believed
        self._audit = audit
        self._has_swept = False
        self._reclaimer = durability_of(spool, store).reclaimer()

    def once(self, now: float | None = None) -> int:
        """Delete one batch of everything that is due. Returns how many files were deleted."""
        now = time.time() if now is None else now
        deleted = self._purge_spool() + self._reclaimer.once()
        if self._believed(now):
            deleted += self._purge_derived(now) + self._purge_vault(now) + self._sweep_orphans()
        if deleted:
            log.info("retention", files=deleted)
        return deleted

    def _purge_spool(self) -> int:
        rows = self._store.spool_to_purge()
        for row in rows:
            self._spool.delete(row.spool_file or "")
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
        swept = 0
        if not self._has_swept:
            swept = self._protector.sweep_ended()
            self._has_swept = True
        if not self._store.may_pass_over_originals(now, ORIGINALS_S):
            return swept
        before = now - self._settings.vault_days * DAY_S
        most = max(MOST_ORIGINALS, int(self._protector.originals() * MOST_SHARE))
        keep = self._store.records_in_use(delivered_since=before) | self._store.promised()
        return swept + self._protector.expire(before, keep, most, self._tell)

    def _tell(self, locator: str) -> None:
        self._audit.write(events.INSTANCE_DELETED, "success", locator=locator, reason="retention")

    def _sweep_orphans(self) -> int:
        """Files that a crash left between writing and committing: nobody was told that they are safe."""
        deleted = self._protector.sweep(time.time() - ORPHAN_AGE_S)
        if not self._reclaimer.is_ours():
            return deleted
        for folder in (self._spool, self._derived):
            old = list(folder.names(ORPHAN_AGE_S))
            if folder is self._spool and not self._reclaimer.is_all_told():
                continue  # a large object's file may be named by a record whose row is not written yet
            for name in self._store.unknown_files(old):
                folder.delete(name)
                deleted += 1
        return deleted
