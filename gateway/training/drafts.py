"""What a generator is trained on: images with the limits of a real mark in them, drafted once and kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gateway.config.marking import AIR_TIERS
from gateway.errors import MarkError
from gateway.mark.draft import Draft
from gateway.mark.drafting import Drafter
from gateway.mark.grids import to_tensor, working_shape
from gateway.mark.methods.generator import GeneratorMethod
from gateway.mark.methods.strong import first_direction
from gateway.mark.resample import resize
from gateway.mark.settings import MarkSettings
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.types import MarkRequest, ModalityProfile

TIERS = ("lettered", "notice", "lettered", "notice", "lettered", "notice", "air", "discreet")
"""Tiers that images are drafted for, in turn, so that the network knows all of them."""


@dataclass(frozen=True)
class DraftedImages:
    """Drafts of images of one kind and one size at working resolution.

    Attributes
    ----------
    tasks
        heads of the surrogates to mislead on these images; empty: all.
    chroma
        the profile's limit of colour.
    clean
        (N, C, h, w) float16 in 0..1, display space.
    amplitude
        (N, 1, h, w) float16 >= 0, display units.
    offset
        (N, 1, h, w) float16, display units.
    direction
        (N, C, h, w) float16, from ``first_direction``, mean size 1.
    blanked
        (N, 1, h, w) float16 in 0..1, the background that every second step sees black; 0 where no letters lie in it.
    """

    tasks: tuple[str, ...]
    chroma: float
    clean: Tensor
    amplitude: Tensor
    offset: Tensor
    direction: Tensor
    blanked: Tensor

    def __len__(self) -> int:
        return len(self.clean)

    def batch(self, index: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return clean, amplitude, offset, direction and blanked of some images as float32 on ``device``."""
        chosen = torch.as_tensor(np.asarray(index, np.int64))
        columns = (self.clean, self.amplitude, self.offset, self.direction, self.blanked)
        return tuple(one[chosen].float().to(device) for one in columns)  # type: ignore[return-value]


def draft_images(
    requests: Sequence[MarkRequest],
    profile: ModalityProfile,
    surrogates: Sequence[Surrogate],
    device: torch.device,
    seed: int = 0,
    side: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DraftedImages:
    """Draft every image with a placement and a key of its own; what cannot be marked is left out.

    Parameters
    ----------
    requests
        images of one channel count, any sizes; keys and positions are replaced.
    profile
        their profile.
    surrogates
        for saliency (the first) and direction (all); may be empty, then local detail is salient.
    device
        of the surrogates.
    seed
        of keys, hence placements.
    side
        square side in pixels that all are brought to; 0: the profile's ``texture_side``.
    progress
        called with (images done, images).

    Raises
    ------
    MarkError
        ``no-images`` when none is left; the message names the reasons.
    """
    instead = {tier: "lettered" if tier in AIR_TIERS else None for tier in TIERS}  # small images are to teach as well
    settings = {tier: MarkSettings(tier=tier, mode="generator", without_air=instead[tier]) for tier in TIERS}
    drafters = {
        tier: Drafter(one, profile, GeneratorMethod.needs(one), surrogates[:1], device)
        for tier, one in settings.items()
    }
    rows: list[tuple[Tensor, ...]] = []
    reasons: dict[str, int] = {}
    for number, request in enumerate(requests):
        key = hashlib.sha256(f"sketch {seed} {number}".encode()).digest()
        drafter = drafters[TIERS[number % len(TIERS)]]
        try:
            draft = drafter.draft(replace(request, key=key, position=None))
            rows.append(_rows(draft, side or profile.texture_side, surrogates, profile.tasks, device))
        except MarkError as error:
            reasons[error.code] = reasons.get(error.code, 0) + 1
        progress(number + 1, len(requests))
    if not rows:
        told = ", ".join(f"{count} {code}" for code, count in sorted(reasons.items())) or "there are none"
        raise MarkError("no-images", f"no image can be used for training: {told}")
    return DraftedImages(profile.tasks, profile.chroma, *(torch.stack(column) for column in zip(*rows, strict=True)))


def _rows(
    draft: Draft, side: int, surrogates: Sequence[Surrogate], tasks: Sequence[str], device: torch.device
) -> tuple[Tensor, ...]:
    """Return clean, amplitude, offset, direction and blanked of one draft, (C or 1, side, side) float16.

    As the marker does it, then brought to a square: an image that is not square is distorted a little, as most
    classifiers' preparation does.
    """
    canvas = draft.canvas
    shape = working_shape(canvas.stored.shape[:2], side)
    arrays = (canvas.shown, canvas.amplitude, canvas.offset, canvas.blanked.astype(np.float32))
    clean, amplitude, offset, blanked = (
        resize(resize(to_tensor(array, device), *shape), side, side) for array in arrays
    )
    direction = first_direction(clean, offset, surrogates, tasks)
    direction = direction / direction.abs().mean().clamp(min=1e-12)
    return tuple(one[0].half().cpu() for one in (clean, amplitude, offset, direction, blanked))
