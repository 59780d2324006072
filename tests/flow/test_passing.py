"""Unmarked originals: to destinations named trusted only, in an emergency until its end, and each told of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from gateway.audit import AuditLog, events
from gateway.config import PASS_STATEMENT, BreakGlass
from gateway.config.models import Route, Rule
from gateway.database import OverrideRow, reading
from gateway.errors import CapacityError
from gateway.flow.passing import Passing
from gateway.protect import policy
from tests.support.dicom.samples import encode
from tests.support.flow import ROUTE, Flow, ct

PASS = Route(name="relay", called_ae="RELAY", destinations=("outside",), action="pass", pass_statement=PASS_STATEMENT)


def emergency(seconds: float = 3600, route: Route = PASS) -> Route:
    """A route that passes for so long from now."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    return route.model_copy(update={"break_glass": BreakGlass(until=until, reason="the ward's server failed")})


def told(flow: Flow) -> list[tuple[str, str, str]]:
    """Beginnings and ends in the order of the audit: DICOM event type, route, reason."""
    lines = [*flow.audited(events.OVERRIDE_STARTED), *flow.audited(events.OVERRIDE_STOPPED)]
    return [(line["event_type"], line["route"], line["reason"]) for line in sorted(lines, key=lambda one: one["time"])]


def outcome(flow: Flow, instance_id: str) -> tuple[str, str | None]:
    row = flow.row(instance_id)
    return row.state, row.reason_code


def passing_of(flow: Flow) -> Passing:
    return flow.context.passing


# -- trusted -------------------------------------------------------------------------------------------------------


def test_an_original_for_a_destination_that_is_not_trusted_is_held_and_sealed(make_flow):
    """The configuration does not let it come so far; the folder of a file command does."""
    flow = make_flow(PASS).again(PASS.model_copy(update={"destinations": ("outside", "second")}))
    instance_id = flow.receive(ct())
    flow.run()
    assert outcome(flow, instance_id) == ("held", "destination-not-trusted")
    assert flow.sender.received == []
    assert flow.restored(ct().SOPInstanceUID) == encode(ct())


def test_trust_that_is_taken_back_before_delivery_holds(make_flow):
    flow = make_flow(PASS)
    instance_id = flow.receive(ct())
    flow.seal()
    distrusted = tuple(d.model_copy(update={"trust_statement": ""}) for d in flow.config.destinations)
    later = flow.again(destinations=distrusted)
    later.deliver()
    assert outcome(flow, instance_id) == ("held", "destination-not-trusted")
    assert flow.sender.received == []


# -- rules ---------------------------------------------------------------------------------------------------------


