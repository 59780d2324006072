"""State transitions per second of the gateway's tables, beside a plain table with nothing but a queue in it.

    python -m tests.benchmarks.transitions [--rows 2000] [--batch 32] [--rounds 5] [--json FILE] [--url URL]
        [--against FOLDER] [--picture FILE]

A transition is one row claimed and settled. The plain table is the fastest of those that were compared for this work:
`id`, `state`, `payload`; batches are claimed with FOR UPDATE SKIP LOCKED and settled in one statement, over psycopg and
no more. Ours: received -> sealed, sealed -> marked (one delivery queued each), and delivered, by the methods that the
worker calls; without the work of the steps and without the audit. Claims of ours do not wait for the disk (what a power
cut undoes is claimed anew), so the plain table has a row where it does the same. SQLite in a file and PostgreSQL in a
cluster that is started here (or at `--url`, a database that may be emptied), both durable, one connection. Medians over
the rounds; in each round all take turns. A flush is measured in the same run: 8 KiB appended and `fdatasync`ed.

Beside the rate stands what does not depend on the machine's load: statements a batch (PostgreSQL's commits of one
statement each count once), bytes of write-ahead log a row, and processor time of this process a row. `--against` a
checkout of another commit measures its tables in the same rounds, by this same script.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
from sqlalchemy import Engine, delete, event, make_url

from gateway.database import DeliveryRow, InstanceRow, SegmentRow, open_database, sqlite_url, transaction
from gateway.flow.changes import marked, sealed, sent
from gateway.flow.segments.format import Place
from gateway.flow.segments.log import Group
from gateway.flow.states import RECEIVED
from gateway.flow.store import FlowStore, lease_owner
from tests.benchmarks.postgresql import postgresql


@dataclass(frozen=True)
class Taken:
    """What transitions took: rows a second, statements a batch, processor milliseconds and log bytes a row."""

    per_s: float
    statements: float
    cpu_ms: float
    wal: float | None  # None: not PostgreSQL


class Meter:
    """Counts while a step is done with all rows.

    Parameters
    ----------
    engine
        Whose statements are counted; None: those that `statements` is told of.
    wal
        A connection that asks for the place in the write-ahead log; None: there is none.
    """

    def __init__(self, engine: Engine | None, wal: psycopg.Connection | None) -> None:
        self._wal = wal
        self.statements = 0
        if engine is not None:
            event.listen(engine, "before_cursor_execute", self._count)

    def _count(self, *_arguments: object) -> None:
        self.statements += 1

    def _place(self) -> int | None:
        if self._wal is None:
            return None
        row = self._wal.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
        return int(row[0]) if row else None

    def measure(self, step: Callable[[], int], rows: int) -> Taken:
        """Do `step` until it has done nothing."""
        place, self.statements, batches, done = self._place(), 0, 0, 0
        began, at_work = time.perf_counter(), time.process_time()
        while found := step():
            done, batches = done + found, batches + 1
        seconds, cpu_s, after = time.perf_counter() - began, time.process_time() - at_work, self._place()
        if done != rows:
            raise SystemExit(f"{done} of {rows} rows went on")
        wal = None if place is None or after is None else (after - place) / rows
        return Taken(rows / seconds, self.statements / batches, 1000 * cpu_s / rows, wal)


def plain(url: str, rows: int, batch: int, lasting: bool = True) -> Taken:
    """Transitions of the plain table; `lasting`: claims wait for the disk too, as changes do."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection, _log_of(url) as log:
        connection.execute("DROP TABLE IF EXISTS plain_queue")
        connection.execute(
            "CREATE TABLE plain_queue (id bigserial PRIMARY KEY, state text NOT NULL, payload text, owner text)"
        )
        connection.execute("CREATE INDEX plain_work ON plain_queue (state, id)")
        connection.execute(
            "INSERT INTO plain_queue (state, payload) SELECT 'queued', 'x' FROM generate_series(1, %s)", [rows]
        )
        connection.commit()
        meter = Meter(None, log)

        def step() -> int:
            if not lasting:
                connection.execute("SET LOCAL synchronous_commit = off")
            found = connection.execute(
                "UPDATE plain_queue SET state = 'running', owner = 'me' WHERE id IN (SELECT id FROM plain_queue"
                " WHERE state = 'queued' ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING id",
                [batch],
            ).fetchall()
            connection.commit()
            if found:
                ids = [[row[0] for row in found]]
                connection.execute("UPDATE plain_queue SET state = 'done' WHERE id = ANY(%s)", ids)
                connection.commit()
            meter.statements += 2
            return len(found)

        return meter.measure(step, rows)


