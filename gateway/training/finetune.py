"""Fine-tuning of pretrained backbones: one trunk for all sets, gray and RGB, a head per set; resumable every epoch.

What keeps a small number of images from spoiling a good backbone: batch norms keep the statistics of their
pre-training, deeper layers learn more slowly (a geometric series of rates down to ``lowest`` at the first trained
layer), rates warm up and end near zero, what is kept is a running mean of the weights (weight averaging, Izmailov et
al. 2018: flatter minima, whose marks transfer better), and of all epochs the one with the least loss on the validation
images.

On a machine without an accelerator the first layers may be left as they are: then what they make of a few augmented
views of every image is computed once, and the layers behind learn from that, ten times as fast.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gateway.errors import ConfigError
from gateway.mark.device import channels_last, computes_in_bfloat16
from gateway.mark.resample import resize
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import write_whole
from gateway.training.checkpoints import read_checkpoint, write_checkpoint
from gateway.training.networks import BATCH, SEED, Pool, augment, task_loss

SIDE = 224
"""Side in pixels of what pretrained networks are fine-tuned and used at."""
HEAD_RATE = 10.0
"""The new heads' rate, as a multiple of the last layer's."""
AVERAGE = 0.98
"""Share of the running mean that stays at each step."""
MOST_VIEWS = 6000
"""Augmented views in memory, about: many images need few of each."""
PATIENCE = 4
"""Epochs without a lesser validation loss after which training ends."""


@dataclass(frozen=True)
class FineTuning:
    """How one backbone is fine-tuned.

    Attributes
    ----------
    family
        with pretrained weights.
    epochs
        at most.
    rate
        peak rate of the last layer (AdamW).
    lowest
        rate of the first trained layer, as a share of ``rate``.
    trained
        how many layers learn, counted from the last; 0: all.
    views
        augmented views of every image, at most, that are drawn once where not all layers learn; else every epoch
        draws anew.
    side
        input side in pixels.
    half_floats
        whether products are computed in bfloat16, on a processor that has it.
    """

    family: str
    epochs: int
    rate: float
    lowest: float = 0.1
    trained: int = 0
    views: int = 3
    side: int = SIDE
    half_floats: bool = True

    def with_epochs(self, epochs: int) -> FineTuning:
        """Return the same with another number of epochs."""
        return replace(self, epochs=epochs)


FINE_TUNINGS = {
    one.family: one
    for one in (
        FineTuning("squeezenet", 10, 3e-4, trained=4),
        FineTuning("mobilenetv2", 10, 5e-4, trained=10),
        FineTuning("resnet50-thin", 10, 2e-4, trained=6),
        FineTuning("efficientnet-lite0", 8, 5e-4, trained=8, half_floats=False),
        FineTuning("vgg16", 6, 1e-4, trained=6, views=1),
        FineTuning("vit-s14", 5, 1e-4, trained=3, views=1),
    )
}
"""Family -> recipe of the shipped networks, in the order of training: about the last third of the layers learns, which
two cores can do in an hour. With an accelerator ``trained = 0`` is better."""
JUDGE = FineTuning("efficientnet-lite1", 10, 5e-4, trained=8, half_floats=False)
"""Recipe of the held-out judge: a family that is kept from packs (``nets.RESERVED``)."""


@dataclass(frozen=True)
class Round:
    """One finished epoch.

    Attributes
    ----------
    number
        from 1.
    total
        at most.
    loss
        mean training loss.
    held_loss
        mean validation loss of the averaged weights (NaN without validation images).
    held_accuracy
        mean over sets of their validation accuracy, 0..1.
    seconds
        taken.
    """

    number: int
    total: int
    loss: float
    held_loss: float
    held_accuracy: float
    seconds: float


def fine_tune(
    net: MultiTaskNet,
    recipe: FineTuning,
    pool: Pool,
    held: Pool | None,
    checkpoint: Path,
    report: Callable[[Round], None] = lambda done: None,
    batch: int = BATCH,
) -> MultiTaskNet:
    """Fine-tune ``net`` and return the best averaged network, in evaluation mode; goes on from ``checkpoint``.

    Parameters
    ----------
    net
        with pretrained weights in its backbone.
    recipe
        how.
    pool
        images to learn from.
    held
        validation images of the same tasks; None: the last epoch is kept.
    checkpoint
        written after every epoch, whole or not at all.
    report
        called after every epoch.
    batch
        images per step.

    Raises
    ------
    ConfigError
        ``bad-checkpoint`` when the checkpoint is damaged or of another run; ``training-diverged`` when the loss is no
        longer finite.
    """
    torch.manual_seed(SEED)
    channels_last(net)
    learner = _Learner(net, recipe, pool, held, checkpoint.parent)
    mean = copy.deepcopy(net).eval().requires_grad_(False)
    steps = -(-len(pool.images) // batch)
    optimiser = torch.optim.AdamW(rates(net, recipe), weight_decay=0.02)
    peaks = [group["lr"] for group in optimiser.param_groups]
    run = f"{recipe} {batch} {pool.digest()}"
    first, best, stale, best_state = 0, math.inf, 0, copy.deepcopy(mean.state_dict())
    if checkpoint.exists():
        saved = read_checkpoint(checkpoint, run, ("net", "mean", "best", "optimiser", "epoch", "least", "stale"))
        net.load_state_dict(saved["net"])
        mean.load_state_dict(saved["mean"])
        optimiser.load_state_dict(saved["optimiser"])
        first, best, stale, best_state = saved["epoch"], saved["least"], saved["stale"], saved["best"]
    for epoch in range(first, recipe.epochs):
        if stale >= PATIENCE:
            break
        began = time.monotonic()
        random = torch.Generator().manual_seed(epoch)  # by epoch, so that a resumed run sees the same images
        torch.manual_seed(epoch)  # dropout
        net.train()
        freeze_norms(net)
        total = 0.0
        for number, index in enumerate(torch.randperm(len(pool.images), generator=random).split(batch)):
            done = epoch * steps + number
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * _rate_at(done, recipe.epochs * steps)
            loss = task_loss(learner.logits(index, random), pool, index)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            _average(mean, net, min(AVERAGE, done / (done + 10)))
            total += loss.item() * len(index) / len(pool.images)
        if not math.isfinite(total):
            raise ConfigError("training-diverged", f"{recipe.family}: the loss of epoch {epoch + 1} is not finite")
        held_loss, held_accuracy = learner.judged(mean)
        if held is None or held_loss < best:
            best, stale, best_state = held_loss, 0, copy.deepcopy(mean.state_dict())
        else:
            stale += 1
        state = {"net": net.state_dict(), "mean": mean.state_dict(), "best": best_state}
        counts = {"optimiser": optimiser.state_dict(), "epoch": epoch + 1, "least": best, "stale": stale}
        write_checkpoint(checkpoint, run, {**state, **counts})
        report(Round(epoch + 1, recipe.epochs, total, held_loss, held_accuracy, time.monotonic() - began))
    mean.load_state_dict(best_state)
    return mean.eval()


class _Learner:
    """What a network is shown: fresh augmentations, or what its first layers made of a few of them."""

    def __init__(self, net: MultiTaskNet, recipe: FineTuning, pool: Pool, held: Pool | None, folder: Path) -> None:
        self._net, self._recipe, self._pool, self._held = net, recipe, pool, held
        self._made: Tensor | None = None
        self._held_made: Tensor | None = None
        if not recipe.trained:
            return
        views = drawn_views(pool, recipe, folder)
        self._made = torch.stack(
            [torch.cat([self._first(_floats(part)) for part in view.split(BATCH)]) for view in views]
        )
        if held is not None:
            self._held_made = torch.cat([self._first(self._plain(part)) for part in self._all(held)])

    def logits(self, index: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Return float32 logits of the images ``index`` of the pool, in a view that ``random`` draws."""
        if self._made is None:
            return self._rest(self._net, augmented(self._pool, index, self._recipe.side, random))
        chosen = torch.randint(len(self._made), (len(index),), generator=random)
        return self._rest(self._net, self._made[chosen, index])

    @torch.no_grad()
    def judged(self, mean: MultiTaskNet) -> tuple[float, float]:
        """Return mean cross entropy and mean accuracy of ``mean`` over the sets' validation images (NaN without)."""
        held = self._held
        if held is None:
            return math.nan, math.nan
        parts = []
        for index in self._all(held):
            parts.append(self._rest(mean, self._plain(index) if self._held_made is None else self._held_made[index]))
        losses, shares = [], []
        for number, task in enumerate(held.classes):
            mine = held.task == number
            logits, label = torch.cat([part[task] for part in parts])[mine], held.label[mine]
            losses.append(float(nn.functional.cross_entropy(logits, label)))
            shares.append(float((logits.argmax(1) == label).float().mean()))
        return float(np.mean(losses)), float(np.mean(shares))

    @staticmethod
    def _all(pool: Pool) -> tuple[Tensor, ...]:
        return torch.arange(len(pool.images)).split(BATCH)

    def _plain(self, index: Tensor) -> Tensor:
        assert self._held is not None
        x = resize(_floats(self._held.images[index]), self._recipe.side, self._recipe.side)
        return x.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _first(self, x: Tensor) -> Tensor:
        """Return what the layers that do not learn make of images in 0..1, as bfloat16."""
        self._net.eval()
        with half_products(True):
            return first_layers(self._net, self._recipe)(self._net.prepared(x)).bfloat16()

    def _rest(self, net: MultiTaskNet, x: Tensor) -> dict[str, Tensor]:
        """Return float32 logits from images in 0..1, or from what ``_first`` made."""
        with half_products(self._recipe.half_floats):
            if not self._recipe.trained:
                logits = net(x).logits
            else:
                pooled = net.dropout(_layers(net)[-self._recipe.trained :](x.float()).mean((2, 3)))
                logits = {task: head(pooled) for task, head in net.heads.items()}
        return {task: one.float() for task, one in logits.items()}


