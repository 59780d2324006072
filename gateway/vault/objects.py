"""Sealed originals in an S3-compatible store: one object per record, named by its locator.

What is sent is sealed before it leaves: the store, and whoever listens or looks into it, has bytes that only the
restore key opens. A payload becomes visible whole or not at all (the store's PUT is atomic) and is never written over
while it is small; what comes back is checked as every payload is, by its tags and the original's SHA-256.

A store that does not answer, or refuses us, makes whoever needs it wait, as a full disk does: nothing is lost, and
received instances stay in the spool until it is back. How durable an object is once the store has said yes is the
store's own setting.
"""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from gateway.config.store import Store
from gateway.errors import CapacityError, ConfigError, NotFoundError, VaultError
from gateway.vault.payloads import LOCATOR, as_locator

if TYPE_CHECKING:
    from obstore.store import S3Store

LARGEST_WHOLE = 64 << 20  # bytes; what is longer goes in parts
_PART = 16 << 20  # bytes
_PARTS_AT_ONCE = 4
_RETRIES = 2  # of the library, for broken connections and answers of 5xx; after these the flow waits
_CONNECT_S = 5
_WHOLE_S = 1800  # for one object, or one part of it
_STATUS = re.compile(r"status code: (\d{3})")


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
        ``no-object-store``: the library is not installed; ``store-unusable``: the trust cannot be read; or a reference
        cannot be resolved.
    """

    def __init__(self, settings: Store, scratch: Path) -> None:
        self._settings = settings
        self._scratch = scratch
        self._store = _open(settings)

    def put(self, locator: str, write: Callable[[BinaryIO], None]) -> None:
        """Store what `write` writes, unless it is there; returns when the store has it whole.

        Raises
        ------
        CapacityError
            ``store-unreachable``, ``store-refused``, or ``disk-full``: no room for it on its way.
        """
        import obstore

        name = as_locator(locator)
        if self.exists(name):
            return
        with self._file() as file:
            write(file)
            size = file.tell()
            file.seek(0)
            with self._asked():
                try:
                    if size <= LARGEST_WHOLE:
                        obstore.put(self._store, name, file.read(), mode="create", use_multipart=False)
                    else:
                        obstore.put(
                            self._store,
                            name,
                            file,
                            use_multipart=True,
                            chunk_size=_PART,
                            max_concurrency=_PARTS_AT_ONCE,
                        )
                except obstore.exceptions.AlreadyExistsError:
                    return  # another process was quicker, or an answer to our own was lost: either opens
        if (stored := self.size(name)) != size:
            raise VaultError("store-differs", f"{self._where} has {stored} bytes of record {name} instead of {size}")

    def open(self, locator: str) -> BinaryIO:
        """The payload, fetched whole: what is read is one version of it, whatever becomes of the object meanwhile.

        Raises
        ------
        NotFoundError
            ``payload-missing``.
        CapacityError
            As `put`.
        """
        import obstore

        name = as_locator(locator)
        file = self._temporary()
        try:
            with self._asked(name):
                result = obstore.get(self._store, name)
                for piece in result.stream(min_chunk_size=1 << 20):
                    with _on_disk():
                        file.write(piece)
            if file.tell() != result.meta["size"]:
                raise self._away("it ended an answer half way")
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
        import obstore

        name = as_locator(locator)
        with self._asked(name):
            return int(obstore.head(self._store, name)["size"])

    def delete(self, locator: str) -> bool:
        """Remove the payload; false when there was none. CapacityError as `put`."""
        import obstore

        if not self.exists(locator):
            return False
        with self._asked():
            obstore.delete(self._store, as_locator(locator))
        return True

    def locators(self) -> Iterator[str]:
        """The locators of all payloads, in no order; CapacityError as `put`."""
        import obstore

        pages = iter(obstore.list(self._store))
        while True:
            with self._asked():
                page = next(pages, None)
            if page is None:
                return
            for entry in page:
                if LOCATOR.fullmatch(entry["path"]):
                    yield entry["path"]

    def sweep(self, before: float) -> int:
        """Nothing is left half written: what lies in the scratch folder has no name. Parts are the store's to end."""
        return 0

    def look(self) -> str:
        """Ask it for one of its names; gives what to call it. CapacityError as `put`."""
        next(self.locators(), None)
        return self._where

    @property
    def _where(self) -> str:
        return f"the object store {self._settings.endpoint} (bucket {self._settings.bucket})"

    def _away(self, why: str) -> CapacityError:
        hint = "is it running, and its address, certificate and [store] right? What waits goes on by itself"
        return CapacityError("store-unreachable", f"{self._where} cannot be used: {why}", hint)

    def _refused(self) -> CapacityError:
        hint = "are [store] access_key_id and secret_access_key right, and may that account do this there?"
        return CapacityError("store-refused", f"{self._where} refuses us", hint)

    @contextmanager
    def _file(self) -> Iterator[BinaryIO]:
        with _on_disk(), self._temporary() as file:
            yield file

    def _temporary(self) -> BinaryIO:
        self._scratch.mkdir(mode=0o750, parents=True, exist_ok=True)
        return cast(BinaryIO, tempfile.TemporaryFile(dir=self._scratch))

    @contextmanager
    def _asked(self, name: str | None = None) -> Iterator[None]:
        """Errors of the library as ours. Their texts hold addresses and requests: none is handed on."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError:
            if name is None:  # a bucket that is not there
                raise self._away("there is no such bucket") from None
            raise NotFoundError("payload-missing", f"the sealed original of record {name} is not there") from None
        except (PermissionDeniedError, UnauthenticatedError):
            raise self._refused() from None
        except BaseError as error:
            words = str(error)
            if "AccessDenied" in words:  # deletions are answered name by name
                raise self._refused() from None
            if "NoSuchBucket" in words:
                raise self._away("there is no such bucket") from None
            status = _STATUS.search(words)
            raise self._away(f"it answers {status[1]}" if status else "no answer") from None


@contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CapacityError("disk-full", "no room for a sealed original on its way to or from the store") from None
        raise


def _open(settings: Store) -> S3Store:
    try:
        from obstore.store import S3Store
    except ImportError:
        message = "[store] names an object store, and the library for it is not installed"
        raise ConfigError("no-object-store", message, "pip install 'miad-gateway[s3]'") from None
    account = {
        "access_key_id": settings.access_key_id.resolve().decode().strip(),
        "secret_access_key": settings.secret_access_key.resolve().decode().strip(),
        "token": None,
        "expires_at": None,
    }
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=_CONNECT_S),
        "read_timeout": timedelta(seconds=settings.timeout_s),
        "timeout": timedelta(seconds=_WHOLE_S),
        "allow_http": settings.is_plain,
    }
    if settings.trust is not None:
        try:
            client["root_certificate"] = settings.trust.read_bytes()
        except OSError as error:
            raise ConfigError(
                "store-unusable", f"cannot read {settings.trust}: {error.strerror}", "see [store]"
            ) from None
    try:
        return S3Store(
            settings.bucket,
            prefix=settings.prefix or None,
            endpoint=settings.endpoint,
            region=settings.region,
            # All of it said here: what is left out the library would take from AWS_ variables of the environment.
            aws_endpoint_url_s3=settings.endpoint,
            credential_provider=lambda: cast(Any, account),
            skip_signature=False,
            conditional_put="etag",
            virtual_hosted_style_request=settings.virtual_host,
            checksum_algorithm="SHA256",  # the store compares what has arrived
            client_options=cast(Any, client),
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=settings.timeout_s)},
        )
    except Exception:  # its words may quote what it was given
        message = "the object store's settings cannot be used"
        raise ConfigError("store-unusable", message, "look at [store]: endpoint, trust (PEM), region") from None
