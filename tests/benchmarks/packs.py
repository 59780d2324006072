"""Marks in some minutes: what networks say of clean, randomly textured and marked images, and what a mark costs.

    python -m tests.benchmarks.packs [--images 8] [--mode strong] [--steps 80] [--tiers lettered]
                                     [--sets brain_tumor,fundus_dr] [--part validation]
                                     [--victims xception --cache DIR] [--no-speed]

Accuracy of each network of the shipped pack (white-box), and of the named victims (held out; trained beforehand by
`python -m tests.benchmarks.mark.pretrained_victims`), with true lesion masks where there are any. *Random* is the same
lettering with random texture. Settings are chosen on the validation part of half A; ``--part test`` takes test images,
as many of each class as there are. One thread. The whole evaluation is `python -m tests.benchmarks.mark`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import load_net
from gateway.training.open_sets import OPEN_SETS, load_train, shared_folder
from plugins.modalities import brain_mr
from tests.benchmarks.mark.data import PROFILES, SIDE, Sample, draw_sample, pack_of, requests_of, shown
from tests.benchmarks.mark.nets_victims import VICTIM_FAMILIES
from tests.benchmarks.mark.pretrained_victims import pretrained_victim
from tests.benchmarks.mark.victims import answers, cache_folder
from tests.support.mark.samples import KEY, gray8

CPU = torch.device("cpu")
RANDOM = 0
"""Steps of the column with random texture."""
Reader = Callable[[np.ndarray], np.ndarray]
"""From display images (N, H, W[, 3]) in 0..1 to (N,) answers."""


def images_of(name: str, part: str, count: int) -> Sample:
    """Return ``count`` images of a set, of its test part or of the validation part of half A."""
    if part == "test":
        return draw_sample(shared_folder(), name, count)
    found = load_train(shared_folder(), name, "A", "validation", SIDE)
    chosen = np.random.default_rng(0).permutation(len(found.labels))[:count]
    masks = None if found.masks is None else found.masks[chosen]
    return Sample(name, found.images[chosen], found.labels[chosen], found.classes, masks)


def readers_of(name: str, victims: Sequence[str], cache: Path) -> dict[str, Reader]:
    """Return the networks that are asked about a set: those of the pack, and victims."""
    found: dict[str, tuple[MultiTaskNet, int]] = {
        member.name: (member.net, member.input_size)  # type: ignore[dict-item]
        for member in pack_of(OPEN_SETS[name].channels).load(CPU)
    }
    for family in victims:
        path = pretrained_victim(family, shared_folder(), cache, say=print)
        found[f"held out: {family}"] = load_net(path, CPU, VICTIM_FAMILIES)

    def reader(net: MultiTaskNet, side: int) -> Reader:
        return lambda images: answers(net, name, images, side, CPU)

    return {said: reader(net, side) for said, (net, side) in found.items()}


def accuracies(sample: Sample, readers: dict[str, Reader], settings: MarkSettings) -> None:
    """Mark a sample and tell what each network answers."""
    tier = settings.tier
    pack = pack_of(OPEN_SETS[sample.name].channels)
    columns, kept = {"clean": sample.images}, np.ones(len(sample), bool)
    for column, asked in (("random", RANDOM), ("marked", settings.steps)):
        mode = "strong" if column == "random" else settings.mode
        marker = Marker(settings.model_copy(update={"mode": mode, "steps": asked}), packs=[pack])
        began = time.process_time()
        results = marker.mark(requests_of(sample), PROFILES[sample.name])
        seconds = (time.process_time() - began) / len(sample)
        kept &= [isinstance(one, MarkedImage) for one in results]
        pairs = zip(results, sample.images, strict=True)
        columns[column] = np.stack([one.image if isinstance(one, MarkedImage) else image for one, image in pairs])
    means: dict[str, list[float]] = {column: [] for column in columns}
    for said, reader in readers.items():
        shares = {
            column: float((reader(shown(images[kept])) == sample.labels[kept]).mean())
            for column, images in columns.items()
        }
        print(f"{sample.name} {tier} {said}: " + ", ".join(f"{one} {share:.2f}" for one, share in shares.items()))
        if not said.startswith("held out"):
            for column, share in shares.items():
                means[column].append(share)
    row = ", ".join(f"{column} {np.mean(found):.2f}" for column, found in means.items())
    print(f"{sample.name} {tier} white-box, mean: {row}")
    print(
        f"{sample.name} {tier}: {kept.sum()} of {len(sample)} images, {seconds:.1f} CPU seconds each mark", flush=True
    )


def speed() -> None:
    """Tell the CPU seconds of one 512x512 slice in both modes that networks draw, weights loaded."""
    for mode in ("strong", "generator"):
        marker = Marker(MarkSettings(mode=mode, device="cpu"), packs=[pack_of(1)])
        marker.mark([MarkRequest(gray8(96, 96), KEY)], brain_mr.PROFILE)  # reads the weights
        began = time.process_time()
        marker.mark([MarkRequest(gray8(512, 512), KEY)], brain_mr.PROFILE)
        print(f"{mode}: {time.process_time() - began:.1f} CPU seconds for a 512x512 slice", flush=True)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8, help="of each set")
    parser.add_argument("--mode", default="strong", choices=("strong", "generator"))
    parser.add_argument("--steps", type=int, default=MarkSettings().steps)
    parser.add_argument("--sets", default="brain_tumor,fundus_dr")
    parser.add_argument("--tiers", default="lettered")
    parser.add_argument("--part", choices=("validation", "test"), default="validation")
    parser.add_argument("--victims", default="", help="families of trained victims, comma-separated")
    parser.add_argument("--cache", type=Path, help="folder of trained victims (default: in the user's cache)")
    parser.add_argument("--no-speed", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    victims = [one for one in arguments.victims.split(",") if one]
    for name in arguments.sets.split(","):
        readers = readers_of(name, victims, cache_folder(arguments.cache))
        sample = images_of(name, arguments.part, arguments.images)
        for tier in arguments.tiers.split(","):
            settings = MarkSettings(mode=arguments.mode, tier=tier, steps=arguments.steps, device="cpu")
            accuracies(sample, readers, settings)
    if not arguments.no_speed:
        speed()


if __name__ == "__main__":
    main()
