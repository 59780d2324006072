"""Ultrasound, gray or RGB."""

from __future__ import annotations

from gateway.mark import ImageTraits, ModalityProfile, RelativeWindow


def _accepts(traits: ImageTraits) -> bool:
    return traits.modality in ("US", "IVUS")


PROFILE = ModalityProfile(
    name="us",
    priority=20,
    accepts=_accepts,
    packs={1: ("gray",), 3: ("rgb",)},
    tasks=("breast_us",),
    relative_windows=(RelativeWindow("dark", 0.0, 0.5),),
    air_gap=0.2,
    air_shadows=True,
    noise_factor=1.0,
    noise_reason="speckle: peak of one local sd (mark, budgets: as for MR)",
)
"""The shipped surrogates know breast ultrasound only; a site's own pack does better elsewhere."""
