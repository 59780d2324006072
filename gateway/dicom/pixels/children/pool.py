"""Frames given to child processes, and taken back: a child that takes too long, or dies, costs its frame and no more.

Children start with the first frame, one for each thread that has a frame at a time; they end with the pool or with this
process, whatever ends it.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import mmap
import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from gateway.config.models import Codecs
from gateway.dicom.encoding.syntaxes import Syntax
from gateway.dicom.pixels.children import wire
from gateway.dicom.pixels.children.launch import START_SECONDS, launch
from gateway.dicom.pixels.facts import FrameFacts, container_of, decoded_type
from gateway.errors import CapacityError, DicomError

_USUAL_FRAME, _USUAL_CODESTREAM = 16 << 20, 1 << 20  # bytes of a frame that has `Limits.seconds`; larger ones have more
_PATIENCE = 10  # times the limit by the clock: a busy machine is no reason to refuse a frame
_LOOKING = 10  # times as long as a frame: a whole data set is read
_ENCODING = 10  # times as long: pixels of our own, and RLE is slow to encode
_ROOM = 1 << 16  # bytes that an encoded frame may be longer than the frame
_FRAMES = 20_000  # that a child works before another takes its place
_WORD = re.compile(r"[a-z0-9-]{1,40}")
_MAIN = "gateway.dicom.pixels.children.main"


@dataclass(frozen=True)
class Limits:
    """What a child may take.

    Attributes
    ----------
    memory
        Bytes of address space, the interpreter and its libraries (about 0.25 GiB) included.
    seconds
        Processor time of one frame of up to 16 MiB; larger ones have more in proportion.
    processes
        Children at a time.
    """

    memory: int = 1 << 30
    seconds: float = 2.0
    processes: int = max(os.cpu_count() or 1, 1)

    @staticmethod
    def of(codecs: Codecs) -> Limits:
        """As a site's configuration has them."""
        return Limits(codecs.memory_mib << 20, codecs.frame_seconds, codecs.processes or Limits.processes)


