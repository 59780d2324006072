"""Train the networks of a site's pack one after the other, and write what the gateway needs to use them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gateway.errors import ConfigError, MarkError
from gateway.mark import load_packs
from gateway.mark.surrogates.nets import RESERVED, MultiTaskNet
from gateway.mark.surrogates.store import load_net, save_net
from gateway.training.card import write_card
from gateway.training.figures import Figure
from gateway.training.finetune import FINE_TUNINGS, Round, fine_tune
from gateway.training.networks import BATCH, INPUT_SIZE, RECIPES, Epoch, Pool, accuracy, pool_of, train_net
from gateway.training.pictures import Pictures
from gateway.training.pretrained import backbone, fill_backbone
from gateway.training.split import hold_out, pseudo_labels

SITE_NETS = ("squeezenet", "mobilenetv2", "resnet50-thin", "efficientnet-lite0", "vgg", "densenet")
"""Families of a site's pack, in the order of training: four that start from pretrained backbones, two from nothing.
Marks made on one kind hardly mislead the other."""
LEAST_IMAGES = 8
ENOUGH, ENOUGH_ABOVE = 0.75, 0.2
"""Accuracy, and accuracy above the commonest class, from which on a network counts as good."""
FINE_TUNED, FROM_SCRATCH = 10_000, 30_000
"""Images shown to one network in all, about: it bounds the time of a pack. Three epochs are the least, though."""
LEAST_SHOWN = 6_000
"""Images shown to one network in all, at least: a small folder is gone through more often."""


@dataclass(frozen=True)
class Plan:
    """What to train.

    Attributes
    ----------
    channels
        1 or 3.
    task
        name of the question, as in a profile's tasks where it is the same question; see ``task_name``.
    nets
        families, none of them reserved for the evaluation.
    epochs
        per network; None: by recipe and number of images.
    clusters
        pseudo classes of unlabelled images; None: by their number.
    """

    channels: int
    task: str
    nets: tuple[str, ...] = SITE_NETS
    epochs: int | None = None
    clusters: int | None = None


@dataclass(frozen=True)
class Trained:
    """One finished network.

    Attributes
    ----------
    net
        family.
    accuracy
        share of the held-out images that it gets right, 0..1; None without any.
    seconds
        of this run.
    held
        held-out images.
    usual
        share of the commonest class among them, 0..1: what an answer without looking gets.
    """

    net: str
    accuracy: float | None
    seconds: float
    held: int = 0
    usual: float = 0.0

    def told(self) -> str:
        """Return how good the network is, in words: accuracy with its interval, and whether a mark gains by it."""
        if self.accuracy is None:
            return "no image held out"
        figure = Figure(round(self.accuracy * self.held), self.held)
        text = f"held-out accuracy {figure} of {self.held} images (always the commonest class: {self.usual:.2f})"
        if self.accuracy < self.usual + ENOUGH_ABOVE or self.accuracy < ENOUGH:
            text += "; weak: what misleads it says little of good networks"
        return text


def task_name(text: str) -> str:
    """Return ``text`` as the name of a task: lower-case letters, digits and underscores."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "site"
    return f"{name}_task" if hasattr(nn.ModuleDict, name) else name


def check_nets(nets: tuple[str, ...]) -> None:
    """Raise ConfigError ``no-such-net`` for a family that a site's pack cannot have."""
    allowed = [family for family in (*FINE_TUNINGS, *RECIPES) if family not in RESERVED]
    for net in nets:
        if net not in allowed:
            why = "is kept for the evaluation" if net in RESERVED else "is no network family"
            raise ConfigError("no-such-net", f"{net!r} {why}", f"choose among {', '.join(allowed)}")


