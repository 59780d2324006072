"""The shipped generator for gray images (brain MR, breast ultrasound, chest radiographs); model card: ``gray.md``."""

from __future__ import annotations

from pathlib import Path

from gateway.mark import GeneratorPack

_FOLDER = Path(__file__).parent

PACK = GeneratorPack(
    name="gray",
    channels=1,
    file=_FOLDER / "gray.safetensors",
    card=_FOLDER / "gray.md",
    licence_warning=(
        "generator 'gray': licence to be confirmed: of three of the five sets that its surrogates learned from "
        "(brain_tumor, breast_us, chest_xray) only others' statements of the licence were seen; see its card"
    ),
)
"""See the card for data, split and figures."""
