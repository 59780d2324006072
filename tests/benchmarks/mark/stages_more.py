"""Further stages: white-box on one network, pre-training held out, accuracy over energy, time against torchattacks."""

from __future__ import annotations

import numpy as np

from gateway.mark import Marker, MarkSettings
from gateway.mark.methods.gradients import IN_TURN
from tests.benchmarks.mark.attacks import missing_library, momentum_attack
from tests.benchmarks.mark.data import Sample, first_of, pack_of, requests_of, shown
from tests.benchmarks.mark.methods import Scene
from tests.benchmarks.mark.run import Reader, Run, without_lineage

ALONE_METHOD = "strong against this network alone"
"""Column of ``alone``."""


def lineage_method(lineage: str) -> str:
    """Return the column name of ``strong`` marks that no surrogate of a lineage helped to make."""
    return f"strong without {lineage}"


def alone(run: Run) -> None:
    """Mark against each victim alone, and ask that victim: white-box as the paper and mark, evaluation rules, mean it.

    The pack's own networks, which a mark has to mislead all at once, are asked in the columns.
    """
    for name in run.options.sets:
        for reader, pack in run.alone(name):
            for tier in run.options.tiers:
                run.in_time()
                scene = run.other_scene(run.part(name), run.settings(tier), pack)
                where = {"set": name, "tier": tier, "method": ALONE_METHOD}
                images = lambda scene=scene: shown(scene.reference.images)  # noqa: E731
                run.answer(where, [reader], images, scene.labels, scene.as_asked)
            run.say(f"{name} {reader.name}: marked against alone")


def left_out(run: Run) -> None:
    """Put down what a victim answers to marks that its family took no part in."""
    for name in run.options.sets:
        for reader, pack in run.left_out(name):
            for tier in run.options.later_tiers:
                run.in_time()
                scene = run.other_scene(run.part(name), run.settings(tier), pack)
                for method in ("clean", "strong"):
                    where = {"set": name, "tier": tier, "method": method}
                    images = lambda scene=scene, m=method: shown(scene.made(m).images)  # noqa: E731
                    run.answer(where, [reader], images, scene.labels, scene.as_asked)
                run.say(f"{name} {tier}: {reader.name}")


def lineages(run: Run) -> None:
    """Mark with a pack from which one lineage is left out, and ask the held-out victims of that lineage.

    ``scratch`` left out: only networks with ImageNet pre-training make the mark, networks trained from scratch are
    asked. ``imagenet`` left out: the other way round. Each family by itself too (``left_out``).
    """
    left_out(run)
    for name in run.options.sets:
        sample = run.part(name)
        pack, surrogates = pack_of(sample.channels), run.surrogates(sample.channels)
        for lineage in ("scratch", "imagenet"):
            readers = [one for one in run.held_out(name) if one.lineage == lineage]
            smaller = without_lineage(pack, surrogates, lineage)
            if not readers or smaller is None:
                run.say(
                    f"{name}: pre-training {lineage} held out: not run (no such victim, or the pack is of one kind)"
                )
                continue
            for tier in run.options.later_tiers:
                run.in_time()
                scene = run.other_scene(sample, run.settings(tier), smaller)
                where = {"set": name, "tier": tier, "method": lineage_method(lineage)}
                images = lambda scene=scene: shown(scene.reference.images)  # noqa: E731
                run.answer(where, readers, images, scene.labels, scene.as_asked)
                run.say(f"{name} {tier}: {lineage} held out")


def curve(run: Run) -> None:
    """Mark a part of the sample at several energies, and put the answers down."""
    for name in run.options.sets:
        few = first_of(run.sample(name), min(run.options.curve_sample, len(run.sample(name))))
        readers = run.white_box(name) + run.held_out(name)
        for tier in run.options.later_tiers:
            for floor in run.options.curve[tier]:
                run.in_time()
                settings = type(run.settings(tier))(**{**run.settings(tier).model_dump(), "min_psnr": floor})
                scene = run.other_scene(few, settings)
                where = {"set": name, "tier": tier, "method": "strong", "psnr": floor, "few": len(few)}
                run.answer(where, readers, lambda scene=scene: shown(scene.reference.images), scene.labels)
                run.say(f"{name} {tier}: {floor:g} dB")


def speed(run: Run) -> None:
    """Put down accuracy and seconds per image of our optimiser and of torchattacks for several numbers of steps.

    Same images, same region and energy (the reference's, ``frames``), same networks, same machine, one
    after the other. A pass is one network there and back for one image; of ours at most so many, since it stops where
    all are misled. Ours includes everything from the stored image to the stored marked image; theirs the attack alone.
    """
    if missing_library():
        run.say(f"time comparison skipped: {missing_library()}")
        return
    for name in run.options.sets[: run.options.speed_sets]:
        few = first_of(run.sample(name), min(run.options.curve_sample, len(run.sample(name))))
        readers = run.held_out(name)
        for tier in run.options.later_tiers:
            run.in_time()
            scene = run.other_scene(few, run.settings(tier))
            for steps in run.options.our_steps:
                settings = run.settings(tier).model_copy(update={"steps": steps})
                ours = run.other_scene(few, settings)

                def our_time(
                    settings: MarkSettings = settings, few: Sample = few, ours: Scene = ours, steps: int = steps
                ) -> dict[str, object]:
                    marker = Marker(settings, packs=[ours.pack])
                    requests = requests_of(few)
                    marker.mark(requests[:1], ours.profile)  # weights are read once, outside of the time
                    _, seconds = run.seconds(lambda: marker.mark(requests, ours.profile))
                    passes = steps * min(IN_TURN, len(ours.ensemble.nets))
                    return {"seconds": seconds / len(requests), "passes": passes}

                where = {"set": name, "tier": tier, "method": "strong", "steps": steps, "few": len(few)}
                run.note({"kind": "speed", **where}, our_time)
                run.answer(where, readers, lambda ours=ours: shown(ours.reference.images), ours.labels, ours.as_asked)
            for method, diverse in (("mi-fgsm", False), ("di-fgsm", True)):
                for steps in run.options.their_steps:
                    _their_speed(run, scene, readers, method, diverse, steps)
            run.say(f"{name} {tier}: times compared")


def _their_speed(run: Run, scene: Scene, readers: list[Reader], method: str, diverse: bool, steps: int) -> None:
    made: list[np.ndarray] = []

    def attack() -> float:
        clean, envelopes = shown(scene.originals), scene.envelopes
        momentum_attack(scene.ensemble, clean[:1], envelopes[:1], 1, diverse)
        changes, seconds = run.seconds(lambda: momentum_attack(scene.ensemble, clean, envelopes, steps, diverse))
        made.append(shown(scene.fitted(changes)))
        return seconds / len(clean)

    def images() -> np.ndarray:
        if not made:
            attack()
        return made[0]

    where = {"set": scene.sample.name, "tier": scene.settings.tier, "method": method, "steps": steps}
    where |= {"few": len(scene.sample)}
    run.note({"kind": "speed", **where}, lambda: {"seconds": attack(), "passes": steps * len(scene.ensemble.nets)})
    run.answer(where, readers, images, scene.labels, scene.as_asked)
