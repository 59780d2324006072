"""The pictures of benchmarks: bars of what stands side by side, lines of what runs along; below, the facts."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.facts import Facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path("build") / "benchmarks"  # git ignores it


def add_outputs(parser: argparse.ArgumentParser, name: str) -> None:
    """Add ``--json``, and ``--picture``, which has a place of its own where none is given."""
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, default=FOLDER / f"{name}.png", help="default: %(default)s")


def bars(path: Path, series: Mapping[str, Mapping[str, float]], unit: str, told: Facts, log: bool = False) -> None:
    """Save horizontal bars, each with its value.

    Parameters
    ----------
    series
        Name of a series -> name of a bar -> its value; bars of one name stand together.
    unit
        What the values are, written on their axis.
    log
        A logarithmic axis, for values that differ by powers of ten.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for values in series.values() for name in values))
    figure = Figure(figsize=(8, 1.6 + 0.32 * len(names) * max(1.0, 0.75 * len(series))))
    axes = figure.subplots()
    for place, (label, values) in enumerate(series.items()):
        height = 0.8 / len(series)
        at = [names.index(name) + height * (place - (len(series) - 1) / 2) for name in values]
        axes.bar_label(axes.barh(at, list(values.values()), 0.94 * height, label=label), fmt="{:.4g}", padding=3)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log" if log else "linear")
    axes.margins(x=0.12)
    axes.set_xlabel(unit)
    if len(series) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(series), frameon=False)
    _save(figure, path, told)


def lines(
    path: Path,
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    along: str,
    told: Facts,
    log: bool = False,
) -> None:
    """Save panels of lines, one above the other.

    Parameters
    ----------
    panels
        What a panel shows -> name of a line -> its places along the axis that all panels share, and its values.
    along
        What that axis is.
    log
        Both axes logarithmic, the shared one to base two.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 + max(2.8, 1.7 * len(panels))))
    for axes, (shown, of_panel) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        for label, (places, values) in of_panel.items():
            axes.plot(places, values, marker="o" if log else None, label=label)
        if log:
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.xaxis.set_major_formatter("{x:.0f}")
            axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_ylabel(shown)
        axes.grid(True, alpha=0.3)
    axes.set_xlabel(along)
    figure.axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2 if log else 4, frameon=False)
    _save(figure, path, told)


def _save(figure: Figure, path: Path, told: Facts) -> None:
    figure.set_layout_engine("constrained")
    figure.supxlabel("\n".join(textwrap.wrap(str(told), 110, break_on_hyphens=False)), fontsize=7, color="0.4")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"picture: {path}", file=sys.stderr)  # standard output may be JSON
