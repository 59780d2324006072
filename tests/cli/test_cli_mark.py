"""`mark`: arrays in, arrays out, the same key giving the same marks, and wrong arrays told in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.mark.evaluation.picture import INSIDE, OUTSIDE

PLUMBING = ("--profile", "generic-gray", "--steps", "0", "--device", "cpu")


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Two smooth 8-bit images of 96 px, and a region of interest in each."""
    rows, columns = np.mgrid[:96, :96]
    disc = np.exp(-((rows - 48) ** 2 + (columns - 48) ** 2) / 1200) * 200
    noise = np.random.default_rng(0).normal(0, 3, (2, 96, 96))
    masks = np.zeros((2, 96, 96), bool)
    masks[:, 40:56, 40:56] = True
    file = tmp_path / "arrays.npz"
    np.savez(file, images=(disc + noise).clip(0, 255).astype(np.uint8), masks=masks)
    return file


def test_images_come_out_as_they_went_in_but_marked(run, arrays: Path, tmp_path: Path) -> None:
    done = run("mark", arrays, *PLUMBING, "--seed", "7", "--out", tmp_path / "out.npz", "--json")
    assert done.code == 0, done.err
    given, made = np.load(arrays), np.load(tmp_path / "out.npz")
    assert made["images"].dtype == given["images"].dtype
    assert made["images"].shape == given["images"].shape
    assert (made["images"] != given["images"]).any(axis=(1, 2)).all()
    assert (made["images"] == given["images"])[given["masks"]].all()
    assert made["psnr"].shape == (2,)
    assert [set(row) for row in done.rows] == [{"index", "psnr", "stroke_share"}] * 2
    assert [row["psnr"] for row in done.rows] == pytest.approx(made["psnr"].tolist())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arrays.npz", "home", "out.npz"]


def test_report_and_picture_tell_what_may_be_seen(run, arrays: Path, tmp_path: Path) -> None:
    files = ("--report", tmp_path / "report.json", "--picture", tmp_path / "picture.png")
    done = run("mark", arrays, *PLUMBING, "--seed", "7", "--out", tmp_path / "out.npz", *files)
    assert done.code == 0, done.err
    made = np.load(tmp_path / "out.npz")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["profile"], report["settings"]["steps"]) == ("generic-gray", 0)
    assert [image["index"] for image in report["images"]] == [0, 1]
    for image, decibel, share in zip(report["images"], made["psnr"], made["stroke_share"], strict=True):
        assert image["psnr"] == pytest.approx(decibel)
        assert image["stroke_share"] == pytest.approx(share)
        assert (image["roi_difference"], image["bias"]["unit"]) == (0, "stored value")
        assert {"ssim", "ms_ssim", "jnd", "above_threshold", "psnr_windows"} <= set(image)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 2 * 3 * 96 and pixels.shape[1] > 4 * 3 * 96  # two rows, four columns, three times as large
    assert (pixels == INSIDE).all(axis=2).any()
    assert not (pixels == OUTSIDE).all(axis=2).any()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["arrays.npz", "home", "out.npz", "picture.png", "report.json"]


def test_the_key_decides_the_mark(run, arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("ab" * 32 + "\n")
    made = []
    for key in (("--seed", "7"), ("--seed", "7"), ("--seed", "8"), ("--key-file", tmp_path / "key")):
        out = tmp_path / "out.npz"
        assert run("mark", arrays, *PLUMBING, *key, "--out", out, "--overwrite").code == 0
        made.append(np.load(out)["images"])
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert not np.array_equal(made[0], made[3])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--profile", "brain"], 2, "code: no-profile"),
        (["--mode", "stronger"], 2, "--mode: must be 'strong'"),
        (["--text", "x" * 33], 2, "--text: "),
        (["--mode", "paper", "--tier", "discreet"], 2, "mode 'paper' draws a visible mark"),
        (["--logo", "arrays.npz"], 2, "code: logo-unreadable"),
        (["--seed", "1", "--key-file", "arrays.npz"], 2, "exclude each other"),
        (["--key-file", "arrays.npz"], 2, "32 bytes in hexadecimal"),
        (["--out", "none/out.npz"], 2, "code: cannot-write"),
        (["--report", "none/report.json"], 2, "choose another --report"),
        (["--picture", "none/picture.png"], 2, "choose another --picture"),
    ],
)
def test_wrong_choices_are_code_2(run, arrays: Path, arguments: list[str], code: int, words: str) -> None:
    done = run("mark", arrays, *PLUMBING, "--out", "out.npz", *arguments)
    assert done.code == code
    assert words in done.err


