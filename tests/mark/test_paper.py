"""The paper's family as the baseline: one flat mark, searched, inside the region and the budget, exactly invertible."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gateway.errors import MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings
from gateway.mark.methods import paper as paper_module
from gateway.mark.methods.evolution import minimise
from gateway.mark.methods.flat import affordable_opacity, blend_change, decode, ink_masks, least_size, text_ink
from gateway.mark.methods.paper import Believers, FlatMark, search_flat_marks
from gateway.mark.placement.logo import scale_ink
from gateway.mark.resample import resize
from gateway.mark.surrogates.packs import SurrogatePack
from gateway.mark.visibility.budget import psnr
from gateway.mark.visibility.display import DisplayMap
from gateway.training.labelled_sets import load_test
from plugins.surrogates import rgb
from tests.support.mark.samples import (
    BRAIN,
    CPU,
    CT,
    GRAY,
    KEY,
    OTHER_KEY,
    RGB,
    disc,
    gray8,
    phantom,
    requests,
    rgb8,
    small_pack,
)

PAPER = MarkSettings(mode="paper", device="cpu", population=6, generations=2)


def small_rgb() -> SurrogatePack:
    """Return the RGB pack with its smallest network only."""
    return replace(rgb.PACK, files=tuple(path for path in rgb.PACK.files if path.stem == "squeezenet"))


@cache
def marker(settings: MarkSettings) -> Marker:
    """Return a marker with one small network per channel count; one per settings, so that weights are read once."""
    return Marker(settings, packs=[small_pack(), small_rgb()])


def mark(frames: list[MarkRequest], profile: object = BRAIN, settings: MarkSettings = PAPER) -> list[MarkedImage]:
    """Return the marked frames, all of which must be marked."""
    results = marker(settings).mark(frames, profile)
    assert all(isinstance(result, MarkedImage) for result in results), results
    return results


def ct_like() -> MarkRequest:
    """Return a 16-bit signed image larger than the working size, with a padding ring."""
    stored = np.rint(phantom(300, 280) * 1500.0 - 1000.0).astype(np.int16)
    padding = ~disc((300, 280), 0.49)
    stored[padding] = -2000
    return MarkRequest(
        stored, KEY, display=(-1000.0, 300.0), padding=padding, reserved=((-2000, -2000),), roi=disc((300, 280), 0.1)
    )


CASES = {
    "uint8": (requests()[0], BRAIN),
    "saliency": (MarkRequest(gray8(seed=3), KEY), BRAIN),
    "wide": (MarkRequest(gray8(96, 200), KEY, roi=disc((96, 200), 0.15)), GRAY),
    "int16 padded": (ct_like(), CT),
    "monochrome1": (replace(requests()[0], image=255 - requests()[0].image, inverted=True), GRAY),
    "rgb": (MarkRequest(rgb8(), KEY, roi=disc((96, 96), 0.15)), RGB),
}


@pytest.mark.parametrize("case", CASES)
def test_promises(case: str) -> None:
    request, profile = CASES[case]
    check(request, mark([request], profile)[0], PAPER)


def check(request: MarkRequest, result: MarkedImage, settings: MarkSettings) -> None:
    """Measure a result from its stored values alone."""
    image = request.image
    assert result.image.dtype == image.dtype and result.image.shape == image.shape
    assert result.residual.dtype == np.int32
    assert np.array_equal(result.image.astype(np.int32) - result.residual, image)
    changed = (result.residual != 0).any(axis=2) if image.ndim == 3 else result.residual != 0
    assert changed.any() and result.strokes.any()
    assert not (changed & ~result.strokes).any()  # flat: nothing but the logo or text
    assert not (result.strokes & ~result.region).any()
    for mask in (request.roi, request.padding, result.roi):
        assert mask is None or np.array_equal(result.image[mask], image[mask])
    window = DisplayMap(*(request.display or (0.0, 255.0)), request.inverted)
    before, after = window.shown(image), window.shown(result.image)
    anatomy = result.anatomy if result.air is not None and result.air.any() else np.ones_like(result.strokes)
    assert psnr(before[anatomy], after[anatomy]) >= settings.psnr_floor
    assert result.quality.psnr == pytest.approx(psnr(before[anatomy], after[anatomy]))
    assert result.strokes.mean() <= settings.max_stroke_share
    assert result.quality.roi_difference == 0
    inner = changed & ((before > 0.0) & (before < 1.0)).reshape(*changed.shape, -1).all(axis=2)
    # alpha blending with black or white: one opacity all over, up to rounding to stored values
    moved, target = (after - before)[inner], float((after - before)[inner].mean() > 0.0)
    opacity = moved.sum() / (target - before[inner]).sum()
    assert np.abs(moved - opacity * (target - before[inner])).max() < 1.5 / abs(window.step)
    assert (settings.generations + 1) * settings.population + 1 >= result.queries > settings.population


def test_stroke_share_and_floor_may_be_made_stricter() -> None:
    strict = PAPER.model_copy(update={"max_stroke_share": 0.02, "min_psnr": 34.0})
    # larger than the working size, where the share could slip
    request = MarkRequest(gray8(400, 400), KEY, roi=disc((400, 400), 0.1))
    check(request, mark([request], GRAY, strict)[0], strict)


def test_batch_of_one_equals_batch_of_three() -> None:
    frames = requests(3)
    frames[1] = MarkRequest(gray8(112, 120), KEY, roi=disc((112, 120), 0.1))  # another shape
    together = mark(frames)
    apart = [mark([frame])[0] for frame in reversed(frames)][::-1]
    for one, other in zip(together, apart, strict=True):
        assert np.array_equal(one.image, other.image)


def test_filled_batches_do_not_depend_on_the_number_of_frames() -> None:
    """The path that CUDA takes, driven on CPU; frames stop at different times."""
    ours = Marker(PAPER.model_copy(update={"population": 6, "generations": 2}), packs=[small_pack()])
    ours._batch = 2
    frames = requests(3)
    together = ours.mark(frames, BRAIN)
    apart = [ours.mark([frame], BRAIN)[0] for frame in frames]
    for one, other in zip(together, apart, strict=True):
        assert isinstance(one, MarkedImage)
        assert np.array_equal(one.image, other.image) and one.queries == other.queries


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_repeatable_for_any_batch() -> None:
    ours = Marker(PAPER.model_copy(update={"device": "cuda"}), packs=[small_pack()])
    frames = requests(5)
    together = ours.mark(frames, BRAIN)
    apart = [ours.mark([frame], BRAIN)[0] for frame in frames]
    for one, other in zip(together, apart, strict=True):
        assert isinstance(one, MarkedImage) and np.array_equal(one.image, other.image)


def test_key_and_position_decide() -> None:
    (request,) = requests()
    first, again = mark([request]) + mark([request])
    assert np.array_equal(first.image, again.image)
    for other in (replace(request, key=OTHER_KEY), replace(request, position=5.0)):
        assert not np.array_equal(mark([other])[0].strokes, first.strokes)


def test_without_steps_no_surrogate_is_asked() -> None:
    settings = PAPER.model_copy(update={"steps": 0})
    results = Marker(settings, packs=[]).mark(requests(2), BRAIN)
    assert [result.queries for result in results] == [0, 0]
    assert all(result.strokes.any() for result in results)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple, FlatMark]]:
    """Return a list that fills with (positional arguments, result) of the searches to come, one frame each."""
    seen: list[tuple[tuple, FlatMark]] = []

    def spy(*arguments: object, **named: object) -> list[FlatMark | MarkError]:
        results = search_flat_marks(*arguments, **named)
        seen.append((arguments, results[0]))
        return results

    monkeypatch.setattr(paper_module, "search_flat_marks", spy)
    return seen


@pytest.mark.parametrize("kind", ["synthetic", pytest.param("real", marks=pytest.mark.full)])
def test_search_beats_chance(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean belief: below that of the first, random population, and below random places of the same energy."""
    frames = requests(4)
    if kind == "real":
        images = load_test(request.getfixturevalue("miad_data") / "brain_mri").images
        frames = [
            MarkRequest(image, KEY, position=3.0 * n)
            for n, image in enumerate(images[20:260:80] if len(images) > 20 else images)
        ]
    settings = PAPER.model_copy(update={"population": 8, "generations": 5})
    seen = spied(monkeypatch)
    for frame, result in zip(frames, mark(frames, settings=settings), strict=True):
        check(frame, result, settings)
    found = [flat for _, flat in seen]
    assert all(0.0 <= flat.belief <= flat.first_belief <= 1.0 for flat in found)
    assert np.mean([flat.belief for flat in found]) < np.mean([flat.first_belief for flat in found])
    chance = [chance_belief(arguments, flat) for arguments, flat in seen]
    assert np.mean([flat.belief for flat in found]) < np.mean(chance)


