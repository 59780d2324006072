"""Projection radiographs: CR and DX."""

from __future__ import annotations

from gateway.mark import ImageTraits, ModalityProfile, RelativeWindow


def _accepts(traits: ImageTraits) -> bool:
    return traits.modality in ("CR", "DX")


PROFILE = ModalityProfile(
    name="cr-dx",
    priority=20,
    accepts=_accepts,
    packs={1: ("gray",)},
    tasks=("chest_xray",),
    relative_windows=(RelativeWindow("narrow", 0.25, 0.75), RelativeWindow("dark", 0.0, 0.5)),
    air_level=0.1,
    air_gap=0.1,
    noise_factor=1.0,
    noise_reason="radiographs: peak of one local noise sd (mark, budgets)",
)
"""Primary window: the header's VOI; detectors differ too much for presets in units. Reported as well:
twice the contrast around the middle and in the dark half (lung)."""
