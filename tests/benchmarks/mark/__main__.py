"""Measure the mark: what it does to networks that it was and was not made for, and what removal gets back.

    python -m tests.benchmarks.mark --out DIR [--cache DIR] [--sets brain_tumor] [--victims xception,resnet]
                                    [--stage columns,grid] [--sample 16 | --full] [--hours 2] [--tiny] [--device auto]

Stages, in order, what counts most first: ``victims`` reads the held-out networks (kept in the cache folder) and says
which count; ``columns`` makes the marks of both tiers with their controls (clean, the same letters with random texture)
and asks everybody; ``blanked`` the same without background; ``grid`` formats and simple processing; ``reads``
Tesseract; ``older`` data held out; ``tiers`` air and discreet; ``series``; ``generator``; ``removal`` denoisers and
inpainting; ``attacks`` every other attack; ``speed`` passes and seconds against torchattacks. With ``--full``, or named
by ``--stage``, also ``learned`` (pair-trained remover, averaging, retraining; after the positive control), ``alone``
(against one victim each), ``lineage`` (families and pre-training left out of the pack) and ``curve`` (over energy).

The default takes about two hours of one core with AVX-512 and no other work, estimated from what its parts take: a mark
of 80 steps 4.7 CPU seconds (``notice``) or 8.3 (``lettered``), an image asked of all networks 1.3, of which Xception
0.48, InceptionV3 0.18, CLIP (by name only) 0.45. In minutes: columns 29, blanked 16, grid 11, reads 3, older 4,
tiers 6, series 1, generator 5, removal 9, attacks 35, speed 5; before them victims 11, where the cache does not hold
their accuracies.
``--hours`` ends it on the clock, whatever else runs there: what was not reached is told as not measured, and the same
command goes on where it was. Every cell is kept in DIR/cells.jsonl as soon as it is made, every mark in DIR/marks. DIR
ends with report.md, report.json and marks.png. Rules: ``deploy/docs/mark.md``, evaluation rules.

Victims with pretrained backbones are trained before, by ``python -m tests.benchmarks.mark.pretrained_victims``, an hour
or two each; those that are missing are told, and trained here only with ``--train``. Others, those of older sets too,
are trained here where the cache has none: of 800 images a DenseNet takes two minutes, a ViT three.

Needs the extras ``bench`` and ``training``, Tesseract, and torchattacks by ``pip install --no-deps
torchattacks==3.5.1`` (its metadata ask for torchvision and an old requests, which it does not import); what is missing
is told.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch

from gateway.config.marking import Tier
from gateway.mark import MarkSettings
from gateway.training import labelled_sets as datasets
from gateway.training.open_sets import OPEN_SETS
from tests.benchmarks.mark import stages, stages_more, stages_removal, stages_rows
from tests.benchmarks.mark.methods import METHODS
from tests.benchmarks.mark.options import Options
from tests.benchmarks.mark.picture import save_picture
from tests.benchmarks.mark.remover import TINY as TINY_REMOVER
from tests.benchmarks.mark.report import write_report
from tests.benchmarks.mark.run import OutOfTime, Run
from tests.benchmarks.mark.treatments import FEW, FEWEST
from tests.benchmarks.mark.victims import RECIPES, TINY, cache_folder, known, trained

STAGES: dict[str, Callable[[Run], None]] = {
    "victims": stages.victims,
    "columns": stages.columns,
    "blanked": stages_removal.backgrounds,
    "grid": stages_removal.grid,
    "reads": stages_rows.read,
    "older": stages_rows.older,
    "tiers": stages_rows.other_tiers,
    "series": stages_rows.slices,
    "generator": stages_rows.generator,
    "removal": stages_removal.treatments,
    "attacks": stages_rows.attacks,
    "speed": stages_more.speed,
    "learned": stages_removal.learned,
    "alone": stages_more.alone,
    "lineage": stages_more.lineages,
    "curve": stages_more.curve,
}
LONG = ("learned", "alone", "lineage", "curve")
"""Stages that the default leaves out."""
VICTIMS = ("efficientnet-lite1", "xception", "inceptionv3", "vit-s14", "densenet", "vit")
OLDER_VICTIMS = ("efficientnet-lite1",)
OLDER = ("brain_mri", "fundus", "skin", "chest_ct")
TIERS = ("notice", "lettered")
OTHER_TIERS = ("air", "discreet")
SERIES = Path("dicom/series_mr_brain")
"""In the folder of data."""


def tiny_options(device: str = "cpu") -> Options:
    """Return what CI measures: two sets, a few images and steps, every stage's code once."""
    return Options(
        sets=("brain_tumor", "dermoscopy"),
        tiers=TIERS,
        methods=tuple(METHODS),
        sample=4,
        samples={"dermoscopy": 2},
        steps=4,
        other_tiers=("discreet",),
        older=("brain_mri",),
        part=2,
        grid=FEWEST,
        averaging=(2,),
        finetune=(2,),
        finetune_steps=4,
        pairs=2,
        curve={"notice": (42.0,), "lettered": (26.0,)},
        curve_sample=1,
        keys=1,
        repeats=1,
        our_steps=(4,),
        their_steps=(4,),
        remover=TINY_REMOVER,
        settings={"generations": 1, "population": 8, "placements": 4},
        few=True,
        foreign=False,
        device=device,
    )


