"""Every bad file is marked and restored bit for bit, or held or refused with a stable code, in bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.bad_files import BAD_FILES

MEGABYTES = 1100  # beyond what the process has when it is warm: a deflated data set may take 512 MiB
SECONDS = 20
pytestmark = pytest.mark.timeout(300)  # the first test waits for all files: half a minute on a free core


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest, tmp_path_factory, keys: Path) -> dict[str, dict]:
    """What became of each file that is asked about, in one process whose address space is limited."""
    asked = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    names = {item.callspec.params["name"] for item in asked}
    folder = tmp_path_factory.mktemp("bad")
    (folder / "files").mkdir()
    for name in names:
        (folder / "files" / f"{name}.dcm").write_bytes(BAD_FILES[name][1]())
    arguments = [folder / "state", keys, folder / "files", str(MEGABYTES)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.bounded", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=280,  # half a minute on a free core
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"after {len(found)} files: {done.stderr[-2000:]}"
    return {row["name"]: row for row in found}


@pytest.mark.some(15)
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_has_its_outcome(rows: dict[str, dict], name: str) -> None:
    expected, row = BAD_FILES[name][0], rows[name]
    assert row["seconds"] < SECONDS, row
    if expected == "marked":
        assert (row["outcome"], row["exact"]) == ("marked", True), row
    else:
        assert row["outcome"] in ("held", "refused"), row
        assert row["code"] == expected, row
