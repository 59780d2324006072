"""Keys, positions, batches: who gets which mark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gateway.mark.placement.words import ON_ANATOMY, lay_words, place
from tests.support.mark.samples import BRAIN, KEY, OTHER_KEY, requests, word
from tests.support.mark.samples import small_marker as small


def test_batch_of_one_equals_batch_of_eight() -> None:
    frames = requests(8)
    together = small().mark(frames, BRAIN)
    apart = [small().mark([frame], BRAIN)[0] for frame in reversed(frames)][::-1]
    for one, other in zip(together, apart, strict=True):
        assert np.array_equal(one.image, other.image)


def test_global_random_state_and_flags_are_neither_used_nor_changed() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    torch.backends.cudnn.benchmark = True
    try:
        first = small().mark(requests(), BRAIN)[0]
        assert torch.backends.cudnn.benchmark
        assert not torch.backends.cudnn.deterministic
    finally:
        torch.backends.cudnn.benchmark = False
    torch.manual_seed(2)
    np.random.seed(2)
    assert np.array_equal(first.image, small().mark(requests(), BRAIN)[0].image)
    state = torch.random.get_rng_state()
    small().mark(requests(), BRAIN)
    assert torch.equal(state, torch.random.get_rng_state())


def test_two_keys_give_different_marks() -> None:
    (request,) = requests()
    mine = small().mark([request], BRAIN)[0]
    theirs = small().mark([replace(request, key=OTHER_KEY)], BRAIN)[0]
    assert abs(np.corrcoef(mine.residual.ravel(), theirs.residual.ravel())[0, 1]) < 0.2
    assert overlap(mine.strokes, theirs.strokes) < 0.5


def test_placement_is_smooth_in_position_and_drifts() -> None:
    region = np.ones((256, 256), bool)

    def strokes(position: float) -> np.ndarray:
        return lay_words(region, [(25, word)], KEY, place(KEY, position), ON_ANATOMY, 10_000).strokes

    here = strokes(0.0)
    assert here.any()
    assert np.array_equal(here, strokes(0.0))
    near = [overlap(strokes(z), strokes(z + 1.0)) for z in (0.0, 10.0, -35.5)]
    assert min(near) > 0.55
    assert overlap(here, strokes(30.0)) < 0.4


def test_order_of_arrival_does_not_matter() -> None:
    frames = requests(3)
    forward = small().mark(frames, BRAIN)
    backward = small().mark(frames[::-1], BRAIN)[::-1]
    for one, other in zip(forward, backward, strict=True):
        assert np.array_equal(one.image, other.image)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return float((first & second).sum() / (first | second).sum())
