"""An AE outside that is sent to: who it is, how fast and when it takes what, and what follows a failure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from gateway.config.base import AETitle, Host, Model, Name, Port, Problem, ServiceUrl, checked, doubled
from gateway.config.commitment import AskedCommitment
from gateway.config.schedule import WindowText, ZoneName, closed_until
from gateway.config.syntaxes import UNCOMPRESSED, TransferSyntaxes
from gateway.config.tls import Tls

MOST_UNDER_WAY = 128  # instances at a time to one destination, each with a thread
WEB_TITLE = "DICOMWEB"  # stands where an AE title would

FailureKind = Literal[
    "unreachable",
    "refused-for-now",
    "refused",
    "timeout",
    "aborted",
    "resources",
    "processing",
    "data-set",
    "not-understood",
    "context",
    "other",
]
"""Kinds of failures, as `gateway.flow.failures` sorts them."""

HELD_AT_ONCE: frozenset[FailureKind] = frozenset({"refused", "data-set", "not-understood", "context", "other"})
"""Kinds that trying again does not mend: held at the first failure, unless an entry of `retries` says otherwise."""


class Retry(Model):
    """How failures of one kind are tried again; what is left out is as the destination's `retry_...` keys say."""

    on: FailureKind
    first_s: Annotated[float, Field(gt=0)] | None = None
    longest_s: Annotated[float, Field(gt=0)] | None = None
    attempts: Annotated[int, Field(ge=1)] | None = None  # in all; 1: held at the first failure


class Destination(Model):
    """An AE outside that receives marked copies, and by a route that passes, unmarked originals."""

    name: Name
    kind: Literal["dicom", "dicomweb"] = "dicom"  # C-STORE, or STOW-RS
    url: ServiceUrl = ""  # of kind "dicomweb": the service's root, to which /studies is added
    type: Literal["research", "ai-vendor", "external", "clinical"]
    clinical_override: str = ""  # must read exactly as CLINICAL_STATEMENT when type is "clinical"
    trust_statement: str = ""  # must read exactly as TRUST_STATEMENT when a route lets unmarked originals go there
    ae_title: AETitle = ""
    calling_ae: AETitle = "MIAD_GATEWAY"
    host: Host = ""
    port: Port = 0
    tls: Tls | None = None
    transfer_syntaxes: TransferSyntaxes = UNCOMPRESSED  # of marked copies, in order of preference
    max_pdu: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    connect_timeout_s: Annotated[float, Field(gt=0)] = 10
    response_timeout_s: Annotated[float, Field(gt=0)] = 60
    idle_release_s: Annotated[float, Field(gt=0)] = 5
    connections: Annotated[int, Field(ge=1, le=32)] = 1  # associations at a time, of each worker process
    async_operations: Annotated[int, Field(ge=1, le=64)] = 1  # C-STOREs under way at once on each, where it agrees
    limit_kib_s: Annotated[int, Field(ge=0, le=1 << 24)] = 0  # of data sets, of each worker process; 0: no limit
    priority: Literal["low", "medium", "high"] = "medium"  # in C-STORE-RQ, and where `worker.sending` makes a queue
    schedule: tuple[WindowText, ...] = ()  # when it is sent to; empty: always
    time_zone: ZoneName = ""  # of the schedule; empty: the machine's
    fallback: Name | None = None  # a destination that gets marked copies while this one cannot be reached
    fallback_after_s: Annotated[float, Field(ge=0)] = 900
    retry_first_s: Annotated[float, Field(gt=0)] = 2
    retry_longest_s: Annotated[float, Field(gt=0)] = 300
    retry_attempts: Annotated[int, Field(ge=1)] = 500
    retries: tuple[Retry, ...] = ()
    commitment: AskedCommitment | None = None  # it is asked to commit to keep what it was sent; None: it is not

    @property
    def web_path(self) -> str:
        """Where instances are stored, below the host."""
        return f"{urlsplit(self.url).path.rstrip('/')}/studies"

    @model_validator(mode="after")
    def _agrees(self) -> Destination:
        checked(self, self._disagreements())
        if self.kind == "dicomweb":
            parts = urlsplit(self.url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            for name, value in (("ae_title", WEB_TITLE), ("host", parts.hostname or ""), ("port", port)):
                object.__setattr__(self, name, value)  # it is frozen from here on
        return self

    def _disagreements(self) -> Iterator[Problem]:
        yield from doubled("retries", "on", [one.on for one in self.retries])
        for name in ("ae_title", "host", "port"):
            if self.kind == "dicom" and not getattr(self, name):
                yield (), f"{name} is missing"
            if self.kind == "dicomweb" and name in self.model_fields_set and self.url and self._says_otherwise(name):
                yield (name,), f"{name} is of an AE: the url says where a web service is"
        is_web, secure = self.kind == "dicomweb", self.url.startswith("https:")
        if is_web and not self.url:
            yield ("kind",), 'a destination of kind "dicomweb" has a url, as "https://pacs.example/dicomweb"'
        elif is_web and secure != (self.tls is not None):
            what = "https needs a [destinations.tls] table" if secure else "with [destinations.tls] it is https"
            yield ("url",), what
        if self.url and not is_web:
            yield ("url",), 'a url is of kind = "dicomweb"; an AE has ae_title, host and port'
        if is_web and self.commitment is not None:
            yield ("commitment",), 'storage commitment is asked for over DICOM: kind "dicomweb" has none'
        if is_web and set(self.transfer_syntaxes) == {"implicit"}:
            yield ("transfer_syntaxes",), 'DICOMweb has no Implicit VR: add "explicit"'
        if is_web and self.async_operations > 1:
            yield (
                ("async_operations",),
                "asynchronous operations are of DICOM associations: more connections do it here",
            )
        if self.at_a_time > MOST_UNDER_WAY:
            yield ("async_operations",), f"connections x async_operations is more than {MOST_UNDER_WAY}"
        if self.fallback == self.name:
            yield ("fallback",), "a destination is no fallback of its own"

    def _says_otherwise(self, name: str) -> bool:
        """Whether a key of an AE is written, and not as we fill it in ourselves."""
        parts = urlsplit(self.url)
        own = {"ae_title": WEB_TITLE, "host": parts.hostname, "port": parts.port or (443 if self.tls else 80)}
        return bool(getattr(self, name) != own[name])

    @property
    def at_a_time(self) -> int:
        """How many instances may be under way to it at once, of each worker process."""
        return self.connections * self.async_operations

    def closed_until(self, now: float) -> float | None:
        """When it is sent to again, seconds since 1970; None: it is now."""
        return closed_until(self.schedule, self.time_zone, now)

    def retry(self, kind: str) -> tuple[int, float, float]:
        """How often a failure of this kind is tried in all; the first pause, in seconds, and the longest."""
        told = next((one for one in self.retries if one.on == kind), None)
        attempts = 1 if kind in HELD_AT_ONCE else self.retry_attempts
        if told is None:
            return attempts, self.retry_first_s, self.retry_longest_s
        first = told.first_s or self.retry_first_s
        return told.attempts or self.retry_attempts, first, told.longest_s or max(first, self.retry_longest_s)


CLINICAL_STATEMENT = "marked copies must not be used for clinical reading"
