"""What may leave is looked at when it is about to: route, destination, trust, and the digest of the bytes."""

from __future__ import annotations

import io
import time

import pytest

from gateway.audit import events
from gateway.config import TRUST_STATEMENT
from gateway.config.models import PASS_STATEMENT, Config, Destination, Route, Rule, Worker
from gateway.database import DeliveryRow, InstanceRow, transaction
from gateway.errors import GatewayError, HoldError, TransientError
from gateway.flow import verified as verified_module
from gateway.flow.verified import verified
from gateway.flow.worker import FlowWorker
from gateway.keys.spoolfile import SpoolCipher
from gateway.service import places
from tests.support.dicom.samples import encode
from tests.support.flow import ROUTE, Flow, ct

START, DAY_S = 1_900_000_000.0, 86_400.0
PASS = Route(
    name="relay", called_ae="RELAY", destinations=("outside", "second"), action="pass", pass_statement=PASS_STATEMENT
)
BOTH = ROUTE.model_copy(update={"destinations": ("outside", "second")})


def renamed(config: Config, old: str, new: str) -> tuple[Destination, ...]:
    return tuple(d.model_copy(update={"name": new}) if d.name == old else d for d in config.destinations)


def outcome(flow: Flow, instance_id: str) -> tuple[str, str | None]:
    row = flow.row(instance_id)
    return row.state, row.reason_code


def held_codes(flow: Flow) -> list[tuple[str, str]]:
    return [(line.get("destination"), line["reason"]) for line in flow.audited(events.INSTANCE_HELD)]


def queued(make_flow, route: Route, count: int = 1) -> tuple[Flow, list[str]]:
    """Instances that wait for their delivery; trusted are all destinations, in case it is a route that passes."""
    flow = make_flow()
    trusted = tuple(d.model_copy(update={"trust_statement": TRUST_STATEMENT}) for d in flow.config.destinations)
    flow = flow.again(route, destinations=trusted)
    ids = [flow.receive(ct(number)) for number in range(1, count + 1)]
    flow.seal()
    flow.mark()
    assert {flow.row(each).state for each in ids} == {"marked"}
    return flow, ids


# -- route and destination -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [PASS, BOTH], ids=["originals", "copies"])
def test_a_destination_that_was_taken_out_of_its_route_gets_nothing_of_the_backlog(make_flow, route):
    flow, ids = queued(make_flow, route, 2)
    less = flow.again(route.model_copy(update={"destinations": ("outside",)}))
    less.deliver("second")
    assert flow.sender.received == []
    assert {outcome(flow, each) for each in ids} == {("held", "destination-not-named")}
    assert held_codes(flow) == [("second", "destination-not-named")] * 2
    less.deliver()
    assert [name for name, _, _ in flow.sender.received] == ["outside"] * 2  # what is named still gets its own


@pytest.mark.parametrize("route", [PASS, BOTH], ids=["originals", "copies"])
def test_also_when_the_trust_was_withdrawn_and_the_worker_started_anew(make_flow, route):
    flow, [one] = queued(make_flow, route)
    distrusted = tuple(
        d.model_copy(update={"trust_statement": ""}) if d.name == "second" else d for d in flow.config.destinations
    )
    later = flow.again(route.model_copy(update={"destinations": ("outside",)}), destinations=distrusted)
    assert later.steps.hold_stranded() == 1
    later.deliver("second")
    assert later.steps.hold_stranded() == 0
    assert flow.sender.received == []
    assert flow.deliveries(one)["second"].state == "held"


@pytest.mark.parametrize("route", [PASS, BOTH], ids=["originals", "copies"])
def test_a_route_that_is_gone_delivers_nothing(make_flow, route):
    flow, [one] = queued(make_flow, route)
    other = flow.again(route.model_copy(update={"name": "another", "called_ae": "ANOTHER"}))
    other.deliver()
    assert flow.sender.received == []
    assert outcome(flow, one) == ("held", "route-gone")


def test_a_route_that_holds_now_delivers_nothing(make_flow):
    flow, [one] = queued(make_flow, BOTH)
    flow.again(BOTH.model_copy(update={"action": "hold"})).deliver()
    assert (flow.sender.received, outcome(flow, one)) == ([], ("held", "route-holds"))


