"""How the flow treats exceptions: what is retried, what is unexpected, and how often it is logged."""

from __future__ import annotations

import errno
import threading
import time

from gateway.errors import CapacityError, GatewayError, HoldError, fault

TELL_AGAIN_S = 300.0  # between two lines about a failure that goes on
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_FAILING = {errno.EIO, errno.EROFS}  # the kernel makes a file system read-only when its disk fails


def as_waiting(error: Exception) -> CapacityError | None:
    """The error as one that passes when somebody makes room, or mends the disk; None when it is no such error."""
    if isinstance(error, CapacityError):
        return error
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return CapacityError("disk-full", f"a file cannot be written: {error.strerror}", "free some disk")
    if isinstance(error, OSError) and error.errno in _FAILING:
        return CapacityError(
            "disk-error", f"a file cannot be read or written: {error.strerror}", "look at the disk: `dmesg` names it"
        )
    return None


def not_spooled(error: OSError) -> CapacityError:
    """What a sender is told of a data set that the spool's disk did not take."""
    if error.errno in _NO_ROOM:
        return CapacityError("disk-full", f"cannot write to the spool: {error.strerror}", "free some disk")
    return CapacityError("spool-unwritable", f"cannot write to the spool: {error.strerror}", "look at the disk")


def unexpected(error: Exception) -> GatewayError:
    """The error itself when it has words of ours, else one that names its type and place."""
    return error if isinstance(error, GatewayError) else HoldError("unexpected", fault(error), "see the log")


class Repeated:
    """Sums up failures that are all the same: by place and code, told at first and then now and then."""

    def __init__(self, again_s: float = TELL_AGAIN_S) -> None:
        self._again_s = again_s
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[str, int, float]] = {}  # place -> code, failures since, told at

    def again(self, place: str, code: str) -> int:
        """Count a failure. Returns how many there were in a row when it is time to tell, else 0."""
        now = time.monotonic()
        with self._lock:
            before, count, told_at = self._seen.get(place, ("", 0, 0.0))
            if before != code:
                count, told_at = 0, now - self._again_s
            count += 1
            tell = now - told_at >= self._again_s
            self._seen[place] = (code, count, now if tell else told_at)
            return count if tell else 0

    def over(self, place: str) -> None:
        """It works again."""
        with self._lock:
            self._seen.pop(place, None)
