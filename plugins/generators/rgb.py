"""The shipped generator for RGB images (fundus and dermatoscopic photographs); model card: ``rgb.md``."""

from __future__ import annotations

from pathlib import Path

from gateway.mark import GeneratorPack

_FOLDER = Path(__file__).parent

PACK = GeneratorPack(
    name="rgb",
    channels=3,
    file=_FOLDER / "rgb.safetensors",
    card=_FOLDER / "rgb.md",
    licence_warning=(
        "generator 'rgb' is for evaluation only: the licences of its training images are mixed, non-commercial or "
        "unstated; train one on the site's own images (miad-gateway train-mark)"
    ),
)
"""See the card for data, split and figures."""
