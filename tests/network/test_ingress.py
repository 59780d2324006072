"""The ingress against real senders (DCMTK) and against senders that misbehave."""

from __future__ import annotations

import errno
import io
import logging
import socket
import threading
import time

import pytest
from pydicom import dcmread

from gateway.audit import events
from gateway.config.models import Peer
from gateway.errors import CapacityError, DicomError, TransientError, VaultError
from gateway.network.contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from gateway.network.incoming import sentence_of, status_of
from gateway.network.provider import GatewayDul
from gateway.network.scu import Peer as Called
from gateway.network.scu import ScuAssociation
from gateway.network.upper_layer import GatewayAssociation
from tests.support.network import peers
from tests.support.network.samples import BIG, CT, EXPLICIT, IMPLICIT, JPEG_LS, MR, ct, data_set_bytes, pydicom_file

# storescu option that proposes the transfer syntax of the file, and the file
SYNTAXES = [
    ("-xi", "MR_small_implicit.dcm", "1.2.840.10008.1.2"),
    ("-xe", "CT_small.dcm", "1.2.840.10008.1.2.1"),
    ("-xb", "MR_small_bigendian.dcm", "1.2.840.10008.1.2.2"),
    ("-xd", "image_dfl.dcm", "1.2.840.10008.1.2.1.99"),
    ("-xr", "MR_small_RLE.dcm", "1.2.840.10008.1.2.5"),
    ("-xy", "SC_rgb_jpeg_dcmtk.dcm", "1.2.840.10008.1.2.4.50"),
    ("-xx", "JPGExtended.dcm", "1.2.840.10008.1.2.4.51"),
    ("-xs", "SC_rgb_jpeg_gdcm.dcm", "1.2.840.10008.1.2.4.70"),
    ("-xt", "MR_small_jpeg_ls_lossless.dcm", "1.2.840.10008.1.2.4.80"),
    ("-xu", "JPEGLSNearLossless_16.dcm", "1.2.840.10008.1.2.4.81"),
    ("-xv", "MR_small_jp2klossless.dcm", "1.2.840.10008.1.2.4.90"),
    ("-xw", "693_J2KI.dcm", "1.2.840.10008.1.2.4.91"),
    ("-xe", "test-SR.dcm", "1.2.840.10008.1.2.1"),
    ("-xe", "waveform_ecg.dcm", "1.2.840.10008.1.2.1"),
    ("-xi", "rtplan.dcm", "1.2.840.10008.1.2"),
]


def called(ingress, **more) -> Called:
    settings = {"called_ae": "GATEWAY", "calling_ae": "ARCHIVE", "response_timeout_s": 30, "connect_timeout_s": 20}
    return Called("127.0.0.1", ingress.port, **{**settings, **more})


def gateway_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if isinstance(thread, GatewayAssociation | GatewayDul)]


def until(condition, within_s: float = 50) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.peers
@pytest.mark.parametrize(("option", "name", "syntax"), SYNTAXES)
def test_every_transfer_syntax_comes_as_the_sender_wrote_it(start_ingress, receiver, tmp_path, option, name, syntax):
    """Storescu writes the same bytes to the ingress as to DCMTK's own bit-preserving storescp."""
    ingress = start_ingress()
    file = pydicom_file(name)
    options = ("-R", option, "-aet", "ARCHIVE")
    sent = peers.run("storescu", *options, "-aec", "GATEWAY", "127.0.0.1", ingress.port, file)
    assert sent.returncode == 0, sent.stderr
    with peers.storescp(tmp_path / "reference", "+xa", "-pm") as port:
        peers.run("storescu", *options, "-aec", "OUTSIDE", "127.0.0.1", port, file)
    (reference,) = (tmp_path / "reference").iterdir()
    (kept,) = receiver.kept
    assert kept.state == "committed"
    assert kept.data == data_set_bytes(reference)
    assert kept.facts.transfer_syntax_uid == syntax
    assert kept.facts.calling_ae == "ARCHIVE" and kept.facts.called_ae == "GATEWAY"
    assert kept.facts.peer_address == "127.0.0.1" and len(kept.facts.association_id) == 16


@pytest.mark.peers
def test_all_syntaxes_in_one_context_take_the_senders_first(start_ingress, receiver):
    """Storescu +C offers the compressed syntax first and the native ones in the same context."""
    ingress = start_ingress()
    file = pydicom_file("MR_small_jpeg_ls_lossless.dcm")
    sent = peers.run(
        "storescu", "-R", "+C", "-xt", "-aet", "ARCHIVE", "-aec", "GATEWAY", "127.0.0.1", ingress.port, file
    )
    assert sent.returncode == 0, sent.stderr
    assert receiver.kept[0].facts.transfer_syntax_uid == JPEG_LS


