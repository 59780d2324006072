"""Fundus photographs (ophthalmic photography, RGB)."""

from __future__ import annotations

from gateway.mark import ImageTraits, ModalityProfile


def _accepts(traits: ImageTraits) -> bool:
    return traits.modality == "OP"


PROFILE = ModalityProfile(
    name="fundus",
    priority=20,
    accepts=_accepts,
    packs={3: ("rgb",)},
    tasks=("fundus_dr",),
    without_air="discreet",
    noise_factor=1.0,
    noise_reason="8-bit RGB: peak of one local noise sd, never above 6 levels (mark, budgets)",
)
"""8-bit RGB, shown as it is."""
