"""A whole study between foreign peers: Orthanc -> gateway -> Orthanc, and back to an authorized workstation."""

from __future__ import annotations

import io
import shutil
import sys
import time
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from gateway.config import load_config
from gateway.demo.peers import GATEWAY, Orthanc, start_archive, start_outside
from gateway.demo.processes import Programs, listens
from gateway.demo.site import ARCHIVE_AE, RESTORE_AE, WORKSTATION_AE, Site, prepare_site
from gateway.demo.workstation import Wanted, Workstation
from gateway.flow.operations import list_instances
from gateway.flow.store import DELIVERED, HELD
from gateway.service import database
from tests.conftest import missing
from tests.dicom import studies

TIMEOUT_S = 150


@pytest.fixture
def site(tmp_path) -> Site:
    """The demo's site, with a mark of 0 steps."""
    site = prepare_site(tmp_path / "demo")
    text = site.config_file.read_text()
    site.config_file.write_text(text.replace('mark = { tier = "lettered" }', 'mark = { tier = "lettered", steps = 0 }'))
    return site


@pytest.mark.peers
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_a_study_goes_out_whole_and_comes_back_as_the_archive_has_it(site, tmp_path):
    if not (shutil.which("Orthanc") or Path("/usr/sbin/Orthanc").exists()):
        missing("Orthanc")
    images = studies.slices()
    others = {name: ds for name, ds in studies.others(images).items() if name != "RTSTRUCT"}
    objects = [*others.values(), *images]  # references before what they name
    with Programs() as programs:
        archive, outside = start_archive(programs, site), start_outside(programs, site)
        command = [sys.executable, "-m", "gateway.cli", "serve", "--role", "all", "--config", str(site.config_file)]
        gateway = programs.start("the gateway", command, site.logs / "gateway.log")
        archive.wait_until_ready()
        outside.wait_until_ready()
        ports = site.ports
        gateway.wait_for("it listens", lambda: listens(ports.gateway) and listens(ports.restore), TIMEOUT_S)
        for number, ds in enumerate(objects):
            ds.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
            archive.send([archive.upload(tmp_path / f"{number}.dcm")], GATEWAY)  # an association each
        _wait(site, len(objects))
        copies = _held_by(outside)
        before = _from(ARCHIVE_AE, ports.archive, objects, objects)
        after = _from(RESTORE_AE, ports.restore, list(copies.values()), objects, site)
    _assert_whole(copies, objects)
    assert {received.sop_instance_uid for received in after} == {str(ds.SOPInstanceUID) for ds in objects}
    witness = {received.sop_instance_uid: received for received in before}
    assert all(received.data == witness[received.sop_instance_uid].data for received in after)


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


def _held_by(pacs: Orthanc) -> dict[str, Dataset]:
    files = [pydicom.dcmread(io.BytesIO(pacs.file(identifier))) for identifier in pacs.instances()]
    return {str(ds.SOPInstanceUID): ds for ds in files}


def _from(title: str, port: int, wanted: list[Dataset], kinds: list[Dataset], site: Site | None = None):
    """What a workstation gets for these UIDs by C-GET; over TLS from the gateway."""
    offered = {(str(ds.SOPClassUID), str(ds.file_meta.TransferSyntaxUID)) for ds in kinds}
    workstation = Workstation(WORKSTATION_AE, offered, site.tls("workstation") if site else None)
    keys = [Wanted(str(d.StudyInstanceUID), str(d.SeriesInstanceUID), str(d.SOPInstanceUID)) for d in wanted]
    answers = workstation.get(title, port, keys)
    assert all(answers), "an instance was not returned"
    return answers


def _assert_whole(copies: dict[str, Dataset], objects: list[Dataset]) -> None:
    """As many as were sent, one study, and every reference names an instance and a series that is there."""
    originals = {str(ds.SOPInstanceUID) for ds in objects}
    assert len(copies) == len(objects) and not originals & set(copies)
    series = {str(ds.SeriesInstanceUID) for ds in copies.values()}
    assert {str(ds.StudyInstanceUID) for ds in copies.values()} == {str(objects[0].StudyInstanceUID)}
    referring = [ds for ds in copies.values() if ds.Modality != "CT"]
    assert len(referring) == len(objects) - 2
    for ds in referring:
        named = [str(e.value) for e in ds.iterall() if e.keyword == "ReferencedSOPInstanceUID"]
        assert named and set(named) <= set(copies), ds.Modality
        assert {str(e.value) for e in ds.iterall() if e.keyword == "SeriesInstanceUID"} <= series, ds.Modality
