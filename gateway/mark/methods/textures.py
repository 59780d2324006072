"""What methods that draw textures share: from the working grid to the image, and into stored values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gateway.mark.draft import Draft
from gateway.mark.grids import nearest, working_shape
from gateway.mark.methods.method import Batch, Finished
from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.budget import fit_to_floor

STEPS = 127
"""Of a kept texture: int8 value of the largest amplitude."""


def whole_textures(texture: Tensor, batch: Batch) -> list[np.ndarray]:
    """Return a float32 texture of its image's shape per draft of the batch.

    Parameters
    ----------
    texture
        (size, C, h, w) in -1..1 at the batch's working resolution.
    batch
        what it was drawn for.

    Nearest neighbour: blocks keep their full amplitude, and a classifier's resize gives the texture back.
    """
    shape, (height, width) = batch.working_shape, batch.shape
    rows, columns = nearest(shape[0], height), nearest(shape[1], width)
    whole = texture.detach().cpu().numpy()[:, :, rows][:, :, :, columns]
    planes = [one[0] if one.shape[0] == 1 else one.transpose(1, 2, 0) for one in whole[: len(batch.drafts)]]
    return [np.ascontiguousarray(plane) for plane in planes]


def finish_texture(draft: Draft, texture: np.ndarray, profile: ModalityProfile) -> Finished:
    """Round a texture (shape of the image) into stored values; raises as ``fit_to_floor``."""
    marked, cut = fit_to_floor(draft.canvas, texture, draft.floor, profile.stroke_peak)
    return Finished(draft.canvas, marked, cut, texture=kept_texture(texture, profile.texture_side))


def kept_texture(texture: np.ndarray, side: int) -> np.ndarray:
    """Return the int8 texture on its working grid (``MarkedImage.texture``) of a float one of its image's shape.

    Parameters
    ----------
    texture
        (H, W) or (H, W, 3) float32 in -1..1, as ``whole_textures`` gives it.
    side
        ``ModalityProfile.texture_side``.
    """
    height, width = texture.shape[:2]
    kept = working_shape((height, width), side)
    rows, columns = nearest(height, kept[0]), nearest(width, kept[1])
    return np.rint(texture[rows][:, columns] * STEPS).astype(np.int8)


def fits(begin: np.ndarray | None, shape: tuple[int, ...], channels: int) -> bool:
    """Return whether a texture that is offered to begin from is one of this working grid (h, w)."""
    wanted = tuple(shape) if channels == 1 else (*shape, channels)
    return begin is not None and begin.dtype == np.int8 and begin.shape == wanted


def begun_textures(begins: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Return (B, C, h, w) float32 in -1..1 of kept textures."""
    planes = [one[None] if one.ndim == 2 else one.transpose(2, 0, 1) for one in begins]
    stack = torch.from_numpy(np.ascontiguousarray(np.stack(planes))).to(device, torch.float32)
    return (stack / STEPS).clamp(-1.0, 1.0)
