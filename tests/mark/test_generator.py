"""The generator: shapes, keys, batches, files, and the promises of every mark kept by its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gateway.errors import ConfigError, MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings
from gateway.mark.methods import generator_packs as packs_module
from gateway.mark.methods.generator_net import (
    Generator,
    TextureNet,
    generate_texture,
    key_bits,
    load_generator,
    save_generator,
)
from gateway.mark.methods.generator_packs import load_generator_packs, select_generator_pack
from tests.mark.test_promises import CASES, check, only
from tests.support.mark.generators import GENERATOR, marker_of, pack_of, seeded
from tests.support.mark.samples import (
    BRAIN,
    CPU,
    GRAY,
    KEY,
    OTHER_KEY,
    RGB,
    disc,
    gray8,
    marker,
    requests,
    rgb8,
    small_pack,
)


def texture(net: TextureNet, keys: list[bytes], height: int = 64, width: int = 64) -> torch.Tensor:
    """Return textures of one picture under several keys."""
    picture = torch.from_numpy(gray8(height, width).astype(np.float32) / 255.0).expand(
        len(keys), net.channels, height, width
    )
    flat = torch.full((len(keys), 1, height, width), 0.1)
    return generate_texture(Generator("net", net), picture, flat, 0.0 * flat, keys, torch.zeros_like(picture))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (96, 130)])
def test_any_size_gives_a_texture_of_that_size(channels: int, height: int, width: int) -> None:
    found = texture(seeded(channels), [KEY], height, width)
    assert found.shape == (1, channels, height, width)
    assert float(found.abs().max()) <= 1.0
    assert float(found.std()) > 0.05


def test_what_is_left_of_an_image_does_not_depend_on_its_padding() -> None:
    """A picture whose sides are no multiples of the network's blocks is padded with its own edge, not with black."""
    net = seeded()
    picture = torch.full((1, 1, 60, 60), 0.7)
    flat = torch.full((1, 1, 60, 60), 0.125)  # a power of two: its mean is exact for any number of pixels
    found = generate_texture(Generator("net", net), picture, flat, flat, [KEY], flat)
    whole = [torch.nn.functional.pad(one, (0, 4, 0, 4), mode="replicate") for one in (picture, flat, flat)]
    wanted = generate_texture(Generator("net", net), *whole, [KEY], whole[1])[:, :, :60, :60]
    assert torch.equal(found, wanted)


def test_the_key_turns_the_texture() -> None:
    first, second, again = texture(seeded(), [KEY, OTHER_KEY, KEY])
    assert torch.equal(first, again)
    assert not torch.allclose(first, second, atol=0.05)


def test_it_begins_with_the_sign_of_the_pull() -> None:
    """An untrained network draws what one gradient asks for; without a direction its texture is its own alone."""
    net = seeded()
    picture = torch.from_numpy(gray8(64, 64).astype(np.float32) / 255.0)[None, None]
    flat = torch.full((1, 1, 64, 64), 0.1)
    direction = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    found = generate_texture(Generator("net", net), picture, flat, 0.0 * flat, [KEY], direction)
    asked = torch.nn.functional.avg_pool2d(direction, 2).sign().repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float((found.sign() == asked).float().mean()) > 0.95
    assert not torch.equal(found, texture(net, [KEY]))


def test_key_bits_are_not_the_bits_of_the_key() -> None:
    bits = key_bits(KEY)
    own = np.unpackbits(np.frombuffer(KEY, np.uint8)) * 2.0 - 1.0
    assert set(np.unique(bits)) == {-1.0, 1.0}
    assert abs(np.mean(bits * own)) < 0.3
    assert abs(np.mean(bits * key_bits(OTHER_KEY))) < 0.3


def test_a_frame_does_not_depend_on_what_is_beside_it(tmp_path: Path) -> None:
    made = marker_of(tmp_path)
    made._batch = 4  # as on CUDA: filled batches
    frames = requests(3)
    together = made.mark(frames, BRAIN)
    for frame, wanted in zip(frames, together, strict=True):
        (alone,) = made.mark([frame], BRAIN)
        assert isinstance(alone, MarkedImage) and isinstance(wanted, MarkedImage)
        assert np.array_equal(alone.image, wanted.image)


