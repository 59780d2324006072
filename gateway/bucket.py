"""One bucket of an S3-compatible store: asking it, and what it answers in our own words.

A store that does not answer, or refuses us, makes whoever needs it wait, as a full disk does (`CapacityError`). An
object becomes visible whole or not at all (the store's PUT is atomic). How durable one is once the store has said yes
is the store's own setting. Who calls, and what lies there, is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from gateway.config.store import Store
from gateway.errors import CapacityError, ConfigError

if TYPE_CHECKING:
    from obstore.store import S3Store

LARGEST_WHOLE = 64 << 20  # bytes; what is longer goes in parts
_PART = 16 << 20  # bytes
_PARTS_AT_ONCE = 4
_RETRIES = 2  # of the library, for broken connections and answers of 5xx; after these the flow waits
_CONNECT_S = 5
_WHOLE_S = 1800  # for one object, or one part of it
_STATUS = re.compile(r"status code: (\d{3})")


@dataclass(frozen=True)
class Listed:
    """An object as the store lists it. changed_at: seconds since 1970, by the store's clock."""

    name: str
    size: int
    changed_at: float


@dataclass(frozen=True)
class Range:
    """A piece of an object: its bytes, how many the whole has, and which version of it this is."""

    data: bytes
    size: int
    version: str | None


class Bucket:
    """One bucket. Safe for several threads and processes.

    Every method raises CapacityError ``store-unreachable`` or ``store-refused`` when the store cannot be used now, and
    FileNotFoundError where an object is not there.

    Parameters
    ----------
    settings
        The ``[store]`` table; its references are resolved here.

    Raises
    ------
    ConfigError
        ``no-object-store``: the library is not installed; ``store-unusable``: the trust cannot be read; or a reference
        cannot be resolved.
    """

    def __init__(self, settings: Store) -> None:
        self._settings = settings
        self.store = open_store(settings)

    @property
    def where(self) -> str:
        """What to call it, for people."""
        return f"the object store {self._settings.endpoint} (bucket {self._settings.bucket})"

    def create(self, name: str, data: bytes) -> bool:
        """Store an object, confirmed when this returns; false when there is one of this name, which is left alone."""
        import obstore

        with self._asked(of_object=False):
            try:
                obstore.put(self.store, name, data, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    def upload(self, name: str, file: BinaryIO, size: int) -> bool:
        """As `create`, from a file that is at its start: of more than `LARGEST_WHOLE` bytes in parts.

        In parts an object of the same name that appears meanwhile is replaced.
        """
        import obstore

        if size <= LARGEST_WHOLE:
            return self.create(name, file.read())
        with self._asked(of_object=False):
            options: dict[str, Any] = {"chunk_size": _PART, "max_concurrency": _PARTS_AT_ONCE}
            obstore.put(self.store, name, file, use_multipart=True, **options)
        return True

    def size(self, name: str) -> int:
        """Bytes of an object."""
        import obstore

        with self._asked():
            return int(obstore.head(self.store, name)["size"])

    def range(self, name: str, start: int, length: int, version: str | None = None) -> Range:
        """Up to `length` bytes of an object from `start` on, which must lie in it.

        version: that of a piece read before; an object that was replaced meanwhile is not there.
        """
        import obstore
        from obstore.exceptions import PreconditionError

        options: dict[str, Any] = {"range": (start, start + length)}
        if version is not None:
            options["if_match"] = version
        with self._asked():
            try:
                found = obstore.get(self.store, name, options=cast(Any, options))
                data = bytes(found.bytes())
            except PreconditionError:
                raise FileNotFoundError("the object was replaced while it was read") from None
            if len(data) != min(length, found.meta["size"] - start):
                raise self.away("it ended an answer half way")
            return Range(data, found.meta["size"], found.meta["e_tag"])

    def stream(self, name: str) -> Iterator[bytes]:
        """An object from its first byte to its last, in pieces of some MiB."""
        import obstore

        with self._asked():
            found = obstore.get(self.store, name)
            pieces, left = iter(found.stream(min_chunk_size=1 << 20)), found.meta["size"]
        while True:
            with self._asked():
                piece = next(pieces, None)
            if piece is None:
                break
            left -= len(piece)
            yield bytes(piece)
        if left:
            raise self.away("it ended an answer half way")

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        import obstore

        with self._asked():
            try:
                obstore.delete(self.store, name)
            except FileNotFoundError:
                return

    def list(self, under: str | None = None) -> Iterator[Listed]:
        """All objects, or those whose names begin with `under` and a slash, in no order."""
        import obstore

        pages = iter(obstore.list(self.store, prefix=under))
        while True:
            with self._asked(of_object=False):
                page = next(pages, None)
            if page is None:
                return
            for entry in page:
                yield Listed(entry["path"], int(entry["size"]), entry["last_modified"].timestamp())

    def away(self, why: str) -> CapacityError:
        """It cannot be used now."""
        hint = "is it running, and its address, certificate and [store] right? What waits goes on by itself"
        return CapacityError("store-unreachable", f"{self.where} cannot be used: {why}", hint)

    def _refused(self) -> CapacityError:
        hint = "are [store] access_key_id and secret_access_key right, and may that account do this there?"
        return CapacityError("store-refused", f"{self.where} refuses us", hint)

    @contextmanager
    def _asked(self, of_object: bool = True) -> Iterator[None]:
        """Errors of the library as ours. Their texts hold addresses and requests: none is handed on.

        of_object: whether it is the object that may not be there; else it is the bucket.
        """
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError:
            if not of_object:
                raise self.away("there is no such bucket") from None
            raise FileNotFoundError("there is no such object") from None
        except (PermissionDeniedError, UnauthenticatedError):
            raise self._refused() from None
        except BaseError as error:
            words = str(error)
            if "AccessDenied" in words:  # deletions are answered name by name
                raise self._refused() from None
            if "NoSuchBucket" in words:
                raise self.away("there is no such bucket") from None
            status = _STATUS.search(words)
            raise self.away(f"it answers {status[1]}" if status else "no answer") from None


def open_store(settings: Store) -> S3Store:
    """The library's own object for a bucket; ConfigError as `Bucket`."""
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
