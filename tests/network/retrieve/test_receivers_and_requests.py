"""Receivers that abort, requests as other vendors write them, originals that no network carries, memory in bounds."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from gateway.audit import events
from gateway.network import command as dimse
from gateway.network.associate_pdus import read_answer
from gateway.network.contexts import EXPLICIT_LITTLE
from gateway.network.retrieve.receiving import BoundedBuffer, MemoryBudget
from tests.network.retrieve.conftest import plain
from tests.network.retrieve.test_protocol import Keeper, associated, identifier, raw_contexts, receiver
from tests.network.test_ingress import gateway_threads, until
from tests.support.network import raw
from tests.support.retrieve.samples import MANY, MANY_STUDY, MR_SYNTAXES, from_file
from tests.support.retrieve.vaults import build_site

FIND, GET = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove
CT = "1.2.840.10008.5.1.4.1.1.2"


def moved(scp, study: str):
    """The final response of a C-MOVE of one study, and its list of failures."""
    with associated(scp, [(MOVE, EXPLICIT_LITTLE)]) as association:
        *_, (status, failed) = association.send_c_move(identifier("STUDY", StudyInstanceUID=study), "READING1", MOVE)
    uids = failed.FailedSOPInstanceUIDList if failed else []
    return status, [uid for uid in ([uids] if isinstance(uids, str) else uids or []) if uid]


@pytest.mark.parametrize("ends", ["abort", "close"])
@pytest.mark.parametrize("bad", [{0}, {2}, {4}, {1, 2, 3}])
def test_an_instance_that_a_receiver_aborts_on_fails_alone(start_scp, site, audit, ends, bad):
    """The rest goes on a new association; at a repetition the same ones fail, and no others."""
    keeper, order = Keeper(), []

    def rude(event) -> int:
        uid = event.request.AffectedSOPInstanceUID
        if uid not in order:
            order.append(uid)
        if order.index(uid) not in bad:
            return keeper._store(event)
        if ends == "abort":
            event.assoc.abort()
        else:
            event.assoc.dul.socket.socket.shutdown(2)
        return 0x0000

    keeper.handlers = [(evt.EVT_C_STORE, rude)]
    server = receiver(keeper, raw_contexts(site, MR_SYNTAXES))
    scp = start_scp(plain(port=server.server_address[1]))
    try:
        for _ in range(2):
            status, failed = moved(scp, site.samples["mr-rle"].study)
            assert status.Status == 0xB000
            assert status.NumberOfCompletedSuboperations == 5 - len(bad)
            assert sorted(failed) == sorted(order[index] for index in bad)
    finally:
        server.shutdown()
    everything = {site.samples[name].uid: site.samples[name].data for name in MR_SYNTAXES}
    assert keeper.kept == {uid: data for uid, data in everything.items() if order.index(uid) not in bad}
    reasons = {line["reason"] for line in audit.lines(events.ORIGINAL_RESTORED) if line["outcome"] == "failure"}
    assert reasons <= {"association-aborted", "connection-lost", "association-ended"}


def test_a_receiver_that_is_gone_fails_everything_at_once(start_scp, site):
    from tests.support.network.peers import free_port

    scp = start_scp(plain(port=free_port()))
    status, failed = moved(scp, MANY_STUDY)
    assert (status.Status, status.NumberOfFailedSuboperations, len(failed)) == (0xA702, MANY, MANY)


def test_a_receiver_that_falls_silent_twice_is_given_up(start_scp, site):
    """Each silence costs the whole timeout: sixty of them in a row would be an hour."""
    associations = []

    def silent(wire) -> None:
        associations.append(wire.read())
        wire.send(raw.associate(0x02, called=b"READING1"))
        while wire.read()[0]:
            pass

    with raw.scripted_scp(silent) as port:
        scp = start_scp(plain(port=port), idle_timeout_s=0.5)
        status, failed = moved(scp, MANY_STUDY)
    assert (status.Status, len(failed), len(associations)) == (0xA702, MANY, 2)


@pytest.mark.parametrize("answered", [0x0107, 0x0116, 0x0001, 0xB007])
def test_a_warning_of_the_receiver_is_no_failure(start_scp, site, audit, answered):
    keeper = Keeper(answered)
    server = receiver(keeper, raw_contexts(site, ["ct"]))
    scp = start_scp(plain(port=server.server_address[1]))
    try:
        status, failed = moved(scp, site.samples["ct"].study)
    finally:
        server.shutdown()
    assert (status.Status, status.NumberOfWarningSuboperations, failed) == (0xB000, 1, [])
    assert audit.lines(events.ORIGINAL_RESTORED)[0]["outcome"] == "success"


# --- originals whose own end is odd -----------------------------------------------------------------------------------


@pytest.fixture
def one_odd(tmp_path, site):
    """Four originals of one study, the second of an odd number of bytes: its last value is."""
    many = [site.samples[f"many-{number}"] for number in range(4)]
    trailing = b"\xfc\xff\xfc\xffOB\0\0\x03\0\0\0\0\0\0"  # Data Set Trailing Padding (PS3.10 7.2) of three bytes
    odd = replace(many[1], data=many[1].data + trailing)
    return build_site(tmp_path / "odd", [many[0], odd, many[2], many[3]])


def test_an_odd_original_fails_alone_before_it_is_sent(start_scp, one_odd, audit):
    names = [f"many-{number}" for number in range(4)]
    odd = one_odd.samples["many-1"]
    assert len(odd.data) % 2 == 1
    keeper, associations = Keeper(), []
    keeper.handlers.append((evt.EVT_ESTABLISHED, associations.append))
    server = receiver(keeper, raw_contexts(one_odd, names))
    scp = start_scp(plain(port=server.server_address[1]), of=one_odd)
    try:
        status, failed = moved(scp, MANY_STUDY)
    finally:
        server.shutdown()
    assert (status.NumberOfCompletedSuboperations, failed) == (3, [odd.uid])
    assert "odd length" in status.ErrorComment and len(status.ErrorComment) <= 64
    assert len(associations) == 1 and odd.uid not in keeper.kept
    (line,) = [line for line in audit.lines(events.ORIGINAL_RESTORED) if line["outcome"] == "failure"]
    assert (line["reason"], line["sop_instance_uid"]) == ("odd-length", odd.uid)
    assert line["status"] == "0xC003"
    got = Keeper()
    contexts = [*raw_contexts(one_odd, names), (GET, EXPLICIT_LITTLE)]
    with associated(scp, contexts, handlers=got.handlers) as association:
        *_, (status, _) = association.send_c_get(identifier("STUDY", StudyInstanceUID=MANY_STUDY), GET)
    assert status.NumberOfCompletedSuboperations == 3 and got.kept == keeper.kept


def test_the_odd_original_of_the_field(start_scp, tmp_path, field_inputs):
    samples = [from_file(path.stem, path) for path in sorted((field_inputs / "odd-length").iterdir())]
    assert len(samples) == 4
    # `from_file` pads what files may have and networks not; here the very point is that it is not padded
    samples = [replace(s, data=s.data[:-1]) if s.name == "odd1" else s for s in samples]
    made = build_site(tmp_path / "field", samples)
    keeper = Keeper()
    server = receiver(keeper, raw_contexts(made, made.samples))
    scp = start_scp(plain(port=server.server_address[1]), of=made)
    try:
        statuses = [moved(scp, study)[0] for study in {sample.study for sample in samples}]
    finally:
        server.shutdown()
    assert sum(status.NumberOfCompletedSuboperations for status in statuses) == 3
    assert sum(status.NumberOfFailedSuboperations for status in statuses) == 1
    assert keeper.kept == {sample.uid: sample.data for sample in samples if sample.name != "odd1"}


# --- requests as they come --------------------------------------------------------------------------------------------


def request(kind: int, model: str, number: int = 1, destination: bytes = b"") -> bytes:
    """The command set of a C-FIND, C-GET or C-MOVE request."""
    command = dimse.encode_command(
        {
            dimse.AFFECTED_SOP_CLASS_UID: model,
            dimse.COMMAND_FIELD: kind,
            dimse.MESSAGE_ID: number,
            dimse.PRIORITY: 0,
            dimse.DATA_SET_TYPE: dimse.WITH_DATA_SET,
        }
    )
    if not destination:
        return command
    element = b"\0\0\0\x06" + len(destination).to_bytes(4, "little") + destination
    at = command.index(b"\0\0\0\x07")  # (0000,0700) follows
    body = command[12:at] + element + command[at:]
    return command[:8] + len(body).to_bytes(4, "little") + body


def keys(level: str, **more: str) -> bytes:
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    for keyword, value in more.items():
        setattr(asked, keyword, value)
    return encode(asked, False, True)


def cancel(number: int = 1) -> bytes:
    return dimse.encode_command(
        {
            dimse.COMMAND_FIELD: dimse.C_CANCEL_RQ,
            dimse.MESSAGE_ID_RESPONDED_TO: number,
            dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
        }
    )


def opened(wire: raw.Wire, *contexts: bytes) -> dict[int, tuple[int, str]]:
    wire.send(raw.associate(called=b"MIAD_RESTORE", calling=b"READING1", contexts=b"".join(contexts)))
    kind, body = wire.read()
    assert kind == 0x02
    return read_answer(body).results


def final_status(wire: raw.Wire) -> tuple[int, int]:
    """The last status of one operation, and how many pending ones came before it."""
    pending = 0
    while True:
        kind, body = wire.read()
        assert kind == 0x04
        if not body[5] & 1:
            continue
        status = dimse.decode_command(body[6 : 4 + int.from_bytes(body[:4])])[dimse.STATUS]
        if status not in (0xFF00, 0xFF01):
            return status, pending
        pending += 1


@pytest.mark.parametrize("padding", [b"", b"\0", b" ", b"\0\0\0\0\0\0\0\0", b" \0"])
def test_a_move_destination_is_trimmed(start_scp, site, padding):
    keeper = Keeper()
    server = receiver(keeper, raw_contexts(site, ["ct"]))
    scp = start_scp(plain(port=server.server_address[1]))
    try:
        with raw.connected(scp.plain_port) as wire:
            opened(wire, raw.context_rq(1, MOVE))
            wire.send(raw.data(1, 3, request(dimse.C_MOVE_RQ, MOVE, destination=b"READING1" + padding)))
            wire.send(raw.data(1, 2, keys("STUDY", StudyInstanceUID=site.samples["ct"].study)))
            assert final_status(wire)[0] == 0x0000
    finally:
        server.shutdown()
    assert keeper.kept == {site.samples["ct"].uid: site.samples["ct"].data}


@pytest.mark.parametrize("destination", [b"READING1\xff", b"READ\0ING1", b"\\", bytes(4), b"X" * 40])
def test_a_move_destination_that_is_none_is_refused_and_the_association_lives(start_scp, site, audit, destination):
    scp = start_scp(plain(port=1))
    with raw.connected(scp.plain_port) as wire:
        opened(wire, raw.context_rq(1, MOVE))
        for number in (1, 2):
            wire.send(raw.data(1, 3, request(dimse.C_MOVE_RQ, MOVE, number, destination)))
            wire.send(raw.data(1, 2, keys("STUDY", StudyInstanceUID=site.samples["ct"].study)))
            assert final_status(wire)[0] == 0xA801
    assert len(audit.lines(events.RESTORE_REFUSED)) == 2


@pytest.mark.parametrize("how", ["one PDU", "one write", "just after"])
def test_a_cancel_that_comes_with_its_request_counts(start_scp, site, audit, how):
    scp = start_scp(plain())
    series = site.samples["many-0"].series
    asked = keys("IMAGE", StudyInstanceUID=MANY_STUDY, SeriesInstanceUID=series, SOPInstanceUID="")
    command = request(0x0020, FIND)
    parts = [raw.fragment(1, 3, command), raw.fragment(1, 2, asked), raw.fragment(1, 3, cancel())]
    with raw.connected(scp.plain_port) as wire:
        opened(wire, raw.context_rq(1, FIND))
        if how == "one PDU":
            wire.send(raw.pdu(4, b"".join(parts)))
        elif how == "one write":
            wire.send(b"".join(raw.pdu(4, part) for part in parts))
        else:
            for part in parts:
                wire.send(raw.pdu(4, part))
        status, pending = final_status(wire)
        assert status == 0xFE00 and pending < MANY
        # The next request has the same number, as many toolkits count: it is not the one that was cancelled.
        wire.send(raw.pdu(4, raw.fragment(1, 3, cancel())) + raw.data(1, 3, command) + raw.data(1, 2, asked))
        assert final_status(wire) == (0x0000, MANY)


def test_a_cancel_with_a_get_stops_it_before_the_first_original(start_scp, site):
    scp = start_scp(plain())
    with raw.connected(scp.plain_port) as wire:
        opened(wire, raw.context_rq(1, GET), raw.context_rq(3, CT))
        wire.send(
            raw.data(1, 3, request(0x0010, GET))
            + raw.data(1, 2, keys("STUDY", StudyInstanceUID=MANY_STUDY))
            + raw.data(1, 3, cancel())
        )
        assert final_status(wire) == (0xFE00, 0)


def an_original(wire: raw.Wire) -> int:
    """Read one sub-operation of a C-GET; gives its message id."""
    number = None
    while True:
        kind, body = wire.read()
        assert kind == 0x04
        if body[5] & 1:
            command = dimse.decode_command(body[6 : 4 + int.from_bytes(body[:4])])
            assert command.get(dimse.STATUS, 0xFF00) == 0xFF00
            number = command.get(dimse.MESSAGE_ID, number)
        elif body[5] & 2:
            return number


def stored(number: int) -> bytes:
    response = {dimse.COMMAND_FIELD: dimse.C_STORE_RSP, dimse.MESSAGE_ID_RESPONDED_TO: number, dimse.STATUS: 0x0000}
    return dimse.encode_command(response | {dimse.DATA_SET_TYPE: dimse.NO_DATA_SET})


def begin_get(wire: raw.Wire) -> None:
    opened(wire, raw.context_rq(1, GET), raw.context_rq(3, CT))
    wire.send(raw.data(1, 3, request(0x0010, GET)) + raw.data(1, 2, keys("STUDY", StudyInstanceUID=MANY_STUDY)))


@pytest.mark.parametrize("first", ["answer", "cancel"])
def test_a_cancel_beside_an_answer_stops_a_get_at_once(start_scp, site, first):
    scp = start_scp(plain())
    with raw.connected(scp.plain_port) as wire:
        begin_get(wire)
        for _ in range(2):
            wire.send(raw.data(3, 3, stored(an_original(wire))))
        number = an_original(wire)
        said = [raw.data(3, 3, stored(number)), raw.data(1, 3, cancel())]
        wire.send(b"".join(said if first == "answer" else reversed(said)))
        assert final_status(wire) == (0xFE00, 1)  # after the third original a word of how far it is, and no fourth


def test_a_service_that_ends_does_not_wait_for_an_answer(start_scp, site):
    scp = start_scp(plain())
    with raw.connected(scp.plain_port) as wire:
        begin_get(wire)
        an_original(wire)
        scp.stop(drain_s=0.1)
        assert wire.read()[0] == 0x07


@pytest.mark.parametrize(
    "sent",
    [
        raw.data(1, 1, bytes(60_000)) + raw.data(1, 1, bytes(60_000)),
        raw.data(1, 3, request(0x0020, FIND)) + raw.data(3, 0, b"1234"),
        raw.data(1, 3, request(0x0020, FIND)) + raw.data(1, 3, request(0x0020, FIND)),
        raw.data(1, 0, b"1234"),
        raw.data(1, 3, b"no command set at all"),
    ],
)
def test_fragments_out_of_order_end_the_association_with_a_reason(start_scp, audit, sent):
    scp = start_scp(plain())
    with raw.connected(scp.plain_port) as wire:
        opened(wire, raw.context_rq(1, FIND), raw.context_rq(3, GET))
        wire.send(sent)
        assert wire.read()[0] in (0x07, 0)
    assert until(lambda: audit.lines(events.ASSOCIATION_CLOSED))
    assert audit.lines(events.ASSOCIATION_CLOSED)[0]["reason"] == "bad-command"
    assert until(lambda: not gateway_threads())


# --- what the negotiation tells ---------------------------------------------------------------------------------------


def test_the_negotiation_tells_nothing_of_studies_out_of_scope(start_scp, site):
    """Of MR the vault holds five encodings in one study; who may see a study of CT only learns of none of them."""
    mr, ct = site.samples["mr-rle"], site.samples["ct"]
    wishes = ("1.2.840.10008.1.2.4.50", mr.transfer_syntax, EXPLICIT_LITTLE)
    scp = start_scp(
        plain(studies=(ct.study,)), plain("READING2", studies=(mr.study,)), plain("READING3", studies=("1.2.3",))
    )
    answers = {}
    for title in (b"READING1", b"READING2", b"READING3"):
        with raw.connected(scp.plain_port) as wire:
            contexts = raw.context_rq(1, mr.sop_class, wishes) + raw.context_rq(3, ct.sop_class, wishes)
            wire.send(raw.associate(called=b"MIAD_RESTORE", calling=title, contexts=contexts))
            answers[title] = read_answer(wire.read()[1]).results
    assert answers[b"READING1"] == {1: (0, wishes[0]), 3: (0, ct.transfer_syntax)}
    assert answers[b"READING2"] == {1: (0, mr.transfer_syntax), 3: (0, wishes[0])}
    assert answers[b"READING3"] == {1: (0, wishes[0]), 3: (0, wishes[0])}


# --- memory -----------------------------------------------------------------------------------------------------------


def test_requests_in_reception_share_a_budget(start_scp, site, audit):
    """Three associations of 8 MiB each at 16: the third is told to try again, and can when the others are through."""
    scp = start_scp(plain(), max_memory_mib=16)
    budget = scp._services.memory
    size = 8 << 20
    command = dimse.encode_command(
        {
            dimse.AFFECTED_SOP_CLASS_UID: CT,
            dimse.COMMAND_FIELD: dimse.C_STORE_RQ,
            dimse.MESSAGE_ID: 1,
            dimse.PRIORITY: 0,
            dimse.DATA_SET_TYPE: dimse.WITH_DATA_SET,
            dimse.AFFECTED_SOP_INSTANCE_UID: "1.2.3",
        }
    )
    piece = 1 << 17

    def begin(wire: raw.Wire) -> None:
        opened(wire, raw.context_rq(1, CT))
        wire.send(raw.data(1, 3, command))
        for _ in range(size // piece):
            wire.send(raw.data(1, 0, bytes(piece)))

    def finish(wire: raw.Wire) -> int:
        wire.send(raw.data(1, 2, b""))
        return final_status(wire)[0]

    port = scp.plain_port
    with raw.connected(port) as one, raw.connected(port) as two, raw.connected(port) as three:
        begin(one)
        begin(two)
        assert until(lambda: budget.taken == 2 * size)
        begin(three)
        assert finish(three) == 0xA700
        assert finish(one) != 0xA700
        assert until(lambda: budget.taken == size)
        two.send(raw.ABORT)
        assert until(lambda: budget.taken == 0)
        three.send(raw.data(1, 3, command))
        three.send(raw.data(1, 0, bytes(piece)))
        assert finish(three) != 0xA700
    assert until(lambda: budget.taken == 0)


def test_a_buffer_keeps_what_it_may():
    budget = MemoryBudget(100)
    first, second = BoundedBuffer(80, budget), BoundedBuffer(80, budget)
    assert first.write(bytes(90)) == 90
    assert (len(first.getvalue()), first.dropped, first.starved, budget.taken) == (80, 10, False, 80)
    second.write(bytes(20))
    second.write(bytes(1))
    assert (len(second.getvalue()), second.dropped, second.starved) == (20, 1, True)
    for _ in range(2):
        first.free()
    assert budget.taken == 20
    assert io.BytesIO(second.getvalue()).read() == bytes(20)
