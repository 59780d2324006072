"""What `miad-gateway certificates make` writes, in the hands of those that it is for: Orthanc, DCMTK and Java."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from gateway.commands.certificates import Wanted, make_certificates
from gateway.config.models import Tls
from gateway.network.tls import client_context
from tests.conftest import missing
from tests.network.retrieve.conftest import bound
from tests.network.retrieve.test_orthanc import workstation
from tests.network.retrieve.test_tls import ask_by_store, at, with_tls
from tests.support.network import peers
from tests.support.retrieve.samples import MR_SYNTAXES, received

pytestmark = pytest.mark.peers
LOCAL = ("localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "tls"
    wanted = [Wanted("restore", LOCAL), Wanted("READING1", LOCAL, for_java=True), Wanted("OTHER", ("other.example",))]
    make_certificates(folder, wanted, days=30)
    return folder


def table(folder: Path, stem: str, trust: str = "ca.pem") -> Tls:
    return Tls(certificate=folder / f"{stem}.pem", private_key=folder / f"{stem}.key", trust=folder / trust)


def test_orthanc_takes_them_both_ways(start_scp, tls: Path, site) -> None:
    own, port = table(tls, "READING1"), peers.free_port()
    scp = start_scp(bound(own, port=port), tls=table(tls, "restore", "trust"))
    with workstation(own, scp.tls_port, port) as orthanc:
        orthanc.post("/modalities/restore/echo", {})
        asked = {"Level": "Study", "Query": {"StudyInstanceUID": site.samples["mr-implicit"].study}}
        found = orthanc.post("/modalities/restore/query", asked)
        orthanc.post(f"/queries/{found['ID']}/retrieve", {"TargetAet": "READING1", "Synchronous": True})
        assert orthanc.files().keys() == {site.samples[name].uid for name in MR_SYNTAXES}


def test_dcmtk_gets_in_by_name_and_by_key_and_no_other_does(start_scp, tls: Path) -> None:
    own, server = table(tls, "READING1"), table(tls, "restore")
    for station in (bound(own), bound(own, key_sha256=(), san=("localhost",))):
        scp = start_scp(station, tls=server)
        assert peers.run("echoscu", *with_tls(own), *at(scp)).returncode == 0
    scp = start_scp(bound(own), tls=server)
    assert peers.run("echoscu", *with_tls(table(tls, "OTHER")), *at(scp)).returncode != 0


@pytest.mark.parametrize(("stem", "gets_it"), [("READING1", True), ("OTHER", False)])
def test_originals_go_only_to_a_receiver_that_the_certificate_names(
    start_scp, tls: Path, site, tmp_path: Path, stem: str, gets_it: bool
) -> None:
    own = table(tls, "READING1")
    with peers.storescp(tmp_path / "store", *with_tls(table(tls, stem)), "+xa") as port:
        scp = start_scp(bound(own, port=port), tls=table(tls, "restore"))
        assert (ask_by_store(scp, own, site, "mr").status == 0) is gets_it
    assert (site.samples["mr"].uid in received(tmp_path / "store")) is gets_it


def test_java_reads_key_store_and_trust_store(tls: Path) -> None:
    if shutil.which("keytool") is None:
        missing("keytool")
    words = (tls / "READING1.p12.passphrase").read_text()
    for store, kind in (("READING1.p12", "PrivateKeyEntry"), ("READING1-trust.p12", "trustedCertEntry")):
        command = ["keytool", "-list", "-storetype", "PKCS12", "-keystore", tls / store, "-storepass", words]
        assert kind in subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_private_files_are_closed_and_the_context_takes_the_rest(tls: Path) -> None:
    assert client_context(table(tls, "restore", "trust")).verify_mode is ssl.CERT_REQUIRED
    for file in tls.iterdir():
        if file.suffix in (".key", ".p12", ".passphrase"):
            assert file.stat().st_mode & 0o777 == 0o600, file
