"""Sealed originals in an S3-compatible store: one object per record, named by its locator.

What is sent is sealed before it leaves: the store, and whoever listens or looks into it, has bytes that only the
restore key opens. A payload is never written over while it is small; what comes back is checked as every payload is, by
its tags and the original's SHA-256.

While the store is away, whoever needs it waits, as for a full disk (`gateway.bucket`): nothing is lost, and received
instances stay in the spool until it is back.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from gateway.bucket import Bucket
from gateway.config.store import Store
from gateway.errors import CapacityError, NotFoundError, VaultError
from gateway.vault.payloads import LOCATOR, as_locator


class ObjectPayloads:
    """Payloads in one bucket, behind the interface of `gateway.vault.payloads.Payloads`. Safe for several processes.

    Parameters
    ----------
    settings
        The ``[store]`` table; its references are resolved here.
    scratch
        A folder of ours on a disk, for sealed bytes on their way; what lies there has no name and ends with the
        process.

    Raises
    ------
    ConfigError
        As `gateway.bucket.Bucket`.
    """

    def __init__(self, settings: Store, scratch: Path) -> None:
        self._scratch = scratch
        self._bucket = Bucket(settings)
        self._store = self._bucket.store

    def put(self, locator: str, write: Callable[[BinaryIO], None]) -> None:
        """Store what `write` writes, unless it is there; returns when the store has it whole.

        Raises
        ------
        CapacityError
            ``store-unreachable``, ``store-refused``, or ``disk-full``: no room for it on its way.
        """
        name = as_locator(locator)
        if self.exists(name):
            return
        with self._file() as file:
            write(file)
            size = file.tell()
            file.seek(0)
            if not self._bucket.upload(name, file, size):
                return  # another process was quicker, or an answer to our own was lost: either opens
        if (stored := self.size(name)) != size:
            raise VaultError(
                "store-differs", f"{self._bucket.where} has {stored} bytes of record {name} instead of {size}"
            )

    def open(self, locator: str) -> BinaryIO:
        """The payload, fetched whole: what is read is one version of it, whatever becomes of the object meanwhile.

        Raises
        ------
        NotFoundError
            ``payload-missing``.
        CapacityError
            As `put`.
        """
        name = as_locator(locator)
        file = self._temporary()
        try:
            with _there(name):
                for piece in self._bucket.stream(name):
                    with _on_disk():
                        file.write(piece)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def exists(self, locator: str) -> bool:
        """Whether the payload is there (then it is complete); CapacityError as `put`."""
        try:
            self.size(locator)
        except NotFoundError:
            return False
        return True

    def size(self, locator: str) -> int:
        """Bytes of the payload; NotFoundError ``payload-missing``, CapacityError as `put`."""
        name = as_locator(locator)
        with _there(name):
            return self._bucket.size(name)

    def delete(self, locator: str) -> bool:
        """Remove the payload; false when there was none. CapacityError as `put`."""
        if not self.exists(locator):
            return False
        self._bucket.delete(as_locator(locator))
        return True

    def locators(self) -> Iterator[str]:
        """The locators of all payloads, in no order; CapacityError as `put`."""
        return (found.name for found in self._bucket.list() if LOCATOR.fullmatch(found.name))

    def sweep(self, before: float) -> int:
        """Nothing is left half written: what lies in the scratch folder has no name. Parts are the store's to end."""
        return 0

    def look(self) -> str:
        """Ask it for one of its names; gives what to call it. CapacityError as `put`."""
        next(self.locators(), None)
        return self._bucket.where

    @contextmanager
    def _file(self) -> Iterator[BinaryIO]:
        with _on_disk(), self._temporary() as file:
            yield file

    def _temporary(self) -> BinaryIO:
        self._scratch.mkdir(mode=0o750, parents=True, exist_ok=True)
        return cast(BinaryIO, tempfile.TemporaryFile(dir=self._scratch))


@contextmanager
def _there(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError("payload-missing", f"the sealed original of record {name} is not there") from None


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CapacityError("disk-full", "no room for a sealed original on its way to or from the store") from None
        raise
