"""deploy/docs/extending.md and python-api.md: what they tell a third party to do works as it stands there."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "deploy" / "docs"
USE = """
import numpy as np
from gateway.mark import ImageTraits, Marker, MarkRequest, MarkSettings, choose_profile, load_profiles

profile = choose_profile(ImageTraits("OPT"))
assert profile is load_profiles()["oct"] or profile.name == "oct", profile
assert choose_profile(ImageTraits("CT")).name == "ct"
rows, columns = np.mgrid[:128, :128]
image = np.where(abs(rows - 64) < 30, 90 + (rows * columns) % 17, 0).astype(np.uint8)
(result,) = Marker(MarkSettings(tier="lettered", steps=0, device="cpu")).mark([MarkRequest(image, bytes(32))], profile)
assert (result.image - result.residual == image).all() and (result.image != image).any()
"""


@pytest.mark.full
def test_the_modality_of_the_guide_is_installed_and_marks(tmp_path: Path) -> None:
    text = (DOCS / "extending.md").read_text("utf-8")
    project, module = (re.search(rf"^```{kind}\n(.*?)^```", text, re.M | re.S)[1] for kind in ("toml", "python"))
    assert len((project + module).splitlines()) <= 40
    source, target = tmp_path / "example-oct", tmp_path / "installed"
    source.mkdir()
    (source / "pyproject.toml").write_text(project)
    (source / "example_oct.py").write_text(module)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--no-build-isolation", "--no-index", "--target", target, source]
    subprocess.run(pip, check=True, cwd=tmp_path)
    paths = os.pathsep.join([str(target), str(REPOSITORY)])
    subprocess.run([sys.executable, "-c", USE], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths})


def test_the_examples_of_the_python_api_run() -> None:
    failed, tried = doctest.testfile(str(DOCS / "python-api.md"), module_relative=False)
    assert (failed, tried > 12) == (0, True)