@pytest.mark.peers
def test_orthanc_as_the_archive_sends_compressed_and_native(start_ingress, receiver):
    ingress = start_ingress()
    names = ["CT_small.dcm", "rtplan.dcm", "MR_small_jpeg_ls_lossless.dcm", "693_J2KI.dcm", "SC_rgb_rle.dcm"]
    files = [pydicom_file(name) for name in names]
    with peers.orthanc("ARCHIVE", {"gateway": ["GATEWAY", "127.0.0.1", ingress.port]}) as archive:
        instances = [archive.upload(file.read_bytes()) for file in files]
        account = archive.send(instances, "gateway")
    assert account["FailedInstancesCount"] == 0
    assert len(receiver.committed) == len(files)
    syntaxes = {kept.facts.transfer_syntax_uid for kept in receiver.kept}
    assert syntaxes == {str(dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID) for file in files}


def test_each_known_transfer_syntax_is_accepted(start_ingress, receiver):
    """Also those that DCMTK cannot send: retired JPEG processes, HTJ2K, JPEG XL."""
    ingress = start_ingress()
    syntaxes = sorted(TRANSFER_SYNTAXES)
    assert len(syntaxes) > 50 and {IMPLICIT, BIG, JPEG_LS, "1.2.840.10008.1.2.4.201"} <= TRANSFER_SYNTAXES
    association = ScuAssociation(called(ingress), [(CT, syntax) for syntax in syntaxes])
    for syntax in syntaxes:
        assert association.store(CT, "1.2.3", syntax, io.BytesIO(syntax.encode())).status == 0
    association.release()
    assert [kept.facts.transfer_syntax_uid for kept in receiver.kept] == syntaxes
    assert [kept.data.decode() for kept in receiver.kept] == syntaxes


def test_every_storage_class_is_accepted(start_ingress):
    ingress = start_ingress()
    classes = sorted(STORAGE_CLASSES)
    assert len(classes) > 180
    for part in (classes[:100], classes[100:]):
        association = ScuAssociation(called(ingress), [(uid, EXPLICIT) for uid in part])
        assert set(association.accepted) == {(uid, EXPLICIT) for uid in part}
        association.release()


def test_unknown_and_private_classes_and_syntaxes_are_refused_each_alone(start_ingress):
    ingress = start_ingress()
    good = (CT, IMPLICIT)
    refused = [("1.2.840.113619.4.26", IMPLICIT), ("1.2.840.10008.1.3.10", IMPLICIT), (MR, "1.2.840.113619.5.2")]
    association = ScuAssociation(called(ingress), [*refused, good])
    assert set(association.accepted) == {good}
    association.release()


@pytest.mark.peers
@pytest.mark.parametrize("called_ae", ["GATEWAY", "GATEWAY2"])
def test_echo_on_every_called_ae(start_ingress, called_ae):
    ingress = start_ingress()
    assert peers.run("echoscu", "-aet", "ARCHIVE", "-aec", called_ae, "127.0.0.1", ingress.port).returncode == 0


@pytest.mark.peers
@pytest.mark.parametrize(
    ("calling", "called_ae", "addresses", "says", "reason"),
    [
        ("ARCHIVE", "NOBODY", ("127.0.0.1",), "Called AE Title Not Recognized", "called-ae-unknown"),
        ("STRANGER", "GATEWAY", ("127.0.0.1",), "Calling AE Title Not Recognized", "calling-ae-unknown"),
        ("STRANGER", "NOBODY", ("127.0.0.1",), "Calling AE Title Not Recognized", "calling-ae-unknown"),
        ("ARCHIVE", "GATEWAY", ("10.1.0.0/16", "::1"), "Calling AE Title Not Recognized", "address-not-listed"),
    ],
)
def test_who_is_not_listed_is_rejected_and_audited(
    start_ingress, receiver, audit, calling, called_ae, addresses, says, reason
):
    ingress = start_ingress(peers=(Peer(ae_title="ARCHIVE", addresses=addresses),))
    file = pydicom_file("CT_small.dcm")
    sent = peers.run("storescu", "-aet", calling, "-aec", called_ae, "127.0.0.1", ingress.port, file)
    assert sent.returncode != 0 and says in sent.stderr
    assert not receiver.kept
    assert until(lambda: audit.lines(events.ASSOCIATION_REFUSED))
    (line,) = audit.lines(events.ASSOCIATION_REFUSED)
    assert line["reason"] == reason and line["calling_ae"] == calling and line["peer_address"] == "127.0.0.1"


