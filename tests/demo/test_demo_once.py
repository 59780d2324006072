"""The whole way between foreign peers: `miad-gateway demo --once --json` in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.demo.images import bundled_images, open_pictures
from gateway.keys.generate import make_keys
from tests.conftest import missing

TIMEOUT_S = 600  # a minute on free cores


def test_bundled_images_are_in_the_package_and_different_from_each_other():
    images = bundled_images()
    assert len(images) >= 6
    assert len({image.sop_instance_uid for image in images}) == len(images)


@pytest.mark.full  # tests/demo/test_study.py goes the same way, without the quickstart's packaging around it
@pytest.mark.peers
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_demo_once(tmp_path):
    if not (shutil.which("Orthanc") or Path("/usr/sbin/Orthanc").exists()):
        missing("Orthanc")
    # Twelve images that the classifier can tell something of: how many answers change depends on the key, so the test
    # has a fixed one. What marks do in general is measured on the labelled sets.
    make_keys(tmp_path / "demo" / "keys")
    (tmp_path / "demo" / "keys" / "mark.key").write_text("01" * 32 + "\n")
    # A data folder that is not there: only the images of the package are sent.
    environment = {**os.environ, "MIAD_DATA": str(tmp_path / "nothing")}
    command = [sys.executable, "-m", "gateway.cli", "demo", "--once", "--json", "table.json"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"

    table = json.loads((tmp_path / "table.json").read_text())
    assert table["passed"] is True
    assert table["failures"] == []
    assert [line["name"] for line in table["lines"]] == [image.name for image in (*open_pictures(), *bundled_images())]
    for line in table["lines"]:
        assert line["delivered"], line["name"]
        assert line["restored_sha256"] == line["archive_sha256"], line["name"]
        assert len(line["archive_sha256"]) == 64
        assert line["restored_sop_uid"] == line["sop_instance_uid"] != line["derived_sop_uid"]
        assert line["stranger_refused"]
        assert line["psnr"] >= 26
        assert line["archive_sha256"][:12] in result.stdout
    assert table["mean_margin_fall"] > 2 * table["mean_margin_fall_noise"]
    answers = table["answers"]
    assert answers["asked"] == 12 and answers["changed"] >= 3 + answers["changed_by_noise"]
    assert (tmp_path / "demo" / "marked.png").read_bytes().startswith(b"\x89PNG")
    assert _programs_of(tmp_path) == []


def _programs_of(folder: Path) -> list[str]:
    """Command lines of running processes that name this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found