def test_two_keys_give_different_marks(tmp_path: Path) -> None:
    (request,) = requests()
    made = marker_of(tmp_path)
    mine, theirs = only(made.mark([request], BRAIN)), only(made.mark([replace(request, key=OTHER_KEY)], BRAIN))
    again = only(made.mark([request], BRAIN))
    assert np.array_equal(mine.image, again.image)
    assert mine.air is not None
    body = ~mine.air  # so little air has one place for a word, whatever the key
    assert abs(np.corrcoef(mine.residual[body], theirs.residual[body])[0, 1]) < 0.2


@pytest.mark.parametrize("tier", ["lettered", "discreet"])
@pytest.mark.parametrize(
    "case", ["uint8", "uint8 wide", "uint8 larger than the working size", "int16 padded", "saliency"]
)
def test_promises(case: str, tier: str, tmp_path: Path) -> None:
    request, profile = CASES[case]
    settings = GENERATOR.model_copy(update={"tier": tier})
    check(request, only(marker_of(tmp_path, settings).mark([request], profile)), settings, profile.noise_factor)


def test_promises_rgb(tmp_path: Path) -> None:
    settings = GENERATOR.model_copy(update={"steps": 0})  # local detail for saliency: the pack here is gray
    request = MarkRequest(rgb8(), KEY, roi=disc((96, 96), 0.15))
    check(request, only(marker_of(tmp_path, settings, 3).mark([request], RGB)), settings, RGB.noise_factor)


def test_colour_is_limited(tmp_path: Path) -> None:
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    seen = []
    for chroma in (0.0, RGB.chroma):
        made = marker_of(tmp_path, GENERATOR.model_copy(update={"steps": 0}), 3)
        result = only(made.mark([MarkRequest(rgb8(), KEY)], replace(RGB, chroma=chroma)))
        uncut = result.strokes & (result.image.min(axis=2) > 0) & (result.image.max(axis=2) < 255)
        inner = torch.from_numpy(result.residual[uncut].astype(np.float32)).T[:, :, None]
        seen.append(float((inner - (inner * luma).sum(0)).abs().mean()))
    assert seen[0] == 0.0 and seen[1] > 0.1  # of words that are drawn plainly and of those that carry texture


def test_refinement_lowers_what_the_surrogate_believes(tmp_path: Path) -> None:
    """At a size at which the network is sure of what it sees: of smaller phantoms it holds three classes possible."""
    (surrogate,) = small_pack().load(CPU)
    asked = [MarkRequest(gray8(256, 256, seed), KEY) for seed in range(3)]

    def believed(refine: int) -> float:
        made = marker_of(tmp_path, GENERATOR.model_copy(update={"refine": refine}))
        images = [only([one]).image for one in made.mark(asked, BRAIN)]
        stack = torch.from_numpy(np.stack(images)[:, None] / np.float32(255.0))
        first = torch.from_numpy(np.stack([one.image for one in asked])[:, None] / np.float32(255.0))
        with torch.no_grad():
            wanted = surrogate.net(first).logits["brain_tumor"].argmax(1)
            return float(surrogate.net(stack).logits["brain_tumor"].softmax(1)[torch.arange(3), wanted].mean())

    assert believed(5) < believed(0) - 0.02


def test_no_placement_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a placement was searched")

    monkeypatch.setattr("gateway.mark.placement.letters.remaining_probability", fail)
    only(marker_of(tmp_path).mark([MarkRequest(gray8(), KEY)], BRAIN))


