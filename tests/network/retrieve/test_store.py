"""A workstation sends a marked copy by C-STORE and receives the original at its own address."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from gateway.audit import events
from gateway.network.retrieve import receiving
from gateway.network.scu import Peer, Response, ScuAssociation
from tests.network.retrieve.conftest import plain
from tests.support.network import peers
from tests.support.retrieve.samples import received
from tests.support.retrieve.vaults import write_part10

pytestmark = pytest.mark.peers

EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
NOT_AUTHORISED = Response(0x0124, "not authorised")


def store(scp, data: bytes, uid: str, sop_class: str, syntax: str = EXPLICIT) -> Response:
    association = ScuAssociation(Peer("127.0.0.1", scp.plain_port, "MIAD_RESTORE", "READING1"), [(sop_class, syntax)])
    try:
        return association.store(sop_class, uid, syntax, io.BytesIO(data))
    finally:
        association.release()


@pytest.fixture
def desk(start_scp, tmp_path):
    """A restore SCP, and the folder of a DCMTK storescp at the workstation's own address."""
    with peers.storescp(tmp_path / "desk", "+xa") as port:
        yield start_scp(plain(port=port)), tmp_path / "desk"


def ask(scp, site, name: str, **how: object) -> Response:
    sample = site.samples[name]
    return store(scp, site.marked(name, **how), site.records[name].derived_sop_uid, sample.sop_class)


@pytest.mark.parametrize("stripped", [False, True], ids=["by token", "by derived UID"])
def test_storescu_sends_a_copy_and_the_original_arrives(desk, site, tmp_path, stripped):
    scp, folder = desk
    sample = site.samples["mr"]
    copy = tmp_path / "copy.dcm"
    write_part10(copy, site.marked("mr", stripped=stripped), EXPLICIT)
    done = peers.run("storescu", "-v", "-aet", "READING1", "-aec", "MIAD_RESTORE", "127.0.0.1", scp.plain_port, copy)
    assert done.returncode == 0, done.stderr
    assert "Store Response (Success)" in done.stdout + done.stderr
    assert received(folder) == {sample.uid: sample.data}


@pytest.mark.parametrize("syntax", [IMPLICIT, DEFLATED, "1.2.840.10008.1.2.2"])
def test_a_copy_that_an_archive_wrote_anew(desk, site, syntax):
    """In implicit VR the private block comes back as UN or by its creator only."""
    scp, folder = desk
    sample = site.samples["ct"]
    copy = site.marked("ct", syntax=syntax)
    assert store(scp, copy, site.records["ct"].derived_sop_uid, sample.sop_class, syntax).status == 0
    assert received(folder) == {sample.uid: sample.data}


def test_the_restoration_is_audited(desk, site, audit):
    scp, _ = desk
    assert ask(scp, site, "ct").status == 0
    (line,) = audit.lines(events.ORIGINAL_RESTORED)
    assert (line["operation"], line["outcome"]) == ("C-STORE", "success")
    assert (line["sop_instance_uid"], line["calling_ae"]) == (site.samples["ct"].uid, "READING1")


def test_a_token_moved_to_another_object_opens_nothing(desk, site, audit):
    scp, folder = desk
    assert ask(scp, site, "mr", token=site.records["ct"].token) == NOT_AUTHORISED
    assert received(folder) == {}
    (line,) = audit.lines(events.RESTORE_REFUSED)
    assert (line["reason"], line["outcome"]) == ("token-not-for-this-object", "failure")
    assert line["event_id"] == "110113"  # security alert


def test_what_is_not_in_the_vault_and_what_is_out_of_scope_look_alike(start_scp, site, audit):
    scp = start_scp(plain(port=peers.free_port(), studies=(site.samples["ct"].study,)))
    assert ask(scp, site, "mr") == NOT_AUTHORISED
    assert ask(scp, site, "mr", stripped=True) == NOT_AUTHORISED
    stranger = generate_uid()
    data = site.marked("mr", stripped=True, uid=stranger)
    assert store(scp, data, stranger, site.samples["mr"].sop_class) == NOT_AUTHORISED
    reasons = [line["reason"] for line in audit.lines(events.RESTORE_REFUSED)]
    assert reasons[:2] == ["study-not-in-scope", "study-not-in-scope"]
    assert reasons[2] != "study-not-in-scope"
    assert audit.lines(events.ORIGINAL_RESTORED) == []


def test_a_workstation_without_an_address_is_told_so(start_scp, site):
    scp = start_scp(plain())
    assert ask(scp, site, "ct") == Response(0x0124, "no address configured to send originals to")


def test_success_is_said_only_when_the_original_has_arrived(start_scp, site, audit):
    scp = start_scp(plain(port=peers.free_port()))
    assert ask(scp, site, "ct").status == 0xA700
    (line,) = audit.lines(events.RESTORE_REFUSED)
    assert line["reason"] == "unreachable"


def test_a_receiver_that_takes_another_syntax_only(start_scp, site, tmp_path):
    with peers.storescp(tmp_path / "desk", "+xi") as port:
        scp = start_scp(plain(port=port))
        assert ask(scp, site, "ct").status == 0x0122
    assert received(tmp_path / "desk") == {}


def test_uids_that_differ_between_command_and_data_set(desk, site):
    scp, folder = desk
    assert store(scp, site.marked("ct"), generate_uid(), site.samples["ct"].sop_class).status == 0xA900
    assert received(folder) == {}


@pytest.mark.parametrize("data", [b"no dicom at all, just words", b"\x08\x00\x05\x00CS\xff\x7f"])
def test_what_is_no_data_set(desk, site, data):
    scp, _ = desk
    assert store(scp, data, generate_uid(), site.samples["ct"].sop_class).status == 0xC000


def test_of_a_large_copy_only_the_beginning_is_kept(desk, site, monkeypatch):
    scp, folder = desk
    kept = []
    write = receiving.BoundedBuffer.write

    def watched(buffer, data):
        done = write(buffer, data)
        kept.append(buffer.tell())
        return done

    monkeypatch.setattr(receiving.BoundedBuffer, "write", watched)
    sample = site.samples["ct"]
    rest = bytes(receiving.MAX_DATA_SET)
    copy = site.marked("ct", pixels=rest)
    assert store(scp, copy, site.records["ct"].derived_sop_uid, sample.sop_class).status == 0
    assert max(kept) == receiving.MAX_DATA_SET < len(copy)
    assert received(folder) == {sample.uid: sample.data}


def test_pdus_of_every_size(start_scp, site, tmp_path: Path):
    """The workstation's own limit on PDUs is kept, the smallest as well as none."""
    for size in (4096, 131072):
        folder = tmp_path / str(size)
        with peers.storescp(folder, "+xa", "-pdu", str(size)) as port:
            scp = start_scp(plain(port=port), max_pdu=16384)
            assert ask(scp, site, "mr").status == 0
        assert received(folder) == {site.samples["mr"].uid: site.samples["mr"].data}
