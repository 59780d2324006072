"""Projection radiographs: CR and DX."""

from __future__ import annotations

from gateway.mark.types import ImageTraits, ModalityProfile


def _accepts(traits: ImageTraits) -> bool:
    return traits.modality in ("CR", "DX")


PROFILE = ModalityProfile(
    name="cr-dx",
    priority=20,
    accepts=_accepts,
    packs={1: ("gray",)},
    tasks=("chest_xray",),
    noise_factor=1.0,
    noise_reason="radiographs: peak of one local noise sd (mark.md 7.1)",
)
"""Primary window: the header's VOI; detectors differ too much for presets."""
