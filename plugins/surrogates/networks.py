"""What the shipped packs share: networks that take gray and RGB images alike, their card and their warning."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent

CARD = _FOLDER / "networks.md"
"""Model card of all networks."""
GRAY_TASKS = ("brain_tumor", "breast_us", "chest_xray")
RGB_TASKS = ("breast_us", "dermoscopy", "fundus_dr")
"""Heads that are asked of gray and of RGB images; ultrasound comes as either."""


def files(*names: str) -> tuple[Path, ...]:
    """Return the files of networks by name."""
    return tuple(_FOLDER / f"{name}.safetensors" for name in names)


def warning(pack: str) -> str:
    """Return what is logged at start of a pack of these networks."""
    return (
        f"surrogate pack {pack!r}: licence to be confirmed: of three of the five sets that its networks learned from "
        "(brain_tumor, breast_us, chest_xray) only others' statements of the licence were seen; see its card"
    )
