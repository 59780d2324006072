"""Training: it learns, goes on after an interruption with equal results, refuses what it cannot use."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from gateway.errors import ConfigError
from gateway.mark.surrogates.foreign import read_pack
from gateway.mark.surrogates.nets import RESERVED
from gateway.mark.surrogates.store import load_net
from gateway.training import SITE_NETS, Pictures, Plan, Trained, read_pictures, train_pack
from gateway.training.networks import Epoch, Recipe, accuracy, pool_of, train_net
from gateway.training.pack import check_nets, epochs_for, shipped_backbone, task_name
from gateway.training.pretrained import backbone
from gateway.training.split import hold_out, pseudo_labels

TINY = Recipe("convnext", 2, 2e-3, (48,))
CLASSES = ("dark", "bright")


def shades(count: int = 24, side: int = 40, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images, dark and bright in turn, and their labels."""
    labels = np.arange(count) % 2
    shape = (count, side, side) if channels == 1 else (count, side, side, 3)
    noise = np.random.default_rng(0).normal(0, 20, shape)
    level = np.where(labels, 180, 40).reshape(-1, *[1] * (len(shape) - 1))
    return np.clip(noise + level, 0, 255).astype(np.uint8), labels


def write_folders(folder: Path, count: int = 24) -> None:
    """Write the shades as PNG files, a folder per class, a folder per patient in it: 6 patients of 4 images."""
    for number, (image, label) in enumerate(zip(*shades(count), strict=True)):
        place = folder / CLASSES[label] / f"patient {number // 4}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_two_epochs_learn_what_is_easy_and_resume_equal(tmp_path: Path) -> None:
    images, labels = shades(channels=3)
    pool = pool_of("shade", CLASSES, images, labels)
    seen: list[Epoch] = []
    whole = train_net(TINY, 3, pool, tmp_path / "whole.ckpt", 2, seen.append, batch=4)
    assert accuracy(whole, "shade", *shades(side=64, channels=3)[:1], labels) == 1.0
    assert [(epoch.number, epoch.total) for epoch in seen] == [(1, 2), (2, 2)]
    assert seen[1].loss < seen[0].loss

    def interrupt(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_net(TINY, 3, pool, tmp_path / "broken.ckpt", 2, interrupt, batch=4)
    after: list[Epoch] = []
    resumed = train_net(TINY, 3, pool, tmp_path / "broken.ckpt", 2, after.append, batch=4)
    assert [epoch.number for epoch in after] == [2]
    assert same_weights(whole, resumed)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    images, labels = shades(12)
    checkpoint = tmp_path / "net.ckpt"
    train_net(TINY, 1, pool_of("shade", CLASSES, images, labels), checkpoint, 1, batch=4)
    other = images.copy()
    other[0, 0, 0] ^= 1
    for pool, epochs in ((pool_of("shade", CLASSES, other, labels), 1), (pool_of("shade", CLASSES, images, labels), 2)):
        with pytest.raises(ConfigError) as caught:
            train_net(TINY, 1, pool, checkpoint, epochs, batch=4)
        assert caught.value.code == "bad-checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(ConfigError, match="damaged"):
        train_net(TINY, 1, pool_of("shade", CLASSES, images, labels), checkpoint, 1, batch=4)


def test_a_pack_is_trained_resumed_and_taken_by_the_mark(tmp_path: Path) -> None:
    write_folders(tmp_path / "shades")
    pictures = read_pictures(tmp_path / "shades", 1)
    assert (len(pictures.images), pictures.classes, len(set(pictures.groups))) == (24, ("bright", "dark"), 6)
    plan = Plan(1, "shade", ("convnext",), epochs=2)
    pack = read_pack(train_pack(pictures, tmp_path / "whole", plan), "site")
    (member,) = pack.check()
    assert (member.net.tasks, member.input_size, pack.licence_warning) == ({"shade": ("bright", "dark")}, 128, "")
    card = (tmp_path / "whole" / "card.md").read_text()
    for words in (
        "24 images in 6 groups; labels: given",
        "whole groups",
        "| convnext | 1.000 |",
        "filled in by the site",
    ):
        assert words in card
    assert '"convnext": 1.0' in (tmp_path / "whole" / "figures.json").read_text()

    def interrupt(net: str, epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_pack(pictures, tmp_path / "broken", plan, interrupt)
    assert not (tmp_path / "broken" / "pack.toml").exists()
    train_pack(pictures, tmp_path / "broken", plan)
    name = "convnext.safetensors"
    whole, resumed = (load_net(tmp_path / run / name, torch.device("cpu"))[0] for run in ("whole", "broken"))
    assert same_weights(whole, resumed)


def test_a_site_s_network_starts_from_a_shipped_backbone_and_says_how_good_it_is(tmp_path: Path) -> None:
    images, labels = shades(40, 64)
    pictures = Pictures(images, labels, CLASSES, tuple(str(number) for number in range(40)))
    told: list[Trained] = []
    path = train_pack(pictures, tmp_path, Plan(1, "shade", ("squeezenet",), epochs=1), done=told.append)
    (member,) = read_pack(path, "site").check()
    assert (member.input_size, member.net.channels, member.net.tasks) == (224, 1, {"shade": CLASSES})
    own, _ = load_net(tmp_path / "squeezenet.safetensors", torch.device("cpu"), fold=False)
    shipped, _ = load_net(shipped_backbone("squeezenet"), torch.device("cpu"), fold=False)
    pairs = [(own.state_dict()[name], value) for name, value in backbone(shipped).items()]
    frozen = [torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4) for mine, theirs in pairs]
    assert all(frozen[:16]) and not all(frozen)  # the first layers as shipped, the last ones learnt
    (one,) = told
    assert one.held == 8 and one.usual == 0.5 and "of 8 images (always the commonest class: 0.50)" in one.told()
    assert "weak" in Trained("net", 0.6, 1.0, 40, 0.5).told() and "weak" not in Trained("net", 0.9, 1.0, 40, 0.5).told()
    with pytest.raises(ConfigError) as caught:
        shipped_backbone("convnext")
    assert caught.value.code == "weights-missing"


def test_images_without_labels_get_clusters(tmp_path: Path) -> None:
    images, labels = shades(24, 160)
    found, names = pseudo_labels(images, 2)
    assert names == ("cluster 1", "cluster 2")
    assert len({(a, b) for a, b in zip(found.tolist(), labels.tolist(), strict=True)}) == 2  # one cluster per shade
    assert np.array_equal(found, pseudo_labels(images, 2)[0])
    with pytest.raises(ConfigError) as caught:
        pseudo_labels(images[:7], 2)
    assert caught.value.code == "too-few-images"
    pictures = Pictures(images, None, (), tuple(map(str, range(24))), {"image-too-small": 3})
    train_pack(pictures, tmp_path, Plan(1, "looks", ("convnext",), epochs=1, clusters=2))
    card = (tmp_path / "card.md").read_text()
    assert "labels: pseudo labels" in card and "looks, not findings" in card and "3 image-too-small" in card


def test_groups_are_never_split_and_every_class_is_learnt_from() -> None:
    random = np.random.default_rng(1)
    groups = [f"patient {number}" for number in random.integers(0, 40, 300)]
    labels = random.integers(0, 3, 300)
    held = hold_out(groups, labels)
    names = np.array(groups)
    assert not set(names[held]) & set(names[~held])
    for label in range(3):
        assert 0.05 < held[labels == label].mean() <= 0.2
    assert not hold_out(["one"] * 10, np.arange(10) % 2).any()
    few = hold_out(list("abcdef"), np.array([0, 0, 1, 1, 2, 2]))
    assert set(np.array([0, 0, 1, 1, 2, 2])[~few]) == {0, 1, 2}


def test_labels_from_a_csv_file_and_from_arrays(tmp_path: Path) -> None:
    images, labels = shades(12)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "group"])
        writer.writerows([f"{n}.png", CLASSES[labels[n]], f"p{n // 3}"] for n in range(10))
    found = read_pictures(tmp_path, 1)
    assert (len(found.images), found.classes, len(set(found.groups))) == (10, ("bright", "dark"), 4)
    assert read_pictures(tmp_path, 1, unlabelled=True).labels is None
    (tmp_path / "arrays").mkdir()
    np.savez(tmp_path / "arrays" / "a.npz", images=images.astype(np.uint16) * 16, labels=labels)
    arrays = read_pictures(tmp_path / "arrays", 1)
    assert arrays.labels is not None and np.array_equal(arrays.labels, labels)
    assert arrays.groups == ("a.npz",) * 12
    assert len(read_pictures(tmp_path, 1, unlabelled=True, limit=5).images) == 5


def test_what_cannot_be_used_is_counted_or_refused(tmp_path: Path) -> None:
    images, _ = shades(2)
    Image.fromarray(images[0]).save(tmp_path / "good.png")
    Image.fromarray(images[0][:20]).save(tmp_path / "small.png")
    Image.new("L", (64, 64), 7).save(tmp_path / "flat.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (tmp_path / "other.bin").write_bytes(b"nothing of the kind")
    np.savez(tmp_path / "colour.npz", images=np.zeros((1, 40, 40, 3), np.uint8))
    found = read_pictures(tmp_path, 1)
    assert len(found.images) == 1 and sum(found.skipped.values()) == 5
    assert {"image-too-small", "image-empty", "cannot-read", "wrong-channels"} < set(found.skipped)
    (tmp_path / "good.png").unlink()
    with pytest.raises(ConfigError) as caught:
        read_pictures(tmp_path, 1)
    assert caught.value.code == "no-images"
    for text in ("path,class\n", "file,label\nnone.png,a\n"):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_pictures(tmp_path, 1)
        assert caught.value.code == "bad-labels"


def test_dicom_is_seen_in_the_window_of_the_pipeline(tmp_path: Path) -> None:
    """The header's window is taken and MONOCHROME1 turned over, as where marks are made; patients are groups."""
    data = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    for number, (photometric, centre, patient) in enumerate((("MONOCHROME2", 40, "A"), ("MONOCHROME1", 40, "A"))):
        data.PhotometricInterpretation, data.PatientID = photometric, patient
        data.WindowCenter, data.WindowWidth = centre, 400
        data.save_as(tmp_path / f"{number}.dcm")
    data.PhotometricInterpretation, data.PatientID, data.WindowCenter = "MONOCHROME2", "B", 300
    data.save_as(tmp_path / "2.dcm")
    found = read_pictures(tmp_path, 1)
    plain, inverted, brighter = found.images.astype(int)
    assert found.images.shape == (3, 256, 256) and found.groups == ("A", "A", "B") and not found.skipped
    assert np.abs(plain + inverted - 255).max() <= 1
    assert brighter.mean() < plain.mean() - 10  # a higher window shows the same values darker
    with pytest.raises(ConfigError, match="3 wrong-channels"):
        read_pictures(tmp_path, 3)


def test_plans_stay_away_from_reserved_families_and_within_an_hour() -> None:
    check_nets(SITE_NETS)
    for net in (*RESERVED, "alexnet"):
        with pytest.raises(ConfigError) as caught:
            check_nets(("vgg", net))
        assert caught.value.code == "no-such-net"
    for count in (24, 500, 2000, 6000):
        shown = {net: count * epochs_for(net, count) for net in SITE_NETS}
        assert all(value <= 30_000 for value in shown.values())
    assert epochs_for("vgg", 24) == 60
    assert (task_name("Brain MR (2024)"), task_name("Items")) == ("brain_mr_2024", "items_task")


def test_too_little_to_learn_from(tmp_path: Path) -> None:
    images, labels = shades(24)
    for keep, own in (
        (slice(0, 6), labels),
        (slice(0, 24), np.zeros(24, int)),
        (slice(0, 24), np.eye(24, dtype=int)[0]),
    ):
        pictures = Pictures(images[keep], own[keep], CLASSES, tuple(map(str, range(24)))[keep])
        with pytest.raises(ConfigError) as caught:
            train_pack(pictures, tmp_path, Plan(1, "t", ("convnext",), epochs=1))
        assert caught.value.code == "too-few-images"
