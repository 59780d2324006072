"""The first study: every command of deploy/docs/first-study.md, as it stands there, from `init` to the original back.

In a network and a space of processes of its own, so that the page's usual ports are free and nothing outlives the test.
Of the first block, which installs, only the search path is taken: the tests' environment stands for the fresh one.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing

DOCUMENT = Path(__file__).parents[2] / "deploy" / "docs" / "first-study.md"
NAMESPACE = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
ALL_S = 900.0

pytestmark = [pytest.mark.full, pytest.mark.peers]


def blocks() -> list[str]:
    """The commands of the document, a text a block."""
    return re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_document_is_what_this_test_knows() -> None:
    """A block that came or went has to be looked at here."""
    found = blocks()
    begins = ["apt-get install", "mkdir site", "mkdir archive", "miad-gateway doctor", "storescu", "study="]
    assert [text[: len(begin)] for text, begin in zip(found, begins, strict=True)] == begins
    assert found[0].splitlines()[1:2] == ['. deploy/setup.sh && make_venv ""']


def test_every_command_as_it_stands(tmp_path: Path) -> None:
    for program in ("unshare", "storescu", "curl"):
        if shutil.which(program) is None:
            missing(program)
    if not Path("/usr/sbin/Orthanc").exists():
        missing("Orthanc")
    if subprocess.run([*NAMESPACE, "ip", "link", "set", "lo", "up"], capture_output=True).returncode != 0:
        missing("a network namespace of one's own")
    install, *steps = blocks()
    path = next(line for line in install.splitlines() if line.startswith("export PATH"))
    script = tmp_path / "first-study.sh"
    said = "\n".join(f"echo '== {number}'\n{step}" for number, step in enumerate(steps, start=1))
    script.write_text(f"set -eu\nip link set lo up\n{path}\n{said}echo '== end'\n", "utf-8")
    _environment_in(tmp_path)
    with (tmp_path / "log").open("w") as log:  # a file: roles that still run would keep a pipe open
        done = subprocess.run(
            [*NAMESPACE, "bash", script], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, timeout=ALL_S, check=False
        )
    said = (tmp_path / "log").read_text("utf-8")
    gateway = tmp_path / "site" / "gateway.log"
    told = f"{said}\n{gateway.read_text('utf-8')[-3000:] if gateway.exists() else ''}"
    assert (done.returncode, "== end" in said) == (0, True), told
    parts = re.split(r"^== \w+\n", said, flags=re.MULTILINE)
    _, _init, _orthancs, start, sent, back, _end = parts
    assert ": 0 errors," in start, told
    assert re.search(r"11112 up.*2762 up", start), told
    assert re.search(r"^outside-pacs +outside +0 +0 +1 ", sent, re.MULTILINE), told  # queued, held, sent
    archive, workstation = re.findall(r"([0-9a-f]{64})  -", back)
    assert archive == workstation, told


def _environment_in(folder: Path) -> None:
    """What the first block makes in a checkout: `.venv` with the command, and packages below it."""
    venv = folder / ".venv"
    venv.mkdir()
    (venv / "bin").symlink_to(Path(sys.executable).parent)
    spec = importlib.util.find_spec("pydicom")
    assert spec is not None and spec.origin is not None
    packages = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.parent.mkdir(parents=True)
    packages.symlink_to(Path(spec.origin).parents[1])
