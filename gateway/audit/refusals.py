"""Refusals in the audit and in the log: a flood of them is summed up, so that it does not fill the disk.

Of each kind (event, reason, source address) the first lines of a minute are written whole. What follows in that minute
is counted, and one line with `count` and `seconds` sums it up when the minute is over or the port is closed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from gateway.audit.log import FIELDS, AuditLog

LINES_OF_ONE_ADDRESS = 20  # of one event and reason in one window
LINES_OF_ALL = 200  # of one event and reason, over all addresses
WINDOW_S = 60.0
_MOST_KINDS = 1024  # addresses that are told apart at a time; a flood from more of them is summed up without
_TOLD = ("reason", "calling_ae", "called_ae", "peer_address", "count", "seconds")  # in the log too

_log = structlog.get_logger(__name__)


@dataclass
class _Window:
    began: float
    outcome: str
    written: int = 0
    kept_back: int = 0


class Refusals:
    """Writes refusals, or failures that anybody can bring about, of one port. Safe for any number of threads.

    Parameters
    ----------
    audit
        Where they go. That a line cannot be written never undoes a refusal; the log tells of it.
    """

    def __init__(self, audit: AuditLog, window_s: float = WINDOW_S) -> None:
        self._audit = audit
        self._window_s = window_s
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, str, str], _Window] = {}

    def write(self, event: str, reason: str, address: str, **fields: object) -> None:
        """Write one refusal, or count it.

        Parameters
        ----------
        fields
            Of the audit line, besides `reason` and `peer_address`.
        """
        self._write_or_count(event, "refused", reason, address, fields)

    def write_failure(self, event: str, reason: str, address: str, **fields: object) -> None:
        """The same for what failed by our own fault; a reason stands for one or the other."""
        self._write_or_count(event, "failure", reason, address, fields)

    def _write_or_count(
        self, event: str, outcome: str, reason: str, address: str, fields: Mapping[str, object]
    ) -> None:
        with self._lock:
            over_all = self._window(event, reason, "", outcome)
            own = self._window(event, reason, address, outcome) if len(self._windows) < _MOST_KINDS else over_all
            if own.written >= LINES_OF_ONE_ADDRESS and own is not over_all:
                own.kept_back += 1
                return
            if over_all.written >= LINES_OF_ALL:
                over_all.kept_back += 1
                return
            over_all.written += 1
            if own is not over_all:
                own.written += 1
        self._write(event, outcome, reason=reason, **{**fields, "peer_address": address or None})

    def sum_up(self, *, all_of_them: bool = False) -> None:
        """Write the sums of the windows that are over; called every moment by the port."""
        now = time.monotonic()
        with self._lock:
            over = [key for key, w in self._windows.items() if all_of_them or now - w.began >= self._window_s]
            ended = [(key, self._windows.pop(key)) for key in over]
        for (event, reason, address), window in ended:
            if window.kept_back:
                self._write(
                    event,
                    window.outcome,
                    reason=reason,
                    peer_address=address or None,
                    count=window.kept_back,
                    seconds=round(now - window.began, 1),
                )

    def _window(self, event: str, reason: str, address: str, outcome: str) -> _Window:
        return self._windows.setdefault((event, reason, address), _Window(time.monotonic(), outcome))

    def _write(self, event: str, outcome: str, **fields: object) -> None:
        # AE titles are the peer's own words: in the log they are checked as in the audit
        told = {name: FIELDS[name](fields[name]) for name in _TOLD if fields.get(name) is not None}
        _log.info(event, **told)
        try:
            self._audit.write(event, outcome, **fields)
        except OSError as error:
            _log.error("the audit line of a refusal could not be written", errno=error.errno)
