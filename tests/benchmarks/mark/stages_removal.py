"""What removal gets back: treatments, blanked backgrounds, remover, averaging, retraining; and the positive control.

Held-out networks answer, for every setting, to marked images and to clean images after the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np

from tests.benchmarks.mark import averaging, control
from tests.benchmarks.mark.data import OTHER_KEY, SITE_KEY, Sample, draw_pool, shown
from tests.benchmarks.mark.finetune import retrained
from tests.benchmarks.mark.methods import Scene
from tests.benchmarks.mark.remover import UNet, at_side, remove, train_remover
from tests.benchmarks.mark.run import Reader, Run
from tests.benchmarks.mark.store import digest
from tests.benchmarks.mark.treatments import (
    CROP,
    DENOISE,
    GRID,
    INPAINT,
    Treatment,
    background_treatments,
    foreground_of,
    treated,
    treatments_of,
)
from tests.benchmarks.mark.victims import Victim

POOL_FIRST = 100_000
"""Number of a pool's first image: its keys are not the sample's."""


def _ours(scene: Scene) -> dict[str, np.ndarray]:
    """Return the display images that removal is turned on, by column: clean and marked."""
    return {"clean": shown(scene.originals), "strong": shown(scene.reference.images)}


def _part(run: Run, name: str, tier: str) -> tuple[Scene, dict[str, object]]:
    """Return the part of a scene that removal is measured on, and what of it is part of cells' identity.

    The same networks answer to its images as they are, so that those that they know are known.
    """
    run.in_time()
    scene = run.part_scene(name, tier)
    part = {"part": len(scene.labels)}
    for method, images in _ours(scene).items():
        where = {"set": name, "tier": tier, "method": method, **part}
        run.answer(where, run.held_out(name), lambda i=images: i, scene.labels, scene.as_asked)
    return scene, part


def backgrounds(run: Run) -> None:
    """Put the answers of everybody, white-box too, to images without their background down."""
    for name in run.options.sets:
        readers = run.white_box(name) + run.judges(name)
        for tier in run.options.tiers:
            _treat(run, run.scene(name, tier), background_treatments(), readers, {})


def grid(run: Run) -> None:
    """Put the answers after formats and simple processing (A1) down."""
    _removals(run, (GRID,))


def treatments(run: Run) -> None:
    """Put the answers after denoisers, inpainting and cropping to the region of interest down."""
    _removals(run, (DENOISE, INPAINT, CROP))


def _removals(run: Run, groups: Sequence[str]) -> None:
    for name in run.options.sets:
        for tier in run.options.later_tiers:
            scene, part = _part(run, name, tier)
            _treat(run, scene, treatments_of(groups, run.options.grid), run.held_out(name), part)


def _treat(
    run: Run, scene: Scene, chosen: Sequence[Treatment], readers: Sequence[Reader], part: dict[str, object]
) -> None:
    marks, name, tier = scene.reference, scene.sample.name, scene.settings.tier
    foregrounds = np.stack([foreground_of(image) for image in shown(scene.originals)])
    for treatment in chosen:
        if treatment.needs_strokes and not marks.strokes.any():
            continue
        for method, images in _ours(scene).items():
            where = {"set": name, "tier": tier, "method": method, **part}
            where |= {"removal": treatment.group, "setting": treatment.setting}
            run.answer(
                where,
                readers,
                lambda t=treatment, i=images: treated(t, i, marks.strokes, marks.roi, foregrounds),
                scene.labels,
                scene.as_asked,
            )
    run.say(f"{name} {tier}: {len(chosen)} treatments")


def learned(run: Run) -> None:
    """Put the answers after the pair-trained remover, averaging and retraining down; after the positive control."""
    for name in run.options.sets:
        positive_control(run, name)
        for tier in run.options.later_tiers:
            scene, _ = _part(run, name, tier)
            _remover(run, scene)
            _averaging(run, scene)
            _retraining(run, scene)


def _pool(run: Run, scene: Scene, count: int, key: bytes, seed: int) -> tuple[Sample, np.ndarray]:
    """Return ``count`` marked training images (uint8, with true labels) and their originals."""
    pool = draw_pool(run.data, scene.sample.name, count, seed)  # a smaller pool is the beginning of a larger one
    marks = scene.marks(scene.settings, pool, f"pool{seed}", key, POOL_FIRST)
    labels = pool.labels[marks.kept]
    return Sample(pool.name, marks.images, labels, pool.classes), pool.images[marks.kept]


def _asked(
    run: Run, scene: Scene, readers: list[Reader], group: str, setting: str, clean: Callable, ours: Callable
) -> None:
    """Put the answers to clean and marked images after one removal down."""
    where = {"set": scene.sample.name, "tier": scene.settings.tier, "part": len(scene.labels)}
    where |= {"removal": group, "setting": setting}
    for method in _ours(scene):
        made = clean if method == "clean" else lambda method=method: ours(method)
        run.answer({**where, "method": method}, readers, made, scene.labels, scene.as_asked)


def _remover(run: Run, scene: Scene) -> None:
    readers, recipe = run.held_out(scene.sample.name), run.options.remover
    images = _ours(scene)
    nets: list[UNet] = []

    def freed(method: str) -> np.ndarray:
        if not nets:
            marked, clean = _pool(run, scene, run.options.pairs, OTHER_KEY, seed=1)
            told = [run.identity, scene.settings.model_dump(), run.options.pairs, asdict(recipe)]
            path = run.cache / f"remover-{scene.sample.name}-{scene.settings.tier}-{digest(told)}.safetensors"
            nets.append(train_remover(shown(marked.images), shown(clean), recipe, path, run.device, run.say))
        return remove(nets[0], images[method], recipe.side, run.device)

    setting = f"{run.options.pairs} pairs, {recipe.steps} steps of {recipe.batch}, width {recipe.width}"
    _asked(run, scene, readers, "u-net", setting, lambda: freed("clean"), freed)
    run.say(f"{scene.sample.name} {scene.settings.tier}: pair-trained remover")


def _averaging(run: Run, scene: Scene) -> None:
    readers = run.held_out(scene.sample.name)
    images = _ours(scene)
    for count in run.options.averaging:
        marked, clean = _pool(run, scene, count, SITE_KEY, seed=2)
        done: dict[str, dict[str, np.ndarray]] = {}

        def freed(method: str, setting: str, done: dict = done, marked: Sample = marked, clean: np.ndarray = clean):
            if method not in done:
                done[method] = dict(averaging.removed(images[method], shown(marked.images), shown(clean)))
            return done[method][setting]

        for setting in averaging.settings(len(marked)):
            _asked(
                run,
                scene,
                readers,
                f"averaging {count}",
                setting,
                lambda s=setting, f=freed: f("clean", s),
                lambda method, s=setting, f=freed: f(method, s),
            )
        run.say(f"{scene.sample.name} {scene.settings.tier}: averaging over {len(marked)} marks")


def _retraining(run: Run, scene: Scene) -> None:
    name = scene.sample.name
    images = _ours(scene)
    for count in run.options.finetune:
        marked, _ = _pool(run, scene, count, SITE_KEY, seed=2)
        for victim, reader in zip(run.victims(name), run.held_out(name), strict=True):
            answered: dict[str, np.ndarray] = {}

            def taught(
                method: str, victim: Victim = victim, marked: Sample = marked, answered: dict = answered
            ) -> np.ndarray:
                if not answered:
                    found = retrained(victim, marked, list(images.values()), run.device, run.options.finetune_steps)
                    answered.update(zip(images, found, strict=True))
                return answered[method]

            told = f"{reader.identity}, {scene.settings.tier}, {count}"
            for method in images:
                pupil = Reader(reader.name, reader.held, reader.lineage, told, lambda _, m=method: taught(m))
                where = {"set": name, "tier": scene.settings.tier, "method": method, "part": len(scene.labels)}
                where |= {"removal": f"retrained {count}", "setting": f"{count} marked images"}
                run.answer(where, [pupil], lambda m=method: images[m], scene.labels, scene.as_asked)
        run.say(f"{name} {scene.settings.tier}: victims retrained on {count} marked images")


def positive_control(run: Run, name: str) -> None:
    """Undo a fixed weak logo with the removers of this module.

    Raises
    ------
    EvaluationTooWeak
        one of them cannot (with ``few``: none of them can).
    """
    recipe = run.options.remover
    sample = run.sample(name)
    victims = run.victims(name)

    def accuracy(images: np.ndarray) -> float:
        return float(np.mean([(victim.predict(images) == sample.labels).mean() for victim in victims]))

    def measure() -> dict[str, object]:
        pool = shown(draw_pool(run.data, name, run.options.pairs, seed=1).images)
        with_logo = control.weak_logo(pool)
        clean = shown(sample.images)
        marked = control.weak_logo(clean)
        path = (
            run.cache
            / f"remover-{name}-control-{digest([run.identity, run.options.pairs, asdict(recipe)])}.safetensors"
        )
        net = train_remover(with_logo, pool, recipe, path, run.device, run.say)
        small, small_marked = (at_side(images, recipe.side) for images in (clean, marked))
        freed, cleaned = (remove(net, images, recipe.side, run.device) for images in (marked, clean))
        results = [_control("u-net", small, small_marked, freed, cleaned)]
        freed, cleaned = (dict(averaging.removed(images, with_logo, pool)) for images in (marked, clean))
        best = max(freed, key=lambda setting: control.energy_gone(clean, marked, freed[setting]))
        results.append(_control(f"averaging {best}", clean, marked, freed[best], cleaned[best]))
        return {"results": [asdict(one) for one in results]}

    def _control(removal: str, *stacks: np.ndarray) -> control.ControlResult:
        clean, marked, freed, cleaned = stacks
        gone = control.energy_gone(clean, marked, freed)
        return control.ControlResult(removal, gone, accuracy(freed), accuracy(cleaned), len(sample) * len(victims))

    where = {"kind": "control", "set": name, "pairs": run.options.pairs, "recipe": asdict(recipe)}
    where["nets"] = [victim.path.stem for victim in victims]
    cell = run.note(where, measure)
    results = [control.ControlResult(**one) for one in cell["results"]]
    for one in results:
        run.say(
            f"{name}: positive control, {one.removal}: {one.gone:.0%} of the weak logo's energy gone, accuracy "
            f"{one.accuracy:.2f} (clean after the same {one.clean_accuracy:.2f}){'' if one.passed else ': FAIL'}"
        )
    control.check(results, every=not run.options.few)