def test_a_destination_with_another_name_strands_nothing_silently_and_release_sends_to_it(make_flow):
    """Nobody asks for the deliveries of a name that is gone: they are found at the start."""
    flow, [one, other] = queued(make_flow, BOTH, 2)
    flow.deliver("outside")
    later = flow.again(
        BOTH.model_copy(update={"destinations": ("outside", "third")}),
        destinations=renamed(flow.config, "second", "third"),
    )
    assert later.steps.hold_stranded() == 2
    assert outcome(flow, one) == outcome(flow, other) == ("held", "destination-not-named")
    assert "release" in flow.row(one).reason
    assert held_codes(flow) == [("second", "destination-not-named")] * 2
    later.operator.release([one, other])
    for step in (later.seal, later.mark, later.deliver, lambda: later.deliver("third")):
        step()
    assert [name for name, _, _ in flow.sender.received] == ["outside"] * 2 + ["third"] * 2
    assert {len(digests) for digests in flow.sender.byte_strings().values()} == {1}
    assert outcome(flow, one) == outcome(flow, other) == ("delivered", None)


def test_what_another_worker_is_sending_is_not_stranded(make_flow):
    flow, _ids = queued(make_flow, BOTH)
    less = flow.again(ROUTE)
    [_claimed] = flow.store.claim_deliveries("second", 1, 60)
    assert less.steps.hold_stranded() == 0
    with transaction(flow.engine) as session:
        session.query(DeliveryRow).filter_by(destination="second").update({"lease_until": 0.0})
    assert less.steps.hold_stranded() == 1


def test_what_another_worker_queues_with_an_older_configuration_is_not_stranded_silently(make_flow, monkeypatch):
    """No loop of the new worker looks at a destination that is not configured: it has to look for such by itself."""
    monkeypatch.setattr("gateway.flow.worker.STRANDED_S", 0.05)
    flow, [one] = queued(make_flow, BOTH)
    [_claimed] = flow.store.claim_deliveries("second", 1, 60)  # so that the look at the start passes it over
    less = flow.again(ROUTE)
    settings, first = Worker(poll_s=10), flow.config.destinations[:1]
    worker = FlowWorker(settings, first, less.store, less.steps, less.sender, less.retainer)
    worker.start()
    try:
        flow.store.end_leases()
        until = time.monotonic() + 50
        while flow.deliveries(one)["second"].state != "held" and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        worker.stop()
    assert flow.deliveries(one)["second"].reason_code == "destination-not-named"


def test_replay_sends_to_what_the_route_names_now_and_says_when_that_is_nothing(make_flow):
    flow, [one] = queued(make_flow, BOTH)
    for name in BOTH.destinations:
        flow.deliver(name)
    less = flow.again(ROUTE)
    assert less.operator.replay([one]) == 1
    less.deliver("second")
    less.deliver()
    assert [name for name, _, _ in flow.sender.received] == ["outside", "second", "outside"]
    assert outcome(flow, one) == ("delivered", None)
    nowhere = flow.again(ROUTE.model_copy(update={"destinations": ("third",)}))
    with pytest.raises(GatewayError) as caught:
        nowhere.operator.replay([one])
    assert caught.value.code == "destination-not-named"
    gone = flow.again(ROUTE.model_copy(update={"name": "another"}))
    with pytest.raises(GatewayError) as caught:
        gone.operator.replay([one])
    assert caught.value.code == "route-gone"


def test_what_was_decided_before_a_release_does_not_leave_beside_it(make_flow):
    """Released for another destination's sake, then held by the policy of today: the old copy stays here too."""
    flow, [one] = queued(make_flow, BOTH)
    flow.sender.fail = lambda name, item: HoldError("refused", "") if name == "second" else TransientError("down", "")
    flow.retry = lambda kind, attempt: 0.001
    flow.deliver("second")
    flow.deliver()
    later = flow.again(BOTH.model_copy(update={"rules": (Rule(modality="CT", action="hold"),)}))
    later.operator.release([one])
    later.seal()
    assert outcome(flow, one) == ("held", "rule-holds")
    flow.sender.fail = lambda *_: None
    later.deliver()
    assert flow.sender.received == []


# -- digests -------------------------------------------------------------------------------------------------------


def put(spool, name: str, data: bytes) -> None:
    writer = spool.create(name)
    writer.write(data)
    writer.publish()


def test_other_bytes_under_the_name_of_a_marked_copy_do_not_leave(make_flow):
    """Under the right key and name: whoever could write them still has no signature."""
    flow, [one] = queued(make_flow, ROUTE)
    name, size = flow.row(one).derived_file, flow.row(one).derived_size
    unmarked = encode(ct())
    put(flow.context.derived, name, unmarked + bytes(size - len(unmarked)))
    flow.deliver()
    assert (flow.sender.received, outcome(flow, one)) == ([], ("held", "not-ours"))
    assert held_codes(flow) == [("outside", "not-ours")]
    flow.operator.release([one])
    flow.run()
    assert outcome(flow, one) == ("delivered", None)  # made anew from the received bytes
    assert {len(digests) for digests in flow.sender.byte_strings().values()} == {1}
    [(_, item, data)] = flow.sender.received
    assert item.marked and data != unmarked


