"""A site is lost and comes back: real roles, real peers, one backup, and the original over TLS as it was sent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from gateway.config.models import Tls
from gateway.demo.site import GATEWAY_AE, OUTSIDE_AE, RESTORE_AE, WORKSTATION_AE, Site, prepare_site
from gateway.demo.workstation import Wanted, Workstation
from gateway.dicom.encoding.part10 import split_part10
from tests.support.network import peers

REPOSITORY = Path(__file__).parent.parent.parent
SECONDS = 120.0


@contextlib.contextmanager
def serving(config: Path, log: Path, ports: tuple[int, ...]) -> Iterator[None]:
    """`miad-gateway serve`, all roles, until the block ends; then in order."""
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stderr=output, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    try:
        for port in ports:
            peers.wait_for_port(port, process, within_s=SECONDS)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def sent(file: Path, port: int, outside: Path) -> None:
    """Send a file to the gateway and wait for one more marked copy outside."""
    before = len(list(outside.iterdir()))
    done = peers.run("storescu", "-aet", "ARCHIVE", "-aec", GATEWAY_AE, "127.0.0.1", port, file)
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + SECONDS
    while len(list(outside.iterdir())) == before:
        assert time.monotonic() < deadline, "no marked copy arrived"
        time.sleep(0.2)


def fetched(file: Path, port: int, tls: Tls) -> bytes:
    """What the workstation gets by C-GET over TLS for the UIDs of a file."""
    ds = dcmread(file, stop_before_pixels=True)
    workstation = Workstation(WORKSTATION_AE, [(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)], tls)
    wanted = Wanted(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    [answer] = workstation.get(RESTORE_AE, port, [wanted])
    assert answer is not None
    return answer.data


def data_set(file: Path) -> bytes:
    with file.open("rb") as stream:
        _, offset = split_part10(stream)
        stream.seek(offset)
        return stream.read()


def audited(site: Path, role: str) -> list[str]:
    lines = (site / "state" / "audit" / f"{role}.jsonl").read_text().splitlines()
    return [f"{row['event']} {row.get('reason', '')}".strip() for row in map(json.loads, lines)]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """The demo's site: restore over TLS for one workstation, plain ports on 127.0.0.1 for the rest; few steps."""
    made = prepare_site(tmp_path / "site")
    text = made.config_file.read_text().replace('{ tier = "lettered" }', '{ tier = "lettered", steps = 0 }')
    made.config_file.write_text(text)
    return made


@pytest.mark.full
@pytest.mark.peers
def test_a_lost_site_serves_again_from_its_backup(run, site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    [first, second] = [tmp_path / name for name in ("first.dcm", "second.dcm")]
    ds = dcmread(get_testdata_file("CT_small.dcm", download=False))
    del ds[0xFFFCFFFC]  # Data Set Trailing Padding: storescu leaves it out
    ds.save_as(first)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID}.1"
    ds.save_as(second)
    words = {"MIAD_GATEWAY_PASSPHRASE": "correct horse battery"}
    ports = (site.ports.gateway, site.ports.restore)
    storescp = ("storescp", "-aet", OUTSIDE_AE, "-od", outside, site.ports.outside)
    with peers.running(*storescp, port=site.ports.outside):
        with serving(site.config_file, tmp_path / "log", ports):
            sent(first, site.ports.gateway, outside)
            assert fetched(first, site.ports.restore, site.tls("workstation")) == data_set(first)
        done = run("vault", "backup", "--out", tmp_path / "b.miad", "--config", "site/gateway.toml", **words)
        assert done.code == 0, done.err

        shutil.copytree(site.folder / "certificates", tmp_path / "workstation")  # a machine of its own
        shutil.rmtree(site.folder)  # the gateway's is gone
        new = tmp_path / "new"
        done = run("vault", "recover", tmp_path / "b.miad", "--into", new, **words)
        assert done.code == 0, done.err
        assert "list-recovered" in done.err and f"miad-gateway serve --config {new}/recovered.toml" in done.err
        done = run("config", "check", "--config", new / "recovered.toml")
        assert done.code == 0, done.out + done.err

        config = new / "recovered.toml"
        [receiving, restoring] = [peers.free_port(), peers.free_port()]
        text = re.sub(rf"\b{site.ports.gateway}\b", str(receiving), config.read_text())
        config.write_text(re.sub(rf"\b{site.ports.restore}\b", str(restoring), text))
        own = tmp_path / "workstation"
        tls = Tls(certificate=own / "workstation.pem", private_key=own / "workstation.key", trust=own / "ca.pem")
        with serving(config, tmp_path / "log", (receiving, restoring)):
            assert fetched(first, restoring, tls) == data_set(first)
            sent(second, receiving, outside)
            assert fetched(second, restoring, tls) == data_set(second)
    restore = audited(new, "restore")
    assert restore.count("record-changed list-recovered") == 1 and "record-changed list-begun" not in restore
    assert audited(new, "operator") == ["backup"]
    assert "error" not in {json.loads(line)["level"] for line in (tmp_path / "log").read_text().splitlines()}
