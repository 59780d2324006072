"""DICOMweb out of the vault, asked by real clients: `dicomweb-client` and Orthanc's plug-in."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from PIL import Image
from pydicom.dataset import Dataset

from gateway.audit import events
from gateway.config.models import Tls
from tests.conftest import missing, needed
from tests.network.retrieve.conftest import bound
from tests.network.retrieve.test_orthanc import Workstation
from tests.network.test_ingress import until
from tests.support.network import peers
from tests.support.retrieve.samples import MANY, MANY_STUDY, MR_SYNTAXES, data_set
from tests.support.retrieve.vaults import part10

web_client = needed("dicomweb_client")
RELATED = 'multipart/related; type="application/dicom"'
ANY = (("application/dicom", "*"),)


def session_of(tls: Tls) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a REQUESTS_CA_BUNDLE would go before `verify`
    session.cert = (str(tls.certificate), str(tls.private_key))
    session.verify = str(tls.trust)
    return session


def client_of(tls: Tls, port: int):
    client = web_client.DICOMwebClient(f"https://localhost:{port}/dicomweb", session=session_of(tls))
    client.set_http_retry_params(retry=False)
    return client


def parts_of(answer: requests.Response) -> list[bytes]:
    """The bodies of a multipart answer, by its boundary."""
    boundary = answer.headers["Content-Type"].partition("boundary=")[2].encode()
    pieces = answer.content.split(b"\r\n--" + boundary)
    assert pieces[0] == b"" and pieces[-1] == b"--\r\n"
    return [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:-1]]


def data_of(file: bytes, tmp_path: Path) -> bytes:
    (tmp_path / "file").write_bytes(file)
    return data_set(tmp_path / "file")


# -- what a workstation does ------------------------------------------------------------------------------------------


def test_search_by_dicomweb_client(start_web, reading_tls, site, audit):
    port = start_web(bound(reading_tls)).port
    client = client_of(reading_tls, port)
    ct = site.samples["ct"]
    (study,) = map(
        Dataset.from_json,
        client.search_for_studies(
            search_filters={"PatientID": ct.header.PatientID[:3] + "*", "StudyInstanceUID": ct.study}
        ),
    )
    assert (study.StudyInstanceUID, study.NumberOfStudyRelatedInstances) == (ct.study, 1)
    assert study.RetrieveURL == f"https://localhost:{port}/dicomweb/studies/{ct.study}"
    assert study.PatientName == ct.header.PatientName
    (series,) = map(Dataset.from_json, client.search_for_series(ct.study, search_filters={"Modality": "CT"}))
    assert series.SeriesInstanceUID == ct.series
    # in any order of levels: instances of a whole study, and a patient's key at the level of instances
    many = client.search_for_instances(MANY_STUDY, limit=25, offset=50)
    assert len(many) == MANY - 50
    found = client.search_for_instances(
        search_filters={"PatientName": str(ct.header.PatientName), "SOPInstanceUID": ct.uid}
    )
    assert [Dataset.from_json(one).SOPInstanceUID for one in found] == [ct.uid]
    assert client.search_for_studies(search_filters={"PatientID": "NOBODY"}) == []
    assert {line["operation"] for line in audit.lines(events.QUERY)} == {"QIDO-RS"}
    assert all(line["calling_ae"] == "READING1" and line["key_sha256"] for line in audit.lines(events.QUERY))


def test_a_search_beyond_ascii_and_by_ideographs(start_web, reading_tls, site):
    client = client_of(reading_tls, start_web(bound(reading_tls)).port)
    name = str(site.samples["chinese"].header.PatientName)
    (study,) = client.search_for_studies(search_filters={"PatientName": name})
    assert str(Dataset.from_json(study).PatientName) == name and not name.isascii()


def test_originals_come_back_bit_exact(start_web, reading_tls, site, audit, tmp_path):
    """Whole studies, a series, an instance, one by its marked copy's UID: each in the syntax that it came in."""
    port = start_web(bound(reading_tls)).port
    url, session = f"https://localhost:{port}/dicomweb", session_of(reading_tls)
    few = {sample.uid: sample for sample in site.samples.values() if sample.study != MANY_STUDY}
    back: dict[str, bytes] = {}
    for study in {sample.study for sample in few.values()}:
        answer = session.get(f"{url}/studies/{study}", headers={"Accept": f"{RELATED}; transfer-syntax=*"})
        assert answer.status_code == 200
        for file in parts_of(answer):
            head = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
            back[str(head.SOPInstanceUID)] = data_of(file, tmp_path)
    assert back == {sample.uid: sample.data for sample in few.values()}
    assert until(lambda: {line["bit_exact"] for line in audit.lines(events.ORIGINAL_RESTORED)} == {True})
    kinds = [line["event"] for line in audit.lines()]
    assert kinds.index(events.RESTORE_INTENDED) < kinds.index(events.ORIGINAL_RESTORED)
    ct, record = site.samples["ct"], site.records["ct"]
    answer = session.get(
        f"{url}/studies/{ct.study}/series/{record.derived_series_uid}/instances/{record.derived_sop_uid}",
        headers={"Accept": "application/dicom; transfer-syntax=*"},
    )
    assert answer.headers["Content-Type"] == f"application/dicom; transfer-syntax={ct.transfer_syntax}"
    assert data_of(answer.content, tmp_path) == ct.data


