"""Train the shipped networks: surrogate packs on half A of the training sets, the held-out judge on half B.

    python -m gateway.training.shipped_packs --pack gray --data DIR --out DIR [--nets vgg,mobile] [--epochs N]
    [--threads N]

Packs: ``gray``, ``rgb`` (surrogates), ``judge-gray``, ``judge-rgb``. One network after the other; each writes a
checkpoint per epoch and goes on from it when started again, then ``NET.safetensors`` and its line in ``figures.json``
(accuracy per task on the sets' test images). How a network is trained: ``gateway.training.networks``.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch

from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import save_net
from gateway.training import labelled_sets as datasets
from gateway.training.networks import (
    CACHE_SIDE,
    INPUT_SIZE,
    RECIPES,
    Epoch,
    Pool,
    accuracy,
    channels_first,
    class_weights,
    train_net,
)

log = logging.getLogger("gateway.training.shipped_packs")

SURROGATES = ("efficientnet-lite0", "vgg", "mobile", "densenet", "vit")
PACKS = {
    "gray": (1, datasets.GRAY_SETS, "A", SURROGATES),
    "rgb": (3, datasets.RGB_SETS, "A", SURROGATES),
    "judge-gray": (1, datasets.GRAY_SETS, "B", ("resnet",)),
    "judge-rgb": (3, datasets.RGB_SETS, "B", ("resnet",)),
}


def load_pool(data: Path, sets: dict[str, str], half: str) -> Pool:
    """Read one half of every set's training images into one pool."""
    images, task, label, weight, classes = [], [], [], [], {}
    for index, (name, folder) in enumerate(sets.items()):
        part = datasets.load_train(data / folder, half, CACHE_SIDE)
        labels = torch.from_numpy(part.labels).long()
        images.append(channels_first(part.images))
        task.append(torch.full((len(labels),), index))
        label.append(labels)
        weight.append(class_weights(labels, len(part.classes)))
        classes[name] = part.classes
    return Pool(torch.cat(images), torch.cat(task), torch.cat(label), torch.cat(weight), classes)


def accuracies(net: MultiTaskNet, data: Path, sets: dict[str, str]) -> dict[str, float]:
    """Return the accuracy per task on the sets' test images, read at ``INPUT_SIZE``."""
    result = {}
    for name, folder in sets.items():
        test = datasets.load_test(data / folder)
        result[name] = round(accuracy(net, name, test.images, test.labels), 4)
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

        def report(epoch: Epoch, family: str = family) -> None:
            log.info("%s epoch %d/%d loss %.3f %.0f s", family, epoch.number, epoch.total, epoch.loss, epoch.seconds)

        recipe = RECIPES[family]
        epochs = arguments.epochs or recipe.epochs
        net = train_net(recipe, channels, pool, arguments.out / f"{family}.ckpt", epochs, report)
        save_net(net, arguments.out / f"{family}.safetensors", INPUT_SIZE, {"pack": arguments.pack, "half": half})
        figures_file = arguments.out / "figures.json"
        figures = json.loads(figures_file.read_text()) if figures_file.exists() else {}
        figures[family] = accuracies(net, arguments.data, sets)
        figures_file.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
        log.info("%s done: %s", family, figures[family])


if __name__ == "__main__":
    main()
