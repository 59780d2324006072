"""Weights from files, without running what is in them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gateway.errors import ConfigError


def load_weights(path: Path, allowed: Sequence[type] = ()) -> dict[str, Tensor]:
    """Return the state dict in a safetensors file, or in a torch file read with torch's restricted unpickler.

    Parameters
    ----------
    path
        ``*.safetensors``, else a file of ``torch.save``.
    allowed
        classes besides plain tensors that a torch file may hold; a whole module gives its state dict.

    Raises
    ------
    ConfigError
        ``weights-missing``, or ``weights-corrupt`` for what is damaged or holds anything else.
    """
    require_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(str(path), device="cpu")
        with torch.serialization.safe_globals(list(allowed)):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise corrupt(path, error) from None
    if isinstance(found, nn.Module):
        return found.state_dict()
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]  # as training frameworks wrap it
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ConfigError("weights-corrupt", f"{path.name} holds no state dict", "save model.state_dict()")
    return found


def fill(model: nn.Module, weights: dict[str, Tensor], path: Path) -> nn.Module:
    """Put weights into ``model`` (evaluation mode, float32, no parameter gradients) and return it.

    Raises
    ------
    ConfigError
        ``weights-corrupt`` when names or shapes do not fit.
    """
    try:
        model.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in weights.items()})
    except RuntimeError as error:
        raise corrupt(path, error) from None
    return model.eval().requires_grad_(False)


def require_file(path: Path) -> None:
    """Raise ConfigError ``weights-missing`` when ``path`` is no file."""
    if not path.is_file():
        raise ConfigError("weights-missing", f"there is no file {path}", "correct `file` in the pack description")


def corrupt(path: Path, error: Exception) -> ConfigError:
    """Return the ``weights-corrupt`` error for what a library said of a file (the beginning of it)."""
    said = (str(error).strip().splitlines() or [type(error).__name__])[:2]
    return ConfigError("weights-corrupt", f"{path.name} cannot be used: {' '.join(said)[:300]}")


def missing_extra(extra: str, error: ImportError) -> ConfigError:
    """Return the ``extra-missing`` error for a library that cannot be imported."""
    message = f'format "{extra}" needs libraries that cannot be imported here: {error}'
    return ConfigError("extra-missing", message, f"pip install 'miad-gateway[{extra}]'")
