"""Storage commitment with real peers: Orthanc as SCP and as SCU, pynetdicom, and ones that break the rules."""

from __future__ import annotations

import json
import time

import pytest
from pynetdicom import AE, build_role, evt

from gateway.audit import events
from gateway.config.commitment import AskedCommitment, Commitment, Reports
from gateway.config.models import Destination, Peer
from gateway.errors import CapacityError, DicomError, PermanentError, TransientError
from gateway.flow.ports import CommitmentReport, Reference
from gateway.network import command as dimse
from gateway.network.commitment import CommitmentScu
from gateway.network.commitment_port import CommitmentPort
from gateway.network.commitment_sets import (
    INSTANCE,
    PUSH_MODEL,
    SYNTAXES,
    read_report,
    read_request,
    report_bytes,
    request_bytes,
)
from gateway.network.egress import Egress
from gateway.network.tls import client_context, server_context
from tests.network.test_ingress import until
from tests.support.network import peers, raw
from tests.support.network.certificates import Authority
from tests.support.network.samples import CT, EXPLICIT, ct, outgoing

KEPT, LOST = Reference(CT, "1.2.3.4"), Reference(CT, "1.2.3.5")


def destination(port: int, **changes) -> Destination:
    settings = AskedCommitment(**{"wait_s": 0, **changes})
    given = {"type": "research", "ae_title": "OUTSIDE", "host": "127.0.0.1", "response_timeout_s": 5}
    return Destination(name="outside", port=port, commitment=settings, **given)


class Port:
    """A port for reports, and what came."""

    def __init__(self, audit, one: Destination) -> None:
        self.reports: list[tuple[list[str], CommitmentReport]] = []
        self.fail: Exception | None = None
        self.scp = CommitmentPort(Commitment(port=peers.free_port()), [one], self._take, audit)
        self.scp.bind()
        self.scp.start()

    def _take(self, names, report) -> None:
        if self.fail:
            raise self.fail
        self.reports.append((list(names), report))


@pytest.fixture
def port(audit):
    made = []

    def make(one: Destination) -> Port:
        made.append(Port(audit, one))
        return made[-1]

    yield make
    for one in made:
        one.scp.stop()


# -- the data sets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_requests_and_reports_come_back_as_they_were(syntax):
    assert read_request(request_bytes("1.2.9", [KEPT, LOST], syntax), syntax) == ("1.2.9", (KEPT, LOST))
    for report in (
        CommitmentReport("1.2.9", (KEPT,), {LOST: 0x0112}),
        CommitmentReport("1.2.9", (), {LOST: 0x0110}),
        CommitmentReport("1.2.9", (KEPT, LOST), {}),
    ):
        assert read_report(report_bytes(report, syntax), syntax) == report


@pytest.mark.parametrize("data", [b"", b"\x08\x00", b"x" * 100, request_bytes("1.2.9", [KEPT], EXPLICIT)[:-5]])
def test_what_is_no_request_is_refused(data):
    with pytest.raises(DicomError):
        read_request(data, EXPLICIT)


# -- as SCU --------------------------------------------------------------------------------------------------------


@pytest.mark.peers
def test_orthanc_reports_what_it_has_and_what_it_has_not(audit, port):
    report_port = peers.free_port()
    with peers.orthanc("OUTSIDE", {"gateway": ["MIAD_GATEWAY", "127.0.0.1", report_port]}) as outside:
        one = destination(outside.port)
        listening = CommitmentPort(Commitment(port=report_port), [one], lambda names, got: told.append(got), audit)
        told: list[CommitmentReport] = []
        listening.bind()
        listening.start()
        try:
            sender = Egress([one], audit)
            uid, data = ct(64)
            sender.send("outside", outgoing(data, uid))
            sender.close()
            references = [Reference(CT, uid), LOST]
            CommitmentScu([one], []).ask("outside", "2.25.77", references)
            assert until(lambda: told, 20)
        finally:
            listening.stop()
    [report] = told
    assert report.transaction_uid == "2.25.77"
    assert report.committed == (Reference(CT, uid),) and set(report.failed) == {LOST}


