"""TorchScript files (``torch.jit.save``): the network and its program in one file, no further library needed.

Such a file is executable: it is loaded only because the site's own description names it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from gateway.mark.surrogates.foreign.files import corrupt, require_file


class ScriptedNet(nn.Module):
    """A scripted network that gives the same values on every call.

    The just-in-time optimiser may rewrite a program after its first calls, and fused kernels round otherwise: it is
    kept out while this network runs.
    """

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.script = script

    def forward(self, x: Tensor) -> object:
        """Return whatever the program gives for ``x`` (N, C, h, w)."""
        with torch.jit.optimized_execution(False):
            return self.script(x)


def load_torchscript(path: Path) -> nn.Module:
    """Return the network in ``path``, in evaluation mode, on the CPU.

    Raises
    ------
    ConfigError
        ``weights-missing``, ``weights-corrupt``.
    """
    require_file(path)
    try:
        script = torch.jit.load(str(path), map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise corrupt(path, error) from None
    for parameter in script.parameters():
        parameter.requires_grad_(False)
    return ScriptedNet(script).eval()
