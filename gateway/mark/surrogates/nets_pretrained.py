"""Families with ImageNet weights that packages carry: MobileNetV2, SqueezeNet 1.1, ResNet-50-thin, VGG16.

Their stems have three channels (gray images are repeated to three), and their first layer is the preparation that the
weights were made with. Where the weights come from: ``gateway.training.sources``. A builder returns the lower half, the
upper half, and the number of pooled features.

Sources: MobileNetV2 (Sandler et al. 2018), SqueezeNet (Iandola et al. 2016, version 1.1), ResNet-50 with half the
channels and the stride in the first convolution of a block (He et al. 2016, as in Caffe), VGG16 (Simonyan and Zisserman
2015); written anew for these weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gateway.mark.surrogates.nets_small import Built

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's RGB in 0..1."""
CAFFE_BGR = ((104.0 / 255, 117.0 / 255, 123.0 / 255), (1.0 / 255,) * 3)
"""Mean and unit of Caffe's BGR, as shares of 255."""


class Prepare(nn.Module):
    """From -1..1 RGB to what pretrained weights expect: (value in 0..1 - mean) / deviation, channels turned for BGR.

    Parameters
    ----------
    mean
        per channel, in the order of the weights.
    deviation
        likewise.
    bgr
        whether the weights' first channel is blue.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], deviation: Sequence[float], bgr: bool = False) -> None:
        super().__init__()
        mean_, deviation_ = torch.tensor(mean), torch.tensor(deviation)
        self.bgr = bgr
        self.register_buffer("scale", (0.5 / deviation_)[:, None, None], persistent=False)
        self.register_buffer("shift", ((0.5 - mean_) / deviation_)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the prepared images for ``x`` (N, 3, h, w)."""
        return (x.flip(1) if self.bgr else x) * self.scale + self.shift


class LinearBottleneck(nn.Module):
    """MobileNetV2 block with symmetric padding: expansion, depthwise convolution, linear projection, identity."""

    def __init__(self, n_in: int, n_out: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = n_in * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers += [nn.Conv2d(n_in, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [nn.Conv2d(wide, n_out, 1, bias=False), nn.BatchNorm2d(n_out)]
        self.layers = nn.Sequential(*layers)
        self.identity = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for ``x`` (N, n_in, h, w)."""
        return x + self.layers(x) if self.identity else self.layers(x)


class Fire(nn.Module):
    """SqueezeNet's block: few 1x1 filters, then 1x1 and 3x3 filters side by side, each followed by ReLU."""

    def __init__(self, n_in: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(n_in, squeeze, 1)
        self.point, self.square = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 2 * expand, h, w) for ``x`` (N, n_in, h, w)."""
        narrow = functional.relu(self.squeeze(x))
        return functional.relu(torch.cat([self.point(narrow), self.square(narrow)], 1))


class Bottleneck(nn.Module):
    """ResNet-50's block without norms (they are folded into the weights), stride in the first convolution."""

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        same = stride == 1 and n_in == 4 * width
        self.shortcut = nn.Identity() if same else nn.Conv2d(n_in, 4 * width, 1, stride)
        self.layers = nn.Sequential(
            nn.Conv2d(n_in, width, 1, stride),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for ``x`` (N, n_in, h, w)."""
        return functional.relu(self.shortcut(x) + self.layers(x))


def _mobilenetv2(channels: int) -> Built:
    # expansion, output channels, repeats, stride
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    lower: list[nn.Module] = [Prepare(*IMAGENET), nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    upper: list[nn.Module] = []
    n = 32
    for index, (expand, n_out, repeats, stride) in enumerate(stages):
        for number in range(repeats):
            (lower if index < 4 else upper).append(LinearBottleneck(n, n_out, 1 if number else stride, expand))
            n = n_out
    upper += [nn.Conv2d(n, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
    return nn.Sequential(*lower), nn.Sequential(*upper), 1280


def _squeezenet(channels: int) -> Built:
    lower = [Prepare(*CAFFE_BGR, bgr=True), nn.Conv2d(3, 64, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    lower += [Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2), Fire(128, 32, 128), Fire(256, 32, 128)]
    upper = [nn.MaxPool2d(3, 2), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
    return nn.Sequential(*lower), nn.Sequential(*upper), 512


def _resnet50_thin(channels: int) -> Built:
    """Pools like TensorFlow: where a side is even, one row of padding at the far end (zeros, as after ReLU)."""
    stem = [Prepare(*CAFFE_BGR, bgr=True), nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1))]
    lower: list[nn.Module] = [*stem, nn.MaxPool2d(3, 2)]
    upper: list[nn.Module] = []
    n = 64
    for stage, (width, repeats) in enumerate(((32, 3), (64, 4), (128, 6), (256, 3))):
        for number in range(repeats):
            block = Bottleneck(n, width, 2 if stage and not number else 1)
            (lower if stage < 2 else upper).append(block)
            n = 4 * width
    return nn.Sequential(*lower), nn.Sequential(*upper), n


def _vgg16(channels: int) -> Built:
    """Without the last pooling, which the mean over positions replaces."""
    layers: list[nn.Module] = [Prepare(*CAFFE_BGR, bgr=True)]
    n, half = 3, 0
    for block, (width, repeats) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers += [nn.MaxPool2d(2)] if block else []
        for _ in range(repeats):
            layers += [nn.Conv2d(n, width, 3, padding=1), nn.ReLU()]
            n = width
        half = len(layers) if block < 3 else half
    return nn.Sequential(*layers[:half]), nn.Sequential(*layers[half:]), n


PRETRAINED: dict[str, Callable[[int], Built]] = {
    "mobilenetv2": _mobilenetv2,
    "squeezenet": _squeezenet,
    "resnet50-thin": _resnet50_thin,
    "vgg16": _vgg16,
}
"""Family name -> builder."""
