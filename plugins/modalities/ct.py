"""CT: Hounsfield units, three preset windows."""

from __future__ import annotations

from gateway.mark import ImageTraits, ModalityProfile, Window


def _accepts(traits: ImageTraits) -> bool:
    return traits.modality == "CT"


PROFILE = ModalityProfile(
    name="ct",
    priority=20,
    accepts=_accepts,
    packs={1: ("gray",)},
    windows=(Window("W400", 40.0, 400.0), Window("W1500", -600.0, 1500.0), Window("W80", 40.0, 80.0)),
    unit="HU",
    air_units=(-1030.0, -950.0),
    peak_units=8.0,
    noise_factor=0.6,
    noise_reason="CT: twice an RMS of 0.3 noise sd (mark, budgets)",
)
"""Windows in HU: soft tissue (primary), lung, brain.

The peak is twice an RMS of 4 HU (mark, budgets): in a lung window 6 of 255 gray levels would be 35 HU, which shows
as soon as the soft tissue window is chosen. Air is told from lung (-950 to -750 HU) by its units alone.

No shipped surrogate has seen CT (no openly licensed set was found): the heads of all gray tasks are misled, and a mark
leans on features that they share. A site's own pack does better.
"""
