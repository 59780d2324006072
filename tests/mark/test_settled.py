"""The last steps of letters in the air, over the anatomy as it is delivered."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings
from gateway.mark.methods import strong
from gateway.mark.resample import resize
from gateway.mark.surrogates.consensus import consensus
from gateway.mark.surrogates.objective import margins
from plugins.surrogates import gray
from tests.support.mark.samples import BRAIN, CPU, KEY, disc, gray8, small_pack

REQUEST = MarkRequest(gray8(160, 160), KEY, roi=disc((160, 160), 0.15))
"""With corners in which a word fits."""


def pair(monkeypatch: pytest.MonkeyPatch, settings: MarkSettings, packs: list) -> tuple[MarkedImage, MarkedImage]:
    """Return one image marked without the last steps, and with them."""
    found = []
    for steps in (0, strong.SETTLING):
        monkeypatch.setattr(strong, "SETTLING", steps)
        (one,) = Marker(settings, packs=packs).mark([REQUEST], BRAIN)
        assert isinstance(one, MarkedImage)
        found.append(one)
    return found[0], found[1]


def test_letters_in_the_air_move_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = pair(monkeypatch, MarkSettings(tier="notice", steps=4, device="cpu"), [small_pack()])
    moved = before.image != after.image
    assert before.residual[~before.strokes].any() and before.air is not None and before.strokes.any()
    assert moved.any() and not moved[~(before.strokes & before.air)].any()


@pytest.mark.parametrize("tier", ["lettered", "air", "discreet"])
def test_where_there_is_nothing_to_make_up_for_they_stay(monkeypatch: pytest.MonkeyPatch, tier: str) -> None:
    before, after = pair(monkeypatch, MarkSettings(tier=tier, steps=4, device="cpu"), [small_pack()])
    assert np.array_equal(before.image, after.image)


def test_they_mislead_more_than_before(monkeypatch: pytest.MonkeyPatch) -> None:
    both = pair(monkeypatch, MarkSettings(tier="notice", steps=16, device="cpu"), [gray.PACK])
    members = [one for one in gray.PACK.load(CPU) if one.asked(BRAIN.tasks)]
    clean, *marked = (
        torch.from_numpy(one.astype(np.float32) / 255.0)[None, None]
        for one in (REQUEST.image, *(one.image for one in both))
    )
    held = consensus(clean, members, BRAIN.tasks)

    def firmness(image: torch.Tensor) -> float:
        """Return the mean log odds with which networks keep to what they held the clean image to be."""
        asked = zip(members, held, strict=True)
        with torch.no_grad():
            found = [margins(one.net(resize(image, one.input_size, one.input_size)), share) for one, share in asked]
        return float(torch.stack(found).mean())

    before, after = (firmness(image) for image in marked)
    assert after < before < firmness(clean)
