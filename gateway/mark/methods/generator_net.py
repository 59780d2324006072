"""The ``generator``: one network that draws the texture of any image for any key in a single forward pass.

A small U-Net sees the image and where and how strongly its mark may lie; the key turns its features by FiLM (Perez et
al. 2018: a scale and a shift per feature channel), so that another key gives another texture. The texture lies on a
grid half as fine as the image's: a classifier's resize leaves little of a finer one. The network works on blocks of 4x4
points of that grid (sub-pixel convolution, Shi et al. 2016), which is where its speed comes from.
It is also shown the *direction* in which the surrogates' gradients go at the lettered image
(``methods.strong.first_direction``). Its sign is a texture by itself (Goodfellow et al. 2015): training begins
there.

Its file is safetensors: float16 weights; the header holds ``format``, ``channels``, ``tasks``, ``profiles`` and
``version``. Nothing in such a file is executable.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from gateway.errors import MarkError
from gateway.mark.device import channels_last
from gateway.mark.randomness import keyed
from gateway.mark.surrogates.store import write_whole

FORMAT = "miad-mark-generator"
VERSION = 2
COARSE = 2
"""Side in pixels of the squares that share one value of the texture."""
BLOCK = 4
"""Side of the blocks that the network works on, in such squares."""
KEY_BITS = 256
WIDTHS = (64, 96, 128)
"""Feature channels at 1/8, 1/16 and 1/32 of the image's side."""
_MULTIPLE = COARSE * BLOCK * 2 ** (len(WIDTHS) - 1)
GAIN = 2.0
"""Root mean square of what the final tanh gets: textures use most of their amplitude, and still can learn."""
MOST_DIRECTION = 3.0
"""The direction is shown in units of its mean size per image, cut at this."""
_EMBEDDING = 128


def key_bits(key: bytes) -> np.ndarray:
    """Return the (256,) float32 of -1 and 1 that a mark key (32 bytes) turns the network with.

    Drawn from the key, not the key's own bits: what a texture tells about them tells nothing about the key.
    """
    return keyed(key, "generator").choice(np.array([-1.0, 1.0], np.float32), KEY_BITS)


class FilmBlock(nn.Module):
    """3x3 convolution, group norm, FiLM, SiLU, and the input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, width, affine=False)
        self.film = nn.Linear(_EMBEDDING, 2 * width)
        nn.init.normal_(self.film.weight, std=0.06)  # keys must differ from the first step on
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, key: Tensor) -> Tensor:
        """Return (B, width, h, w) for features ``x`` of that shape and the embedded ``key`` (B, 128)."""
        scale, shift = self.film(key)[:, :, None, None].chunk(2, 1)
        return x + functional.silu(self.norm(self.conv(x)) * (1.0 + scale) + shift)


class TextureNet(nn.Module):
    """The generator's network.

    Parameters
    ----------
    channels
        samples per pixel of the images, 1 or 3.

    Raises
    ------
    ValueError
        another number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"no generator for {channels} channels")
        self.channels = channels
        first, second, third = WIDTHS
        self.key = nn.Sequential(nn.Linear(KEY_BITS, _EMBEDDING), nn.SiLU(), nn.Linear(_EMBEDDING, _EMBEDDING))
        self.stem = nn.Conv2d((2 * channels + 2) * BLOCK**2, first, 3, padding=1)
        self.fine_in, self.fine_out = FilmBlock(first), FilmBlock(first)
        self.down = nn.Conv2d(first, second, 2, 2)
        self.middle_in, self.middle_out = FilmBlock(second), FilmBlock(second)
        self.deeper = nn.Conv2d(second, third, 2, 2)
        self.deep = nn.ModuleList(FilmBlock(third) for _ in range(3))
        self.up_deep = nn.Conv2d(third, second, 1)
        self.up_middle = nn.Conv2d(second, first, 1)
        self.head = nn.Conv2d(first, channels * BLOCK**2, 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.01)  # training begins with the direction's sign
        nn.init.zeros_(self.head.get_parameter("bias"))
        self.follow = nn.Parameter(torch.ones(()))

    def forward(self, clean: Tensor, amplitude: Tensor, offset: Tensor, bits: Tensor, direction: Tensor) -> Tensor:
        """Return the texture (B, C, h, w) in -1..1.

        Parameters
        ----------
        clean
            (B, C, h, w) float32 in 0..1, display space; h and w at least 32, any size.
        amplitude
            (B, 1, h, w) float32 >= 0, display units.
        offset
            (B, 1, h, w) float32, display units.
        bits
            (B, 256) float32 of -1 and 1, from ``key_bits``.
        direction
            (B, C, h, w) float32, any unit; 0 where nothing is known.
        """
        height, width = clean.shape[2:]
        # The root brings amplitudes outside strokes (about 0.01) near those inside (about 0.1).
        size = direction.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-12)
        direction = (direction / size).clamp(-MOST_DIRECTION, MOST_DIRECTION)
        seen = torch.cat([2.0 * clean - 1.0, 3.0 * amplitude.clamp(min=0.0).sqrt(), 4.0 * offset, direction], 1)
        seen = functional.pad(seen, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE), mode="replicate")
        key = self.key(bits)
        x = functional.pixel_unshuffle(functional.avg_pool2d(seen, COARSE), BLOCK).contiguous(
            memory_format=torch.channels_last
        )
        fine = self.fine_in(functional.silu(self.stem(x)), key)
        middle = self.middle_in(self.down(fine), key)
        deep = self.deeper(middle)
        for block in self.deep:
            deep = block(deep, key)
        middle = self.middle_out(middle + _twice(self.up_deep(deep)), key)
        fine = self.fine_out(fine + _twice(self.up_middle(middle)), key)
        texture = functional.pixel_shuffle(self.head(fine), BLOCK)
        texture = texture + self.follow * functional.avg_pool2d(seen[:, -self.channels :], COARSE).sign()
        # Mean 0 and a fixed size per image: without it training drives the tanh into its flat ends within 100 steps.
        texture = texture - texture.mean((1, 2, 3), keepdim=True)
        size = texture.square().mean((1, 2, 3), keepdim=True).sqrt()
        return _twice(torch.tanh(GAIN * texture / size.clamp(min=1e-6)))[:, :, :height, :width]