def test_retrieval_by_dicomweb_client(start_web, reading_tls, site):
    client = client_of(reading_tls, start_web(bound(reading_tls)).port)
    study = site.samples["mr-implicit"].study
    found = client.retrieve_study(study, media_types=ANY)
    assert {str(one.file_meta.TransferSyntaxUID) for one in found} == {
        site.samples[name].transfer_syntax for name in MR_SYNTAXES
    }
    rle = site.samples["mr-rle"]
    one = client.retrieve_instance(study, rle.series, rle.uid, media_types=ANY)
    assert hashlib.sha256(one.PixelData).digest() == hashlib.sha256(site_pixels(rle)).digest()


def site_pixels(sample) -> bytes:
    return pydicom.dcmread(io.BytesIO(_file(sample))).PixelData


def _file(sample) -> bytes:
    return part10(sample.data, sample.transfer_syntax)


def test_a_syntax_that_is_not_accepted_is_406_and_a_part_of_a_study_206(start_web, reading_tls, site, audit):
    url = f"https://localhost:{start_web(bound(reading_tls)).port}/dicomweb"
    session, rle, ct = session_of(reading_tls), site.samples["mr-rle"], site.samples["ct"]
    at = f"{url}/studies/{rle.study}/series/{rle.series}/instances/{rle.uid}"
    # without a transfer syntax the standard's own default counts (PS3.18 8.7.3.5.2)
    for accept in (RELATED, f"{RELATED}; transfer-syntax=1.2.840.10008.1.2.1", "application/dicom+json", "text/html"):
        assert session.get(at, headers={"Accept": accept}).status_code == 406
    assert not audit.lines(events.RESTORE_INTENDED)
    assert session.get(at, headers={"Accept": f"{RELATED}; transfer-syntax={rle.transfer_syntax}"}).status_code == 200
    assert session.get(at).status_code == 200  # requests sends */*
    some = session.get(
        f"{url}/studies/{rle.study}", headers={"Accept": f"{RELATED}; transfer-syntax={rle.transfer_syntax}"}
    )
    assert (some.status_code, len(parts_of(some))) == (206, 1)
    assert ct.transfer_syntax == "1.2.840.10008.1.2.1"
    assert session.get(f"{url}/studies/{ct.study}", headers={"Accept": RELATED}).status_code == 200


# -- what is made of an original ---------------------------------------------------------------------------------------


def test_metadata_by_dicomweb_client(start_web, reading_tls, site, audit):
    port = start_web(bound(reading_tls)).port
    client = client_of(reading_tls, port)
    for name in ("ct", "mr-rle", "sc-deflated", "french", "mr-big-endian"):
        sample = site.samples[name]
        (found,) = (
            client.retrieve_study_metadata(sample.study)
            if name == "ct"
            else [client.retrieve_instance_metadata(sample.study, sample.series, sample.uid)]
        )
        dataset = Dataset.from_json(found)
        for keyword in ("PatientName", "Rows", "StudyInstanceUID", "SOPClassUID", "PixelSpacing"):
            assert dataset.get(keyword) == sample.header.get(keyword), (name, keyword)
        assert ("BulkDataURI" in found["7FE00010"]) == (name != "mr-rle")
    ct = site.samples["ct"]
    metadata = client.retrieve_instance_metadata(ct.study, ct.series, ct.uid)
    pixels = client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"])
    assert b"".join(pixels) == site_pixels(ct)
    assert until(lambda: len(audit.lines(events.ORIGINAL_RESTORED)) == 7)  # written after the answer
    released = audit.lines(events.ORIGINAL_RESTORED)
    assert {line["bit_exact"] for line in released} == {False}
    assert {line["operation"] for line in released} == {"WADO-RS-metadata", "WADO-RS-bulk"}


