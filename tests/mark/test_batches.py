"""The batched path that CUDA takes, driven on CPU; and on CUDA itself where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gateway.errors import MarkError
from gateway.mark import MarkedImage, Marker, MarkSettings
from gateway.mark.methods import strong as strong_module
from tests.support.mark.samples import BRAIN, SHORT, gray8, requests, small_pack


def batched(size: int) -> Marker:
    """Return a CPU marker that computes ``size`` frames together, as a CUDA one does."""
    marker = Marker(SHORT, packs=[small_pack()])
    marker._batch = size
    return marker


def test_filled_batches_do_not_depend_on_the_number_of_frames() -> None:
    frames = requests(5)
    frames[3] = type(frames[3])(gray8(64, 80), frames[3].key, roi=np.zeros((64, 80), bool))  # another shape
    together = batched(4).mark(frames, BRAIN)
    apart = [batched(4).mark([frame], BRAIN)[0] for frame in frames]
    for one, other in zip(together, apart, strict=True):
        assert isinstance(one, MarkedImage)
        assert np.array_equal(one.image, other.image)


def test_full_memory_halves_the_batch_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = strong_module.optimise_texture

    def tight(clean: torch.Tensor, *rest: object, **more: object) -> torch.Tensor:
        seen.append(len(clean))
        if len(clean) > 2:
            raise torch.OutOfMemoryError("no more")
        return original(clean, *rest, **more)

    monkeypatch.setattr(strong_module, "optimise_texture", tight)
    results = batched(8).mark(requests(3), BRAIN)
    assert all(isinstance(result, MarkedImage) for result in results)
    assert seen == [8, 4, 2, 2]


def test_memory_that_is_never_enough_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(strong_module, "optimise_texture", never)
    results = batched(4).mark(requests(2), BRAIN)
    assert [result.code for result in results if isinstance(result, MarkError)] == ["device-failed"] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_repeatable_for_any_batch() -> None:
    marker = Marker(MarkSettings(steps=5, device="cuda"), packs=[small_pack()])
    frames = requests(5)
    together = marker.mark(frames, BRAIN)
    apart = [marker.mark([frame], BRAIN)[0] for frame in frames]
    for one, other in zip(together, apart, strict=True):
        assert isinstance(one, MarkedImage) and np.array_equal(one.image, other.image)


def test_the_number_of_cores_changes_nothing() -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for cores in (1, 2):
            torch.set_num_threads(cores)
            found.append(Marker(SHORT, packs=[small_pack()]).mark(requests(3), BRAIN))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert isinstance(one, MarkedImage)
        assert np.array_equal(one.image, other.image)


def test_the_caller_keeps_its_own_cores() -> None:
    before = torch.get_num_threads()
    batched(1).mark(requests(2), BRAIN)
    assert torch.get_num_threads() == before