def test_files_round_trip(tmp_path: Path) -> None:
    net = seeded(3)
    save_generator(net, tmp_path / "a.safetensors", ["skin"], ["dermoscopy"])
    found = load_generator(tmp_path / "a.safetensors", CPU)
    assert (found.tasks, found.profiles, found.net.channels) == (("skin",), ("dermoscopy",), 3)
    assert (tmp_path / "a.safetensors").stat().st_size < 4e6
    difference = texture(found.net, [KEY]) - texture(net, [KEY])
    assert 0.0 < float(difference.abs().max()) < 0.05  # float16 and nothing else


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign", "channels"])
def test_a_damaged_file_is_told(damage: str, tmp_path: Path) -> None:
    pack = pack_of(seeded(), tmp_path)
    if damage == "missing":
        pack.file.unlink()
    elif damage == "cut":
        pack.file.write_bytes(pack.file.read_bytes()[:-100])
    elif damage == "foreign":
        pack.file.write_bytes(small_pack().files[0].read_bytes())
    else:
        save_generator(seeded(3), pack.file)
    (result,) = Marker(GENERATOR, packs=[small_pack()], generators=[pack]).mark(requests(), BRAIN)
    assert isinstance(result, MarkError)
    assert result.code == "weights-corrupt"
    assert "net.safetensors" in result.message


def test_values_that_are_not_finite_are_told(tmp_path: Path) -> None:
    net = seeded()
    torch.nn.init.constant_(net.head.bias, float("nan"))
    (result,) = Marker(GENERATOR, packs=[small_pack()], generators=[pack_of(net, tmp_path)]).mark(requests(), BRAIN)
    assert isinstance(result, MarkError) and result.code == "generator-nan"


def test_without_a_generator_the_error_says_what_to_do(tmp_path: Path) -> None:
    gray = pack_of(seeded(), tmp_path)
    for offered, request, profile in (
        ([], requests()[0], BRAIN),
        ([gray], MarkRequest(rgb8(), KEY), RGB),
        ([replace(gray, profiles=("ct",))], requests()[0], BRAIN),
    ):
        made = Marker(GENERATOR, packs=marker()._packs, generators=offered)
        (result,) = made.mark([request], profile)
        assert isinstance(result, MarkError) and result.code == "no-generator"
        assert profile.name in result.message and "train-mark" in result.hint


def test_a_pack_for_the_profile_comes_first(tmp_path: Path) -> None:
    general = pack_of(seeded(), tmp_path, name="general")
    own = replace(general, name="own", profiles=("brain-mr",))
    assert select_generator_pack([general, own], "brain-mr", 1).name == "own"
    assert select_generator_pack([own, general], "ct", 1).name == "general"


def test_the_sites_own_file_stands_for_all_packs(tmp_path: Path) -> None:
    file = pack_of(seeded(), tmp_path).file
    settings = GENERATOR.model_copy(update={"generator": file})
    only(Marker(settings, packs=[small_pack()], generators=[]).mark(requests(), BRAIN))
    made = Marker(settings, packs=marker()._packs, generators=[])
    (result,) = made.mark([MarkRequest(rgb8(), KEY)], RGB)
    assert isinstance(result, MarkError) and result.code == "no-generator" and "1 channel" in result.message


def test_the_licence_warning_comes_with_the_pack(tmp_path: Path) -> None:
    pack = pack_of(seeded(), tmp_path, licence_warning="mind the licence")
    assert "mind the licence" in Marker(GENERATOR, packs=[], generators=[pack]).licence_warnings(GRAY)
    assert "mind the licence" not in Marker(GENERATOR, packs=[], generators=[pack]).licence_warnings(RGB)
    strong = Marker(MarkSettings(device="cpu"), packs=[], generators=[pack])
    assert strong.licence_warnings(GRAY) == []


def test_an_entry_point_that_is_no_pack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "other"

        def load(self) -> object:
            return "no pack"

    monkeypatch.setattr(packs_module, "entry_points", lambda group: [Entry()])
    with pytest.raises(ConfigError, match="no generator pack"):
        load_generator_packs()


@pytest.mark.parametrize("changes", [{"refine": 1}, {"generator": Path("a.safetensors")}])
def test_settings_of_the_generator_go_with_its_mode_only(changes: dict) -> None:
    with pytest.raises(ValueError, match="mode 'generator' only"):
        MarkSettings(**changes)
