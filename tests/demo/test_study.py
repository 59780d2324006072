"""A whole study between foreign peers: Orthanc -> gateway -> Orthanc, and back to an authorized workstation."""

from __future__ import annotations

import io
import shutil
import sys
import time
from pathlib import Path

import highdicom as hd
import pydicom
import pytest
from highdicom.sr.coding import CodedConcept
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.config import load_config
from gateway.demo.peers import GATEWAY, Orthanc, start_archive, start_outside
from gateway.demo.processes import Programs, listens
from gateway.demo.site import ARCHIVE_AE, RESTORE_AE, WORKSTATION_AE, Site, prepare_site
from gateway.demo.workstation import Wanted, Workstation
from gateway.dicom.encoding.part10 import split_part10
from gateway.flow.selection import list_instances
from gateway.flow.store import DELIVERED, HELD
from gateway.service import database
from tests.conftest import missing
from tests.support.dicom import studies
from tests.support.dicom.reference_rows import OUTCOMES, OWN, uids

TIMEOUT_S = 150
SOURCE = ("SourceImageSequence", "ReferencedSOPInstanceUID")


@pytest.fixture(params=["keep", pytest.param("new", marks=pytest.mark.full)])  # new, quickly: flow/test_new_study.py
def site(tmp_path, request) -> Site:
    """The demo's site, with a mark of 0 steps, on a route that lets structure sets out; both kinds of study UID."""
    site = prepare_site(tmp_path / "demo")
    text = site.config_file.read_text()
    [line] = [line for line in text.splitlines() if line.startswith("mark = ")]
    mark = 'mark = { tier = "lettered", steps = 0 }\nrules = [{ modality = "RTSTRUCT", action = "remap" }]'
    mark += f'\nstudy_uid = "{request.param}"'
    site.config_file.write_text(text.replace(line, mark))
    return site


def the_study() -> list[list[Dataset]]:
    """CT, SEG, SR, KO, PR and RTSTRUCT, an association each list: references come before and after what they name."""
    images = studies.slices()
    for image, other in (images, images[::-1]):  # as to a localizer: one comes later, whatever the order
        image.ReferencedImageSequence = [studies.reference(other)]
        image.pop("DataSetTrailingPadding", None)  # Orthanc keeps it in its file and leaves it out when it sends
    made = studies.others(images)
    series = hd.sr.UIDRefContentItem(
        CodedConcept("112002", "DCM", "Series Instance UID"),
        images[0].SeriesInstanceUID,
        relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
    )
    made["SR"].ContentSequence.append(series)
    made["RTSTRUCT"].file_meta = FileMetaDataset()
    made["RTSTRUCT"].file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return [[made["SR"], made["KO"]], images[:1], [made["PR"], made["SEG"], made["RTSTRUCT"]], images[1:]]


@pytest.mark.peers
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_study_goes_out_whole_and_comes_back_as_the_archive_has_it(site, tmp_path):
    if not (shutil.which("Orthanc") or Path("/usr/sbin/Orthanc").exists()):
        missing("Orthanc")
    groups = the_study()
    objects = [ds for group in groups for ds in group]
    with Programs() as programs:
        archive, outside = start_archive(programs, site), start_outside(programs, site)
        command = [sys.executable, "-m", "gateway.cli", "serve", "--role", "all", "--config", str(site.config_file)]
        gateway = programs.start("the gateway", command, site.logs / "gateway.log")
        archive.wait_until_ready()
        outside.wait_until_ready()
        ports = site.ports
        gateway.wait_for("it listens", lambda: listens(ports.gateway) and listens(ports.restore), TIMEOUT_S)
        sent = 0
        for group in groups:
            archive.send([archive.upload(_file(ds, tmp_path)) for ds in group], GATEWAY)
            sent += len(group)
            _wait(site, sent)  # what this names, and was not sent yet, is unknown to the gateway
        copies = _held_by(outside)
        files = _held_by(archive)
        before = _from(ARCHIVE_AE, ports.archive, objects, objects)
        after = _from(RESTORE_AE, ports.restore, [ds for ds, _ in copies.values()], objects, site)
    keeps = load_config(site.config_file).routes[0].study_uid == "keep"
    _assert_whole({uid: ds for uid, (ds, _) in copies.items()}, objects, keeps)
    assert {received.sop_instance_uid for received in after} == {str(ds.SOPInstanceUID) for ds in objects}
    witness = {received.sop_instance_uid: received for received in before}
    for received in after:
        ds, data = files[received.sop_instance_uid]
        assert received.data == data == witness[received.sop_instance_uid].data, ds.Modality


def _file(ds: Dataset, folder: Path) -> Path:
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def _wait(site: Site, wanted: int) -> None:
    """Until all are delivered; what is held fails with its reasons."""
    engine = database(load_config(site.config_file))
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while True:
            entries = list_instances(engine)
            assert [(e.reason_code, e.reason) for e in entries if e.state == HELD] == []
            if sum(entry.state == DELIVERED for entry in entries) == wanted:
                return
            assert time.monotonic() < deadline, [entry.state for entry in entries]
            time.sleep(0.2)
    finally:
        engine.dispose()


def _held_by(pacs: Orthanc) -> dict[str, tuple[Dataset, bytes]]:
    """SOP Instance UID -> what pydicom reads in the file that lies there, and its bytes after the File Meta."""
    held = {}
    for identifier in pacs.instances():
        file = pacs.file(identifier)
        ds = pydicom.dcmread(io.BytesIO(file))
        _, offset = split_part10(io.BytesIO(file))
        held[str(ds.SOPInstanceUID)] = ds, file[offset:]
    return held


def _from(title: str, port: int, wanted: list[Dataset], kinds: list[Dataset], site: Site | None = None):
    """What a workstation gets for these UIDs by C-GET; over TLS from the gateway."""
    offered = {(str(ds.SOPClassUID), str(ds.file_meta.TransferSyntaxUID)) for ds in kinds}
    workstation = Workstation(WORKSTATION_AE, offered, site.tls("workstation") if site else None)
    keys = [Wanted(str(d.StudyInstanceUID), str(d.SeriesInstanceUID), str(d.SOPInstanceUID)) for d in wanted]
    answers = workstation.get(title, port, keys)
    assert all(answers), "an instance was not returned"
    return answers


def _assert_whole(copies: dict[str, Dataset], objects: list[Dataset], keeps_study: bool) -> None:
    """As many as were sent, one study, and every UID that refers names an instance, a series or the study there."""
    originals = {str(ds.SOPInstanceUID) for ds in objects}
    of_originals = {str(ds.SeriesInstanceUID) for ds in objects}
    assert len(copies) == len(objects) and not originals & set(copies)
    series = {str(ds.SeriesInstanceUID) for ds in copies.values()}
    assert len(series) == len(of_originals) and not of_originals & series
    [study] = {str(ds.StudyInstanceUID) for ds in copies.values()}
    of_original = str(objects[0].StudyInstanceUID)
    assert (study == of_original) == keeps_study
    there = {"instance": set(copies), "series": series, "study": {study}}
    for ds in copies.values():
        found = [(key, uid) for key, values in uids(ds) if key not in OWN for uid in values]
        if ds.Modality == "CT":  # its own original, which a site may have named or not
            [own] = [pair for pair in found if pair[0] == SOURCE]
            assert own[1] in originals
            found.remove(own)
        named = 0
        for key, uid in found:
            if (outcome := OUTCOMES[key]) in there:
                assert uid in there[outcome], (ds.Modality, key)
                named += outcome != "study"
            else:
                assert uid not in originals | of_originals | {of_original}, (ds.Modality, key)
        assert named, ds.Modality
