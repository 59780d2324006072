"""Surrogates in 16-bit floats, where the processor computes in them and the network gains by it.

Convolutions over all channels take about half of the time then, forth and back. Those over one channel each (MobileNet,
EfficientNet) gain only where no gradient is asked for, and stay as they are where one is. Nothing but gradients and
answers that lead a mark is computed so: no stored value is.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from gateway.mark.device import computes_in_bfloat16
from gateway.mark.surrogates.nets import MultiTaskNet, NetOutput
from gateway.mark.surrogates.packs import Surrogate


def halved(member: Surrogate, device: torch.device) -> Surrogate:
    """Return the surrogate in bfloat16 where that is faster, else itself."""
    net = member.net
    if not isinstance(net, MultiTaskNet) or not computes_in_bfloat16(device):
        return member
    if any(isinstance(layer, nn.LayerNorm) for layer in net.modules()):
        return member
    return replace(member, net=HalfNet(net))


class HalfNet:
    """A network whose backbone computes in bfloat16 and whose heads in float32; ``packs.Network``.

    Parameters
    ----------
    net
        in evaluation mode; it stays as it is.
    """

    def __init__(self, net: MultiTaskNet) -> None:
        self.channels, self.tasks = net.channels, net.tasks
        self._whole, self._half = net, copy.deepcopy(net)
        for part in (self._half.lower, self._half.upper):
            part.to(torch.bfloat16)
        self._leads_back = all(layer.groups == 1 for layer in net.modules() if isinstance(layer, nn.Conv2d))

    def __call__(self, images: Tensor) -> NetOutput:
        """Return float32 logits and middle feature map for float32 images (N, channels, h, w) in 0..1."""
        net = self._half
        if images.requires_grad and torch.is_grad_enabled() and not self._leads_back:
            output: NetOutput = self._whole(images)
            return output
        middle = net.lower(net.prepared(images).bfloat16())
        pooled = net.upper(middle).float().mean((2, 3))
        return NetOutput({task: head(pooled) for task, head in net.heads.items()}, middle.float())
