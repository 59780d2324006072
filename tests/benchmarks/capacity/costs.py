"""What one CT instance of 512x512x16 bit costs on this machine: processor time of each step, rates, bytes kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from sqlalchemy import text

from gateway.audit import AuditLog
from gateway.config.models import Destination, Mark, Route
from gateway.database import open_database
from gateway.keys.generate import make_keys
from gateway.network.egress import Egress
from tests.benchmarks.many_records import fill
from tests.benchmarks.receive import ENVIRONMENT, ingress, send
from tests.benchmarks.relay import make_images, sink
from tests.benchmarks.transitions import ours, postgresql
from tests.support.flow import Flow, configuration

ROWS = 3000  # from which bytes of the database are told


@dataclass(frozen=True)
class Costs:
    """Of one instance.

    Attributes
    ----------
    receive_s
        Seconds an instance of one ingress process with eight associations, senders and disk beside it.
    seal_s, generator_s, strong_s, deliver_s
        Processor seconds of one core. `generator`: of the mode of that name; `strong`: of the default one.
    transitions_s
        Seconds that one connection of PostgreSQL takes for all three changes of state of an instance, in batches of 32.
    received_bytes, vault_bytes, copy_bytes
        As sent; sealed in the vault; the marked copy, which goes when it is delivered and its time is over.
    queue_row_bytes, record_bytes
        In the database, with indexes: of instance and delivery; of the vault record.
    """

    receive_s: float
    seal_s: float
    generator_s: float
    strong_s: float
    deliver_s: float
    transitions_s: float
    received_bytes: float
    vault_bytes: float
    copy_bytes: float
    queue_row_bytes: float
    record_bytes: float


def measure(folder: Path, images: int, strong_images: int) -> Costs:
    """Measure them; `strong_images` of the images are marked in the default mode, which takes seconds each."""
    (folder / "images").mkdir()
    files = make_images(folder / "images", images)
    found = _steps(folder / "generator", files, Mark(mode="generator"))
    strong = _steps(folder / "strong", files[:strong_images], Mark())
    rate = _receive(folder / "ingress", files)
    transitions, queue_row, record = _queue(folder)
    return Costs(
        receive_s=rate,
        seal_s=found["seal"],
        generator_s=found["mark"],
        strong_s=strong["mark"],
        deliver_s=found["deliver"],
        transitions_s=transitions,
        received_bytes=sum(file.stat().st_size for file in files) / images,
        vault_bytes=found["vault_bytes"],
        copy_bytes=found["copy_bytes"],
        queue_row_bytes=queue_row,
        record_bytes=record,
    )


def _steps(home: Path, files: list[Path], mark: Mark) -> dict[str, float]:
    """Seal, mark and deliver to a `storescp` in this process; the first image warms up and does not count."""
    home.mkdir()
    make_keys(home / "keys")
    route = Route(name="relay", called_ae="RELAY", destinations=("outside",), mark=mark)
    flow = Flow(configuration(home / "state", home / "keys", route))
    taken = {}

    def timed(name: str, work: Callable[[], object], count: int) -> None:
        began = time.process_time()
        work()
        taken[name] = (time.process_time() - began) / count

    with sink(home, ENVIRONMENT) as (port, received):
        there = {"name": "outside", "type": "research", "ae_title": "SINK", "host": "127.0.0.1", "port": port}
        with closing(Egress([Destination(**there)], AuditLog(home / "audit.jsonl"))) as flow.sender:
            for batch in (files[:1], files[1:] or files[:1]):
                for file in batch:
                    ds = dcmread(file)
                    del ds.file_meta
                    flow.receive(ds)
                timed("seal", flow.seal, len(batch))
                timed("mark", flow.mark, len(batch))
                timed("deliver", flow.deliver, len(batch))
        if len(list(received.iterdir())) != len(files):
            raise SystemExit("not all copies arrived")
    state = flow.config.site.state
    for name, kept in (("vault_bytes", "vault"), ("copy_bytes", "derived")):
        taken[name] = sum(p.stat().st_size for p in (state / kept).rglob("*") if p.is_file()) / len(files)
    flow.engine.dispose()
    return taken


def _receive(home: Path, files: list[Path]) -> float:
    home.mkdir()
    with ingress(home, "gateway.cli") as port:
        send(files[:8], port, 8)
        return send(files, port, 8) / len(files)


def _queue(folder: Path) -> tuple[float, float, float]:
    """Seconds of all transitions of a row on PostgreSQL, and the bytes that queue and vault record keep there."""
    with tempfile.TemporaryDirectory() as name, postgresql(Path(name)) as url:
        taken = ours(url, ROWS, 32)
        home = folder / "records"
        home.mkdir()
        engine = open_database(url)
        fill(engine, home, ROWS, analyze=False)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM FULL"))  # what is left of versions between goes to autovacuum in time
            tables = (("instance", "delivery"), ("vault_record",))
            sizes = [
                sum(connection.scalar(text(f"SELECT pg_total_relation_size('{table}')")) or 0 for table in some)
                for some in tables
            ]
        engine.dispose()
    return sum(1 / one.per_s for one in taken), sizes[0] / ROWS, sizes[1] / ROWS
