"""Byte scripts of a peer: cut in whatever way PS3.8 allows an object is the same, and in any other it is none."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE

from gateway.audit import events
from gateway.config.models import Ingress, Route
from gateway.database import InstanceRow, open_database, reading, sqlite_url
from gateway.flow.receive import IN_MEMORY, SpoolReceiver
from gateway.flow.segments.spool import ReceivedSpool
from gateway.flow.store import FlowStore, lease_owner
from gateway.keys.generate import make_keys
from gateway.keys.keyring import load_spool_cipher
from gateway.network import command as dimse
from gateway.network.ingress import IngressScp
from tests.network.conftest import ReadableAudit
from tests.network.test_ingress import gateway_threads
from tests.support.flow import configuration
from tests.support.network import raw
from tests.support.network.samples import CT, EXPLICIT, IMPLICIT, ct
from tests.support.network.windowed import answer, window_item
from tests.support.until import until

PATIENCE_S = 30
COMMAND, LAST = 1, 2  # bits of the message control header, PS3.8 E.2
Pdv = tuple[int, int, bytes]  # context, control, fragment
Script = list[list[Pdv]]  # PDUs


class Spooled(SpoolReceiver):
    """The receiver of a site, and what it has kept."""

    def __init__(self, folder: Path, keys: Path) -> None:
        config = configuration(folder, keys)
        routes = [Route(name="gateway", called_ae="GATEWAY", destinations=("outside",))]
        folder.mkdir()
        self.engine = open_database(sqlite_url(folder / "gateway.sqlite"))
        spool = ReceivedSpool(folder / "spool", load_spool_cipher(config.keys))
        super().__init__(Ingress(min_free_mib=0), routes, spool, FlowStore(self.engine, lease_owner()))

    def kept(self) -> dict[str, bytes]:
        """SOP Instance UID -> data set; its digest in the table is that of the bytes in the spool."""
        assert self.has_its_rows()
        found = {}
        with reading(self.engine) as session:
            for row in session.query(InstanceRow):
                assert row.spool_file is not None
                with self.spool.open(row.spool_file) as file:
                    found[row.sop_instance_uid] = file.read()
                assert row.sha256 == hashlib.sha256(found[row.sop_instance_uid]).hexdigest()
        return found

    def has_its_rows(self) -> bool:
        """Wait for the row of each object that was acknowledged."""
        return self._rows.settle(PATIENCE_S)

    def has_its_memory(self) -> bool:
        """Whether nothing is taken of what objects on their way may take."""
        return self.memory._left == IN_MEMORY


@pytest.fixture(scope="module")
def site_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "keys"
    make_keys(folder)
    return folder


@pytest.fixture
def receiver(tmp_path: Path, site_keys: Path) -> Iterator[Spooled]:
    """In the place of the one in memory: what `start_ingress` starts keeps what it gets as a site does."""
    receiver = Spooled(tmp_path / "state", site_keys)
    yield receiver
    receiver.close()
    receiver.engine.dispose()


# -- scripts -------------------------------------------------------------------------------------------------------


def request(uid: str, number: int = 1) -> bytes:
    """The command set of a C-STORE."""
    return dimse.encode_command(
        {
            dimse.AFFECTED_SOP_CLASS_UID: CT,
            dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
            dimse.MESSAGE_ID: number,
            dimse.PRIORITY: 0,
            dimse.DATA_SET_TYPE: dimse.WITH_DATA_SET,
            dimse.AFFECTED_SOP_INSTANCE_UID: uid,
        }
    )


def pdvs(kind: int, message: bytes, sizes: Sequence[int], context: int = 1) -> list[Pdv]:
    """A command (kind 1) or data set (0) in fragments of these sizes, again and again until it ends."""
    cut, at = list[Pdv](), 0
    while at < len(message):
        end = at + sizes[len(cut) % len(sizes)]
        cut.append((context, kind | (LAST if end >= len(message) else 0), message[at:end]))
        at = end
    return cut


def together(fragments: Sequence[Pdv], sizes: Sequence[int]) -> Script:
    """PDUs of so many PDVs each, again and again."""
    script, at = Script(), 0
    while at < len(fragments):
        end = at + sizes[len(script) % len(sizes)]
        script.append(list(fragments[at:end]))
        at = end
    return script


WHOLE = (1 << 17,)
ODD = (1, 2, 3, 7)
UNEVEN = (7, 1000, 1, 4093, 2, 333, 3)
EMPTY: list[Pdv] = [(1, 0, b"")]

Cut = Callable[[bytes, bytes], Script]


def in_pieces_of(size: int) -> Cut:
    """Each in a PDU of its own."""
    return lambda rq, data: together(pdvs(COMMAND, rq, (size,)) + pdvs(0, data, (size,)), (1,))


# Rows of the image, and how its request and its data set are cut
CUTS: dict[str, tuple[int, Cut]] = {
    "whole": (16, lambda rq, data: together(pdvs(COMMAND, rq, WHOLE) + pdvs(0, data, WHOLE), (1,))),
    **{f"in pieces of {size}": (16, in_pieces_of(size)) for size in ODD},
    "in odd pieces": (16, lambda rq, data: together(pdvs(COMMAND, rq, ODD) + pdvs(0, data, ODD), (1,))),
    "in uneven pieces": (200, lambda rq, data: together(pdvs(COMMAND, rq, UNEVEN) + pdvs(0, data, UNEVEN), (1,))),
    "all in one PDU": (16, lambda rq, data: [pdvs(COMMAND, rq, WHOLE) + pdvs(0, data, WHOLE)]),
    "odd pieces in one PDU": (16, lambda rq, data: [pdvs(COMMAND, rq, ODD) + pdvs(0, data, ODD)]),
    "several pieces in a PDU": (200, lambda rq, data: together(pdvs(1, rq, ODD) + pdvs(0, data, UNEVEN), (2, 3, 1, 5))),
    "the request's end with the first data": (
        16,
        lambda rq, data: together(pdvs(1, rq, (99,)) + pdvs(0, data, (200,)), (1, 2)),
    ),
    "the last piece empty": (
        16,
        lambda rq, data: [pdvs(COMMAND, rq, WHOLE), [(1, 0, data)], [(1, LAST, b"")]],
    ),
    "empty pieces between": (
        16,
        lambda rq, data: together(pdvs(1, rq, WHOLE) + EMPTY + [(1, 0, data[:9]), *EMPTY, (1, LAST, data[9:])], (2, 1)),
    ),
}


def encoded(script: Script) -> bytes:
    """The bytes of P-DATA-TF PDUs (PS3.8 9.3.5)."""
    return b"".join(raw.pdu(0x04, b"".join(raw.fragment(*pdv) for pdv in each)) for each in script)


def associated(wire: raw.Wire, contexts: bytes | None = None, window: int | None = None) -> None:
    """Ask for an association, and get it."""
    wire.sock.settimeout(PATIENCE_S)
    wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    user = raw.user_information(more=b"" if window is None else window_item(window))
    wire.send(raw.associate(contexts=contexts, user=user))
    assert wire.read()[0] == 0x02


def released(wire: raw.Wire) -> None:
    wire.send(raw.RELEASE_RQ)
    assert wire.read()[0] == 0x06


def sent(port: int, *scripts: bytes, sizes: Sequence[int] = (1 << 20,)) -> list[tuple[int, int]]:
    """Send one object after the other on one association, the bytes of each in TCP segments of these sizes."""
    answers = []
    with raw.connected(port) as wire:
        associated(wire)
        for script in scripts:
            at, number = 0, 0
            while at < len(script):
                wire.send(script[at : at + sizes[number % len(sizes)]])
                at, number = at + sizes[number % len(sizes)], number + 1
            answers.append(answer(wire))
        released(wire)
    return answers


# -- what is allowed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CUTS)
def test_an_object_is_what_it_is_however_it_is_cut(
    start_ingress: Callable[..., IngressScp], receiver: Spooled, name: str
) -> None:
    rows, cut = CUTS[name]
    uid, data = ct(rows)
    assert sent(start_ingress().port, encoded(cut(request(uid), data))) == [(1, 0)]
    assert receiver.kept() == {uid: data}
    until("the memory is given back", receiver.has_its_memory)


@pytest.mark.parametrize("sizes", [(1,), (2,), (3,), (7,), (5, 1, 11, 6, 64, 2)], ids=str)
def test_nor_does_it_matter_how_the_network_cuts_it(
    start_ingress: Callable[..., IngressScp], receiver: Spooled, sizes: tuple[int, ...]
) -> None:
    """Headers of PDUs and of PDVs come in pieces as well."""
    uid, data = ct(8)
    _, cut = CUTS["several pieces in a PDU"]
    assert sent(start_ingress().port, encoded(cut(request(uid, 7), data)), sizes=sizes) == [(7, 0)]
    assert receiver.kept() == {uid: data}


def test_objects_of_two_contexts_meet_in_one_pdu(start_ingress: Callable[..., IngressScp], receiver: Spooled) -> None:
    """With a window the next request may begin in the PDU in which a data set ends, also in another context."""
    images = [ct(16), ct(16, IMPLICIT), ct(24), ct(24, IMPLICIT)]
    fragments = [
        pdv
        for number, (uid, data) in enumerate(images)
        for kind, message in ((COMMAND, request(uid, number)), (0, data))
        for pdv in pdvs(kind, message, (301,), context=1 if number % 2 == 0 else 3)
    ]
    contexts = raw.context_rq(1) + raw.context_rq(3, syntaxes=(IMPLICIT,))
    with raw.connected(start_ingress().port) as wire:
        associated(wire, contexts, window=4)
        wire.send(encoded(together(fragments, (3, 1, 4, 2))))
        assert sorted(answer(wire) for _ in images) == [(number, 0) for number in range(4)]
        released(wire)
    assert receiver.kept() == dict(images)
    with reading(receiver.engine) as session:
        syntaxes = {row.sop_instance_uid: row.transfer_syntax_uid for row in session.query(InstanceRow)}
    assert [syntaxes[uid] for uid, _ in images] == [EXPLICIT, IMPLICIT] * 2


# -- what is not ---------------------------------------------------------------------------------------------------


ECHO = dimse.encode_command(
    {
        dimse.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.1.1",
        dimse.COMMAND_FIELD: dimse.C_ECHO_RQ,
        dimse.MESSAGE_ID: 2,
        dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
    }
)
ABORTED = "A-ABORT"

# Out of the request and the two halves of the data set: PDUs that end the association in the middle of the object
BROKEN: dict[str, Callable[[Pdv, Pdv, Pdv], Script]] = {
    "a request in mid-object": lambda rq, first, last: [[rq], [first], [rq], [last]],
    "the same in one PDU": lambda rq, first, last: [[rq, first, rq, last]],
    "a C-ECHO in mid-object": lambda rq, first, last: [[rq], [first], [(1, 3, ECHO)], [last]],
    "the data set in another context": lambda rq, first, last: [[rq], [(3, *first[1:])], [(3, *last[1:])]],
    "its end in another context": lambda rq, first, last: [[rq], [first], [(3, *last[1:])]],
    "its end in a context that is none": lambda rq, first, last: [[rq, first, (99, *last[1:])]],
    ABORTED: lambda rq, first, last: [[rq], [first]],
}


def nothing_is_left(ingress: IngressScp, receiver: Spooled, audit: ReadableAudit, before: int = 0) -> None:
    """Nothing is kept, all memory is back, the end is told of, and the next association is served."""
    until("both threads end", lambda: not gateway_threads())
    until("the memory is given back", receiver.has_its_memory)
    assert receiver.kept() == {} and list(receiver.spool.names(0)) == []
    (line,) = audit.lines(events.INSTANCE_REFUSED)
    assert line["reason"] == "aborted-mid-object" and line["outcome"] == "failure"
    (line,) = audit.lines(events.ASSOCIATION_CLOSED)
    assert (line["outcome"], line["received"], line["failed"]) == ("failure", 0, 1)
    uid, data = ct(16)
    assert sent(ingress.port, encoded(CUTS["whole"][1](request(uid), data))) == [(1, 0)]
    assert receiver.kept() == {uid: data}


@pytest.mark.parametrize("way", BROKEN)
def test_what_breaks_the_order_of_a_message_ends_the_association_and_is_not_kept(
    start_ingress: Callable[..., IngressScp], receiver: Spooled, audit: ReadableAudit, way: str
) -> None:
    ingress = start_ingress()
    uid, data = ct(16)
    script = encoded(BROKEN[way]((1, COMMAND | LAST, request(uid)), (1, 0, data[:300]), (1, LAST, data[300:])))
    with raw.connected(ingress.port) as wire:
        associated(wire, raw.context_rq(1) + raw.context_rq(3))
        wire.send(script + (raw.ABORT if way == ABORTED else b""))
        assert wire.read()[0] in (0x07, 0)
    until("its end is audited", lambda: audit.lines(events.ASSOCIATION_CLOSED))
    assert audit.lines(events.ASSOCIATION_CLOSED)[0].get("reason") == (None if way == ABORTED else "bad-command")
    nothing_is_left(ingress, receiver, audit)


@pytest.mark.parametrize("missing", [1, 200, 305, 308, 311])  # the last: its header is all that came
@pytest.mark.parametrize("way", ["closed", "reset"])
def test_a_connection_that_is_cut_in_mid_pdu_leaves_nothing(
    start_ingress: Callable[..., IngressScp], receiver: Spooled, audit: ReadableAudit, missing: int, way: str
) -> None:
    """Of the last PDU (6 bytes of its header, 6 of its PDV's, 300) so many bytes never come."""
    ingress = start_ingress()
    uid, data = ct(16)
    script = encoded([pdvs(COMMAND, request(uid), WHOLE), [(1, 0, data[:-300])], [(1, LAST, data[-300:])]])
    with raw.connected(ingress.port) as wire:
        associated(wire)
        wire.send(script[:-missing])
        until("the object is being taken", lambda: not receiver.has_its_memory() or way == "closed")
        if way == "reset":
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until("its end is audited", lambda: audit.lines(events.ASSOCIATION_CLOSED))
    nothing_is_left(ingress, receiver, audit)


# -- beside another's ----------------------------------------------------------------------------------------------


@dataclass
class Stock:
    """pynetdicom's own storage SCP, as its documentation writes one."""

    port: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)


