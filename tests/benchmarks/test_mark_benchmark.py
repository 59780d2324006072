"""The mark's benchmark at its smallest: the whole of it on two sets and two victims, and its parts by themselves.

What is asserted of marks is measured here from stored values, not read from the report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from gateway.mark import Marker, ModalityProfile
from gateway.mark.placement.zones import find_zones
from gateway.mark.resample import resize
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.visibility.budget import psnr
from gateway.mark.visibility.threshold import step_limit, visibility_threshold
from gateway.training.networks import channels_first
from gateway.training.open_sets import also_in_brain_mri, shared_folder

if find_spec("cv2") is None and not os.environ.get("CI"):
    pytest.skip("the extra bench is not installed", allow_module_level=True)

from tests.benchmarks.mark import averaging, control
from tests.benchmarks.mark.__main__ import STAGES, measure, tiny_options
from tests.benchmarks.mark.answers import Answers
from tests.benchmarks.mark.attacks import missing_library
from tests.benchmarks.mark.data import PROFILES, draw_pool, draw_sample, pack_of, requests_of, shown
from tests.benchmarks.mark.data import test_images as images_to_test
from tests.benchmarks.mark.frames import Frame
from tests.benchmarks.mark.methods import METHODS, OTHERS, Made, Scene, Skipped, mode
from tests.benchmarks.mark.remover import RemoverRecipe, remove, train_remover
from tests.benchmarks.mark.report import failed_line, write_report
from tests.benchmarks.mark.run import WHITE_BOX, Run
from tests.benchmarks.mark.stats import bootstrap
from tests.benchmarks.mark.store import CellStore
from tests.benchmarks.mark.treatments import ANATOMY, BLANK, FOUND, Shown, all_treatments, background_treatments
from tests.benchmarks.mark.verdict import NOTHING
from tests.benchmarks.mark.victims import TINY, known
from tests.benchmarks.test_series_benchmark import write_series
from tests.conftest import missing

pytestmark = [pytest.mark.full, pytest.mark.timeout(1800)]  # minutes on two free cores; the machine may be busy


@pytest.fixture(scope="module")
def run(miad_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished tiny run: every stage, in folders of its own."""
    if missing_library():
        missing("torchattacks")
    folder = tmp_path_factory.mktemp("mark")
    recipes = list(TINY.values())
    write_series(folder / "series", 3)
    options = replace(tiny_options(), folder=folder / "series", slices=3)
    run = Run(options, recipes, miad_data, folder / "out", folder / "cache", older_recipes=recipes[:1])
    measure(run, list(STAGES))
    return run


def scenes(run: Run) -> Iterator[Scene]:
    """Yield every set in every tier."""
    for name in run.options.sets:
        for tier in run.options.tiers:
            yield run.scene(name, tier)


def made(run: Run) -> Iterator[tuple[Scene, str, Made]]:
    """Yield every column that is there but ``clean``, with its scene: a part of the images for other attacks."""
    for scene in scenes(run):
        others = OTHERS if scene.settings.tier in run.options.attacked_tiers else ()
        for each, methods in ((scene, ("random", "generator", "strong")), (scene.part(run.options.part), others)):
            for method in methods:
                try:
                    yield each, method, each.made(method)
                except Skipped:
                    continue


def mean(run: Run, tier: str, method: str, held: str, name: str) -> float:
    """Return the mean accuracy of a column."""
    answers = Answers(run.store, run.identity)
    found = answers.where(
        lambda one: (one.set, one.tier, one.method, one.removal, one.held) == (name, tier, method, "", held)
    )
    assert found
    return float(np.mean([one.accuracy for one in found]))


def test_region_of_interest_is_untouched_in_every_column(run: Run) -> None:
    seen = set()
    for scene, method, one in made(run):
        seen.add(method)
        changed = one.images != scene.originals
        changed = changed if changed.ndim == 3 else changed.any(axis=3)
        refused = int(one.note.split()[0]) if "images refused" in one.note else 0  # shown unmarked, and told
        assert (~changed.any(axis=(1, 2))).sum() == refused < len(changed), method
        assert not (changed & scene.reference.roi).any(), method
        if scene.sample.rois is not None and len(scene.labels) == len(scene.sample):
            truth = scene.sample.rois
            assert truth.any() and not (changed & truth).any(), method
    assert seen == set(METHODS) - {"clean"}


