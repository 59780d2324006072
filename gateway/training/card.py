"""The model card of a site's pack: what it was trained on, how it was split, how well it does, what is left to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gateway.training.pictures import Pictures


def write_card(
    path: Path,
    pictures: Pictures,
    task: str,
    classes: Sequence[str],
    labels: np.ndarray,
    held: np.ndarray,
    figures: Mapping[str, float | None],
) -> None:
    """Write the card (Markdown) to ``path``.

    Parameters
    ----------
    path
        target file.
    pictures
        the images; only their numbers go into the card.
    task
        name of the question.
    classes
        class names.
    labels
        int (N,), given or pseudo.
    held
        bool (N,), held-out images.
    figures
        family -> accuracy 0..1 on the held-out images.
    """
    within = set(np.array(pictures.groups)[held]) & set(np.array(pictures.groups)[~held])
    units = "single images (no group could be spared)" if within else "whole groups (patient, folder or file)"
    kind = "given" if pictures.labels is not None else "pseudo labels"
    total, test = np.bincount(labels, minlength=len(classes)), np.bincount(labels[held], minlength=len(classes))
    lines = [
        f"# Surrogate pack for the task {task}",
        "",
        "Trained by `miad-gateway surrogates train`. Marks are optimised against these networks; they are no",
        "diagnostic devices.",
        "",
        "## Data",
        "",
        f"{len(labels)} images in {len(set(pictures.groups))} groups; labels: {kind}.",
        "",
        "| class | images | held out |",
        "|---|---|---|",
        *(f"| {name} | {total[number]} | {test[number]} |" for number, name in enumerate(classes)),
    ]
    if pictures.labels is None:
        lines += [
            "",
            "The images have no labels. The classes are k-means clusters of ImageNet features (EfficientNet-Lite0):",
            "looks, not findings. Accuracy below says how well clusters are told apart, nothing of any diagnosis.",
        ]
    if pictures.skipped:
        reasons = ", ".join(f"{count} {code}" for code, count in sorted(pictures.skipped.items()))
        lines += ["", f"Left out: {reasons}."]
    lines += [
        "",
        "## Split and accuracy",
        "",
        f"Held out are {units}, by the hash of their names; none of them was trained on.",
        "",
        "| network | accuracy |",
        "|---|---|",
        *(f"| {net} | {'-' if share is None else f'{share:.3f}'} |" for net, share in figures.items()),
        "",
        "## Licence and use",
        "",
        "To be filled in by the site: where the images come from, who allowed this use, and who may use the networks.",
        "What must be said to everyone who starts the gateway goes into `licence_warning` of `pack.toml`.",
        "",
    ]
    path.write_text("\n".join(lines), "utf-8")
