"""ONNX files, turned into torch modules by onnx2torch so that gradients reach the input (extra ``onnx``).

Every converter on the package index (onnx2torch, onnx2torch2, onnx2pytorch; looked at in their newest releases) imports
torchvision when it is imported, and torchvision must match torch to the build. onnx2torch needs it for the operators
NonMaxSuppression and RoiAlign alone, each in a module of its own, and no classifier has those. Where torchvision cannot
be imported, empty modules therefore stand in for these two; a network that has such an operator is then refused.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from gateway.errors import ConfigError
from gateway.mark.surrogates.foreign.files import corrupt, missing_extra, require_file

_DETECTION = ("onnx2torch.node_converters.nms", "onnx2torch.node_converters.roialign")


def load_onnx(path: Path) -> nn.Module:
    """Return the network in ``path``, in evaluation mode, on the CPU, without parameter gradients.

    Raises
    ------
    ConfigError
        ``extra-missing``, ``weights-missing``, ``weights-corrupt``, and ``unsupported-operator`` for an
        operator that the converter does not know.
    """
    require_file(path)
    onnx, converter = _libraries()
    try:
        proto = onnx.load(str(path))
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf and the checker have error types of their own
        raise corrupt(path, error) from None
    try:
        module = converter.convert(proto)
    except NotImplementedError as error:
        message = f"{path.name} has an operator that cannot be differentiated here: {error}"
        raise ConfigError("unsupported-operator", message, "export the network to TorchScript instead") from None
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise corrupt(path, error) from None
    return module.eval().requires_grad_(False)


def _libraries() -> tuple[Any, Any]:
    """Import onnx and onnx2torch; see the module's docstring for the two modules that may be stood in for."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):  # a torchvision of another build fails with RuntimeError
        for name in _DETECTION:
            sys.modules.setdefault(name, ModuleType(name, "stands in: torchvision is not installed"))
    try:
        return importlib.import_module("onnx"), importlib.import_module("onnx2torch")
    except ImportError as error:
        raise missing_extra("onnx", error) from None
