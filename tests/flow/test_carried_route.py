"""A route whose copies carry their originals: the vault keeps no payload, and nothing is lost on the way for that."""

from __future__ import annotations

import io

import pytest
from sqlalchemy import select

from gateway.database import VaultRow, reading
from gateway.dicom.encoding.private import read_block
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.errors import NotFoundError
from gateway.keys.keyring import OpeningKeys
from gateway.mark import Marker
from gateway.restore import CarriedOriginal, CopyRestorer, Original, Restorer
from gateway.service import places
from gateway.vault import Index, Scope
from gateway.vault.verify import verify_vault
from tests.support.dicom.samples import encode
from tests.support.flow import ROUTE, Flow, ct, decoded

CARRIED = ROUTE.model_copy(update={"restoration": "carried"})
BOTH = ROUTE.model_copy(update={"restoration": "both"})


@pytest.fixture
def flow(make_flow) -> Flow:
    """A flow with one route, whose copies carry their originals."""
    return make_flow(CARRIED)


def carried(flow: Flow, data: bytes) -> bytes:
    """The original out of the copy alone."""
    with CopyRestorer(OpeningKeys.load(flow.config.keys)).by_copy(io.BytesIO(data), EXPLICIT_LITTLE) as original:
        original.verify()
        return b"".join(original.stream())


def restorer(flow: Flow) -> Restorer:
    keys = OpeningKeys.load(flow.config.keys)
    return Restorer(flow.engine, places(flow.config).vault, keys, flow.config.site.name)


def payloads(flow: Flow) -> list[str]:
    return [path.name for path in places(flow.config).vault.iterdir()]


def sent(flow: Flow) -> list[bytes]:
    return [data for _, _, data in flow.sender.received]


def test_the_copy_alone_gives_the_original_and_the_gateway_keeps_none(flow):
    instance_id = flow.receive(ct())
    flow.run()
    [data] = sent(flow)
    assert carried(flow, data) == encode(ct())
    assert flow.row(instance_id).state == "delivered"
    assert (flow.spooled(), payloads(flow)) == ([], [])
    assert encode(ct())[200:600] not in data


def test_until_the_last_delivery_the_original_lies_in_the_spool(make_flow):
    flow = make_flow(CARRIED.model_copy(update={"destinations": ("outside", "second")}))
    flow.receive(ct())
    flow.seal()
    flow.mark()
    flow.deliver("outside")
    [name] = flow.spooled()
    with flow.context.spool.open(name) as file:
        assert file.read() == encode(ct())
    flow.deliver("second")
    assert flow.spooled() == []


def test_the_record_stays_and_says_where_the_original_is(flow):
    flow.receive(ct())
    flow.run()
    uid = decoded(sent(flow)[0]).SOPInstanceUID
    for asked in (uid, ct().SOPInstanceUID):
        with pytest.raises(NotFoundError) as caught:
            restorer(flow).by_uid(asked)
        assert (caught.value.code, "marked copy" in caught.value.message) == ("carried", True)
    query = ct()
    query.PatientID = ""
    [found] = Index(flow.engine).find("STUDY", "IMAGE", query, Scope(), 10)
    assert found.SOPInstanceUID == ct().SOPInstanceUID
    [verified] = verify_vault(flow.config)
    assert (verified.ok, verified.reason_code) == (True, "carried")


def test_with_both_the_vault_is_asked_first_and_the_copy_is_enough(make_flow):
    flow = make_flow(BOTH)
    flow.receive(ct())
    flow.run()
    [data] = sent(flow)
    assert carried(flow, data) == flow.restored(ct().SOPInstanceUID) == encode(ct())
    assert isinstance(restorer(flow).by_copy(io.BytesIO(data), EXPLICIT_LITTLE), Original)
    for name in payloads(flow):
        (places(flow.config).vault / name).unlink()
    assert isinstance(restorer(flow).by_copy(io.BytesIO(data), EXPLICIT_LITTLE), CarriedOriginal)


def test_the_default_carries_nothing(make_flow):
    flow = make_flow()
    flow.receive(ct())
    flow.run()
    block = read_block(decoded(sent(flow)[0]))
    assert (block.sealed_key, block.payload) == (None, None)
    assert len(payloads(flow)) == 1


def test_one_uid_never_names_two_byte_strings(flow):
    """Sealing afresh gives other bytes each time: the first digest holds, and after a purge a new generation comes."""
    first = flow.receive(ct())
    again = flow.receive(ct())
    flow.run()
    assert {flow.row(first).derived_file} == {flow.row(again).derived_file}
    for name in flow.derived():
        flow.context.derived.delete(name)
    flow.receive(ct())
    flow.run()
    strings = flow.sender.byte_strings()
    assert [len(digests) for digests in strings.values()] == [1, 1]
    assert [carried(flow, data) for data in sent(flow)] == [encode(ct())] * 3
    assert payloads(flow) == []


