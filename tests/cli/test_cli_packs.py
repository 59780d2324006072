"""A site's own surrogate packs: each has a name of its own, whatever the folders are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.commands.packs import read_own_packs


def test_every_pack_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.mark.surrogates.foreign.read_pack", _Pack)
    folders = [tmp_path / "a" / "p-3", tmp_path / "b" / "p", tmp_path / "c" / "p", tmp_path / "d" / ("p" * 40)]
    names = [pack.name for pack in read_own_packs([folder / "pack.toml" for folder in folders])]
    assert names[:2] == ["p-3", "p"] and len(set(names)) == 4


class _Pack:
    def __init__(self, path: Path, name: str) -> None:
        self.name = name
