"""Victims: single-task networks of several families, trained on half B of one set, kept outside the repository.

No mark is ever optimised against one of them. A victim is found again by the hash of its recipe; training writes a
checkpoint per epoch and goes on from it. Networks: ``gateway.mark.surrogates.nets``, trained from scratch but for
EfficientNet-Lite; and families that no pack has, with pretrained backbones, one network for all open sets
(``pretrained_victims``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from gateway.mark.resample import resize
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import load_net, save_net
from gateway.training.finetune import FINE_TUNINGS
from gateway.training.networks import augment, channels_first, new_net
from gateway.training.open_sets import OPEN_SETS
from tests.benchmarks.mark.data import Sample, balanced, train_images
from tests.benchmarks.mark.nets_victims import VICTIM_FAMILIES
from tests.benchmarks.mark.pretrained_victims import TUNINGS, pretrained_victim, victim_path
from tests.benchmarks.mark.store import digest
from tests.benchmarks.mark.victim_sources import PRETRAINED_VICTIMS

VERSION = 1
"""Raised when ``fit`` changes what comes out for the same recipe."""
BATCH = 32
MARGIN = 32  # images are kept this much larger than a victim's input, for random zoom and shift


@dataclass(frozen=True)
class Recipe:
    """How a victim is trained.

    Attributes
    ----------
    family
        a key of ``gateway.mark.surrogates.nets.FAMILIES``.
    epochs
        passes over the training images.
    rate
        peak learning rate (AdamW, one cycle).
    side
        input size in pixels.
    cap
        most training images, class-balanced.
    """

    family: str
    epochs: int
    rate: float
    side: int = 112
    cap: int = 800

    @property
    def lineage(self) -> str:
        """``imagenet`` or ``scratch``."""
        return lineage_of(self.family)


RECIPES: dict[str, Recipe] = {
    "resnet": Recipe("resnet", 16, 3e-3),
    "densenet": Recipe("densenet", 14, 3e-3),
    "vgg": Recipe("vgg", 14, 3e-3),
    "vit": Recipe("vit", 20, 1e-3),
    "mobile": Recipe("mobile", 14, 4e-3),
    **{name: Recipe(name, one.epochs, one.rate, one.side) for name, one in TUNINGS.items()},
}
"""From scratch: at most about three minutes each on two cores for 800 images."""
TINY: dict[str, Recipe] = {
    "resnet": Recipe("resnet", 5, 3e-3, side=64, cap=200),
    "vgg": Recipe("vgg", 5, 3e-3, side=64, cap=200),
}
"""For CI: seconds each, and well above chance."""


def architecture_of(family: str) -> str:
    """Return what counts as one family: EfficientNet-Lite0 and -Lite1 are the same one."""
    return "efficientnet-lite" if family.startswith("efficientnet-lite") else family


def lineage_of(family: str) -> str:
    """Return what a family's networks start from here: ``imagenet`` (natural images of some kind) or ``scratch``."""
    pretrained = family.startswith("efficientnet") or family in FINE_TUNINGS or family in PRETRAINED_VICTIMS
    return "imagenet" if pretrained else "scratch"


def known(names: Iterable[str], recipes: dict[str, Recipe]) -> tuple[list[Recipe], list[str]]:
    """Return the recipes of the named families that can be built here, and the reasons why others cannot."""
    found, reasons = [], []
    for name in names:
        if name not in recipes:
            reasons.append(f"victim {name}: no recipe (there are {', '.join(recipes)})")
        elif recipes[name].family not in VICTIM_FAMILIES:
            reasons.append(f"victim {name}: gateway.mark.surrogates.nets has no such family")
        else:
            found.append(recipes[name])
    return found, reasons


def trained(recipes: Iterable[Recipe], cache: Path) -> tuple[list[Recipe], list[str]]:
    """Return the recipes without those of pretrained victims that the cache lacks, and why these are missing."""
    found, reasons = [], []
    for recipe in recipes:
        if recipe.family in TUNINGS and not victim_path(recipe.family, cache).exists():
            reasons.append(
                f"victim {recipe.family}: not trained yet (python -m tests.benchmarks.mark.pretrained_victims)"
            )
        else:
            found.append(recipe)
    return found, reasons