def half_products(wanted: bool) -> torch.autocast:
    """Return a context whose products are computed in bfloat16, if wanted and the processor has instructions for it.

    Without them products in bfloat16 are imitated, many times as slowly as float32 computes.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted and computes_in_bfloat16(torch.device("cpu")))


def augmented(pool: Pool, index: Tensor, side: int, random: torch.Generator) -> Tensor:
    """Return float32 (B, C, side, side) in 0..1, augmented; gray images stay gray."""
    x = augment(pool.images[index], side, random)
    gray = pool.gray()[pool.task[index]]
    x[gray] = x[gray].mean(1, keepdim=True)  # the noise of augmentation is drawn per channel
    return x.contiguous(memory_format=torch.channels_last)


def drawn_views(pool: Pool, recipe: FineTuning, folder: Path) -> Tensor:
    """Return uint8 (views, N, C, side, side): every image of a pool augmented a few times, kept in ``folder``."""
    count = max(1, min(recipe.views, MOST_VIEWS // len(pool.images)))
    told = hashlib.sha256(f"{pool.digest()} {recipe.side} {count} {SEED}".encode()).hexdigest()
    path = folder / f"views-{told[:16]}.safetensors"
    if not path.exists():
        random = torch.Generator().manual_seed(SEED)
        views = []
        for _ in range(count):
            parts = torch.arange(len(pool.images)).split(BATCH)
            drawn = [augmented(pool, index, recipe.side, random) for index in parts]
            views.append(torch.cat([(one * 255.0).round().to(torch.uint8) for one in drawn]))
        write_whole(path, {"views": torch.stack(views).contiguous()}, {})
    return load_file(str(path))["views"]


def _floats(images: Tensor) -> Tensor:
    return (images.float() / 255.0).contiguous(memory_format=torch.channels_last)


def _layers(net: MultiTaskNet) -> nn.Sequential:
    return nn.Sequential(*net.lower, *net.upper)


def rates(net: MultiTaskNet, recipe: FineTuning) -> list[dict]:
    """Return the optimiser's groups: one per layer that learns, with its rate, and one for the heads."""
    layers = list(_layers(net))[-recipe.trained :]
    net.requires_grad_(False)
    learning = [layer.requires_grad_(True) for layer in layers if any(True for _ in layer.parameters())]
    net.heads.requires_grad_(True)
    groups = []
    for number, layer in enumerate(learning):
        share = recipe.lowest ** (1.0 - (number + 1) / len(learning))
        groups.append({"params": list(layer.parameters()), "lr": recipe.rate * share})
    return [*groups, {"params": list(net.heads.parameters()), "lr": recipe.rate * HEAD_RATE}]


