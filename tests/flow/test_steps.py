"""Seal, mark, deliver: real files through real steps; what is held, what is tried again, what is never sent."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from gateway.audit import events
from gateway.config.models import PASS_STATEMENT, Mark, Route
from gateway.dicom.encoding.private import read_block
from gateway.errors import DicomError, PermanentError, TransientError
from gateway.mark import Marker
from gateway.protect import memory
from tests.support.dicom.samples import encode
from tests.support.flow import ROUTE, MemorySender, ct, decoded
from tests.support.killed import killed

IMPLICIT = "1.2.840.10008.1.2"
BOTH = ROUTE.model_copy(update={"destinations": ("outside", "second")})
PASS = Route(name="relay", called_ae="RELAY", destinations=("outside",), action="pass", pass_statement=PASS_STATEMENT)


def only(sender: MemorySender) -> tuple[str, bytes]:
    """UID and bytes of the one instance that was sent."""
    [(_, item, data)] = sender.received
    return item.sop_instance_uid, data


def test_an_instance_arrives_marked_and_its_original_comes_back(flow):
    ds = ct()
    instance_id = flow.receive(ds)
    flow.run()
    uid, data = only(flow.sender)
    sent = decoded(data)
    assert sent.SOPInstanceUID == uid != ds.SOPInstanceUID
    assert sent.SeriesInstanceUID != ds.SeriesInstanceUID
    assert read_block(sent) is not None
    assert sent.PixelData != ds.PixelData
    assert flow.row(instance_id).state == "delivered"
    assert flow.restored(uid) == flow.restored(ds.SOPInstanceUID) == encode(ds)
    assert (flow.spooled(), len(flow.derived())) == ([], 1)
    assert [line["instance_id"] for line in flow.audited(events.INSTANCE_MARKED)] == [instance_id]


def test_an_error_of_one_instance_is_not_that_of_its_neighbours(flow, monkeypatch):
    """An object that nobody thought of, whatever it raises, is tried again and held alone."""
    good, bad = flow.receive(ct(1)), flow.receive(ct(2, PatientID="bad"))
    third = flow.receive(ct(3))
    wanted, mark = bytes(ct(2).PixelData), Marker.mark

    def marking(marker, requests, *rest):
        if any(request.image.tobytes() == wanted for request in requests):
            raise OverflowError("a number that nobody thought of")
        return mark(marker, requests, *rest)

    monkeypatch.setattr(Marker, "mark", marking)
    flow.run()
    assert [flow.row(one).state for one in (good, third)] == ["delivered", "delivered"]
    assert (flow.row(bad).state, flow.row(bad).reason_code) == ("sealed", "unexpected")


@pytest.mark.parametrize("header", [{"RescaleSlope": "1e-300"}, {"WindowCenter": "1e308", "WindowWidth": "1e308"}])
def test_a_window_beyond_all_numbers_is_held_at_once(flow, header):
    instance_id = flow.receive(ct(**header))
    flow.run()
    assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("held", "bad-request")


def test_the_implicit_form_for_a_destination_that_takes_nothing_else_is_the_same_instance(flow):
    flow.receive(ct())
    flow.run()
    [(_, item, data)] = flow.sender.received
    with item.in_syntax(IMPLICIT) as file:
        recoded = decoded(file.read(), IMPLICIT)
    assert recoded.SOPInstanceUID == item.sop_instance_uid
    assert recoded.PixelData == decoded(data).PixelData
    assert item.marked
    with pytest.raises(DicomError) as caught:
        item.in_syntax("1.2.840.10008.1.2.4.50")
    assert caught.value.code == "no-encoder"


# -- held ----------------------------------------------------------------------------------------------------------


def _cut(data: bytes) -> bytes:
    return data[:-1000]


HELD = {
    "mammography": (ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2"), None),
    "quantitative": (ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.128"), None),
    "blocked-by-policy": (ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1"), None),
    "no-pixels": (ct(PixelData=None), None),
    "palette-colour": (ct(Modality="OT", PhotometricInterpretation="PALETTE COLOR"), None),
    "truncated": (ct(), _cut),
    "pixel-data-too-short": (ct(Rows=65), None),
    "pixel-data-too-long": (ct(Rows=63), None),
}


@pytest.mark.parametrize("code", HELD)
def test_what_cannot_be_marked_is_held_sealed_and_never_sent(flow, code):
    ds, change = HELD[code]
    data = change(encode(ds)) if change else encode(ds)
    instance_id = flow.receive(ds, data=data)
    flow.run()
    row = flow.row(instance_id)
    expected = {code, "no-profile"} if code == "palette-colour" else {code}
    assert (row.state, row.reason_code in expected) == ("held", True), row.reason_code
    assert row.reason
    assert flow.sender.received == []
    assert flow.restored(ds.SOPInstanceUID) == data
    assert flow.spooled() == [row.spool_file]  # a person may still release it
    [line] = flow.audited(events.INSTANCE_HELD)
    assert (line["instance_id"], line["reason"]) == (instance_id, row.reason_code)


def test_undecodable_pixels_are_held(flow):
    """Bytes that call themselves JPEG 2000 and are not."""
    ds = ct()
    data = encode(ds)
    pixels = data.index(b"\xe0\x7f\x10\x00")
    fragment = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" + b"\xfe\xff\x00\xe0\x10\x00\x00\x00" + b"no code stream!!"
    data = data[:pixels] + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + fragment + b"\xfe\xff\xdd\xe0\0\0\0\0"
    instance_id = flow.receive(ds, "1.2.840.10008.1.2.4.90", data=data)
    flow.run()
    assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("held", "undecodable-pixels")
    assert flow.restored(ds.SOPInstanceUID) == data
    assert flow.sender.received == []


def test_one_bad_instance_does_not_hold_its_batch(flow):
    good = [flow.receive(ct(n)) for n in (1, 2)]
    bad = flow.receive(ct(3, Rows=65))
    flow.seal()
    flow.mark(batch=8)
    assert [flow.row(i).state for i in good] == ["marked", "marked"]
    assert flow.row(bad).state == "held"


def test_a_route_that_holds(make_flow):
    flow = make_flow(ROUTE.model_copy(update={"action": "hold"}))
    instance_id = flow.receive(ct())
    flow.run()
    assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("held", "route-holds")
    assert flow.sender.received == []


def test_a_route_that_was_taken_out_of_the_configuration_holds(flow):
    instance_id = flow.receive(ct())
    other = flow.again(ROUTE.model_copy(update={"name": "other"}))
    other.run()
    assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("held", "route-gone")


def test_a_spool_file_that_is_not_what_was_received_is_held_and_its_bytes_are_nobodys_original(flow):
    first, second = flow.receive(ct(1)), flow.receive(ct(2))
    flow.store.moved({flow.row(first).spool_file: flow.row(second).spool_file})  # the right key, other bytes
    flow.run()
    assert flow.row(first).state == "held"
    assert flow.row(second).state == "delivered"
    assert len(flow.sender.received) == 1


# -- pass ----------------------------------------------------------------------------------------------------------


def test_a_pass_route_sends_the_received_bytes_and_says_so_in_the_audit(make_flow):
    flow = make_flow(PASS)
    ds = ct()
    instance_id = flow.receive(ds, IMPLICIT)
    flow.run()
    [(_, item, data)] = flow.sender.received
    assert data == encode(ds, IMPLICIT)
    assert (item.sop_instance_uid, item.transfer_syntax_uid) == (ds.SOPInstanceUID, IMPLICIT)
    assert item.in_syntax is None
    assert [line["instance_id"] for line in flow.audited(events.INSTANCE_PASSED)] == [instance_id]
    assert flow.spooled() == []


def test_what_cannot_be_audited_does_not_pass(make_flow, monkeypatch):
    flow = make_flow(PASS)
    instance_id = flow.receive(ct())

    def full(*_args, **_fields):
        raise OSError("disk full")

    monkeypatch.setattr(flow.context.audit, "write_all", full)
    flow.seal()
    flow.deliver()
    assert flow.row(instance_id).state == "received"
    assert flow.sender.received == []


def test_a_route_that_no_longer_passes_sends_nothing_as_it_is(make_flow):
    flow = make_flow(PASS)
    instance_id = flow.receive(ct())
    flow.seal()
    later = flow.again(ROUTE)
    later.deliver()
    assert flow.sender.received == []
    assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("held", "not-a-pass-route")
    flow.operator.release([instance_id])
    later.run()
    assert read_block(decoded(only(flow.sender)[1])) is not None


def test_a_released_pass_instance_is_marked_when_its_route_marks_now(make_flow):
    flow = make_flow(PASS)
    instance_id = flow.receive(ct())
    flow.seal()
    flow.operator.hold([instance_id])
    flow.operator.release([instance_id])
    flow.again(ROUTE).run()
    uid, data = only(flow.sender)
    assert uid != ct().SOPInstanceUID
    assert read_block(decoded(data)) is not None


# -- again ---------------------------------------------------------------------------------------------------------


def test_release_decides_and_marks_anew(flow):
    instance_id = flow.receive(ct())
    flow.seal()
    flow.mark()
    flow.operator.hold([instance_id])
    flow.operator.release([instance_id])
    assert flow.row(instance_id).state == "received"
    flow.deliver()
    assert flow.sender.received == []  # not before it was decided again
    flow.run()
    assert len(flow.sender.received) == 1
    assert flow.row(instance_id).state == "delivered"


def test_the_same_original_again_is_the_same_copy(flow):
    for _ in range(2):
        flow.receive(ct())
        flow.run()
    assert len(flow.sender.received) == 2
    assert [len(digests) for digests in flow.sender.byte_strings().values()] == [1]


def test_marked_anew_after_its_file_was_purged_it_is_the_same_bytes_under_the_same_uid(flow):
    flow.receive(ct())
    flow.run()
    for name in flow.derived():
        flow.context.derived.delete(name)
    flow.receive(ct())
    flow.run()
    assert len(flow.sender.received) == 2
    assert [len(digests) for digests in flow.sender.byte_strings().values()] == [1]


def test_a_corrected_original_is_a_new_generation(flow):
    """The archive corrected a name and sent again under the same UID."""
    uids = []
    for name in ("Doe^Jane", "Doe^Joan", "Doe^Joan"):
        flow.receive(ct(PatientName=name))
        flow.run()
        uids.append(flow.sender.received[-1][1].sop_instance_uid)
    assert uids[0] != uids[1] == uids[2]
    assert flow.restored(uids[0]) == encode(ct(PatientName="Doe^Jane"))
    assert flow.restored(uids[1]) == encode(ct(PatientName="Doe^Joan"))
    assert flow.restored(ct().SOPInstanceUID) == encode(ct(PatientName="Doe^Joan"))


def test_another_policy_is_a_new_generation(flow):
    flow.receive(ct())
    flow.run()
    other = flow.again(ROUTE.model_copy(update={"mark": Mark(steps=0, text="RESEARCH ONLY")}))
    other.receive(ct())
    other.run()
    assert len(flow.sender.byte_strings()) == 2
    for uid in flow.sender.byte_strings():
        assert flow.restored(uid) == encode(ct())


def test_where_it_goes_is_no_policy(flow):
    flow.receive(ct())
    flow.run()
    other = flow.again(ROUTE.model_copy(update={"destinations": ("second",)}))
    other.receive(ct())
    other.run()
    assert [name for name, _, _ in flow.sender.received] == ["outside", "second"]
    assert [len(digests) for digests in flow.sender.byte_strings().values()] == [1]


@pytest.fixture
def other_marks(monkeypatch):
    """From now on the mark comes out otherwise, as on another device or with another library."""
    original = Marker.mark

    def turn_on() -> None:
        def changed(self, requests, profile, progress=None):
            results = []
            for result in original(self, requests, profile, progress):
                more = np.where(result.strokes, 1, 0)
                results.append(replace(result, image=(result.image + more).astype(result.image.dtype),
                                       residual=result.residual + more))  # fmt: skip
            return results

        monkeypatch.setattr(Marker, "mark", changed)

    return turn_on


def test_other_bytes_after_a_purge_get_a_uid_of_their_own(flow, other_marks):
    flow.receive(ct())
    flow.run()
    for name in flow.derived():
        flow.context.derived.delete(name)
    other_marks()
    instance_id = flow.receive(ct())
    flow.run()
    strings = flow.sender.byte_strings()
    assert [len(digests) for digests in strings.values()] == [1, 1]  # two UIDs, one byte string each
    for uid in strings:
        assert flow.restored(uid) == encode(ct())
    assert flow.row(instance_id).state == "delivered"
    assert len(flow.derived()) == 1


def test_other_bytes_while_the_first_are_there_give_way_to_them(flow, other_marks, monkeypatch):
    """Two workers mark one record at once and disagree: the first digest that is fixed wins."""
    first = flow.receive(ct())
    second = flow.receive(ct())
    flow.seal()
    rows = flow.store.claim("sealed", 2, 60)
    jobs = [flow.steps._job(row, flow.context.protector.record(row.record)) for row in rows]
    made = [flow.steps._commit_derived(rows[0], jobs[0].record, flow.context.protector.mark([jobs[0]])[0])]
    other_marks()
    made += [flow.steps._commit_derived(rows[1], jobs[1].record, flow.context.protector.mark([jobs[1]])[0])]
    assert flow.store.settle(made) == [None, None]
    flow.deliver()
    assert {flow.row(first).state, flow.row(second).state} == {"delivered"}
    assert [len(digests) for digests in flow.sender.byte_strings().values()] == [1]
    assert len(flow.derived()) == 1


def test_a_batch_that_does_not_fit_into_memory_is_marked_in_parts(flow, monkeypatch):
    """The same marks; and what does not fit alone is held with the reason, before it is decoded."""
    for _ in range(3):
        flow.receive(ct())
    flow.seal()
    protector = flow.context.protector
    rows = flow.store.claim("sealed", 3, 60)
    jobs = [flow.steps._job(row, protector.record(row.record)) for row in rows]
    parts: list[int] = []
    honest = Marker.mark
    monkeypatch.setattr(Marker, "mark", lambda self, *given: parts.append(len(given[0])) or honest(self, *given))
    whole = protector.mark(jobs)
    header = protector.read_header(jobs[0].open, jobs[0].transfer_syntax_uid)
    one = memory.BASE + memory.working(header) + memory.kept(header, in_pieces=False)
    monkeypatch.setattr(protector, "_memory", one)
    for marked, before in zip(protector.mark(jobs), whole, strict=True):
        assert np.array_equal(marked.frames, before.frames)
    assert parts == [3, 1, 1, 1]
    monkeypatch.setattr(protector, "_memory", one - 1)
    assert [held.code for held in protector.mark(jobs)] == ["too-large-for-memory"] * 3
    assert parts == [3, 1, 1, 1]


def test_batches_of_one_and_of_eight_give_the_same_marks(make_flow):
    marked = []
    for batch in (1, 8):
        flow = make_flow()  # another site with the same keys
        for number in range(1, 9):
            flow.receive(ct(number))
        flow.seal()
        flow.mark(batch=batch)
        flow.deliver()
        marked.append({item.sop_instance_uid: decoded(data).PixelData for _, item, data in flow.sender.received})
    assert len(marked[0]) == 8
    assert marked[0] == marked[1]


@pytest.mark.parametrize(("device", "batches"), [("cpu", [3]), ("cuda", [2, 1])])
def test_a_processor_takes_images_of_all_shapes_together_and_a_gpu_those_of_one(flow, monkeypatch, device, batches):
    """No GPU is needed: the kinds are chosen by the device that is there, before anything is computed."""
    monkeypatch.setattr("gateway.protect.protector.resolve_device", lambda name: torch.device(device))
    lower = ct(2)
    lower.Rows -= 16
    lower.PixelData = lower.PixelData[: lower.Rows * lower.Columns * 2]
    for one in (ct(1), lower, ct(3)):
        flow.receive(one)
    flow.seal()
    assert [len(flow.store.claim_batch(8, 60)) for _ in batches] == batches


# -- deliver -------------------------------------------------------------------------------------------------------


def ready(flow) -> str:
    instance_id = flow.receive(ct())
    flow.seal()
    flow.mark()
    return instance_id


def test_a_transient_failure_is_tried_again_later(flow):
    instance_id = ready(flow)
    flow.sender.fail = lambda *_: TransientError("unreachable", "nobody listens")
    pairs = flow.store.claim_deliveries("outside", 1, 60)
    assert flow.steps.deliver(pairs, flow.sender, lambda kind, attempt: 3600.0) == 0
    after = flow.deliveries(instance_id)["outside"]
    assert (after.state, after.attempts, after.reason_code) == ("queued", 1, "unreachable")
    assert flow.store.claim_deliveries("outside", 1, 60) == []  # not yet
    assert flow.row(instance_id).state == "marked"


def test_an_instance_that_a_destination_aborts_on_waits_alone(flow):
    """Its error says that it is about this instance: the rest of the batch is not kept waiting for it."""
    first, second = ready(flow), ready(flow)

    def aborts(_name, item):
        error = TransientError("association-aborted", "the peer aborted the association")
        error.about_instance = item.instance_id == first
        return error if error.about_instance else None

    flow.sender.fail = aborts
    pairs = flow.store.claim_deliveries("outside", 2, 60)
    assert len(pairs) == 2
    assert flow.steps.deliver(pairs, flow.sender, lambda kind, attempt: 3600.0) == 2
    waiting = flow.deliveries(first)["outside"]
    assert (waiting.state, waiting.attempts, waiting.reason_code) == ("queued", 1, "association-aborted")
    assert flow.deliveries(second)["outside"].state == "sent"


def test_a_transient_failure_that_lasts_is_held(flow):
    instance_id = ready(flow)
    flow.sender.fail = lambda *_: TransientError("unreachable", "nobody listens")
    flow.retry = lambda kind, attempt: 0.0
    flow.deliver()
    assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("held", "unreachable")


def test_a_destination_that_refuses_holds_and_release_sends_to_it(flow):
    instance_id = ready(flow)
    flow.sender.fail = lambda *_: PermanentError("context-refused", "no presentation context")
    flow.deliver()
    assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("held", "context-refused")
    assert [line["destination"] for line in flow.audited(events.INSTANCE_HELD)] == ["outside"]
    assert flow.spooled() != []
    flow.sender.fail = lambda *_: None
    flow.operator.release([instance_id])
    flow.run()
    assert flow.row(instance_id).state == "delivered"
    assert [len(digests) for digests in flow.sender.byte_strings().values()] == [1]


def test_one_destination_down_does_not_keep_the_other_waiting(make_flow):
    flow = make_flow(BOTH)
    instance_id = flow.receive(ct())
    flow.sender.fail = lambda name, item: TransientError("unreachable", "") if name == "second" else None
    flow.run()
    assert [name for name, _, _ in flow.sender.received] == ["outside"]
    assert {n: d.state for n, d in flow.deliveries(instance_id).items()} == {"outside": "sent", "second": "queued"}
    assert flow.row(instance_id).state == "marked"
    assert flow.spooled() != []


def test_a_warning_is_delivered_and_remembered(flow):
    instance_id = ready(flow)
    flow.sender.status = 0xB000
    flow.deliver()
    assert flow.row(instance_id).state == "delivered"
    assert flow.deliveries(instance_id)["outside"].dimse_status == 0xB000


def test_an_unexpected_fault_is_tried_again_and_then_held_without_its_text(flow):
    instance_id = ready(flow)
    flow.sender.fail = lambda *_: ValueError("Doe^Jane")
    flow.deliver()
    after = flow.deliveries(instance_id)["outside"]
    assert (after.state, after.attempts, after.reason_code) == ("queued", 1, "unexpected")
    assert "Doe" not in after.reason
    for attempt in range(2, 6):
        with flow.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE delivery SET next_attempt_at = 0")
        flow.deliver()
        assert flow.deliveries(instance_id)["outside"].state == ("queued" if attempt < 5 else "held")
    assert "Doe" not in flow.row(instance_id).reason


@pytest.mark.parametrize(
    "error", [None, TransientError("unreachable", ""), PermanentError("context-refused", ""), ValueError()]
)
def test_an_instance_held_while_it_is_sent_stays_held_and_the_batch_goes_on(flow, error):
    first, second = flow.receive(ct(1)), flow.receive(ct(2))
    flow.seal()
    flow.mark()

    def held_meanwhile(_destination, item):
        if item.instance_id == first:
            flow.operator.hold([first])
            return error
        return None

    flow.sender.fail = held_meanwhile
    flow.deliver()
    assert flow.row(first).state == "held"
    assert flow.row(second).state == "delivered"


def test_a_derived_file_that_the_record_does_not_name_is_not_sent(flow):
    instance_id = ready(flow)
    [name] = flow.derived()
    writer = flow.context.derived.create("another")
    with flow.context.derived.open(name) as file:
        writer.write(file.read())
    writer.publish()
    with flow.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE instance SET derived_file = 'another'")
    flow.deliver()
    assert flow.sender.received == []
    assert (flow.row(instance_id).state, flow.row(instance_id).reason_code) == ("held", "derived-not-fixed")


def test_replay_sends_the_same_bytes_again(flow):
    instance_id = flow.receive(ct())
    flow.run()
    flow.operator.replay([instance_id])
    flow.deliver()
    assert len(flow.sender.received) == 2
    assert [len(digests) for digests in flow.sender.byte_strings().values()] == [1]


# -- killed ----------------------------------------------------------------------------------------------------------


POINTS = {
    "record made": ("protector._records", "create", 1),
    "payload put": ("protector._payloads", "put", 1),
    "row sealed": ("store", "settle", 1),
    "digest fixed": ("protector._records", "fix_derived", 1),
    "row marked": ("store", "settle", 2),
    "row sent": ("store", "settle_deliveries", 1),
    "spool purged": ("spool", "delete", 1),
}
"""Where, and at which of its calls."""


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_point_the_next_process_finishes_the_work(flow, monkeypatch, point, when):
    """The same in one process, fast; `tests/crash` does it with real processes, SIGKILL and real peers."""
    path, name, call = POINTS[point]
    owner = flow.context
    for part in path.split("."):
        owner = getattr(owner, part)
    instance_id = flow.receive(ct())
    with killed(monkeypatch, owner, name, when, call):
        flow.run()
    after = flow.again()
    after.run()
    after.retainer.once()
    row = flow.row(instance_id)
    assert (row.state, row.spool_file) == ("delivered", None)
    assert [len(digests) for digests in flow.sender.byte_strings().values()] == [1]
    assert flow.spooled() == []
    digest = hashlib.sha256(flow.restored(ct().SOPInstanceUID)).hexdigest()
    assert digest == row.sha256 == hashlib.sha256(encode(ct())).hexdigest()
