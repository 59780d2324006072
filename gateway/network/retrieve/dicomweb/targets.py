"""What a path names (PS3.18 10.1), by one table of patterns in which a UID is digits and dots and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gateway.config.models import Restore
from gateway.network.http import Answered, Exchange

ROOT = "/dicomweb"
Kind = Literal["search", "retrieve", "metadata", "rendered", "bulk"]

_STUDY, _SERIES, _IMAGE = (f"(?P<{name}>[0-9.]{{1,64}})" for name in ("study", "series", "instance"))
_AT_STUDY = rf"{ROOT}/studies/{_STUDY}"
_AT_SERIES = rf"{_AT_STUDY}/series/{_SERIES}"
_AT_IMAGE = rf"{_AT_SERIES}/instances/{_IMAGE}"
_ROUTES: tuple[tuple[str, Kind, str], ...] = (
    (rf"{ROOT}/studies", "search", "STUDY"),
    (rf"{ROOT}/series", "search", "SERIES"),
    (rf"{ROOT}/instances", "search", "IMAGE"),
    (rf"{_AT_STUDY}/series", "search", "SERIES"),
    (rf"{_AT_STUDY}/instances", "search", "IMAGE"),
    (rf"{_AT_SERIES}/instances", "search", "IMAGE"),
    (_AT_STUDY, "retrieve", "STUDY"),
    (_AT_SERIES, "retrieve", "SERIES"),
    (_AT_IMAGE, "retrieve", "IMAGE"),
    (rf"{_AT_STUDY}/metadata", "metadata", "STUDY"),
    (rf"{_AT_SERIES}/metadata", "metadata", "SERIES"),
    (rf"{_AT_IMAGE}/metadata", "metadata", "IMAGE"),
    (rf"{_AT_IMAGE}(?:/frames/(?P<frame>[0-9]{{1,7}}))?/rendered", "rendered", "IMAGE"),
    (rf"{_AT_IMAGE}/bulkdata/(?P<tag>[0-9A-F]{{8}})", "bulk", "IMAGE"),
)
_TABLE = tuple((re.compile(pattern, re.ASCII), kind, level) for pattern, kind, level in _ROUTES)
_HOST = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True)
class Target:
    """One resource, or a search: `level` is what it is of, `frame` counts from 1 (0: none named)."""

    kind: Kind
    level: str
    study: str = ""
    series: str = ""
    instance: str = ""
    frame: int = 0
    tag: str = ""

    @staticmethod
    def root(exchange: Exchange, settings: Restore) -> str:
        """The service's own URL: as configured, else by the name that the caller calls it.

        Raises
        ------
        Answered
            400: the Host header is no name or address of a host.
        """
        if settings.dicomweb_url:
            return settings.dicomweb_url.rstrip("/")
        host = exchange.header("host")
        found = _HOST.fullmatch(host)
        if found is None:
            raise Answered(400, "the Host header cannot be read")
        port = "" if found[1] else f":{exchange.own_port}"  # some clients leave it out
        return f"https://{host}{port}{ROOT}"

    @property
    def path(self) -> str:
        """Below the root, of an instance."""
        return f"/studies/{self.study}/series/{self.series}/instances/{self.instance}"


def target_of(path: str) -> Target:
    """What a path names.

    Raises
    ------
    Answered
        404: nothing.
    """
    for pattern, kind, level in _TABLE:
        if found := pattern.fullmatch(path):
            named = {name: value for name, value in found.groupdict().items() if value is not None}
            frame = int(named.pop("frame", "0"))
            if kind == "rendered" and "/frames/" in path and not frame:
                break
            return Target(kind, level, frame=frame, **named)
    raise Answered(404, "there is no such resource")
