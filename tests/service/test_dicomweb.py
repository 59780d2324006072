"""The whole gateway on the web: STOW-RS in, marked copies out by STOW-RS, originals back by WADO-RS, and a reload."""

from __future__ import annotations

import io
import json
import urllib.request

import pydicom
import pytest

from tests.network.retrieve.conftest import key_of
from tests.network.retrieve.test_dicomweb import parts_of, session_of
from tests.network.test_stow import RELATED, body_of
from tests.network.test_web_link import orthanc_service
from tests.support.network.peers import free_port
from tests.support.reloading import TOML, Site
from tests.support.retrieve.samples import samples
from tests.support.retrieve.vaults import write_part10

TLS = """.tls]
certificate = "tls/restore.pem"
private_key = "tls/restore.key"
trust = "tls/trust.pem"
"""


@pytest.mark.full
@pytest.mark.peers
def test_in_out_and_back_over_the_web(tmp_path) -> None:
    site = Site(tmp_path / "site")
    archive, reading = site.authority.issue("archive"), site.authority.issue("reading")
    ports = {"in": free_port(), "back": free_port()}
    several = [one for one in samples() if one.name in ("ct", "many-0", "many-1", "many-2")]
    with orthanc_service() as outside:
        text = TOML.replace("port = {port}\n", f"port = {{port}}\ndicomweb_port = {ports['in']}\n")
        bound = f'ae_title = "ARCHIVE", addresses = ["127.0.0.1"], key_sha256 = ["{key_of(archive.certificate)}"]'
        text = text.replace('ae_title = "ARCHIVE", addresses = ["127.0.0.1"]', bound)
        text = text.replace("[worker]", f"[ingress{TLS}[worker]")
        text = text.replace(
            'ae_title = "OUTSIDE"\nhost = "127.0.0.1"\nport = {sink_port}\n',
            f'kind = "dicomweb"\nurl = "http://127.0.0.1:{outside}/dicom-web"\n',
        )
        text = text.replace("[restore.tls]", f"dicomweb_port = {ports['back']}\n[restore.tls]")
        text = text.replace(
            "[reload]",
            '[[restore.workstations]]\nae_title = "READING"\naddresses = ["127.0.0.1"]\n'
            f'key_sha256 = ["{key_of(reading.certificate)}"]\n[reload]',
        )
        site.text = text
        site.write(0)

        def store(number: int) -> None:
            write_part10(tmp_path / "file.dcm", several[number].data, several[number].transfer_syntax)
            url = f"https://localhost:{ports['in']}/dicomweb/relay/studies"
            body = body_of((tmp_path / "file.dcm").read_bytes())
            answer = session_of(archive).post(url, body, headers={"Content-Type": RELATED})
            assert answer.status_code == 200, answer.text

        def outside_has() -> list[str]:
            with urllib.request.urlopen(f"http://127.0.0.1:{outside}/instances") as answer:
                return json.load(answer)

        with site.running() as process:
            store(0)
            site.write(1)
            assert all("error" not in answer for answer in site.reload())
            for number in range(1, len(several)):
                store(number)
            site.wait(lambda: len(outside_has()) == len(several), process)
            url = f"https://localhost:{ports['back']}/dicomweb"
            back = {}
            for study in {one.study for one in several}:
                answer = session_of(reading).get(f"{url}/studies/{study}")
                assert answer.status_code == 200, answer.text
                for file in parts_of(answer):
                    found = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
                    back[str(found.SOPInstanceUID)] = file
            assert back.keys() == {one.uid for one in several}
            assert all(back[one.uid].endswith(one.data) for one in several)
            copies = [
                pydicom.dcmread(
                    io.BytesIO(urllib.request.urlopen(f"http://127.0.0.1:{outside}/instances/{one}/file").read())
                )
                for one in outside_has()
            ]
    assert not {copy.SOPInstanceUID for copy in copies} & back.keys()
    assert {copy.ImageType[0] for copy in copies} == {"DERIVED"}
    assert len(site.audited("ingress", "store-request")) == len(several)
    assert {line["operation"] for line in site.audited("restore", "original-restored")} == {"WADO-RS"}
    assert {line["outcome"] for line in site.audited("worker", "delivery")} == {"success"}
    assert not site.logged("request failed")
