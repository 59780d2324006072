"""Shipped surrogate packs: they load, know their tasks, carry a card and a warning; their training split holds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gateway.mark import SurrogatePack
from gateway.mark.nets import FAMILIES, MultiTaskNet
from gateway.mark.resample import resize
from gateway.mark.store import load_net, save_net
from plugins.surrogates import datasets, gray, rgb, train

CPU = torch.device("cpu")
PACKS = (gray.PACK, rgb.PACK)
SETS = {"gray": datasets.GRAY_SETS, "rgb": datasets.RGB_SETS}


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_contract(pack: SurrogatePack) -> None:
    members = pack.load(CPU)
    assert len({member.net.family for member in members}) >= 3
    for member in members:
        assert set(member.net.tasks) == set(SETS[pack.name])
        assert not any(parameter.requires_grad for parameter in member.net.parameters())
        output = member.net(torch.rand(2, pack.channels, 64, 64))
        assert all(torch.isfinite(logits).all() for logits in output.logits.values())
    assert "evaluation only" in pack.licence_warning


@pytest.mark.parametrize("card", [*(pack.card for pack in PACKS), gray.PACK.card.parents[2] / "gateway/mark/judge.md"])
def test_card_names_data_split_licence_and_command(card: Path) -> None:
    text = card.read_text()
    for word in ("evaluation only", "half ", "python -m plugins.surrogates.train", "accuracy", "Licence"):
        assert re.search(word, text, re.IGNORECASE), word


def test_weights_stay_small() -> None:
    assert sum(path.stat().st_size for pack in PACKS for path in pack.files) < 45e6


def test_halves_are_disjoint_even_and_never_split_a_group() -> None:
    groups = [f"group {number}" for number in range(2000)]
    halves = [datasets.half_of(group) for group in groups]
    assert 900 < halves.count("A") < 1100
    assert halves == [datasets.half_of(group) for group in groups]
    assert {half for _, _, half, _ in train.PACKS.values()} == {"A", "B"}
    assert train.PACKS["gray"][2] == train.PACKS["rgb"][2] == "A"
    assert train.PACKS["judge-gray"][2] == train.PACKS["judge-rgb"][2] == "B"


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_round_trip_through_files(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = MultiTaskNet(family, 1, {"t": ("a", "b")}).eval()
    save_net(net, tmp_path / "net.safetensors", 96)
    loaded, size = load_net(tmp_path / "net.safetensors", CPU)
    x = torch.rand(1, 1, 64, 64)
    assert size == 96 and loaded.tasks == {"t": ("a", "b")}
    assert torch.allclose(loaded(x).logits["t"], net(x).logits["t"], atol=0.02)


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_networks_know_their_test_images(pack: SurrogatePack, miad_data: Path) -> None:
    task = next(iter(SETS[pack.name]))
    test = datasets.load_test(miad_data / task)
    index = np.arange(0, len(test.labels), 3)
    x = train._channels_first(test.images[index]).float() / 255.0
    for member in pack.load(CPU):
        with torch.no_grad():
            logits = member.net(resize(x, member.input_size, member.input_size)).logits[task]
        accuracy = float((logits.argmax(1).numpy() == test.labels[index]).mean())
        assert accuracy > (0.75 if pack is gray.PACK else 0.5), member.name


def test_training_learns_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bright against dark images; a run broken off after its third epoch ends with the weights of an unbroken one."""
    random = np.random.default_rng(0)
    label = torch.arange(128) % 2
    images = torch.from_numpy(random.integers(0, 80, (128, 1, 40, 40))) + 120 * label[:, None, None, None]
    task, weight = torch.zeros(128, dtype=torch.long), torch.ones(128)
    pool = train.Pool(images.to(torch.uint8), task, label, weight, {"t": ("dark", "bright")})
    recipe = train.Recipe("vgg", 6, 3e-3, (32,))
    whole = train.train_net(recipe, 1, pool, tmp_path / "whole.ckpt", 6)
    with torch.no_grad():
        assert (whole(images.float() / 255.0).logits["t"].argmax(1) == label).float().mean() > 0.9

    def interrupt(message: str, family: str, epoch: int, *rest: object) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train.log, "info", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.train_net(recipe, 1, pool, tmp_path / "broken.ckpt", 6)
    resumed = train.train_net(recipe, 1, pool, tmp_path / "broken.ckpt", 6)
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