def test_nobody_is_listed_by_default(start_ingress):
    ingress = start_ingress(peers=())
    with pytest.raises(Exception, match="rejected"):
        ScuAssociation(called(ingress), [(CT, EXPLICIT)])


def test_data_arrives_while_the_sender_is_still_sending(start_ingress, receiver):
    """Neither side ever holds the whole object: the receiver has its beginning before the sender has its end."""
    ingress = start_ingress()
    seen = []

    class Slow(io.RawIOBase):
        left = 8

        def read(self, size: int = -1) -> bytes:
            if self.left == 2:
                seen.append(until(lambda: receiver.kept and len(receiver.kept[0].data) > 100_000))
            self.left -= 1
            return bytes(size) if self.left >= 0 else b""

    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    assert association.store(CT, "1.2.3", EXPLICIT, Slow()).status == 0
    association.release()
    assert seen == [True]


@pytest.mark.parametrize("way", ["abort", "close"])
def test_an_object_cut_off_in_the_middle_leaves_nothing(start_ingress, receiver, audit, way, caplog):
    caplog.set_level("INFO")
    ingress = start_ingress()
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])

    class Breaks(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            if not until(lambda: receiver.kept and receiver.kept[0].data, 0.2):
                return bytes(size)
            if way == "close":
                association._wire._socket.shutdown(socket.SHUT_RDWR)
            raise RuntimeError("the sender dies")

    with pytest.raises(RuntimeError):
        association.store(CT, "1.2.3", EXPLICIT, Breaks())
    assert until(lambda: receiver.kept[0].state == "aborted")
    assert until(lambda: audit.lines(events.INSTANCE_REFUSED))
    (line,) = audit.lines(events.INSTANCE_REFUSED)
    assert line["reason"] == "aborted-mid-object" and line["outcome"] == "failure"
    assert f"instance refused: aborted-mid-object, 0x0110, from {line['calling_ae']} 127.0.0.1" in caplog.text
    assert until(lambda: not gateway_threads())
    assert audit.lines(events.ASSOCIATION_CLOSED)[0]["received"] == 0


@pytest.mark.parametrize("where", ["fail_begin", "fail_commit"])
@pytest.mark.parametrize(
    ("error", "status", "comment"),
    [
        (CapacityError("disk-full", "no space"), 0xA700, "disk-full"),
        (OSError(errno.ENOSPC, "No space left on device"), 0xA700, "disk-full"),
        (DicomError("uid-mismatch", "the data set is another"), 0xA900, "uid-mismatch"),
        (DicomError("sop-class-mismatch", "of another class"), 0xA900, "sop-class-mismatch"),
        (DicomError("not-dicom", "no"), 0xC001, "not-dicom"),
        (DicomError("truncated", "no"), 0xC002, "truncated"),
        (DicomError("already-marked", "ours"), 0xC010, "already-marked"),
        (DicomError("something-new", "no"), 0xC000, "something-new"),
        (VaultError("vault-unreachable", "no"), 0x0110, "vault-unreachable"),
        (ValueError("DOE^JANE is not a number"), 0x0110, "internal-error"),
    ],
)
def test_an_error_is_answered_with_its_status_and_the_association_lives_on(
    start_ingress, receiver, audit, caplog, where, error, status, comment
):
    ingress = start_ingress()
    setattr(receiver, where, error)
    uid, data = ct()
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    with caplog.at_level(logging.DEBUG):
        response = association.store(CT, uid, EXPLICIT, io.BytesIO(data))
    assert (response.status, response.comment) == (status, sentence_of(error))
    assert response.comment.startswith(comment) and "DOE" not in response.comment
    assert not receiver.committed and all(kept.state == "aborted" for kept in receiver.kept)
    setattr(receiver, where, None)
    assert association.store(CT, uid, EXPLICIT, io.BytesIO(data)).status == 0
    association.release()
    assert receiver.committed == {uid: data}
    (line,) = audit.lines(events.INSTANCE_REFUSED)
    assert line["status"] == f"0x{status:04X}" and line["reason"] == comment and line["sop_instance_uid"] == uid
    assert "DOE" not in audit.path.read_text() and "DOE" not in caplog.text
    assert status_of(error) == (status, comment)


def test_the_sender_s_log_shows_a_sentence(start_ingress, receiver):
    """Not a bare number, which nobody can act on."""
    ingress = start_ingress()
    receiver.fail_admit = CapacityError("disk-low", "100 MiB free in the spool, 512 needed \\ é" + "x" * 60)
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    response = association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(bytes(400)))
    association.release()
    assert response.status == 0xA700
    assert response.comment == "disk-low: 100 MiB free in the spool, 512 needed / ?" + "x" * 13