def test_a_file_and_a_row_that_calls_itself_a_report_do_not_leave(make_flow):
    flow, [one] = queued(make_flow, ROUTE)
    unmarked = encode(ct())
    put(flow.context.derived, "report-0", unmarked)
    with transaction(flow.engine) as session:
        changes = {"action": "report", "derived_file": "report-0", "derived_size": len(unmarked)}
        session.query(InstanceRow).filter_by(id=one).update(changes)
    flow.deliver()
    assert (flow.sender.received, outcome(flow, one)) == ([], ("held", "not-ours"))


def test_a_file_and_a_row_under_the_record_of_another_copy_do_not_leave(make_flow):
    flow, [one, other] = queued(make_flow, ROUTE, 2)
    record = flow.context.protector.record(flow.row(other).record)
    name = f"{record.locator}-{record.derived_sha256[:16]}"
    put(flow.context.derived, name, encode(ct()))
    with transaction(flow.engine) as session:
        changes = {"record": record.locator, "derived_file": name, "derived_size": len(encode(ct()))}
        session.query(InstanceRow).filter_by(id=one).update(changes)
    flow.deliver()
    assert {outcome(flow, one), outcome(flow, other)} == {("held", "not-ours")}
    assert flow.sender.received == []


def test_an_original_that_passes_is_the_bytes_that_were_received(make_flow):
    flow, [one] = queued(make_flow, PASS)
    put(flow.context.spool, "other", encode(ct(PatientName="Other")))
    flow.store.moved({flow.row(one).spool_file: "other"})
    flow.deliver()
    assert (flow.sender.received, outcome(flow, one)) == ([], ("held", "not-ours"))


def test_a_file_that_is_gone_is_held_with_what_to_do(make_flow):
    flow, [one] = queued(make_flow, ROUTE)
    flow.context.derived.delete(flow.row(one).derived_file)
    flow.deliver()
    assert outcome(flow, one) == ("held", "derived-purged")
    flow.operator.release([one])
    flow.run()
    assert outcome(flow, one) == ("delivered", None)


def test_the_receiving_role_can_neither_read_nor_make_derived_files(make_flow):
    flow, [one] = queued(make_flow, ROUTE)
    name = flow.row(one).derived_file
    spool_key = bytes.fromhex(flow.config.keys.spool_key.resolve().decode().strip())
    with pytest.raises(GatewayError) as caught, (places(flow.config).derived / name).open("rb") as file:
        SpoolCipher(spool_key).reader(file, name)
    assert caught.value.code == "wrong-key"


def test_derived_files_of_the_version_before_are_read_and_leave(make_flow):
    """Written under the key of the spool; what they hold is what the record says."""
    flow, [one] = queued(make_flow, ROUTE)
    name = flow.row(one).derived_file
    with flow.context.derived.open(name) as file:
        data = file.read()
    spool_key = bytes.fromhex(flow.config.keys.spool_key.resolve().decode().strip())
    with (places(flow.config).derived / name).open("wb") as file:
        writer = SpoolCipher(spool_key).writer(file, name)
        writer.write(data)
        writer.close()
    flow.deliver()
    assert outcome(flow, one) == ("delivered", None)
    assert flow.sender.received[0][2] == data


# -- bytes that are checked twice ----------------------------------------------------------------------------------

DATA = bytes(range(256)) * 64


class Changing(io.BytesIO):
    """A file whose last byte is another when it is read for the second time."""

    def seek(self, offset: int, whence: int = 0) -> int:
        self.getbuffer()[-1] ^= 1
        return super().seek(offset, whence)


@pytest.mark.parametrize("in_memory", [1 << 20, 100])
@pytest.mark.parametrize("piece", [-1, 1000, len(DATA)])
def test_what_is_verified_is_handed_out_whole(monkeypatch, in_memory, piece):
    monkeypatch.setattr(verified_module, "IN_MEMORY", in_memory)
    digest = verified_module.hashlib.sha256(DATA).hexdigest()
    with verified(lambda: io.BytesIO(DATA), digest, len(DATA), "a file")() as file:
        got = b"".join(iter(lambda: file.read(piece), b""))
    assert got == DATA


@pytest.mark.parametrize(("sha256", "size"), [("0" * 64, None), (None, len(DATA) - 1)])
def test_another_digest_or_size_opens_nothing(sha256, size):
    digest = sha256 or verified_module.hashlib.sha256(DATA).hexdigest()
    with pytest.raises(HoldError) as caught:
        verified(lambda: io.BytesIO(DATA), digest, size, "a file")()
    assert caught.value.code == "not-ours"


