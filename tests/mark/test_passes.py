"""Which surrogates a step asks, in which precision, and when it stops."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gateway.mark.methods.gradients import IN_TURN
from gateway.mark.methods.strong import optimise_texture
from gateway.mark.surrogates.consensus import consensus
from gateway.mark.surrogates.half import HalfNet, halved
from gateway.mark.surrogates.nets import MultiTaskNet, NetOutput
from gateway.mark.surrogates.packs import Surrogate
from plugins.surrogates import gray
from tests.support.mark.samples import BRAIN, CPU, gray8, marker, requests


class Plain:
    """A network of one matrix: what it is asked is counted, and how firm it is, is set."""

    channels = 1

    def __init__(self, name: str, seed: int, firmness: float, asked: Counter[str]) -> None:
        self.tasks = {"task": ("one", "other")}
        random = np.random.default_rng(seed)
        self._weights = torch.from_numpy(random.normal(0.0, firmness, (2, 32 * 32)).astype(np.float32))
        self._name, self._asked = name, asked

    def __call__(self, images: Tensor) -> NetOutput:
        """Count what is asked for a gradient."""
        if images.requires_grad:
            self._asked[self._name] += 1
        shown = nn.functional.interpolate(images, (32, 32)).flatten(1)
        return NetOutput({"task": (shown - 0.5) @ self._weights.T}, None)


def plain(count: int, firmness: float, asked: Counter[str]) -> list[Surrogate]:
    """Return ``count`` such networks."""
    return [Surrogate(f"n{one}", Plain(f"n{one}", one, firmness, asked), 32) for one in range(count)]


def optimised(members: list[Surrogate], seeds: list[int], steps: int, amplitude: float) -> Tensor:
    """Return textures for phantoms of these seeds."""
    planes = np.stack([gray8(64, 64, seed) for seed in seeds])[:, None].astype(np.float32) / 255.0
    clean = torch.from_numpy(planes)
    random = [np.random.default_rng(seed) for seed in seeds]
    limits = torch.full_like(clean, amplitude)
    return optimise_texture(clean, limits, torch.zeros_like(clean), members, (), random, steps)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_step_asks_a_few_surrogates_and_all_come_to_their_turn(count: int) -> None:
    asked: Counter[str] = Counter()
    optimised(plain(count, 1.0, asked), [0], 12, 1e-6)  # too faint to be done
    assert len(asked) == count
    assert sum(asked.values()) == 12 * min(count, IN_TURN)
    assert min(asked.values()) * 2 >= max(asked.values())


def test_what_is_misled_with_a_margin_is_done_whatever_else_is_in_the_batch() -> None:
    asked: Counter[str] = Counter()
    both = optimised(plain(2, 1.0, asked), [0, 1], 30, 0.5)
    assert asked["n0"] < 30
    alone = [optimised(plain(2, 1.0, Counter()), [seed], 30, 0.5) for seed in (0, 1)]
    assert torch.equal(both, torch.cat(alone))


def test_sixteen_bits_say_and_lead_as_thirty_two_do() -> None:
    clean = torch.from_numpy(gray8(224, 224)[None, None].astype(np.float32) / 255.0)
    for member in gray.PACK.load(CPU):  # a processor without them computes the same, slowly
        nets = HalfNet(member.net), member.net  # type: ignore[arg-type]
        with torch.no_grad():
            said, meant = (net(clean).logits["brain_tumor"].softmax(1) for net in nets)
        assert torch.allclose(said, meant, atol=0.03)
        led = []
        for net in nets:
            shown = clean.clone().requires_grad_(True)
            logits = net(shown).logits["brain_tumor"]
            led.append(torch.autograd.grad(logits[0, 0] - logits[0, 1], shown)[0].flatten())
        assert torch.nn.functional.cosine_similarity(*led, dim=0) > 0.9


def test_without_sixteen_bits_all_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    net = MultiTaskNet("squeezenet", 1, {"task": ("one", "other")}).eval()
    member = Surrogate("one", net, 64)
    assert halved(member, CPU) is member
    assert halved(member, torch.device("cuda")) is member


def test_what_saliency_asked_is_not_asked_again() -> None:
    asked: Counter[str] = Counter()
    members = plain(2, 1.0, asked)
    clean = torch.rand(1, 1, 32, 32)
    said = {"n0": {"task": torch.tensor([[5.0, 0.0]])}}
    known = consensus(clean, members, (), known=said)
    fresh = consensus(clean, [members[1]], ())
    wanted = (said["n0"]["task"].softmax(1) + fresh[0]["task"]) / 2
    assert torch.allclose(known[0]["task"], wanted)
    (request,) = requests(roi=None)
    assert len(marker()._draft(request, BRAIN).answers) == 4  # type: ignore[union-attr]
