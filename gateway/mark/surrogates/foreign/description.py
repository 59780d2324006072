"""The pack description: a TOML file beside a site's networks that says what they are.

channels = 1                     # samples per pixel of the images that the pack is for: 1 or 3
card = "card.md"                 # model card, relative to this file; optional
licence_warning = ""             # logged at start when not empty

[[models]]
format = "torchscript"           # "miad", "torchscript", "onnx", "monai" or "torchxrayvision"
file = "lesion.pt"               # relative to this file
task = "lesion"                  # name of the question; that of a profile's task where it is the same question
classes = ["none", "lesion"]     # in the order of the output
input_size = 224                 # side in pixels
# name = "lesion"                # default: the file's name without suffix
# fixed_size = true              # false: the network also takes sides near input_size (multiples of 16)
# input_channels = 1             # 3: gray images are shown to the network three times over
# range = [0.0, 1.0]             # what black and white are for the network
# mean = [0.5]                   # subtracted after `range`; one value, or one per input channel
# std = [0.25]                   # divided by afterwards
# output = "logits"              # or "probabilities"; "multilabel-logits", "multilabel-probabilities": each class
                                 # is a yes-or-no question of its own (a single sigmoid as well)
# layer = "features.block2"      # module whose output is the middle feature map; not for "torchscript"
# architecture = "DenseNet121"   # "monai": class of monai.networks.nets
# arguments = {spatial_dims = 2} # keyword arguments of that class (or of torchxrayvision's DenseNet)
# weights = "densenet121-res224-all"  # "torchxrayvision": its name of the weights; gives classes and input size
"""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gateway.config.lines import KeyLines, format_path
from gateway.errors import ConfigError

Format = Literal["miad", "torchscript", "onnx", "monai", "torchxrayvision"]
Output = Literal["logits", "probabilities", "multilabel-logits", "multilabel-probabilities"]
Word = Annotated[str, Field(min_length=1, max_length=64)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class ModelDescription(BaseModel):
    """One network of a pack; the keys are explained at the head of this module.

    ``format = "miad"`` files (``gateway.mark.surrogates.store``) describe themselves: they take no other key than name
    and file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format
    file: Path
    name: str = ""
    task: str = ""
    classes: tuple[Word, ...] = ()
    input_size: Annotated[int, Field(ge=32, le=1024)] | None = None
    fixed_size: bool = True
    input_channels: Literal[1, 3] | None = None
    range: tuple[Number, Number] = (0.0, 1.0)
    mean: tuple[Number, ...] = ()
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    output: Output = "logits"
    layer: str = ""
    architecture: str = ""
    arguments: dict[str, Any] = {}
    weights: str = ""

    @model_validator(mode="after")
    def _complete(self) -> ModelDescription:
        for key in _WANTED[self.format]:
            if not getattr(self, key):
                raise ValueError(f'{key} is missing: format "{self.format}" needs it')
        for key in sorted(self.model_fields_set - _COMMON - _KNOWN[self.format]):
            raise ValueError(f'{key} means nothing to format "{self.format}"')
        if self.range[0] == self.range[1]:
            raise ValueError("range: black and white must differ")
        if self.classes and len(self.classes) < (1 if self.output.startswith("multilabel") else 2):
            raise ValueError('classes: at least two; a single sigmoid is output = "multilabel-probabilities"')
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name is there twice")
        return self

    @property
    def label(self) -> str:
        """Name of the network within its pack."""
        return self.name or self.file.stem


_COMMON = {"format", "file", "name"}
_INPUT = {"task", "classes", "input_size", "fixed_size", "input_channels", "range", "mean", "std", "output"}
_KNOWN: dict[str, set[str]] = {
    "miad": set(),
    "torchscript": _INPUT,
    "onnx": {*_INPUT, "layer"},
    "monai": {*_INPUT, "layer", "architecture", "arguments"},
    "torchxrayvision": {*_INPUT, "layer", "arguments", "weights"} - {"output", "range"},
}
_WANTED: dict[str, tuple[str, ...]] = {
    "miad": (),
    "torchscript": ("task", "classes", "input_size"),
    "onnx": ("task", "classes", "input_size"),
    "monai": ("task", "classes", "input_size", "architecture"),
    "torchxrayvision": ("task", "weights"),
}


class PackDescription(BaseModel):
    """The whole description file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Literal[1, 3]
    card: Path | None = None
    licence_warning: str = ""
    models: Annotated[tuple[ModelDescription, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _agrees(self) -> PackDescription:
        labels = [model.label for model in self.models]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two models are named {label!r}: give one of them another name")
        for model in self.models:
            inner = model.input_channels or self.channels
            if inner < self.channels:
                raise ValueError(f"{model.label}: input_channels = 1 does not take the pack's colour images")
            if any(len(values) not in (0, 1, inner) for values in (model.mean, model.std)):
                raise ValueError(f"{model.label}: mean and std have one value, or one per input channel ({inner})")
        return self


def read_description(path: Path) -> PackDescription:
    """Return the description in ``path``; no file that it names is opened.

    Raises
    ------
    ConfigError
        ``pack-missing`` when the file cannot be read, ``bad-pack`` with place and reason of every fault.
    """
    try:
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError("pack-missing", f"cannot read {path}: {error.strerror}", "correct the path") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("bad-pack", f"{path} is not TOML: {error}") from None
    try:
        return PackDescription.model_validate(table)
    except ValidationError as error:
        lines = KeyLines(text)
        faults = "; ".join(_fault(detail, lines) for detail in error.errors())
        hint = "gateway/mark/surrogates/foreign/description.py has an example"
        raise ConfigError("bad-pack", f"{path}: {faults}", hint) from None


def _fault(detail: Any, lines: KeyLines) -> str:
    """One fault: line, key, what is wrong, and the key that was probably meant."""
    place = detail["loc"]
    line = lines.line(place)
    where = ", ".join(part for part in (f"line {line}" if line else "", format_path(place)) if part)
    message = re.sub(r"^Value error, ", "", detail["msg"]).replace("Input should", "must")
    if detail["type"] == "extra_forbidden":
        known = ModelDescription if place[0] == "models" else PackDescription
        close = get_close_matches(str(place[-1]), list(known.model_fields), 1)
        message = f"unknown key, did you mean {close[0]}?" if close else "unknown key"
    elif detail["type"] == "missing":
        message = "is missing"
    return f"{where}: {message}" if where else message
