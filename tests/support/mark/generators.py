"""Small generators that the tests share: seeded, untrained or hardly trained."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from gateway.mark import Marker, MarkRequest, MarkSettings
from gateway.mark.methods.generator_net import TextureNet, save_generator
from gateway.mark.methods.generator_packs import GeneratorPack
from gateway.mark.surrogates.packs import Surrogate
from gateway.training.drafts import DraftedImages, draft_images
from gateway.training.generator import Plan, Step, train_generator
from tests.support.mark.samples import BRAIN, CPU, gray8, small_pack

GENERATOR = MarkSettings(tier="lettered", mode="generator", device="cpu")


def seeded(channels: int = 1, seed: int = 0) -> TextureNet:
    """Return an untrained network; torch's own random state stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextureNet(channels).eval()


def pack_of(net: TextureNet, folder: Path, **changes: object) -> GeneratorPack:
    """Return a pack with the network in a file of ``folder``."""
    file = folder / "net.safetensors"
    save_generator(net, file)
    return GeneratorPack(**{"name": "net", "channels": net.channels, "file": file, "card": file, **changes})


def marker_of(folder: Path, settings: MarkSettings = GENERATOR, channels: int = 1) -> Marker:
    """Return a marker whose only generator is an untrained network."""
    return Marker(settings, packs=[small_pack()], generators=[pack_of(seeded(channels), folder)])


@cache
def surrogates() -> tuple[Surrogate, ...]:
    """Return the one small surrogate that the trainings here run against."""
    return small_pack().load(CPU)


@cache
def drafted(count: int = 8, side: int = 160) -> DraftedImages:
    """Return drafts of phantoms of ``side`` pixels at 64x64; of 320 pixels most of their words carry texture."""
    requests = [MarkRequest(gray8(side, side, seed), bytes(32)) for seed in range(count)]
    return draft_images(requests, BRAIN, surrogates(), CPU, side=64)


def trained(steps: int, checkpoint: Path | None = None) -> tuple[TextureNet, list[Step]]:
    """Return a network after ``steps`` steps, and what every step told."""
    told: list[Step] = []
    plan = Plan(steps=steps, pairs=4, rate=1e-3, diversity=0.0)
    return train_generator([drafted()], surrogates(), plan, checkpoint, told.append), told


def interrupted(after: int, steps: int, checkpoint: Path) -> None:
    """Train as ``trained`` does, and break off after some steps with their checkpoint written."""

    def stop(step: Step) -> None:
        if step.number == after:
            raise KeyboardInterrupt

    plan = Plan(steps=steps, pairs=4, rate=1e-3, diversity=0.0)
    with pytest.raises(KeyboardInterrupt):
        train_generator([drafted()], surrogates(), plan, checkpoint, stop, save_every=after)
