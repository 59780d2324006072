"""How long the page's questions take: the flow at a glance, the newest instances by each filter, studies and marks.

    python -m tests.benchmarks.page_queries [--instances 200000] [--database FILE]

Fills an embedded database as a site's of a month would be: 97 of 100 are delivered, the rest is on its way or held, on
two routes, 40 to a study. Prints for each question the median of five times in ms, of the wall clock and of the
processor. A database that is given is filled when it is empty, and kept.
"""

from __future__ import annotations

import argparse
import random
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Engine, insert

from gateway.database import DeliveryRow, FiguresRow, InstanceRow, VaultRow, open_database, sqlite_url, transaction
from gateway.flow.overview import look
from gateway.flow.selection import Filter, list_instances
from gateway.flow.studies import copies_of, newest_studies, recent_marks, studies_of, study
from tests.support.flow import ROUTE

MONTH_S = 30 * 86_400.0
AT_ONCE = 10_000
OF_A_STUDY = 40
FILTERS = {
    "the newest": Filter(),
    "delivered": Filter("delivered"),
    "held": Filter("held"),
    "by route": Filter(route="partner"),
    "by destination": Filter(destination="outside"),
    "by reason": Filter(reason="route-holds"),
    "held, by destination": Filter("held", destination="outside"),
}


def fill(engine: Engine, count: int) -> None:
    """So many instances with their deliveries, evenly over a month."""
    chance, begun = random.Random(1), time.time() - MONTH_S
    for start in range(0, count, AT_ONCE):
        rows = [_instance(chance, n / count, begun) for n in range(start, min(count, start + AT_ONCE))]
        deliveries = [_delivery(row) for row in rows if row["state"] in ("marked", "delivered")]
        records = [_record(chance, n + start, row) for n, row in enumerate(rows)]
        with transaction(engine) as session:
            session.execute(insert(InstanceRow), rows)
            session.execute(insert(DeliveryRow), deliveries)
            session.execute(insert(VaultRow), records)
            session.execute(insert(FiguresRow), [_figures(row) for row in rows])


def _instance(chance: random.Random, share: float, begun: float) -> dict[str, Any]:
    at = begun + share * MONTH_S
    state = "delivered" if share < 0.97 else chance.choice(["received", "marked", "held", "delivered"])
    is_held, is_done = state == "held", state == "delivered"
    return {
        "id": secrets.token_hex(16),
        "state": state,
        "route": chance.choice(["relay", "partner"]),
        "calling_ae": "ARCHIVE",
        "called_ae": "RELAY",
        "peer_address": "10.1.2.3",
        "association_id": secrets.token_hex(8),
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": f"2.25.{chance.getrandbits(127)}",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "size": 524_288,
        "sha256": secrets.token_hex(32),
        "spool_file": None if is_done else f"{secrets.token_hex(16)}@123456",
        "action": "mark",
        "record": secrets.token_hex(16),
        "derived_file": secrets.token_hex(16),
        "derived_size": 524_288,
        "held_from": "received" if is_held else None,
        "reason_code": "route-holds" if is_held else None,
        "reason": "route asked holds everything for a person" if is_held else None,
        "received_at": at,
        "sealed_at": at + 1,
        "marked_at": at + 3,
        "delivered_at": at + 5 if is_done else None,
    }


def _delivery(row: dict[str, Any]) -> dict[str, Any]:
    sent_at = row["delivered_at"]
    state = "sent" if sent_at else "queued"
    to = {"instance_id": row["id"], "route": row["route"], "destination": "outside"}
    return {**to, "state": state, "attempts": 1, "sent_at": sent_at, "dimse_status": 0}


def _record(chance: random.Random, number: int, row: dict[str, Any]) -> dict[str, Any]:
    """As the vault has them: a kilobyte of token, document and attributes beside what is asked for."""
    study = f"1.2.826.0.1.{number // OF_A_STUDY}"
    return {
        "locator": row["record"],
        "generation": 0,
        "original_sop_uid": row["sop_instance_uid"],
        "original_series_uid": f"{study}.{number % 2}",
        "study_uid": study,
        "derived_sop_uid": f"2.25.{chance.getrandbits(127)}",
        "derived_series_uid": f"2.25.{number // OF_A_STUDY}",
        "sop_class_uid": row["sop_class_uid"],
        "transfer_syntax_uid": row["transfer_syntax_uid"],
        "original_sha256": row["sha256"],
        "original_size": row["size"],
        "policy": "00" * 32,
        "derived_sha256": row["sha256"],
        "token": bytes(200),
        "document": bytes(600),
        "signature": bytes(64),
        "signer": "00" * 16,
        "payload_file": row["record"],
        "created_at": row["sealed_at"],
        "attributes": {"00100010": "x" * 200},
    }


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    shares = {"region_share": 0.5, "stroke_share": 0.1, "roi_share": 0.1}
    about = {"locator": row["record"], "route": row["route"], "policy": {"tier": "notice"}, "frames": 1, "psnr": 40.0}
    return {**about, "psnr_windows": {}, **shares}


def timed(question: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds by the wall clock and of the processor, each the median of five times."""
    times = []
    for _ in range(5):
        wall, own = time.perf_counter(), time.process_time()
        question()
        times.append((time.perf_counter() - wall, time.process_time() - own))
    return median(one * 1000 for one, _ in times), median(one * 1000 for _, one in times)


def main() -> None:
    """Fill, ask, print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--instances", type=int, default=200_000)
    arguments.add_argument("--database", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = open_database(sqlite_url(given.database or Path(folder) / "gateway.sqlite"))
        if not list_instances(engine, limit=1):
            fill(engine, given.instances)
        questions: dict[str, Callable[[], object]] = {"the flow at a glance": lambda: look(engine, [ROUTE])}
        for name, only in FILTERS.items():
            questions[name] = lambda only=only: list_instances(engine, limit=101, only=only)
        older = newest_studies(engine).older
        questions["the newest studies"] = lambda: newest_studies(engine)
        questions["older studies"] = lambda: newest_studies(engine, before=older)
        questions["studies by a prefix"] = lambda: studies_of(engine, "1.2.826.0.1.1")
        questions["a study by the UID of a series"] = lambda: studies_of(engine, "1.2.826.0.1.100.1")
        questions["one study"] = lambda: (study(engine, "1.2.826.0.1.100"), copies_of(engine, "1.2.826.0.1.100"))
        questions["marks"] = lambda: recent_marks(engine, ["relay", "partner"], 200)
        for name, question in questions.items():
            wall, own = timed(question)
            print(f"{name}: {wall:.0f} ms, of the processor {own:.0f} ms")
        engine.dispose()


if __name__ == "__main__":
    main()
