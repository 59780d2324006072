"""The picture: per set an image, its mark and the difference times 20, for every tier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tests.benchmarks.mark.data import shown
from tests.benchmarks.mark.methods import Scene

GAIN = 20.0


def save_picture(scenes: Sequence[Scene], path: Path) -> None:
    """Write a PNG with a row per scene: original, marked, difference x20 around mid grey.

    Parameters
    ----------
    scenes
        at least one.
    path
        replaced when it exists.
    """
    figure = Figure(figsize=(7.5, 2.6 * len(scenes)), layout="constrained")
    axes = figure.subplots(len(scenes), 3, squeeze=False)
    for row, scene in zip(axes, scenes, strict=True):
        before, after = shown(scene.originals[0]), shown(scene.reference.images[0])
        difference = np.clip(0.5 + GAIN * (after - before) / 2.0, 0.0, 1.0)
        titles = (f"{scene.sample.name}", f"marked, {scene.settings.tier}", f"difference x{GAIN:g}")
        for place, picture, title in zip(row, (before, after, difference), titles, strict=True):
            place.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            place.set_title(title, fontsize=8)
            place.set_axis_off()
    figure.savefig(path, dpi=150)
