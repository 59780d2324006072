"""The protocol's fine print, with pynetdicom as the workstation: counts, lists, roles, cancel, rude peers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.dimse_primitives import C_FIND, C_STORE
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    CTImageStorage,
    MRImageStorage,
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
from structlog.testing import capture_logs

from gateway.audit import events
from gateway.network.contexts import EXPLICIT_LITTLE
from gateway.network.retrieve import retrieve
from tests.network.retrieve.conftest import lines_soon, plain
from tests.network.test_ingress import gateway_threads, until
from tests.support.retrieve.samples import MANY, MANY_STUDY, MR_SYNTAXES

FIND, GET = StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove


def identifier(level: str, **keys: object) -> Dataset:
    data = Dataset()
    data.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(data, keyword, value)
    return data


@contextlib.contextmanager
def associated(scp, contexts, *, roles=True, handlers=(), ext_neg=(), max_pdu=16382):
    """An association of READING1 with (SOP class, transfer syntax) contexts; storage ones with the SCP role."""
    ae = AE("READING1")
    for sop_class, syntax in contexts:
        ae.add_requested_context(sop_class, syntax)
    storage = {sop_class for sop_class, _ in contexts if "5.1.4.1.1." in sop_class}
    items = [build_role(sop_class, scp_role=True) for sop_class in storage] if roles else []
    association = ae.associate(
        "127.0.0.1",
        scp.plain_port,
        ae_title="MIAD_RESTORE",
        ext_neg=[*items, *ext_neg],
        evt_handlers=list(handlers),
        max_pdu=max_pdu,
    )
    assert association.is_established
    try:
        yield association
    finally:
        association.release()
        if not association.is_released:
            association.abort()


def raw_contexts(site, names) -> list[tuple[str, str]]:
    return sorted({(site.samples[name].sop_class, site.samples[name].transfer_syntax) for name in names})


class Keeper:
    """Takes C-STORE sub-operations and keeps their bytes; `status` is what it answers."""

    def __init__(self, status: int = 0x0000, delay_s: float = 0) -> None:
        self.status = status
        self.delay_s = delay_s
        self.kept: dict[str, bytes] = {}
        self.handlers = [(evt.EVT_C_STORE, self._store)]

    def _store(self, event) -> int:
        time.sleep(self.delay_s)
        self.kept[event.request.AffectedSOPInstanceUID] = event.encoded_dataset(include_meta=False)
        return self.status


# --- C-GET -----------------------------------------------------------------------------------------------------------


def test_one_context_per_syntax_brings_a_mixed_study_whole(start_scp, site):
    scp, keeper = start_scp(plain()), Keeper()
    contexts = [*raw_contexts(site, MR_SYNTAXES), (GET, EXPLICIT_LITTLE)]
    study = site.samples["mr-rle"].study
    with associated(scp, contexts, handlers=keeper.handlers) as association:
        answers = list(association.send_c_get(identifier("STUDY", StudyInstanceUID=study), GET))
    assert keeper.kept == {site.samples[name].uid: site.samples[name].data for name in MR_SYNTAXES}
    remaining = [status.NumberOfRemainingSuboperations for status, _ in answers[:-1]]
    assert remaining == [4, 3, 2, 1]
    assert [status.Status for status, _ in answers] == [0xFF00] * 4 + [0x0000]
    last = answers[-1][0]
    assert last.NumberOfCompletedSuboperations == 5
    assert "NumberOfRemainingSuboperations" not in last


def test_what_has_no_context_is_in_the_list_of_failures(start_scp, site):
    scp, keeper = start_scp(plain()), Keeper()
    contexts = [*raw_contexts(site, ["mr-rle", "mr-implicit"]), (GET, EXPLICIT_LITTLE)]
    study = site.samples["mr-rle"].study
    with associated(scp, contexts, handlers=keeper.handlers) as association:
        *_, (status, failed) = association.send_c_get(identifier("STUDY", StudyInstanceUID=study), GET)
    assert status.Status == 0xB000
    assert (status.NumberOfCompletedSuboperations, status.NumberOfFailedSuboperations) == (2, 3)
    assert set(failed.FailedSOPInstanceUIDList) == {
        site.samples[name].uid for name in ("mr-big-endian", "mr-jpeg-ls", "mr-j2k-lossless")
    }


@pytest.mark.parametrize(
    ("answered", "final", "count"),
    [
        (0xB000, 0xB000, "NumberOfWarningSuboperations"),
        (0xA700, 0xA702, "NumberOfFailedSuboperations"),
        (0xC123, 0xA702, "NumberOfFailedSuboperations"),
    ],
)
def test_the_receivers_own_status_counts(start_scp, site, audit, answered, final, count):
    scp, keeper = start_scp(plain()), Keeper(answered)
    contexts = [*raw_contexts(site, ["ct"]), (GET, EXPLICIT_LITTLE)]
    with associated(scp, contexts, handlers=keeper.handlers) as association:
        asked = identifier("STUDY", StudyInstanceUID=site.samples["ct"].study)
        *_, (status, _) = association.send_c_get(asked, GET)
    assert status.Status == final
    assert status[count].value == 1
    (line,) = audit.lines(events.ORIGINAL_RESTORED)
    assert line["status"] == f"0x{answered:04X}"
    assert line["outcome"] == ("success" if answered == 0xB000 else "failure")


def test_a_client_that_knows_no_roles_is_served(start_scp, site):
    scp, keeper = start_scp(plain()), Keeper()
    contexts = [*raw_contexts(site, ["ct"]), (GET, EXPLICIT_LITTLE)]
    asked = identifier("STUDY", StudyInstanceUID=site.samples["ct"].study)
    with associated(scp, contexts, roles=False, handlers=keeper.handlers) as association:
        # pynetdicom as a client refuses such a request, so it is told that it took the role.
        for context in association.accepted_contexts:
            context._as_scp = True
        *_, (status, _) = association.send_c_get(asked, GET)
    assert status.Status == 0x0000
    assert keeper.kept == {site.samples["ct"].uid: site.samples["ct"].data}


def test_a_client_that_took_the_user_role_only_is_not(start_scp, site):
    scp, keeper = start_scp(plain()), Keeper()
    contexts = [*raw_contexts(site, ["ct"]), (GET, EXPLICIT_LITTLE)]
    asked = identifier("STUDY", StudyInstanceUID=site.samples["ct"].study)
    user_only = [build_role(CTImageStorage, scu_role=True)]
    with associated(scp, contexts, roles=False, ext_neg=user_only, handlers=keeper.handlers) as association:
        *_, (status, _) = association.send_c_get(asked, GET)
    assert status.Status == 0xA702
    assert keeper.kept == {}


def test_a_get_can_be_cancelled_between_two_suboperations(start_scp, site, audit):
    scp, keeper = start_scp(plain()), Keeper()
    contexts = [*raw_contexts(site, ["ct"]), (GET, EXPLICIT_LITTLE)]
    with associated(scp, contexts, handlers=keeper.handlers) as association:
        statuses = []
        asked = identifier("STUDY", StudyInstanceUID=MANY_STUDY)
        for status, _ in association.send_c_get(asked, GET, msg_id=7):
            statuses.append(status)
            if len(statuses) == 3:
                association.send_c_cancel(7, query_model=GET)
    last = statuses[-1]
    assert last.Status == 0xFE00
    assert last.NumberOfCompletedSuboperations == len(keeper.kept) < MANY
    assert last.NumberOfCompletedSuboperations + last.NumberOfRemainingSuboperations == MANY
    assert audit.lines(events.RETRIEVE)[0]["status"] == "0xFE00"


def test_a_requester_that_goes_away_in_the_middle(start_scp, site, audit):
    scp = start_scp(plain())
    contexts = [*raw_contexts(site, ["ct"]), (GET, EXPLICIT_LITTLE)]

    def leave(event) -> int:
        event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0x0000

    with associated(scp, contexts, handlers=[(evt.EVT_C_STORE, leave)]) as association:
        list(association.send_c_get(identifier("STUDY", StudyInstanceUID=MANY_STUDY), GET))
    (line,) = lines_soon(audit, events.RETRIEVE)
    assert line["completed"] < MANY
    assert line["remaining"] > 0
    assert until(lambda: not gateway_threads())


def test_a_requester_that_never_answers_is_given_up(start_scp, site, audit):
    scp, keeper = start_scp(plain(), idle_timeout_s=0.5), Keeper(delay_s=2.5)
    contexts = [*raw_contexts(site, ["ct"]), (GET, EXPLICIT_LITTLE)]
    with associated(scp, contexts, handlers=keeper.handlers) as association:
        list(association.send_c_get(identifier("STUDY", StudyInstanceUID=MANY_STUDY), GET))
    (line,) = lines_soon(audit, events.RETRIEVE)
    assert line["completed"] == 0
    assert len(keeper.kept) == 1
    assert until(lambda: not gateway_threads())


def test_memory_is_bounded_by_what_the_requester_takes(start_scp, site):
    """64 MiB to a slow requester: what is read from the vault stays close to what has arrived."""
    size = 64 << 20
    produced, arrived, ahead = [0], [0], []

    class Large:
        """The real restorer; its original goes on for long."""

        def by_locators(self, locators: list[str], named=None):
            found = site.restorer.by_locators(locators, named)
            for original in found.values():
                object.__setattr__(original, "stream", stream)
            return found

    def stream():
        for _ in range(size >> 20):
            produced[0] += 1 << 20
            ahead.append(produced[0] - arrived[0])
            yield bytes(1 << 20)

    def slowly(event) -> None:
        arrived[0] += len(event.data)
        time.sleep(0.002)

    scp, keeper = start_scp(plain(), of=replace(site, restorer=Large())), Keeper()
    contexts = [*raw_contexts(site, ["ct"]), (GET, EXPLICIT_LITTLE)]
    keeper.handlers.append((evt.EVT_DATA_RECV, slowly))
    asked = identifier("STUDY", StudyInstanceUID=site.samples["ct"].study)
    with associated(scp, contexts, handlers=keeper.handlers, max_pdu=131072) as association:
        *_, (status, _) = association.send_c_get(asked, GET)
    assert status.Status == 0x0000
    assert [len(data) for data in keeper.kept.values()] == [size]
    assert max(ahead) < 24 << 20  # queue, and what the sockets' own buffers hold


def test_patient_root_get(start_scp, site):
    scp, keeper = start_scp(plain()), Keeper()
    model = PatientRootQueryRetrieveInformationModelGet
    contexts = [*raw_contexts(site, ["ct"]), (model, EXPLICIT_LITTLE)]
    with associated(scp, contexts, handlers=keeper.handlers) as association:
        *_, (status, _) = association.send_c_get(identifier("PATIENT", PatientID="1CT1"), model)
    assert status.Status == 0x0000
    assert status.NumberOfCompletedSuboperations == 1 + MANY
    assert keeper.kept[site.samples["ct"].uid] == site.samples["ct"].data


# --- C-MOVE ----------------------------------------------------------------------------------------------------------


def receiver(keeper: Keeper, contexts):
    """A storage SCP of pynetdicom; its port is ``server.server_address[1]``."""
    ae = AE("READING1")
    for sop_class, syntax in contexts:
        ae.add_supported_context(sop_class, syntax)
    return ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=keeper.handlers)


def test_a_move_names_the_requester_as_originator(start_scp, site):
    keeper, named = Keeper(), set()

    def note(event) -> None:
        request = event.message.command_set
        if "MoveOriginatorMessageID" in request:
            named.add((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))

    keeper.handlers.append((evt.EVT_DIMSE_RECV, note))
    server = receiver(keeper, raw_contexts(site, ["ct"]))
    scp = start_scp(plain(port=server.server_address[1]))
    try:
        with associated(scp, [(MOVE, EXPLICIT_LITTLE)]) as association:
            asked = identifier("STUDY", StudyInstanceUID=site.samples["ct"].study)
            *_, (status, _) = association.send_c_move(asked, "READING1", MOVE, msg_id=4711)
    finally:
        server.shutdown()
    assert status.Status == 0x0000
    assert named == {("READING1", 4711)}
    assert keeper.kept == {site.samples["ct"].uid: site.samples["ct"].data}


def test_more_contexts_than_one_association_takes(start_scp, site, monkeypatch):
    """Of the 128 that DICOM allows, two are left here: five transfer syntaxes need three associations."""
    monkeypatch.setattr(retrieve, "MOST_CONTEXTS", 2)
    keeper, associations = Keeper(), []
    keeper.handlers.append((evt.EVT_ESTABLISHED, lambda event: associations.append(len(event.assoc.accepted_contexts))))
    server = receiver(keeper, raw_contexts(site, MR_SYNTAXES))
    scp = start_scp(plain(port=server.server_address[1]))
    try:
        with associated(scp, [(MOVE, EXPLICIT_LITTLE)]) as association:
            asked = identifier("STUDY", StudyInstanceUID=site.samples["mr-rle"].study)
            *_, (status, _) = association.send_c_move(asked, "READING1", MOVE)
    finally:
        server.shutdown()
    assert associations == [2, 2, 1]
    assert (status.Status, status.NumberOfCompletedSuboperations) == (0x0000, 5)
    assert keeper.kept == {site.samples[name].uid: site.samples[name].data for name in MR_SYNTAXES}


def test_a_receiver_that_goes_away_in_the_middle_fails_the_rest(start_scp, site, audit):
    keeper = Keeper()

    def leave_after_two(event) -> int:
        if len(keeper.kept) == 2:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            return 0x0000
        return keeper._store(event)

    keeper.handlers = [(evt.EVT_C_STORE, leave_after_two)]
    server = receiver(keeper, raw_contexts(site, MR_SYNTAXES))
    scp = start_scp(plain(port=server.server_address[1]))
    try:
        with associated(scp, [(MOVE, EXPLICIT_LITTLE)]) as association:
            asked = identifier("STUDY", StudyInstanceUID=site.samples["mr-rle"].study)
            *_, (status, failed) = association.send_c_move(asked, "READING1", MOVE)
    finally:
        server.shutdown()
    assert (status.Status, status.NumberOfCompletedSuboperations, status.NumberOfFailedSuboperations) == (0xB000, 2, 3)
    everything = {site.samples[name].uid for name in MR_SYNTAXES}
    assert set(failed.FailedSOPInstanceUIDList) == everything - keeper.kept.keys()
    lines = [line for line in audit.lines(events.ORIGINAL_RESTORED) if line["outcome"] == "failure"]
    assert {uid for line in lines for uid in line["sop_instance_uid"]} == everything - keeper.kept.keys()


def test_a_move_that_takes_longer_than_the_idle_timeout_ends_well(start_scp, site):
    """The requester is silent meanwhile: that is no idle association."""
    keeper = Keeper(delay_s=0.3)
    server = receiver(keeper, raw_contexts(site, MR_SYNTAXES))
    scp = start_scp(plain(port=server.server_address[1]), idle_timeout_s=0.6)
    try:
        with associated(scp, [(MOVE, EXPLICIT_LITTLE)]) as association:
            asked = identifier("STUDY", StudyInstanceUID=site.samples["mr-rle"].study)
            *_, (status, _) = association.send_c_move(asked, "READING1", MOVE)
    finally:
        server.shutdown()
    assert status.Status == 0x0000


# --- negotiation, bounds, endings ------------------------------------------------------------------------------------


def test_relational_queries_are_not_granted(start_scp, site):
    scp = start_scp(plain())
    wish = SOPClassExtendedNegotiation()
    wish.sop_class_uid = FIND
    wish.service_class_application_information = b"\x01\x01\x01"
    asked = identifier("IMAGE", SOPInstanceUID=site.samples["mr"].uid)
    with associated(scp, [(FIND, EXPLICIT_LITTLE)], ext_neg=[wish]) as association:
        assert association.acceptor.sop_class_extended == {}
        ((status, _),) = association.send_c_find(asked, FIND)
    assert status.Status == 0xA900
    assert status.ErrorComment == "StudyInstanceUID must be one value at level IMAGE"


def test_a_key_that_is_not_supported_is_told_by_the_status(start_scp, site):
    scp = start_scp(plain())
    asked = identifier("STUDY", StudyInstanceUID=site.samples["ct"].study)
    with associated(scp, [(FIND, EXPLICIT_LITTLE)]) as association:
        assert [status.Status for status, _ in association.send_c_find(asked, FIND)] == [0xFF00, 0x0000]
        asked.InstitutionalDepartmentName = ""
        answers = list(association.send_c_find(asked, FIND))
    assert [status.Status for status, _ in answers] == [0xFF01, 0x0000]
    assert answers[0][1].InstitutionalDepartmentName in ("", None)


def test_a_broken_identifier_is_answered(start_scp, audit):
    scp = start_scp(plain())
    with associated(scp, [(FIND, EXPLICIT_LITTLE)]) as association:
        ((status, _),) = send_raw(association, b"\x08\x00\x52\x00CS\xff\x00STUDY")
        assert status.Status == 0xA900
        ((status, _),) = send_raw(association, b"\x08\x00\x52\x00CS\x06\x00STUDY " + b"\x10\x00\x10\x00PN\xff\xffDOE")
        assert status.Status == 0xA900
    assert "DOE" not in audit.path.read_text()


def send_raw(association, data: bytes, sop_class: str = FIND):
    """A C-FIND with these bytes as its identifier."""
    request = C_FIND()
    request.MessageID = 1
    request.AffectedSOPClassUID = sop_class
    request.Priority = 2
    request.Identifier = BytesIO(data)
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.0001)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    return list(association._wrap_find_responses(association.accepted_contexts[0].transfer_syntax[0], FIND))


def test_a_request_on_a_context_of_another_class_is_refused(start_scp):
    scp = start_scp(plain())
    with associated(scp, [(FIND, EXPLICIT_LITTLE)]) as association:
        ((status, _),) = send_raw(
            association, b"\x08\x00\x52\x00CS\x06\x00STUDY ", PatientRootQueryRetrieveInformationModelFind
        )
    assert status.Status == 0x0122


def test_a_message_that_has_no_place_here_ends_the_association(start_scp):
    scp = start_scp(plain())
    with associated(scp, [(FIND, EXPLICIT_LITTLE)]) as association:
        context_id = association.accepted_contexts[0].context_id
        response = C_STORE()
        response.MessageIDBeingRespondedTo = 9
        response.Status = 0x0000
        association.dimse.send_msg(response, context_id)
        assert until(lambda: association.is_aborted, 60)
    assert until(lambda: not gateway_threads())


def test_stopping_ends_what_is_under_way(start_scp, site, audit):
    scp, keeper = start_scp(plain()), Keeper(delay_s=0.05)
    contexts = [*raw_contexts(site, ["ct"]), (GET, EXPLICIT_LITTLE)]
    with associated(scp, contexts, handlers=keeper.handlers) as association:
        asked = identifier("STUDY", StudyInstanceUID=MANY_STUDY)
        client = threading.Thread(target=lambda: list(association.send_c_get(asked, GET)))
        client.start()
        assert until(lambda: keeper.kept)
        scp.stop(drain_s=0.2)
        client.join(60)
    assert len(keeper.kept) < MANY
    (line,) = lines_soon(audit, events.RETRIEVE)
    assert line["remaining"] > 0
    assert until(lambda: not gateway_threads())


def test_an_idle_association_is_ended(start_scp):
    scp = start_scp(plain(), idle_timeout_s=0.4)
    with associated(scp, [(FIND, EXPLICIT_LITTLE)]) as association:
        assert until(lambda: not association.is_established, 3)
    assert until(lambda: not gateway_threads())


def test_associations_are_limited(start_scp, audit):
    scp = start_scp(plain(), max_associations=1)
    with associated(scp, [(FIND, EXPLICIT_LITTLE)]):
        ae = AE("READING1")
        ae.add_requested_context(FIND)
        second = ae.associate("127.0.0.1", scp.plain_port, ae_title="MIAD_RESTORE")
        assert second.is_rejected
    assert lines_soon(audit, events.ASSOCIATION_REFUSED)[0]["reason"] == "too-many-associations"


def test_plain_entries_are_warned_of_at_start(start_scp):
    with capture_logs() as lines:
        start_scp(plain("OLD1", port=11112))
    warned = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"].partition(":")[0] for line in warned] == ["PLAIN WORKSTATION", "PLAIN DESTINATION"]
    assert {line["ae_title"] for line in warned} == {"OLD1"}


def test_nothing_of_patients_in_log_and_audit(start_scp, site, audit, capsys):
    """Names, ids and dates of a query and of what it found."""
    scp, keeper = start_scp(plain()), Keeper()
    sample = site.samples["ct"]
    contexts = [*raw_contexts(site, ["ct"]), (GET, EXPLICIT_LITTLE), (FIND, EXPLICIT_LITTLE)]
    with associated(scp, contexts, handlers=keeper.handlers) as association:
        asked = identifier("STUDY", StudyInstanceUID="", PatientName="CompressedSamples^CT1", StudyDate="20040119")
        assert len(list(association.send_c_find(asked, FIND))) == 3
        list(association.send_c_get(identifier("STUDY", StudyInstanceUID=sample.study), GET))
        list(association.send_c_find(identifier("STUDY", PatientID=["1CT1"] * 3, StudyTime="x" * 400), FIND))
    said = capsys.readouterr()
    text = audit.path.read_text() + said.out + said.err
    assert sample.uid in text
    for secret in ("CompressedSamples", "1CT1", "xxxx"):
        assert secret not in text
    assert MRImageStorage not in text
