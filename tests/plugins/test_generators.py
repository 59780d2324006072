"""Shipped generators: they load, fit their packs, carry a card and a warning, and mislead their surrogates."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings, load_profiles
from gateway.mark.generator_packs import GeneratorPack, load_generator_packs
from gateway.mark.resample import resize
from gateway.mark.training import channels_first
from plugins.generators import gray, rgb
from plugins.surrogates import datasets
from plugins.surrogates import gray as gray_surrogates
from plugins.surrogates import rgb as rgb_surrogates

CPU = torch.device("cpu")
PACKS = (gray.PACK, rgb.PACK)
TRAINED_ON = ("efficientnet-lite0", "mobile", "vgg")
"""Families that the packs held when the shipped generators were trained (their cards)."""
SETS = {"gray": datasets.GRAY_SETS, "rgb": datasets.RGB_SETS}


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_contract(pack: GeneratorPack) -> None:
    assert load_generator_packs()[pack.name] == pack
    found = pack.load(CPU)
    assert found.net.channels == pack.channels
    assert set(found.tasks) == set(SETS[pack.name])
    assert set(found.profiles) <= set(load_profiles())
    assert not any(parameter.requires_grad for parameter in found.net.parameters())
    assert "evaluation only" in pack.licence_warning
    assert pack.file.stat().st_size < 4e6


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_card_names_data_split_licence_and_commands(pack: GeneratorPack) -> None:
    text = pack.card.read_text()
    for word in ("evaluation only", "half A", "python -m plugins.generators", "accuracy", "Licence", "train-mark"):
        assert re.search(word, text, re.IGNORECASE), word


@pytest.mark.parametrize(
    ("task", "profile", "surrogates"),
    [("brain_mri", "brain-mr", gray_surrogates.PACK), ("fundus", "fundus", rgb_surrogates.PACK)],
    ids=["gray", "rgb"],
)
def test_it_misleads_the_networks_that_it_was_trained_on(
    task: str, profile: str, surrogates: object, miad_data: Path
) -> None:
    """On test images: mean accuracy of these networks falls by more than a fifth of what it was."""
    test = datasets.load_test(miad_data / task)
    index = np.arange(0, len(test.labels), len(test.labels) // 12)[:12]
    images = [np.ascontiguousarray(test.images[one]) for one in index]
    made = Marker(MarkSettings(mode="generator", device="cpu")).mark(
        [MarkRequest(image, bytes([number] * 32)) for number, image in enumerate(images)], profile
    )
    kept = [number for number, one in enumerate(made) if isinstance(one, MarkedImage)]
    assert len(kept) >= 10
    labels = torch.from_numpy(test.labels[index[kept]])

    def accuracy(stack: list[np.ndarray]) -> float:
        x = channels_first(np.stack(stack)).float() / 255.0
        right = []
        for member in surrogates.load(CPU):
            if member.net.family not in TRAINED_ON:
                continue
            with torch.no_grad():
                logits = member.net(resize(x, member.input_size, member.input_size)).logits[task]
            right.append(float((logits.argmax(1) == labels).float().mean()))
        return float(np.mean(right))

    assert accuracy([made[one].image for one in kept]) < 0.8 * accuracy([images[one] for one in kept])