def first_layers(net: MultiTaskNet, recipe: FineTuning) -> nn.Sequential:
    """Return the layers that do not learn."""
    return nn.Sequential(*list(_layers(net))[: -recipe.trained]) if recipe.trained else nn.Sequential()


def freeze_norms(net: nn.Module) -> None:
    """Put every batch norm of a network into evaluation mode: its statistics stay those of the pre-training."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


@torch.no_grad()
def _average(mean: MultiTaskNet, net: MultiTaskNet, share: float) -> None:
    """Move ``mean`` towards ``net``: ``share`` of it stays."""
    for kept, new in zip(mean.parameters(), net.parameters(), strict=True):
        kept.lerp_(new, 1.0 - share)


def _rate_at(step: int, steps: int) -> float:
    """Return the share of the peak rate: a tenth of the steps warms up, a half-cosine ends near zero."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.no_grad()
def answers(net: MultiTaskNet, images: Tensor, task: str, side: int) -> Tensor:
    """Return float32 logits (N, classes) of uint8 images (N, C, H, W) at ``side`` pixels."""
    parts = []
    for part in images.split(BATCH):
        x = resize(part.float() / 255.0, side, side).contiguous(memory_format=torch.channels_last)
        parts.append(net(x).logits[task])
    return torch.cat(parts)
