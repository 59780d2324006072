"""A remover that learned from pairs (A3 of mark, evaluation rules): a small U-Net, trained on marks of other keys.

The adversary owns a gateway of the same kind under keys of its own, marks images of the same task (half B) and trains a
network to give the original back (Ronneberger et al. 2015; residual output, mean squared error: the mean absolute one
stops at no change, since most pixels have none). This is the strongest practical removal that is known; its network is
kept in the cache. It works on whole images scaled to about what the victims see: there it has the whole lettering in
view, learns with few pairs, and scaling takes some of the mark away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gateway.mark.resample import resize
from gateway.mark.surrogates.store import write_whole
from gateway.training.networks import channels_first


@dataclass(frozen=True)
class RemoverRecipe:
    """How a remover is trained: steps, batch, side in pixels at which it works, width of the first layer, rate."""

    steps: int = 600
    batch: int = 8
    side: int = 128
    width: int = 16
    rate: float = 2e-3


TINY = RemoverRecipe(steps=20, batch=4, side=64, width=8, rate=5e-3)
"""For CI: runs, but learns next to nothing."""
LEVELS = 4


def _double(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1),
        nn.GroupNorm(4, n_out),
        nn.ReLU(),
        nn.Conv2d(n_out, n_out, 3, padding=1),
        nn.GroupNorm(4, n_out),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Four levels; the output is added to the input, and starts at nothing.

    Parameters
    ----------
    channels
        1 or 3.
    width
        features of the first level, a multiple of 4.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            [_double(n_in, n_out) for n_in, n_out in zip([channels, *widths], widths, strict=False)]
        )
        self.up = nn.ModuleList([_double(3 * n_out, n_out) for n_out in widths[:-1]])
        self.last = nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, C, h, w) in 0..1 without the mark; h and w are multiples of 8."""
        passed = []
        x = images
        for level, block in enumerate(self.down):
            x = block(nn.functional.avg_pool2d(x, 2) if level else x)
            passed.append(x)
        for level in reversed(range(LEVELS - 1)):
            x = self.up[level](torch.cat([x.repeat_interleave(2, 2).repeat_interleave(2, 3), passed[level]], 1))
        return images + self.last(x)


def train_remover(
    marked: np.ndarray,
    clean: np.ndarray,
    recipe: RemoverRecipe,
    path: Path,
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
) -> UNet:
    """Return the remover of ``path``, trained now when there is none.

    Parameters
    ----------
    marked
        display images float32 (N, H, W[, 3]) in 0..1.
    clean
        the originals of these.
    recipe
        how.
    path
        safetensors; its name must depend on pairs and recipe.
    device
        where.
    say
        told the loss now and then.
    """
    inputs, targets = (resize(channels_first(images), recipe.side, recipe.side) for images in (marked, clean))
    torch.manual_seed(2026)
    net = UNet(inputs.shape[1], recipe.width).to(device)
    if path.exists():
        net.load_state_dict(load_file(str(path)))
        return net.to(device).eval()
    random = torch.Generator().manual_seed(2026)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps)
    running = 0.0
    for step in range(recipe.steps):
        index = torch.randint(len(inputs), (recipe.batch,), generator=random)
        x, y = inputs[index].to(device), targets[index].to(device)
        loss = ((net(x) - y) ** 2).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        running += loss.item()
        if (step + 1) % 200 == 0:
            say(f"remover step {step + 1}/{recipe.steps}: error {255.0 * (running / 200) ** 0.5:.2f} grey levels")
            running = 0.0
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, {name: value.cpu().contiguous() for name, value in net.state_dict().items()}, {})
    return net.eval()


@torch.no_grad()
def remove(net: UNet, images: np.ndarray, side: int, device: torch.device) -> np.ndarray:
    """Return display images float32 (N, side, side[, 3]) in 0..1 after the remover.

    Parameters
    ----------
    net
        the remover.
    images
        display images float32 (N, H, W[, 3]) in 0..1.
    side
        of the remover's recipe.
    device
        where.
    """
    parts = [net(resize(part, side, side).to(device)).clamp(0.0, 1.0).cpu() for part in channels_first(images).split(8)]
    whole = torch.cat(parts).numpy()
    return np.ascontiguousarray(whole[:, 0] if whole.shape[1] == 1 else whole.transpose(0, 2, 3, 1))


def at_side(images: np.ndarray, side: int) -> np.ndarray:
    """Return display images float32 (N, side, side[, 3]) as the remover is shown them."""
    whole = resize(channels_first(images), side, side).numpy()
    return np.ascontiguousarray(whole[:, 0] if whole.shape[1] == 1 else whole.transpose(0, 2, 3, 1))
