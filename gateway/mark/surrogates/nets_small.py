"""Networks that are trained from scratch at small sizes, and EfficientNet-Lite: blocks and builders.

A builder takes the number of channels of the images and returns the lower half, the upper half, and the number of
pooled features.

Sources: EfficientNet-Lite (Tan and Le 2019, the variant without squeeze-excite and with ReLU6), VGG (Simonyan and
Zisserman 2015), MobileNetV2 (Sandler et al. 2018), ConvNeXt (Liu et al. 2022), ResNet (He et al. 2016), DenseNet (Huang
et al. 2017), ViT (Dosovitskiy et al. 2021) with a convolutional stem (Xiao et al. 2021); written anew here, smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Built = tuple[nn.Sequential, nn.Sequential, int]
"""Lower half, upper half, pooled features."""


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding (asymmetric for stride 2), as the ImageNet weights expect."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of ``x`` (N, C, h, w); output sides are ceil(side / stride)."""
        pads: list[int] = []
        for axis in (3, 2):
            side, kernel, stride = x.shape[axis], self.kernel_size[axis - 2], self.stride[axis - 2]
            total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            pads += [total // 2, total - total // 2]
        return self._conv_forward(functional.pad(x, pads) if any(pads) else x, self.weight, self.bias)


class InvertedBlock(nn.Module):
    """MobileNetV2 block: 1x1 expansion, depthwise convolution, linear 1x1 projection, identity where shapes agree."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, expand: int, eps: float = 1e-3) -> None:
        super().__init__()
        wide = n_in * expand
        layers: list[nn.Module] = []
        if expand != 1:
            layers += [SameConv2d(n_in, wide, 1, bias=False), nn.BatchNorm2d(wide, eps=eps), nn.ReLU6()]
        layers += [
            SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False),
            nn.BatchNorm2d(wide, eps=eps),
            nn.ReLU6(),
            SameConv2d(wide, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out, eps=eps),
        ]
        self.layers = nn.Sequential(*layers)
        self.identity = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for ``x`` (N, n_in, h, w)."""
        return x + self.layers(x) if self.identity else self.layers(x)


class ResidualBlock(nn.Module):
    """Basic ResNet block of two 3x3 convolutions with a projected shortcut where shapes differ."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        same = stride == 1 and n_in == n_out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for ``x`` (N, n_in, h, w)."""
        return functional.relu(self.shortcut(x) + self.layers(x))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a feature map (N, C, h, w), at every position on its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, C, h, w) with mean 0 and variance 1 over C, then scaled and shifted per channel."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """ConvNeXt block: 7x7 depthwise convolution, layer norm, 1x1 expansion by four, GELU, 1x1 projection, identity."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(n, n, 7, padding=3, groups=n),
            ChannelNorm(n, eps=1e-6),
            nn.Conv2d(n, 4 * n, 1),
            nn.GELU(),
            nn.Conv2d(4 * n, n, 1),
        )
        self.scale = nn.Parameter(torch.full((n, 1, 1), 0.1))  # the paper's 1e-6 is for nets ten times as deep

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for ``x`` (N, n, h, w)."""
        return x + self.scale * self.layers(x)


class DenseLayer(nn.Module):
    """DenseNet-B layer: norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution; its maps are joined to its input."""

    def __init__(self, n_in: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(n_in),
            nn.ReLU(),
            nn.Conv2d(n_in, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, n_in + growth, h, w) for ``x`` (N, n_in, h, w)."""
        return torch.cat([x, self.layers(x)], 1)


class PositionEmbedding(nn.Module):
    """Learned position of every patch on a ``side`` x ``side`` grid, interpolated to the grid of the image at hand."""

    def __init__(self, n: int, side: int) -> None:
        super().__init__()
        self.grid = nn.Parameter(torch.randn(1, n, side, side) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, n, h', w') plus the positions."""
        if x.shape[2:] == self.grid.shape[2:]:
            return x + self.grid
        return x + functional.interpolate(self.grid, x.shape[2:], mode="bilinear", align_corners=False)


class TransformerBlock(nn.Module):
    """Pre-norm transformer block (self-attention, then a two-layer perceptron) on a grid of patches (N, n, h', w')."""

    def __init__(self, n: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(n)
        self.qkv, self.project = nn.Linear(n, 3 * n), nn.Linear(n, n)
        self.perceptron = nn.Sequential(nn.LayerNorm(n), nn.Linear(n, 3 * n), nn.GELU(), nn.Linear(3 * n, n))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output for ``x`` (N, n, h', w')."""
        count, n, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm(tokens)).view(count, height * width, 3, self.heads, n // self.heads)
        mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        tokens = tokens + self.project(mixed.transpose(1, 2).flatten(2))
        tokens = tokens + self.perceptron(tokens)
        return tokens.transpose(1, 2).view(count, n, height, width)


def _conv_bn_relu(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]


def _efficientnet_lite(depth: float, channels: int) -> Built:
    """EfficientNet-Lite0 (depth 1.0) or Lite1 (1.1), stem and head unscaled; always three input channels."""
    # repeats, kernel, stride, expansion, output channels (EfficientNet-B0's stages)
    stages = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    lower: list[nn.Module] = [SameConv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=1e-3), nn.ReLU6()]
    upper: list[nn.Module] = []
    n_in = 32
    for index, (repeats, kernel, stride, expand, n_out) in enumerate(stages):
        fixed = index in (0, len(stages) - 1)
        for number in range(repeats if fixed else math.ceil(repeats * depth)):
            block = InvertedBlock(n_in, n_out, kernel, stride if number == 0 else 1, expand)
            (lower if index < 4 else upper).append(block)
            n_in = n_out
    upper += [SameConv2d(n_in, 1280, 1, bias=False), nn.BatchNorm2d(1280, eps=1e-3), nn.ReLU6()]
    return nn.Sequential(*lower), nn.Sequential(*upper), 1280


