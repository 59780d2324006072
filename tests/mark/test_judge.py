"""The held-out judge, its control, and marks on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gateway.errors import MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings
from gateway.mark.evaluation.judge import display_image, equal_energy_noise, load_judge
from gateway.mark.placement.search import remaining_probability
from gateway.mark.visibility.budget import psnr
from gateway.mark.visibility.display import DisplayMap
from gateway.training.open_sets import load_test, shared_folder
from plugins.modalities import brain_mr, ct, mr
from plugins.surrogates import gray
from tests.support.mark.samples import (
    BRAIN,
    CPU,
    KEY,
    OTHER_KEY,
    SHORT,
    gray8,
    marker,
    real,
    requests,
    rgb8,
    small_marker,
)


def test_margin_is_the_gap_between_logits() -> None:
    judge = load_judge(1)
    images = np.stack([gray8(seed=seed) for seed in range(3)]).astype(np.float32) / 255.0
    logits = judge.logits(images, "brain_tumor")
    assert logits.shape == (3, len(judge.tasks["brain_tumor"]))
    for row, verdict in zip(logits, judge.judge(images, "brain_tumor"), strict=True):
        ranked = np.sort(row)
        assert verdict.class_name == judge.tasks["brain_tumor"][int(row.argmax())]
        assert verdict.margin == pytest.approx(ranked[-1] - ranked[-2], abs=1e-5)
        assert 0.0 < verdict.probability <= 1.0
    wanted = np.array([0, 1, 2])
    expected = [row[k] - np.delete(row, k).max() for row, k in zip(logits, wanted, strict=True)]
    assert np.allclose(judge.margin_for(images, wanted, "brain_tumor"), expected)
    assert judge.judge(images)[0].task in judge.tasks


def test_judge_refuses_what_it_does_not_know() -> None:
    with pytest.raises(MarkError):
        load_judge(2)
    with pytest.raises(ValueError, match="task"):
        load_judge(1).logits(np.zeros((1, 64, 64), np.float32), "dermoscopy")
    with pytest.raises(ValueError, match="shape"):
        load_judge(1).logits(np.zeros((1, 64, 64, 3), np.float32), "brain_tumor")


def test_noise_has_the_marks_energy_and_place() -> None:
    (request,) = requests()
    (result,) = small_marker().mark([request], BRAIN)
    noise = equal_energy_noise(request, result.image, OTHER_KEY)
    window = DisplayMap(0.0, 255.0)
    energy = psnr(window.shown(request.image), window.shown(result.image))
    assert abs(energy - result.quality.psnr) > 1.0, "the air has another share of it than the anatomy"
    assert psnr(window.shown(request.image), window.shown(noise)) == pytest.approx(energy, abs=0.15)
    assert not ((noise != request.image) & (result.residual == 0)).any()
    assert not np.array_equal(noise, result.image)
    assert np.array_equal(noise, equal_energy_noise(request, result.image, OTHER_KEY))


@pytest.mark.full
def test_mark_shakes_the_surrogates_on_real_images_and_noise_does_not() -> None:
    """On real images of kinds that no network was trained on, little can be asked for: more than noise does."""
    surrogates = gray.PACK.load(CPU)
    falls = []
    for name, profile in (("CT_small.dcm", ct.PROFILE), ("MR_small.dcm", mr.PROFILE), ("693_J2KI.dcm", ct.PROFILE)):
        request = real(name)
        (result,) = marker(MarkSettings(device="cpu")).mark([request], profile)
        assert isinstance(result, MarkedImage), result
        noise = equal_energy_noise(request, result.image, OTHER_KEY)
        shown = [torch.from_numpy(display_image(request, image))[None, None] for image in (result.image, noise)]
        clean = torch.from_numpy(display_image(request))[None, None]
        marked, noisy = remaining_probability(torch.cat(shown), clean, surrogates, profile.tasks)
        unchanged = remaining_probability(clean, clean, surrogates, profile.tasks)[0]
        assert unchanged - marked > 2 * abs(unchanged - noisy), (name, unchanged, marked, noisy)
        falls.append(unchanged - marked)
    assert np.mean(falls) > 0.03, falls


@pytest.mark.full
def test_margin_falls_on_brain_tumours(labelled_sets: Path) -> None:
    """A small run of the benchmark: the held-out judge's mean margin falls far more than under noise."""
    test = load_test(shared_folder(labelled_sets), "brain_tumor", 256)
    index = np.arange(5, 180, 25)
    frames = [MarkRequest(test.images[i], KEY, position=float(i)) for i in index]
    one = Marker(SHORT.model_copy(update={"steps": 12}), packs=[gray.PACK])
    results = one.mark(frames, brain_mr.PROFILE)
    assert all(isinstance(result, MarkedImage) for result in results)
    noise = [equal_energy_noise(f, r.image, OTHER_KEY) for f, r in zip(frames, results, strict=True)]
    clean, marked, noisy = (
        np.stack(images).astype(np.float32) / 255.0
        for images in (test.images[index], [r.image for r in results], noise)
    )
    judge = load_judge(1)
    believed = judge.logits(clean, "brain_tumor").argmax(1)
    fall_marked, fall_noise = (
        float((judge.margin_for(clean, believed, "brain_tumor") - judge.margin_for(x, believed, "brain_tumor")).mean())
        for x in (marked, noisy)
    )
    assert fall_marked > fall_noise + 0.3


def test_rgb_judge_reads_colour() -> None:
    judge = load_judge(3)
    shown = np.stack([rgb8(seed=seed) for seed in range(2)]).astype(np.float32) / 255.0
    assert set(judge.tasks) == {"breast_us", "dermoscopy", "fundus_dr"}
    assert [verdict.task for verdict in judge.judge(shown, "dermoscopy")] == ["dermoscopy", "dermoscopy"]
    assert not np.allclose(judge.logits(shown, "fundus_dr"), judge.logits(shown[..., ::-1], "fundus_dr"))
