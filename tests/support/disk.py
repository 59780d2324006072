"""A disk that keeps, when the power goes, what was flushed, and of the rest any part: for tests of durability."""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 4096


@dataclass
class Disk:
    """Watches the calls that this process makes on files in `folder`.

    `moment` is called before and after each of them: there the power may go. What the disk would hold then, `remains`
    tells: whole files that were flushed and whose entry in the folder was; of what was not, any pages (others read as
    zeros), any length between, and any of the entries that were made or removed.
    """

    folder: Path
    moment: Callable[[], None] = lambda: None
    files: dict[int, bytes] = field(default_factory=dict)  # by inode number: what was flushed
    durable_names: dict[str, int] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _kept: list[int] = field(default_factory=list)  # open, so that no number of a deleted file is given anew

    def watch(self, monkeypatch) -> None:
        names = "open writev ftruncate truncate fdatasync fsync rename replace link unlink"
        for name in names.split():
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, call: Callable) -> Callable:
        def watched(*args, **kwargs):
            with self.lock:
                self.moment()
                result = call(*args, **kwargs)
                if name == "open" and len(args) > 1 and args[1] & os.O_CREAT:
                    self._kept.append(call(args[0], os.O_RDONLY))
                if name in ("fdatasync", "fsync"):
                    self._flushed(args[0])
                self.moment()
                return result

        return watched

    def _flushed(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if os.path.samestat(found, self.folder.stat()):
            self.durable_names = self._names()
        elif stat.S_ISREG(found.st_mode):  # else another disk's folder
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:
                self.files[found.st_ino] = file.read()

    def _names(self) -> dict[str, int]:
        return {entry.name: entry.inode() for entry in os.scandir(self.folder) if entry.is_file()}

    def close(self) -> None:
        for descriptor in self._kept:
            os.close(descriptor)
        self._kept.clear()

    def remains(self, rng: random.Random) -> dict[str, bytes]:
        """Files and their contents after a power cut at this moment."""
        now = self._names()
        names = dict(now)
        for name in now.keys() | self.durable_names.keys():
            before, after = self.durable_names.get(name), now.get(name)
            if before == after or rng.random() < 0.5:
                continue
            if before is None:
                del names[name]
            else:
                names[name] = before
        return {name: self._content(name, inode, now, rng) for name, inode in names.items()}

    def _content(self, name: str, inode: int, now: dict[str, int], rng: random.Random) -> bytes:
        durable = self.files.get(inode, b"")
        if now.get(name) != inode:
            return durable
        current = (self.folder / name).read_bytes()
        if len(current) <= len(durable):
            return current if rng.random() < 0.5 else durable
        content = bytearray(durable)
        content.extend(bytes(rng.randrange(len(current) - len(durable) + 1)))
        for start in range(len(durable) // PAGE * PAGE, len(current), PAGE):
            begin, end = max(start, len(durable)), min(start + PAGE, len(current))
            if rng.random() < 0.5:
                content.extend(bytes(max(0, end - len(content))))
                content[begin:end] = current[begin:end]
        return bytes(content)
