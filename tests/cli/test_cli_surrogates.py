"""`surrogates` and [[surrogates]]: a pack is trained, tried, named in the configuration and used; mistakes are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """24 images of 40 px, dark and bright, a folder per class."""
    random = np.random.default_rng(0)
    folder = tmp_path / "shades"
    for name, level in (("bright", 180), ("dark", 40)):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            values = np.clip(random.normal(level, 20, (40, 40)), 0, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """The description of a pack with one of our networks, untrained."""
    import torch

    from gateway.mark.surrogates.nets import MultiTaskNet
    from gateway.mark.surrogates.store import save_net

    folder = tmp_path / "site" / "own"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_net(MultiTaskNet("vgg", 1, {"stone": ("no", "yes")}).eval(), folder / "net.safetensors", 64)
    (folder / "pack.toml").write_text('channels = 1\n[[models]]\nformat = "miad"\nfile = "net.safetensors"\n')
    return folder / "pack.toml"


@pytest.fixture
def named(sample: Path, pack: Path) -> Path:
    """The sample configuration whose route marks against that pack."""
    text = sample.read_text().replace("[routes.mark]", '[routes.mark]\nsteps = 2\nsurrogates = ["own"]')
    sample.write_text(
        text.replace("[retention]", '[[surrogates]]\nname = "own"\npack = "own/pack.toml"\n\n[retention]')
    )
    return sample


def test_train_and_check(run, images: Path, tmp_path: Path) -> None:
    arguments = ("surrogates", "train", images, "--out", "out", "--nets", "convnext", "--epochs", "2")
    done = run(*arguments, "--json")
    assert done.code == 0, done.err
    assert [row["event"] for row in done.rows] == ["epoch", "epoch", "net", "pack"]
    assert done.rows[2]["accuracy"] == 1.0
    assert done.rows[3] == {"event": "pack", "pack": "out/pack.toml", "images": 24, "task": "shades"}
    again = run(*arguments)  # nothing is left to do: the checkpoint is at its end
    assert (again.code, again.out) == (0, "out/pack.toml\n")
    checked = run("surrogates", "check", "out/pack.toml", "--json")
    assert checked.rows == [{"name": "out/convnext", "input_size": 128, "tasks": {"shades": ["bright", "dark"]}}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nets", "efficientnet-lite1"], "is kept for the evaluation"),
        (["--nets", "alexnet"], "code: no-such-net"),
        (["--channels", "2"], "must be 1 or 3"),
        (["--pseudo", "--labels", "labels.csv"], "exclude each other"),
        (["--labels", "labels.csv"], "code: bad-labels"),
    ],
)
def test_wrong_choices_are_code_2(run, images: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "labels.csv").write_text("nothing\n")
    done = run("surrogates", "train", images, "--out", "out", *arguments)
    assert done.code == 2
    assert words in done.err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_code_2(run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run("surrogates", "train", "empty", "--out", "out")
    assert (done.code, "code: no-images" in done.err) == (2, True)


def test_the_pack_of_a_route_is_checked_and_used(run, named: Path, pack: Path, tmp_path: Path) -> None:
    """What is marked against the site's network differs from the default; with broken weights it is held."""
    checked = run("config", "check", "--config", named)
    assert (checked.code, checked.err) == (0, f"{named}: all right\n")
    (tmp_path / "in").mkdir()
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), tmp_path / "in" / "ct.dcm")
    done = run("protect", "in", "--out", "marked", "--config", named, "--json")
    assert (done.code, done.rows[0]["outcome"]) == (0, "marked"), done.err
    (pack.parent / "net.safetensors").write_bytes(b"nothing of the kind")
    done = run("protect", "in", "--out", "held", "--config", named, "--json")
    assert (done.code, done.rows[0]["outcome"], done.rows[0]["reason_code"]) == (3, "held", "weights-corrupt")
    assert not (tmp_path / "held" / "ct.dcm").exists()


