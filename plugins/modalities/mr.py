"""MR of any body part."""

from __future__ import annotations

from gateway.mark import ImageTraits, ModalityProfile, RelativeWindow


def _accepts(traits: ImageTraits) -> bool:
    return traits.modality == "MR"


PROFILE = ModalityProfile(
    name="mr",
    priority=20,
    accepts=_accepts,
    packs={1: ("gray",)},
    tasks=("brain_tumor",),
    relative_windows=(RelativeWindow("narrow", 0.25, 0.75), RelativeWindow("dark", 0.0, 0.5)),
    air_level=0.2,
    without_air="discreet",
    noise_factor=1.0,
    noise_reason="MR: peak of one noise sd (mark, budgets)",
)
"""The shipped surrogates know brain MR only; a site's own pack does better."""
