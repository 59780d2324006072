"""Marks that begin from a neighbouring slice's texture: within the image's own limits, in few steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from gateway.mark import MarkedImage, Marker, MarkSettings
from gateway.mark.methods.begun import STEPS, continue_texture
from gateway.mark.methods.textures import begun_textures, kept_texture
from tests.mark.test_passes import plain
from tests.support.mark.samples import BRAIN, CPU, gray8, requests, small_marker, small_pack

ONE = MarkSettings(steps=4, device="cpu")


def continued(count: int, firmness: float, amplitude: float, seeds: list[int], begin: Tensor, asked: Counter) -> Tensor:
    planes = np.stack([gray8(64, 64, seed) for seed in seeds])[:, None].astype(np.float32) / 255.0
    clean = torch.from_numpy(planes)
    random = [np.random.default_rng(seed) for seed in seeds]
    members, limits = plain(count, firmness, asked), torch.full_like(clean, amplitude)
    return continue_texture(clean, limits, torch.zeros_like(clean), members, (), random, begin)


def test_every_surrogate_is_asked_twice_of_either_ground_and_no_more() -> None:
    asked: Counter[str] = Counter()
    continued(4, 1.0, 1e-6, [0], torch.zeros(1, 1, 64, 64), asked)  # too faint to be done
    assert asked == {f"n{one}": 4 for one in range(4)}
    assert STEPS == 8


def test_what_misleads_already_is_left_as_it_is_whatever_else_is_in_the_batch() -> None:
    asked: Counter[str] = Counter()
    first = continued(2, 1.0, 0.5, [0], torch.zeros(1, 1, 64, 64), asked)
    again = continued(2, 1.0, 0.5, [0], first, later := Counter())
    assert sum(later.values()) < sum(asked.values())
    both = continued(2, 1.0, 0.5, [0, 1], torch.cat([first, torch.zeros_like(first)]), Counter())
    other = continued(2, 1.0, 0.5, [1], torch.zeros_like(first), Counter())
    assert torch.equal(both, torch.cat([again, other]))


def test_a_kept_texture_is_the_one_that_was_drawn() -> None:
    random = np.random.default_rng(0)
    for shape in ((48, 200, 3), (300, 512)):
        grid = random.integers(-127, 128, (max(32, round(shape[0] * min(1, 256 / max(shape[:2])))), *shape[1:]))
        grid = grid[:, : round(shape[1] * min(1, 256 / max(shape[:2])))].astype(np.float32) / 127
        rows = (np.arange(shape[0]) * 2 + 1) * grid.shape[0] // (2 * shape[0])
        columns = (np.arange(shape[1]) * 2 + 1) * grid.shape[1] // (2 * shape[1])
        kept = kept_texture(grid[rows][:, columns], 256)
        assert kept.dtype == np.int8 and np.array_equal(kept, np.rint(grid * 127))
        back = begun_textures([kept], CPU)
        assert float(back.abs().max()) <= 1.0


def test_a_slice_begins_from_its_neighbour_and_keeps_its_own_limits() -> None:
    first, second = requests(2)
    (key,) = small_marker(ONE).mark([first], BRAIN)
    assert isinstance(key, MarkedImage) and key.texture is not None and not key.has_begun
    begun = replace(second, begin=key.texture)
    hostile = replace(second, begin=np.full_like(key.texture, -128))  # beyond -1
    alone, near, far = small_marker(ONE).mark([second, begun, hostile], BRAIN)
    assert [one.has_begun for one in (alone, near, far)] == [False, True, True]
    assert not np.array_equal(alone.image, near.image)
    for one in (near, far):
        assert one.quality.roi_difference == 0 and not one.residual[second.roi].any()
        assert one.quality.psnr >= 42.0
        assert one.quality.above_threshold <= alone.quality.above_threshold + 1e-3


@pytest.mark.parametrize("begin", [np.zeros((95, 96), np.int8), np.zeros((96, 96), np.float32), np.zeros(0, np.int8)])
def test_a_texture_of_another_grid_is_left_out(begin: np.ndarray) -> None:
    (request,) = requests()
    alone, offered = small_marker(ONE).mark([request, replace(request, begin=begin)], BRAIN)
    assert np.array_equal(alone.image, offered.image) and not offered.has_begun


def test_a_mixed_batch_gives_what_each_gives_alone() -> None:
    first, second, third = requests(3)
    (key,) = small_marker(ONE).mark([first], BRAIN)
    mixed = [replace(second, begin=key.texture), third, replace(third, begin=key.texture)]
    alone = [small_marker(ONE).mark([one], BRAIN)[0] for one in mixed]
    marker = Marker(ONE, packs=[small_pack()])
    marker._batch, marker._threads = 4, None  # as on CUDA
    for one, other in zip(marker.mark(mixed, BRAIN), alone, strict=True):
        assert isinstance(one, MarkedImage)
        assert np.array_equal(one.image, other.image)