def counted(original: np.ndarray, profile: ModalityProfile) -> np.ndarray:
    """Return the (H, W) bool pixels that a mark's PSNR counts: the anatomy where there is air, else all."""
    zones = find_zones(shown(original), np.zeros(original.shape[:2], bool), profile)
    return zones.anatomy if zones.air.any() else np.ones_like(zones.air)


def test_budget_is_kept(run: Run) -> None:
    for scene in scenes(run):
        for original, marked in zip(scene.originals, scene.reference.images, strict=True):
            where = counted(original, scene.profile)
            assert psnr(shown(original)[where], shown(marked)[where]) >= scene.settings.psnr_floor


def test_nothing_is_visible_outside_strokes(run: Run) -> None:
    for scene in scenes(run):
        factor = scene.profile.noise_factor
        marks = scene.reference
        for original, marked, strokes, tier in zip(
            scene.originals, marks.images, marks.strokes, marks.tiers, strict=True
        ):
            step = np.abs(shown(marked) - shown(original))
            step = step if step.ndim == 2 else step.max(axis=2)
            visible = step > step_limit(visibility_threshold(shown(original), factor), 1.0 / 255.0) + 1e-6
            assert (visible & ~strokes).mean() <= 0.01
            assert strokes.any() == (tier != "discreet")
            if strokes.any():
                assert (visible & strokes).sum() > 0.5 * strokes.sum()


def test_every_column_has_the_same_energy_in_the_same_region(run: Run) -> None:
    for scene, method, one in made(run):
        for frame, image in zip(scene.frames, one.images, strict=True):
            # the gateway's own modes spend what the tier allows; all others are fitted to the reference
            own = method in ("generator", "random")
            if own:
                where = counted(frame.original, scene.profile)
                over = psnr(shown(frame.original)[where], shown(image)[where])
                assert over >= scene.settings.psnr_floor - 1e-6, method
            else:
                assert psnr(shown(frame.original), shown(image)) >= frame.psnr - 1e-6, method
            # Strokes at a place of their own may be too few to spend it all, even black or white;
            # without strokes the threshold cuts pixel by pixel, and an attack that leaves pixels as they are
            # cannot spend it all; the report shows the PSNR of every column.
            gap = 0.5 if frame.strokes.any() else 3.0
            reached = psnr(shown(frame.original), shown(image))
            assert own or method == "paper" or reached <= frame.psnr + gap, method
            changed = image != frame.original
            changed = changed if changed.ndim == 2 else changed.any(axis=2)
            assert not (changed & ~frame.region).any(), method


def test_marked_accuracy_is_below_the_control(run: Run) -> None:
    """Letters alone already shift weak networks, texture below the threshold does not: hence the control."""
    for tier, shift, margin in (("lettered", 0.5, 0.15), ("notice", 0.3, 0.1)):
        clean, random, strong = (
            mean(run, tier, method, WHITE_BOX, "brain_tumor") for method in ("clean", "random", "strong")
        )
        assert random >= clean - shift, "the control itself misleads"
        assert strong <= random - margin, tier


def test_a_mark_against_one_network_lowers_what_it_believes(run: Run) -> None:
    """Belief and not accuracy: these victims are trained for seconds, and few images are marked in few steps."""
    for reader, pack in run.alone("brain_tumor"):
        scene = run.other_scene(run.part("brain_tumor"), run.settings("lettered"), pack)
        (victim,) = pack.load(torch.device("cpu"))

        def belief(images: np.ndarray, victim: Surrogate = victim) -> np.ndarray:
            x = resize(channels_first(shown(images)), victim.input_size, victim.input_size)
            with torch.no_grad():
                return victim.net(x).logits["brain_tumor"].softmax(1).numpy()

        before, after = belief(scene.originals), belief(scene.reference.images)
        own = before.argmax(1)
        assert np.array_equal(own, reader.predict(shown(scene.originals)))
        rows = np.arange(len(own))
        assert after[rows, own].mean() < before[rows, own].mean() - 0.03, reader.name


