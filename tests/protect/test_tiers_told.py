"""Header and figures name the tier that was used, and a fall-back where there was no air."""

from __future__ import annotations

from dataclasses import replace

from gateway.config.marking import Mark
from gateway.mark import MarkedImage, MarkRequest, MarkSettings
from gateway.protect.marking import ADDED, FigureTally, describe
from tests.support.flow import ROUTE
from tests.support.mark.samples import BRAIN, KEY, gray8, small_marker

NOTICE = MarkSettings(steps=0, device="cpu", without_air="lettered")


def test_every_tier_has_words_for_the_header() -> None:
    for tier in ("notice", "lettered", "air", "discreet"):
        told = describe({tier: 3})
        assert told.startswith(f"Tier {tier}: ") and told.endswith("Not for diagnosis.") and len(told) <= 1024


def test_frames_of_several_tiers_are_told_apart() -> None:
    told = describe({"notice": 2, "lettered": 1})
    assert "ier notice (2 of 3 frames)" in told and "tier lettered (1 of 3 frames)" in told and len(told) <= 1024
    assert all(ADDED[tier] in told for tier in ("notice", "lettered"))


def test_figures_name_a_fall_back() -> None:
    frames = [gray8(256, 256), gray8(600, 600)[200:400, 200:400]]
    results = small_marker(NOTICE).mark([MarkRequest(frame.copy(), KEY) for frame in frames], BRAIN)
    assert all(isinstance(one, MarkedImage) for one in results)
    tally = FigureTally()
    tally.add(results)
    assert tally.tiers == {"notice": 1, "lettered": 1}
    figures = tally.figures(ROUTE.model_copy(update={"mark": Mark()}), "brain-mr")
    assert figures.policy["tier"] == "notice" and figures.policy["lettered (no air) frames"] == "1"
    assert figures.psnr == min(one.quality.psnr for one in results) and replace(results[0]).tier == "notice"
