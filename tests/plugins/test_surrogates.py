"""Shipped surrogate packs: they load, know their tasks, carry a card and a warning; their training split holds."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gateway.mark import SurrogatePack
from gateway.mark.surrogates.nets import FAMILIES, MultiTaskNet
from gateway.mark.surrogates.store import load_net, save_net
from gateway.training import labelled_sets as datasets
from gateway.training import shipped_packs as train
from gateway.training.networks import accuracy
from plugins.surrogates import gray, rgb

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).parent.parent.parent
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


@pytest.mark.parametrize(
    "card", [*(pack.card for pack in PACKS), gray.PACK.card.parents[2] / "gateway/mark/evaluation/judge.md"]
)
def test_card_names_data_split_licence_and_command(card: Path) -> None:
    text = card.read_text()
    for word in ("evaluation only", "half ", "python -m gateway.training.shipped_packs", "accuracy", "Licence"):
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


@pytest.mark.full
@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_networks_know_their_test_images_as_well_as_the_card_says(pack: SurrogatePack, labelled_sets: Path) -> None:
    task = next(iter(SETS[pack.name]))
    test = datasets.load_test(labelled_sets / task)
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (.+) \|$", pack.card.read_text(), re.MULTILINE)
    table = {name: values.split(" | ") for name, values in rows}
    column = table["network"].index(task)
    for member in pack.load(CPU):
        found = accuracy(member.net, task, test.images, test.labels)
        assert found == pytest.approx(float(table[member.net.family][column]), abs=0.01), member.name
        assert found > 2 / len(test.classes), member.name


def _write_set(folder: Path) -> None:
    """A set of 32 dark and bright colour images in the format of the real ones, and 8 to test on."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    images = np.clip(random.normal(40, 20, (40, 48, 48, 3)) + 140 * (np.arange(40) % 2)[:, None, None, None], 0, 255)
    images = images.astype(np.uint8)
    rows = ["file,label,class,group"]
    with zipfile.ZipFile(folder / "train.zip", "w") as archive:
        for number, image in enumerate(images[:32]):
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            archive.writestr(f"{number}.png", buffer.getvalue())
            rows.append(f"{number}.png,{number % 2},{('dark', 'bright')[number % 2]},group {number}")
        archive.writestr("labels.csv", "\n".join(rows) + "\n")
    np.savez(folder / "test.npz", images=images[32:], labels=np.arange(8) % 2, classes=np.array(["dark", "bright"]))


@pytest.mark.full
def test_the_command_that_made_the_packs_still_trains(tmp_path: Path) -> None:
    """The smallest run of it, and again: the second finds the work done and gives the same figures."""
    for folder in datasets.RGB_SETS.values():
        _write_set(tmp_path / "data" / folder)
    command = [
        sys.executable,
        "-m",
        "gateway.training.shipped_packs",
        "--pack",
        "judge-rgb",
        "--data",
        tmp_path / "data",
    ]
    command += ["--out", tmp_path / "out", "--nets", "convnext", "--epochs", "3", "--threads", "1"]
    for epochs in (3, 0):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("convnext epoch") == epochs
    net, size = load_net(tmp_path / "out" / "convnext.safetensors", CPU)
    assert (set(net.tasks), size) == (set(datasets.RGB_SETS), 128)
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())["convnext"]
    assert set(figures) == set(datasets.RGB_SETS) and all(0.0 <= share <= 1.0 for share in figures.values())
