"""The pages: server-rendered, no script, each a heading, its tables, and the same facts as the JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.errors import NotFoundError
from gateway.flow.overview import RECENT_S, span
from gateway.flow.selection import Filter
from gateway.flow.states import HELD
from gateway.web import reading
from gateway.web.audit_tail import tail
from gateway.web.people import may_look, person_shown
from gateway.web.restores import restores
from gateway.web.sources import Sources

HERE = Path(__file__).parent
STATES = ("received", "sealed", "marked", "delivered", "held", "discarded")
WORKER_S = 300.0  # a worker that was not seen for so long is said to be down
SOON_DAYS = 30  # certificates that end sooner stand on the overview
PAGE_LINES = 100
STUDIES_LINES = 25
MARKS_LINES = 200  # of each route, in its summary
NONE = "-"


@dataclass(frozen=True)
class Together:
    """What an operator may ask for all instances of one state that fit the filters of the queue."""

    action: str
    words: str
    note: str


TOGETHER = {
    "held": Together("release", "Release all of them", "Each is decided and marked again, never sent as it is."),
    "marked": Together("retry", "Try all of them again now", "Without waiting for their next tries."),
    "delivered": Together("replay", "Send all of them again", "The same bytes, to destinations that its route names."),
}

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, dependencies=[Depends(may_look)])


def _ago(moment: float | None) -> str:
    return f"{span(time.time() - moment)} ago" if moment else NONE


def _until(moment: float | None) -> str:
    if not moment:
        return NONE
    left = moment - time.time()
    return f"in {span(left)}" if left > 0 else "now"


def _moment(at: float | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else NONE


def _per_minute(recent: int) -> str:
    rate = recent * 60 / RECENT_S
    return f"{rate:.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _size(count: int | None) -> str:
    if count is None:
        return NONE
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _status_word(value: int | None) -> str:
    return f"0x{value:04X}" if value is not None else NONE


def _decibels(value: float | None) -> str:
    return f"{value:.1f} dB" if value is not None else NONE


def _percent(share: float | None) -> str:
    return f"{100 * share:.1f} %" if share is not None else NONE


def _sentence(words: str) -> str:
    """The words of an error as a sentence: errors begin small and end open, since they also stand in lines of a log."""
    return words[:1].upper() + words[1:] + ("" if words[-1:] in ".?!" else ".")


def environment() -> Environment:
    """The templates, each value escaped."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        ago=_ago,
        until=_until,
        moment=_moment,
        per_minute=_per_minute,
        size=_size,
        dimse=_status_word,
        query=urlencode,
        sentence=_sentence,
        decibels=_decibels,
        percent=_percent,
    )
    return made


def render(
    request: Request, template: str, status_code: int = 200, *, is_settled: bool = False, **values: Any
) -> HTMLResponse:
    """One page. `refresh` of the query, in seconds, asks the browser to come again: only who wants it gets it.

    is_settled: what one waits for is there, so it need not come again.
    """
    seconds = request.query_params.get("refresh", "")
    again = int(seconds) if seconds.isascii() and seconds.isdigit() and 1 <= int(seconds[:6]) <= 3600 else 0
    again = 0 if is_settled else again
    shared: Mapping[str, Any] = {
        "site": request.app.state.sources.config.site.name,
        "version": request.app.state.sources.version,
        "path": request.url.path,
        "refresh": again,
        "now": time.time(),
        **person_shown(request),
    }
    text = request.app.state.templates.get_template(template).render({**shared, **values})
    return HTMLResponse(text, status_code, headers={"refresh": str(again)} if again else None)


def _sources(request: Request) -> Sources:
    return request.app.state.sources


@router.get("/")
def overview(request: Request) -> HTMLResponse:
    """The flow at a glance."""
    sources = _sources(request)
    status = reading.status(sources)
    return render(
        request,
        "overview.html",
        status=status,
        down=[one for one in status.listeners if not one.up],
        worker_down=status.clock_doubt is None and status.at - (status.worker_seen_at or 0) > WORKER_S,
        totals={
            "received": sum(one.received_recently for one in status.routes),
            "delivered": sum(one.sent_recently for one in status.deliveries),
            "waiting": sum(one.waiting + one.marked for one in status.routes),
            "held": sum(one.held for one in status.routes),
            "failing": sum(one.failing for one in status.deliveries),
            "oldest_at": min((one.oldest_at for one in status.routes if one.oldest_at), default=None),
        },
        entries=_entries(sources),
        held=reading.queue(sources, Filter(HELD), 10),
        paused=sorted({one.destination: one.paused_at for one in status.deliveries if one.paused_at}.items()),
        certificates=[one for one in reading.certificates(sources) if one.days_left < SOON_DAYS],
        audit=tail(sources.audit_files, 10),
    )


