"""A flow without network and without processes: real spool, database, vault and mark (steps = 0), run step by step."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from sqlalchemy import Engine, select

from gateway.audit import AuditLog
from gateway.config import TRUST_STATEMENT
from gateway.config.destination import HELD_AT_ONCE
from gateway.config.load import make_absolute
from gateway.config.models import Config, Destination, Ingress, Mark, Route, Site, Worker
from gateway.database import DeliveryRow, InstanceRow, open_database, reading, sqlite_url
from gateway.dicom.encoding.part10 import write_part10
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.flow.delivery import Retry
from gateway.flow.operations import Operator
from gateway.flow.ports import Outgoing, ReceivedFacts
from gateway.flow.receive import SpoolReceiver
from gateway.flow.retention import Retainer
from gateway.flow.segments.format import HEADER_SIZE, Place, scan
from gateway.flow.segments.log import Group
from gateway.flow.segments.reclaim import Reclaimer
from gateway.flow.steps import Steps
from gateway.flow.store import RECEIVED, SEALED, FlowStore, lease_owner
from gateway.keys.keyring import OpeningKeys, SealingKeys
from gateway.restore import Restorer
from gateway.service import build_step_context, places
from tests.support.dicom.samples import encode, image

SIDE = 64
LEASE_S = 600


def ct(number: int = 1, seed: int = 1, **changes: object) -> Dataset:
    """A CT slice of noise with its own SOP Instance UID; `changes` as in `tests.support.dicom.samples.image`."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    body = ((rows - 32) ** 2 / 27**2 + (columns - 32) ** 2 / 23**2) < 1
    noise = np.random.default_rng([seed, number]).normal(0, 12, (SIDE, SIDE))
    frames = np.rint(np.where(body, 40, -1000) + noise).astype(np.int16)[None]
    given = {
        "SOPInstanceUID": f"1.2.826.0.1.99.{number}",
        "ImagePositionPatient": [0, 0, number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "WindowCenter": 40,
        "WindowWidth": 400,
    }
    return image(frames, **(given | changes))


def facts_of(ds: Dataset, transfer_syntax_uid: str = EXPLICIT_LITTLE, called_ae: str = "RELAY") -> ReceivedFacts:
    """What a C-STORE command would say of this data set."""
    return ReceivedFacts(
        calling_ae="ARCHIVE",
        called_ae=called_ae,
        peer_address="127.0.0.1",
        association_id="ab",
        sop_class_uid=str(ds.SOPClassUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        transfer_syntax_uid=transfer_syntax_uid,
    )


def decoded(data: bytes, transfer_syntax_uid: str = EXPLICIT_LITTLE) -> Dataset:
    """The data set in encoded bytes, read by pydicom."""
    out = io.BytesIO()
    write_part10(out, "1.2", "1.2", transfer_syntax_uid, [data])
    out.seek(0)
    return dcmread(out)


@dataclass
class MemorySender:
    """Stands where the egress stands (`gateway.flow.ports.Sender`).

    The flow knows a destination by this port alone, and here its failures have to come at chosen moments: what real
    destinations answer, and that the egress turns it into these errors, is tested in `tests/network/test_egress.py`;
    both together run in `tests/crash`.
    """

    received: list[tuple[str, Outgoing, bytes]] = field(default_factory=list)
    fail: Callable[[str, Outgoing], Exception | None] = lambda destination, item: None
    status: int = 0x0000
    places: int = 64

    def at_a_time(self, destination: str) -> int:
        return self.places

    def send(self, destination: str, item: Outgoing) -> int:
        if error := self.fail(destination, item):
            raise error
        with item.open() as file:
            data = file.read()
        assert len(data) == item.size
        self.received.append((destination, item, data))
        return self.status

    def byte_strings(self) -> dict[str, set[str]]:
        """SOP Instance UID -> SHA-256 of everything that was sent under it."""
        found: dict[str, set[str]] = {}
        for _, item, data in self.received:
            found.setdefault(item.sop_instance_uid, set()).add(hashlib.sha256(data).hexdigest())
        return found


def add_row(store: FlowStore, number: int = 0, **facts: object) -> str:
    """A received instance that the table knows, without any bytes in the spool; returns its id."""
    known = {
        "id": secrets.token_hex(16),
        "route": "out",
        "received_at": time.time(),
        "size": 10,
        "sha256": "00" * 32,
        "file": f"spool{number}",
        **asdict(facts_of(ct())),
        **facts,
    }
    store.add_received([Group(secrets.token_hex(16), 100, [(Place("ab" * 16, 32), known)])])
    return str(known["id"])


ROUTE = Route(name="relay", called_ae="RELAY", destinations=("outside",), mark=Mark(steps=0))


def configuration(state: Path, keys: Path, *routes: Route) -> Config:
    """A site with these routes (default: `ROUTE`) and the destinations "outside", which is trusted, and "second"."""
    outside = Destination(name="outside", type="research", ae_title="OUT", host="127.0.0.1", port=104)
    destinations = [
        outside.model_copy(update={"trust_statement": TRUST_STATEMENT}),
        outside.model_copy(update={"name": "second"}),
    ]
    config = Config(
        site=Site(name="tests", state=state),
        routes=routes or (ROUTE,),
        destinations=tuple(destinations),
        worker=Worker(device="cpu"),
    )
    return make_absolute(config, keys.parent)


_MARKERS: dict = {}
"""Settings -> marker with its networks, for all sites of one test process that bring no networks of their own."""


class Flow:
    """One site's flow; `again` makes another process's view of the same site, with other settings if asked."""

    def __init__(self, config: Config, engine: Engine | None = None) -> None:
        self.config = config
        where = places(config)
        self.engine = engine or open_database(sqlite_url(where.state / "gateway.sqlite"))
        self.store = FlowStore(self.engine, lease_owner())
        self.audit_path = where.audit("worker")
        self.context = build_step_context(
            config, SealingKeys.load(config.keys), self.store, self.engine, AuditLog(self.audit_path)
        )
        if not config.surrogates:  # loading networks takes longer than all else that these tests do
            self.context.protector._markers = _MARKERS
        self.steps = Steps(self.context)
        self.sender = MemorySender()
        self.retry: Retry = lambda kind, attempt: 0.0 if kind in HELD_AT_ONCE else 60.0
        self.clock: Callable[[float], bool] = lambda now: True
        self.retainer = Retainer(
            config.retention,
            self.store,
            self.context.spool,
            self.context.derived,
            self.context.protector,
            lambda now: self.clock(now),
            self.context.audit,
        )
        self.operator = Operator(self.engine, config.routes, self.context.audit)

    def again(self, *routes: Route, **changes: object) -> Flow:
        """The same site after a restart: other leases; other routes or tables where given."""
        config = self.config.model_copy(update={**({"routes": routes} if routes else {}), **changes})
        flow = Flow(config, self.engine)
        flow.sender = self.sender
        flow.store.free_dead_leases()
        return flow

    def receiver(self, **settings: object) -> SpoolReceiver:
        """The ingress's side, on the same spool."""
        ingress = Ingress(**{"min_free_mib": 0, **settings})
        return SpoolReceiver(ingress, self.config.routes, self.context.spool, self.store)

    def receive(
        self,
        ds: Dataset,
        transfer_syntax_uid: str = EXPLICIT_LITTLE,
        called_ae: str = "RELAY",
        data: bytes | None = None,
    ) -> str:
        """Take one instance in; returns its instance id."""
        receiver = self.receiver()
        incoming = receiver.begin(facts_of(ds, transfer_syntax_uid, called_ae))
        incoming.write(encode(ds, transfer_syntax_uid) if data is None else data)
        instance_id = incoming.commit()
        receiver.close()
        return instance_id

    def seal(self) -> None:
        self.steps.seal(self.store.claim(RECEIVED, 100, LEASE_S))
        while rows := self.store.claim_suspect(RECEIVED, LEASE_S):
            self.steps.seal(rows)

    def mark(self, batch: int = 8) -> None:
        while rows := self.store.claim_batch(batch, LEASE_S):
            self.steps.mark(rows)
        while rows := self.store.claim_suspect(SEALED, LEASE_S):
            self.steps.mark(rows)

    def deliver(self, destination: str = "outside") -> None:
        self.steps.deliver(self.store.claim_deliveries(destination, 100, LEASE_S), self.sender, self.retry)
        while pairs := self.store.claim_suspect_delivery(destination, LEASE_S):
            self.steps.deliver(pairs, self.sender, self.retry)

    def run(self) -> None:
        """All steps, to both destinations."""
        self.seal()
        self.mark()
        self.deliver()
        self.deliver("second")

    def row(self, instance_id: str) -> InstanceRow:
        with reading(self.engine) as session:
            return session.get(InstanceRow, instance_id)

    def deliveries(self, instance_id: str) -> dict[str, DeliveryRow]:
        with reading(self.engine) as session:
            rows = session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id == instance_id))
            return {row.destination: row for row in rows}

    def audited(self, event: str) -> list[dict]:
        if not self.audit_path.exists():
            return []
        lines = [json.loads(line) for line in self.audit_path.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def spooled(self) -> list[str]:
        """Names of all received bytes that lie on the disk, once the segments that nobody needs are gone."""
        Reclaimer(self.context.spool, self.store).once()
        names = list(self.context.spool.names(0))
        for path in self.context.spool.segment_paths():
            with path.open("rb") as file:
                steps = scan(file, path.stem, HEADER_SIZE, path.stat().st_size)
                names += [Place(path.stem, step.offset).name for step in steps if step.kind == "instance"]
        return sorted(names)

    def derived(self) -> list[str]:
        return sorted(path.name for path in places(self.config).derived.iterdir())

    def restored(self, uid: str) -> bytes:
        """The original by original or derived UID."""
        where = places(self.config)
        restorer = Restorer(self.engine, where.vault, OpeningKeys.load(self.config.keys), self.config.site.name)
        with restorer.by_uid(uid) as original:
            original.verify()
            return b"".join(original.stream())