def test_admission_is_asked_before_the_first_byte(start_ingress, receiver, full_disk):
    ingress = start_ingress()
    receiver.fail_admit = full_disk
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    assert association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(bytes(400_000))).status == 0xA700
    association.release()
    assert not receiver.kept


def test_a_disk_that_fills_in_mid_object_refuses_that_object_only(start_ingress, receiver, full_disk):
    ingress = start_ingress()
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    receiver.fail_write_after = (300_000, full_disk)
    big, small = bytes(1_000_000), bytes(1000)
    assert association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(big)).status == 0xA700
    assert association.store(CT, "1.2.4", EXPLICIT, io.BytesIO(small)).status == 0
    association.release()
    assert [kept.state for kept in receiver.kept] == ["aborted", "committed"]


def test_an_object_over_the_limit_is_refused(start_ingress, receiver):
    ingress = start_ingress(max_instance_mib=1)
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    assert association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(bytes((1 << 20) + 1))).status == 0xC011
    assert association.store(CT, "1.2.4", EXPLICIT, io.BytesIO(bytes(1 << 20))).status == 0
    association.release()
    assert list(receiver.committed) == ["1.2.4"]


def test_a_command_that_does_not_fit_its_context_is_refused(start_ingress, receiver):
    ingress = start_ingress()
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    association.accepted[MR, EXPLICIT] = association.accepted[CT, EXPLICIT]
    assert association.store(MR, "1.2.3", EXPLICIT, io.BytesIO(b"x" * 10)).status == 0x0122
    assert association.store(CT, "DOE^JANE", EXPLICIT, io.BytesIO(b"x" * 10)).status == 0xC003
    association.release()
    assert not receiver.kept


def test_a_context_that_was_not_accepted_ends_the_association(start_ingress, receiver):
    ingress = start_ingress()
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    association.accepted[CT, BIG] = 99
    with pytest.raises(TransientError):
        association.store(CT, "1.2.3", BIG, io.BytesIO(b"x" * 10))
    assert not receiver.kept and until(lambda: not gateway_threads())


def test_success_stays_success_when_the_peer_is_gone_by_then(start_ingress, receiver):
    """The commit is the promise: that nobody hears of it does not undo it."""
    ingress = start_ingress()
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    receiver.on_write = association._wire._socket.close
    uid, data = ct()
    with pytest.raises((TransientError, OSError)):
        association.store(CT, uid, EXPLICIT, io.BytesIO(data))
    assert until(lambda: receiver.kept[0].state == "committed")
    assert until(lambda: not gateway_threads()) and receiver.kept[0].state == "committed"


def test_the_end_of_an_association_is_audited_with_its_counts(start_ingress, receiver, audit):
    ingress = start_ingress()
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    for uid in ("1.2.1", "1.2.2"):
        association.store(CT, uid, EXPLICIT, io.BytesIO(b"x" * 10))
    receiver.fail_commit = DicomError("truncated", "no")
    association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"x" * 10))
    association.release()
    assert until(lambda: audit.lines(events.ASSOCIATION_CLOSED))
    (line,) = audit.lines(events.ASSOCIATION_CLOSED)
    assert line["received"] == 2 and line["failed"] == 1 and line["bytes"] == 30 and line["outcome"] == "success"
    assert line["statuses"] == {"0x0000": 2, "0xC002": 1}


def test_a_refusal_is_answered_although_the_audit_cannot_be_written(start_ingress, receiver, audit, full_disk):
    ingress = start_ingress()
    receiver.fail_begin = full_disk
    association = ScuAssociation(called(ingress), [(CT, EXPLICIT)])
    audit.path.mkdir()  # opening it for writing fails
    assert association.store(CT, "1.2.3", EXPLICIT, io.BytesIO(b"x" * 10)).status == 0xA700
    association.release()
    audit.path.rmdir()
