"""`train-mark`: a folder of images in, a generator out that `mark --mode generator` takes; and wrong folders told."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

TINY = ("--profile", "brain-mr", "--steps", "2", "--device", "cpu")


def pictures(count: int) -> np.ndarray:
    """Noisy discs, uint8, 64 px."""
    rows, columns = np.mgrid[:64, :64]
    disc = np.exp(-((rows - 32) ** 2 + (columns - 30) ** 2) / 500) * 200
    return (disc + np.random.default_rng(0).normal(0, 3, (count, 64, 64))).clip(0, 255).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images in a NumPy file, one PNG in a folder below, one DICOM file, and a file that is no image."""
    images = pictures(3)
    (tmp_path / "site" / "below").mkdir(parents=True)
    np.savez(tmp_path / "site" / "two.npz", images=images[:2])
    Image.fromarray(images[2]).save(tmp_path / "site" / "below" / "one.png")
    shutil.copy(get_testdata_file("MR_small.dcm"), tmp_path / "site" / "below")
    (tmp_path / "site" / "notes.bin").write_text("no image")
    return tmp_path / "site"


def test_a_folder_becomes_a_generator_that_marks(run, folder: Path, tmp_path: Path) -> None:
    done = run("train-mark", folder, *TINY, "--out", "site.safetensors", "--json")
    assert done.code == 0, done.err
    assert "1 left out: not-dicom" in done.err
    assert [row["event"] for row in done.rows] == ["step", "generator"]
    assert (done.rows[0]["number"], done.rows[0]["total"]) == (2, 2)
    assert {"margin", "loss", "correlation"} <= set(done.rows[0])
    assert done.rows[1]["images"] == 4
    assert not list(tmp_path.glob("*.ckpt"))
    np.savez(tmp_path / "in.npz", images=pictures(1))
    chosen = ("--profile", "brain-mr", "--steps", "0", "--mode", "generator", "--generator", "site.safetensors")
    done = run("mark", "in.npz", *chosen, "--seed", "7", "--out", "out.npz", "--report", "report.json")
    assert done.code == 0, done.err
    assert (np.load(tmp_path / "out.npz")["images"] != pictures(1)).any()
    assert '"mode": "generator"' in (tmp_path / "report.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "brain"], "code: no-profile"),
        (["--channels", "3"], "--channels: profile brain-mr takes 1"),
        (["--out", "none/site.safetensors"], "code: cannot-write"),
    ],
)
def test_wrong_choices_are_code_2(run, folder: Path, arguments: list[str], words: str) -> None:
    done = run("train-mark", folder, *TINY, "--out", "site.safetensors", *arguments)
    assert (done.code, words in done.err) == (2, True), done.err


def test_a_folder_without_images_is_code_2(run, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "bad.npz").write_bytes(b"PK\x03\x04 broken")
    np.savez(tmp_path / "site" / "colour.npz", images=np.zeros((1, 64, 64, 3), np.uint8))
    done = run("train-mark", "site", *TINY, "--out", "site.safetensors")
    assert (done.code, "code: no-images" in done.err) == (2, True), done.err
    assert "1 cannot-read, 1 wrong-channels" in done.err


def test_a_generator_for_other_images_is_code_3_and_says_what_to_do(run, folder: Path, tmp_path: Path) -> None:
    from tests.support.mark.generators import pack_of, seeded

    file = pack_of(seeded(3), tmp_path).file
    chosen = ("--profile", "brain-mr", "--steps", "0", "--mode", "generator", "--generator", file)
    done = run("mark", folder / "two.npz", *chosen, "--seed", "7", "--out", "out.npz")
    assert done.code == 3
    assert "code: no-generator" in done.err and "train-mark" in done.err
