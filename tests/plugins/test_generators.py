"""Shipped generators: registered, they load, carry a card and a warning, and stay small."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest
import torch

from gateway.mark.generator import generate_texture
from gateway.mark.generator_packs import GROUP, GeneratorPack
from plugins.generators import gray

PACKS = (gray.PACK,)
KEYS = [bytes(32), bytes(range(32))]


def test_every_pack_is_registered_under_its_name() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    found = {}
    for name, target in project["entry-points"][GROUP].items():
        module, attribute = target.split(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    assert found == {pack.name: pack for pack in PACKS}


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_contract(pack: GeneratorPack) -> None:
    generator = pack.load(torch.device("cpu"))
    assert not any(parameter.requires_grad for parameter in generator.net.parameters())
    picture = torch.rand((2, pack.channels, 96, 80), generator=torch.Generator().manual_seed(0))
    flat = torch.full((2, 1, 96, 80), 0.1)
    first, _ = generate_texture(generator, picture, flat, flat, KEYS)
    assert first.shape == (pack.channels, 96, 80) and float(first.std()) > 0.1
    assert "evaluation only" in pack.licence_warning
    assert pack.file.stat().st_size < 4e6
    same = generate_texture(generator, picture[:1].expand(2, -1, -1, -1), flat, flat, KEYS)
    assert abs(float(torch.corrcoef(same.flatten(1))[0, 1])) < 0.9  # trained, it still heeds the key


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_card_names_data_split_licence_and_commands(pack: GeneratorPack) -> None:
    text = pack.card.read_text()
    words = ("evaluation only", "half A", "python -m plugins.generators.train", "mark_check", "accuracy", "Licence")
    for word in words:
        assert re.search(word, text, re.IGNORECASE), word
