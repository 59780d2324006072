"""Generator packs: trained texture networks, plug-ins of group ``miad_gateway.generators``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import torch

from gateway.errors import ConfigError, MarkError
from gateway.mark.methods.generator_net import Generator, load_generator
from gateway.mark.types import ModalityProfile

GROUP = "miad_gateway.generators"


@dataclass(frozen=True)
class GeneratorPack:
    """One generator for images of one channel count.

    Attributes
    ----------
    name
        as its entry point.
    channels
        1 or 3.
    file
        safetensors (format: ``gateway.mark.methods.generator_net``).
    card
        the model card (Markdown): data, split, licence, figures.
    licence_warning
        logged at start when not empty.
    profiles
        modality profiles that it is for; empty: any.
    """

    name: str
    channels: int
    file: Path
    card: Path
    licence_warning: str = ""
    profiles: tuple[str, ...] = ()

    def load(self, device: torch.device) -> Generator:
        """Return the generator on ``device``.

        Raises
        ------
        MarkError
            ``weights-corrupt`` for a missing or damaged file or one with another channel count.
        """
        return _load(self.file, self.channels, device)


def load_generator_packs() -> dict[str, GeneratorPack]:
    """Return the installed packs by name (without loading weights); empty when none is installed.

    Raises
    ------
    ConfigError
        ``bad-pack`` when an entry point is no pack.
    """
    packs: dict[str, GeneratorPack] = {}
    for entry in entry_points(group=GROUP):
        pack = entry.load()
        if not isinstance(pack, GeneratorPack) or pack.name != entry.name:
            raise ConfigError("bad-pack", f"entry point {entry.name!r} of {GROUP} gives no generator pack of that name")
        packs[pack.name] = pack
    return packs


def select_generator_pack(offered: Iterable[GeneratorPack], profile: str, channels: int) -> GeneratorPack:
    """Return the pack for a profile: one that names it, else one that is for any.

    Raises
    ------
    MarkError
        ``no-generator`` when there is none for this channel count and profile.
    """
    fitting = [
        pack for pack in offered if pack.channels == channels and (not pack.profiles or profile in pack.profiles)
    ]
    if not fitting:
        raise _none_for(profile, channels)
    return max(fitting, key=lambda pack: bool(pack.profiles))


class GeneratorLoader:
    """The generators of one marker: each is read once.

    Parameters
    ----------
    packs
        to choose from.
    file
        a generator file that stands for all packs; None: packs only.
    device
        where the networks run.
    """

    def __init__(self, packs: Iterable[GeneratorPack], file: Path | None, device: torch.device) -> None:
        self._packs, self._file, self._device = list(packs), file, device
        self._loaded: dict[Path, Generator] = {}

    def get(self, profile: ModalityProfile, channels: int) -> Generator:
        """Return the generator for images of a profile.

        Raises
        ------
        MarkError
            ``no-generator`` when there is none, ``weights-corrupt`` for a file that cannot be used.
        """
        if self._file is None:
            pack = select_generator_pack(self._packs, profile.name, channels)
            return self._once(pack.file, pack.channels)
        found = self._once(self._file, None)
        if found.net.channels != channels:
            raise _none_for(profile.name, channels, f"{self._file.name} is for {found.net.channels} channel(s)")
        return found

    def licence_warnings(self, profile: ModalityProfile) -> list[str]:
        """Return the warnings of the packs that images of this profile would use."""
        if self._file is not None:
            return []
        chosen = []
        for channels in profile.channels:
            try:
                chosen.append(select_generator_pack(self._packs, profile.name, channels))
            except MarkError:  # told when such an image comes
                continue
        return [pack.licence_warning for pack in chosen if pack.licence_warning]

    def _once(self, path: Path, channels: int | None) -> Generator:
        if path not in self._loaded:
            self._loaded[path] = _load(path, channels, self._device)
        return self._loaded[path]


def _load(path: Path, channels: int | None, device: torch.device) -> Generator:
    found = load_generator(path, device)
    if channels is not None and found.net.channels != channels:
        raise MarkError("weights-corrupt", f"{path.name} has {found.net.channels} channels, its pack {channels}")
    return found


def _none_for(profile: str, channels: int, why: str = "") -> MarkError:
    message = f"no generator for {channels}-channel images of profile {profile}" + (f": {why}" if why else "")
    hint = 'train one with miad-gateway train-mark and name its file (mark.generator), or use mode = "strong"'
    return MarkError("no-generator", message, hint)
