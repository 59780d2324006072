"""Training a generator: it learns without labels, resumes as if never stopped, and removals let gradients through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gateway.errors import MarkError
from gateway.mark import MarkRequest
from gateway.mark.methods.generator_net import Generator, TextureNet, generate_texture
from gateway.mark.surrogates.consensus import consensus
from gateway.mark.surrogates.objective import Target, draw_views
from gateway.training.drafts import draft_images
from gateway.training.generator import Plan, train_generator
from gateway.training.removal import UNTOUCHED, blur, fewer_levels, jpeg_like, random_removal, shrink_and_grow
from tests.support.mark.generators import drafted, interrupted, seeded, surrogates, trained
from tests.support.mark.samples import BRAIN, CPU, KEY, OTHER_KEY, gray8


def margin_under(net: TextureNet) -> float:
    """Return the surrogate's mean margin on the drafted' whole images, marked by ``net`` under a key never trained."""
    clean, amplitude, offset, direction, _ = drafted().batch(range(8), CPU)
    texture = generate_texture(Generator("net", net), clean, amplitude, offset, [KEY] * 8, direction)
    view = draw_views([np.random.default_rng(0)] * 8, clean.shape[2:], 1, 1, CPU)
    images = (clean + offset + amplitude * texture).clamp(0.0, 1.0)
    with torch.no_grad():
        (held,) = consensus(clean, surrogates(), BRAIN.tasks)
        return float(Target(surrogates()[0], clean, view, held).loss(images, 0)[1].mean())


@pytest.mark.full
def test_sixty_steps_mislead_more_than_none() -> None:
    net, told = trained(60)
    assert [step.number for step in told] == list(range(1, 61))
    assert not any(parameter.requires_grad for parameter in net.parameters()) and not net.training
    assert margin_under(net) < margin_under(seeded()) - 0.015  # little may change: it begins with the direction's sign


@pytest.mark.full
def test_keys_stay_apart() -> None:
    """With the term for diversity the textures of two keys agree less than without it."""

    def agreement(diversity: float) -> float:
        plan = Plan(steps=60, pairs=2, rate=1e-2, diversity=diversity)
        drafts = drafted(side=320)
        net = train_generator([drafts], surrogates(), plan)
        clean, amplitude, offset, direction, _ = (one.expand(2, -1, -1, -1) for one in drafts.batch([0], CPU))
        first, second = generate_texture(Generator("net", net), clean, amplitude, offset, [KEY, OTHER_KEY], direction)
        first, second = (one * amplitude[0] for one in (first, second))
        return abs(float((first * second).sum() / (first.norm() * second.norm())))

    assert agreement(20.0) < agreement(0.0) - 0.1


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole, _ = trained(4)
    interrupted(2, 4, tmp_path / "run.ckpt")
    resumed, told = trained(4, tmp_path / "run.ckpt")
    assert [step.number for step in told] == [3, 4]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_plan_is_not_gone_on_from(tmp_path: Path) -> None:
    """Its network would have more steps behind it than its file says."""
    interrupted(2, 4, tmp_path / "run.ckpt")
    with pytest.raises(MarkError) as raised:
        trained(2, tmp_path / "run.ckpt")
    assert raised.value.code == "checkpoint-corrupt" and "other steps" in raised.value.message


def test_the_seed_decides_and_the_global_state_stays() -> None:
    state = torch.random.get_rng_state()
    plan = Plan(steps=1, pairs=1)
    first, again, other = (train_generator([drafted()], surrogates(), replace(plan, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "of another network"])
def test_a_checkpoint_that_cannot_be_used_is_told(content: bytes | str, tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save({"net": TextureNet(3).state_dict(), "adam": {}, "done": 1}, file)
    with pytest.raises(MarkError) as raised:
        trained(4, file)
    assert raised.value.code == "checkpoint-corrupt"
    assert "run.ckpt" in raised.value.message and "delete" in raised.value.hint


def test_without_images_or_surrogates_it_says_so() -> None:
    with pytest.raises(MarkError) as raised:
        train_generator([], surrogates(), Plan(steps=1))
    assert raised.value.code == "no-images"
    with pytest.raises(MarkError) as raised:
        train_generator([replace(drafted(), tasks=("hip",))], surrogates(), Plan(steps=1))
    assert (raised.value.code, "hip" in raised.value.message) == ("no-surrogate", True)
    with pytest.raises(MarkError, match="1 image-too-small"):
        draft_images([MarkRequest(np.zeros((8, 8), np.uint8), bytes(32))], BRAIN, (), CPU)


def test_drafted_images_hold_the_limits_of_a_mark() -> None:
    """Letters with their offset where a word fits, discreet texture alone in the eighth, nothing out of the region."""
    drawn = drafted()
    assert drawn.clean.shape == drawn.amplitude.shape == drawn.offset.shape == (8, 1, 64, 64)
    lettered = (drawn.offset != 0).flatten(1).any(1)
    assert lettered[:7].sum() >= 5 and not lettered[7]
    assert (drawn.amplitude.flatten(1).amax(1) > 0).all()
    assert drawn.amplitude[7].max() < 0.3 * drawn.amplitude[0].max()
    again = draft_images(
        [MarkRequest(gray8(160, 160, s), OTHER_KEY) for s in range(2)], BRAIN, surrogates(), CPU, side=64
    )
    assert torch.equal(again.offset, drawn.offset[:2])  # keys come from the seed
    other = draft_images([MarkRequest(gray8(seed=0), KEY)], BRAIN, surrogates(), CPU, seed=1, side=64)
    assert not torch.equal(other.offset[0], drawn.offset[0])


REMOVALS = {
    "shrink": lambda images: shrink_and_grow(images, 0.5),
    "blur": lambda images: blur(images, 1.0),
    "levels": lambda images: fewer_levels(images, 16),
    "jpeg": lambda images: jpeg_like(images, 50.0),
}


def picture(height: int = 52, width: int = 70) -> torch.Tensor:
    """Return a (2, 1, height, width) phantom twice: sides that are no multiples of 8."""
    return torch.from_numpy(gray8(height, width).astype(np.float32) / 255.0).expand(2, 1, height, width).clone()


@pytest.mark.parametrize("name", REMOVALS)
def test_removals_change_a_little_and_let_gradients_through(name: str) -> None:
    images = picture().requires_grad_(True)
    after = REMOVALS[name](images)
    assert after.shape == images.shape
    change = (after - images).detach().square().mean().sqrt()
    assert 0.002 < float(change) < 0.1
    (gradient,) = torch.autograd.grad((after * torch.linspace(0, 1, 70)).sum(), images)
    assert float((gradient != 0).float().mean()) > 0.9


def test_the_stand_in_for_jpeg_is_near_jpeg(tmp_path: Path) -> None:
    """Its error points where that of the real encoder points, at any quality."""
    images = picture(64, 64)
    for quality in (50, 80):
        Image.fromarray(gray8(64, 64)).save(tmp_path / "picture.jpg", quality=quality)
        real = np.asarray(Image.open(tmp_path / "picture.jpg")).astype(np.float32) / 255.0
        error, wanted = (
            one.ravel() - images[0, 0].numpy().ravel() for one in (jpeg_like(images, quality)[0, 0].numpy(), real)
        )
        assert np.corrcoef(error, wanted)[0, 1] > 0.9


def test_a_blur_keeps_flat_areas_and_levels_are_counted() -> None:
    assert torch.allclose(blur(torch.full((1, 3, 20, 20), 0.3), 1.5), torch.tensor(0.3), atol=1e-6)
    assert len(torch.unique((fewer_levels(picture(), 16) * 15).round())) <= 16


def test_as_many_draws_stay_untouched_as_said() -> None:
    random, images = np.random.default_rng(0), picture(32, 32)
    same = [random_removal(images, random) is images for _ in range(300)]
    assert abs(np.mean(same) - UNTOUCHED) < 0.08
