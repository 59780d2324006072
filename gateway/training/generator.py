"""Trains a generator on the objective of ``strong``: no labels, several surrogates, keyed views, a removal in the loop.

Every step draws a few drafted images of one kind and two keys for each. The surrogates' gradients at the textures are
balanced as in ``strong`` (each normalised per image, weighted by how firmly it still believes its first answer) and
carried on into the network (as in generative perturbations, Poursaeed et al. 2018). A second term keeps the textures of
the two keys apart, so that who learns one mark knows little of another.

Everything a step draws comes from the seed and the step's number: an interrupted run ends as one that was not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.device import channels_last
from gateway.mark.methods.generator_net import KEY_BITS, TextureNet
from gateway.mark.methods.gradients import balanced_gradient
from gateway.mark.methods.strong import GROUPS
from gateway.mark.surrogates.consensus import consensus
from gateway.mark.surrogates.objective import Target, draw_views
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.visibility.chroma import limit_chroma
from gateway.training.drafts import DraftedImages
from gateway.training.removal import random_removal

SAVE_EVERY = 50
"""Steps between checkpoints."""
ENOUGH_APART = 0.7
"""Correlation between the textures of two keys below which nothing is asked of them; the lettering differs as well."""
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Plan:
    """How a generator is trained.

    Attributes
    ----------
    steps
        optimiser steps (Adam).
    pairs
        drafted images per step; each is seen with two keys.
    rate
        peak learning rate; a twentieth of the steps warms up, a half-cosine ends near 0.
    members
        surrogates per step, drawn from all: more steps are worth more than more surrogates in each.
    diversity
        weight of the squared correlation between the textures of two keys, beyond ``ENOUGH_APART``.
    seed
        of weights and of everything drawn.
    """

    steps: int = 1000
    pairs: int = 4
    rate: float = 2e-3
    members: int = 2
    diversity: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Step:
    """What one step tells.

    Attributes
    ----------
    number
        1 for the first.
    total
        of the plan.
    margin
        mean over surrogates and images of the margin (logits) after the step's removal; lower misleads more.
    loss
        the same of the whole objective (margin and middle layers).
    correlation
        mean absolute correlation between the textures of two keys for one image, 0..1.
    """

    number: int
    total: int
    margin: float
    loss: float
    correlation: float


def train_generator(
    drafted: Sequence[DraftedImages],
    surrogates: Sequence[Surrogate],
    plan: Plan,
    checkpoint: Path | None = None,
    progress: Callable[[Step], None] = lambda step: None,
    device: torch.device = _CPU,
    save_every: int = SAVE_EVERY,
) -> TextureNet:
    """Return a trained network in evaluation mode.

    Parameters
    ----------
    drafted
        one entry per kind of image, all of one channel count; a kind is drawn as often as it has images.
    surrogates
        at least one with a head for a task of every kind.
    plan
        how.
    checkpoint
        written every ``save_every`` steps and at the end; a run goes on from it where it is there.
    progress
        called after every step.
    device
        of the surrogates, and where the network is trained.
    save_every
        steps between checkpoints.

    Raises
    ------
    MarkError
        ``no-images`` without images, ``checkpoint-corrupt`` for a checkpoint that cannot be used or is of a run with
        another plan, other surrogates or another number of images (one that does not say is believed),
        ``surrogate-nan`` when a surrogate gives a value that is not finite, ``no-surrogate`` when none has a head
        for a kind's tasks.
    """
    if not drafted:
        raise MarkError("no-images", "no image can be used for training: there are none")
    members = [_members(one, surrogates) for one in drafted]
    net = channels_last(_fresh(drafted[0].clean.shape[1], plan.seed), device)
    adam = torch.optim.Adam(net.parameters(), lr=plan.rate, betas=(0.9, 0.99))
    run = f"{plan}, images {[len(one) for one in drafted]}, {', '.join(one.name for one in surrogates)}"
    done = _resume(checkpoint, net, adam, run) if checkpoint is not None and checkpoint.is_file() else 0
    shares = np.array([len(one) for one in drafted], np.float64)
    net.train()
    for number in range(done, plan.steps):
        random = np.random.default_rng((plan.seed, number))
        kind = int(random.choice(len(drafted), p=shares / shares.sum()))
        for group in adam.param_groups:
            group["lr"] = plan.rate * _rate_at(number, plan.steps)
        adam.zero_grad(set_to_none=True)
        margin, loss, correlation = _backward(net, drafted[kind], members[kind], plan, random, number, device)
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        if checkpoint is not None and ((number + 1) % save_every == 0 or number + 1 == plan.steps):
            _save(checkpoint, net, adam, number + 1, run)
        progress(Step(number + 1, plan.steps, margin, loss, correlation))
    return net.eval().requires_grad_(False)


def _fresh(channels: int, seed: int) -> TextureNet:
    """Return a network with seeded weights; the caller's random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TextureNet(channels)


