"""What is told of a mark besides its pixels: how many of its networks it misleads, and the region that it left."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gateway.errors import MarkError
from gateway.mark import MarkSettings, load_profiles
from gateway.mark.surrogates.nets import NetOutput
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.surrogates.strength import misled_share
from tests.support.mark.samples import SHORT, requests, small_marker


class Brightness:
    """A network that says `bright` of an image whose mean is above a limit."""

    def __init__(self, limit: float) -> None:
        self.channels = 1
        self.tasks = {"shade": ("dark", "bright")}
        self.limit = limit

    def __call__(self, images: Tensor) -> NetOutput:
        above = (images.mean((1, 2, 3)) - self.limit) * 100
        return NetOutput({"shade": torch.stack([-above, above], dim=1)}, None)


def test_the_share_counts_networks_that_answer_otherwise() -> None:
    clean, marked = torch.full((1, 1, 40, 40), 0.2), torch.full((1, 1, 40, 40), 0.5)
    nets = [Surrogate(f"n/{limit}", Brightness(limit), 32) for limit in (0.3, 0.4, 0.6, 0.7)]
    assert misled_share(clean, marked, nets, ()) == 0.5
    assert misled_share(clean, clean, nets, ("shade",)) == 0.0
    assert misled_share(clean, torch.ones_like(clean), nets, ()) == 1.0


def test_a_strong_mark_tells_its_share_and_one_without_networks_none() -> None:
    (marked,) = small_marker().mark(requests(), "ct")
    assert not isinstance(marked, MarkError)
    assert marked.misled_share is not None and 0.0 <= marked.misled_share <= 1.0
    (plain,) = small_marker(MarkSettings(steps=0, device="cpu")).mark(requests(), "ct")
    assert not isinstance(plain, MarkError)
    assert plain.misled_share is None
    begun = [replace(one, begin=marked.texture) for one in requests()]
    (follower,) = small_marker().mark(begun, "ct")
    assert not isinstance(follower, MarkError)
    assert (follower.has_begun, follower.misled_share) == (True, None)


@pytest.mark.parametrize("tier", ["notice", "lettered"])
def test_the_region_of_interest_is_the_one_that_the_mark_leaves(tier: str) -> None:
    marker = small_marker(SHORT.model_copy(update={"tier": tier}))
    (request,) = requests()
    (marked,) = marker.mark([request], "ct")
    assert not isinstance(marked, MarkError)
    found = marker.region_of_interest(request, load_profiles()["ct"])
    assert found is not None and found.any()
    assert (found == marked.roi & marked.anatomy).all()
    assert not marked.residual[found].any()


def test_the_tier_air_leaves_all_of_the_anatomy_and_tells_no_region() -> None:
    marker = small_marker(SHORT.model_copy(update={"tier": "air", "without_air": "discreet"}))
    (request,) = requests()
    (marked,) = marker.mark([request], "ct")
    assert not isinstance(marked, MarkError)
    found = marker.region_of_interest(request, load_profiles()["ct"])
    assert (found is None) == (marked.tier == "air")