class Pool:
    """Child processes for one role. Safe for any number of threads.

    Parameters
    ----------
    limits
        Of each child.
    main
        The module whose `main` a child runs.
    """

    def __init__(self, limits: Limits | None = None, main: str = _MAIN) -> None:
        self._limits = limits or Limits()
        self._main = main
        self._free = threading.BoundedSemaphore(self._limits.processes)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._owner = os.getpid()
        self._closed = False

    def decode(self, frame: bytes, facts: FrameFacts, syntax: Syntax) -> np.ndarray:
        """As `gateway.dicom.pixels.decoding.decode_frame`, in a child.

        Raises
        ------
        DicomError
            as there, and "codec-timeout", "codec-killed", "codec-memory".
        CapacityError
            "codec-start": this machine starts no child; nothing is wrong with the frame.
        """
        kind = decoded_type(facts, syntax)
        size = int(np.prod(facts.shape)) * kind.itemsize
        data = self._run("decode", frame, facts, syntax, max(len(frame), size), size)
        if len(data) != size:
            raise DicomError("codec-killed", "the process that decodes frames gave back another size")
        return np.frombuffer(data, kind).reshape(facts.shape)

    def encode(self, frame: np.ndarray, facts: FrameFacts, syntax: Syntax) -> bytes:
        """As `gateway.dicom.pixels.encoders.encode_frame`, in a child; errors as there and as `decode`."""
        data = np.ascontiguousarray(frame, container_of(facts)).tobytes()
        return bytes(self._run("encode", data, facts, syntax, 2 * len(data) + _ROOM, len(data)))

    def look(
        self, job: str, data: Iterable[bytes], most: int, room: int, syntax_uid: str, wish: Mapping[str, Any]
    ) -> bytes:
        """Have something made out of a whole data set (`gateway.dicom.pixels.children.views`).

        Parameters
        ----------
        data
            The data set in pieces, of at most `most` bytes together.
        room
            Bytes that the answer may have.

        Raises
        ------
        DicomError
            "too-large-to-view", and what the job says. CapacityError as `decode`; whatever `data` raises.
        """
        with self._lent() as child:
            seconds = self._limits.seconds * _LOOKING
            message = {"job": job, "syntax": syntax_uid, "wish": dict(wish)}
            try:
                return bytes(child.run(message, data, max(most, room), seconds))
            except BrokenPipeError:
                child.end()
                raise _killed("before it took the frame") from None
            except _KilledFromOutsideError:
                raise _killed("by signal SIGKILL") from None

    def close(self) -> None:
        """End all children; the pool starts none any more."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()

    def _run(self, job: str, data: bytes, facts: FrameFacts, syntax: Syntax, capacity: int, decoded: int) -> bytearray:
        larger = min(decoded / _USUAL_FRAME, len(data) / _USUAL_CODESTREAM)
        seconds = self._limits.seconds * max(1.0, larger) * (_ENCODING if job == "encode" else 1)
        message = {"job": job, "syntax": syntax.uid, "facts": wire.packed_facts(facts)}
        with self._lent() as child:
            try:
                return child.run(message, data, capacity, seconds)
            except (BrokenPipeError, _KilledFromOutsideError):  # not the frame's doing, as far as can be seen
                child.end()
        with self._lent(fresh=True) as child:
            try:
                return child.run(message, data, capacity, seconds)
            except BrokenPipeError:
                child.end()
                raise _killed("before it took the frame") from None
            except _KilledFromOutsideError:  # twice: perhaps for the memory that this frame takes
                raise _killed("by signal SIGKILL") from None

    def _lent(self, *, fresh: bool = False) -> _Lent:
        return _Lent(self, fresh)

    def _take(self, fresh: bool) -> _Child:
        self._free.acquire()
        try:
            with self._lock:
                if self._owner != os.getpid():  # forked: the children are the parent's
                    self._idle, self._owner = [], os.getpid()
                if self._closed:
                    raise CapacityError("codec-start", "the processes that decode frames have been ended already")
                if self._idle and not fresh:
                    return self._idle.pop()
            return _Child(self._limits, self._main)
        except BaseException:
            self._free.release()
            raise

    def _give(self, child: _Child) -> None:
        with self._lock:
            keep = child.is_usable and not self._closed
            if keep:
                self._idle.append(child)
        self._free.release()
        if not keep:
            child.end()


class _KilledFromOutsideError(Exception):
    """Somebody killed a child, the kernel for want of memory perhaps: another child may well do the frame."""


class _Lent:
    """A child for the time of a `with` block."""

    def __init__(self, pool: Pool, fresh: bool) -> None:
        self._pool, self._fresh = pool, fresh

    def __enter__(self) -> _Child:
        self._child = self._pool._take(self._fresh)
        return self._child

    def __exit__(self, *_: object) -> None:
        self._pool._give(self._child)


class _Child:
    """One child process, and the memory shared with it. For one thread at a time."""

    def __init__(self, limits: Limits, main: str) -> None:
        try:
            self._shared = os.memfd_create("codec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise _not_started(error.strerror) from None
        # A child that made the file shorter would take this process along (SIGBUS).
        fcntl.fcntl(self._shared, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self._pixels: mmap.mmap | None = None
        self._frames = 0
        try:
            self._process = launch(
                f"from {main} import main; main()", [str(self._shared), str(limits.memory)], self._shared
            )
        except OSError as error:  # no process or file to be had: the frame waits, as for a full disk
            os.close(self._shared)
            raise _not_started(error.strerror) from None
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        self.is_usable = True
        self._limits = limits
        try:
            hello = wire.receive(self._reader(START_SECONDS, time.monotonic))
        except (wire.EndOfMessages, TimeoutError):
            self.end()
            raise _not_started() from None
        confined = hello.get("confined")
        self.confined: dict[str, Any] = confined if isinstance(confined, dict) else {}

    def run(self, message: dict[str, Any], data: bytes | Iterable[bytes], capacity: int, seconds: float) -> bytearray:
        """Do one job; BrokenPipeError when the child was dead before, DicomError as `Pool.decode`."""
        pixels = self._room_for(capacity)
        given = 0
        for piece in (data,) if isinstance(data, bytes) else data:
            if given + len(piece) > capacity:
                raise DicomError("too-large-to-view", f"it has more than {capacity >> 20} MiB")
            pixels[given : given + len(piece)] = piece
            given += len(piece)
        told = {"length": given, "capacity": len(pixels), "seconds": seconds * _PATIENCE}
        wire.send(self._requests, message | told)
        try:
            answer = wire.receive(self._reader(seconds, self._processor_clock()))
        except TimeoutError:
            self.end()
            raise DicomError(
                "codec-timeout",
                f"a compressed frame took more than {seconds:.1f} s and was given up",
                "it may be damaged or made to harm; raise frame_seconds in [codecs] for very slow machines",
            ) from None
        except wire.EndOfMessages:
            how = self._ending()
            if how.endswith("SIGKILL"):  # no codec ends so; the kernel does, or a person
                raise _KilledFromOutsideError from None
            raise _killed(how) from None
        self._frames += 1
        self.is_usable = self._frames < _FRAMES
        if "error" in answer:
            raise self._error_of(answer["error"])
        length = answer.get("length")
        if type(length) is not int or not 0 <= length <= capacity:
            self.end()
            raise DicomError("codec-killed", "the process that decodes frames answered nonsense and was ended")
        return bytearray(pixels[:length])

    def end(self) -> None:
        """Kill it, unless it is dead, and give back what it held."""
        self.is_usable = False
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._shared >= 0:
            if self._pixels is not None:
                self._pixels.close()
            os.close(self._shared)
            self._shared = -1

    def _room_for(self, capacity: int) -> mmap.mmap:
        if self._pixels is None or len(self._pixels) < capacity:
            size = max(1 << 20, 1 << (capacity - 1).bit_length())
            os.ftruncate(self._shared, size)
            if self._pixels is not None:
                self._pixels.close()
            self._pixels = mmap.mmap(self._shared, size)
        return self._pixels

    def _reader(self, seconds: float, clock: Callable[[], float]) -> Callable[[int], bytes]:
        """Reads answers; TimeoutError after `seconds` by `clock`, or ten times as long by the wall's."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        start, begun = clock(), time.monotonic()

        def read(length: int) -> bytes:
            while not poll.poll(max(1, int(1000 * min(seconds, 1.0)))):
                if clock() - start > seconds or time.monotonic() - begun > _PATIENCE * seconds:
                    raise TimeoutError
            return os.read(self._answers, length)

        return read

    def _processor_clock(self) -> Callable[[], float]:
        """Seconds of processor time that the child has used; by the wall's clock where no one can tell."""
        path, ticks = f"/proc/{self._process.pid}/stat", os.sysconf("SC_CLK_TCK")

        def used() -> float:
            try:
                with open(path, "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                return (int(fields[11]) + int(fields[12])) / ticks  # proc_pid_stat(5): utime, stime
            except (OSError, ValueError, IndexError):
                return time.monotonic()

        return used

    def _error_of(self, given: object) -> DicomError:
        """The error that a child told of, as far as it makes sense."""
        words = given if isinstance(given, list) and len(given) == 3 else ["", "", ""]
        code, message, hint = (word if isinstance(word, str) else "" for word in words)
        if code == "codec-memory" or not _WORD.fullmatch(code):
            self.is_usable = False
            return _memory(self._limits)
        return DicomError(code, message[:500], hint[:500])

    def _ending(self) -> str:
        code = self._process.wait()
        self.end()
        return f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"


def _killed(how: str) -> DicomError:
    return DicomError(
        "codec-killed",
        f"the process that decodes frames ended {how} while it had this one",
        "the frame may be damaged or made to harm, or need more than memory_mib in [codecs]",
    )


def _not_started(why: str | None = None) -> CapacityError:
    return CapacityError(
        "codec-start",
        "the process that decodes compressed frames does not start" + (f": {why}" if why else ""),
        "look for memory that is missing; raise memory_mib in [codecs], or reinstall the gateway",
    )


def _memory(limits: Limits) -> DicomError:
    return DicomError(
        "codec-memory",
        f"a compressed frame needs more than the {limits.memory >> 20} MiB that decoding may take",
        "raise memory_mib in [codecs] if such frames are right",
    )


_shared: Pool | None = None
_limits = Limits()
_making = threading.Lock()


def shared() -> Pool:
    """The pool of this process; made at the first call."""
    global _shared
    with _making:
        if _shared is None:
            _shared = Pool(_limits)
        return _shared


class _Here:
    """Stands for a pool in a child: what it decodes, it decodes itself."""

    def __init__(self, decode: Callable[[bytes, FrameFacts, Syntax], np.ndarray]) -> None:
        self.decode = decode

    def close(self) -> None:
        """Nothing to end."""


def decode_here(decode: Callable[[bytes, FrameFacts, Syntax], np.ndarray]) -> None:
    """From now on frames are decoded in this process, which is a child and has given everything else up."""
    global _shared
    _shared = cast("Pool", _Here(decode))


def configure(limits: Limits) -> None:
    """Limits of this process's pool from now on: a role sets them before its first frame."""
    global _limits
    if limits != _limits:
        close()
        _limits = limits


@atexit.register
def close() -> None:
    """End the children of this process's pool; the next frame starts new ones."""
    global _shared
    with _making:
        pool, _shared = _shared, None
    if pool is not None:
        pool.close()
