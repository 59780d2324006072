"""Whether the clock can be trusted: purging by age deletes originals, and a clock 31 days ahead would delete all.

The clock is not believed when it

- runs more than an hour ahead of the time that this process counts by itself (a counter of the kernel which nobody can
  set, and which goes on while the machine sleeps), or
- stands more than seven days after the last time that was believed: after a restart there is nothing else to go by.

Then nothing is purged by age, over restarts too, until somebody looks at the clock and runs `miad-gateway clock
confirm`. A clock that runs behind only keeps things longer: records made meanwhile carry the last time that was
believed (`gateway.vault.records`), or they would be years old as soon as the clock is right.

A clock that is set back would let all that waits until a time wait so much longer: `BackwardJumps`. One that is set
forward only lets it come early: leases that seem to have run out are taken over, and their fencing tokens see to it
that what their old owners did does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
from sqlalchemy import Engine, update
from sqlalchemy.exc import IntegrityError

from gateway.audit import AuditLog, audited, events
from gateway.database import ClaimRow, ClockRow, DeliveryRow, InstanceRow, reading, transaction
from gateway.flow.states import QUEUED, RECEIVED, SEALED

AHEAD_S = 3600.0  # of the process's own count
LONGEST_GAP_S = 7 * 86_400.0  # after the last time that was believed
BACK_S = 60.0  # smaller steps are waited for; many of them count together
_ROW = 1

log = structlog.get_logger(__name__)


def _counted_s() -> float:
    """Seconds that nobody sets, with the time in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockGuard:
    """Of one process that purges; what one finds holds for all.

    Parameters
    ----------
    wall, counted
        The clock in doubt (seconds since 1970), and the count that it is compared with.
    """

    def __init__(
        self,
        engine: Engine,
        audit: AuditLog,
        wall: Callable[[], float] = time.time,
        counted: Callable[[], float] = _counted_s,
    ) -> None:
        self._engine = engine
        self._audit = audit
        self._wall = wall
        self._counted = counted
        self._confirmed = -1
        self._offset = wall() - counted()

    def believes(self, now: float | None = None) -> bool:
        """Whether to purge by age at `now` (seconds since 1970; default: the clock's own time)."""
        now = self._wall() if now is None else now
        try:
            with transaction(self._engine) as session:
                row = session.get(ClockRow, _ROW, with_for_update=True)
                if row is None:
                    row = ClockRow(id=_ROW, seen_at=now, confirmed=0)
                    session.add(row)
                if row.confirmed != self._confirmed:
                    if self._confirmed >= 0:  # confirmed since this process looked last: count from here
                        self._offset = now - self._counted()
                    self._confirmed = row.confirmed
                if row.stopped_at is not None:
                    return False
                reason = self._doubt(now, row.seen_at)
                if reason is None:
                    row.seen_at = max(now, row.seen_at)  # of a clock that runs behind new records are told by it
                    return True
                self._audit.write(events.CLOCK_NOT_BELIEVED, "failure", reason=reason)
                row.stopped_at, row.reason = now, reason
        except IntegrityError:  # another process made the row at this moment
            return False
        log.error("the clock runs ahead: nothing is purged by age until `miad-gateway clock confirm`", reason=reason)
        return False

    def _doubt(self, now: float, seen_at: float) -> str | None:
        if now - self._counted() - self._offset > AHEAD_S:
            return "ahead-of-monotonic-time"
        if now - seen_at > LONGEST_GAP_S:
            return "ahead-of-last-recorded-time"
        return None


class BackwardJumps:
    """Of one worker process: sees that the clock was set back, and moves what waits for a time back with it.

    Where several processes see it, each does: what waits comes early then, which harms nothing. At a start, the last
    time that was believed is all that there is to compare with.

    Parameters
    ----------
    lease_s
        No lease is meant to be longer.
    wall, counted
        As of `ClockGuard`.
    """

    def __init__(
        self,
        engine: Engine,
        lease_s: float,
        wall: Callable[[], float] = time.time,
        counted: Callable[[], float] = _counted_s,
    ) -> None:
        self._engine = engine
        self._lease_s = lease_s
        self._wall = wall
        self._counted = counted
        self._offset: float | None = None

    def once(self) -> int:
        """Look, and move what waits where the clock went back; returns 0: there is never more to do at once."""
        now = self._wall()
        offset = now - self._counted()
        if self._offset is None:
            known = state(self._engine)
            back = known.seen_at - now if known is not None else 0.0
        else:
            back = self._offset - offset
        if back >= BACK_S:
            self._move(now, back)
            log.warning("the clock was set back: what waits for a time was moved with it", seconds=round(back))
            self._offset = offset
        elif self._offset is None or offset > self._offset:
            self._offset = offset
        return 0

    def _move(self, now: float, back: float) -> None:
        longest = now + self._lease_s
        changes = [
            update(table)
            .where(table.state.in_(states), table.next_attempt_at > now)
            # a pause is time that passes; the row knows only when it ends
            .values(next_attempt_at=table.next_attempt_at - back)
            for table, states in ((InstanceRow, (RECEIVED, SEALED)), (DeliveryRow, (QUEUED,)))
        ]
        changes += [
            update(table).where(table.state.in_(states), table.lease_until > longest).values(lease_until=longest)
            for table, states in ((InstanceRow, (RECEIVED, SEALED)), (DeliveryRow, (QUEUED,)))
        ]
        changes.append(update(ClaimRow).where(ClaimRow.until > longest).values(until=longest))
        waiting = (DeliveryRow.commit_state.in_(("due", "asked")), DeliveryRow.commit_at > now)
        changes.append(update(DeliveryRow).where(*waiting).values(commit_at=DeliveryRow.commit_at - back))
        for change in changes:  # each by itself: none waits for a row while it holds others of another kind
            with transaction(self._engine) as session:
                session.execute(change.execution_options(synchronize_session=False))


def state(engine: Engine) -> ClockRow | None:
    """What the site knows of its clock; None before the first purge."""
    with reading(engine) as session:
        return session.get(ClockRow, _ROW)


def confirm(engine: Engine, audit: AuditLog, now: float | None = None) -> bool:
    """Believe the clock, as a person has looked at it: purging goes on. Returns whether it had been stopped.

    CapacityError ``audit-full``: it could not be told of, so nothing is confirmed.
    """
    now = time.time() if now is None else now
    with transaction(engine) as session:
        row = session.get(ClockRow, _ROW, with_for_update=True)
        if row is None:
            row = ClockRow(id=_ROW, seen_at=now, confirmed=0)
            session.add(row)
        had_stopped = row.stopped_at is not None
        audited(audit, events.CLOCK_CONFIRMED, "success", reason=row.reason or "not-stopped")
        row.seen_at, row.stopped_at, row.reason = now, None, None
        row.confirmed = (row.confirmed or 0) + 1
    return had_stopped
