"""A vision transformer in the layout of published weights: ViT-S/14 as DINOv2 has it.

Tokens are (N, T, n), the class token first. The positions belong to the grid of a 224 px image and are interpolated to
others. Where the weights come from: ``gateway.training.sources``.

Sources: ViT (Dosovitskiy et al. 2021), DINOv2 (Oquab et al. 2023); written anew.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gateway.mark.surrogates.nets_pretrained import IMAGENET, Prepare
from gateway.mark.surrogates.nets_small import Built


class PatchTokens(nn.Module):
    """Square patches to tokens with positions, a class token in front.

    Parameters
    ----------
    n
        width of a token.
    patch
        side of a patch in pixels.
    grid
        patches along a side for which there are positions.
    bias
        whether the projection has one.
    """

    def __init__(self, n: int, patch: int, grid: int, bias: bool = True) -> None:
        super().__init__()
        self.first, self.first_position = nn.Parameter(torch.zeros(1, 1, n)), nn.Parameter(torch.zeros(1, 1, n))
        self.positions = nn.Parameter(torch.zeros(1, n, grid, grid))
        self.project = nn.Conv2d(3, n, patch, patch, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, 1 + patches, n) for ``x`` (N, 3, h, w); what is no whole patch is left out."""
        grid = self.project(x)
        positions: Tensor = self.positions
        if grid.shape[2:] != positions.shape[2:]:
            positions = functional.interpolate(positions, grid.shape[2:], mode="bicubic", align_corners=False)
        patches = (grid + positions).flatten(2).transpose(1, 2)
        return torch.cat([(self.first + self.first_position).expand(len(x), -1, -1), patches], 1)


class TokenBlock(nn.Module):
    """Pre-norm transformer block: self-attention, then a perceptron of four times the width."""

    def __init__(self, n: int, heads: int, eps: float, activation: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(n, eps=eps)
        self.query, self.key, self.value = nn.Linear(n, n), nn.Linear(n, n), nn.Linear(n, n)
        self.project = nn.Linear(n, n)
        self.perceptron = nn.Sequential(nn.LayerNorm(n, eps=eps), nn.Linear(n, 4 * n), activation, nn.Linear(4 * n, n))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens for tokens ``x`` (N, T, n)."""
        seen = self.norm(x)
        shape = (*x.shape[:2], self.heads, x.shape[2] // self.heads)
        query, key, value = (one(seen).view(shape).transpose(1, 2) for one in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        return x + self.perceptron(x)


class TokenPool(nn.Module):
    """The last norm, then the class token and the mean of the patches side by side."""

    def __init__(self, n: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 2 * n, 1, 1) for tokens ``x`` (N, T, n)."""
        x = self.norm(x)
        return torch.cat([x[:, 0], x[:, 1:].mean(1)], 1)[:, :, None, None]


def _vit_s14(channels: int) -> Built:
    blocks = [TokenBlock(384, 6, 1e-6, nn.GELU()) for _ in range(12)]
    lower = nn.Sequential(Prepare(*IMAGENET), PatchTokens(384, 14, 16), *blocks[:6])
    return lower, nn.Sequential(*blocks[6:], TokenPool(384, 1e-6)), 768


TRANSFORMERS: dict[str, Callable[[int], Built]] = {"vit-s14": _vit_s14}
"""Family name -> builder."""