@pytest.fixture
def stock() -> Iterator[Stock]:
    stock = Stock()

    def store(event: evt.Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE) and request.DataSet is not None
        stock.kept[str(request.AffectedSOPInstanceUID)] = request.DataSet.getvalue()
        return 0x0000

    ae = ApplicationEntity("GATEWAY")
    ae.add_supported_context(CT, [EXPLICIT, IMPLICIT])
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    stock.port = server.server_address[1]
    yield stock
    server.shutdown()


def test_the_same_bytes_are_the_same_objects_to_pynetdicom(
    start_ingress: Callable[..., IngressScp], receiver: Spooled, stock: Stock
) -> None:
    """Each way to cut, and some by chance: the same answers, and the same bytes under the same UIDs."""
    chance, scripts, images = random.Random(8), [], {}
    cuts = [cut for _, cut in CUTS.values()]

    def by_chance(rq: bytes, data: bytes) -> Script:
        def some() -> list[int]:
            return [chance.choice((1, 2, 3, 7, 50, 301, 5000)) for _ in range(9)]

        return together(pdvs(COMMAND, rq, some()) + pdvs(0, data, some()), some())

    for number, cut in enumerate([*cuts, *[by_chance] * 12]):
        uid, data = ct(16)
        images[uid] = data
        scripts.append(encoded(cut(request(uid, number), data)))
    ours, theirs = sent(start_ingress().port, *scripts), sent(stock.port, *scripts)
    assert ours == theirs == [(number, 0) for number in range(len(scripts))]
    assert receiver.kept() == stock.kept == images
