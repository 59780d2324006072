"""Brain MR: magnetic resonance with the head as body part."""

from __future__ import annotations

from gateway.mark.types import ImageTraits, ModalityProfile

_BODY_PARTS = frozenset({"BRAIN", "HEAD", "SKULL", "HEADNECK"})


def _accepts(traits: ImageTraits) -> bool:
    return traits.modality == "MR" and traits.body_part in _BODY_PARTS


PROFILE = ModalityProfile(
    name="brain-mr",
    priority=30,
    accepts=_accepts,
    packs={1: ("gray",)},
    tasks=("brain_mri",),
    noise_factor=1.0,
    noise_reason="MR: peak of one noise sd (mark.md 7.1)",
)
"""Primary window: the header's; MR has no absolute units, so there are no presets."""