def _vgg(channels: int) -> Built:
    lower = [*_conv_bn_relu(channels, 24), nn.MaxPool2d(2), *_conv_bn_relu(24, 48), nn.MaxPool2d(2)]
    lower += [*_conv_bn_relu(48, 96), *_conv_bn_relu(96, 96), nn.MaxPool2d(2)]
    upper = [*_conv_bn_relu(96, 160), *_conv_bn_relu(160, 160), nn.MaxPool2d(2), *_conv_bn_relu(160, 224)]
    return nn.Sequential(*lower), nn.Sequential(*upper), 224


def _mobile(channels: int) -> Built:
    lower = [SameConv2d(channels, 24, 3, 2, bias=False), nn.BatchNorm2d(24, eps=1e-3), nn.ReLU6()]
    lower += [InvertedBlock(24, 24, 3, 1, 2), InvertedBlock(24, 40, 3, 2, 4), InvertedBlock(40, 40, 3, 1, 4)]
    upper: list[nn.Module] = [
        InvertedBlock(40, 80, 3, 2, 4),
        InvertedBlock(80, 80, 3, 1, 4),
        InvertedBlock(80, 128, 3, 2, 4),
    ]
    upper += [InvertedBlock(128, 128, 3, 1, 4), SameConv2d(128, 256, 1, bias=False)]
    upper += [nn.BatchNorm2d(256, eps=1e-3), nn.ReLU6()]
    return nn.Sequential(*lower), nn.Sequential(*upper), 256


def _resnet(channels: int) -> Built:
    stem = [nn.Conv2d(channels, 24, 5, 2, 2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    lower = [*stem, ResidualBlock(24, 32, 1), ResidualBlock(32, 64, 2)]
    upper = [ResidualBlock(64, 112, 2), ResidualBlock(112, 192, 2)]
    return nn.Sequential(*lower), nn.Sequential(*upper), 192


def _convnext(channels: int) -> Built:
    def down(n_in: int, n_out: int) -> list[nn.Module]:
        return [ChannelNorm(n_in, eps=1e-6), nn.Conv2d(n_in, n_out, 2, 2)]

    lower = [nn.Conv2d(channels, 40, 4, 4), ChannelNorm(40, eps=1e-6), ConvNextBlock(40)]
    lower += [*down(40, 80), ConvNextBlock(80), ConvNextBlock(80)]
    upper = [*down(80, 160), *(ConvNextBlock(160) for _ in range(3))]
    upper += [*down(160, 240), ConvNextBlock(240), ChannelNorm(240, eps=1e-6)]
    return nn.Sequential(*lower), nn.Sequential(*upper), 240


def _densenet(channels: int) -> Built:
    growth, layers, n = 16, [], 32
    layers += [nn.Conv2d(channels, n, 5, 2, 2, bias=False), nn.BatchNorm2d(n), nn.ReLU(), nn.MaxPool2d(2)]
    middle = 0
    for block, depth in enumerate((4, 6, 6)):
        if block:  # transition: half the maps at half the size
            layers += [nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, n // 2, 1, bias=False), nn.AvgPool2d(2)]
            n //= 2
        layers += [DenseLayer(n + number * growth, growth) for number in range(depth)]
        n += depth * growth
        middle = len(layers) if block < 2 else middle
    layers += [nn.BatchNorm2d(n), nn.ReLU()]
    return nn.Sequential(*layers[:middle]), nn.Sequential(*layers[middle:]), n


def _vit(channels: int) -> Built:
    """Patches of 16x16 pixels through a stem of strided convolutions; six blocks, mean-pooled without class token."""
    lower, n = [], channels
    for n_out in (24, 48, 96, 160):
        lower += [nn.Conv2d(n, n_out, 3, 2, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
        n = n_out
    lower += [nn.Conv2d(n, n, 1), PositionEmbedding(n, 8), *(TransformerBlock(n, 5) for _ in range(3))]
    upper = [*(TransformerBlock(n, 5) for _ in range(3)), ChannelNorm(n)]
    return nn.Sequential(*lower), nn.Sequential(*upper), n


SMALL: dict[str, Callable[[int], Built]] = {
    "efficientnet-lite0": lambda channels: _efficientnet_lite(1.0, channels),
    "efficientnet-lite1": lambda channels: _efficientnet_lite(1.1, channels),
    "vgg": _vgg,
    "mobile": _mobile,
    "convnext": _convnext,
    "resnet": _resnet,
    "densenet": _densenet,
    "vit": _vit,
}
"""Family name -> builder."""