def _members(drafted: DraftedImages, surrogates: Sequence[Surrogate]) -> list[Surrogate]:
    fitting = [one for one in surrogates if one.asked(drafted.tasks)]
    if not fitting:
        raise MarkError("no-surrogate", f"no surrogate knows a task of {', '.join(drafted.tasks)}")
    return fitting


def _rate_at(step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a short warm-up, then a half-cosine."""
    warm = max(1, steps // 20)
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / max(1, steps)))


def _backward(
    net: TextureNet,
    drafted: DraftedImages,
    surrogates: Sequence[Surrogate],
    plan: Plan,
    random: np.random.Generator,
    number: int,
    device: torch.device,
) -> tuple[float, float, float]:
    """Put one step's gradient into the network; return mean margin, mean loss and mean |correlation| of two keys."""
    index = random.choice(len(drafted), min(plan.pairs, len(drafted)), replace=False)
    clean, amplitude, offset, direction, blanked = drafted.batch([*index, *index], device)
    bits = random.choice(np.array([-1.0, 1.0], np.float32), (len(clean), KEY_BITS))
    # The textures are a leaf for the surrogates; what they want of them goes into the network afterwards, in one pass.
    drawn = limit_chroma(net(clean, amplitude, offset, torch.from_numpy(bits).to(device), direction), drafted.chroma)
    texture = drawn.detach().requires_grad_(True)
    images = (clean + offset + amplitude * texture).clamp(0.0, 1.0)
    images = random_removal(images, random)
    left = 1.0 - blanked if number % 2 else torch.ones_like(blanked)  # every second step sees the background black
    images = images * left
    generators = [np.random.default_rng((plan.seed, number, place)) for place in range(len(index))]
    view = draw_views(generators, clean.shape[2:], GROUPS, 1, device)[number // 2 % GROUPS]
    total, margins, losses = torch.zeros_like(texture), [], []
    chosen = random.choice(len(surrogates), min(plan.members, len(surrogates)), replace=False)
    members = [surrogates[place] for place in sorted(chosen)]
    probabilities = consensus(clean[: len(index)], members, drafted.tasks)
    for surrogate, held in zip(members, probabilities, strict=True):
        target = Target(surrogate, (clean * left)[: len(index)], [view], held)  # both keys of an image share it
        told = [target.loss(half, 0) for half in images.chunk(2)]
        loss, margin = (torch.cat(column) for column in zip(*told, strict=True))
        (gradient,) = torch.autograd.grad(loss.sum(), texture, retain_graph=True)
        total += balanced_gradient(gradient, margin.detach(), surrogate.name)
        margins.append(float(margin.detach().mean()))
        losses.append(float(loss.detach().mean()))
    correlation = _correlation(amplitude * drawn)
    # mean over pixels and images, so that this term and the next are of one size
    attack = (total.detach() * drawn).mean() / len(chosen)
    alike = (correlation.abs() - ENOUGH_APART).clamp(min=0.0).square().mean()
    (attack + plan.diversity * alike).backward()
    return float(np.mean(margins)), float(np.mean(losses)), float(correlation.detach().abs().mean())


def _correlation(change: Tensor) -> Tensor:
    """Return the (B / 2,) correlation, about 0, between the first and the second half of changes (B, C, h, w)."""
    first, second = change.flatten(1).chunk(2)
    size = first.norm(dim=1) * second.norm(dim=1)
    return (first * second).sum(1) / size.clamp(min=1e-12)


def _save(path: Path, net: TextureNet, adam: torch.optim.Adam, done: int, run: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save({"net": net.state_dict(), "adam": adam.state_dict(), "done": done, "run": run}, beside)
    beside.replace(path)


def _resume(path: Path, net: TextureNet, adam: torch.optim.Adam, run: str) -> int:
    """Load a checkpoint into network and optimiser; return how many steps it has behind it."""
    hint = "delete it to start again"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # tensors and numbers only: nothing executable
        of_another = state.get("run", run) != run
        net.load_state_dict(state["net"])
        adam.load_state_dict(state["adam"])
        done = int(state["done"])
    except Exception as error:  # torch names no common class for what a damaged file may raise
        reason = type(error).__name__
        raise MarkError("checkpoint-corrupt", f"checkpoint {path.name} cannot be used: {reason}", hint) from error
    if of_another:
        message = f"checkpoint {path.name} is of a run with other steps, images or networks"
        raise MarkError("checkpoint-corrupt", message, hint)
    return done
