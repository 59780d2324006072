"""Stages of single rows: reading, tiers beside the main ones, data held out, other attacks, the generator, a series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gateway.mark import Marker, MarkRequest, MarkSettings
from tests.benchmarks import series
from tests.benchmarks.mark.costs import SERIES
from tests.benchmarks.mark.data import PROFILES, pack_of, requests_of
from tests.benchmarks.mark.methods import OTHERS, Scene, known_modes
from tests.benchmarks.mark.run import GENERATOR, Run
from tests.benchmarks.mark.stages import ask_columns, quality, worth
from tests.support.reader import can_read, has_room, reads


def read(run: Run) -> None:
    """Put down in how many images that have room for a word Tesseract reads one, in the open and the older sets."""
    if not can_read():
        run.skipped["reads"] = "tesseract is not installed"
        return
    for name in run.options.sets + run.options.older:
        for tier in run.options.tiers:
            run.in_time()
            scene = run.scene(name, tier)
            cell = run.note({"kind": "read", "set": name, "tier": tier}, lambda scene=scene: read_scene(scene))
            run.say(f"{name} {tier}: read in {cell['read']} of {cell['room']} images with room")


def read_scene(scene: Scene) -> dict[str, object]:
    """Return how many reference marks of a scene have room for the short word, and in how many one is read.

    Room as in ``tests.benchmarks.reads``: none where an image was marked as ``discreet``, without words.
    """
    marks, settings = scene.reference, scene.settings
    rows = [
        row
        for row in range(len(marks))
        if marks.tiers[row] != "discreet" and has_room(marks.region[row], settings.word)
    ]
    found = [reads(marks.images[row], f"{settings.text} {settings.word}") for row in rows]
    return {"images": len(marks), "room": len(rows), "read": sum(found)}


def other_tiers(run: Run) -> None:
    """Ask about the tiers beside the main ones, of a part of the images."""
    for name in run.options.sets:
        for tier in run.options.other_tiers:
            run.in_time()
            scene = run.scene(name, tier)
            ask_columns(run, scene, ("clean", "strong"))
            quality(run, scene)
            run.say(f"{name} {tier}: {scene.as_asked.sum()} of {len(scene.as_asked)} images as asked")


def older(run: Run) -> None:
    """Ask networks that were trained on sets which no surrogate saw."""
    for name in run.options.older:
        run.in_time()
        run.say(f"{name}: {worth(run, name)}")
        for tier in run.options.tiers:
            run.in_time()
            scene = run.scene(name, tier)
            ask_columns(run, scene, ("clean", "random", "strong"))
            run.say(f"{name} {tier}: data held out")


def attacks(run: Run) -> None:
    """Let every other attack have the same pixels and energy, on a part of the images: one attack after the other."""
    for method in ("clean", "strong", *OTHERS):
        for name in run.options.sets:
            for tier in run.options.attacked_tiers:
                run.in_time()
                scene = run.part_scene(name, tier)
                ask_columns(run, scene, (method,), part=len(scene.labels))
        run.say(f"{method}: in the same pixels with the same energy")


def generator(run: Run) -> None:
    """Ask about marks of the ``generator``, and put down its seconds for a 512x512 slice: one, and on CUDA a batch."""
    if GENERATOR not in known_modes():
        run.skipped[GENERATOR] = "none is installed"
        return
    generator_speed(run)
    for name in run.options.sets:
        for tier in run.options.tiers:
            run.in_time()
            ask_columns(run, run.scene(name, tier), (GENERATOR,))
            run.say(f"{name} {tier}: {GENERATOR}")


def generator_speed(run: Run) -> None:
    """Put down the seconds of the generator, from display image to stored values."""
    name = run.options.sets[0]
    sample = run.sample(name)
    settings = MarkSettings(**{**run.settings(run.options.tiers[0]).model_dump(), "mode": GENERATOR})
    whole = [np.repeat(np.repeat(image, 2, axis=0), 2, axis=1) for image in sample.images]
    requests = [MarkRequest(image, one.key) for image, one in zip(whole, requests_of(sample), strict=True)]

    def measure(count: int) -> dict[str, object]:
        marker = Marker(settings, packs=[pack_of(sample.channels)])
        wanted = [requests[index % len(requests)] for index in range(count)]
        marker.mark(wanted[: min(count, 8)], PROFILES[name])  # weights and kernels are read once, outside of the time
        repeats = run.options.repeats if count == 1 else 1
        spent = [run.seconds(lambda: marker.mark(wanted, PROFILES[name]))[1] for _ in range(repeats)]
        seconds = float(np.median(spent)) / count
        return {"seconds": seconds, "device": run.device.type, "threads": torch.get_num_threads()}

    for count in (1, 256) if run.device.type == "cuda" else (1,):
        run.note({"kind": GENERATOR, "what": "speed", "set": name, "count": count}, lambda count=count: measure(count))


def slices(run: Run) -> None:
    """Put down the CPU seconds a slice of ``strong`` in a series with key slices, weights loaded."""
    folder = run.options.folder
    if folder is None or not folder.is_dir():
        run.skipped[SERIES] = "there is no series of slices"
        return
    tier, count = run.options.tiers[0], run.options.slices

    def measure() -> dict[str, object]:
        requests, profile = series.requests_of_folder(folder, count)
        marker = Marker(run.settings(tier))
        marker.mark([replace(requests[0], begin=None)], profile)
        way = series.marked(marker, requests, profile, keyed=True)
        begun = [one.has_begun for one in way.results]
        keys, others = ([s for s, one in zip(way.seconds, begun, strict=True) if one is kind] for kind in (False, True))
        side = "x".join(map(str, requests[0].image.shape))
        told = f"{side}, {torch.get_num_threads()} threads, {run.settings(tier).steps} steps"
        means = {"keys": float(np.mean(keys)), "others": float(np.mean(others or keys))}
        return {"seconds": float(np.mean(way.seconds)), **means, "told": told}

    cell = run.note(
        {"kind": SERIES, "tier": tier, "slices": count}, lambda: {**measure(), "tier": tier, "slices": count}
    )
    run.say(f"series: {cell['seconds']:.2f} CPU seconds a slice")
