"""The first stages: victims, columns, and what every network answers to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import zstandard

from gateway.mark.evaluation.sight import seen_differences
from gateway.mark.visibility.budget import psnr
from gateway.mark.visibility.region import luminance
from tests.benchmarks.mark.answers import is_good
from tests.benchmarks.mark.data import OTHER_KEY, balanced, first_of, shown, test_images
from tests.benchmarks.mark.frames import Frame
from tests.benchmarks.mark.methods import MAIN, Scene, Skipped
from tests.benchmarks.mark.run import Reader, Run
from tests.benchmarks.mark.store import CellStore

MOST_PSNR = 99.0
"""Shown for an anatomy that did not change at all."""


def victims(run: Run) -> None:
    """Train or read every victim of the open sets, and note what it is worth on all of its set's test images."""
    for name in run.options.sets:
        run.say(f"{name}: {worth(run, name)}")


def worth(run: Run, name: str) -> str:
    """Note the accuracy of everybody who took no part, on all test images of a set, and return it in words.

    Kept beside the networks too, since it depends on nothing but them and the images.
    """
    test = test_images(run.data, name)
    majority = float(np.bincount(test.labels).max() / len(test.labels))
    kept, told = CellStore(run.cache / "accuracies.jsonl"), []
    for judge in run.judges(name):

        def measure(judge: Reader = judge) -> dict[str, object]:
            run.in_time()
            return {"accuracy": float((judge.predict(shown(test.images)) == test.labels).mean()), "majority": majority}

        where = {"set": name, "net": judge.identity, "reader": judge.name}
        found = kept.once({**where, "images": len(test.labels)}, measure)
        cell = {"accuracy": found["accuracy"], "majority": majority, "held": judge.held}
        run.note({"kind": "victim", **where}, lambda cell=cell: cell)
        told.append(f"{judge.name} {cell['accuracy']:.2f}{'' if is_good(cell) else ' (does not count)'}")
    return f"on {len(test.labels)} test images, {majority:.2f} of them of one class: {', '.join(told)}"


def columns(run: Run) -> None:
    """Make the marks and their controls, and put the answers of white-box and held-out networks down."""
    for name in run.options.sets:
        shared = run.has_foreign_family(name)
        if run.foreign(name):
            run.note({"kind": "foreign", "set": name}, lambda shared=shared: {"shared": shared})
        for tier in run.options.tiers:
            scene = run.scene(name, tier)
            ask_columns(run, scene, MAIN)
            quality(run, scene)
            run.say(f"{name} {tier}: {', '.join(MAIN)}; {scene.as_asked.sum()} of {len(scene.as_asked)} with air")


def ask_columns(run: Run, scene: Scene, methods: Sequence[str], **more: object) -> None:
    """Put the answers of everybody to some columns of a scene down, with their energy.

    Parameters
    ----------
    run
        whose.
    scene
        the images.
    methods
        the columns; those that are not asked for or not there are left out, the latter told.
    more
        of the cells' identity.
    """
    name, tier = scene.sample.name, scene.settings.tier
    readers = run.white_box(name) + run.judges(name)
    for method in methods:
        if method not in run.options.methods:
            continue
        run.in_time()
        where = {"set": name, "tier": tier, "method": method, **more}
        try:
            made = scene.made(method)
        except Skipped as reason:
            run.say(f"{name} {tier}: {method} skipped: {reason}")
            run.skipped[f"{tier} {method}"] = str(reason)
            continue
        run.note(
            {"kind": "made", **where},
            lambda made=made: {
                "psnr": energy(scene, made.images),
                "reference_psnr": energy(scene, scene.reference.images),
                "seconds": made.seconds,
                "note": made.note,
            },
        )
        run.answer(where, readers, lambda made=made: shown(made.images), scene.labels, scene.as_asked)


def energy(scene: Scene, images: np.ndarray) -> float:
    """Return the mean display PSNR in dB of images against the scene's originals."""
    return float(np.mean([psnr(shown(a), shown(b)) for a, b in zip(scene.originals, images, strict=True)]))


