"""Secrets by reference: where they may lie, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import SecretRef
from gateway.errors import ConfigError


def test_a_file_is_read_as_bytes(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\x00\xff")
    file.chmod(0o600)
    assert SecretRef(f"file:{file}").resolve() == b"\x00\xff"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o602])
def test_a_file_open_to_others_is_refused_unless_it_is_public(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"x")
    file.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        SecretRef(f"file:{file}").resolve()
    assert caught.value.code == "secret-readable-by-others"
    assert SecretRef(f"file:{file}").resolve(private=False) == b"x"


@pytest.mark.parametrize("value", [None, ""])
def test_an_environment_variable_must_be_set(monkeypatch, value: str | None) -> None:
    monkeypatch.delenv("MIAD_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("MIAD_SECRET", value)
    with pytest.raises(ConfigError) as caught:
        SecretRef("env:MIAD_SECRET").resolve()
    assert caught.value.code == "secret-missing"
    monkeypatch.setenv("MIAD_SECRET", "abc")
    assert SecretRef("env:MIAD_SECRET").resolve() == b"abc"


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError) as caught:
            SecretRef(f"file:{path}").resolve()
        assert caught.value.code == "secret-missing"
        assert str(path) in caught.value.message


def test_only_files_have_a_path() -> None:
    assert SecretRef("file:a/b").path == Path("a/b")
    assert SecretRef("env:A").path is None
    assert SecretRef("env:A").against(Path("/etc")) == "env:A"
