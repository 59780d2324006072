"""C-GET over TLS with dcmjs-dimse (npm), the one foreign client that does it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.network.retrieve.conftest import bound
from tests.support.retrieve.samples import MR_SYNTAXES

pytestmark = pytest.mark.peers

VERSION = "0.2.7"


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """dcmjs-dimse, installed once into a cache folder outside the repository (MIAD_PEERS, else the temporary one)."""
    if not (shutil.which("node") and shutil.which("npm")):
        missing("node with npm")
    cache = Path(os.environ.get("MIAD_PEERS") or Path(tempfile.gettempdir()) / "miad-gateway-peers")
    folder = cache / f"dcmjs-dimse-{VERSION}"
    modules = folder / "node_modules"
    if not (modules / "dcmjs-dimse" / "package.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"dcmjs-dimse@{VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            missing(f"dcmjs-dimse (npm install says: {done.stderr[-200:]})")
    return modules


def data_sets(stream: bytes) -> list[bytes]:
    """The data sets of all C-STORE requests in a stream of PDUs, by the PDUs alone (PS3.8 9.3.5, annex E)."""
    sets: list[bytes] = []
    command, data, at = b"", b"", 0
    while at < len(stream):
        kind, length = struct.unpack_from(">BxL", stream, at)
        body, at = stream[at + 6 : at + 6 + length], at + 6 + length
        while kind == 4 and body:
            size, _, control = struct.unpack_from(">LBB", body)
            fragment, body = body[6 : 4 + size], body[4 + size :]
            if control & 1:
                command += fragment
            else:
                data += fragment
            if control & 2 and not control & 1:
                if b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x00" in command:  # Command Field C-STORE-RQ
                    sets.append(data)
                command = data = b""
            elif control & 2 and b"\x00\x00\x00\x08\x02\x00\x00\x00\x01\x01" in command:  # no data set follows
                command = b""
    return sets


def get(node_modules: Path, folder: Path, **options: object) -> tuple[dict, list[bytes]]:
    """Run the client; what it says of the final response, and the data sets that came."""
    settings, out = folder / "get.json", folder / "stream"
    settings.write_text(json.dumps({"host": "127.0.0.1", "out": str(out), **options}))
    done = subprocess.run(
        ["node", str(Path(__file__).parents[2] / "support" / "retrieve" / "dimse_get.js"), str(settings)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NODE_PATH": str(node_modules)},
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), data_sets(out.read_bytes())


def test_get_over_tls_brings_the_exact_bytes(node_modules, start_scp, server_tls, reading_tls, site, tmp_path):
    scp = start_scp(bound(reading_tls), tls=server_tls)
    wanted = [site.samples[name] for name in MR_SYNTAXES]
    said, brought = get(
        node_modules,
        tmp_path,
        port=scp.tls_port,
        calling="READING1",
        called="MIAD_RESTORE",
        study=wanted[0].study,
        key=str(reading_tls.private_key),
        cert=str(reading_tls.certificate),
        ca=str(reading_tls.trust),
        contexts=sorted({(s.sop_class, s.transfer_syntax) for s in wanted}),
    )
    assert said == {"status": 0, "completed": len(wanted), "failed": 0}
    assert sorted(brought) == sorted(sample.data for sample in wanted)


def test_another_title_is_rejected(node_modules, start_scp, server_tls, reading_tls, site, tmp_path):
    scp = start_scp(bound(reading_tls), tls=server_tls)
    said, brought = get(
        node_modules,
        tmp_path,
        port=scp.tls_port,
        calling="READING2",
        called="MIAD_RESTORE",
        study=site.samples["ct"].study,
        key=str(reading_tls.private_key),
        cert=str(reading_tls.certificate),
        ca=str(reading_tls.trust),
        contexts=[],
    )
    assert said["rejected"] == {"result": 1, "source": 1, "reason": 3}
    assert brought == []
