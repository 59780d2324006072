"""Measure the mark: what it does to networks that it was and was not made for, and what removal gets back.

    python -m tests.benchmarks.mark --out DIR [--sets brain_tumor,brain_mri] [--victims resnet,vit]
                                    [--stage columns,removal] [--sample 48 | --full] [--pairs 100] [--tiny]
                                    [--device auto]

Stages, in order: ``victims`` trains or reads the held-out networks (kept in the cache folder); ``columns`` makes and
judges every column; ``alone`` marks against one victim each; ``removal``, ``learned`` (pair-trained remover, averaging,
retraining; after the positive control); ``lineage`` (pre-training held out); ``curve`` (accuracy over energy);
``speed`` (time against torchattacks); ``report``. Every cell is kept in DIR/cells.jsonl as soon as it is made, every
mark in DIR/marks; started again, a run goes on where it was. DIR ends with report.md, report.json and marks.png.
Rules: ``deploy/docs/mark.md``, evaluation rules.

Needs the extra ``bench``, and torchattacks by ``pip install --no-deps torchattacks==3.5.1`` (its metadata ask for
torchvision and an old requests, which it does not import); without it those columns are skipped and say so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch

from gateway.config.marking import Tier
from gateway.mark import MarkSettings
from gateway.training import labelled_sets as datasets
from gateway.training.open_sets import OPEN_SETS
from tests.benchmarks.mark import stages, stages_more, stages_removal
from tests.benchmarks.mark.data import PROFILES
from tests.benchmarks.mark.methods import METHODS
from tests.benchmarks.mark.picture import save_picture
from tests.benchmarks.mark.remover import TINY as TINY_REMOVER
from tests.benchmarks.mark.report import write_report
from tests.benchmarks.mark.run import Options, Run
from tests.benchmarks.mark.victims import RECIPES, TINY, cache_folder, known

STAGES: dict[str, Callable[[Run], None]] = {
    "victims": stages.victims,
    "columns": stages.columns,
    "alone": stages_more.alone,
    "removal": stages_removal.treatments,
    "learned": stages_removal.learned,
    "lineage": stages_more.lineages,
    "curve": stages_more.curve,
    "speed": stages_more.speed,
}
VICTIMS = ("efficientnet-lite1", "xception", "resnet", "densenet", "vit")
TIERS = ("lettered", "discreet")


def tiny_options(device: str = "cpu") -> Options:
    """Return what CI measures: two sets, a few images and steps, every stage's code once."""
    return Options(
        sets=("brain_tumor", "dermoscopy"),
        tiers=TIERS,
        methods=tuple(METHODS),
        sample=6,
        steps=5,
        averaging=(4,),
        finetune=(4,),
        finetune_steps=4,
        pairs=4,
        curve={"lettered": (26.0,), "discreet": (40.0,)},
        curve_sample=2,
        our_steps=(5,),
        their_steps=(5,),
        remover=TINY_REMOVER,
        settings={"generations": 1, "population": 8, "placements": 4},
        few=True,
        device=device,
    )


def options_of(arguments: argparse.Namespace) -> Options:
    """Return what the command line asks for."""
    if arguments.tiny:
        return tiny_options(arguments.device)
    return Options(
        sets=tuple(arguments.sets.split(",")),
        tiers=tuple(arguments.tiers.split(",")),
        methods=tuple(arguments.methods.split(",")),
        sample=None if arguments.full else arguments.sample,
        steps=arguments.steps,
        averaging=(10, 100, 1000) if arguments.full else numbers(arguments.averaging),
        finetune=(50, 200, 1000) if arguments.full else numbers(arguments.retrain),
        pairs=600 if arguments.full else arguments.pairs,
        curve_sample=48 if arguments.full else 12,
        device=arguments.device,
    )


def numbers(text: str) -> tuple[int, ...]:
    """Return comma-separated whole numbers."""
    return tuple(int(one) for one in text.split(","))


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    result = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.mark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--out", type=Path, required=True, help="folder for cells, marks and the report")
    result.add_argument("--cache", type=Path, help="folder of trained networks (default: in the user's cache)")
    result.add_argument("--sets", default=",".join(OPEN_SETS), help=f"of {', '.join(PROFILES)}")
    result.add_argument("--tiers", default=",".join(TIERS))
    result.add_argument("--victims", default=",".join(VICTIMS), help=f"of {', '.join(RECIPES)}")
    result.add_argument("--methods", default=",".join(METHODS))
    result.add_argument("--stage", default=",".join(STAGES), help="comma-separated; the report is always written")
    result.add_argument("--sample", type=int, default=48, help="test images per set")
    result.add_argument("--pairs", type=int, default=100, help="marked images that the remover learns from")
    result.add_argument("--averaging", default="10,100", help="numbers of marked images averaged over")
    result.add_argument("--retrain", default="50,200", help="numbers of marked images that victims are retrained on")
    result.add_argument("--full", action="store_true", help="all test images, N = 1000; for a GPU")
    result.add_argument(
        "--tiny", action="store_true", help="what CI runs, in minutes; --sets and the like do not count"
    )
    result.add_argument("--steps", type=int, default=MarkSettings().steps)
    result.add_argument("--device", default="auto")
    result.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's own choice")
    return result


def measure(run: Run, chosen: list[str]) -> None:
    """Run stages in their order, then write report and picture."""
    for name, stage in STAGES.items():
        if name in chosen:
            stage(run)
    _, rows = write_report(run)
    scenes = [run.scene(name, tier) for name in run.options.sets for tier in run.options.tiers]
    if "columns" in chosen:
        save_picture(scenes, run.out / "marks.png")
    for row in rows:
        run.say(f"{row.word:12} {row.name}: {row.text}")
        for what, value in row.failed_cells if row.reach is not None else ():
            run.say(f"{'':12} failed cell: {what}: {value:.2f}")


def main() -> None:
    """Command line: see the module's docstring."""
    arguments = parser().parse_args()
    folder = datasets.data_folder()
    if folder is None:
        raise SystemExit("no data: set MIAD_DATA to the folder of the labelled sets")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    chosen = arguments.stage.split(",")
    wrong = [f"set {one}" for one in arguments.sets.split(",") if one not in PROFILES]
    wrong += [f"stage {one}" for one in chosen if one not in STAGES and one != "report"]
    wrong += [f"method {one}" for one in arguments.methods.split(",") if one not in METHODS]
    wrong += [f"tier {one}" for one in arguments.tiers.split(",") if one not in get_args(Tier)]
    if wrong:
        raise SystemExit(f"there is no {', no '.join(wrong)}")
    recipes, reasons = known(
        TINY if arguments.tiny else arguments.victims.split(","), TINY if arguments.tiny else RECIPES
    )
    for reason in reasons:
        print(f"skipped: {reason}", flush=True)
    if not recipes:
        raise SystemExit("no victim left")
    run = Run(
        options_of(arguments),
        recipes,
        folder,
        arguments.out,
        cache_folder(arguments.cache),
        lambda text: print(text, flush=True),
    )
    measure(run, chosen)


if __name__ == "__main__":
    main()
