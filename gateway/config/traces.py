"""The keys of the table [traces]."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from gateway.config.base import Model, Problem, ServiceUrl, checked


class Traces(Model):
    """What happens to instances, as OpenTelemetry traces over OTLP/HTTP, to one collector."""

    endpoint: Annotated[ServiceUrl, Field(min_length=1)]  # the whole URL: http://127.0.0.1:4318/v1/traces
    share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the instances; all roles choose the same ones
    trust: Path | None = None  # authorities of its certificate; unset: those of the system
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5

    @model_validator(mode="after")
    def _agrees(self) -> Traces:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        parts = urlsplit(self.endpoint)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "[::1]", "::1"):
            yield ("endpoint",), "traces leave this machine over https only: run a collector here, or give it TLS"