@pytest.mark.parametrize("killed_at", ["fix_derived", "settle"])
def test_killed_between_file_and_row(flow, monkeypatch, killed_at):
    instance_id = flow.receive(ct())
    flow.seal()

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    target = flow.context.protector if killed_at == "fix_derived" else flow.store
    monkeypatch.setattr(target, killed_at, kill)
    with pytest.raises(Killed):
        flow.mark()
    monkeypatch.undo()
    with flow.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE instance SET lease_until = 0")
    flow.again().run()
    assert flow.row(instance_id).state == "delivered"
    assert carried(flow, sent(flow)[0]) == encode(ct())
    assert [len(digests) for digests in flow.sender.byte_strings().values()] == [1]


def test_two_workers_that_seal_at_once_agree(flow):
    first, second = flow.receive(ct()), flow.receive(ct())
    flow.seal()
    rows = flow.store.claim("sealed", 2, 60)
    jobs = [flow.steps._job(row, flow.context.protector.record(row.record)) for row in rows]
    marked = flow.context.protector.mark(jobs)
    assert marked[0].derive(jobs[0].record)[1] != marked[1].derive(jobs[1].record)[1]
    for row, job, one in zip(rows, jobs, marked, strict=True):
        assert flow.store.settle([flow.steps._commit_derived(row, job.record, one)]) == [None]
    flow.deliver()
    assert {flow.row(first).state, flow.row(second).state} == {"delivered"}
    assert [len(digests) for digests in flow.sender.byte_strings().values()] == [1]


def test_what_is_held_by_policy_is_sealed_in_the_vault(flow):
    ds = ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2")
    instance_id = flow.receive(ds)
    flow.run()
    assert flow.row(instance_id).state == "held"
    assert flow.restored(ds.SOPInstanceUID) == encode(ds)


def test_what_cannot_be_marked_stays_in_the_spool(flow, monkeypatch):
    instance_id = flow.receive(ct())
    monkeypatch.setattr(Marker, "mark", lambda self, requests, profile, progress=None: 1 / 0)
    for _ in range(6):
        flow.mark()
        flow.seal()
        with flow.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE instance SET next_attempt_at = 0")
    assert flow.row(instance_id).state == "held"
    assert flow.spooled() == [flow.row(instance_id).spool_file]


@pytest.mark.parametrize(("before", "after"), [(CARRIED, ROUTE), (ROUTE, CARRIED), (BOTH, ROUTE)])
def test_a_setting_changed_between_sealing_and_marking_loses_nothing(make_flow, before, after):
    flow = make_flow(before)
    flow.receive(ct())
    flow.seal()
    later = flow.again(after)
    later.run()
    [data] = sent(flow)
    with restorer(flow).by_copy(io.BytesIO(data), EXPLICIT_LITTLE) as original:
        original.verify()
        assert b"".join(original.stream()) == encode(ct())


def test_routes_with_other_settings_have_records_of_their_own(flow):
    flow.receive(ct())
    flow.run()
    other = flow.again(ROUTE)
    other.receive(ct())
    other.run()
    with reading(flow.engine) as session:
        files = session.scalars(select(VaultRow.payload_file)).all()
    assert sorted(file == "carried" for file in files) == [False, True]
    assert flow.restored(ct().SOPInstanceUID) == encode(ct())
    # the same bytes lie in the vault now: the carried record's UIDs lead there as well
    assert flow.restored(decoded(sent(flow)[0]).SOPInstanceUID) == encode(ct())


def test_a_carried_record_has_a_retention_too(flow):
    flow.receive(ct())
    flow.run()
    [data] = sent(flow)
    assert flow.context.protector.expire(4e9, (), 10, lambda locator: None) == 1
    assert list(Index(flow.engine).find("STUDY", "IMAGE", ct(), Scope(), 10)) == []
    assert carried(flow, data) == encode(ct())  # what has left cannot be recalled


@pytest.mark.parametrize("restoration", ["escrow", "carried", "both"])
def test_with_visible_text_the_original_comes_back_bit_exact(make_flow, restoration):
    """From the vault, and from the copy alone."""
    flow = make_flow(ROUTE.model_copy(update={"restoration": restoration, "visible_text": True}))
    flow.receive(ct())
    flow.run()
    [data] = sent(flow)
    assert decoded(data).overlay_array(0x6000).any()
    if restoration != "escrow":
        assert carried(flow, data) == encode(ct())
    if restoration != "carried":
        assert flow.restored(decoded(data).SOPInstanceUID) == encode(ct())


def test_visible_text_is_part_of_the_policy_and_absent_by_default(make_flow):
    """Another decision, another record, another UID: one UID never names two byte strings."""
    flow = make_flow(ROUTE)
    flow.receive(ct())
    flow.run()
    later = flow.again(ROUTE.model_copy(update={"visible_text": True}))
    later.receive(ct())
    later.run()
    plain, worded = map(decoded, sent(flow))
    assert (0x6000, 0x3000) not in plain and (0x6000, 0x3000) in worded
    assert plain.SOPInstanceUID != worded.SOPInstanceUID
