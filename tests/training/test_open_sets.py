"""The open sets: one part for every group, classes and masks that stay with their images, what must be left out."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.errors import ConfigError
from gateway.training.open_sets import OPEN_SETS, also_in_brain_mri, load_test, load_train, shared_folder

SIDE = 40
COUNT = 60


def write_set(root: Path, name: str, classes: tuple[str, ...], masked: bool = False) -> None:
    """Write a set of ``COUNT`` images in groups of two; image N is dark but for a bright square, which is its mask."""
    folder = root / OPEN_SETS[name].folder
    folder.mkdir(parents=True)
    gray = OPEN_SETS[name].channels == 1
    images = np.zeros((COUNT, SIDE, SIDE), np.uint8)
    masks = np.zeros(images.shape, bool)
    for number in range(COUNT):
        top = number % 30
        images[number, top : top + 8, 4:12], masks[number, top : top + 8, 4:12] = 255, True
    stack = images if gray else images[..., None].repeat(3, 3)
    labels = np.arange(COUNT) % len(classes)
    with zipfile.ZipFile(folder / "train.zip", "w") as archive:
        text = io.StringIO()
        rows = csv.writer(text)
        rows.writerow(["file", "class", "label", "source_path", "group"])
        for number, image in enumerate(stack):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "PNG")
            archive.writestr(f"{number}.png", encoded.getvalue())
            label = labels[number]
            rows.writerow([f"{number}.png", classes[label], label, f"source/{number}", f"patient {number // 2}"])
        archive.writestr("labels.csv", text.getvalue())
    more = {"masks": masks[:6]} if masked else {}
    files = np.array([f"test/{number}" for number in range(6)])
    np.savez(folder / "test.npz", images=stack[:6], labels=labels[:6], classes=np.array(classes), files=files, **more)
    if masked:
        packed = np.packbits(masks.reshape(COUNT, -1), axis=1)
        np.savez(folder / "train_masks.npz", masks_packed=packed, files=np.arange(COUNT))


def test_every_image_is_in_one_part_and_no_group_in_two(tmp_path: Path) -> None:
    write_set(tmp_path, "fundus_dr", ("no_referable_dr", "referable_dr"))
    parts = [load_train(tmp_path, "fundus_dr", half, part, SIDE) for half in "AB" for part in ("train", "validation")]
    files = [file for one in parts for file in one.files]
    assert sorted(files) == sorted(f"source/{number}" for number in range(COUNT))
    groups = [set(one.groups) for one in parts]
    assert sum(map(len, groups)) == len(set.union(*groups)) == COUNT // 2
    assert all(len(one.labels) >= 4 for one in parts)
    both = load_train(tmp_path, "fundus_dr", "A", "all", SIDE)
    assert set(both.files) == set(parts[0].files) | set(parts[1].files)
    assert parts[0].images.shape[1:] == (SIDE, SIDE, 3)


@pytest.mark.parametrize("side", [SIDE, SIDE // 2])
def test_masks_stay_with_their_images(tmp_path: Path, side: int) -> None:
    write_set(tmp_path, "brain_tumor", ("glioma", "meningioma", "pituitary"), masked=True)
    for one in (load_train(tmp_path, "brain_tumor", "B", "train", side), load_test(tmp_path, "brain_tumor", side)):
        assert one.masks is not None and one.masks.shape == one.images.shape == (len(one.labels), side, side)
        inside = [image[mask].mean() for image, mask in zip(one.images, one.masks, strict=True)]
        outside = [image[~mask].mean() for image, mask in zip(one.images, one.masks, strict=True)]
        assert min(inside) > 180 and max(outside) < 20


def test_a_set_without_images_of_a_class_gives_no_figure(tmp_path: Path) -> None:
    classes = ("no_referable_dr", "referable_dr")
    write_set(tmp_path, "fundus_dr", classes)
    file = tmp_path / OPEN_SETS["fundus_dr"].folder / "test.npz"
    with np.load(file) as archive:
        kept = {name: archive[name] for name in archive.files}
    np.savez(file, **{**kept, "labels": np.zeros_like(kept["labels"])})
    with pytest.raises(ConfigError) as caught:
        load_test(tmp_path, "fundus_dr", SIDE)
    assert (caught.value.code, "no test image of referable_dr" in caught.value.message) == ("no-images", True)
    with pytest.raises(ConfigError) as caught:
        load_train(tmp_path, "fundus_dr", "C", "train", SIDE)
    assert caught.value.code == "no-images"


def test_of_the_radiographs_two_classes_are_used_under_their_own_numbers(tmp_path: Path) -> None:
    write_set(tmp_path, "chest_xray", ("covid19", "no_findings", "pneumonia"))
    for one in (load_train(tmp_path, "chest_xray", "A", "all", SIDE), load_test(tmp_path, "chest_xray", SIDE)):
        numbers = [int(file.rpartition("/")[2]) for file in one.files]
        assert one.classes == ("no_findings", "pneumonia") and set(one.labels) == {0, 1}
        assert [number % 3 - 1 for number in numbers] == one.labels.tolist()


def test_slices_that_are_in_two_sets_are_known(tmp_path: Path) -> None:
    folder = tmp_path / "open" / "brain_tumor"
    folder.mkdir(parents=True)
    rows = "file,part,brain_mri_file,brain_mri_part,correlation\na.png,train,Training/b.jpg,train,0.99\n"
    (folder / "also_in_brain_mri.csv").write_text(rows)
    assert also_in_brain_mri(tmp_path) == {"Training/b.jpg"}


def test_the_folder_is_found_by_argument_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "data").mkdir()
    assert shared_folder(tmp_path) == tmp_path
    monkeypatch.setenv("MIAD_DATA", str(tmp_path / "data"))
    assert shared_folder() == tmp_path
    monkeypatch.setenv("MIAD_DATA", str(tmp_path / "none" / "at all"))
    with pytest.raises(ConfigError) as caught:
        shared_folder()
    assert caught.value.code == "no-images"