def test_marks_are_the_same_again(run: Run) -> None:
    for scene in scenes(run):
        row, index = 0, int(scene.reference.kept[0])
        marker = Marker(scene.settings, packs=[pack_of(scene.sample.channels)])
        (again,) = marker.mark(requests_of(scene.sample)[index : index + 1], scene.profile)
        assert np.array_equal(again.image, scene.reference.images[row])
        assert np.array_equal(again.image.astype(np.int32) - again.residual, scene.originals[row])


def test_residual_is_exact(run: Run) -> None:
    for scene in scenes(run):
        assert scene.reference.exact.all()


def test_a_second_run_makes_nothing_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (run.out / "cells.jsonl").read_bytes()
    marks = {path: path.stat().st_mtime_ns for path in (run.out / "marks").iterdir()}
    again = Run(run.options, run.recipes, run.data, run.out, run.cache, older_recipes=run.older_recipes)
    monkeypatch.setattr(Marker, "mark", lambda *_: pytest.fail("marked again"))
    for name in ("victims", "columns", "blanked", "grid", "reads", "older", "tiers", "removal", "learned", "curve"):
        STAGES[name](again)
    assert (run.out / "cells.jsonl").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (run.out / "marks").iterdir()} == marks


def test_report_shows_every_target_and_every_failed_cell(run: Run) -> None:
    _, rows = write_report(run)
    text = (run.out / "report.md").read_text("utf-8")
    figures = json.loads((run.out / "report.json").read_text("utf-8"))
    assert [row["name"] for row in figures["targets"]] == [row.name for row in rows]
    failed = [(row, cell) for row in rows if row.reach is not None for cell in row.failed_cells]
    assert failed, "so few steps cannot reach everything"
    for row, (what, value) in failed:
        assert failed_line(row, what, value) in text
    for row in rows:
        assert f"| {row.name} | {row.tier or NOTHING} |" in text
    for name in run.options.sets + run.options.older:
        for recipe in run.recipes if name in run.options.sets else run.older_recipes:
            assert f"| {name} | {recipe.family} |" in text or f"| {name} | ({recipe.family}) |" in text
    assert (run.out / "marks.png").stat().st_size > 10_000
    groups = {"a1", "denoiser", "inpaint", "crop", "u-net", "averaging 2", "retrained 2", BLANK, ANATOMY}
    assert groups <= {one["removal"] for one in figures["answers"]}
    measured = {row.name for row in rows if row.value is not None}
    assert any(name.startswith("`strong` in a series of 3 slices") for name in measured)
    kinds = {"victim", "quality", "made", "read", "series", "generator", "speed", "control"}
    assert kinds <= {one["id"]["kind"] for one in figures["notes"]}
    for name in ("text read", "anatomy: dB", "`generator`: white", "`generator`, 512", "`discreet`: white"):
        assert any(one.startswith(name) for one in measured), name


def test_removal_is_shown_beside_clean_after_the_same(run: Run) -> None:
    answers = Answers(run.store, run.identity)
    removed = answers.where(lambda one: one.removal != "" and one.method == "strong")
    assert removed
    for one in removed:
        clean = answers.same_on_clean(one)
        assert clean is not None and len(clean.correct) == len(one.correct)


def test_best_setting_is_the_adversarys(run: Run) -> None:
    answers = Answers(run.store, run.identity)
    for best in answers.best_for_the_adversary(lambda one: one.removal == "a1" and one.method == "strong"):
        same = answers.where(
            lambda one, best=best: (
                one.removal == "a1" and one.method == "strong" and (one.set, one.reader) == (best.set, best.reader)
            )
        )
        assert len(same) > 1 and best.accuracy == max(one.accuracy for one in same)


