"""How much of a change lies in one place, one width and one direction; and the same change with less of it there.

The eye adds up what lies together: a change of which each pixel is below the threshold shows where its pixels make
a stripe or a blot. So a change is taken apart into octaves (a Laplacian pyramid), in each of which second differences
in four directions tell what runs across them. Of each octave there may be so much in a place, and of all together.

Changes are in thresholds of flat ground. Noise raises them, the more the finer an octave is: of white noise each
coarser octave has half as much.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from gateway.mark.visibility.threshold import SLOPE

OCTAVES = 6
"""Octaves that are limited, the finest first."""
SHADE = 0.5
"""Share of the limit that what is coarser than all of them may take."""
CENTRE = 0.35
"""Cycles per pixel of an octave's own grid at which a wave counts with its amplitude."""
FINEST, COARSER = 0.9, 1.5
"""What the finest octave and the others count: blurring before an octave takes some of its waves away."""
REACH = 1.4
"""Standard deviation of the neighbourhood that is added up, in pixels of an octave's own grid."""
EACH = 0.8
"""Share of the limit that one octave may take by itself."""
LEAST_SIDE = 8
"""Pixels: a grid that is smaller is taken apart no further."""
POOLED = 4.0
"""Exponent of the sum over octaves and directions: the strongest count."""


@cache
def _directed() -> Tensor:
    """Return (4, 1, 3, 3): second differences down, across and along both diagonals, smoothed across them."""
    across = torch.tensor([-1.0, 2.0, -1.0])
    smooth = torch.tensor([0.25, 0.5, 0.25])
    straight = across[None, :] * smooth[:, None]
    wave = 4.0 * torch.sin(torch.tensor(torch.pi * CENTRE)) ** 2
    # differences along a diagonal: pixels lie further apart, and smoothing across comes from the centre alone
    slanted = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, -1.0]])
    slant = 4.0 * torch.sin(torch.tensor(torch.pi * CENTRE * 2.0**0.5)) ** 2
    return torch.stack([straight / wave, straight.T / wave, slanted / slant, slanted.flip(1) / slant])[:, None]


@cache
def _window(deviation: float) -> Tensor:
    reach = int(2.5 * deviation + 0.5)
    at = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (at / deviation) ** 2)
    return weights / weights.sum()


def _blurred(planes: Tensor, weights: Tensor) -> Tensor:
    """Return (B, C, h, w) planes through one window both ways, edges repeated."""
    reach, channels = len(weights) // 2, planes.shape[1]
    wide = functional.pad(planes, (reach, reach, reach, reach), mode="replicate")
    down = functional.conv2d(wide, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return functional.conv2d(down, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def _half(plane: Tensor) -> Tensor:
    smooth = _blurred(plane, torch.tensor([0.25, 0.5, 0.25], device=plane.device))
    return functional.avg_pool2d(smooth, 2, ceil_mode=True, count_include_pad=False)


def _grown(plane: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(plane, like.shape[2:], mode="bilinear", align_corners=False)


def _strength(octave: Tensor, number: int) -> Tensor:
    """Return (B, 1, h, w): the fourth power of what an octave holds of the strongest directions, at each place."""
    wide = functional.pad(octave * (COARSER if number else FINEST), (1, 1, 1, 1), mode="replicate")
    found = functional.conv2d(wide, _directed().to(octave.device))
    energy = _blurred(found.square(), _window(REACH).to(octave.device))
    return energy.square().sum(1, keepdim=True)


def _octaves(change: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the octaves of a (B, 1, H, W) change, the finest first, and what is coarser than all of them."""
    plane = change
    octaves: list[Tensor] = []
    while len(octaves) < OCTAVES and min(plane.shape[2:]) >= LEAST_SIDE:
        coarser = _half(plane)
        octaves.append(plane - _grown(coarser, plane))
        plane = coarser
    return octaves, plane


def _hidden(hides: Tensor, octaves: list[Tensor]) -> list[Tensor]:
    """Return per octave how many times its threshold is that of flat ground: noise has half as much of each coarser."""
    found = [hides.clamp(min=1.0)]
    for octave in octaves[1:]:
        found.append((functional.interpolate(found[-1], octave.shape[2:], mode="area") * 0.5**SLOPE).clamp(min=1.0))
    return found


def together(change: Tensor, hides: Tensor) -> Tensor:
    """Return (B, 1, H, W): how strong a change is in its strongest octaves and directions; arguments as ``evened``."""
    octaves, _ = _octaves(change)
    total = torch.zeros_like(change)
    for number, (octave, hidden) in enumerate(zip(octaves, _hidden(hides, octaves), strict=True)):
        total = total + _grown(_strength(octave / hidden, number), change).clamp(min=0.0)
    return total ** (1.0 / POOLED)


def evened(change: Tensor, hides: Tensor, limit: float) -> Tensor:
    """Return a (B, 1, H, W) change with less of each octave where it is too strong, and of all of them together.

    Parameters
    ----------
    change
        in thresholds of flat ground.
    hides
        (B, 1, H, W), by how many times noise raises that threshold for single pixels; below 1 counts as 1.
    limit
        in thresholds, root mean square over a neighbourhood.
    """
    octaves, result = _octaves(change)
    total = torch.zeros_like(change)
    kept: list[Tensor] = []
    for number, (octave, hidden) in enumerate(zip(octaves, _hidden(hides, octaves), strict=True)):
        strength = _strength(octave / hidden, number)
        share = (EACH * limit / strength.clamp(min=1e-12) ** (1.0 / POOLED)).clamp(max=1.0)
        kept.append(octave * share)
        total = total + _grown(strength * share**POOLED, change).clamp(min=0.0)
    result = result.clamp(-SHADE * limit, SHADE * limit)
    for octave in reversed(kept):
        result = octave + _grown(result, octave)
    return result * (limit / total.clamp(min=1e-12) ** (1.0 / POOLED)).clamp(max=1.0)