@pytest.mark.parametrize(
    ("fault", "where", "words"),
    [
        ("no file", "surrogates[0].pack", "cannot find"),
        ("no weights", "surrogates[0].pack", "there is no file"),
        ("cut", "surrogates[0].pack", "cannot be used"),
        ("channels", "surrogates[0].pack", "has 1 channels, the pack 3"),
        ("key", "surrogates[0].pack", "unknown key, did you mean models?"),
        ("nan", "surrogates[0].pack", "is not finite"),
        ("name", "surrogates[0].pack", "'gray' is installed"),
        ("unknown", "routes[0].mark.surrogates[0]", "no surrogate pack is named 'won'; there are gray, own, rgb"),
    ],
)
def test_config_check_finds(run, named: Path, pack: Path, fault: str, where: str, words: str) -> None:
    weights = pack.parent / "net.safetensors"
    if fault == "no file":
        pack.unlink()
    elif fault == "no weights":
        weights.unlink()
    elif fault == "cut":
        weights.write_bytes(weights.read_bytes()[:500])
    elif fault == "channels":
        pack.write_text(pack.read_text().replace("channels = 1", "channels = 3"))
    elif fault == "key":
        pack.write_text(pack.read_text().replace("[[models]]", "[[model]]"))
    elif fault == "nan":
        _break(weights)
    elif fault == "name":
        named.write_text(named.read_text().replace('name = "own"', 'name = "gray"').replace('["own"]', '["gray"]'))
    else:
        named.write_text(named.read_text().replace('["own"]', '["won"]'))
    done = run("config", "check", "--config", named, "--json")
    assert done.code == 2
    errors = [row for row in done.rows if row["level"] == "error"]
    assert [row["path"] for row in errors] == [where], done.out
    assert words in errors[0]["message"]


def _break(weights: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(str(weights), framework="pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    tensors["heads.stone.bias"][0] = float("nan")
    save_file(tensors, str(weights), metadata=header)


@pytest.mark.full  # each step of it has a test of its own in tests/mark, tests/training and here
def test_a_site_marks_and_trains_against_its_own_pack(run, images: Path, tmp_path: Path) -> None:
    """`surrogates train`, then `mark` and `train-mark` with what it made; which networks were asked is told."""
    trained = run("surrogates", "train", images, "--out", "Own Pack", "--nets", "convnext", "--epochs", "1")
    assert trained.code == 0, trained.err
    pack = tmp_path / "Own Pack" / "pack.toml"
    rows, columns = np.mgrid[:64, :64]
    disc = (np.exp(-((rows - 32) ** 2 + (columns - 30) ** 2) / 500) * 200).astype(np.uint8)
    np.savez(tmp_path / "in.npz", images=disc[None])
    marking = ("mark", "in.npz", "--profile", "brain-mr", "--steps", "2", "--seed", "1", "--device", "cpu")
    own = run(*marking, "--out", "own.npz", "--surrogates", pack, "--report", "own.json")
    assert (own.code, "made against the site's own pack: own-pack/convnext\n" in own.err) == (0, True), own.err
    assert json.loads((tmp_path / "own.json").read_text())["networks"] == ["own-pack/convnext"]
    packaged = run(*marking, "--out", "packaged.npz")
    assert "made against the packaged networks: gray/" in packaged.err
    first, second = (np.load(tmp_path / name)["images"] for name in ("own.npz", "packaged.npz"))
    assert (first != second).any()
    plain = run(*marking, "--out", "none.npz", "--surrogates", pack, "--steps", "0")
    assert "--surrogates had no effect" in plain.err

    training = ("train-mark", images, "--profile", "generic-gray", "--steps", "1", "--device", "cpu", "--limit", "4")
    done = run(*training, "--out", "site.safetensors", "--surrogates", pack, "--json")
    assert done.code == 0, done.err
    assert "made against the site's own pack: own-pack/convnext" in done.err
    assert done.rows[-1]["networks"] == ["own-pack/convnext"]
    generator = ("--mode", "generator", "--generator", "site.safetensors")
    done = run("mark", "in.npz", "--profile", "generic-gray", *generator, "--seed", "1", "--out", "fast.npz")
    assert (done.code, (tmp_path / "fast.npz").exists()) == (0, True), done.err


def test_a_pack_of_colour_does_not_mark_gray_images(run, pack: Path, tmp_path: Path) -> None:
    pack.write_text(pack.read_text().replace("channels = 1", "channels = 3"))
    np.savez(tmp_path / "in.npz", images=np.arange(64 * 64).reshape(1, 64, 64).astype(np.uint8))
    chosen = ("--profile", "brain-mr", "--surrogates", pack)
    done = run("mark", "in.npz", *chosen, "--seed", "1", "--out", "out.npz")
    assert (done.code, "no surrogate pack for 1-channel images among" in done.err) == (3, True), done.err
    done = run("mark", "in.npz", "--profile", "brain-mr", "--surrogates", tmp_path / "none.toml", "--out", "out.npz")
    assert (done.code, "none.toml" in done.err) == (2, True)
