"""Shipped generators: they load, fit their packs, carry a card and a warning, and mislead their surrogates."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings, load_profiles
from gateway.mark.methods.generator_packs import GeneratorPack, load_generator_packs
from gateway.mark.resample import resize
from gateway.training.networks import channels_first
from gateway.training.open_sets import load_test, shared_folder
from gateway.training.shipped_generators import SETS
from plugins.generators import gray, rgb
from plugins.surrogates import gray as gray_surrogates
from plugins.surrogates import rgb as rgb_surrogates

CPU = torch.device("cpu")
PACKS = (gray.PACK, rgb.PACK)


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_contract(pack: GeneratorPack) -> None:
    assert load_generator_packs()[pack.name] == pack
    found = pack.load(CPU)
    assert found.net.channels == pack.channels
    assert set(found.tasks) == set(SETS[pack.name])
    assert set(found.profiles) <= set(load_profiles())
    assert not any(parameter.requires_grad for parameter in found.net.parameters())
    assert "licence to be confirmed" in pack.licence_warning
    assert pack.file.stat().st_size < 4e6


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_card_names_data_split_licence_and_commands(pack: GeneratorPack) -> None:
    text = pack.card.read_text()
    for word in (
        "not for clinical use",
        "licence to be confirmed",
        "half A",
        "python -m gateway.training.shipped_generators",
        "accuracy",
        "Licence",
        "train-mark",
    ):
        assert re.search(word, text, re.IGNORECASE), word


@pytest.mark.full
@pytest.mark.parametrize(
    ("task", "profile", "surrogates"),
    [("brain_tumor", "brain-mr", gray_surrogates.PACK), ("fundus_dr", "fundus", rgb_surrogates.PACK)],
    ids=["gray", "rgb"],
)
def test_it_misleads_the_networks_whose_direction_it_is_shown(
    task: str, profile: str, surrogates: object, labelled_sets: Path
) -> None:
    """On test images the probability of the right class falls at least twice as far as by lettering without texture."""
    test = load_test(shared_folder(labelled_sets), task, 256)
    index = np.arange(0, len(test.labels), len(test.labels) // 12)[:12]
    images = [np.ascontiguousarray(test.images[one]) for one in index]
    requests = [MarkRequest(image, bytes([number] * 32)) for number, image in enumerate(images)]
    drawn, plain = (
        Marker(MarkSettings(device="cpu", **settings)).mark(requests, profile)
        for settings in ({"mode": "generator"}, {"steps": 0})
    )
    pairs = zip(drawn, plain, strict=True)
    kept = [number for number, pair in enumerate(pairs) if all(isinstance(one, MarkedImage) for one in pair)]
    assert len(kept) >= 10
    labels = torch.from_numpy(test.labels[index[kept]])
    members = surrogates.load(CPU)

    def belief(stack: list[np.ndarray]) -> float:
        x = channels_first(np.stack(stack)).float() / 255.0
        found = []
        for member in members:
            with torch.no_grad():
                logits = member.net(resize(x, member.input_size, member.input_size)).logits[task]
            found.append(float(logits.softmax(1)[torch.arange(len(labels)), labels].mean()))
        return float(np.mean(found))

    clean = belief([images[one] for one in kept])
    lost, lost_by_letters = (clean - belief([marks[one].image for one in kept]) for marks in (drawn, plain))
    assert lost > 0.03 and lost > 2.0 * lost_by_letters