def _twice(x: Tensor) -> Tensor:
    """Return ``x`` with every position repeated 2x2: copies only, hence deterministic in both directions."""
    count, channels, height, width = x.shape
    x = x[:, :, :, None, :, None].expand(count, channels, height, 2, width, 2)
    return x.reshape(count, channels, 2 * height, 2 * width)


@dataclass(frozen=True)
class Generator:
    """One loaded generator.

    Attributes
    ----------
    name
        of its file, for messages.
    net
        in evaluation mode, without parameter gradients.
    tasks
        heads that it was trained to mislead.
    profiles
        names of the modality profiles that it was trained for.
    """

    name: str
    net: TextureNet
    tasks: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


def generate_texture(
    generator: Generator,
    clean: Tensor,
    amplitude: Tensor,
    offset: Tensor,
    keys: Sequence[bytes],
    direction: Tensor,
    constrain: Callable[[Tensor], Tensor] = lambda texture: texture,
) -> Tensor:
    """Return the texture (B, C, h, w) in -1..1 that the generator draws.

    Parameters
    ----------
    generator
        for images of C channels.
    clean
        (B, C, h, w) float32 in 0..1, display space at working resolution.
    amplitude
        (B, 1, h, w) float32 >= 0, display units.
    offset
        (B, 1, h, w) float32, display units.
    keys
        one mark key (32 bytes) per image.
    direction
        (B, C, h, w) float32, from ``first_direction``; zeros where there are no surrogates.
    constrain
        puts a texture back where it may be (colour).

    Raises
    ------
    MarkError
        ``generator-nan`` when the network gives a value that is not finite.
    """
    bits = torch.from_numpy(np.stack([key_bits(key) for key in keys])).to(clean.device)
    with torch.no_grad():
        texture = generator.net(clean, amplitude, offset, bits, direction)
    if not bool(torch.isfinite(texture).all()):
        raise MarkError("generator-nan", f"generator {generator.name} gives values that are not finite")
    return constrain(texture)


def save_generator(
    net: TextureNet,
    path: Path,
    tasks: Sequence[str] = (),
    profiles: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write ``net`` to ``path`` (replaced when it exists), weights as float16.

    Parameters
    ----------
    net
        the network; its weights may be on any device.
    path
        target file.
    tasks
        heads that it was trained to mislead.
    profiles
        names of the modality profiles that it was trained for.
    extra
        more header metadata, all strings.
    """
    tensors = {name: value.half().cpu().contiguous() for name, value in net.state_dict().items()}
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "channels": str(net.channels),
        "tasks": json.dumps(list(tasks)),
        "profiles": json.dumps(list(profiles)),
    }
    write_whole(path, tensors, {**dict(extra or {}), **header})


def load_generator(path: Path, device: torch.device) -> Generator:
    """Return the generator of ``path`` (float32, no parameter gradients).

    Raises
    ------
    MarkError
        ``weights-corrupt`` when the file is missing, damaged, of another format or version, or does not fit
        its own description.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT or header.get("version") != str(VERSION):
                raise ValueError("it is not a generator file of this version (miad-gateway train-mark writes them)")
            net = TextureNet(int(header["channels"]))
            tasks, profiles = (tuple(map(str, json.loads(header[name]))) for name in ("tasks", "profiles"))
            net.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise MarkError("weights-corrupt", f"generator {path.name} cannot be used: {error}") from error
    net.eval().requires_grad_(False)
    return Generator(path.name, channels_last(net, device), tasks, profiles)
