"""C-STORE of a copy that carries its original, to a restore SCP whose vault has nothing of it."""

from __future__ import annotations

import io
from functools import partial
from types import SimpleNamespace

import pydicom
import pytest
from pydicom.tag import Tag

from gateway.audit import events
from gateway.database import open_database, sqlite_url
from gateway.dicom.copy.uids import derived_uid
from gateway.dicom.encoding.private import GROUP
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.keys import Signer
from gateway.network.retrieve import receiving
from gateway.network.scu import Response
from gateway.restore import Restorer
from gateway.vault import Index, RecordStore
from tests.network.retrieve.conftest import plain
from tests.network.retrieve.test_protocol import MOVE, associated, identifier
from tests.network.retrieve.test_store import NOT_AUTHORISED, store
from tests.support.copies import Gateway
from tests.support.dicom.samples import encode
from tests.support.network import peers
from tests.support.retrieve.samples import FILES, FOLDER, Sample, from_file, received
from tests.support.retrieve.vaults import part10, write_part10
from tests.support.vault import facts_of

pytestmark = pytest.mark.peers

GATEWAY = Gateway()
CT, JPEG = (from_file(name, FOLDER / FILES[name]) for name in ("ct", "sc-jpeg"))
COPY = GATEWAY.copy(CT.data, CT.transfer_syntax)
WHOLE = GATEWAY.copy(JPEG.data, JPEG.transfer_syntax)  # carries its original whole


@pytest.fixture
def empty(tmp_path):
    """What stands behind a restore SCP, without any original; `records` to make some."""
    engine = open_database(sqlite_url(tmp_path / "gateway.sqlite"))
    keys = GATEWAY.opening
    records = RecordStore(
        engine,
        Signer(GATEWAY.signing),
        keys.verifier,
        vault_id="site",
        restore_public=GATEWAY.restore.public_key(),
        derive_uid=partial(derived_uid, b"u" * 32),
    )
    restorer = Restorer(engine, tmp_path / "vault", keys, "site")
    yield SimpleNamespace(index=Index(engine), restorer=restorer, records=records)
    engine.dispose()


@pytest.fixture
def desk(start_scp, empty, tmp_path):
    """The SCP, and the folder of a DCMTK storescp at the workstation's own address."""
    with peers.storescp(tmp_path / "desk", "+xa") as port:
        yield start_scp(plain(port=port), of=empty), tmp_path / "desk"


def ask(scp, copy: bytes = COPY, sample: Sample = CT, syntax: str = EXPLICIT_LITTLE) -> Response:
    return store(scp, copy, "2.25.1001", sample.sop_class, syntax)


def changed(change, syntax: str = EXPLICIT_LITTLE, copy: bytes = COPY) -> bytes:
    """The copy, as an archive that changed something writes it."""
    ds = pydicom.dcmread(io.BytesIO(part10(copy, EXPLICIT_LITTLE)))
    change(ds)
    return encode(ds, syntax)


def other_patient(ds) -> None:
    ds.PatientName = "Somebody^Else"


def one_value(ds) -> None:
    ds.PixelData = bytes([ds.PixelData[0] ^ 1]) + ds.PixelData[1:]


@pytest.mark.parametrize("sample", [CT, JPEG], ids=["residual", "whole"])
def test_storescu_sends_a_copy_and_the_original_arrives(desk, audit, tmp_path, sample):
    scp, folder = desk
    write_part10(tmp_path / "copy.dcm", GATEWAY.copy(sample.data, sample.transfer_syntax), EXPLICIT_LITTLE)
    done = peers.run(
        "storescu", "-v", "-aet", "READING1", "-aec", "MIAD_RESTORE", "127.0.0.1", scp.plain_port, tmp_path / "copy.dcm"
    )
    assert done.returncode == 0, done.stderr
    assert received(folder) == {sample.uid: sample.data}
    (line,) = audit.lines(events.ORIGINAL_RESTORED)
    assert (line["operation"], line["outcome"], line["sop_instance_uid"]) == ("C-STORE", "success", sample.uid)


