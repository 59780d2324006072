"""Train the shipped networks on the open sets: surrogates on half A, the held-out judge on half B.

    python -m gateway.training.shipped_packs --out DIR --backbones DIR [--data DIR] [--nets vgg16,densenet]
    [--half A|B] [--epochs N] [--threads N] [--no-test]

``--backbones``: what ``python -m gateway.training.pretrained`` wrote. Networks with a pretrained backbone are
fine-tuned at 224 px (``gateway.training.finetune``), the others trained from scratch at 128 px
(``gateway.training.networks``); every one takes gray and RGB images and has a head for each set. One network after the
other; each writes a checkpoint per epoch and goes on from it when started again, then ``NET.safetensors`` (float32) and
its line in ``figures.json``: right answers and images per set, on the validation part and on the test images.
``--no-test`` leaves the test images alone. ``gateway.training.ship`` and ``ship_judge`` make of these what is shipped.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from gateway.errors import ConfigError
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import round_weights, save_net
from gateway.training.finetune import FINE_TUNINGS, JUDGE, Round, answers, fine_tune, first_layers
from gateway.training.networks import (
    CACHE_SIDE,
    INPUT_SIZE,
    RECIPES,
    Epoch,
    Pool,
    channels_first,
    class_weights,
    train_net,
)
from gateway.training.open_sets import OPEN_SETS, OpenImages, load_test, load_train, shared_folder
from gateway.training.pretrained import load_backbone

log = logging.getLogger("gateway.training.shipped_packs")

SCRATCH = ("densenet", "vgg", "mobile")
SURROGATES = (*FINE_TUNINGS, *SCRATCH)
"""Networks of the shipped packs."""
MARGIN = 32
"""Images in memory are this much larger (pixels) than what the fine-tuned networks see."""
Right = dict[str, tuple[int, int]]
"""Set -> (right answers, images)."""


def kept_pool(root: Path, half: str, part: str, side: int, folder: Path) -> Pool:
    """Return ``open_pool`` of these, kept decoded in ``folder`` once it was read."""
    path = folder / f"pool-{half}-{part}-{side}.pt"
    if path.exists():
        saved = torch.load(path, map_location="cpu", weights_only=True)
        images, task, label, weight = saved["tensors"]
        return Pool(images, task, label, weight, saved["classes"], frozenset(saved["gray_tasks"]))
    pool = open_pool(root, half, part, side)
    tensors = [pool.images, pool.task, pool.label, pool.weight]
    beside = path.with_suffix(".part")
    torch.save({"tensors": tensors, "classes": pool.classes, "gray_tasks": sorted(pool.gray_tasks)}, beside)
    beside.replace(path)
    return pool


def open_pool(root: Path, half: str, part: str, side: int) -> Pool:
    """Read one part of one half of every open set into a pool of three channels.

    Images weigh as their class and, by the square root, their set is rare; mean about 1.

    Parameters
    ----------
    root
        from ``shared_folder``.
    half
        ``A`` or ``B``.
    part
        ``train`` or ``validation``.
    side
        pixels.
    """
    parts = {name: load_train(root, name, half, part, side) for name in OPEN_SETS}  # type: ignore[arg-type]
    usual = sum(len(one.labels) for one in parts.values()) / len(parts)
    images, task, label, weight = [], [], [], []
    for index, one in enumerate(parts.values()):
        labels = torch.from_numpy(one.labels)
        images.append(three_channels(one))
        task.append(torch.full((len(labels),), index))
        label.append(labels)
        weight.append(class_weights(labels, len(one.classes)) * (usual / len(labels)) ** 0.5)
    gray = frozenset(name for name, one in OPEN_SETS.items() if one.channels == 1)
    classes = {name: one.classes for name, one in parts.items()}
    return Pool(torch.cat(images), torch.cat(task), torch.cat(label), torch.cat(weight), classes, gray)


def three_channels(images: OpenImages) -> torch.Tensor:
    """Return uint8 (N, 3, side, side); gray images are repeated."""
    return channels_first(images.images).expand(-1, 3, -1, -1).contiguous()


def right_answers(net: MultiTaskNet, sets: Mapping[str, OpenImages], side: int) -> Right:
    """Return right answers and images per set.

    Raises
    ------
    ConfigError
        ``other-classes`` where the network numbers other classes than a set does.
    """
    found = {}
    for name, one in sets.items():
        if (known := net.tasks[name]) != one.classes:
            told = f"{net.family} answers {', '.join(known)} of {name}, and the set is of {', '.join(one.classes)}"
            raise ConfigError("other-classes", told, "train it again on these sets")
        logits = answers(net, channels_first(one.images), name, side)
        found[name] = (int((logits.argmax(1).numpy() == one.labels).sum()), len(one.labels))
    return found


def train_one(
    family: str, root: Path, half: str, backbones: Path | None, out: Path, epochs: int, say: Callable[[str], None]
) -> tuple[MultiTaskNet, int]:
    """Train one network on one half of all sets and return it with its input side in pixels.

    Parameters
    ----------
    family
        of the network.
    root
        from ``shared_folder``.
    half
        ``A`` or ``B``.
    backbones
        folder of converted backbones; needed for families that have one.
    out
        folder of checkpoints.
    epochs
        0: the recipe's own.
    say
        told every epoch.

    Raises
    ------
    ConfigError
        those of ``load_backbone``, ``fine_tune`` and ``train_net``.
    """
    checkpoint = out / f"{family}.ckpt"
    tuning = JUDGE if family == JUDGE.family else FINE_TUNINGS.get(family)
    if tuning is None:
        pool = kept_pool(root, half, "train", CACHE_SIDE, out)

        def after(epoch: Epoch) -> None:
            say(f"epoch {epoch.number}/{epoch.total} loss {epoch.loss:.3f} {epoch.seconds:.0f} s")

        recipe = RECIPES[family]
        return train_net(recipe, 3, pool, checkpoint, epochs or recipe.epochs, after, shared=True), INPUT_SIZE

    def told(done: Round) -> None:
        figures = f"loss {done.loss:.3f}, validation loss {done.held_loss:.3f} accuracy {done.held_accuracy:.3f}"
        say(f"epoch {done.number}/{done.total} {figures} {done.seconds:.0f} s")

    if epochs:
        tuning = tuning.with_epochs(epochs)
    pool, held = (kept_pool(root, half, part, tuning.side + MARGIN, out) for part in ("train", "validation"))
    torch.manual_seed(0)
    net = MultiTaskNet(family, 3, pool.classes, shared=True)
    load_backbone(net, (backbones or Path()) / f"{family}.safetensors")
    if tuning.trained:
        round_weights(net, first_layers(net, tuning))
    return fine_tune(net, tuning, pool, held, checkpoint, told), tuning.side


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds open and data; default: MIAD_DATA")
    parser.add_argument("--backbones", type=Path, help="folder of converted backbones")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--half", choices=("A", "B"), default="A", help="A: surrogates, B: what is held out")
    parser.add_argument("--nets", default="", help="comma-separated families; default: all of the half")
    parser.add_argument("--epochs", type=int, default=0, help="0: the recipe's own")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's own choice")
    parser.add_argument("--no-test", action="store_true", help="leave the test images alone")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    root = shared_folder(arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    default = SURROGATES if arguments.half == "A" else (JUDGE.family,)
    for family in arguments.nets.split(",") if arguments.nets else default:

        def say(text: str, family: str = family) -> None:
            log.info("%s %s", family, text)

        net, side = train_one(family, root, arguments.half, arguments.backbones, arguments.out, arguments.epochs, say)
        save_net(net, arguments.out / f"{family}.safetensors", side, {"half": arguments.half}, "float32")
        held = {name: load_train(root, name, arguments.half, "validation", side + MARGIN) for name in OPEN_SETS}
        figures: dict[str, Right] = {"validation": right_answers(net, held, side)}
        if not arguments.no_test:
            tests = {name: load_test(root, name, side + MARGIN) for name in OPEN_SETS}
            figures["test"] = right_answers(net, tests, side)
        write_figures(arguments.out / "figures.json", family, figures)
        say(f"done: {figures}")


def write_figures(path: Path, family: str, figures: Mapping[str, Right]) -> None:
    """Put the line of one network into a file of figures."""
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    known[family] = figures
    path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