def _entries(sources: Sources) -> list[dict[str, str]]:
    """What an archive has to be told to reach each route: for somebody whose gateway has received nothing yet."""
    ingress = sources.config.ingress
    port = f"{ingress.port}" + (" over TLS" if ingress.tls else "")
    return [{"called_ae": one.called_ae, "port": port, "route": one.name} for one in sources.config.routes]


Word = Annotated[str, Query(max_length=64, pattern="^[ -~]*$")]


@router.get("/queue")
def queue(
    request: Request, state: Word = "", reason: Word = "", destination: Word = "", route: Word = ""
) -> HTMLResponse:
    """The newest instances, with filters."""
    sources = _sources(request)
    only = Filter(state if state in STATES else None, reason or None, destination or None, route or None)
    lines = reading.queue(sources, only, PAGE_LINES + 1)
    return render(
        request,
        "queue.html",
        lines=lines[:PAGE_LINES],
        more=len(lines) > PAGE_LINES,
        chosen={"state": state, "reason": reason, "destination": destination, "route": route},
        states=STATES,
        together=TOGETHER,
        routes=[one.name for one in sources.config.routes],
        destinations=[one.name for one in sources.config.destinations],
    )


@router.get("/instances/{instance_id}")
def instance(request: Request, instance_id: str) -> HTMLResponse:
    """One instance."""
    if not re.fullmatch("[0-9a-f]{3,32}", instance_id):
        raise NotFoundError("no-such-instance", "that is no id of an instance", "the queue has them")
    sources = _sources(request)
    return render(
        request, "instance.html", one=reading.instance(sources, instance_id), has_viewer=sources.viewer is not None
    )


@router.get("/studies")
def studies(
    request: Request,
    uid: Annotated[str, Query(max_length=64)] = "",
    older: Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False)] = None,
    after: Annotated[str, Query(max_length=64, pattern="^[0-9.]*$")] = "",
) -> HTMLResponse:
    """The newest studies, or those of a UID."""
    uid = uid.strip()
    found = reading.studies(_sources(request), uid, STUDIES_LINES, older, after)
    more = {"uid": uid, "after": found.after} if found.after else {"older": found.older} if found.older else None
    return render(request, "studies.html", lines=found.lines, uid=uid, more=more, is_first=not (older or after))


@router.get("/studies/{study_uid}")
def study(request: Request, study_uid: str, start: Annotated[int, Query(ge=0, le=1_000_000)] = 0) -> HTMLResponse:
    """One study with its originals and copies."""
    found = reading.study(_sources(request), study_uid, PAGE_LINES, start)
    return render(request, "study.html", study=found.study, lines=found.lines, start=start, more=found.more)


@router.get("/marks")
def marks(request: Request) -> HTMLResponse:
    """Quality of the newest marks."""
    found = reading.marks(_sources(request), MARKS_LINES)
    return render(request, "marks.html", routes=found.routes, lines=found.lines[:PAGE_LINES], most=MARKS_LINES)


@router.get("/restores")
def restored(request: Request) -> HTMLResponse:
    """Restores and refusals."""
    return render(request, "restores.html", found=restores(_sources(request).audit_files, PAGE_LINES))


@router.get("/audit")
def audit(request: Request, event: Word = "") -> HTMLResponse:
    """The newest lines of the audit."""
    return render(
        request, "audit.html", audit=tail(_sources(request).audit_files, 200, [event] if event else ()), event=event
    )


@router.get("/configuration")
def configuration(request: Request) -> HTMLResponse:
    """Every value of the configuration, certificates and keys."""
    sources = _sources(request)
    tables: dict[str, list] = {}
    names: dict[str, str] = {}
    for one in reading.configuration(sources):
        table, _, key = one.path.partition(".")
        tables.setdefault(table, []).append(one)
        if key == "name" and table != "site":
            names[table] = one.value
    return render(
        request,
        "configuration.html",
        tables=tables,
        names=names,
        certificates=reading.certificates(sources),
        keys=reading.keys(sources),
        listeners=reading.listeners(sources),
    )