def chance_belief(arguments: tuple, flat: FlatMark, count: int = 24) -> float:
    """Return the mean belief under keyless random placements whose energy is that of the mark found."""
    clean, (canvas,), ink, surrogates, tasks, _ = arguments
    height, width = clean.shape[2:]
    random = np.random.default_rng(5)
    smallest = torch.full((400,), least_size(ink, min(canvas.region.shape)))
    genes = torch.from_numpy(random.uniform(size=(400, 6)).astype(np.float32))
    places = decode(genes, torch.tensor([[0.0, 1.0, 0.0, 1.0]]).expand(400, 4), smallest)
    places = replace(places, opacity=torch.ones(400))
    drawn = torch.from_numpy(scale_ink(ink, 2.7 * min(height, width))[0])
    rows = (np.arange(height) * 2 + 1) * canvas.region.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * canvas.region.shape[1] // (2 * width)
    masks, whole = ink_masks(drawn, places, height, width)
    masks = masks & torch.from_numpy(canvas.region[rows][:, columns])
    images = clean.expand(400, -1, -1, -1)
    opacity = affordable_opacity(images, masks, places, -10.0 * np.log10(float((flat.change**2).mean())))
    # mostly inside, and able to spend the energy
    fitting = torch.nonzero((masks.sum((1, 2)) > 0.65 * whole) & (opacity < 1.0))[:count, 0]
    assert len(fitting) >= 4
    change = blend_change(images, masks, places.level, opacity)[fitting]
    believers = Believers(clean, surrogates, tasks, count)
    return float(believers.belief((clean + change), torch.zeros(len(fitting), dtype=torch.long)).mean())