def options_of(arguments: argparse.Namespace, data: Path) -> Options:
    """Return what the command line asks for; ``data`` is the folder of all sets."""
    if arguments.tiny:
        return tiny_options(arguments.device)
    older = tuple(one for one in arguments.older.split(",") if one)
    return Options(
        sets=tuple(arguments.sets.split(",")),
        tiers=tuple(arguments.tiers.split(",")),
        methods=tuple(arguments.methods.split(",")),
        sample=None if arguments.full else arguments.sample,
        steps=arguments.steps,
        other_tiers=OTHER_TIERS,
        older=older,
        part=48 if arguments.full else arguments.part,
        grid=None if arguments.full else FEW,
        folder=data / SERIES,
        averaging=(10, 100, 1000) if arguments.full else numbers(arguments.averaging),
        finetune=(50, 200, 1000) if arguments.full else numbers(arguments.retrain),
        pairs=600 if arguments.full else arguments.pairs,
        curve_sample=48 if arguments.full else 6,
        speed_sets=len(OPEN_SETS) if arguments.full else 1,
        our_steps=Options.our_steps if arguments.full else (10, 20, 40, 80),
        their_steps=Options.their_steps if arguments.full else (10, 40, 80),
        hours=0.0 if arguments.full else arguments.hours,
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
    result.add_argument("--sets", default=",".join(OPEN_SETS), help="open sets, which the packs know")
    result.add_argument("--older", default=",".join(OLDER), help="sets that no surrogate saw; empty: none")
    result.add_argument("--tiers", default=",".join(TIERS), help="air and discreet have a stage of their own")
    result.add_argument("--victims", default=",".join(VICTIMS), help=f"of {', '.join(RECIPES)}")
    result.add_argument("--train", action="store_true", help="train pretrained victims that are missing, for hours")
    result.add_argument("--methods", default=",".join(METHODS))
    result.add_argument("--stage", help=f"of {', '.join(STAGES)}; the report is always written")
    result.add_argument("--sample", type=int, default=16, help="test images per set")
    result.add_argument(
        "--part", type=int, default=4, help="of them in `grid` and the stages after it; of an older set"
    )
    result.add_argument("--hours", type=float, default=2.0, help="after which nothing new is begun; 0: no limit")
    result.add_argument("--pairs", type=int, default=100, help="marked images that the remover learns from")
    result.add_argument("--averaging", default="10,100", help="numbers of marked images averaged over")
    result.add_argument("--retrain", default="50,200", help="numbers of marked images that victims are retrained on")
    result.add_argument("--full", action="store_true", help="all stages, images and settings; for a GPU")
    result.add_argument(
        "--tiny", action="store_true", help="what CI runs, in minutes; --sets and the like do not count"
    )
    result.add_argument("--steps", type=int, default=MarkSettings().steps)
    result.add_argument("--device", default="auto")
    result.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's own choice")
    return result


def measure(run: Run, chosen: list[str]) -> None:
    """Run stages in their order, telling the seconds of each, then write report and picture; again after each stage."""
    try:
        for name, stage in STAGES.items():
            if name in chosen:
                began = time.monotonic(), time.process_time()
                stage(run)
                spent = time.monotonic() - began[0], time.process_time() - began[1]
                run.say(f"stage {name}: {spent[0]:.0f} s, {spent[1]:.0f} of processors")
                write_report(run)
    except OutOfTime:
        run.say(f"the {run.options.hours:g} hours are over; started again, the run goes on where it was")
    _, rows = write_report(run)
    scenes = run.finished_scenes()
    if "columns" in chosen and scenes:
        save_picture(scenes, run.out / "marks.png")
    for row in rows:
        run.say(f"{row.word:12} {row.name}{', ' * bool(row.tier)}{row.tier}: {row.text}")
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
    default = [one for one in STAGES if arguments.full or arguments.tiny or one not in LONG]
    chosen = arguments.stage.split(",") if arguments.stage else default
    wrong = [f"set {one}" for one in arguments.sets.split(",") if one not in OPEN_SETS]
    wrong += [f"older set {one}" for one in arguments.older.split(",") if one and one not in OLDER]
    wrong += [f"stage {one}" for one in chosen if one not in STAGES and one != "report"]
    wrong += [f"method {one}" for one in arguments.methods.split(",") if one not in METHODS]
    wrong += [f"tier {one}" for one in arguments.tiers.split(",") if one not in get_args(Tier)]
    if wrong:
        raise SystemExit(f"there is no {', no '.join(wrong)}")
    cache = cache_folder(arguments.cache)
    recipes, reasons = known(
        TINY if arguments.tiny else arguments.victims.split(","), TINY if arguments.tiny else RECIPES
    )
    if not arguments.train:
        recipes, more = trained(recipes, cache)
        reasons += more
    for reason in reasons:
        print(f"skipped: {reason}", flush=True)
    if not recipes:
        raise SystemExit("no victim left")
    older, _ = (list(TINY.values()), []) if arguments.tiny else known(OLDER_VICTIMS, RECIPES)
    options = options_of(arguments, folder)
    run = Run(options, recipes, folder, arguments.out, cache, lambda text: print(text, flush=True), older)
    run.skipped |= dict(reason.split(": ", 1) for reason in reasons)
    measure(run, chosen)


if __name__ == "__main__":
    main()
