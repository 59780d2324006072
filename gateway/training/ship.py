"""Make of trained networks what is shipped: small files, and the card that says what they are and how good.

    python -m gateway.training.ship --trained DIR --out DIR [--data DIR] [--nets squeezenet,densenet]

Networks that were shipped into DIR before are kept with their figures (``networks.json``), so one can be added.

``--trained``: what ``python -m gateway.training.shipped_packs`` wrote. A network goes to int8 weights where that
changes no answer on any validation image of its half; else only those weights do that were rounded before training,
and the others go to float16. The card's figures are those of the files.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import load_net, save_net
from gateway.training.figures import Figure
from gateway.training.finetune import answers
from gateway.training.networks import channels_first
from gateway.training.open_sets import OPEN_SETS, OpenImages, load_test, load_train, shared_folder
from gateway.training.shipped_card import Shipped, card
from gateway.training.shipped_packs import MARGIN, SURROGATES, right_answers
from gateway.training.sources import SOURCES

log = logging.getLogger("gateway.training.ship")
RECORD = "networks.json"
"""Beside the card: the figures that it is written from."""
_CPU = torch.device("cpu")


def ship_net(
    source: Path, target: Path, held: Mapping[str, OpenImages], tests: Mapping[str, OpenImages], half: str = "A"
) -> Shipped:
    """Write a trained network (float32) as small as it gets without changing an answer, and judge the file.

    What lies at ``target`` is replaced once the new one is judged.

    Parameters
    ----------
    source
        from ``shipped_packs``.
    target
        file to write.
    held
        validation images; the choice of weights is made on them.
    tests
        test images, for figures alone.
    half
        that the network was trained on.

    Raises
    ------
    MarkError
        ``weights-corrupt`` when ``source`` cannot be used.
    ConfigError
        those of ``right_answers``.
    """
    net, side = load_net(source, _CPU, fold=False)
    wanted = told(net, held, side)
    beside = target.with_name(f".{target.name}.new")
    try:
        for weights in ("int8", "exact"):
            save_net(net, beside, side, origin(net.family, half), weights)
            small, _ = load_net(beside, _CPU)
            if all(torch.equal(one, wanted[name]) for name, one in told(small, held, side).items()):
                break
        right = [right_answers(small, sets, side) for sets in (held, tests)]
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    validation, test = ({name: Figure(*pair) for name, pair in one.items()} for one in right)
    return Shipped(net.family, weights, target.stat().st_size, side, validation, test)


def told(net: MultiTaskNet, sets: Mapping[str, OpenImages], side: int) -> dict[str, torch.Tensor]:
    """Return per set the (N,) int64 answers of a network."""
    return {name: answers(net, channels_first(one.images), name, side).argmax(1) for name, one in sets.items()}


def commonest(images: OpenImages) -> Figure:
    """Return how often the commonest class is right."""
    return Figure(int(np.bincount(images.labels).max()), len(images.labels))


def origin(family: str, half: str) -> dict[str, str]:
    """Return what a file's header says of where its network comes from."""
    found = {"half": half, "sets": ", ".join(OPEN_SETS)}
    if family in SOURCES:
        source = SOURCES[family]
        found |= {"package": source.requirement, "file": source.member, "sha256": source.sha256}
        found |= {"licence": source.licence}
    return found


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder that holds open and data; default: MIAD_DATA")
    parser.add_argument("--nets", default="", help="comma-separated families; default: those that are trained")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    root = shared_folder(arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = arguments.out / RECORD
    known = read_record(record) if record.is_file() else {}
    wanted = arguments.nets.split(",") if arguments.nets else SURROGATES
    families = [family for family in wanted if (arguments.trained / f"{family}.safetensors").is_file()]
    sides = {family: load_net(arguments.trained / f"{family}.safetensors", _CPU)[1] for family in families}
    for side in sorted(set(sides.values())):
        held = {name: load_train(root, name, "A", "validation", side + MARGIN) for name in OPEN_SETS}
        tests = {name: load_test(root, name, side + MARGIN) for name in OPEN_SETS}
        for family in [one for one in families if sides[one] == side]:
            name = f"{family}.safetensors"
            known[family] = ship_net(arguments.trained / name, arguments.out / name, held, tests)
            write_record(record, known)
            log.info("%s: %s", family, json.dumps({name: str(one) for name, one in known[family].test.items()}))
    parts = {
        "learnt": {name: load_train(root, name, "A", "train", 32) for name in OPEN_SETS},
        "validation": {name: load_train(root, name, "A", "validation", 32) for name in OPEN_SETS},
        "test": {name: load_test(root, name, 32) for name in OPEN_SETS},
    }
    learnt, held, tests = parts.values()
    counts = {one: (len(learnt[one].labels), len(held[one].labels), len(tests[one].labels)) for one in OPEN_SETS}
    usual = {part: {name: commonest(one) for name, one in sets.items()} for part, sets in parts.items()}
    shipped = [known[family] for family in SURROGATES if family in known]
    (arguments.out / "networks.md").write_text(card(shipped, counts, usual), "utf-8")


def read_record(path: Path) -> dict[str, Shipped]:
    """Return what is recorded of shipped networks, by family."""
    found = {}
    for family, one in json.loads(path.read_text("utf-8")).items():
        validation, test = (
            {name: Figure(*pair) for name, pair in one[part].items()} for part in ("validation", "test")
        )
        found[family] = Shipped(family, one["weights"], one["size"], one["side"], validation, test)
    return found


def write_record(path: Path, shipped: Mapping[str, Shipped]) -> None:
    """Record shipped networks: what the card is written from."""
    rows = {}
    for family, one in shipped.items():
        rows[family] = {"weights": one.weights, "size": one.size, "side": one.side}
        for part in ("validation", "test"):
            rows[family][part] = {name: [each.right, each.images] for name, each in getattr(one, part).items()}
    path.write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()
