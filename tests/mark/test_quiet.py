"""A change below the threshold: of no width and direction too much in one place, whole steps evenly spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gateway.mark.evaluation.sight import seen_differences
from gateway.mark.visibility import quiet as module
from gateway.mark.visibility.bands import evened, together
from gateway.mark.visibility.quiet import EVEN, TILE, quiet, spread
from gateway.mark.visibility.threshold import BASE

SIDE = 128
LEVEL = 1.0 / 255.0


def wave(period: float, angle: float) -> np.ndarray:
    """Return a (SIDE, SIDE) float32 wave of amplitude 1."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    along = rows * np.sin(angle) + columns * np.cos(angle)
    return np.sin(2.0 * np.pi * along / period).astype(np.float32)


FLAT = torch.ones((1, 1, SIDE, SIDE))


def tensor(plane: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(plane)[None, None]


@pytest.mark.parametrize("angle", [0.0, np.pi / 4.0, np.pi / 2.0, 2.5])
@pytest.mark.parametrize("period", [2.9, 5.7, 11.4, 22.9])
def test_of_a_wave_only_the_limit_is_left_whatever_its_width_and_direction(period: float, angle: float) -> None:
    inner = np.s_[16:-16, 16:-16]
    left = evened(tensor(wave(period, angle)), FLAT, 0.4)[0, 0].numpy()[inner]
    assert 0.2 < left.std() < 0.62


def test_what_is_weak_passes_as_it_is() -> None:
    weak = wave(5.7, 0.3) * np.float32(0.1)
    assert np.abs(evened(tensor(weak), FLAT, 0.4)[0, 0].numpy() - weak).max() < 1e-5
    assert together(tensor(weak), FLAT).max() < 0.4


def test_noise_hides_what_is_fine_and_not_what_is_wide() -> None:
    fine, wide = (
        float(evened(2.0 * tensor(wave(period, 0.0)), 4.0 * FLAT, 0.4)[0, 0, 32:-32, 32:-32].std())
        for period in (2.9, 22.9)
    )
    assert fine > 1.15 * wide


def test_a_blot_is_made_weaker_and_what_lies_beside_it_stays() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0.0, 0.1, (SIDE, SIDE)).astype(np.float32)
    blot = noise.copy()
    blot[56:72, 56:72] += 3.0
    found = evened(tensor(blot), FLAT, 0.4)[0, 0].numpy()
    assert found[60:68, 60:68].mean() < 0.7 * blot[60:68, 60:68].mean()
    assert np.abs(found[:16] - noise[:16]).max() < 0.02


def test_steps_are_whole_keep_the_mean_and_lie_apart() -> None:
    assert sorted(np.rint(spread() * TILE**2 - 0.5).astype(int).ravel().tolist()) == list(range(TILE**2))
    flat = np.full((SIDE, SIDE), 0.25 * BASE, np.float32)
    flat[:, 64:] = 0.0
    amplitude = np.full((SIDE, SIDE), BASE, np.float32)
    steps = module._steps(flat, LEVEL)
    assert set(np.unique(np.rint(steps / np.float32(LEVEL)))) == {0.0, 1.0}
    assert steps[:, :64].mean() == pytest.approx(0.25 * BASE, rel=0.05) and not steps[:, 64:].any()
    on = steps[:, :64] > 0
    touching = (on[1:] & on[:-1]).sum() + (on[:, 1:] & on[:, :-1]).sum()
    assert touching < 0.15 * on.sum()  # by lot it were 0.44
    assert quiet(flat, np.zeros_like(amplitude), LEVEL) is flat


@pytest.mark.parametrize("unit", [LEVEL, 1.0 / 4095.0])
@pytest.mark.parametrize("kind", ["noise", "wave", "coarse"])
def test_the_second_measure_sees_next_to_nothing_of_the_strongest_changes(kind: str, unit: float) -> None:
    """Changes that use all of their amplitude everywhere, as an optimiser that knows no eye would."""
    random = np.random.default_rng(1)
    signs = {
        "noise": lambda: random.choice([-1.0, 1.0], (SIDE, SIDE)),
        "wave": lambda: np.sign(wave(9.0, 0.4)),
        "coarse": lambda: np.kron(random.choice([-1.0, 1.0], (SIDE // 8, SIDE // 8)), np.ones((8, 8))),
    }
    amplitude = np.full((SIDE, SIDE), BASE, np.float32)
    change = (signs[kind]() * BASE).astype(np.float32)
    ground = np.full((SIDE, SIDE), 0.5, np.float32)
    assert (seen_differences(ground, ground + change, 3.0) > 1.0).mean() > 0.2
    made = quiet(change, amplitude, unit)
    assert np.abs(made).max() <= max(BASE, unit) + 1e-6
    assert np.abs(made).mean() > 0.2 * BASE  # and something is left
    for magnification in (1.0, 3.0):
        assert (seen_differences(ground, ground + made, magnification) > 1.0).mean() < 0.05


def test_colours_lose_luminance_alone() -> None:
    change = np.stack([wave(9.0, 0.0), wave(9.0, 0.0), -wave(5.0, 1.0)], axis=2) * np.float32(BASE)
    made = quiet(change, np.full((SIDE, SIDE), BASE, np.float32), None)
    lost = change - made
    assert np.abs(lost).max() > 0.05 * BASE
    assert np.abs(lost - lost.mean(axis=2, keepdims=True)).max() < 1e-6
    assert EVEN < 1.0
