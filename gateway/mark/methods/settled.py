"""The last steps of a mark whose letters all lie in the air: they alone move, over the anatomy as it is delivered.

What lies on the anatomy is calmed and rounded after its texture is found, and misleads less then. Letters in the air
bear large changes, of which rounding takes nothing: some steps of theirs over the finished picture make up for a part
of it. Words over anatomy are left as they are: they share a budget with what they would make up for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark.draft import Draft
from gateway.mark.methods.begun import continue_texture
from gateway.mark.methods.method import Batch
from gateway.mark.methods.textures import finish_texture, whole_textures
from gateway.mark.visibility.budget import Canvas
from gateway.mark.visibility.chroma import limit_chroma


def settle_letters(
    texture: Tensor,
    batch: Batch,
    generators: Sequence[np.random.Generator],
    steps: int,
) -> Tensor:
    """Return the texture (size, C, h, w) with other letters where all of an image's lie in its air.

    Parameters
    ----------
    texture
        (size, C, h, w) in -1..1 at the batch's working resolution.
    batch
        what it was drawn for.
    generators
        one per image, for the views.
    steps
        no more than that.

    Raises
    ------
    MarkError
        ``surrogate-nan`` when a network gives a value that is not finite.
    """
    chosen = [_can_settle(draft.canvas) for draft in batch.filled]
    if not any(chosen):
        return texture
    drawn = zip(batch.drafts, whole_textures(texture, batch), strict=True)
    moved = continue_texture(
        batch.stacked([_without_letters(draft, plane, batch) for draft, plane in drawn]),
        batch.tensor(lambda canvas: np.where(canvas.strokes, canvas.amplitude, np.float32(0.0))),
        batch.tensor(lambda canvas: canvas.offset),
        batch.surrogates,
        batch.profile.tasks,
        generators,
        texture,
        partial(limit_chroma, share=batch.profile.chroma),
        known=batch.answers,
        most=steps,
        original=batch.tensor(lambda canvas: canvas.shown),
    )
    return torch.where(torch.tensor(chosen, device=moved.device)[:, None, None, None], moved, texture)


def _can_settle(canvas: Canvas) -> bool:
    return bool(canvas.strokes.any() and canvas.outside.any()) and not (canvas.strokes & ~canvas.in_air).any()


def _without_letters(draft: Draft, texture: np.ndarray, batch: Batch) -> np.ndarray:
    """Return the display image with what a texture leaves of itself on the anatomy, and no letters."""
    canvas = draft.canvas
    if not _can_settle(canvas):
        return canvas.shown
    try:
        marked = finish_texture(draft, texture, batch.profile).stored
    except MarkError:
        return canvas.shown  # that there is no mark is told when it is finished
    planes = (slice(None), slice(None), *([None] * (canvas.stored.ndim - 2)))
    return np.where(canvas.strokes[planes], canvas.shown, canvas.display.shown(marked))
