"""Brain MR: magnetic resonance with the head as body part."""

from __future__ import annotations

from gateway.mark import ImageTraits, ModalityProfile, RelativeWindow

_BODY_PARTS = frozenset({"BRAIN", "HEAD", "SKULL", "HEADNECK"})


def _accepts(traits: ImageTraits) -> bool:
    return traits.modality == "MR" and traits.body_part in _BODY_PARTS


PROFILE = ModalityProfile(
    name="brain-mr",
    priority=30,
    accepts=_accepts,
    packs={1: ("gray",)},
    tasks=("brain_tumor",),
    relative_windows=(RelativeWindow("narrow", 0.25, 0.75), RelativeWindow("dark", 0.0, 0.5)),
    air_level=0.2,
    without_air="discreet",
    noise_factor=1.0,
    noise_reason="MR: peak of one noise sd (mark, budgets)",
)
"""Primary window: the header's; MR has no absolute units, so there are no presets but
twice the contrast around the middle and in the dark half, as readers set it."""
