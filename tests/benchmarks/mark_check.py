"""What a mark does to the networks it was optimised on and to the held-out judge, beside its controls.

    python -m tests.benchmarks.mark_check --set brain_mri --sample 48 [--tier lettered] [--mode strong] [--steps N]
        [--refine N] [--generator FILE] [--out DIR]

Accuracy (true labels of the set's test images) of every surrogate (white-box) and of the judge (another family, trained
on other images) on: clean images, random noise of the mark's energy in the mark's pixels, lettering without
optimisation, and marked images; with PSNR, stroke share, what lies above the threshold outside strokes, and seconds per
image. The region of interest is label-free saliency; for ``skin`` it is the true lesion mask. Writes JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings
from gateway.mark.arrays import image_key
from gateway.mark.judge import display_image, equal_energy_noise, load_judge
from gateway.mark.packs import Surrogate
from gateway.mark.resample import resize
from plugins.modalities import brain_mr, cr_dx, ct, dermoscopy, fundus
from plugins.surrogates import datasets, gray, rgb

PROFILES = {
    "brain_mri": brain_mr.PROFILE,
    "chest_xray": cr_dx.PROFILE,
    "chest_ct": ct.PROFILE,
    "fundus": fundus.PROFILE,
    "skin": dermoscopy.PROFILE,
}
COLUMNS = ("clean", "noise", "static", "marked")
KEY = bytes(range(32))


@dataclass(frozen=True)
class Sample:
    """Test images (N, 256, 256[, 3]) uint8, labels (N,), regions of interest (N, 256, 256) bool or None."""

    images: np.ndarray
    labels: np.ndarray
    rois: np.ndarray | None


def draw_sample(name: str, count: int) -> Sample:
    """Return ``count`` test images of a set, as many of each class as there are (fixed seed).

    Raises:
        SystemExit: there is no data folder.
    """
    folder = datasets.data_folder()
    if folder is None:
        raise SystemExit("no data: set MIAD_DATA to the folder of the labelled sets")
    test = datasets.load_test(folder / name)
    random = np.random.default_rng(2026)
    queues = [random.permutation(np.flatnonzero(test.labels == label)).tolist() for label in range(len(test.classes))]
    chosen: list[int] = []
    while len(chosen) < count and any(queues):
        chosen += [queue.pop() for queue in queues if queue]
    index = np.sort(chosen[:count])
    rois = None
    if name == "skin":
        with np.load(folder / name / "test.npz") as archive:
            rois = archive["masks"][index]
    return Sample(test.images[index], test.labels[index], rois)


def requests_of(sample: Sample) -> list[MarkRequest]:
    """Return one request per image, each an image of its own with a key of its own, as those without geometry are."""
    return [
        MarkRequest(image, image_key(KEY, index), roi=None if sample.rois is None else sample.rois[index])
        for index, image in enumerate(sample.images)
    ]


def surrogate_accuracy(surrogate: Surrogate, images: np.ndarray, labels: np.ndarray, task: str) -> float:
    """Return the accuracy of one surrogate on display images (N, H, W[, 3]) float32 in 0..1."""
    stack = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    with torch.no_grad():
        small = resize(torch.from_numpy(np.ascontiguousarray(stack)), surrogate.input_size, surrogate.input_size)
        return float((surrogate.net(small).logits[task].argmax(1).numpy() == labels).mean())


def run(name: str, count: int, settings: MarkSettings) -> dict[str, object]:
    """Return the figures of one set."""
    sample = draw_sample(name, count)
    profile = PROFILES[name]
    channels = 1 if sample.images.ndim == 3 else 3
    pack = gray.PACK if channels == 1 else rgb.PACK
    requests = requests_of(sample)
    began = time.perf_counter()
    results = Marker(settings, packs=[pack]).mark(requests, profile)
    seconds = (time.perf_counter() - began) / len(requests)
    unoptimised = MarkSettings(tier=settings.tier, steps=0, device=settings.device)
    static = Marker(unoptimised, packs=[pack]).mark(requests, profile)
    kept = [
        i for i, both in enumerate(zip(results, static, strict=True)) if all(isinstance(r, MarkedImage) for r in both)
    ]
    if not kept:
        raise SystemExit(f"no image of {name} could be marked: {results[0]}")
    stored = {
        "clean": [requests[i].image for i in kept],
        "noise": [equal_energy_noise(requests[i], results[i], KEY[::-1]) for i in kept],
        "static": [static[i].image for i in kept],
        "marked": [results[i].image for i in kept],
    }
    shown = {
        column: np.stack([display_image(requests[i], image) for i, image in zip(kept, images, strict=True)])
        for column, images in stored.items()
    }
    labels = sample.labels[kept]
    judge = load_judge(channels)
    accuracy = {
        member.name: {c: surrogate_accuracy(member, shown[c], labels, name) for c in COLUMNS}
        for member in pack.load(torch.device("cpu"))
    }
    accuracy["judge (held out)"] = {
        c: float((judge.logits(shown[c], name).argmax(1) == labels).mean()) for c in COLUMNS
    }
    believed = judge.logits(shown["clean"], name).argmax(1)
    qualities = [results[i].quality for i in kept]
    return {
        "set": name,
        "images": len(kept),
        "not_marked": {i: results[i].code for i in range(len(requests)) if not isinstance(results[i], MarkedImage)},
        "settings": settings.model_dump(mode="json"),
        "accuracy": accuracy,
        "judge_margin": {c: float(judge.margin_for(shown[c], believed, name).mean()) for c in COLUMNS},
        "psnr_mean": float(np.mean([q.psnr for q in qualities])),
        "psnr_min": min(q.psnr for q in qualities),
        "ssim_mean": float(np.mean([q.ssim for q in qualities])),
        "stroke_share_mean": float(np.mean([q.stroke_share for q in qualities])),
        "stroke_share_max": max(q.stroke_share for q in qualities),
        "above_threshold_max": max(q.above_threshold for q in qualities),
        "roi_difference_max": max(q.roi_difference for q in qualities),
        "seconds_per_image": seconds,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def as_markdown(figures: dict[str, object]) -> str:
    """Return the figures as a Markdown table with a line of facts."""
    lines = [f"### {figures['set']} ({figures['images']} images)", "", f"| network | {' | '.join(COLUMNS)} |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for network, row in figures["accuracy"].items():
        lines.append(f"| {network} | " + " | ".join(f"{row[column]:.2f}" for column in COLUMNS) + " |")
    lines.append("| judge's mean margin | " + " | ".join(f"{figures['judge_margin'][c]:.2f}" for c in COLUMNS) + " |")
    lines += [
        "",
        f"PSNR {figures['psnr_mean']:.2f} dB (least {figures['psnr_min']:.2f}), SSIM {figures['ssim_mean']:.3f}, "
        f"strokes {figures['stroke_share_mean']:.1%} of the pixels (most {figures['stroke_share_max']:.1%}), above the "
        f"threshold outside strokes {figures['above_threshold_max']:.2%}, ROI difference "
        f"{figures['roi_difference_max']}, {figures['seconds_per_image']:.1f} s an image "
        f"({figures['machine']}); not marked: {len(figures['not_marked'])}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=[*PROFILES, "all"], default="all")
    parser.add_argument("--sample", type=int, default=48)
    parser.add_argument("--tier", choices=["lettered", "discreet"], default="lettered")
    parser.add_argument("--steps", type=int, default=MarkSettings().steps)
    parser.add_argument("--mode", choices=["strong", "generator"], default="strong")
    parser.add_argument("--refine", type=int, default=0, help="steps after the generator")
    parser.add_argument("--generator", type=Path, help="mode generator: a file of train-mark")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="folder for SET-TIER.json and SET-TIER.md")
    arguments = parser.parse_args()
    settings = MarkSettings(
        tier=arguments.tier,
        mode=arguments.mode,
        steps=arguments.steps,
        refine=arguments.refine,
        generator=arguments.generator,
        device=arguments.device,
    )
    for name in PROFILES if arguments.set == "all" else [arguments.set]:
        figures = run(name, arguments.sample, settings)
        print(as_markdown(figures), flush=True)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            mode = "" if arguments.mode == "strong" else f"-{arguments.mode}"
            stem = arguments.out / f"{name}-{arguments.tier}{mode}"
            stem.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")
            stem.with_suffix(".md").write_text(as_markdown(figures))


if __name__ == "__main__":
    main()
