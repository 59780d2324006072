"""Small real networks in every foreign format, written as a site would export them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

CLASSES = '["none", "lesion"]'


class Classifier(nn.Module):
    """Two convolutions with fixed random weights and a linear head; sees 64 px, one channel, two classes."""

    def __init__(self, channels: int = 1, outputs: int = 2, probabilities: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(channels, 8, 5, stride=2, padding=2)
        self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.head = nn.Linear(12, outputs)
        self.probabilities = probabilities
        with torch.no_grad():
            self.first.weight.mul_(3.0)
            self.head.weight.mul_(8.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs)."""
        x = torch.relu(self.second(torch.relu(self.first(x))))
        logits = self.head(x.mean((2, 3)))
        return logits.softmax(1) if self.probabilities else logits


def write_torchscript(path: Path, model: nn.Module | None = None, channels: int = 1) -> None:
    """Trace the classifier (or ``model``) and save it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace((model or Classifier(channels)).eval(), torch.rand(2, channels, 64, 64)).save(str(path))


def write_onnx(path: Path, operator: str = "Relu") -> None:
    """The classifier as an ONNX graph (operator set 17), put together node by node."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = Classifier()
    weights = {name.replace(".", "_"): value.detach().numpy() for name, value in model.named_parameters()}
    weights["head_weight"] = np.ascontiguousarray(weights["head_weight"].T)
    nodes = [
        helper.make_node("Conv", ["x", "first_weight", "first_bias"], ["a"], "one", strides=[2, 2], pads=[2] * 4),
        helper.make_node(operator, ["a"], ["b"], "two"),
        helper.make_node("Conv", ["b", "second_weight", "second_bias"], ["c"], "three", strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"], "four"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "five"),
        helper.make_node("Flatten", ["e"], ["f"], "six"),
        helper.make_node("Gemm", ["f", "head_weight", "head_bias"], ["y"], "seven"),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


MONAI = """
architecture = "DenseNet"
layer = "features.denseblock1"
[models.arguments]
spatial_dims = 2
in_channels = 1
out_channels = 2
init_features = 8
growth_rate = 8
block_config = [2, 2]
"""


def write_monai(path: Path) -> None:
    """Weights of a small MONAI DenseNet as safetensors."""
    from monai.networks.nets import DenseNet
    from safetensors.torch import save_file

    torch.manual_seed(4)
    model = DenseNet(2, 1, 2, init_features=8, growth_rate=8, block_config=(2, 2))
    with torch.no_grad():
        model.class_layers.out.weight.mul_(30.0)  # logits as far apart as those of a trained network
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, str(path))


def describe(folder: Path, body: str, channels: int = 1) -> Path:
    """Write a pack description with one ``[[models]]`` table and return its path."""
    path = folder / "pack.toml"
    path.write_text(f"channels = {channels}\n[[models]]\n{body}\n", "utf-8")
    return path


def plain(kind: str, file: str, more: str = "") -> str:
    """The keys of a 64 px network for the task "lesion"."""
    return f'format = "{kind}"\nfile = "{file}"\ntask = "lesion"\nclasses = {CLASSES}\ninput_size = 64\n{more}'


def packs(folder: Path) -> dict[str, Path]:
    """Write one pack per format that needs no torchvision; format -> description."""
    made = {}
    for kind, write, more in (
        ("torchscript", write_torchscript, "mean = [0.4]\nstd = [0.3]"),
        ("onnx", write_onnx, 'layer = "three"'),
        ("monai", write_monai, MONAI),
    ):
        place = folder / kind
        place.mkdir()
        name = "net.safetensors" if kind == "monai" else "net.bin"
        write(place / name)
        made[kind] = describe(place, plain(kind, name, more))
    return made
