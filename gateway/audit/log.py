"""`AuditLog`: one JSON line per event, appended, fsynced, readable by its owner only.

No PHI can slip in: field names outside `FIELDS` are a programming error, reasons are hyphenated words, and what a
peer claims to be a UID or an AE title is written only when it looks like one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.audit.events import EVENTS
from gateway.errors import CapacityError

OUTCOMES = {"success": 0, "refused": 8, "failure": 4}  # Event Outcome Indicator, PS3.15 A.5.2.1

_FLUSH_AFTER_S = 1.0
_MOST_AGAIN = 1 << 16  # bytes of lines that are kept for a disk that takes flushes again
_UID = re.compile(r"[0-9.]{1,64}")
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.5 6.2, VR AE: no backslash, no control characters
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,95}")
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,95}")
_KEY = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")
_ADDRESS = re.compile(r"[0-9A-Za-z.:%_-]{1,253}")


def _matching(pattern: re.Pattern[str]) -> Callable[[object], object]:
    """A check that lets a string through when it is of the kind, and else says only that it was not."""

    def check(value: object) -> object:
        return value if isinstance(value, str) and pattern.fullmatch(value) else "(malformed)"

    return check


def _number(value: object) -> object:
    return value if isinstance(value, bool | int | float) else "(malformed)"


def _words(value: object) -> object:
    return [_matching(_WORD)(word) for word in value] if isinstance(value, list | tuple) else _matching(_WORD)(value)


def _uids(value: object) -> object:
    return [_matching(_UID)(uid) for uid in value] if isinstance(value, list | tuple) else _matching(_UID)(value)


def _status(value: object) -> object:
    return f"0x{value:04X}" if isinstance(value, int) else "(malformed)"


def _status_counts(value: object) -> object:
    return {_status(k): _number(v) for k, v in value.items()} if isinstance(value, dict) else "(malformed)"


FIELDS: dict[str, Callable[[object], object]] = {
    "calling_ae": _matching(_AE_TITLE),
    "called_ae": _matching(_AE_TITLE),
    "move_destination": _matching(_AE_TITLE),
    "peer_address": _matching(_ADDRESS),
    "balancer_address": _matching(_ADDRESS),  # that named `peer_address` in a PROXY header
    "peer_port": _number,
    "tls": _number,
    "key_sha256": _matching(_WORD),  # SubjectPublicKeyInfo digest of the peer's certificate
    "association_id": _matching(_WORD),
    "instance_id": _matching(_WORD),
    "locator": _matching(_WORD),
    "vault_id": _matching(_WORD),
    "key_id": _matching(_WORD),
    "signer_id": _matching(_WORD),
    "role": _matching(_WORD),
    "route": _matching(_WORD),
    "destination": _matching(_WORD),
    "fallback": _matching(_WORD),  # the destination that takes its place
    "policy": _matching(_WORD),
    "action": _matching(_WORD),
    "operation": _matching(_WORD),  # C-STORE, C-FIND, C-MOVE, C-GET, release, replay ...
    "level": _matching(_WORD),  # PATIENT, STUDY, SERIES, IMAGE
    "model": _matching(_WORD),
    "query_keys": _words,  # keywords of the attributes asked for, never their values
    "reason": _matching(_WORD),
    "notes": _words,  # codes of what was irregular in a header: `gateway.dicom.encoding.notes`
    "until": _matching(_WORD),  # a time that the configuration names, ISO 8601 in UTC
    "version": _matching(_WORD),
    "configuration_sha256": _matching(_WORD),
    "configuration_file": _matching(_WORD),  # a part in conf.d; left out for the configuration file itself
    "configuration_key": _matching(_KEY),  # as in routes[0].called_ae
    "configuration_line": _number,
    "sop_class_uid": _matching(_UID),
    "sop_instance_uid": _uids,
    "derived_sop_instance_uid": _matching(_UID),
    "series_uid": _uids,
    "study_uid": _uids,
    "transfer_syntax_uid": _matching(_UID),
    "transaction_uid": _matching(_UID),
    "sha256": _matching(_WORD),
    "status": _status,
    "statuses": _status_counts,
    "bytes": _number,
    "count": _number,
    "matches": _number,
    "received": _number,
    "completed": _number,
    "failed": _number,
    "warning": _number,
    "remaining": _number,
    "attempt": _number,
    "generation": _number,
    "frame": _number,  # from 1
    "bit_exact": _number,
    "seconds": _number,
    "pid": _number,
    "user": _matching(_USER),  # of the page, or of a token: a name that the site's identity provider gives
    "session_id": _matching(_WORD),
    "request_id": _matching(_WORD),
}


@dataclass(frozen=True)
class Line:
    """What is to be written: arguments of `AuditLog.write`."""

    event: str
    outcome: str
    fields: Mapping[str, object]


class AuditLog:
    """The audit trail of one process; several processes may share one file.

    Parameters
    ----------
    path
        The file; its folder is made when missing. Created with mode 0600. A file moved away (log rotation) is noticed
        and a new one begun.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._file = -1
        self._inode = -1
        self._torn = False  # the last line was written in part: the next begins a line of its own
        self._unflushed = False  # lines of `note` wait for the next flush
        self._noted = b""  # those lines, for as long as they wait
        self._again = b""  # those of a flush that failed: a second one may succeed and lie, so they are written again
        self._flushed_at = 0.0

    def note(self, event: str, outcome: str, **fields: object) -> None:
        """Append one line as `write` does, flushed with the next `write` or `flush`, or by itself after a second.

        The end of the process loses none of them, a power cut those of the last second. For outcomes of what a flushed
        line of intent names, which then stands there without its outcome; and for what is done again unless a `flush`
        came before it was called done.
        """
        self._append([Line(event, outcome, fields)], flush=False)

    def write(self, event: str, outcome: str, **fields: object) -> None:
        """Append one line; it has reached the disk when this returns.

        Parameters
        ----------
        event
            A constant of `gateway.audit.events`.
        outcome
            ``"success"``, ``"refused"`` (a decision against the peer) or ``"failure"`` (it did not work).
        fields
            Keys of `FIELDS`; None values are left out. A value that is not of its field's kind is written as
            ``(malformed)``: it came from a peer and may hold anything.

        Raises
        ------
        ValueError
            Unknown event, outcome or field: a programming error.
        OSError
            The line could not be written.
        """
        self.write_all([Line(event, outcome, fields)])

    def flush(self) -> None:
        """Let the lines of `note` reach the disk, with one flush for all of them; OSError when they cannot."""
        with self._lock:
            if self._again:
                self._write(b"")
            if self._unflushed:
                self._flush()

    def write_all(self, lines: Sequence[Line]) -> None:
        """Append several lines with one flush; as `write`. When it raises, some of them may stand there."""
        self._append(lines, flush=True)

    def _append(self, lines: Sequence[Line], *, flush: bool) -> None:
        data = b"".join(map(_encoded, lines))
        if not data:
            return
        with self._lock:
            self._write(data)
            if not flush:
                self._noted += data
            if flush or time.monotonic() - self._flushed_at > _FLUSH_AFTER_S:
                self._flush()

    def _write(self, data: bytes) -> None:
        """Append, behind what a failed flush left in doubt."""
        self._open()
        # One write call: lines of several processes do not mix (POSIX O_APPEND on a local file).
        data = (b"\n" if self._torn else b"") + self._again + data
        written = os.write(self._file, data)
        self._torn = written != len(data) and (self._torn or written > 0)
        if written != len(data):
            raise OSError(errno.ENOSPC, "an audit line was written in part")
        self._noted, self._again = self._noted + self._again, b""
        self._unflushed = True

    def _flush(self) -> None:
        try:
            os.fsync(self._file)
        except OSError:
            again = self._again + self._noted
            if len(again) > _MOST_AGAIN:
                again = again[-_MOST_AGAIN:].partition(b"\n")[2]
            self._again, self._noted, self._unflushed = again, b"", False
            raise
        self._noted, self._unflushed, self._flushed_at = b"", False, time.monotonic()

    def close(self) -> None:
        """Close the file; the next `write` opens it again."""
        with self._lock:
            try:
                if self._again:  # also where the file that did not take it was closed for a new one
                    self._write(b"")
            finally:
                if self._file >= 0:
                    self._end()

    def _end(self) -> None:
        """Close the file; what was noted in it is flushed before."""
        try:
            if self._unflushed:
                self._flush()
        finally:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        """Open the file on first use, and again when the path no longer names the open one."""
        if self._file >= 0:
            try:
                if os.stat(self._path).st_ino == self._inode:
                    return
            except FileNotFoundError:
                pass
            self._end()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._inode = os.fstat(self._file).st_ino