def test_rendered_by_dicomweb_client(start_web, reading_tls, site, audit):
    client = client_of(reading_tls, start_web(bound(reading_tls)).port)
    ct = site.samples["ct"]
    png = client.retrieve_instance_rendered(
        ct.study, ct.series, ct.uid, media_types=("image/png",), params={"window": "40,400,linear"}
    )
    shown = np.asarray(Image.open(io.BytesIO(png)))
    values = pydicom.dcmread(io.BytesIO(_file(ct))).pixel_array.astype(float) + float(ct.header.RescaleIntercept)
    wanted = np.rint(np.clip((values - (40 - 0.5 - 399 / 2)) / 399, 0, 1) * 255)
    assert shown.shape == values.shape and np.abs(shown - wanted).max() <= 1
    for name in ("mr-rle", "mr-j2k-lossless", "sc-jpeg", "sc-deflated", "mr-big-endian"):
        sample = site.samples[name]
        jpeg = client.retrieve_instance_rendered(sample.study, sample.series, sample.uid)
        picture = Image.open(io.BytesIO(jpeg))
        assert (picture.format, picture.size) == ("JPEG", (sample.header.Columns, sample.header.Rows)), name
    us = site.samples["us-jpeg-frames"]
    frame = client.retrieve_instance_frames_rendered(us.study, us.series, us.uid, [2], media_types=("image/png",))
    assert Image.open(io.BytesIO(frame)).size == (us.header.Columns, us.header.Rows)
    with pytest.raises(requests.HTTPError, match="406"):
        client.retrieve_instance_rendered(us.study, us.series, us.uid)  # which of its frames?
    plan = site.samples["plan-implicit"]
    with pytest.raises(requests.HTTPError, match="406"):
        client.retrieve_instance_rendered(plan.study, plan.series, plan.uid)
    assert audit.lines(events.RESTORE_INTENDED)[0]["operation"] == "WADO-RS-rendered"


# -- Orthanc -----------------------------------------------------------------------------------------------------------

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@contextlib.contextmanager
def orthanc_with_plugin(tls: Tls, port: int) -> Iterator[Workstation]:
    """Orthanc whose DICOMweb plug-in knows the restore role as a server, and shows the workstation's certificate."""
    if not PLUGIN.exists():
        missing("orthanc-dicomweb")
    with tempfile.TemporaryDirectory() as folder:
        http, own = peers.free_port(), peers.free_port()
        configuration = {
            "StorageDirectory": folder,
            "IndexDirectory": folder,
            "DicomPort": own,
            "HttpPort": http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [str(PLUGIN)],
            "HttpsCACertificates": str(tls.trust),
            "DicomWeb": {
                "Enable": True,
                "Servers": {
                    "restore": {
                        "Url": f"https://localhost:{port}/dicomweb/",
                        "CertificateFile": str(tls.certificate),
                        "CertificateKeyFile": str(tls.private_key),
                    }
                },
            },
        }
        path = Path(folder) / "orthanc.json"
        path.write_text(json.dumps(configuration))
        with peers.running("Orthanc", path, port=own, cwd=Path(folder)) as process:
            peers.wait_for_port(http, process)
            yield Workstation(own, http)


@pytest.mark.peers
def test_orthanc_searches_and_retrieves(start_web, reading_tls, site, tmp_path):
    ct = site.samples["ct"]
    with orthanc_with_plugin(reading_tls, start_web(bound(reading_tls)).port) as orthanc:
        found = orthanc.post(
            "/dicom-web/servers/restore/qido", {"Uri": "/studies", "Arguments": {"StudyInstanceUID": ct.study}}
        )
        assert [one["0020000D"]["Value"] for one in found] == [ct.study]
        orthanc.post("/dicom-web/servers/restore/retrieve", {"Resources": [{"Study": ct.study}], "Synchronous": True})
        files = orthanc.files()
    assert {uid: data_of(file, tmp_path) for uid, file in files.items()} == {ct.uid: ct.data}
