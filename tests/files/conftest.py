"""A site with the fast mark, and real files in the forms that they come in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file
from pydicom.fileset import FileSet

from gateway.config import Config
from gateway.files.inputs import Inputs
from gateway.files.protect import protect_files
from gateway.files.restore import restore_files
from gateway.files.results import FileResult
from gateway.keys.generate import make_keys
from tests.support.flow import configuration

LIMIT = 64 << 20


def real(name: str) -> Path:
    """A file of pydicom's own test data."""
    return Path(get_testdata_file(name, download=False))


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files-site") / "keys"
    make_keys(folder)
    return folder


@pytest.fixture
def site(tmp_path: Path, keys: Path) -> Config:
    return configuration(tmp_path / "state", keys)


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A folder with a DICOMDIR that pydicom wrote, over a CT and an MR image; returns the DICOMDIR."""
    files = FileSet()
    for name in ("CT_small.dcm", "MR_small.dcm"):
        files.add(real(name))
    files.write(tmp_path / "medium")
    return tmp_path / "medium" / "DICOMDIR"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two different images under one name in two folders."""
    for place, name in (("one", "CT_small.dcm"), ("two", "MR_small.dcm")):
        (tmp_path / "study" / place).mkdir(parents=True)
        shutil.copy(real(name), tmp_path / "study" / place / "image.dcm")
    return tmp_path / "study"


def protect(site: Config, *paths: Path, out: Path) -> list[FileResult]:
    with Inputs(paths, LIMIT) as inputs:
        return list(protect_files(site, inputs, out))


def restore(site: Config, *paths: Path, out: Path) -> list[FileResult]:
    with Inputs(paths, LIMIT) as inputs:
        return list(restore_files(site, inputs, out))
