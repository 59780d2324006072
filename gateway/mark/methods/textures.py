"""What methods that draw textures share: from the working grid to the image, and into stored values."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from gateway.mark.draft import Draft
from gateway.mark.grids import nearest
from gateway.mark.methods.method import Batch, Finished
from gateway.mark.types import ModalityProfile
from gateway.mark.visibility.budget import fit_to_floor


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
    return Finished(draft.canvas, marked, cut)
