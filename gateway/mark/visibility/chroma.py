"""Colour of a mark: mostly lighter and darker, little of another hue.

Noise of photographs is mostly luminance and hides luminance; patches of another hue stand out and may read as disease
(redness, pigment), so the texture's chroma is at most half of its luma amplitude (mark, budgets).
"""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (Rec. 601), as in ``region.luminance``."""


def limit_chroma(texture: Tensor, share: float) -> Tensor:
    """Return the texture with every channel within ``share`` of its luma; luma itself stays as it is.

    Parameters
    ----------
    texture
        (B, C, h, w) float in -1..1, a share of the amplitude; one channel is returned as it is.
    share
        largest deviation, 0 (gray only) to 2 (no limit).

    Values stay in -1..1: each pixel moves straight towards its own luma.
    """
    if texture.shape[1] == 1:
        return texture
    weights = torch.tensor(LUMA, dtype=texture.dtype, device=texture.device)[:, None, None]
    luma = (texture * weights).sum(1, keepdim=True)
    chroma = texture - luma
    size = chroma.abs().amax(1, keepdim=True)
    return luma + chroma * (share / size.clamp(min=1e-12)).clamp(max=1.0)
