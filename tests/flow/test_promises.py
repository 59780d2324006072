"""On our word archives delete: what has to be true before we say it, one thing after the other taken away."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
from sqlalchemy import event, update

from gateway.audit import events
from gateway.config.commitment import COMMIT_STATEMENT, DELIVERED_STATEMENT, AskedCommitment, Commitment
from gateway.config.models import PASS_STATEMENT, Retention
from gateway.database import CommitmentRow, DeliveryRow, PayloadCheckRow, transaction
from gateway.errors import CapacityError, DicomError, TransientError
from gateway.flow.judging import CLASS_CONFLICT, NO_SUCH_INSTANCE, NOT_SAFE
from gateway.flow.ports import CommitmentReport, Reference
from gateway.flow.promises import CLAIM_S, KEPT_S, Promises, RequestBook
from gateway.keys.keyring import OpeningKeys
from gateway.restore import Restorer
from gateway.restore.checks import PayloadChecks
from gateway.service import places
from tests.support.flow import ROUTE, Flow, ct

TOLD = ROUTE.model_copy(update={"delivered_statement": DELIVERED_STATEMENT})
"""Its destinations are asked for nothing, and that is enough."""
SECOND = TOLD.model_copy(update={"name": "again", "called_ae": "AGAIN", "destinations": ("second",)})
DS = ct()
ASKED = Reference(str(DS.SOPClassUID), str(DS.SOPInstanceUID))


@dataclass
class Archive:
    """Stands where `gateway.network.commitment` stands; a real archive asks in `tests/network/test_commitment.py`."""

    told: list[CommitmentReport] = field(default_factory=list)
    fail: Exception | None = None

    def ask(self, *_):
        raise AssertionError("not here")

    def answer(self, calling_ae, report):
        assert calling_ae == "ARCHIVE"
        if self.fail:
            raise self.fail
        self.told.append(report)


class Site:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.archive = Archive()
        self.settings = Commitment(request_within_s=100)
        self.book = RequestBook(flow.engine, self.settings)
        self._count = 0

    def promises(self, flow: Flow | None = None) -> Promises:
        flow = flow or self.flow
        config = flow.config
        tables = (config.routes, config.destinations, config.retention, self.settings)
        return Promises(*tables, flow.engine, self.archive, flow.context.audit)

    def ask(self, *references: Reference) -> None:
        self._count += 1
        self.book.asked("ARCHIVE", f"1.2.{self._count}", references or (ASKED,))

    def check(self) -> int:
        """What role restore does."""
        config = self.flow.config
        where, keys = places(config), OpeningKeys.load(config.keys)
        return PayloadChecks(self.flow.engine, Restorer(self.flow.engine, where.vault, keys, config.site.name)).once()

    def outcome(self, flow: Flow | None = None, later_s: float = 0.0) -> CommitmentReport | None:
        """Ask and look, as often as it takes; None: the archive is not told yet."""
        self.ask()
        promises, before = self.promises(flow), len(self.archive.told)
        for round_ in range(3):
            promises.once(time.time() + later_s + 3 * round_)
            self.check()
        return self.archive.told[-1] if len(self.archive.told) > before else None


@pytest.fixture
def site(make_flow) -> Site:
    flow = make_flow(TOLD)
    flow.receive(DS)
    flow.run()
    return Site(flow)


def yes(report: CommitmentReport | None) -> bool:
    assert report is not None
    return report.committed == (ASKED,) and not report.failed


def no(report: CommitmentReport | None, reason: int = NOT_SAFE) -> bool:
    assert report is not None
    return report.committed == () and report.failed == {ASKED: reason}


def test_an_original_in_escrow_that_was_opened_and_delivered_is_committed(site):
    site.ask()
    promises = site.promises()
    assert promises.once() == 0 and site.archive.told == []  # nobody has opened it yet
    assert site.check() == 1 and site.check() == 0
    assert promises.once(time.time() + 3) == 1 and yes(site.archive.told[-1])
    assert promises.once(time.time() + 9) == 0
    [line] = site.flow.audited(events.COMMITMENT_ANSWERED)
    assert (line["calling_ae"], line["completed"], line["failed"], line["outcome"]) == ("ARCHIVE", 1, 0, "success")


def test_a_payload_that_is_gone_or_changed_since_the_last_time_is_not(site):
    assert yes(site.outcome())
    [payload] = places(site.flow.config).vault.iterdir()
    data = bytearray(payload.read_bytes())
    data[len(data) // 2] ^= 1
    payload.chmod(0o600)
    payload.write_bytes(data)
    assert no(site.outcome())
    payload.unlink()
    assert no(site.outcome())


def test_what_is_unknown_or_of_another_kind_or_another_archives_is_not(site):
    site.ask(Reference("1.2.3", ASKED.sop_instance_uid), Reference("1.2.3", "9.9.9"))
    site.promises().once()
    reasons = {one.sop_instance_uid: reason for one, reason in site.archive.told[-1].failed.items()}
    assert reasons == {ASKED.sop_instance_uid: CLASS_CONFLICT, "9.9.9": NO_SUCH_INSTANCE}
    with transaction(site.flow.engine) as session:
        session.execute(update(type(site.flow.row(_only(site)))).values(calling_ae="OTHER"))
    assert no(site.outcome(), NO_SUCH_INSTANCE)


def _only(site: Site) -> str:
    from gateway.flow.selection import list_instances

    [entry] = list_instances(site.flow.engine)
    return entry.id


def test_retention_that_ends_is_not_unless_the_route_says_so(site):
    ending = site.flow.again(retention=Retention(vault_days=365))
    assert no(site.outcome(ending))
    told = ending.again(TOLD.model_copy(update={"commit_statement": COMMIT_STATEMENT}))
    assert yes(site.outcome(told))
    assert told.store.promised() == set()  # it ends, as was said


def test_a_carried_original_is_not_unless_the_route_says_so(make_flow):
    carried = TOLD.model_copy(update={"restoration": "carried"})
    flow = make_flow(carried)
    flow.receive(DS)
    flow.run()
    site = Site(flow)
    assert no(site.outcome())
    assert yes(site.outcome(flow.again(carried.model_copy(update={"commit_statement": COMMIT_STATEMENT}))))


def test_an_original_that_passed_is_not(site):
    passing = {"action": "pass", "pass_statement": PASS_STATEMENT, "commit_statement": COMMIT_STATEMENT}
    flow = site.flow.again(ROUTE.model_copy(update=passing))
    flow.receive(DS)
    flow.seal()
    assert no(site.outcome(flow))  # known at once: it need not be delivered first
    flow.deliver()
    assert no(site.outcome(flow))


def test_what_is_held_is_not_and_what_is_on_its_way_is_waited_for(site):
    one = site.flow.receive(DS)  # once more: the newest decides
    assert site.outcome() is None
    assert no(site.outcome(later_s=200))  # for so long and no longer
    site.flow.operator.hold([one])
    assert no(site.outcome())
    site.flow.operator.release([one])
    site.flow.run()
    assert yes(site.outcome())


def test_over_all_routes_the_worst_decides(make_flow):
    flow = make_flow(TOLD, SECOND)
    flow.receive(DS)
    other = flow.receive(DS, called_ae="AGAIN")
    flow.seal()
    flow.mark()
    flow.deliver("outside")
    site = Site(flow)
    assert site.outcome() is None  # the second route is not done
    flow.deliver("second")
    assert yes(site.outcome())
    flow.receive(DS, called_ae="AGAIN")
    flow.seal()
    flow.operator.hold([one.id for one in _entries(flow) if one.state != "delivered"])
    assert no(site.outcome()) and flow.row(other).state == "delivered"


def _entries(flow: Flow):
    from gateway.flow.selection import list_instances

    return list_instances(flow.engine)


def test_what_a_destination_only_received_is_not_unless_the_route_says_so(site):
    assert no(site.outcome(site.flow.again(ROUTE)))
    assert yes(site.outcome())


def test_where_destinations_commit_their_word_is_needed(site):
    first, second = site.flow.config.destinations
    asking = site.flow.again(destinations=(first.model_copy(update={"commitment": AskedCommitment()}), second))
    assert site.outcome(asking) is None  # sent before it was asked for: now it is
    [delivery] = asking.deliveries(_only(site)).values()
    assert delivery.commit_state == "due"

    def said(word: str) -> None:
        with transaction(site.flow.engine) as session:
            session.execute(update(DeliveryRow).values(commit_state=word))

    said("refused")
    assert no(site.outcome(asking))
    said("committed")
    assert yes(site.outcome(asking))


def test_an_archive_that_cannot_be_told_is_told_later_by_what_holds_then(site):
    site.archive.fail = TransientError("unreachable", "nobody listens")
    site.ask()
    promises = site.promises()
    promises.once()
    site.check()
    assert promises.once(time.time() + 3) == 0 and site.archive.told == []
    site.archive.fail = None
    [payload] = places(site.flow.config).vault.iterdir()
    assert promises.once(time.time() + 30) == 1 and yes(site.archive.told[-1])
    assert payload.exists()
    with transaction(site.flow.engine) as session:
        assert [row.state for row in session.query(CommitmentRow)] == ["answered"]


def test_of_two_workers_one_answers(site):
    site.ask()
    one, other = site.promises(), site.promises()
    one.once()
    site.check()
    seen = []
    site.archive.answer = lambda calling_ae, report: seen.append(other.once(time.time() + 4))  # at the same moment
    assert one.once(time.time() + 3) == 1 and seen == [0]


def test_what_was_promised_is_kept_whatever_retention_says_later(site):
    assert yes(site.outcome())
    unpromised = site.flow.receive(ct(2))
    site.flow.run()
    ending = site.flow.again(retention=Retention(vault_days=1))
    ending.retainer.once(time.time() + 10 * 86_400)
    left = {path.name for path in places(site.flow.config).vault.iterdir()}
    with transaction(site.flow.engine) as session:
        promised = {row.locator for row in session.query(PayloadCheckRow) if row.promised_at}
    assert left == promised and site.flow.row(unpromised).record not in left


def test_requests_are_kept_once_and_not_without_end(site):
    site.book.asked("ARCHIVE", "1.2.3", (ASKED,))
    site.book.asked("ARCHIVE", "1.2.3", (ASKED,))
    with transaction(site.flow.engine) as session:
        assert session.query(CommitmentRow).count() == 1
    full = RequestBook(site.flow.engine, Commitment(max_waiting=1))
    with pytest.raises(CapacityError) as caught:
        full.asked("ARCHIVE", "1.2.4", (ASKED,))
    assert caught.value.code == "too-many-requests"


def test_an_archive_fills_its_own_share_of_requests_alone(site):
    book = RequestBook(site.flow.engine, Commitment(max_waiting=1))
    book.asked("GREEDY", "1.2.3", (ASKED,))
    book.asked("ARCHIVE", "1.2.3", (ASKED,))


def test_a_transaction_is_of_one_set_of_instances(site):
    """The report on it would else tell of instances that the archive did not mean."""
    for _ in ("waiting", "answered"):
        site.book.asked("ARCHIVE", "1.2.3", (ASKED,))
        with pytest.raises(DicomError) as caught:
            site.book.asked("ARCHIVE", "1.2.3", (Reference("1.2", "3.4"),))
        assert caught.value.code == "duplicate-transaction"
        site.promises().once()
        site.check()
        site.promises().once(time.time() + 3)
    assert [yes(one) for one in site.archive.told] == [True, True]


def test_a_request_that_was_answered_is_answered_again(site):
    """As where the report did not come through, or the archive was put back to an older state."""
    site.ask()
    for again in (1, 2):
        site.promises().once()
        site.check()
        assert site.promises().once(time.time() + 3) == 1
        assert len(site.archive.told) == again and yes(site.archive.told[-1])
        site.book.asked("ARCHIVE", "1.2.1", (ASKED,))


def test_requests_that_wait_keep_no_other_from_its_turn(site, monkeypatch):
    monkeypatch.setattr("gateway.flow.promises.AT_ONCE", 2)
    waiting = site.flow.receive(ct(2))
    reference = Reference(str(DS.SOPClassUID), site.flow.row(waiting).sop_instance_uid)
    for _ in range(4):
        site.ask(reference)
    site.ask()
    promises, now = site.promises(), time.time()
    for look in range(8):  # each so late that what waited is due again
        promises.once(now + 10 * look)
        site.check()
    assert len(site.archive.told) == 1 and yes(site.archive.told[-1])


def test_an_archive_that_is_away_keeps_no_other_waiting(site):
    calls = []

    def answer(calling_ae, report):
        calls.append(calling_ae)
        raise TransientError("unreachable", "nobody listens")

    site.archive.answer = answer
    for number in range(5):
        site.book.asked("AWAY", f"1.2.{number}", (ASKED,))  # not its own: answered at once
    site.book.asked("ALSO", "1.2.9", (ASKED,))
    site.promises().once()
    assert calls == ["AWAY", "ALSO"]


@pytest.mark.parametrize("is_told", [False, True])
def test_a_worker_that_dies_over_an_answer_gives_it_again(site, is_told):
    """The promise is noted before the archive hears of it; what it hears twice says the same."""
    site.ask()
    site.promises().once()
    site.check()
    answer = site.archive.answer

    def dies(calling_ae, report):
        if is_told:
            answer(calling_ae, report)
        raise KeyboardInterrupt

    site.archive.answer = dies
    with pytest.raises(KeyboardInterrupt):
        site.promises().once(time.time() + 3)
    assert len(site.flow.store.promised()) == 1
    site.archive.answer = answer
    assert site.promises().once(time.time() + 4) == 0  # it may live yet
    assert site.promises().once(time.time() + CLAIM_S + 5) == 1
    assert [yes(report) for report in site.archive.told] == [True] * (1 + is_told)


def test_what_is_discarded_while_it_is_judged_is_not_committed(site):
    site.ask()
    promises = site.promises()
    promises.once()
    site.check()
    judged = promises._judged

    def and_then(request, references, *, promise):
        verdicts = judged(request, references, promise=promise)
        if not promise:
            with transaction(site.flow.engine) as session:
                session.execute(update(type(site.flow.row(_only(site)))).values(state="discarded"))
        return verdicts

    promises._judged = and_then
    assert promises.once(time.time() + 3) == 1 and no(site.archive.told[-1])
    assert site.flow.store.promised() == set()


def test_a_long_request_is_judged_in_many_short_transactions(site, monkeypatch):
    """Ten thousand references in one would keep the ingress from writing."""
    monkeypatch.setattr("gateway.flow.judging.PIECE", 10)
    began = []

    @event.listens_for(site.flow.engine, "begin")
    def _count(_):
        began.append(1)

    references = [Reference("1.2.3", f"9.9.{number}") for number in range(95)]
    site.ask(ASKED, *references)
    promises = site.promises()
    promises.once()
    site.check()
    begun = len(began)
    assert promises.once(time.time() + 3) == 1
    assert len(began) - begun >= 20  # ten pieces, looked at and promised
    report = site.archive.told[-1]
    assert report.committed == (ASKED,) and set(report.failed.values()) == {NO_SUCH_INSTANCE}
    assert len(report.failed) == 95


def test_answered_requests_are_forgotten_in_the_end(site):
    assert yes(site.outcome())
    site.ask()  # waits
    site.promises().once(time.time() + KEPT_S - 60)
    with transaction(site.flow.engine) as session:
        assert session.query(CommitmentRow).count() == 2
    site.ask()
    site.promises().once(time.time() + KEPT_S + 600)
    with transaction(site.flow.engine) as session:
        assert {row.transaction_uid for row in session.query(CommitmentRow)} >= {"1.2.3"}
        assert "1.2.1" not in {row.transaction_uid for row in session.query(CommitmentRow)}


def test_nothing_is_told_before_it_is_audited(site, monkeypatch):
    def full(*_args, **_fields):
        raise CapacityError("audit-full", "no room")

    site.ask()
    promises = site.promises()
    promises.once()
    site.check()
    monkeypatch.setattr("gateway.flow.promises.audited", full)
    with pytest.raises(CapacityError):
        promises.once(time.time() + 3)
    assert site.archive.told == []