def test_early_stop_is_per_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first image is misled at once, the second never; the second's search goes on."""
    frames = requests(2)

    def belief(self: Believers, images: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        return torch.where(owners == 0, 0.01, 0.9) + 0.0 * images.mean((1, 2, 3))

    monkeypatch.setattr(Believers, "belief", belief)
    ours = Marker(PAPER, packs=[small_pack()])
    ours._batch = 2
    first, second = ours.mark(frames, BRAIN)
    assert first.queries == PAPER.population + 1
    assert second.queries == PAPER.population * (PAPER.generations + 1) + 1


def test_evolution_finds_a_minimum_and_each_problem_goes_its_own_way() -> None:
    goals = np.random.default_rng(0).uniform(0.1, 0.9, (3, 4))

    def distance(problems: np.ndarray, genes: np.ndarray) -> np.ndarray:
        assert genes.min() >= 0.0 and genes.max() <= 1.0
        return np.linalg.norm(genes - goals[problems][:, None], axis=2)

    def run(problems: list[int], enough: float = 0.0) -> np.ndarray:
        random = [np.random.default_rng(index) for index in problems]
        genes = np.stack([one.uniform(size=(20, 4)) for one in random])
        found = minimise(lambda i, g: distance(np.array(problems)[i], g), genes, random, 80, enough)
        assert (found.first.min(axis=1) >= found.values).all()
        return found

    whole = run([0, 1, 2])
    assert np.abs(whole.genes - goals).max() < 0.02
    assert np.array_equal(run([2]).genes[0], whole.genes[2])
    early = run([0, 1, 2], enough=0.1)
    assert (early.values <= 0.1).all() and (early.evaluations < whole.evaluations).all()
    assert np.array_equal(run([1], enough=0.1).genes[0], early.genes[1])


def test_belief_is_each_image_s_own_answer() -> None:
    """Against the network itself, one image at a time."""
    surrogates = small_pack().load(CPU)
    random = np.random.default_rng(0)
    clean = torch.from_numpy(random.uniform(0.0, 1.0, (4, 1, 1, 1)) * random.uniform(0.0, 1.0, (4, 1, 64, 64))).float()
    clean = torch.cat([clean, torch.from_numpy(phantom(64, 64))[None, None].float()])
    net, side = surrogates[0].net, surrogates[0].input_size
    with torch.no_grad():
        logits = [net(resize(one[None], side, side)).logits["brain_tumor"][0] for one in clean]
    answers = [int(one.argmax()) for one in logits]
    assert len(set(answers)) > 1
    owners = torch.tensor([0, 1, 2, 3, 4, 4, 3, 2, 1, 0])
    shown = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    belief = Believers(clean, surrogates, ("brain_tumor",), 3).belief(clean[shown], owners)
    wanted = [float(logits[s].softmax(0)[answers[o]]) for s, o in zip(shown, owners, strict=True)]
    assert belief.tolist() == pytest.approx(wanted, abs=1e-4)


def test_genes_are_place_size_turn_opacity_and_polarity() -> None:
    bar = torch.ones((6, 60), dtype=torch.bool)
    genes = torch.tensor(
        [[0.5, 0.5, 1.0, 0.5, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.5, 0.5, 0.4]]
    )
    places = decode(genes, torch.tensor([[0.0, 1.0, 0.0, 1.0]] * 3), torch.full((3,), 0.3))
    assert places.opacity.tolist() == pytest.approx([1.0, 0.1, 0.55])
    assert places.level.tolist() == [1.0, 0.0, 0.0]
    masks, whole = ink_masks(bar, places, 100, 200)
    assert whole.tolist() == pytest.approx([90 * 9, 90 * 9, 30 * 3])
    rows, columns = (np.flatnonzero(masks[0].any(dim=axis).numpy()) for axis in (1, 0))
    assert (len(rows), len(columns)) == pytest.approx((9, 90), abs=1)
    assert (rows.mean(), columns.mean()) == pytest.approx((49.5, 99.5), abs=1)
    assert int(masks[1].sum()) == pytest.approx(90 * 9, rel=0.05)
    rows, columns = np.nonzero(masks[1].numpy())
    assert np.polyfit(columns, rows, 1)[0] == pytest.approx(1.0, abs=0.1)  # 45 degrees
    assert int(masks[2].sum()) == pytest.approx(30 * 3 / 4, rel=0.4)  # centred on the image's corner
    assert masks[2][:2, -15:].any() and not masks[2][5:].any()


def test_text_block_is_set_in_lines() -> None:
    two, one = text_ink("PROTECTED COPY"), text_ink("PROTECTED")
    assert two.shape[0] > 1.7 * one.shape[0]
    assert two.shape[1] == pytest.approx(one.shape[1], rel=0.05)
    assert not np.array_equal(text_ink("PROTECTED COPX"), two)


def test_the_search_uses_the_keyed_generators_alone() -> None:
    ours = Marker(PAPER, packs=[small_pack()])
    first = ours.mark(requests(), BRAIN)[0]  # the weights are read
    torch.manual_seed(2)
    np.random.seed(2)
    state, old = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    assert np.array_equal(ours.mark(requests(), BRAIN)[0].image, first.image)
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(old, np.random.get_state()[1])


def test_no_place_for_the_mark() -> None:
    stripes = np.zeros((96, 96), bool)
    stripes[:, ::6] = True
    narrow = MarkRequest(gray8(), KEY, roi=stripes)  # free stripes of a pixel or two
    (result,) = Marker(PAPER, packs=[small_pack()]).mark([narrow], BRAIN)
    assert isinstance(result, MarkError) and result.code == "no-free-area"


def test_text_too_fine_for_a_tiny_image() -> None:
    tiny = MarkRequest(gray8(32, 32), KEY, roi=disc((32, 32), 0.1))
    (result,) = Marker(PAPER, packs=[small_pack()]).mark([tiny], BRAIN)
    assert isinstance(result, MarkError) and result.code == "logo-too-fine"


def test_over_budget() -> None:
    image = (gray8() > 40).astype(np.uint8)  # one stored value is the whole window
    request = MarkRequest(image, KEY, display=(0.0, 1.0), roi=disc((96, 96), 0.1))
    settings = PAPER.model_copy(update={"min_psnr": 60.0})
    (result,) = Marker(settings, packs=[small_pack()]).mark([request], GRAY)
    assert isinstance(result, MarkError) and result.code == "over-budget"


def test_a_network_with_nan_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    (surrogate,) = small_pack().load(CPU)
    surrogate.net.heads["brain_tumor"].weight.data[0, 0] = float("nan")
    pack = small_pack()
    monkeypatch.setattr(SurrogatePack, "load", lambda *_: (surrogate,))
    results = Marker(PAPER, packs=[pack]).mark(requests(2), BRAIN)
    assert [result.code for result in results if isinstance(result, MarkError)] == ["surrogate-nan"] * 2


def test_settings() -> None:
    with pytest.raises(ValidationError, match="visible mark"):
        MarkSettings(mode="paper", tier="discreet")
    for wrong in ({"population": 3}, {"population": 65}, {"generations": -1}, {"mode": "stronger"}):
        with pytest.raises(ValidationError):
            MarkSettings(**wrong)


def test_a_site_s_pack_with_tasks_of_its_own_is_asked_for_all_of_them() -> None:
    """A profile's task names are the shipped packs'; a site's pack has others, and `any_task` says that they count."""
    (one, *_) = small_pack().load(torch.device("cpu"))
    net = replace(one, any_task=True)
    clean = torch.rand(2, 1, 64, 64)
    believed = Believers(clean, [net], ("no such task",), 2).belief(clean, torch.arange(2))
    assert torch.equal(believed, Believers(clean, [net], (), 2).belief(clean, torch.arange(2)))
    assert (believed > 0.0).all()
