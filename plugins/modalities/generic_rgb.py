"""Any other RGB image (secondary captures, photographs, endoscopy ...)."""

from __future__ import annotations

from gateway.mark import ImageTraits, ModalityProfile


def _accepts(traits: ImageTraits) -> bool:
    return traits.photometric not in ("MONOCHROME1", "MONOCHROME2")


PROFILE = ModalityProfile(
    name="generic-rgb",
    priority=0,
    accepts=_accepts,
    packs={3: ("rgb",)},
    noise_factor=0.6,
    noise_reason="unknown kind: the smallest factor in use (CT)",
)
"""The last resort for RGB images; asked after every other profile."""