def scripted(after: list[bytes], status: int = 0):
    """A destination that answers the N-ACTION and then sends these PDUs on the same association."""

    def serve(wire: raw.Wire) -> None:
        wire.read()
        wire.send(raw.associate(0x02, contexts=raw.context_ac(1) + raw.context_ac(3, 3)))
        command = wire.read_store()  # any request with a data set
        assert command is not None and command[dimse.ACTION_TYPE_ID] == 1
        assert command[dimse.REQUESTED_SOP_CLASS_UID] == PUSH_MODEL
        assert command[dimse.REQUESTED_SOP_INSTANCE_UID] == INSTANCE
        answer: dimse.Command = {
            dimse.AFFECTED_SOP_CLASS_UID: PUSH_MODEL,
            dimse.COMMAND_FIELD: dimse.N_ACTION_RSP,
            dimse.MESSAGE_ID_RESPONDED_TO: command[dimse.MESSAGE_ID],
            dimse.DATA_SET_TYPE: dimse.NO_DATA_SET,
            dimse.STATUS: status,
        }
        wire.send(raw.data(1, 3, dimse.encode_command(answer)))
        for one in after:
            wire.send(one)
        while wire.read()[0] not in (0, 0x05, 0x07):
            pass
        wire.send(raw.RELEASE_RP)

    return serve


def event(report: CommitmentReport) -> list[bytes]:
    command: dimse.Command = {
        dimse.AFFECTED_SOP_CLASS_UID: PUSH_MODEL,
        dimse.COMMAND_FIELD: dimse.N_EVENT_REPORT_RQ,
        dimse.MESSAGE_ID: 7,
        dimse.DATA_SET_TYPE: dimse.WITH_DATA_SET,
        dimse.AFFECTED_SOP_INSTANCE_UID: INSTANCE,
        dimse.EVENT_TYPE_ID: 2 if report.failed else 1,
    }
    encoded = report_bytes(report, EXPLICIT)
    return [
        raw.data(1, 3, dimse.encode_command(command)),
        raw.data(1, 0, encoded[:20]),  # in two fragments
        raw.data(1, 2, encoded[20:]),
    ]


def test_a_report_on_the_same_association_is_taken_and_another_transactions_is_not():
    ours, other = CommitmentReport("2.25.1", (KEPT,), {LOST: 0x0110}), CommitmentReport("2.25.2", (KEPT,), {})
    with raw.scripted_scp(scripted([*event(other), *event(ours)])) as at:
        assert CommitmentScu([destination(at, wait_s=10)], []).ask("outside", "2.25.1", [KEPT, LOST]) == ours


@pytest.mark.parametrize("after", [[], [raw.ABORT], [raw.RELEASE_RQ], [b"nonsense" * 4]])
def test_no_report_on_the_same_association_is_no_failure(after):
    with raw.scripted_scp(scripted(after)) as at:
        assert CommitmentScu([destination(at, wait_s=0.3)], []).ask("outside", "2.25.1", [KEPT]) is None


def test_a_request_that_is_refused_or_not_offered_is_told(tmp_path):
    with raw.scripted_scp(scripted([], 0x0110)) as at, pytest.raises(TransientError) as caught:
        CommitmentScu([destination(at)], []).ask("outside", "2.25.1", [KEPT])
    assert caught.value.code == "status-0110"
    with peers.storescp(tmp_path / "out") as at, pytest.raises(PermanentError) as refused:  # DCMTK knows no commitment
        CommitmentScu([destination(at)], []).ask("outside", "2.25.1", [KEPT])
    assert refused.value.code == "context-refused"


# -- the port for reports ------------------------------------------------------------------------------------------


def report_to(
    at: int, report: CommitmentReport, ae_title: str = "OUTSIDE", with_role: bool = True, tls=None
) -> int | None:
    """As another toolkit reports (pynetdicom); the status, or None where the association is refused."""
    ae = AE(ae_title)
    ae.add_requested_context(PUSH_MODEL, EXPLICIT)
    roles = [build_role(PUSH_MODEL, scp_role=True)] if with_role else []
    association = ae.associate(
        "127.0.0.1", at, ae_title="MIAD_GATEWAY", ext_neg=roles, tls_args=(tls, "127.0.0.1") if tls else None
    )
    if not association.is_established:
        return None
    ds = read_ds(report)
    status, _ = association.send_n_event_report(ds, 2 if report.failed else 1, PUSH_MODEL, INSTANCE)
    association.release()
    return status.Status


def read_ds(report: CommitmentReport):
    from io import BytesIO

    from pydicom import dcmread

    return dcmread(BytesIO(report_bytes(report, EXPLICIT)), force=True)