@contextmanager
def _log_of(url: str) -> Iterator[psycopg.Connection | None]:
    """A connection of its own to a server that has a write-ahead log to ask about."""
    if not url.startswith("postgresql"):
        yield None
        return
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def ours(url: str, rows: int, batch: int) -> list[Taken]:
    """Transitions of each of our steps: sealed, marked, delivered."""
    engine = open_database(url)
    with transaction(engine) as session:
        for table in (SegmentRow, DeliveryRow, InstanceRow):
            session.execute(delete(table))
    store = FlowStore(engine, lease_owner())
    known = [(Place("ab" * 16, 32 + number), _facts(number)) for number in range(rows)]
    store.add_received([Group("ab" * 16, 32 + rows, known)])

    def seal() -> int:
        found = store.claim(RECEIVED, batch, 600)
        store.settle([sealed(row, "ab" * 16, batch_key="CT:512x512x1:0") for row in found])
        return len(found)

    def mark() -> int:
        found = store.claim_batch(batch, 600)
        store.settle([marked(row, f"{row.id}-copy", 1, "ab" * 16, ("out",)) for row in found])
        return len(found)

    def deliver() -> int:
        found = store.claim_deliveries("out", batch, 600)
        store.settle_deliveries([sent(delivery, 0) for delivery, _ in found])
        return len(found)

    with _log_of(url) as log:
        meter = Meter(engine, log)
        taken = [meter.measure(step, rows) for step in (seal, mark, deliver)]
    engine.dispose()
    return taken


def apart(checkout: Path, url: str, rows: int, batch: int) -> list[Taken]:
    """`ours` with the code of a checkout, by this script in a process of its own."""
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--once", url, str(rows), str(batch)]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True, text=True)
    return [Taken(**one) for one in json.loads(done.stdout.splitlines()[-1])]


def _facts(number: int) -> dict:
    return {
        "id": f"{number:032x}",
        "route": "out",
        "calling_ae": "ARCHIVE",
        "called_ae": "RELAY",
        "peer_address": "127.0.0.1",
        "association_id": "ab",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "sop_instance_uid": f"1.2.826.0.1.99.{number}",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "size": 524288,
        "sha256": "00" * 32,
        "file": None,
        "received_at": 1e9 + number,
    }


STEPS = ("sealed", "marked", "delivered")


def measure(folder: Path, url: str, rows: int, batch: int, rounds: int, checkout: Path | None) -> list[dict]:
    """Medians of each table and step."""
    named = {"ours, SQLite": sqlite_url(folder / "a.sqlite"), "ours, PostgreSQL": url}
    before = {"before, SQLite": sqlite_url(folder / "before.sqlite")} if checkout else {}
    if checkout:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("CREATE DATABASE before_it")
        before["before, PostgreSQL"] = make_url(url).set(database="before_it").render_as_string(hide_password=False)
    taken: dict[tuple[str, str], list[Taken]] = {}
    here = Path(__file__).parents[2]
    both = [(here, name, of) for name, of in named.items()]
    both += [(checkout, name, of) for name, of in before.items()] if checkout else []
    for number in range(rounds):
        taken.setdefault(("plain table, PostgreSQL", "done"), []).append(plain(url, rows, batch))
        quick = taken.setdefault(("same, claims not waited for", "done"), [])
        quick.append(plain(url, rows, batch, lasting=False))
        for of_checkout, name, of in both if number % 2 else reversed(both):  # whoever comes first has no advantage
            for step, one in zip(STEPS, apart(of_checkout, of, rows, batch), strict=True):
                taken.setdefault((name, step), []).append(one)
    return [
        {"table": table, "step": step, **_medians([asdict(one) for one in several])}
        for (table, step), several in taken.items()
    ]


def _medians(several: list[dict]) -> dict:
    return {
        name: None if several[0][name] is None else round(statistics.median(one[name] for one in several), 2)
        for name in several[0]
    }


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["--once"]:
        _, url, rows, batch = sys.argv[1:]
        print(json.dumps([asdict(one) for one in ours(url, int(rows), int(batch))]))
        return
    # not above: a checkout that is measured may not have them yet
    from tests.benchmarks.facts import facts
    from tests.benchmarks.pictures import add_outputs, bars

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--url", help="a PostgreSQL database that may be emptied; default: a cluster started here")
    parser.add_argument("--against", type=Path, help="a checkout of another commit, measured beside")
    add_outputs(parser, "transitions")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = (arguments.rows, arguments.batch, arguments.rounds, arguments.against)
        with nullcontext(arguments.url) if arguments.url else postgresql(folder) as url:
            told = facts(folder, "PostgreSQL", database=url)
            rows = measure(folder, url, *size)
    plain_rate = rows[0]["per_s"]
    for row in rows:
        row["over_plain"] = round(row["per_s"] / plain_rate, 2)
        log = "" if row["wal"] is None else f"  {row['wal']:6.0f} bytes of log"
        costs = f"{row['statements']:5.2f} statements a batch  {row['cpu_ms']:6.3f} ms of this processor{log}"
        print(f"{row['table']:28} {row['step']:10} {row['per_s']:9.1f} /s  {row['over_plain']:5.2f} of plain  {costs}")
    print(f"{size[0]} rows, batches of {size[1]}, {size[2]} rounds; {told}")
    if arguments.json:
        result = {"rows": rows, "batch": size[1], "facts": asdict(told)}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    rates = {row["table"] if row["step"] == "done" else f"{row['table']}: {row['step']}": row["per_s"] for row in rows}
    bars(arguments.picture, {"rate": rates}, f"rows/s claimed and settled, batches of {size[1]}", told)


if __name__ == "__main__":
    main()
