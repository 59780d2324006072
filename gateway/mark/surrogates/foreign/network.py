"""``ForeignNet``: any torch module that classifies pictures, seen as one of our networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gateway.errors import ConfigError, MarkError
from gateway.mark.resample import resize
from gateway.mark.surrogates.foreign.description import ModelDescription
from gateway.mark.surrogates.nets import NetOutput

LEAST_PROBABILITY = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logarithm; nearer ones have no gradient left anyhow."""


class ForeignNet(nn.Module):
    """Prepares images as a foreign network wants them and brings its output into the form of ``NetOutput``.

    Parameters
    ----------
    model
        takes float32 (N, input channels, h, w), gives (N, classes) or a tuple that begins with it.
    description
        input conventions and meaning of the output.
    channels
        1 or 3, of the images.
    size
        side in pixels that the network was trained for.
    classes
        class names in the order of the output; outputs with an empty name are left out (multilabel only).

    Raises
    ------
    ConfigError
        ``no-layer`` when the described middle layer is not a module of the network.
    """

    tasks: dict[str, tuple[str, ...]]
    factor: Tensor
    offset: Tensor

    def __init__(
        self, model: nn.Module, description: ModelDescription, channels: int, size: int, classes: Sequence[str]
    ) -> None:
        super().__init__()
        self.model, self.channels, self.input_size = model, channels, size
        self._classes, self._label = tuple(classes), description.label
        self._multilabel = description.output.startswith("multilabel")
        self._probabilities = description.output.endswith("probabilities")
        self._fixed = description.fixed_size
        self._inputs = description.input_channels or channels
        self._layer = _find_layer(model, description) if description.layer else None
        low, high = description.range
        shape = (1, -1, 1, 1)
        mean = torch.tensor(description.mean or (0.0,), dtype=torch.float32).view(shape)
        std = torch.tensor(description.std or (1.0,), dtype=torch.float32).view(shape)
        # ((low + x * (high - low)) - mean) / std as one product and one sum
        self.register_buffer("factor", (high - low) / std, persistent=False)
        self.register_buffer("offset", (low - mean) / std, persistent=False)
        if self._multilabel:
            named = [name for name in self._classes if name]
            self.tasks = {f"{description.task}.{name}": (f"no {name}", name) for name in named}
        else:
            self.tasks = {description.task: self._classes}

    def forward(self, images: Tensor) -> NetOutput:
        """Return logits per task, and the middle feature map where a layer is named, for images in 0..1.

        Parameters
        ----------
        images
            float32 (N, channels, h, w); resampled to ``input_size`` for networks of a fixed size.

        Raises
        ------
        MarkError
            ``wrong-output`` for an output of another shape.
        """
        x = resize(images, self.input_size, self.input_size) if self._fixed else images
        x = x.expand(-1, self._inputs, -1, -1) * self.factor + self.offset
        seen: list[Tensor] = []
        if self._layer is None:
            output = self.model(x)
        else:
            handle = self._layer.register_forward_hook(lambda module, given, made: seen.append(made))
            try:
                output = self.model(x)
            finally:
                handle.remove()
        output = output[0] if isinstance(output, tuple | list) and output else output
        wanted = (len(images), len(self._classes))
        if not isinstance(output, Tensor) or tuple(output.shape) != wanted:
            given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            message = f"{self._label} gives {given} for {wanted[0]} images, not {wanted} (images, classes)"
            raise MarkError("wrong-output", message, "give `classes` in the order of the network's output")
        return NetOutput(self._logits(output.float()), seen[0] if seen else None)

    def _logits(self, output: Tensor) -> dict[str, Tensor]:
        if self._probabilities:
            output = output.clamp(LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
            output = torch.logit(output) if self._multilabel else output.log()
        if not self._multilabel:
            return dict.fromkeys(self.tasks, output)
        columns = [output[:, index] for index, name in enumerate(self._classes) if name]
        # the logit of a sigmoid is the difference of two logits: that of "no" stands at zero
        pairs = [torch.stack([torch.zeros_like(column), column], 1) for column in columns]
        return dict(zip(self.tasks, pairs, strict=True))


def _find_layer(model: nn.Module, description: ModelDescription) -> nn.Module:
    modules = dict(model.named_modules())
    if description.layer not in modules:
        close = [name for name in modules if name and "." not in name]
        message = f"{description.label} has no layer {description.layer!r}"
        raise ConfigError("no-layer", message, f"its outermost layers are {', '.join(close)}")
    return modules[description.layer]