def audited(audit: AuditLog, event: str, outcome: str, **fields: object) -> None:
    """Write a line that must be there before the work goes on.

    Raises
    ------
    CapacityError
        ``audit-full``: it could not be written, for a full disk above all.
    """
    with _told():
        audit.write(event, outcome, **fields)


def audited_all(audit: AuditLog, lines: Sequence[Line]) -> None:
    """Write lines that must be there before the work goes on; CapacityError as `audited`."""
    with _told():
        audit.write_all(lines)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CapacityError(
            "audit-full", f"the audit trail cannot be written: {error.strerror}", "make room, then do it again"
        ) from None


def _encoded(line: Line) -> bytes:
    code = EVENTS.get(line.event)
    if code is None or line.outcome not in OUTCOMES:
        raise ValueError(f"no such audit event or outcome: {line.event!r}, {line.outcome!r}")
    unknown = line.fields.keys() - FIELDS.keys()
    if unknown:
        raise ValueError(f"not fields of the audit trail: {sorted(unknown)}")
    content = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "event": line.event,
        "event_id": code.event_id,
        **({"event_type": code.event_type} if code.event_type else {}),
        "outcome": line.outcome,
        "outcome_code": OUTCOMES[line.outcome],
        **{name: FIELDS[name](value) for name, value in line.fields.items() if value is not None},
    }
    return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