class Shorter(io.BytesIO):
    """A file that ends before its length says."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(offset, whence) + (10 if whence == io.SEEK_END else 0)


def test_nothing_is_put_in_place_of_what_a_file_has_lost():
    digest = verified_module.hashlib.sha256(DATA).hexdigest()
    with pytest.raises(HoldError, match="digest"):
        verified(lambda: Shorter(DATA), digest, len(DATA), "a file")()


def test_a_verified_file_is_read_from_anywhere_in_it():
    digest = verified_module.hashlib.sha256(DATA).hexdigest()
    with verified(lambda: io.BytesIO(DATA), digest, len(DATA), "a file")() as file:
        file.seek(-7, io.SEEK_END)
        assert file.read() == DATA[-7:] and file.read() == b""
        with pytest.raises(ValueError, match="negative seek"):
            file.seek(-1)
        file.seek(3)
        assert file.read(5) == DATA[3:8]


def test_a_file_that_is_changed_while_it_is_sent_loses_its_end(monkeypatch):
    monkeypatch.setattr(verified_module, "IN_MEMORY", 100)
    digest = verified_module.hashlib.sha256(DATA).hexdigest()
    got = b""
    with pytest.raises(HoldError), verified(lambda: Changing(DATA), digest, len(DATA), "a file")() as file:
        while data := file.read(1000):
            got += data
    assert len(got) < len(DATA)


# -- a destination's certificate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["certificate-not-trusted", "tls-failed"])
def test_a_certificate_that_fails_is_tried_for_a_day_and_then_held(make_flow, monkeypatch, code):
    """Whatever `retry_attempts` says: somebody has to mend it, and a day is what that takes."""
    flow, [one] = queued(make_flow, ROUTE)
    flow.sender.fail = lambda *_: TransientError(code, "its certificate ended")
    flow.retry = lambda kind, attempt: 60.0 if attempt < 3 else 0.0
    now, tries = [START], 0
    monkeypatch.setattr("gateway.flow.deliveries.time.time", lambda: now[0])
    while flow.row(one).state == "marked":
        flow.deliver()
        tries += 1
        delivery = flow.deliveries(one)["outside"]
        now[0] = max(now[0], delivery.next_attempt_at)
        assert tries < 1000
    assert outcome(flow, one) == ("held", code)
    assert DAY_S <= now[0] - START < DAY_S + 600
    assert tries > 10
    assert held_codes(flow) == [("outside", code)]
    assert flow.sender.received == []


def test_the_day_begins_anew_when_the_failure_is_another(make_flow):
    flow, [one] = queued(make_flow, ROUTE)
    fails = iter(["certificate-expired", "unreachable", "certificate-expired"])
    flow.sender.fail = lambda *_: TransientError(next(fails), "")
    flow.retry = lambda kind, attempt: 0.001
    since = []
    for _ in range(3):
        with transaction(flow.engine) as session:
            session.query(DeliveryRow).update({"next_attempt_at": 0.0})
        flow.deliver()
        since.append(flow.deliveries(one)["outside"].failing_since)
    assert since[0] is not None and since[1] is None and since[2] > since[0]


def test_tries_about_a_certificate_are_none_of_those_about_an_answer(make_flow):
    """Whoever renews a certificate starts the destination anew: for a moment nobody listens there."""
    flow, [one] = queued(make_flow, ROUTE)
    codes = iter([*["certificate-expired"] * 20, "unreachable", "unreachable", "unreachable"])
    flow.sender.fail = lambda *_: TransientError(next(codes), "")
    flow.retry = lambda kind, attempt: 0.001 if attempt < 3 else 0.0
    seen = []
    for _ in range(23):
        with transaction(flow.engine) as session:
            session.query(DeliveryRow).update({"next_attempt_at": 0.0})
        flow.deliver()
        seen.append(flow.row(one).state)
    assert seen == ["marked"] * 22 + ["held"]


def test_a_certificate_that_is_mended_lets_everything_go(make_flow):
    flow, [one] = queued(make_flow, ROUTE)
    flow.sender.fail = lambda *_: TransientError("certificate-name", "")
    flow.deliver()
    flow.sender.fail = lambda *_: None
    with transaction(flow.engine) as session:
        session.query(DeliveryRow).update({"next_attempt_at": 0.0})
    flow.deliver()
    assert outcome(flow, one) == ("delivered", None)
    assert flow.deliveries(one)["outside"].failing_since is None
