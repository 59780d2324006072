"""The demo's picture: original, marked copy, and their difference, as a person sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

AMPLIFIED = 20  # how often the difference is shown


@dataclass(frozen=True)
class Pair:
    """Display images of one instance, (H, W) or (H, W, 3) float in 0..1, and what to write above them."""

    title: str
    remark: str
    original: np.ndarray
    marked: np.ndarray


def save_picture(pairs: Sequence[Pair], path: Path) -> None:
    """Write a PNG with one row for each pair; a difference of 0 is mid-grey."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shapes = [pair.original.shape[0] / pair.original.shape[1] for pair in pairs]
    figure = Figure(figsize=(11, sum(0.3 + 3.6 * shape for shape in shapes)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(pairs), 3, squeeze=False, height_ratios=shapes)
    for row, pair in zip(axes, pairs, strict=True):
        difference = np.clip(0.5 + AMPLIFIED * (pair.marked - pair.original), 0.0, 1.0)
        titles = (pair.title, f"marked: {pair.remark}", f"difference x{AMPLIFIED}")
        for axis, image, title in zip(row, (pair.original, pair.marked, difference), titles, strict=True):
            axis.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.set_axis_off()
    figure.savefig(path, dpi=110)
