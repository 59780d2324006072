"""Chest X-ray classifiers of torchxrayvision (extra ``torchxrayvision``): its DenseNets, with weights from a file.

The library's own loader downloads its weights and unpickles them as programs; here the site brings the published
file, and the restricted unpickler builds nothing but the library's DenseNet and the torch layers in it. Labels, input
size and the range -1024..1024 are the library's own. Its ResNet-50 needs torchvision: export it to TorchScript.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gateway.errors import ConfigError
from gateway.mark.surrogates.foreign.description import ModelDescription
from gateway.mark.surrogates.foreign.files import fill, load_weights, missing_extra

RANGE = (-1024.0, 1024.0)
"""What black and white are for torchxrayvision's networks (``torchxrayvision.utils.normalize``)."""
MIDDLE = "features.denseblock2"
"""Layer whose output is the middle feature map."""
_LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear, nn.Sequential)


@dataclass(frozen=True)
class XrayNet:
    """A loaded network, its outputs' names (empty: untrained), and the side of its images in pixels."""

    model: nn.Module
    classes: tuple[str, ...]
    size: int


def load_xray(description: ModelDescription, path: Path) -> XrayNet:
    """Return the described DenseNet with the weights of ``path``.

    Parameters
    ----------
    description
        ``weights`` is the library's name for them; ``arguments`` override its architecture.
    path
        the published file, or a state dict (safetensors or torch).

    Raises
    ------
    ConfigError
        ``extra-missing``; ``bad-architecture`` for another name or wrong arguments; ``weights-missing``,
        ``weights-corrupt``.
    """
    try:
        models: Any = importlib.import_module("torchxrayvision").models
    except ImportError as error:
        raise missing_extra("torchxrayvision", error) from None
    known = models.model_urls.get(description.weights)
    if known is None or not description.weights.startswith("densenet"):
        names = ", ".join(sorted(name for name in models.model_urls if name.startswith("densenet")))
        message = f"{description.label}: torchxrayvision has no DenseNet weights {description.weights!r}"
        raise ConfigError("bad-architecture", message, f"there are {names}")
    classes = description.classes or tuple(known["labels"])
    architecture = models.get_densenet_params(description.weights.split("-")[0])
    try:
        model = models.DenseNet(**{**architecture, **description.arguments, "num_classes": len(classes)})
    except TypeError as error:
        raise ConfigError("bad-architecture", f"{description.label}: {error}") from None
    own = [value for value in vars(models).values() if inspect.isclass(value) and issubclass(value, nn.Module)]
    weights = load_weights(path, [*own, *_LAYERS])
    weights = {name: value for name, value in weights.items() if name != "op_threshs"}  # thresholds move no logit
    return XrayNet(fill(model, weights, path), classes, description.input_size or known["input_resolution"])
