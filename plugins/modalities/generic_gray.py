"""Any other image of one sample per pixel (XA, RF, OT, NM ...)."""

from __future__ import annotations

from gateway.mark import ImageTraits, ModalityProfile, RelativeWindow


def _accepts(traits: ImageTraits) -> bool:
    return traits.photometric in ("MONOCHROME1", "MONOCHROME2")


PROFILE = ModalityProfile(
    name="generic-gray",
    priority=0,
    accepts=_accepts,
    packs={1: ("gray",)},
    relative_windows=(RelativeWindow("narrow", 0.25, 0.75),),
    noise_factor=0.6,
    noise_reason="unknown kind: the smallest factor in use (CT)",
)
"""The last resort for gray images; asked after every other profile."""