def test_too_weak_a_pipeline_is_told() -> None:
    clean = np.full((3, 64, 64), 0.4, np.float32)
    marked = control.weak_logo(clean)
    assert control.energy_gone(clean, marked, marked) == 0.0
    assert control.energy_gone(clean, marked, clean) == 1.0
    nothing = control.ControlResult("nothing", 0.0, 0.9, 0.9, 200)
    good = control.ControlResult("averaging", 0.95, 0.88, 0.9, 200)
    harmful = control.ControlResult("blur", 0.95, 0.5, 0.9, 200)
    control.check([good])
    control.check([nothing, good], every=False)
    for results in ([nothing], [harmful], [nothing, good], []):
        with pytest.raises(control.EvaluationTooWeak, match="positive control failed"):
            control.check(results)


def phantoms(count: int, seed: int, side: int = 64) -> np.ndarray:
    """Return (count, side, side) float32 smooth pictures in 0.2..0.8."""
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.uniform(0.2, 0.8, (count, 1, 5, 5)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[:, 0].clamp(0.2, 0.8).numpy()


def test_removers_undo_a_fixed_weak_logo(tmp_path: Path) -> None:
    pool, clean = phantoms(24, 0), phantoms(6, 1)
    marked = control.weak_logo(clean)
    freed = dict(averaging.removed(marked, control.weak_logo(pool), pool))
    assert list(freed) == averaging.settings(len(pool))
    assert control.energy_gone(clean, marked, freed["pairs-1"]) > control.LEAST_GONE
    assert control.energy_gone(clean, marked, freed["pairs-4"]) < 0.0
    recipe = RemoverRecipe(steps=300, batch=4, side=64, width=8, rate=2e-3)
    net = train_remover(control.weak_logo(pool), pool, recipe, tmp_path / "net.safetensors", torch.device("cpu"))
    gone = control.energy_gone(clean, marked, remove(net, marked, 64, torch.device("cpu")))
    assert gone > 0.6
    read = train_remover(pool, pool, recipe, tmp_path / "net.safetensors", torch.device("cpu"))  # no training again
    assert np.array_equal(remove(read, marked, 64, torch.device("cpu")), remove(net, marked, 64, torch.device("cpu")))


@pytest.mark.parametrize("shape", [(80, 80), (80, 80, 3)])
def test_every_treatment_gives_an_image_back_and_does_something(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    image = phantoms(1, 2, 80)[0] + 0.05 * random.standard_normal((80, 80)).astype(np.float32)
    image = np.clip(image if len(shape) == 2 else np.repeat(image[..., None], 3, axis=2), 0.0, 1.0)
    strokes, roi = np.zeros((80, 80), bool), np.zeros((80, 80), bool)
    strokes[10:20, 10:40], roi[30:50, 20:50], foreground = True, True, np.zeros((80, 80), bool)
    foreground[5:70, 5:70] = True
    for treatment in all_treatments() + background_treatments():
        if treatment.setting == FOUND:  # this picture is all foreground: below
            continue
        result = treatment.apply(Shown(image, strokes, roi, foreground))
        assert result.shape == shape, treatment.setting
        assert np.isfinite(result).all(), treatment.setting
        assert not np.array_equal(result, image), treatment.setting
        if treatment.group == "inpaint":
            assert np.array_equal(result[30:], image[30:]) and not np.array_equal(result[12:18], image[12:18])
        if treatment.setting.startswith("outside"):
            assert np.array_equal(result[roi], image[roi])


def test_letters_in_the_air_are_blanked_with_and_without_the_original() -> None:
    rows, columns = np.mgrid[:128, :128]
    clean = np.where((rows - 70) ** 2 + (columns - 64) ** 2 < 45**2, 0.5, 0.0).astype(np.float32)
    marked, body = clean.copy(), clean > 0.0
    marked[4:14, 10:110:5], marked[4:14, 11:111:5] = 0.6, 0.6
    for treatment in background_treatments():
        if treatment.group == BLANK:
            result = treatment.apply(Shown(marked, marked != clean, np.zeros_like(body), body))
            assert not result[:16].any(), treatment.setting
            assert (result[body] == clean[body]).mean() > 0.97, treatment.setting


def test_fit_spends_the_energy_and_keeps_the_limits() -> None:
    random = np.random.default_rng(0)
    original = np.rint(phantoms(1, 3)[0] * 255.0).astype(np.uint8)
    region, strokes = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    region[8:56, 8:56], strokes[20:30, 10:50] = True, True
    reference = np.where(strokes, original + 20, original).astype(np.uint8)
    frame = Frame(original, reference, strokes, region, PROFILES["brain_tumor"])
    image = frame.fit(random.standard_normal(original.shape))
    assert frame.psnr <= psnr(shown(original), shown(image)) <= frame.psnr + 0.1
    assert np.array_equal(image[~region], original[~region])
    step = np.abs(shown(image) - shown(original))
    assert not ((step > frame.threshold + 1e-6) & ~strokes).any()
    # what the eye adds up is held back too, as it is in the reference: a flat change is the first thing that it sees
    outside = region & ~strokes
    flat = np.abs(shown(frame.apply(np.ones(original.shape))) - shown(original))[outside]
    assert 0.0 < flat.mean() < 0.8 * np.minimum(frame.threshold, frame.profile.peak)[outside].mean()


def test_bootstrap() -> None:
    random = np.random.default_rng(0)
    answers = {"a": [(random.uniform(size=400) < 0.3).astype(int)], "b": [(random.uniform(size=400) < 0.7).astype(int)]}
    found = bootstrap(answers)
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(0.5 * (answers["a"][0].mean() + answers["b"][0].mean()))
    assert found.high - found.low == pytest.approx(4 * np.sqrt(0.21 / 400 / 2), rel=0.15)
    assert bootstrap({"a": [np.ones(9)]}).low == 1.0
    with pytest.raises(ValueError, match="different numbers"):
        bootstrap({"a": [np.ones(9), np.ones(8)]})
    with pytest.raises(ValueError, match="no answers"):
        bootstrap({})


def test_store_drops_a_torn_line_and_makes_it_again(tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    store = CellStore(path)
    assert store.once({"a": 1}, lambda: {"value": 5})["value"] == 5
    store.once({"a": 2}, lambda: {"value": 6})
    torn = path.read_bytes()[:-4]
    path.write_bytes(torn)
    again = CellStore(path)
    assert again.once({"a": 1}, lambda: {"value": 7})["value"] == 5
    assert again.get({"a": 2}) is None
    assert again.once({"a": 2}, lambda: {"value": 8})["value"] == 8
    assert [cell["value"] for cell in CellStore(path)] == [5, 8]
    path.write_text("broken\n" + path.read_text())
    with pytest.raises(ValueError, match="line 1"):
        CellStore(path)


def test_samples_are_balanced_and_pools_begin_alike(miad_data: Path) -> None:
    sample = draw_sample(miad_data, "chest_xray", 12)
    assert np.bincount(sample.labels).tolist() == [6, 6]  # of the three classes the two that are openly licensed
    small, large = (draw_pool(miad_data, "chest_ct", count, 2) for count in (6, 400))
    assert np.array_equal(large.images[:6], small.images) and len(large) == 400
    assert np.bincount(small.labels).tolist() == [3, 3]


def test_slices_that_the_packs_learnt_from_are_no_held_out_data(miad_data: Path) -> None:
    left_out = also_in_brain_mri(shared_folder(miad_data))
    with np.load(miad_data / "brain_mri" / "test.npz") as archive:
        shared = np.isin(archive["files"], sorted(left_out))
        kept = archive["images"][~shared]
    assert 0 < shared.sum() < len(shared)
    assert np.array_equal(images_to_test(miad_data, "brain_mri").images, kept)


def test_what_is_not_there_is_told(run: Run) -> None:
    with pytest.raises(Skipped, match="knows no mode 'nonsense'"):
        mode("nonsense", fit=False)(run.scene("brain_tumor", "lettered"))
    found, reasons = known(["resnet", "nonsense"], TINY)
    assert found == [TINY["resnet"]] and "nonsense" in reasons[0]
