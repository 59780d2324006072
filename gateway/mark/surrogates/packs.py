"""Surrogate packs: the networks that a mark is optimised against, plug-ins of group ``miad_gateway.surrogates``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from gateway.errors import ConfigError, MarkError
from gateway.mark.surrogates.nets import NetOutput
from gateway.mark.surrogates.store import load_net

GROUP = "miad_gateway.surrogates"


class Network(Protocol):
    """What a surrogate's network must be (``nets.MultiTaskNet`` and ``gateway.mark.surrogates.foreign`` give it).

    Attributes
    ----------
    channels
        1 or 3, of the images.
    tasks
        task name -> class names.
    """

    channels: int
    tasks: dict[str, tuple[str, ...]]

    def __call__(self, images: Tensor) -> NetOutput:
        """Return logits and middle feature map for float32 images (N, channels, h, w) in 0..1."""
        ...


@dataclass(frozen=True)
class Surrogate:
    """One loaded network.

    Attributes
    ----------
    name
        ``pack/network``.
    net
        in evaluation mode, without parameter gradients.
    input_size
        side in pixels of the square images it was trained for.
    any_task
        of a site's own pack: all its heads are misled where none has the name of the profile's task.
    """

    name: str
    net: Network
    input_size: int
    any_task: bool = False

    def asked(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """Return the heads to mislead for a profile's ``tasks`` (empty: all heads); empty when there is none."""
        named = tuple(task for task in self.net.tasks if not tasks or task in tasks)
        return tuple(self.net.tasks) if self.any_task and not named else named


@dataclass(frozen=True)
class SurrogatePack:
    """A set of networks for images of one channel count; two packs may hold the same file.

    Attributes
    ----------
    name
        as configured, e.g. ``gray``.
    channels
        1 or 3.
    files
        safetensors files, one per network (format: ``gateway.mark.surrogates.store``).
    card
        the model card (Markdown): data, split, licence, figures.
    licence_warning
        logged at start when not empty.
    tasks
        heads that the pack asks; networks that gray and RGB images share have those of both. Empty: all of a file.
    """

    name: str
    channels: int
    files: tuple[Path, ...]
    card: Path
    licence_warning: str = ""
    tasks: tuple[str, ...] = ()

    def load(self, device: torch.device) -> tuple[Surrogate, ...]:
        """Return the pack's networks on ``device``.

        Raises
        ------
        MarkError
            ``weights-corrupt`` for a missing or damaged file, one without a head that the pack asks, or one with
            another channel count whose network does not take both.
        """
        members = []
        for path in self.files:
            net, input_size = load_net(path, device, tasks=self.tasks)
            if net.shared:
                net.channels = self.channels
            if net.channels != self.channels:
                raise MarkError("weights-corrupt", f"{path.name} has {net.channels} channels, the pack {self.channels}")
            members.append(Surrogate(f"{self.name}/{path.stem}", net, input_size))
        return tuple(members)


def load_packs() -> dict[str, SurrogatePack]:
    """Return the installed packs by name (without loading weights); empty when none is installed.

    Raises
    ------
    ConfigError
        ``bad-pack`` when an entry point is no pack.
    """
    packs: dict[str, SurrogatePack] = {}
    for entry in entry_points(group=GROUP):
        pack = entry.load()
        if not isinstance(pack, SurrogatePack) or pack.name != entry.name:
            raise ConfigError("bad-pack", f"entry point {entry.name!r} of {GROUP} gives no surrogate pack of that name")
        packs[pack.name] = pack
    return packs


def select_packs(offered: Iterable[SurrogatePack], names: Sequence[str], channels: int) -> tuple[SurrogatePack, ...]:
    """Return the packs with these names that fit images of ``channels`` samples per pixel.

    Raises
    ------
    MarkError
        ``no-surrogate`` when none of them is there.
    """
    found = tuple(pack for pack in offered if pack.name in names and pack.channels == channels)
    if not found:
        raise MarkError("no-surrogate", f"no surrogate pack for {channels}-channel images among {', '.join(names)!r}")
    return found
