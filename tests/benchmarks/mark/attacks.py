"""Attacks from elsewhere, under the mark's region and energy: torchattacks' MI-FGSM and DI-FGSM, and a universal one.

The libraries know neither masks nor limits per pixel, so they work on a stand-in image z in 0..1 (0.5 everywhere at
the start, eps 0.5), and the network is shown x + envelope * (2 z - 1). Their own code runs unchanged on z: a sign step
in z is a sign step in x, and z's limits are the envelope's. They need labels; they get the ensemble's own answers on
the clean images, since a gateway has no true ones.

MI-FGSM: Dong et al. 2018. DI-FGSM: Xie et al. 2019, here with MI-FGSM's momentum, its stronger form. Both in the pack's
mean logits. The universal perturbation is ours, since torchattacks has none: one pattern for all images of the set by
momentum sign steps on the mean loss over these very images (Moosavi-Dezfooli et al. 2017 by gradient, as in Hirano et
al. 2021), which is more than an attacker who does not know the images could do.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gateway.training.networks import channels_first
from tests.benchmarks.mark.ensemble import Ensemble

BATCH = 8
PACE = 2.5
"""Way that all steps together could go, in units of eps: torchattacks' own default (10 steps of eps / 4)."""
EPS = 0.5


def missing_library() -> str:
    """Return why torchattacks cannot be used here; empty when it can."""
    if find_spec("torchattacks") is None:
        return "torchattacks is not installed (pip install --no-deps torchattacks==3.5.1)"
    return ""


def momentum_attack(
    model: Ensemble, images: np.ndarray, envelopes: np.ndarray, steps: int, diverse: bool
) -> np.ndarray:
    """Return the change (N, H, W[, 3]) float32 in display units that torchattacks finds within the envelopes.

    Parameters
    ----------
    model
        what is attacked.
    images
        display images float32 (N, H, W[, 3]) in 0..1.
    envelopes
        float32 (N, H, W).
    steps
        of the attack.
    diverse
        DI-FGSM instead of MI-FGSM.
    """
    import torchattacks

    def composed(z: Tensor) -> Tensor:
        return (attack.clean + attack.envelope * (2.0 * z - 1.0)).clamp(0.0, 1.0)

    class Momentum(torchattacks.MIFGSM):
        def get_logits(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
            return super().get_logits(composed(inputs))

    class Diverse(torchattacks.DIFGSM):
        def input_diversity(self, x: Tensor) -> Tensor:
            return super().input_diversity(composed(x))

    kind = Diverse if diverse else Momentum
    attack = kind(model, eps=EPS, alpha=PACE * EPS / steps, steps=steps, decay=1.0)
    device = next(model.parameters()).device
    torch.manual_seed(2026)  # DI-FGSM draws from torch's global generator
    changes = []
    for start in range(0, len(images), BATCH):
        attack.clean = channels_first(images[start : start + BATCH]).to(device)
        attack.envelope = torch.from_numpy(envelopes[start : start + BATCH])[:, None].to(device)
        with torch.no_grad():
            believed = model(attack.clean).argmax(1)
        z = attack(torch.full_like(attack.clean, 0.5), believed)
        changes.append((attack.envelope * (2.0 * z - 1.0)).detach().cpu())
    return _unstacked(torch.cat(changes))


def universal_attack(model: Ensemble, images: np.ndarray, envelopes: np.ndarray, passes: int) -> np.ndarray:
    """Return the change (N, H, W[, 3]) of one universal pattern times each image's envelope.

    Parameters
    ----------
    model
        what is attacked.
    images
        display images float32 (N, H, W[, 3]) in 0..1, of one shape.
    envelopes
        float32 (N, H, W).
    passes
        over all images, one step after each.
    """
    device = next(model.parameters()).device
    clean, limits = channels_first(images).to(device), torch.from_numpy(envelopes)[:, None].to(device)
    with torch.no_grad():
        believed = torch.cat([model(part).argmax(1) for part in clean.split(BATCH)])
    generator = torch.Generator().manual_seed(2026)
    pattern = (0.1 * torch.randn(clean.shape[1:], generator=generator)).to(device)
    momentum = torch.zeros_like(pattern)
    for step in range(passes):
        gradient = torch.zeros_like(pattern)
        for part in torch.arange(len(clean), device=device).split(BATCH):
            pattern.requires_grad_(True)
            logits = model((clean[part] + limits[part] * pattern).clamp(0.0, 1.0))
            loss = functional.cross_entropy(logits, believed[part], reduction="sum")
            gradient += torch.autograd.grad(loss, pattern)[0]
            pattern = pattern.detach()
        momentum = momentum + gradient / gradient.abs().mean().clamp(min=1e-12)
        rate = PACE / passes * (1.5 - step / passes)
        pattern = (pattern + rate * momentum.sign()).clamp(-1.0, 1.0)
    return _unstacked((limits * pattern).cpu())


def _unstacked(changes: Tensor) -> np.ndarray:
    """Return (N, H, W) or (N, H, W, 3) from (N, C, H, W)."""
    array = changes.numpy()
    return np.ascontiguousarray(array[:, 0] if array.shape[1] == 1 else array.transpose(0, 2, 3, 1))
