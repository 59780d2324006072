"""The shipped generator for gray images (brain MR, chest radiographs, chest CT); model card: ``gray.md``."""

from __future__ import annotations

from pathlib import Path

from gateway.mark.generator_packs import GeneratorPack

_FOLDER = Path(__file__).parent

PACK = GeneratorPack(
    name="gray",
    channels=1,
    file=_FOLDER / "gray.safetensors",
    card=_FOLDER / "gray.md",
    licence_warning=(
        "generator 'gray' is for evaluation only: hardly trained, it misleads little more than lettering alone, and "
        "the licences of its training images are mixed, non-commercial or unstated; train one on the site's own images "
        "(miad-gateway train-mark) or use mode strong"
    ),
)
"""Trained against the surrogate pack ``gray``; see the card for data, split and figures."""
