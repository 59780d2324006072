"""What page and JSON tell alike: both ask here."""

from __future__ import annotations

import time
from dataclasses import asdict
from statistics import fmean, median

from gateway.config import SecretRef
from gateway.flow.cures import cure_of
from gateway.flow.selection import Filter, facts_of, list_instances, whole_ids
from gateway.flow.states import HELD
from gateway.flow.studies import copies_of, newest_studies, recent_marks, studies_of
from gateway.flow.studies import study as flow_study
from gateway.web import answers
from gateway.web.settings import settings_of
from gateway.web.sources import Sources

DAY_S = 86_400.0


def status(sources: Sources) -> answers.Status:
    """The flow at a glance; GatewayError while the database does not answer."""
    overview = sources.looks.overview()
    return answers.Status(
        at=overview.at,
        version=sources.version,
        routes=[answers.RouteStatus(**asdict(one)) for one in overview.routes],
        deliveries=[answers.DeliveryStatus(**asdict(one)) for one in overview.deliveries],
        held=[answers.HeldGroup(**asdict(one), cure=cure_of(one.reason_code)) for one in overview.held],
        listeners=listeners(sources),
        worker_seen_at=overview.worker_seen_at,
        clock_doubt=overview.clock_doubt,
    )


def listeners(sources: Sources) -> list[answers.ListenerStatus]:
    """The ports of this machine's roles."""
    return [answers.ListenerStatus(**asdict(one)) for one in sources.listeners()]


def queue(sources: Sources, only: Filter, limit: int) -> list[answers.QueueLine]:
    """The newest instances that the filter lets through."""
    return [
        answers.QueueLine(**asdict(one), cure=cure_of(one.reason_code) if one.state == HELD else None)
        for one in list_instances(sources.engine(), limit=limit, only=only, destinations=sources.config.destinations)
    ]


def instance(sources: Sources, written: str) -> answers.Instance:
    """One instance by its id, or the first letters of it; errors as `whole_ids`."""
    engine = sources.engine()
    facts = facts_of(engine, whole_ids(engine, [written])[0])
    facts["cure"] = cure_of(facts["reason_code"]) if facts["state"] == HELD else None
    facts["is_received_here"] = facts["spool_file"] is not None
    facts["is_copy_here"] = facts["action"] == "mark" and facts["derived_file"] is not None
    return answers.Instance.model_validate({name: facts[name] for name in answers.Instance.model_fields})


def studies(sources: Sources, uid: str, limit: int, older: float | None, after: str) -> answers.Studies:
    """The newest studies, or those of a UID; errors as `studies_of`."""
    engine = sources.engine()
    found = studies_of(engine, uid, limit, after) if uid else newest_studies(engine, limit, older)
    return answers.Studies.model_validate(asdict(found))


def study(sources: Sources, study_uid: str, limit: int, start: int) -> answers.Study:
    """One study with its originals and copies; errors as `gateway.flow.studies.study`."""
    engine = sources.engine()
    facts = answers.StudyLine(**asdict(flow_study(engine, study_uid)))
    lines = [answers.CopyLine.model_validate(asdict(one)) for one in copies_of(engine, study_uid, limit + 1, start)]
    return answers.Study(study=facts, lines=lines[:limit], more=len(lines) > limit)


def marks(sources: Sources, limit: int) -> answers.Marks:
    """The newest marks, at most `limit` a route, and what they have in common."""
    names = [route.name for route in sources.config.routes if route.action == "mark" or route.rules]
    lines = [answers.MarkLine.model_validate(asdict(one)) for one in recent_marks(sources.engine(), names, limit)]
    sums = [_summary(name, [one.figures for one in lines if one.route == name]) for name in names]
    return answers.Marks(routes=[one for one in sums if one.marks], lines=lines)


def _summary(route: str, figures: list[answers.MarkFigures]) -> answers.MarkSummary:
    seen = [one.psnr for one in figures if one.psnr is not None]
    shares = {
        name: fmean(getattr(one, name) for one in figures) if figures else 0.0
        for name in ("region_share", "stroke_share", "roi_share")
    }
    misled = [one.misled_share for one in figures if one.misled_share is not None]
    return answers.MarkSummary(
        route=route,
        marks=len(figures),
        psnr_lowest=min(seen, default=None),
        psnr_median=median(seen) if seen else None,
        misled_share=fmean(misled) if misled else None,
        unchanged=len(figures) - len(seen),
        **shares,
    )


def destinations(sources: Sources) -> list[answers.DestinationFacts]:
    """The configured destinations with what goes to them."""
    deliveries = status(sources).deliveries
    return [
        answers.DestinationFacts(
            name=one.name,
            type=one.type,
            ae_title=one.ae_title,
            host=one.host,
            port=one.port,
            tls=one.tls is not None,
            routes=[route.name for route in sources.config.routes if one.name in route.destinations],
            deliveries=[delivery for delivery in deliveries if delivery.destination == one.name],
        )
        for one in sources.config.destinations
    ]


def certificates(sources: Sources) -> list[answers.CertificateFacts]:
    """The certificates that the configuration names, the next to end first."""
    found = [
        answers.CertificateFacts(
            where=one.where, ends_at=one.ends_at, days_left=round((one.ends_at - time.time()) / DAY_S, 2)
        )
        for one in sources.certificates()
    ]
    return sorted(found, key=lambda one: one.ends_at)


def keys(sources: Sources) -> list[answers.KeyFacts]:
    """The ages of the keys' files. No key is read, and where the folder is closed to this user no age is known."""
    found = []
    for name in type(sources.config.keys).model_fields:
        value = getattr(sources.config.keys, name)
        references = value if isinstance(value, tuple) else (value,)
        for reference in references:
            if isinstance(reference, SecretRef):
                found.append(answers.KeyFacts(name=name, age_days=_age_days(reference)))
    return found


def _age_days(reference: SecretRef) -> float | None:
    try:
        return round((time.time() - reference.path.stat().st_mtime) / DAY_S, 2) if reference.path else None
    except OSError:
        return None


def configuration(sources: Sources) -> list[answers.SettingFacts]:
    """Every value of the configuration, secrets masked."""
    return [answers.SettingFacts(**asdict(one)) for one in settings_of(sources.config)]
