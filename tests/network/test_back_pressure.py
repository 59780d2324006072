"""Back-pressure between real parts: DCMTK's storescu is told why it has to wait, and comes again with everything."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.audit import events
from gateway.config.models import Ingress, Peer
from gateway.database import InstanceRow, reading
from gateway.flow.receive import SpoolReceiver
from gateway.keys.generate import make_keys
from gateway.network.ingress import IngressScp
from tests.crash.objects import Instance, make_instances
from tests.network.conftest import ReadableAudit
from tests.support.flow import Flow, configuration
from tests.support.network import peers
from tests.support.network.samples import data_set_bytes

ANSWER = re.compile(r"^D: DIMSE Status +: (0x[0-9a-f]{4})", re.MULTILINE)
COMMENT = re.compile(r"\(0000,0902\) LO \[(.*?)\s*\]")
PEERS = (Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",)),)


class Site:
    """A flow that is worked off by hand, with an ingress in front whose limits change as by a reload."""

    def __init__(self, folder: Path, audit: ReadableAudit) -> None:
        make_keys(folder / "keys")
        self.flow = Flow(configuration(folder / "state", folder / "keys"))
        self.audit = audit
        self.ingress: IngressScp | None = None
        self._receiver: SpoolReceiver | None = None
        self.limit()

    def limit(self, **limits: int) -> None:
        """Go on under these limits, on the same port."""
        config = Ingress(peers=PEERS, **{"min_free_mib": 0, **limits}).model_copy(update={"port": 0})
        receiver = self.flow.receiver(**limits)
        ingress = IngressScp(config, self.flow.config.routes, receiver, self.audit)
        ingress.bind(self.ingress)
        self.end()
        ingress.start()
        self.ingress, self._receiver = ingress, receiver

    def end(self) -> None:
        """Take nothing more; what was received has its row."""
        if self.ingress is not None and self._receiver is not None:
            self.ingress.stop()
            self._receiver.close()

    def send(self, instances: Sequence[Instance]) -> tuple[list[str], list[str]]:
        """Statuses and sentences that storescu gets, which sends them all whatever it is answered."""
        assert self.ingress is not None and self._receiver is not None
        names = ("-aet", "ARCHIVE", "-aec", "RELAY", "127.0.0.1", self.ingress.port)
        done = peers.run("storescu", "-d", "--no-halt", "-xe", *names, *(one.path for one in instances))
        said = done.stdout + done.stderr
        self._receiver.settle()
        self._receiver._checked_at = 0.0  # else the figures are a second old
        return ANSWER.findall(said), COMMENT.findall(said)

    def received(self) -> set[str]:
        """SOP Instance UIDs of what the site has ever taken."""
        with reading(self.flow.engine) as session:
            return {row.sop_instance_uid for row in session.query(InstanceRow)}


@pytest.fixture
def site(tmp_path: Path, audit: ReadableAudit) -> Iterator[Site]:
    site = Site(tmp_path, audit)
    yield site
    site.end()
    site.flow.engine.dispose()


def mark(site: Site) -> None:
    site.flow.seal()
    site.flow.mark()


PRESSURES: dict[str, tuple[dict[str, int], str, Callable[[Site], None]]] = {
    "disk-low": ({"min_free_mib": 1 << 40}, r"\d+ MiB free for the \w+, \d+ needed", lambda site: site.limit()),
    "queue-full": ({"max_waiting": 2}, "2 instances are waiting", lambda site: site.flow.run()),
    "device-behind": ({"max_unmarked": 2}, "2 instances wait for their mark", mark),
}


@pytest.mark.peers
@pytest.mark.parametrize("code", PRESSURES)
def test_what_is_put_off_is_told_why_and_comes_again_whole(site: Site, tmp_path: Path, code: str) -> None:
    limits, sentence, relieve = PRESSURES[code]
    instances = [one for one in make_instances(tmp_path / "archive", 12, 1) if one.option == "-xe"]
    early, late = instances[:2], instances[2:]
    assert site.send(early) == (["0x0000"] * 2, [])
    site.limit(**limits)
    statuses, comments = site.send(late)
    assert statuses == ["0xa700"] * 2
    assert len(comments) == 2 and all(re.fullmatch(f"{code}: {sentence}", one) for one in comments), comments
    assert site.received() == {one.sop_instance_uid for one in early}
    relieve(site)
    assert site.send(late) == (["0x0000"] * 2, [])
    site.flow.run()

    # The ledger: what was acknowledged is what is there, went out once, and comes back bit for bit.
    assert site.received() == {one.sop_instance_uid for one in instances}
    assert site.flow.store.waiting() == (0, 0)
    with reading(site.flow.engine) as session:
        states = {row.id: row.state for row in session.query(InstanceRow)}
    assert list(states.values()) == ["delivered"] * 4
    assert Counter(item.instance_id for _, item, _ in site.flow.sender.received) == Counter(list(states))
    for one in instances:
        assert site.flow.restored(one.sop_instance_uid) == data_set_bytes(one.path)
    refused = site.audit.lines(events.INSTANCE_REFUSED)
    assert [(line["reason"], line["status"]) for line in refused] == [(code, "0xA700")] * 2
    closed = site.audit.lines(events.ASSOCIATION_CLOSED)
    told = Counter[str]()
    for line in closed:
        told.update(line["statuses"])
    assert told == {"0x0000": 4, "0xA700": 2}
    assert (sum(line["received"] for line in closed), sum(line["failed"] for line in closed)) == (4, 2)
