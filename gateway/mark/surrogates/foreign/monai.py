"""Networks of MONAI (extra ``monai``): class and keyword arguments from the description, weights from a file.

The architectures are those of ``monai.networks.nets``; with ``spatial_dims = 2`` they take pictures.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from torch import nn

from gateway.errors import ConfigError
from gateway.mark.surrogates.foreign.description import ModelDescription
from gateway.mark.surrogates.foreign.files import fill, load_weights, missing_extra


def load_monai(description: ModelDescription, path: Path) -> nn.Module:
    """Return the described network with the weights of ``path`` (safetensors, or a state dict of ``torch.save``).

    Raises
    ------
    ConfigError
        ``extra-missing``; ``bad-architecture`` for an unknown class or wrong arguments;
        ``weights-missing``, ``weights-corrupt``.
    """
    try:
        nets = importlib.import_module("monai.networks.nets")
    except ImportError as error:
        raise missing_extra("monai", error) from None
    kind = getattr(nets, description.architecture, None)
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        message = f"{description.label}: monai.networks.nets has no network {description.architecture!r}"
        raise ConfigError("bad-architecture", message)
    if not inspect.signature(kind).parameters.keys() >= description.arguments.keys() and not _takes_any(kind):
        unknown = ", ".join(sorted(description.arguments.keys() - inspect.signature(kind).parameters.keys()))
        raise ConfigError("bad-architecture", f"{description.label}: {description.architecture} takes no {unknown}")
    try:
        model = kind(**description.arguments)
    except Exception as error:  # an architecture may refuse its arguments in any way
        message = f"{description.label}: {description.architecture} does not take these arguments: {error}"
        raise ConfigError("bad-architecture", message) from None
    return fill(model, load_weights(path), path)


def _takes_any(kind: type) -> bool:
    kinds = {parameter.kind for parameter in inspect.signature(kind).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds
