"""What is shipped of trained networks is whole, of the sets that it is said to be of, and tells why when it is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gateway.errors import ConfigError, GatewayError
from gateway.mark import load_profiles
from gateway.mark.evaluation.judge import load_judge
from gateway.mark.surrogates import store
from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import load_net, save_net, write_whole
from gateway.training import ship
from gateway.training.demo_pictures import chosen
from gateway.training.open_sets import OpenImages, shared_folder
from gateway.training.ship import ship_net
from gateway.training.shipped_generators import COLUMNS, SIDE, drafted_images_of

CLASSES = ("no", "yes")
CPU = torch.device("cpu")


def images(classes: tuple[str, ...] = CLASSES) -> OpenImages:
    stack = np.random.default_rng(0).integers(0, 255, (4, 64, 64), np.uint8)
    names = tuple(map(str, range(4)))
    return OpenImages(stack, np.arange(4) % len(classes), classes, names, names)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    save_net(MultiTaskNet("mobile", 3, {"stone": CLASSES}, shared=True), tmp_path / "trained.safetensors", 64)
    return tmp_path / "trained.safetensors"


def test_a_file_that_is_broken_off_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "net.safetensors"
    write_whole(file, {"a": torch.ones(2)}, {})
    before = file.read_bytes()

    def broken(tensors: object, name: str, metadata: object) -> None:
        Path(name).write_bytes(before[:10])
        raise OSError("no room")

    monkeypatch.setattr(store, "save_file", broken)
    with pytest.raises(OSError, match="no room"):
        save_net(MultiTaskNet("mobile", 1, {"stone": CLASSES}), file, 64)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]


def test_what_is_shipped_is_replaced_once_it_is_judged(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = source.with_name("judge.safetensors")
    target.write_bytes(b"the one before")
    sets = {"stone": images()}
    with monkeypatch.context() as patched:
        patched.setattr(ship, "right_answers", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ship_net(source, target, sets, sets)
    assert target.read_bytes() == b"the one before" and set(source.parent.iterdir()) == {source, target}
    assert ship_net(source, target, sets, sets).test["stone"].images == 4
    load_net(target, CPU)


def test_classes_that_are_numbered_otherwise_are_no_figure(source: Path) -> None:
    target = source.with_name("judge.safetensors")
    with pytest.raises(ConfigError) as caught:
        ship_net(source, target, {"stone": images()}, {"stone": images(("yes", "no"))})
    assert caught.value.code == "other-classes" and not target.exists()
    with pytest.raises(GatewayError) as corrupt:
        ship_net(source.with_name("nothing"), target, {}, {})
    assert corrupt.value.code == "weights-corrupt"


@pytest.mark.parametrize("content", ["damaged", "fewer", "other networks", "right", "older"])
def test_drafts_are_taken_from_the_run_that_they_belong_to(content: str, tmp_path: Path) -> None:
    cache, profile = tmp_path / "fundus_dr-drafted.safetensors", load_profiles()["fundus"]
    told = {"fewer": f"7 images of {SIDE}, networks w", "other networks": f"8 images of {SIDE}, networks v"}
    header = {} if content == "older" else {"run": told.get(content, f"8 images of {SIDE}, networks w")}
    write_whole(cache, {name: torch.zeros(2, 1, 4, 4) for name in COLUMNS}, header)
    if content == "damaged":
        cache.write_bytes(cache.read_bytes()[:50])
    if content in ("right", "older"):
        assert len(drafted_images_of("fundus_dr", tmp_path, 8, profile, (), "w", cache)) == 2
        return
    with pytest.raises(ConfigError) as caught:
        drafted_images_of("fundus_dr", tmp_path, 8, profile, (), "w", cache)
    assert caught.value.code == "bad-checkpoint" and cache.name in caught.value.message


def test_too_few_pictures_of_a_class_are_no_dozen(labelled_sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = load_judge(3)
    said = judge.judge

    def never_melanoma(shown: np.ndarray, task: str | None = None) -> list:
        return [replace(one, class_name="nevus") for one in said(shown[:1], task)] * len(shown)

    monkeypatch.setattr(judge, "judge", never_melanoma)  # the shipped one is right often enough
    with pytest.raises(ConfigError) as caught:
        chosen(shared_folder(labelled_sets), judge)
    assert caught.value.code == "no-images" and "dermoscopy" in caught.value.message