@pytest.mark.parametrize("name", ["test-SR.dcm", "liver_1frame.dcm"])
def test_a_remapped_copy_gives_its_original(desk, name):
    scp, folder = desk
    sample = from_file(name, FOLDER / name)
    copy = GATEWAY.remapped(sample.data, sample.transfer_syntax)
    assert sample.uid.encode() not in copy
    assert ask(scp, copy, sample).status == 0
    assert received(folder) == {sample.uid: sample.data}


@pytest.mark.parametrize(("copy", "sample"), [(COPY, CT), (WHOLE, JPEG)], ids=["residual", "whole"])
def test_a_coerced_copy_in_implicit_vr(desk, copy, sample):
    scp, folder = desk
    coerced = changed(other_patient, IMPLICIT_LITTLE, copy)
    assert ask(scp, coerced, sample, IMPLICIT_LITTLE).status == 0
    assert received(folder) == {sample.uid: sample.data}


@pytest.mark.parametrize(("copy", "sample"), [(COPY, CT), (WHOLE, JPEG)], ids=["residual", "whole"])
def test_changed_pixels_are_refused_with_the_reason(desk, audit, copy, sample):
    scp, folder = desk
    response = ask(scp, changed(one_value, copy=copy), sample)
    assert (response.status, response.comment[:35]) == (0xC001, "the pixels of the marked copy were ")
    assert received(folder) == {}
    (line,) = audit.lines(events.RESTORE_REFUSED)
    assert (line["reason"], line["outcome"]) == ("marked-pixels-changed", "failure")


def test_a_study_out_of_scope_is_not_told_why(start_scp, empty, audit):
    scp = start_scp(plain(port=peers.free_port(), studies=("1.2.3",)), of=empty)
    assert ask(scp) == NOT_AUTHORISED
    assert ask(scp, changed(one_value)) == NOT_AUTHORISED
    assert [line["reason"] for line in audit.lines(events.RESTORE_REFUSED)] == ["study-not-in-scope"] * 2


def test_a_payload_of_another_object_is_a_security_alert(desk, audit):
    copy = GATEWAY.copy(CT.data, CT.transfer_syntax, "2.25.1003")
    other = pydicom.dcmread(io.BytesIO(part10(copy, EXPLICIT_LITTLE)))

    def paste(ds) -> None:
        ds[Tag(GROUP, 0x1011)] = other[Tag(GROUP, 0x1011)]

    scp, folder = desk
    assert ask(scp, changed(paste)) == NOT_AUTHORISED
    assert received(folder) == {}
    (line,) = audit.lines(events.RESTORE_REFUSED)
    assert (line["reason"], line["outcome"], line["event_id"]) == ("carried-tampered", "failure", "110113")


def test_a_copy_of_which_too_little_is_kept(desk, audit, monkeypatch):
    """Its header lies in what is kept, its pixels do not."""
    monkeypatch.setattr(receiving.BoundedDimse.__init__, "__defaults__", (len(COPY) - 100, None))
    scp, folder = desk
    response = ask(scp)
    assert (response.status, response.comment) == (0xC001, "too large here: use `miad-gateway restore`")
    assert received(folder) == {}
    (line,) = audit.lines(events.RESTORE_REFUSED)
    assert line["reason"] == "copy-too-large"


def test_c_move_tells_where_the_original_is(start_scp, empty, audit):
    record = empty.records.create(facts_of(CT.data, CT.uid, study_uid=CT.study, is_carried=True))
    scp = start_scp(plain(port=peers.free_port()), of=empty)
    keys = identifier(
        "IMAGE", StudyInstanceUID=CT.study, SeriesInstanceUID="1.2.3", SOPInstanceUID=record.original_sop_uid
    )
    with associated(scp, [(MOVE, EXPLICIT_LITTLE)]) as association:
        final = [status for status, _ in association.send_c_move(keys, "READING1", MOVE)][-1]
    assert (final.Status, final.NumberOfFailedSuboperations) == (0xA702, 1)
    assert final.ErrorComment == "not in the vault: C-STORE the marked copy here"
    assert [line["reason"] for line in audit.lines(events.RESTORE_REFUSED)] == ["carried"]
