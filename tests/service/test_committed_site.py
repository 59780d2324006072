"""A whole site as processes: Orthanc as archive and as outside PACS, and success that means delivered."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select

from gateway.audit import events
from gateway.config import load_config
from gateway.database import DeliveryRow, reading
from gateway.service import database
from tests.support.flow import ct
from tests.support.network import peers
from tests.support.reloading import TOML, Site

pytestmark = [pytest.mark.peers, pytest.mark.full]


def part10(number: int) -> bytes:
    ds = ct(number)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def commitments(site: Site) -> list[str]:
    with reading(database(load_config(site.file))) as session:
        return [row.commit_state for row in session.scalars(select(DeliveryRow))]


@pytest.mark.timeout(280)
def test_an_archive_hears_that_it_may_delete_only_when_all_is_safe(tmp_path: Path) -> None:
    report_port, relay_port = peers.free_port(), peers.free_port()
    outside_knows = {"gateway": ["MIAD_GATEWAY", "127.0.0.1", report_port]}
    archive_knows = {"gateway": ["RELAY", "127.0.0.1", relay_port]}
    with peers.orthanc("OUTSIDE", outside_knows) as outside, peers.orthanc("ARCHIVE", archive_knows) as archive:
        text = TOML.replace('  {{ ae_title = "OTHER{number}", addresses = ["10.0.0.1"] }},\n', "")
        listed = f'reports = {{{{ host = "127.0.0.1", port = {archive.port}, calling_ae = "RELAY" }}}}'
        text = text.replace('"127.0.0.1"] }},', f'"127.0.0.1"], {listed} }}}},', 1)
        asked = "[destinations.commitment]\nafter_s = 0\nwait_s = 0\nretry_first_s = 1\n[[routes]]"
        text = text.replace("[[routes]]", asked, 1) + f"[commitment]\nport = {report_port}\n"
        site = Site(tmp_path / "site", outside.port, text)
        site.port = relay_port
        site.write(0)
        with site.running() as process:
            sent = [archive.upload(part10(number)) for number in (1, 2)]
            assert archive.send(sent, "gateway")["FailedInstancesCount"] == 0
            site.wait(lambda: commitments(site) == ["committed"] * 2, process)
            body = json.dumps({"Resources": sent}).encode()
            answer = json.loads(archive._post("/modalities/gateway/storage-commitment", body))
            deadline, state = time.monotonic() + 60, {"Status": "Pending"}
            while state["Status"] == "Pending" and time.monotonic() < deadline:
                time.sleep(0.2)
                state = json.loads(archive._get(answer["Path"]))
            body = json.dumps({"DicomInstances": [["1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"]]}).encode()
            unknown = json.loads(archive._post("/modalities/gateway/storage-commitment", body))
            site.wait(lambda: json.loads(archive._get(unknown["Path"]))["Status"] != "Pending", process)
            failed = json.loads(archive._get(unknown["Path"]))
        assert state["Status"] == "Success" and len(state["Success"]) == 2, state
        assert failed["Status"] == "Failure"
        assert len(outside.instances()) == 2
    assert site.audited("worker", events.COMMITMENT_ASKED) and site.audited("worker", events.COMMITMENT_REPORTED)
    assert [line["outcome"] for line in site.audited("worker", events.COMMITMENT_ANSWERED)] == ["success", "failure"]
    assert len(site.audited("ingress", events.COMMITMENT_REQUESTED)) == 2


@pytest.mark.timeout(280)
def test_storescu_hears_success_when_the_sink_has_it_and_its_retry_brings_everything_once(tmp_path: Path) -> None:
    text = TOML.replace('called_ae = "RELAY"', 'called_ae = "RELAY"\nack = "downstream"\nack_within_s = 3')
    site = Site(tmp_path / "site", peers.free_port(), text)
    files = []
    for number in (1, 2, 3):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(part10(number))
    with site.running() as process:

        def store() -> str:
            options = ["-v", "-aet", "ARCHIVE", "-aec", "RELAY", "-td", "30"]
            done = peers.run("storescu", *options, "127.0.0.1", site.port, *files, timeout_s=120)
            return done.stdout + done.stderr

        refused = store()
        assert "Success" not in refused and "Refused: OutOfResources" in refused
        waiting = site.states()
        assert sum(waiting.values()) >= 1 and set(waiting) <= {"received", "sealed", "marked"}
        (tmp_path / "sink").mkdir()
        sink = ("-aet", "OUTSIDE", "-od", tmp_path / "sink", "+B", "+uf", site.sink_port)
        with peers.running("storescp", *sink, port=site.sink_port):
            said = store()
            for _ in range(10):
                if said.count("Received Store Response (Success)") == 3:
                    break
                said = store()
            assert said.count("Received Store Response (Success)") == 3
        assert len(list((tmp_path / "sink").iterdir())) == 3  # unique names: twice would be six
        assert site.states() == {"delivered": 3}
        assert process.poll() is None
