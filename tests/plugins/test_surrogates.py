"""Shipped surrogate packs: they load, know their tasks, carry a card and a warning; their training split holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gateway.errors import MarkError
from gateway.mark import SurrogatePack
from gateway.mark.evaluation.judge import JUDGE_FILE
from gateway.mark.surrogates.nets import FAMILIES, RESERVED, MultiTaskNet
from gateway.mark.surrogates.store import load_net, save_net
from gateway.training import labelled_sets as datasets
from gateway.training import open_sets
from gateway.training.finetune import FINE_TUNINGS, JUDGE
from gateway.training.open_sets import OPEN_SETS
from gateway.training.shipped_packs import MARGIN, right_answers
from gateway.training.sources import SOURCES
from plugins.surrogates import gray, rgb
from tests.training.test_open_sets import write_set

CPU = torch.device("cpu")
REPOSITORY = Path(__file__).parent.parent.parent
PACKS = (gray.PACK, rgb.PACK)
FILES = sorted({path for pack in PACKS for path in pack.files})


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_contract(pack: SurrogatePack) -> None:
    members = pack.load(CPU)
    assert len({member.net.family for member in members}) == len(members) >= 4
    for member in members:
        assert tuple(member.net.tasks) == pack.tasks and set(pack.tasks) <= set(OPEN_SETS)
        assert member.net.channels == pack.channels and member.net.family not in RESERVED
        assert not any(parameter.requires_grad for parameter in member.net.parameters())
        output = member.net(torch.rand(2, pack.channels, 64, 64))
        assert all(torch.isfinite(logits).all() for logits in output.logits.values())


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name)
def test_the_warning_names_every_set_whose_licence_is_to_be_confirmed(pack: SurrogatePack) -> None:
    assert "licence to be confirmed" in pack.licence_warning and "evaluation only" not in pack.licence_warning
    for name, one in OPEN_SETS.items():
        assert (name in pack.licence_warning) == (one.grade != "A"), name


def test_card_names_data_split_licence_and_commands() -> None:
    text = gray.PACK.card.read_text()
    assert {pack.card for pack in PACKS} == {gray.PACK.card}
    for word in (
        "Not for clinical use",
        "Licence to be confirmed",
        "half A",
        "python -m gateway.training.shipped_packs",
    ):
        assert word in text, word
    for name, one in OPEN_SETS.items():
        assert name in text and one.licence in text and one.original in text, name
    for path in FILES:
        assert f"| {path.stem} |" in text, path.stem


def test_the_judge_s_card_names_data_split_licence_and_figures() -> None:
    text = (REPOSITORY / "gateway/mark/evaluation/judge.md").read_text()
    for word in ("not for clinical use", "half B", "accuracy", "Licence to be confirmed", "shipped_packs --half B"):
        assert re.search(word, text, re.IGNORECASE), word
    for name, one in OPEN_SETS.items():
        assert name in text and one.licence in text and one.original in text, name
    with safe_open(str(JUDGE_FILE), framework="pt") as file:
        header = file.metadata()
    assert (header["half"], header["family"], header["sha256"]) == ("B", JUDGE.family, SOURCES[JUDGE.family].sha256)
    assert set(header["family"].split()) == RESERVED
    assert JUDGE_FILE.stat().st_size < 9e6


def test_files_say_where_they_come_from() -> None:
    for path in FILES:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata()
        assert (header["half"], header["shared"], header["family"]) == ("A", "yes", path.stem)
        assert set(json.loads(header["tasks"])) == set(OPEN_SETS)
        if path.stem in FINE_TUNINGS:
            source = SOURCES[path.stem]
            assert (header["package"], header["sha256"]) == (source.requirement, source.sha256)


def test_weights_stay_small() -> None:
    assert sum(path.stat().st_size for path in FILES) < 60e6


def test_halves_are_disjoint_even_and_never_split_a_group() -> None:
    groups = [f"group {number}" for number in range(2000)]
    halves = [datasets.half_of(group) for group in groups]
    assert 900 < halves.count("A") < 1100
    assert halves == [datasets.half_of(group) for group in groups]


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_round_trip_through_files(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = MultiTaskNet(family, 1, {"t": ("a", "b")}).eval()
    save_net(net, tmp_path / "net.safetensors", 96)
    loaded, size = load_net(tmp_path / "net.safetensors", CPU)
    x = torch.rand(1, 1, 64, 64)
    assert size == 96 and loaded.tasks == {"t": ("a", "b")}
    assert torch.allclose(loaded(x).logits["t"], net(x).logits["t"], atol=0.02)


def table(title: str) -> dict[str, dict[str, float]]:
    """Return a table of accuracies of the card: network -> set -> share."""
    text = gray.PACK.card.read_text().split(title)[1].split("\n\n")[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    sets = rows[0][1:]
    return {
        row[0]: {name: float(cell.split()[0]) for name, cell in zip(sets, row[1:], strict=True)} for row in rows[2:]
    }


@pytest.mark.full
@pytest.mark.parametrize("task", ["brain_tumor", "fundus_dr"])
def test_networks_know_their_test_images_as_well_as_the_card_says(task: str, labelled_sets: Path) -> None:
    root = open_sets.shared_folder(labelled_sets)
    said = table("On test images")
    for path in FILES:
        net, side = load_net(path, CPU)
        test = open_sets.load_test(root, task, side + MARGIN)
        right, images = right_answers(net, {task: test}, side)[task]
        assert right / images == pytest.approx(said[path.stem][task], abs=0.015), path.stem


@pytest.mark.full
def test_the_command_that_made_the_packs_still_trains(tmp_path: Path) -> None:
    """The smallest run of it, and again: the second finds the work done and gives the same figures."""
    for name in OPEN_SETS:
        write_set(tmp_path / "data", name, OPEN_SETS[name].kept or ("dark", "bright"))
    command = [sys.executable, "-m", "gateway.training.shipped_packs", "--data", tmp_path / "data"]
    command += ["--out", tmp_path / "out", "--half", "B", "--nets", "convnext", "--epochs", "2", "--threads", "1"]
    for epochs in (2, 0):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("convnext epoch") == epochs
    net, size = load_net(tmp_path / "out" / "convnext.safetensors", CPU)
    assert (set(net.tasks), size, net.shared) == (set(OPEN_SETS), 128, True)
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())["convnext"]
    assert set(figures) == {"validation", "test"}
    for part in figures.values():
        assert set(part) == set(OPEN_SETS) and all(0 <= right <= images for right, images in part.values())


def test_int8_weights_are_near_and_a_pack_keeps_only_the_heads_it_asks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = MultiTaskNet("mobile", 3, {"one": ("a", "b"), "other": ("c", "d", "e")}, shared=True).eval()
    save_net(net, tmp_path / "net.safetensors", 64, weights="int8")
    loaded, _ = load_net(tmp_path / "net.safetensors", CPU, fold=False)
    assert loaded.shared
    for name, value in net.state_dict().items():
        found = loaded.state_dict()[name]
        if value.ndim > 1 and value.numel() >= 1024 and not name.startswith("heads."):
            step = value.flatten(1).abs().amax(1) / 127.0
            assert ((found - value).flatten(1).abs() <= 0.51 * step[:, None]).all(), name
        else:
            assert torch.allclose(found.float(), value.float(), rtol=1e-3, atol=1e-6), name
    small = (tmp_path / "net.safetensors").stat().st_size
    save_net(net, tmp_path / "half.safetensors", 64)
    assert small < 0.7 * (tmp_path / "half.safetensors").stat().st_size
    kept, _ = load_net(tmp_path / "net.safetensors", CPU, tasks=("other",))
    x = torch.rand(2, 1, 64, 64)
    folded, _ = load_net(tmp_path / "net.safetensors", CPU)
    assert set(kept.tasks) == {"other"}
    assert torch.allclose(kept(x).logits["other"], folded(x).logits["other"])
    with pytest.raises(MarkError) as caught:
        load_net(tmp_path / "net.safetensors", CPU, tasks=("none",))
    assert caught.value.code == "weights-corrupt"