def quality(run: Run, scene: Scene) -> None:
    """Put down what may be seen of the reference marks, what they cost, and that promises are kept."""

    def measure() -> dict[str, object]:
        marks = scene.reference
        change = np.abs(scene.originals.astype(np.int32) - marks.images)
        change = change if change.ndim == 3 else change.max(axis=3)
        packer = zstandard.ZstdCompressor(level=9)
        residuals = (marks.images.astype(np.int16) - scene.originals).astype(np.int16)
        numbers = {
            key: [float(one[key]) for one in marks.quality]
            for key, value in marks.quality[0].items()
            if isinstance(value, int | float)
        }
        screens = [screen for one in marks.quality for screen in one.get("jnd", {}).get("primary", {}).values()]
        jnd = [screen["peak"] for screen in screens]
        return {
            "images": len(marks),
            "refused": {str(index): code for index, code in marks.refused.items()},
            "mean": {key: float(np.mean(values)) for key, values in numbers.items()},
            "least": {key: min(values) for key, values in numbers.items()},
            "most": {key: max(values) for key, values in numbers.items()},
            "max_jnd": max(jnd, default=None),
            "over_jnd_outside": max((screen["over_jnd_outside"] for screen in screens), default=None),
            "counted": int(scene.as_asked.sum()),
            **on_the_anatomy(scene),
            "roi_difference": int(change[marks.roi].max(initial=0)),
            "outside_region": int(change[~marks.region].max(initial=0)),
            "visible_outside_strokes": max(visible_share(frame) for frame in scene.frames),
            "exact": bool(marks.exact.all()),
            "region_share": float(marks.region.mean()),
            "payload_bytes": float(np.median([len(packer.compress(one.tobytes())) for one in residuals])),
            "cross_key_correlation": cross_key(run, scene),
            "seconds": marks.seconds,
            "device": run.device.type,
        }

    where = {"kind": "quality", "set": scene.sample.name, "tier": scene.settings.tier}
    run.note(where, measure)


def on_the_anatomy(scene: Scene) -> dict[str, float]:
    """Return what the reference changes of the anatomy, in images that were marked in the tier that was asked for.

    ``anatomy_psnr`` dB, ``anatomy_levels`` the largest change in 8-bit levels, ``seen`` the share of pixels that the
    second measure of visibility sees, at 1x or 3x: each the worst image, and with ``_mean`` over images. Letters in
    the air are left out, with what they would lend to their neighbours.
    """
    marks, figures = scene.reference, []
    for row in np.flatnonzero(scene.as_asked if scene.settings.tier != "lettered" else np.ones(len(marks), bool)):
        where, before = marks.anatomy[row], shown(scene.originals[row])
        body = where if before.ndim == 2 else where[..., None]
        after = np.where(body, shown(marks.images[row]), before)
        grays = luminance(before), luminance(after)
        seen = max(float((seen_differences(*grays, scale)[where] > 1.0).mean()) for scale in (1.0, 3.0))
        levels = float(np.rint(255.0 * np.abs(after - before)).max())
        figures.append((min(psnr(before[where], after[where]), MOST_PSNR), levels, seen))
    if not figures:
        return {}
    table = np.array(figures)
    names = ("anatomy_psnr", "anatomy_levels", "seen")
    worst = dict(zip(names, (table[:, 0].min(), table[:, 1].max(), table[:, 2].max()), strict=True))
    means = {f"{name}_mean": float(mean) for name, mean in zip(names, table.mean(axis=0), strict=True)}
    return {**{name: float(value) for name, value in worst.items()}, **means}


def visible_share(frame: Frame) -> float:
    """Return the share of a frame's pixels outside strokes that the reference changes by more than the threshold."""
    step = np.abs(shown(frame.reference) - shown(frame.original))
    step = step if step.ndim == 2 else step.max(axis=2)
    return float(((step > frame.threshold + 1e-6) & ~frame.strokes).mean())


def cross_key(run: Run, scene: Scene) -> float:
    """Return the mean absolute correlation between the marks of two site keys on the same images."""
    index = balanced(scene.sample.labels, min(run.options.keys, len(scene.sample)), 0)
    few = first_of(scene.sample, len(index))
    first, second = scene.reference, scene.marks(scene.settings, few, "keys", OTHER_KEY)
    found = []
    for row, place in enumerate(second.kept):
        mine = np.flatnonzero(first.kept == index[place])
        if len(mine):
            a, b = (one.astype(np.float64) - few.images[place] for one in (first.images[mine[0]], second.images[row]))
            found.append(abs(float(np.corrcoef(a.ravel(), b.ravel())[0, 1])))
    return float(np.mean(found)) if found else float("nan")
