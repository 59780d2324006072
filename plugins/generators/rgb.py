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
        "generator 'rgb': licence to be confirmed: of three of the five sets that its surrogates learned from "
        "(brain_tumor, breast_us, chest_xray) only others' statements of the licence were seen; see its card"
    ),
)
"""See the card for data, split and figures."""