def epochs_for(family: str, count: int) -> int:
    """Return how often ``count`` images are gone through."""
    tuned = FINE_TUNINGS.get(family)
    usual, most = (tuned.epochs, FINE_TUNED) if tuned else (RECIPES[family].epochs, FROM_SCRATCH)
    return int(np.clip(usual, min(-(-LEAST_SHOWN // count), 60), max(3, most // count)))


def shipped_backbone(family: str) -> Path:
    """Return the file of an installed pack whose network of ``family`` a site's own starts from.

    Raises
    ------
    ConfigError
        ``weights-missing`` when no installed pack has one.
    """
    for pack in load_packs().values():
        for path in pack.files:
            if path.stem == family:
                return path
    message = f"no installed surrogate pack has a network {family!r} to start from"
    raise ConfigError("weights-missing", message, "install the gateway with its plug-ins, or choose other --nets")


def train_pack(
    pictures: Pictures,
    out: Path,
    plan: Plan,
    report: Callable[[str, Epoch], None] = lambda net, epoch: None,
    done: Callable[[Trained], None] = lambda trained: None,
) -> Path:
    """Train every network of the plan into ``out`` and return the path of the pack description.

    A run that was broken off goes on where its last checkpoint was written, with equal results.

    Parameters
    ----------
    pictures
        the images; without labels, pseudo labels are made.
    out
        folder of the pack; made when it is not there.
    plan
        what to train.
    report
        called after every epoch with the family.
    done
        called after every network.

    Raises
    ------
    ConfigError
        ``no-such-net``, ``too-few-images``, ``cannot-write``, and those of ``train_net``.
    """
    check_nets(plan.nets)
    labels, classes = pictures.labels, pictures.classes
    if labels is None:
        labels, classes = pseudo_labels(pictures.images, plan.clusters)
    numbers = np.bincount(labels, minlength=len(classes))
    if len(labels) < LEAST_IMAGES or len(classes) < 2 or numbers.min() < 2:
        counts = ", ".join(f"{name}: {number}" for name, number in zip(classes, numbers, strict=True))
        message = f"at least {LEAST_IMAGES} images, two classes and two images of each are needed; there are {counts}"
        raise ConfigError("too-few-images", message)
    held = hold_out(pictures.groups, labels)
    if not held.any():  # a single large group, say: then images stand for themselves, and the card says so
        held = hold_out([f"image {index}" for index in range(len(labels))], labels)
    pool = pool_of(plan.task, classes, pictures.images[~held], labels[~held])
    count = int((~held).sum())
    batch = int(np.clip(count // 8, 4, BATCH))
    origin = {"pack": plan.task, "labels": "given" if pictures.labels is not None else "pseudo"}
    figures: dict[str, float | None] = {}
    try:
        (out / "checkpoints").mkdir(parents=True, exist_ok=True)
        for family in plan.nets:
            epochs = plan.epochs or epochs_for(family, count)
            spent: list[float] = []

            def after(epoch: Epoch, family: str = family, spent: list[float] = spent) -> None:
                spent.append(epoch.seconds)
                report(family, epoch)

            checkpoint = out / "checkpoints" / f"{family}.ckpt"
            net, side = _train(family, plan.channels, pool, checkpoint, epochs, after, batch)
            save_net(net, out / f"{family}.safetensors", side, origin)
            share = accuracy(net, plan.task, pictures.images[held], labels[held], side) if held.any() else None
            figures[family] = None if share is None else round(share, 4)
            usual = float(np.bincount(labels[held]).max() / held.sum()) if held.any() else 0.0
            done(Trained(family, figures[family], round(sum(spent), 1), int(held.sum()), usual))
        (out / "figures.json").write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", "utf-8")
        write_card(out / "card.md", pictures, plan.task, classes, labels, held, figures)
        return _write_description(out / "pack.toml", plan)
    except OSError as error:
        raise ConfigError(
            "cannot-write", f"cannot write into {out}: {error.strerror}", "choose another --out"
        ) from None


def _train(
    family: str,
    channels: int,
    pool: Pool,
    checkpoint: Path,
    epochs: int,
    report: Callable[[Epoch], None],
    batch: int,
) -> tuple[MultiTaskNet, int]:
    """Train one network, from a shipped backbone where there is one, and return it with its input side."""
    if family not in FINE_TUNINGS:
        return train_net(RECIPES[family], channels, pool, checkpoint, epochs, report, batch), INPUT_SIZE

    def told(one: Round) -> None:
        report(Epoch(one.number, one.total, one.loss, one.seconds))

    tuning = FINE_TUNINGS[family].with_epochs(epochs)
    torch.manual_seed(0)
    net = MultiTaskNet(family, channels, pool.classes, shared=True)
    try:
        shipped, _ = load_net(shipped_backbone(family), torch.device("cpu"), fold=False)
    except MarkError as error:
        raise ConfigError(error.code, error.message) from None
    fill_backbone(net, list(backbone(shipped).values()))
    return fine_tune(net, tuning, pool, None, checkpoint, told, batch), tuning.side


def _write_description(path: Path, plan: Plan) -> Path:
    """Write the pack description (``gateway.mark.surrogates.foreign.description``)."""
    lines = [
        "# Surrogate pack, written by `miad-gateway surrogates train`. Name it in the configuration:",
        "#     [[surrogates]]",
        '#     name = "..."',
        f'#     pack = "{path.name}"   # the path of this file',
        f"channels = {plan.channels}",
        'card = "card.md"',
        'licence_warning = ""   # is logged at start; say here what the licence of the images does not allow',
    ]
    for family in plan.nets:
        lines += ["", "[[models]]", 'format = "miad"', f'file = "{family}.safetensors"']
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
