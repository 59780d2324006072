"""Fine-tuning: it learns, goes on with equal results, keeps norms and frozen layers, and keeps the best average."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gateway.errors import ConfigError
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.training import finetune
from gateway.training.finetune import FINE_TUNINGS, FineTuning, Round, answers, fine_tune, rates
from gateway.training.networks import Pool, class_weights

CLASSES = {"shade": ("dark", "bright"), "tint": ("red", "blue")}
TINY = FineTuning("convnext", 2, 2e-3, side=48, half_floats=False)


def pool(count: int = 24) -> Pool:
    """Return gray images, dark or bright, and colour ones, red or blue, in turn."""
    random = np.random.default_rng(0)
    task, label = np.arange(count) % 2, np.arange(count) // 2 % 2
    images = random.normal(100, 25, (count, 3, 56, 56))
    images[task == 0] = images[task == 0].mean(1, keepdims=True) + 25 * (2 * label[task == 0, None, None, None] - 1)
    images[task == 1, 0] += 40 * (label[task == 1, None, None] == 0)
    images[task == 1, 2] += 40 * (label[task == 1, None, None] == 1)
    labels = torch.from_numpy(label)
    pixels = torch.from_numpy(images.clip(0, 255).astype(np.uint8))
    return Pool(pixels, torch.from_numpy(task), labels, class_weights(labels, 2), CLASSES, frozenset({"shade"}))


def fresh(family: str = "convnext") -> MultiTaskNet:
    torch.manual_seed(1)
    return MultiTaskNet(family, 3, CLASSES, shared=True)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("able", [False, True], ids=["without instructions", "with instructions"])
def test_products_are_in_bfloat16_where_the_processor_has_it(
    able: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "computes_in_bfloat16", lambda device: able)
    seen: list[bool] = []
    net = fresh()
    for layer in (net.lower[0], net.upper[-1]):  # one is frozen, the other learns
        layer.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    images = pool(8)
    fine_tune(net, replace(TINY, epochs=1, trained=3, half_floats=True), images, images, tmp_path / "one.ckpt", batch=8)
    assert len(seen) > 3 and set(seen) == {able}


@pytest.mark.parametrize("trained", [0, 3])
def test_it_learns_two_tasks_at_once_and_a_broken_run_ends_equal(trained: int, tmp_path: Path) -> None:
    images, recipe = pool(), replace(TINY, epochs=6, trained=trained)
    seen: list[Round] = []
    whole = fine_tune(fresh(), recipe, images, images, tmp_path / "whole.ckpt", seen.append, batch=8)
    assert [done.number for done in seen] == list(range(1, len(seen) + 1))
    for number, task in enumerate(CLASSES):
        mine = images.task == number
        found = answers(whole, images.images[mine], task, recipe.side).argmax(1)
        assert (found == images.label[mine]).float().mean() > 0.8, task

    def interrupt(done: Round) -> None:
        if done.number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tune(fresh(), recipe, images, images, tmp_path / "broken.ckpt", interrupt, batch=8)
    after: list[Round] = []
    resumed = fine_tune(fresh(), recipe, images, images, tmp_path / "broken.ckpt", after.append, batch=8)
    assert [done.number for done in after] == list(range(4, len(seen) + 1)) and same(whole, resumed)
    with pytest.raises(ConfigError) as caught:
        fine_tune(fresh(), recipe.with_epochs(7), images, images, tmp_path / "broken.ckpt", batch=8)
    assert caught.value.code == "bad-checkpoint"


def test_norms_and_frozen_layers_stay_as_they_were(tmp_path: Path) -> None:
    recipe = FineTuning("mobilenetv2", 1, 1e-3, trained=3, side=48, half_floats=False)
    net = fresh("mobilenetv2")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    done = fine_tune(net, recipe, pool(), None, tmp_path / "net.ckpt", batch=8)
    learning = tuple(f"upper.{len(net.upper) - number}." for number in (1, 2, 3))
    for name, value in done.state_dict().items():
        stays = not name.startswith(("heads.", *learning)) or "running" in name or "num_batches" in name
        assert torch.equal(value, before[name]) == stays, name


@pytest.mark.parametrize("trained", [0, 3])
def test_gray_images_of_one_channel_are_repeated_for_a_stem_of_three(trained: int, tmp_path: Path) -> None:
    recipe = FineTuning("efficientnet-lite0", 1, 1e-3, trained=trained, side=48, half_floats=False)
    colour = pool()
    gray = replace(colour, images=colour.images[:, :1])
    net = MultiTaskNet("efficientnet-lite0", 1, CLASSES, shared=True)
    done = fine_tune(net, recipe, gray, gray, tmp_path / "net.ckpt", batch=8)
    assert torch.isfinite(answers(done, gray.images, "shade", recipe.side)).all()


def test_deeper_layers_learn_more_slowly_and_heads_fastest() -> None:
    net = fresh("squeezenet")
    groups = rates(net, FineTuning("squeezenet", 1, 1e-3, lowest=0.1))
    speeds = [group["lr"] for group in groups]
    assert speeds == sorted(speeds) and speeds[-1] == pytest.approx(1e-2) and speeds[-2] == pytest.approx(1e-3)
    assert 1e-4 < speeds[0] < 2e-4
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_the_epoch_with_the_least_validation_loss_is_kept_and_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.9, 0.5, 0.6, 0.7, 0.8, 0.9, 0.4])
    kept: list[dict] = []

    def judged(learner: object, net: MultiTaskNet) -> tuple[float, float]:
        kept.append({name: value.clone() for name, value in net.state_dict().items()})
        return next(losses), 0.5

    monkeypatch.setattr(finetune._Learner, "judged", judged)
    best = fine_tune(fresh(), TINY.with_epochs(20), pool(8), pool(8), tmp_path / "net.ckpt", batch=8)
    assert len(kept) == 2 + finetune.PATIENCE
    assert all(torch.equal(value, kept[1][name]) for name, value in best.state_dict().items())
    again: list[Round] = []
    fine_tune(fresh(), TINY.with_epochs(20), pool(8), pool(8), tmp_path / "net.ckpt", again.append, batch=8)
    assert not again


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    net = fresh()
    net.heads["shade"].weight.data[0, 0] = float("nan")
    with pytest.raises(ConfigError) as caught:
        fine_tune(net, TINY, pool(8), None, tmp_path / "net.ckpt", batch=8)
    assert caught.value.code == "training-diverged"


def test_recipes_are_of_their_families() -> None:
    assert all(name == one.family for name, one in FINE_TUNINGS.items())
