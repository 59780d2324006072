"""Destinations are asked to keep what they were sent, until each says so: new transactions, failures, late reports."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import pytest
from sqlalchemy import update

from gateway.audit import events
from gateway.config import TRUST_STATEMENT
from gateway.config.commitment import AskedCommitment
from gateway.config.models import PASS_STATEMENT, Retention
from gateway.database import DeliveryRow, transaction
from gateway.errors import TransientError
from gateway.flow.commitments import CLASS_NOT_SUPPORTED, DUPLICATE_TRANSACTION, Commitments
from gateway.flow.ports import CommitmentReport, Reference
from tests.support.flow import ROUTE, Flow, configuration, ct

PASS = ROUTE.model_copy(update={"action": "pass", "pass_statement": PASS_STATEMENT})


@dataclass
class Asked:
    """Stands where `gateway.network.commitment` stands; real peers answer in `tests/network/test_commitment.py`."""

    requests: list[tuple[str, str, tuple[Reference, ...]]] = field(default_factory=list)
    fail: Exception | None = None

    def ask(self, destination, transaction_uid, references):
        self.requests.append((destination, transaction_uid, tuple(references)))
        if self.fail:
            raise self.fail

    def answer(self, calling_ae, report):
        raise AssertionError("not here")


class Site:
    """A flow whose first destination is asked for commitments."""

    def __init__(self, flow: Flow, route=ROUTE, **settings) -> None:
        first, second = flow.config.destinations
        given = {"after_s": 0, "retry_first_s": 60, "report_within_s": 600, **settings}
        first = first.model_copy(update={"commitment": AskedCommitment(**given), "trust_statement": TRUST_STATEMENT})
        self.flow = flow.again(route, destinations=(first, second))
        self.peer = Asked()
        audit, store = self.flow.context.audit, self.flow.store
        self.commitments = Commitments(self.flow.config.destinations, flow.engine, self.peer, audit, store.wakes)

    def delivered(self, number: int = 1) -> str:
        one = self.flow.receive(ct(number))
        self.flow.run()
        assert self.flow.row(one).state == "delivered"
        return one

    def delivery(self, one: str) -> DeliveryRow:
        return self.flow.deliveries(one)["outside"]

    def report(self, failed: dict[Reference, int] | None = None, at: int = -1) -> int:
        _, uid, references = self.peer.requests[at]
        failed = failed or {}
        kept = tuple(one for one in references if one not in failed)
        return self.commitments.reported(["outside"], CommitmentReport(uid, kept, failed))


@pytest.fixture
def site(tmp_path, site_keys, engine):
    """On both databases: the statements lock rows in ways that only one of them checks."""
    flow = Flow(configuration(tmp_path / "state", site_keys), engine)
    return Site(flow)


def test_what_was_sent_is_asked_for_and_committed(site):
    ids = [site.delivered(number) for number in (1, 2)]
    assert {site.delivery(one).commit_state for one in ids} == {"due"}
    assert site.commitments.once() == 2
    [(destination, uid, references)] = site.peer.requests
    sent = {item.sop_instance_uid for _, item, _ in site.flow.sender.received}
    assert destination == "outside" and {one.sop_instance_uid for one in references} == sent and len(sent) == 2
    assert site.commitments.once() == 0  # it is under way
    assert site.report() == 2
    assert {site.delivery(one).commit_state for one in ids} == {"committed"}
    assert site.report() == 0  # the same once more changes nothing
    [asked] = site.flow.audited(events.COMMITMENT_ASKED)
    reported = site.flow.audited(events.COMMITMENT_REPORTED)
    assert asked["transaction_uid"] == uid and asked["count"] == 2
    assert [(line["completed"], line.get("reason")) for line in reported] == [(2, None), (0, "unknown-transaction")]


def test_each_request_has_a_new_transaction_uid_and_a_late_report_counts_for_nothing(site):
    one = site.delivered()
    now = time.time()
    site.peer.fail = TransientError("unreachable", "nobody listens")
    site.commitments.once(now)
    assert site.delivery(one).commit_state == "due" and site.commitments.once(now) == 0  # after a pause
    site.peer.fail = None
    assert site.commitments.once(now + 70) == 1
    assert site.delivery(one).commit_state == "asked"
    assert site.commitments.once(now + 71) == 0
    assert site.commitments.once(now + 70 + 601) == 1  # nobody reported
    uids = [uid for _, uid, _ in site.peer.requests]
    assert len(set(uids)) == 3 and all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)
    assert site.report(at=1) == 0 and site.delivery(one).commit_state == "asked"
    assert site.commitments.reported(["second"], CommitmentReport(uids[2], (), {})) == 0  # somebody else's
    assert site.report(at=2) == 1 and site.delivery(one).commit_state == "committed"


def test_what_is_not_committed_is_sent_again_the_same_bytes_and_then_held(site):
    one = site.delivered()
    for time_ in range(4):
        site.commitments.once()
        [reference] = site.peer.requests[-1][2]
        site.report({reference: 0x0112})
        if time_ < 3:
            assert (site.flow.row(one).state, site.delivery(one).state) == ("marked", "queued")
            site.flow.deliver()
            assert site.flow.row(one).state == "delivered"
    assert (site.flow.row(one).state, site.flow.row(one).reason_code) == ("held", "not-committed")
    assert len(site.flow.sender.received) == 4
    assert [len(digests) for digests in site.flow.sender.byte_strings().values()] == [1]
    assert [line["reason"] for line in site.flow.audited(events.INSTANCE_HELD)] == ["not-committed"]
    site.flow.operator.release([one])  # a person lets the same bytes go again
    site.flow.deliver()
    assert site.flow.row(one).state == "delivered" and site.delivery(one).commit_state == "due"
    assert [len(digests) for digests in site.flow.sender.byte_strings().values()] == [1]


@pytest.mark.parametrize(("reason", "state"), [(CLASS_NOT_SUPPORTED, "refused"), (DUPLICATE_TRANSACTION, "due")])
def test_reasons_that_sending_again_does_not_mend(make_flow, reason, state):
    site = Site(make_flow())
    one = site.delivered()
    site.commitments.once()
    [reference] = site.peer.requests[-1][2]
    site.report({reference: reason})
    assert (site.flow.row(one).state, site.delivery(one).commit_state) == ("delivered", state)
    assert len(site.flow.sender.received) == 1


def test_files_that_would_be_sent_again_stay_until_the_commitment(make_flow):
    site = Site(make_flow(), PASS)
    flow = site.flow.again(PASS, retention=Retention(derived_days=0))
    one = flow.receive(ct())
    flow.run()
    assert flow.row(one).state == "delivered"
    flow.retainer.once()
    assert flow.row(one).spool_file is not None  # the original: all there is to send again
    site.commitments.once()
    [reference] = site.peer.requests[-1][2]
    assert reference.sop_instance_uid == flow.row(one).sop_instance_uid
    site.report({reference: 0x0110})
    flow.deliver()
    assert flow.row(one).state == "delivered"
    site.commitments.once()
    site.report()
    flow.retainer.once()
    assert flow.row(one).spool_file is None


def test_a_derived_file_stays_until_the_commitment(make_flow):
    site = Site(make_flow())
    flow = site.flow.again(retention=Retention(derived_days=0))
    one = flow.receive(ct())
    flow.run()
    flow.retainer.once(time.time() + 1)
    assert flow.row(one).derived_file is not None
    site.commitments.once()
    site.report()
    flow.retainer.once(time.time() + 1)
    assert flow.row(one).derived_file is None


def test_without_its_audit_line_nothing_is_asked_and_no_report_counts(make_flow, monkeypatch):
    from gateway.errors import CapacityError

    site = Site(make_flow())
    one = site.delivered()
    monkeypatch.setattr("gateway.flow.commitments.audited", _full)
    with pytest.raises(CapacityError):
        site.commitments.once()
    assert site.delivery(one).commit_state == "due" and site.peer.requests == []
    monkeypatch.undo()
    site.commitments.once()
    monkeypatch.setattr("gateway.flow.commitments.audited", _full)
    with pytest.raises(CapacityError):
        site.report()
    assert site.delivery(one).commit_state == "asked"


def _full(*_args, **_fields):
    from gateway.errors import CapacityError

    raise CapacityError("audit-full", "no room")


def test_an_instance_whose_row_names_no_delivery_file_any_more_is_held(make_flow):
    site = Site(make_flow())
    one = site.delivered()
    site.commitments.once()
    [reference] = site.peer.requests[-1][2]
    with transaction(site.flow.engine) as session:
        session.execute(update(site.flow.row(one).__class__).values(derived_file=None))
    site.report({reference: 0x0112})
    assert site.flow.row(one).reason_code == "not-committed"
    assert json.dumps(site.flow.row(one).reason)  # words of ours