def test_a_logo_and_the_paper_mode_change_the_mark(run, arrays: Path, tmp_path: Path) -> None:
    sheet = Image.new("L", (60, 60), 255)
    sheet.paste(0, (10, 10, 50, 50))
    sheet.save(tmp_path / "logo.png")
    strokes = []
    for chosen in ([], ["--logo", "logo.png"], ["--mode", "paper"], ["--mode", "paper", "--logo", "logo.png"]):
        done = run("mark", arrays, *PLUMBING, "--seed", "7", "--out", "out.npz", "--overwrite", *chosen)
        assert done.code == 0, done.err
        strokes.append(np.load(tmp_path / "out.npz")["strokes"])
    assert all(one.any() for one in strokes)
    assert len({one.tobytes() for one in strokes}) == 4


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 broken"])
def test_a_file_that_holds_no_arrays_is_code_2(run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    done = run("mark", "bad.npz", *PLUMBING, "--seed", "1", "--out", "out.npz")
    assert (done.code, "code: not-arrays" in done.err) == (2, True)
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("arrays_in", [{"pictures": np.zeros((1, 64, 64), np.uint8)}, {"images": np.array([object()])}])
def test_arrays_of_another_name_and_pickles_are_code_2(run, tmp_path: Path, arrays_in: dict) -> None:
    np.savez(tmp_path / "bad.npz", **arrays_in)
    done = run("mark", "bad.npz", *PLUMBING, "--seed", "1", "--out", "out.npz")
    assert done.code == 2
    assert "code: no" in done.err


def test_an_image_that_cannot_be_marked_is_code_3_and_writes_nothing(run, tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (1, 64, 64)).astype(np.uint8)
    np.savez(tmp_path / "all.npz", images=picture, masks=np.ones((1, 64, 64), bool))  # nothing of it is free
    done = run("mark", "all.npz", *PLUMBING, "--seed", "1", "--out", "out.npz")
    assert done.code == 3, done.err
    assert done.err.startswith("error: image 0")
    assert not (tmp_path / "out.npz").exists()


def test_nothing_is_written_over_without_being_told(run, arrays, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    out, report, picture = (tmp_path / name for name in ("out.npz", "report.json", "picture.png"))
    given = {"--out": out, "--report": report, "--picture": picture}
    asked = [part for pair in given.items() for part in pair]
    for option, path in given.items():
        path.write_bytes(b"mine")
        done = run("mark", arrays, *PLUMBING, "--seed", "1", *asked)
        assert done.code == 2 and "code: output-exists" in done.err and option in done.err
        assert path.read_bytes() == b"mine"
        assert [other.exists() for other in given.values()].count(True) == 1
        path.unlink()
    out.write_bytes(b"mine")
    assert run("mark", arrays, *PLUMBING, "--seed", "1", "--out", out, "--overwrite").code == 0
    assert np.load(out)["images"].size
    for wrong in (
        ["--out", arrays],
        ["--out", "new.npz", "--report", "new.npz"],
        ["--out", "new.npz", "--picture", "./new.npz"],
    ):
        done = run("mark", arrays, *PLUMBING, "--seed", "1", *wrong, "--overwrite")
        assert done.code == 2 and "code: same-file" in done.err
    assert not (tmp_path / "new.npz").exists()
