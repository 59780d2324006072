"""Making a site's keys on a disk that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gateway.keys import generate
from gateway.keys.generate import make_keys


def test_keys_whose_flush_failed_are_not_there_to_be_used(tmp_path, monkeypatch):
    """Originals sealed to them would be lost with them; of keys that are there already nothing goes."""
    sync = generate.sync_folder

    def fails(folder: Path) -> None:
        if folder == tmp_path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(folder)

    with monkeypatch.context() as patched, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        patched.setattr(generate, "sync_folder", fails)
        make_keys(tmp_path / "keys")
    assert list(tmp_path.iterdir()) == []
    paths = make_keys(tmp_path / "keys")
    with monkeypatch.context() as patched, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        patched.setattr(generate, "sync_folder", fails)
        make_keys(tmp_path / "keys", overwrite=True)
    assert all(path.exists() for path in paths)


def test_keys_that_another_made_meanwhile_stay(tmp_path, monkeypatch):
    folder, write_all = tmp_path / "keys", generate._write_all

    def and_another(made: Path) -> None:
        write_all(made)
        folder.mkdir()
        (folder / "restore.private.pem").write_text("another's")

    with monkeypatch.context() as patched:
        patched.setattr(generate, "_write_all", and_another)
        patched.setattr(Path, "exists", lambda path: path != folder and os.path.exists(path))
        with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
            make_keys(folder)
    assert (folder / "restore.private.pem").read_text() == "another's"