def test_reports_come_from_the_destination_and_from_nobody_else(audit, port):
    made = port(destination(104))
    report = CommitmentReport("2.25.1", (KEPT,), {LOST: 0x0112})
    assert report_to(made.scp.port, report) == 0x0000
    assert made.reports == [(["outside"], report)]
    assert report_to(made.scp.port, report, with_role=False) == 0x0000  # it forgot to ask for its role
    assert report_to(made.scp.port, report, "STRANGER") is None
    elsewhere = port(destination(104, addresses=("10.0.0.1",)))
    assert report_to(elsewhere.scp.port, report) is None
    assert [line["reason"] for line in audit.lines(events.ASSOCIATION_REFUSED)][:1] == ["calling-ae-unknown"]
    made.fail = CapacityError("database-full", "no room")
    assert report_to(made.scp.port, report) == 0x0110  # it may report again
    made.fail = None
    assert report_to(made.scp.port, CommitmentReport("not a uid", (KEPT,), {})) == 0x0115


def test_a_destination_does_not_report_for_another_of_the_same_ae_title(audit):
    """AE titles are names: two sites that both call theirs ORTHANC."""
    here = destination(104)
    there = here.model_copy(
        update={"name": "there", "commitment": here.commitment.model_copy(update={"addresses": ("10.0.0.1",)})}
    )
    reports: list[list[str]] = []
    config = Commitment(port=peers.free_port())
    made = CommitmentPort(config, [here, there], lambda names, report: reports.append(list(names)), audit)
    made.bind()
    made.start()
    try:
        assert report_to(made.port, CommitmentReport("2.25.1", (KEPT,), {})) == 0x0000
    finally:
        made.stop()
    assert reports == [["outside"]]


# -- as SCP --------------------------------------------------------------------------------------------------------


class Requests:
    def __init__(self) -> None:
        self.kept: list[tuple[str, str, tuple[Reference, ...]]] = []
        self.fail: Exception | None = None

    def asked(self, calling_ae, transaction_uid, references) -> None:
        if self.fail:
            raise self.fail
        self.kept.append((calling_ae, transaction_uid, tuple(references)))


@pytest.fixture
def asking(start_ingress):
    """An ingress whose archive may ask, and another peer that may not."""
    requests = Requests()

    def start(report_port: int = 4242):
        reports = Reports(host="127.0.0.1", port=report_port)
        archive = Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",), reports=reports)
        other = Peer(ae_title="MODALITY", addresses=("127.0.0.1",))
        return start_ingress(requests=requests, peers=(archive, other)), requests, archive

    return start


def ask(at: int, ds, ae_title: str = "ARCHIVE", action: int = 1) -> int | None:
    ae = AE(ae_title)
    ae.add_requested_context(PUSH_MODEL, EXPLICIT)
    association = ae.associate("127.0.0.1", at, ae_title="GATEWAY")
    if not association.is_established:
        return None
    if not association.accepted_contexts:
        association.release()
        return None
    status, _ = association.send_n_action(ds, action, PUSH_MODEL, INSTANCE)
    association.release()
    return status.get("Status")


def request_ds(uid: str = "2.25.5"):
    from io import BytesIO

    from pydicom import dcmread

    return dcmread(BytesIO(request_bytes(uid, [KEPT, LOST], EXPLICIT)), force=True)


def test_requests_of_archives_are_kept_before_they_are_answered(audit, asking):
    ingress, requests, _ = asking()
    assert ask(ingress.port, request_ds()) == 0x0000
    assert requests.kept == [("ARCHIVE", "2.25.5", (KEPT, LOST))]
    assert ask(ingress.port, request_ds(), "MODALITY") is None
    assert ask(ingress.port, request_ds(), action=2) == 0x0123
    empty = request_ds()
    del empty.ReferencedSOPSequence
    assert ask(ingress.port, empty) == 0x0115
    requests.fail = CapacityError("too-many-requests", "wait")
    assert ask(ingress.port, request_ds()) == 0x0213
    assert len(requests.kept) == 1
    lines = audit.lines(events.COMMITMENT_REQUESTED)
    assert [(line["outcome"], line["status"]) for line in lines] == [
        ("success", "0x0000"), ("refused", "0x0123"), ("refused", "0x0115"), ("refused", "0x0213"),
    ]  # fmt: skip


def test_a_namesake_of_the_archive_may_not_ask(start_ingress):
    """Its entry has no reports table; that of the same AE title at another address has one."""
    reports = Reports(host="127.0.0.1", port=4242)
    archive = Peer(ae_title="ARCHIVE", addresses=("10.0.0.1",), reports=reports)
    namesake = Peer(ae_title="ARCHIVE", addresses=("127.0.0.1",))
    ingress = start_ingress(requests=Requests(), peers=(archive, namesake))
    assert ask(ingress.port, request_ds()) is None


