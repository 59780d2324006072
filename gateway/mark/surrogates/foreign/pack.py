"""``SitePack``: the networks of a pack description, loaded and tried before anything depends on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from gateway.errors import ConfigError, MarkError
from gateway.mark.surrogates.foreign import xray
from gateway.mark.surrogates.foreign.description import ModelDescription, PackDescription, read_description
from gateway.mark.surrogates.foreign.files import require_file
from gateway.mark.surrogates.foreign.monai import load_monai
from gateway.mark.surrogates.foreign.network import ForeignNet
from gateway.mark.surrogates.foreign.onnx import load_onnx
from gateway.mark.surrogates.foreign.torchscript import load_torchscript
from gateway.mark.surrogates.nets import RESERVED
from gateway.mark.surrogates.packs import Surrogate, SurrogatePack
from gateway.mark.surrogates.store import load_net


@dataclass(frozen=True)
class SitePack(SurrogatePack):
    """A surrogate pack of the site's own networks.

    Attributes
    ----------
    models
        the networks; ``files`` holds their absolute paths in the same order.
    """

    models: tuple[ModelDescription, ...] = ()

    def load(self, device: torch.device) -> tuple[Surrogate, ...]:
        """Return the pack's networks on ``device``, each tried once.

        Raises
        ------
        MarkError
            with the codes of ``check``.
        """
        try:
            return self.check(device)
        except ConfigError as error:
            raise MarkError(error.code, error.message, error.hint) from None

    def check(self, device: torch.device | str = "cpu") -> tuple[Surrogate, ...]:
        """Load and try every network, as the worker will.

        Raises
        ------
        ConfigError
            ``weights-missing``, ``weights-corrupt``, ``extra-missing``, ``bad-architecture``,
            ``unsupported-operator``, ``no-layer``, ``reserved-family``; and from the trial ``wrong-channels``,
            ``wrong-output``, ``surrogate-nan``, ``no-gradient``.
        """
        where = torch.device(device)
        members = []
        for model, path in zip(self.models, self.files, strict=True):
            member = self._member(model, path, where)
            _try(member, self.channels, where)
            members.append(member)
        return tuple(members)

    def _member(self, model: ModelDescription, path: Path, device: torch.device) -> Surrogate:
        name = f"{self.name}/{model.label}"
        if model.format == "miad":
            require_file(path)
            try:
                net, size = load_net(path, device)
            except MarkError as error:
                raise ConfigError(error.code, error.message) from None
            if net.shared:
                net.channels = self.channels
            if net.channels != self.channels:
                message = f"{path.name} has {net.channels} channels, the pack {self.channels}"
                raise ConfigError("wrong-channels", message)
            if net.family in RESERVED:
                message = f"{path.name}: family {net.family} is kept for the evaluation and cannot be a surrogate"
                raise ConfigError("reserved-family", message)
            return Surrogate(name, net, size, any_task=True)
        foreign = _foreign(model, path, self.channels)
        return Surrogate(name, foreign.eval().to(device), foreign.input_size, any_task=True)


def read_pack(path: Path, name: str) -> SitePack:
    """Return the pack that the description ``path`` describes, under ``name``; weights are not read yet.

    Raises
    ------
    ConfigError
        ``pack-missing``, ``bad-pack`` (``read_description``).
    """
    description: PackDescription = read_description(path)
    folder = path.absolute().parent
    return SitePack(
        name=name,
        channels=description.channels,
        files=tuple(folder / model.file.expanduser() for model in description.models),
        card=folder / (description.card or path.name),
        licence_warning=description.licence_warning,
        models=description.models,
    )


def read_packs(named: Mapping[str, Path], taken: Iterable[str] = ()) -> list[SitePack]:
    """Return the packs of a configuration: name -> description file.

    Parameters
    ----------
    named
        the site's packs.
    taken
        names of installed packs.

    Raises
    ------
    ConfigError
        those of ``read_pack``, and ``pack-name-taken``.
    """
    for name in named:
        if name in set(taken):
            raise ConfigError("pack-name-taken", f"a surrogate pack {name!r} is installed", "choose another name")
    return [read_pack(path, name) for name, path in named.items()]


def _foreign(model: ModelDescription, path: Path, channels: int) -> ForeignNet:
    """Load one network of a foreign format, on the CPU."""
    if model.format == "torchxrayvision":
        loaded = xray.load_xray(model, path)
        own = {"range": xray.RANGE, "output": "multilabel-logits", "layer": model.layer or xray.MIDDLE}
        described = model.model_copy(update=own)
        return ForeignNet(loaded.model, described, channels, loaded.size, loaded.classes)
    if model.format == "monai":
        module = load_monai(model, path)
    else:
        module = load_onnx(path) if model.format == "onnx" else load_torchscript(path)
    return ForeignNet(module, model, channels, model.input_size or 0, model.classes)


def _try(member: Surrogate, channels: int, device: torch.device) -> None:
    """Show two pictures to a network: its output must have the described shape, be finite, and have a gradient."""
    side = member.input_size
    ramp = torch.linspace(0.0, 1.0, side, device=device)
    pictures = torch.stack([ramp.expand(side, side), ramp.expand(side, side).T]).unsqueeze(1)
    pictures = pictures.repeat(1, channels, 1, 1).requires_grad_(True)
    try:
        output = member.net(pictures)
        total = torch.stack([logits.square().sum() for logits in output.logits.values()]).sum()
        (gradient,) = torch.autograd.grad(total, pictures)
    except MarkError as error:
        raise ConfigError(error.code, error.message, error.hint) from None
    except RuntimeError as error:
        # torch names shapes, sizes and operators; nothing of a patient is in these pictures
        said = " ".join(str(error).split())[-300:]
        wrong = "channels" in said or "to have" in said
        code = "no-gradient" if "grad" in said else ("wrong-channels" if wrong else "wrong-output")
        message = f"{member.name} does not take {channels}-channel pictures of {side} px: {said}"
        hint = "see input_channels and input_size in the pack description"
        raise ConfigError(code, message, hint) from None
    for task, logits in output.logits.items():
        if not bool(torch.isfinite(logits).all()):
            raise ConfigError("surrogate-nan", f"{member.name}, task {task}: its output is not finite")
    if not bool(torch.isfinite(gradient).all()):
        raise ConfigError("surrogate-nan", f"{member.name}: its gradient is not finite")
    if not bool(gradient.any()):
        message = f"{member.name}: no gradient reaches the picture, so no mark can be optimised against it"
        raise ConfigError("no-gradient", message, "export the network unquantised and before any rounding")
