"""The shipped generator for gray images (brain MR, chest radiographs, chest CT); model card: ``gray.md``."""

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
        "generator 'gray' is for evaluation only: the licences of its training images are mixed, non-commercial or "
        "unstated; train one on the site's own images (miad-gateway train-mark)"
    ),
)
"""See the card for data, split and figures."""
