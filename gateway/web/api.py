"""JSON under /api/v1 that only reads; to ask for something: `gateway.web.acting`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from gateway.flow.selection import Filter
from gateway.web import answers, reading
from gateway.web.audit_tail import tail
from gateway.web.people import may_look
from gateway.web.restores import restores
from gateway.web.sources import Sources

State = Annotated[str | None, Query(pattern="^(received|sealed|marked|delivered|held|discarded)$")]
Word = Annotated[str | None, Query(max_length=64, pattern="^[ -~]*$")]
InstanceId = Annotated[str, Path(pattern="^[0-9a-f]{3,32}$", description="an instance id, or its first letters")]

router = APIRouter(
    prefix="/api/v1",
    dependencies=[Depends(may_look)],
    responses=answers.REFUSALS,
)


def _sources(request: Request) -> Sources:
    return request.app.state.sources


@router.get("/status")
def get_status(request: Request) -> answers.Status:
    """The flow at a glance, per route and destination, and what is held."""
    return reading.status(_sources(request))


@router.get("/queue")
def get_queue(
    request: Request,
    state: State = None,
    reason: Word = None,
    destination: Word = None,
    route: Word = None,
    study: Annotated[str | None, Query(max_length=64, pattern="^[0-9.]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[answers.QueueLine]:
    """The newest instances, of all or of those that the filters let through."""
    return reading.queue(_sources(request), Filter(state, reason, destination, route, study=study), limit)


@router.get("/instances/{instance_id}")
def get_instance(request: Request, instance_id: InstanceId) -> answers.Instance:
    """Everything that the page knows of one instance."""
    return reading.instance(_sources(request), instance_id)


@router.get("/studies")
def get_studies(
    request: Request,
    uid: Annotated[str, Query(max_length=64, pattern="^[0-9.]*$")] = "",
    older: Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False)] = None,
    after: Annotated[str, Query(max_length=64, pattern="^[0-9.]*$")] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
) -> answers.Studies:
    """The newest studies; with `uid` those whose UID begins so, or that have a series, instance or copy of it."""
    return reading.studies(_sources(request), uid, limit, older, after)


@router.get("/studies/{study_uid}")
def get_study(
    request: Request,
    study_uid: Annotated[str, Path(max_length=64, pattern="^[0-9.]+$")],
    start: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> answers.Study:
    """One study with its originals and their copies."""
    return reading.study(_sources(request), study_uid, limit, start)


@router.get("/marks")
def get_marks(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> answers.Marks:
    """How far the newest marks of each route can be seen, and how much of the picture they take."""
    return reading.marks(_sources(request), limit)


@router.get("/restores")
def get_restores(request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> answers.Restores:
    """Who got originals back, and who was refused."""
    return restores(_sources(request).audit_files, limit)


@router.get("/destinations")
def get_destinations(request: Request) -> list[answers.DestinationFacts]:
    """The configured destinations with what goes to them."""
    return reading.destinations(_sources(request))


@router.get("/certificates")
def get_certificates(request: Request) -> list[answers.CertificateFacts]:
    """The certificates that the configuration names, the next to end first."""
    return reading.certificates(_sources(request))


@router.get("/keys")
def get_keys(request: Request) -> list[answers.KeyFacts]:
    """The ages of the keys' files; no key is read."""
    return reading.keys(_sources(request))


@router.get("/configuration")
def get_configuration(request: Request) -> list[answers.SettingFacts]:
    """Every value of the configuration and whether the file gave it; secrets are masked."""
    return reading.configuration(_sources(request))


@router.get("/audit")
def get_audit(
    request: Request, event: Word = None, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> answers.AuditLines:
    """The newest lines of the audit."""
    found = tail(_sources(request).audit_files, limit, [event] if event else ())
    return answers.AuditLines(lines=[dict(line) for line in found.lines], closed=list(found.closed))
