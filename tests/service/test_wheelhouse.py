"""deploy/wheelhouse.sh: what it makes installs by hashes alone, without an index; a bill of materials comes along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import __version__
from tests.support.units import REPOSITORY


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the disk, for gigabytes: temporary files may lie in memory (deploy/test.sh)."""
    with tempfile.TemporaryDirectory(prefix="miad-wheelhouse-", dir="/var/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_wheelhouse_installs_where_there_is_no_index(on_disk: Path) -> None:
    house, venv = on_disk / "house", on_disk / "venv"
    make = [REPOSITORY / "deploy" / "wheelhouse.sh", "--out", house, "--torch", "cpu", "--python", sys.executable]
    subprocess.run(make, check=True, cwd=on_disk)
    subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], check=True, cwd=house)
    wheels = list(house.glob("*.whl"))
    components = json.loads((house / "sbom.json").read_text())["components"]
    assert len(components) == len(wheels) == len((house / "requirements.txt").read_text().splitlines())
    base = Path(sys.base_prefix) / "bin" / "python3"
    subprocess.run([base, "-m", "venv", venv], check=True)
    alone = ["unshare", "--net"] if os.geteuid() == 0 and shutil.which("unshare") else []
    bare = {"PATH": os.defpath, "HOME": str(on_disk), "PIP_CONFIG_FILE": os.devnull}
    pip = [venv / "bin" / "pip", "install", "--quiet", "--no-index", "--find-links", house, "--require-hashes"]
    pip += ["--no-compile"]  # what is started compiles what it needs
    subprocess.run([*alone, *pip, "-r", house / "requirements.txt"], check=True, env=bare, cwd=on_disk)
    told = subprocess.run(
        [venv / "bin" / "miad-gateway", "--version"], check=True, env=bare, capture_output=True, text=True
    )
    assert told.stdout.strip() == f"miad-gateway {__version__}"
    first = (house / "requirements.txt").read_text().splitlines()[0]
    (house / "requirements.txt").write_text(first.replace("sha256:", "sha256:0"))
    refused = subprocess.run(
        [*pip, "--force-reinstall", "--no-deps", "-r", house / "requirements.txt"], env=bare, cwd=on_disk
    )
    assert refused.returncode != 0
