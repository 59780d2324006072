"""The keys of the object store's table: where sealed originals lie when not in the state folder."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from gateway.config.base import Model
from gateway.config.secret import SecretRef

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def _store_url(value: str) -> str:
    scheme, _, rest = value.partition("://")
    bucket, slash, prefix = rest.partition("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket) or (slash and not _PREFIX.fullmatch(prefix)):
        raise ValueError("it reads s3://BUCKET or s3://BUCKET/PREFIX, without a slash at the end")
    return value


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.path or parts.query or parts.username:
        raise ValueError("it reads https://HOST or https://HOST:PORT")
    return value


class Store(Model):
    """An S3-compatible store that holds the sealed originals. What lies there nobody opens without the restore key.

    Worker (which writes and deletes) and restore role (which reads) resolve the references, each its own: as a
    `credential:` each unit can be given another account under one name.
    """

    url: Annotated[str, AfterValidator(_store_url)]  # s3://BUCKET/PREFIX
    endpoint: Annotated[str, AfterValidator(_endpoint)]
    region: Annotated[str, Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9-]+$")] = "us-east-1"
    access_key_id: SecretRef
    secret_access_key: SecretRef
    trust: Path | None = None  # PEM file of authorities, besides those of the system
    virtual_host: bool = False  # BUCKET.HOST instead of HOST/BUCKET
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30  # for an answer, and between two pieces of it

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def prefix(self) -> str:
        """What names of objects begin with, without a slash at the end; may be empty."""
        return self.url.removeprefix("s3://").partition("/")[2]

    @property
    def is_plain(self) -> bool:
        """Whether it is spoken to without TLS."""
        return self.endpoint.startswith("http://")

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(self.endpoint).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def references(self) -> Iterator[tuple[str, SecretRef]]:
        """What has to be resolved to speak to it."""
        yield "access_key_id", self.access_key_id
        yield "secret_access_key", self.secret_access_key