def test_a_rule_passes_its_kind_and_the_rest_is_marked(make_flow):
    rules = (Rule(modality="DOC", action="pass"),)
    flow = make_flow(ROUTE.model_copy(update={"pass_statement": PASS_STATEMENT, "rules": rules}))
    document = ct(2, Modality="DOC", SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    passed, marked = flow.receive(document), flow.receive(ct(1))
    flow.run()
    sent = {item.instance_id: data for _, item, data in flow.sender.received}
    assert sent[passed] == encode(document)
    assert sent[marked] != encode(ct(1))
    assert [line["instance_id"] for line in flow.audited(events.INSTANCE_PASSED)] == [passed]


def test_a_rule_that_is_taken_back_before_delivery_holds(make_flow):
    rules = (Rule(modality="CT", action="pass"),)
    flow = make_flow(ROUTE.model_copy(update={"pass_statement": PASS_STATEMENT, "rules": rules}))
    instance_id = flow.receive(ct())
    flow.seal()
    later = flow.again(ROUTE.model_copy(update={"rules": (Rule(modality="MR", action="pass"),)}))
    later.deliver()
    assert outcome(flow, instance_id) == ("held", "not-a-pass-route")
    flow.operator.release([instance_id])
    later.run()
    assert [item.sop_instance_uid != ct().SOPInstanceUID for _, item, _ in flow.sender.received] == [True]


# -- break-glass ---------------------------------------------------------------------------------------------------


def test_an_emergency_is_told_of_before_the_first_original_and_each_of_them_as_well(make_flow):
    flow = make_flow(emergency())
    ids = [flow.receive(ct(number)) for number in (1, 2)]
    flow.run()
    assert [item.sop_instance_uid for _, item, _ in flow.sender.received] == ["1.2.826.0.1.99.1", "1.2.826.0.1.99.2"]
    assert told(flow) == [("110127", "relay", "break-glass")]
    lines = flow.audited(events.INSTANCE_PASSED)
    assert [(line["instance_id"], line["policy"]) for line in lines] == [(each, "break-glass") for each in ids]
    assert flow.audited(events.OVERRIDE_STARTED)[0]["time"] <= lines[0]["time"]
    assert "server" not in flow.audit_path.read_text()  # the reason is free text, and stays in the configuration


def test_after_the_end_the_rest_is_held_sealed_and_released_into_what_the_route_then_says(make_flow):
    flow = make_flow(emergency(-1))
    instance_id = flow.receive(ct())
    flow.run()
    assert outcome(flow, instance_id) == ("held", "pass-expired")
    assert flow.restored(ct().SOPInstanceUID) == encode(ct())
    flow.operator.release([instance_id])
    flow.run()
    assert outcome(flow, instance_id) == ("held", "pass-expired")
    flow.operator.release([instance_id])
    flow.again(ROUTE).run()
    assert outcome(flow, instance_id) == ("delivered", None)
    assert [item.sop_instance_uid != ct().SOPInstanceUID for _, item, _ in flow.sender.received] == [True]


def test_the_end_between_receipt_and_delivery_holds(make_flow, monkeypatch):
    flow = make_flow(emergency())
    until = flow.config.routes[0].break_glass.until.timestamp()
    instance_id = flow.receive(ct())
    flow.seal()
    assert outcome(flow, instance_id) == ("marked", None)
    monkeypatch.setattr(policy, "time", SimpleNamespace(time=lambda: until + 1))
    flow.deliver()
    assert outcome(flow, instance_id) == ("held", "pass-expired")
    assert flow.sender.received == []
    assert flow.spooled() == [flow.row(instance_id).spool_file]


def test_an_end_that_comes_while_the_destination_is_called_holds(make_flow, monkeypatch):
    """Connecting and negotiating may take a minute: what counts is the moment of the first byte."""
    flow = make_flow(emergency())
    until = flow.config.routes[0].break_glass.until.timestamp()
    instance_id = flow.receive(ct())
    flow.seal()
    flow.sender.fail = lambda *_: monkeypatch.setattr(policy, "time", SimpleNamespace(time=lambda: until + 1))
    flow.deliver()
    assert outcome(flow, instance_id) == ("held", "pass-expired")
    assert flow.sender.received == []


def test_an_emergency_that_would_last_too_long_passes_nothing(make_flow):
    flow = make_flow(emergency(25 * 3600))
    instance_id = flow.receive(ct())
    flow.run()
    assert outcome(flow, instance_id) == ("held", "pass-too-long")
    assert told(flow) == []


def test_beginning_and_end_are_told_once_each_also_over_restarts(make_flow):
    flow = make_flow(emergency())
    until = flow.config.routes[0].break_glass.until.timestamp()
    passing_of(flow).start()
    again = flow.again()
    passing_of(again).start()
    assert passing_of(again).tend(until - 1) == 0
    assert passing_of(again).tend(until) == 1
    assert passing_of(flow).tend(until + 1) == 0
    assert told(flow) == [("110127", "relay", "break-glass"), ("110138", "relay", "expired")]


def test_an_end_that_came_while_nothing_ran_is_told_at_the_next_start(make_flow):
    flow = make_flow(emergency())
    until = flow.config.routes[0].break_glass.until.timestamp()
    passing_of(flow).start()
    passing_of(flow.again()).start(until + 1)
    assert told(flow) == [("110127", "relay", "break-glass"), ("110138", "relay", "expired")]


def test_an_emergency_that_is_taken_out_before_its_end_stops_and_may_begin_once_more(make_flow):
    route = emergency()
    flow = make_flow(route)
    passing_of(flow).start()
    passing_of(flow.again(PASS)).start()
    assert told(flow)[1:] == [("110138", "relay", "withdrawn")]
    passing_of(flow.again(route)).start()
    assert told(flow)[2:] == [("110127", "relay", "break-glass")]


def test_an_emergency_that_was_stopped_passes_nothing_more(make_flow):
    """A worker that still has the old configuration, after another was started with a new one."""
    flow = make_flow(emergency())
    old = flow.again()
    passing_of(flow).start()
    passing_of(flow.again(ROUTE)).start()
    instance_id = old.receive(ct())
    old.run()
    assert outcome(flow, instance_id) == ("held", "pass-expired")
    assert flow.sender.received == []


def test_what_cannot_be_told_of_does_not_begin(make_flow, monkeypatch):
    flow = make_flow(emergency())

    def full(*_args, **_fields):
        raise OSError("disk full")

    monkeypatch.setattr(AuditLog, "write", full)
    instance_id = flow.receive(ct())
    flow.seal()
    assert flow.row(instance_id).state == "received"
    with pytest.raises(CapacityError, match="audit trail"):
        passing_of(flow).start()
    with reading(flow.engine) as session:
        assert session.query(OverrideRow).count() == 0
