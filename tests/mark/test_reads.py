"""A reader that knows nothing of the mark reads it (promise 8: what can be seen plainly is whole words that read)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from gateway.mark import MarkRequest, MarkSettings
from plugins.modalities import brain_mr, cr_dx, ct, dermoscopy, fundus
from tests.benchmarks.reads import read_set, show
from tests.conftest import missing
from tests.support.mark.samples import KEY, phantom
from tests.support.reader import can_read, edits, has_room, reads
from tests.support.standin import make_standin

SETTINGS = MarkSettings(tier="lettered", steps=0, device="cpu")
LEAST_READ = {"gray": 0.9, "colour": 0.6}
"""Of the images with room: of twelve gray ones all but one (the figure over all sets is `python -m
tests.benchmarks.reads`). Colour falls short: a red channel that is full already leaves little to be brighter with."""
SETS = {
    "gray": {"brain_mri": brain_mr.PROFILE, "chest_xray": cr_dx.PROFILE, "chest_ct": ct.PROFILE},
    "colour": {"fundus": fundus.PROFILE, "skin": dermoscopy.PROFILE},
}


@pytest.fixture(autouse=True, scope="module")
def reader() -> None:
    if not can_read():
        missing("tesseract")


def head(side: int, seed: int) -> np.ndarray:
    """Return a phantom with the noise of a quiet image, uint8."""
    picture = phantom(side, side, seed)
    return np.rint(np.where(picture > 0, ndimage.gaussian_filter(picture, 1.0), 0.0) * 255.0).astype(np.uint8)


@pytest.mark.parametrize("kind", SETS)
def test_marks_on_pictures_and_heads_are_read(kind: str, tmp_path: Path) -> None:
    """Pictures that packages carry, which are full of detail, and made heads; random texture in the strokes."""
    folder = make_standin(tmp_path / "data")
    found = []
    for name, profile in SETS[kind].items():
        with np.load(folder / name / "test.npz") as archive:
            images = [one for one in archive["images"] if min(one.shape[:2]) >= 256]
        found += read_set([MarkRequest(one, KEY) for one in images[:3]], profile, SETTINGS)
    if kind == "gray":
        found += read_set([MarkRequest(head(side, side), KEY) for side in (256, 320, 512)], brain_mr.PROFILE, SETTINGS)
    show(found, tmp_path / "reads.png")
    with_room = [one.read for one in found if one.room]
    assert len(with_room) >= 5 and np.mean(with_room) >= LEAST_READ[kind], with_room


def test_a_series_is_read_in_each_slice() -> None:
    requests = [MarkRequest(head(256, 5), KEY, position=4.0 * z) for z in range(6)]
    assert all(one.read for one in read_set(requests, brain_mr.PROFILE, SETTINGS) if one.room)


def test_the_reader_finds_nothing_where_nothing_is_written() -> None:
    assert not reads(head(256, 0), "COPY") and not reads(np.full((256, 256), 90, np.uint8), "COPY")


def test_what_counts_as_read() -> None:
    assert [edits("COPY", other) for other in ("COPY", "CORY", "OPY", "COPYS", "CXXY", "")] == [0, 1, 1, 1, 2, 4]
    free = np.zeros((256, 256), bool)
    free[40:52, 30:80] = True
    assert not has_room(free, "COPY")
    free[40:70, 30:90] = True
    assert has_room(free, "COPY")
