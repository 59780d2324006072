"""The first stages: victims, columns, and what every network answers to them."""

from __future__ import annotations

import numpy as np
import zstandard

from gateway.mark.visibility.budget import psnr
from tests.benchmarks.mark.data import OTHER_KEY, SITE_KEY, Sample, first_of, shown, test_images
from tests.benchmarks.mark.frames import Frame
from tests.benchmarks.mark.methods import Scene, Skipped
from tests.benchmarks.mark.run import GENERATOR, Run
from tests.benchmarks.mark.victims import Victim


def victims(run: Run) -> None:
    """Train or read every victim, and note its accuracy on all of its set's test images."""
    for name in run.options.sets:
        test = test_images(run.data, name)
        for victim in run.victims(name):

            def measure(victim: Victim = victim, test: Sample = test) -> dict[str, object]:
                return {"accuracy": float((victim.predict(shown(test.images)) == test.labels).mean())}

            cell = run.note({"kind": "victim", "set": name, "net": victim.path.stem, "reader": victim.name}, measure)
            run.say(f"{name} {victim.name}: {cell['accuracy']:.3f} on {len(test.labels)} test images")


def columns(run: Run) -> None:
    """Make the images of every column, and put the answers of white-box and held-out networks down."""
    for name in run.options.sets:
        readers = run.white_box(name) + run.held_out(name)
        for tier in run.options.tiers:
            scene = run.scene(name, tier)
            quality(run, scene)
            for method in run.options.methods:
                where = {"set": name, "tier": tier, "method": method}
                try:
                    made = scene.made(method)
                except Skipped as reason:
                    run.say(f"{name} {tier}: {method} skipped: {reason}")
                    run.skipped[f"{tier} {method}"] = str(reason)
                    continue
                run.note(
                    {"kind": "made", **where},
                    lambda scene=scene, made=made: {
                        "psnr": energy(scene, made.images),
                        "reference_psnr": energy(scene, scene.reference.images),
                        "seconds": made.seconds,
                        "note": made.note,
                    },
                )
                run.answer(where, readers, lambda made=made: shown(made.images), scene.labels)
        left_out(run, name)


def left_out(run: Run, name: str) -> None:
    """Put down what a victim answers when its family took no part in the columns.

    Not for the paper's search, which takes most of the time, nor for the generator, which was trained with all.
    """
    for reader, pack in run.left_out(name):
        for tier in run.options.tiers:
            scene = run.other_scene(run.sample(name), run.settings(tier), pack)
            for method in run.options.methods:
                if method in ("paper", GENERATOR):
                    continue
                where = {"set": name, "tier": tier, "method": method}
                try:
                    run.answer(
                        where,
                        [reader],
                        lambda scene=scene, method=method: shown(scene.made(method).images),
                        scene.labels,
                    )
                except Skipped:  # said where the whole pack made its columns
                    continue
            run.say(f"{name} {tier}: {reader.name}")


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


def visible_share(frame: Frame) -> float:
    """Return the share of a frame's pixels outside strokes that the reference changes by more than the threshold."""
    step = np.abs(shown(frame.reference) - shown(frame.original))
    step = step if step.ndim == 2 else step.max(axis=2)
    return float(((step > frame.threshold + 1e-6) & ~frame.strokes).mean())


def cross_key(run: Run, scene: Scene) -> float:
    """Return the mean absolute correlation between the marks of two site keys on the same images."""
    few = first_of(scene.sample, min(run.options.curve_sample, len(scene.sample)))
    first, second = (scene.marks(scene.settings, few, "keys", key) for key in (SITE_KEY, OTHER_KEY))
    found = []
    for row, index in enumerate(first.kept):
        other = np.flatnonzero(second.kept == index)
        if len(other):
            a, b = (
                marks.images[place].astype(np.float64) - few.images[index]
                for marks, place in ((first, row), (second, other[0]))
            )
            found.append(abs(float(np.corrcoef(a.ravel(), b.ravel())[0, 1])))
    return float(np.mean(found)) if found else float("nan")
