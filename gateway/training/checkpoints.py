"""Checkpoints of training runs: written whole or not at all, and read only by the run that they belong to."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from gateway.errors import ConfigError


def write_checkpoint(path: Path, run: str, state: Mapping[str, object]) -> None:
    """Write ``state`` and the description of its run to ``path``."""
    beside = path.with_name(f"{path.name}.part")
    torch.save({**state, "run": run}, beside)
    beside.replace(path)


def read_checkpoint(path: Path, run: str, keys: Sequence[str]) -> dict:
    """Return a checkpoint that belongs to this run; one without a description is believed.

    Parameters
    ----------
    path
        the file.
    run
        description of the run.
    keys
        that it must have.

    Raises
    ------
    ConfigError
        ``bad-checkpoint`` when it is damaged or of another run.
    """
    hint = "delete it to start again, or give another --out"
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        whole = set(keys) <= saved.keys()
    except (RuntimeError, EOFError, OSError, AttributeError, pickle.UnpicklingError):
        whole = False
    if not whole:
        raise ConfigError("bad-checkpoint", f"{path} is no checkpoint, or a damaged one", hint)
    if saved.get("run", run) != run:
        raise ConfigError("bad-checkpoint", f"{path} is of a run with other images, epochs or batch size", hint)
    return saved