def test_a_transaction_that_was_used_before_is_refused(asking):
    ingress, requests, _ = asking()
    requests.fail = DicomError("duplicate-transaction", "used before")
    assert ask(ingress.port, request_ds()) == 0x0115


@pytest.mark.peers
def test_orthanc_asks_and_is_told(asking):
    ingress, requests, archive = asking()
    with peers.orthanc("ARCHIVE", {"gateway": ["GATEWAY", "127.0.0.1", ingress.port]}) as orthanc:
        body = {"DicomInstances": [[KEPT.sop_class_uid, KEPT.sop_instance_uid], [CT, LOST.sop_instance_uid]]}
        answer = json.loads(orthanc._post("/modalities/gateway/storage-commitment", json.dumps(body).encode()))
        assert until(lambda: requests.kept, 10)
        [(calling, uid, references)] = requests.kept
        assert (calling, set(references)) == ("ARCHIVE", {KEPT, LOST})
        reports = Reports(host="127.0.0.1", port=orthanc.port, calling_ae="GATEWAY")
        scu = CommitmentScu([], [archive.model_copy(update={"reports": reports})])
        scu.answer("ARCHIVE", CommitmentReport(uid, (KEPT,), {LOST: 0x0112}))
        deadline = time.monotonic() + 50
        state: dict = {}
        while time.monotonic() < deadline and state.get("Status") in (None, "Pending"):
            state = json.loads(orthanc._get(answer["Path"]))
    assert state["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in state["Success"]] == [KEPT.sop_instance_uid]
    assert [one["SOPInstanceUID"] for one in state["Failures"]] == [LOST.sop_instance_uid], state


def test_an_archive_that_refuses_the_report_is_told_later(asking):
    _, _, archive = asking()
    ae = AE("ARCHIVE")
    ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
    refuses = [(evt.EVT_N_EVENT_REPORT, lambda event: (0x0110, None))]
    server = ae.start_server(("127.0.0.1", peers.free_port()), block=False, evt_handlers=refuses)
    reports = Reports(host="127.0.0.1", port=server.server_address[1])
    scu = CommitmentScu([], [archive.model_copy(update={"reports": reports})])
    with pytest.raises(TransientError) as caught:
        scu.answer("ARCHIVE", CommitmentReport("2.25.1", (KEPT,), {}))
    server.shutdown()
    assert caught.value.code == "report-refused"
    with pytest.raises(PermanentError):
        scu.answer("ELSE", CommitmentReport("2.25.1", (KEPT,), {}))


# -- over TLS ------------------------------------------------------------------------------------------------------


def test_over_tls_a_certificate_has_to_name_the_destinations_host(audit, tmp_path):
    authority = Authority(tmp_path / "ca")
    own = authority.issue("gateway")
    theirs = client_context(authority.issue("outside"))
    taken: list[CommitmentReport] = []

    def listening(host: str) -> CommitmentPort:
        one = destination(104, addresses=("127.0.0.1",)).model_copy(update={"host": host})
        config = Commitment(port=peers.free_port(), tls=own)
        made = CommitmentPort(config, [one], lambda names, report: taken.append(report), audit)
        made.bind()
        made.start()
        return made

    report = CommitmentReport("2.25.1", (KEPT,), {})
    for host, status in (("outside", 0x0000), ("elsewhere", None)):
        made = listening(host)
        try:
            assert report_to(made.port, report, tls=theirs) == status
            assert report_to(made.port, report) is None  # in clear text
        finally:
            made.stop()
    assert taken == [report]


def test_reports_go_to_archives_over_tls(asking, tmp_path):
    _, _, archive = asking()
    authority = Authority(tmp_path / "ca")
    ae, taken = AE("ARCHIVE"), []
    ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)

    def take(event):
        taken.append(read_report(event.request.EventInformation.getvalue(), event.context.transfer_syntax))
        return 0x0000, None

    theirs = server_context(authority.issue("archive"))
    at = ("127.0.0.1", peers.free_port())
    server = ae.start_server(at, block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)], ssl_context=theirs)
    reports = Reports(host="127.0.0.1", port=at[1], tls=True)
    report = CommitmentReport("2.25.1", (KEPT,), {LOST: 0x0110})
    told = archive.model_copy(update={"reports": reports})
    CommitmentScu([], [told], Commitment(tls=authority.issue("gateway"))).answer("ARCHIVE", report)
    with pytest.raises(TransientError):  # another authority's
        stranger = Authority(tmp_path / "other").issue("gateway")
        CommitmentScu([], [told], Commitment(tls=stranger)).answer("ARCHIVE", report)
    server.shutdown()
    assert taken == [report]