class Victim:
    """A classifier of one set.

    Parameters
    ----------
    recipe
        how it was trained.
    task
        name of the set.
    net
        in evaluation mode, on ``device``.
    path
        its safetensors file.
    device
        where it runs.
    """

    def __init__(self, recipe: Recipe, task: str, net: MultiTaskNet, path: Path, device: torch.device) -> None:
        self.recipe, self.task, self.path = recipe, task, path
        self._net, self._device = net, device

    @property
    def name(self) -> str:
        """Its family, as shown in tables."""
        return self.recipe.family

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the (N,) int64 answers for display images (N, H, W[, 3]) float32 in 0..1."""
        return answers(self._net, self.task, images, self.recipe.side, self._device)

    def trainable(self) -> MultiTaskNet:
        """Return a fresh copy with its batch norms, for further training."""
        net, _ = load_net(self.path, self._device, VICTIM_FAMILIES, fold=False, tasks=(self.task,))
        return net.requires_grad_(True)


@torch.no_grad()
def answers(net: MultiTaskNet, task: str, images: np.ndarray, side: int, device: torch.device) -> np.ndarray:
    """Return the (N,) int64 answers of a network's head ``task`` for display images (N, H, W[, 3]) in 0..1."""
    parts = []
    for part in channels_first(images.astype(np.float32, copy=False)).split(BATCH):
        parts.append(net(resize(part.to(device), side, side)).logits[task].argmax(1).cpu())
    return torch.cat(parts).numpy()


def cache_folder(named: Path | None) -> Path:
    """Return where victims are kept: as named, else ``miad-gateway/victims`` in the user's cache folder."""
    if named is not None:
        return named
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "miad-gateway" / "victims"


def load_or_train(
    recipe: Recipe,
    folder: Path,
    name: str,
    cache: Path,
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
) -> Victim:
    """Return the victim of this recipe for one set, from the cache or trained now.

    Parameters
    ----------
    recipe
        how.
    folder
        of all sets.
    name
        of the set.
    cache
        folder of finished victims.
    device
        where it is trained and run.
    say
        told the time per epoch.
    """
    cache.mkdir(parents=True, exist_ok=True)
    if recipe.family in TUNINGS:
        side = TUNINGS[recipe.family].side + MARGIN
        older = None if name in OPEN_SETS else train_images(folder, name, side)
        path = pretrained_victim(recipe.family, folder, cache, None, say, older)
        net, _ = load_net(path, device, VICTIM_FAMILIES, tasks=(name,))
        return Victim(recipe, name, net, path, device)
    path = cache / f"{name}-{recipe.family}-{digest([VERSION, name, asdict(recipe)])}.safetensors"
    if not path.exists():
        sample = train_images(folder, name, recipe.side + MARGIN)
        torch.manual_seed(2026)
        net = new_net(recipe.family, sample.channels, {name: sample.classes})
        checkpoint = path.with_suffix(".checkpoint")
        fit(net, name, sample, recipe, device, checkpoint, lambda text: say(f"{name} {recipe.family} {text}"))
        save_net(net, path, recipe.side, {"half": "B"})
        checkpoint.unlink(missing_ok=True)
    net, _ = load_net(path, device)
    return Victim(recipe, name, net, path, device)


def fit(
    net: MultiTaskNet,
    task: str,
    sample: Sample,
    recipe: Recipe,
    device: torch.device,
    checkpoint: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> MultiTaskNet:
    """Train ``net`` in place (AdamW, one cycle, label smoothing 0.05, class weights) and return it in evaluation mode.

    Parameters
    ----------
    net
        with a head for ``task``.
    task
        the head.
    sample
        training images, at least as large as the recipe's input.
    recipe
        epochs, rate, size, cap.
    device
        where.
    checkpoint
        written after every epoch and taken up again; None: no file.
    say
        told the loss and time per epoch.
    """
    chosen = _capped(sample, recipe.cap)
    images, labels = channels_first(chosen.images), torch.from_numpy(chosen.labels).long()
    counts = torch.bincount(labels, minlength=len(sample.classes)).float().clamp(min=1.0)
    weight = (len(labels) / (len(counts) * counts)).to(device)
    net.to(device=device, memory_format=torch.channels_last)
    batches = -(-len(labels) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.epochs * batches)
    first = 0
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, recipe.epochs):
        random = torch.Generator().manual_seed(epoch)  # by epoch, so that a resumed run sees the same images
        torch.manual_seed(epoch)  # dropout
        net.train()
        began, total = time.monotonic(), 0.0
        for index in torch.randperm(len(labels), generator=random).split(BATCH):
            x = augment(images[index], recipe.side, random)
            x = x.to(device=device, memory_format=torch.channels_last)
            target = labels[index].to(device)
            loss = functional.cross_entropy(net(x).logits[task], target, weight=weight, label_smoothing=0.05)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() / batches
        if checkpoint is not None:
            state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
            torch.save({**state, "epoch": epoch + 1}, checkpoint)
        say(f"epoch {epoch + 1}/{recipe.epochs} loss {total:.3f} {time.monotonic() - began:.0f} s")
    return net.eval()


def _capped(sample: Sample, cap: int) -> Sample:
    index = balanced(sample.labels, cap, 2026)
    return replace(sample, images=sample.images[index], labels=sample.labels[index])
