"""One image that comes with pydicom, marked in each tier as the gateway marks it: the pictures of the README.

    python -m tests.benchmarks.tiers --out deploy/docs/pictures

Writes a picture a tier, original and copy side by side as the header's window shows them, and prints the figures:
display PSNR over the anatomy (dB), the share of the body's pixels that changed at all, and of all pixels how many
differ by more than a tenth of the display range. How strong a tier is, `packs` and `mark` measure.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from gateway.config.default import default_config
from gateway.config.marking import Mark
from gateway.demo.measure import Measured, Measurer
from gateway.dicom.encoding.part10 import split_part10
from gateway.files.inputs import Inputs
from gateway.files.protect import protect_files
from gateway.keys.generate import make_keys

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
IMAGE = "examples_overlay.dcm"
"""MR of the abdomen, 300x484, from pydicom's own test files (pydicom is under the MIT licence)."""
TIERS = ("notice", "lettered", "air", "discreet")
WIDTH, GAP = 360, 8
SEEN = 0.1
"""Of the display range: what nobody overlooks."""


def marked(image: Path, tier: str, steps: int) -> Measured:
    """The image and its copy in a tier, by the steps that the network path takes."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make_keys(folder / "keys")
        config = default_config(folder)
        mark = Mark.model_validate({"tier": tier, "steps": steps})
        route = config.routes[0].model_copy(update={"mark": mark})
        with Inputs([image], 1 << 30) as inputs:
            results = list(protect_files(config.model_copy(update={"routes": (route,)}), inputs, folder / "out"))
        (copy,) = (folder / "out").rglob("*.dcm")
        assert len(results) == 1
        with image.open("rb") as stream:
            _, offset = split_part10(stream)
        syntax = str(pydicom.dcmread(image, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        return Measurer(route).measure(image.read_bytes()[offset:], syntax, copy.read_bytes())


def show(found: Measured, path: Path) -> None:
    """Write original and copy side by side."""
    size = WIDTH, round(WIDTH * found.original.shape[0] / found.original.shape[1])
    tiles = [
        np.asarray(Image.fromarray(np.uint8(np.round(255 * one))).resize(size, Image.Resampling.LANCZOS))
        for one in (found.original, found.marked)
    ]
    gap = np.full((size[1], GAP), 255, np.uint8)
    Image.fromarray(np.concatenate([tiles[0], gap, tiles[1]], axis=1)).save(path, quality=85, optimize=True)


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the figures, a line a tier."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    for tier in TIERS:
        found = marked(FOLDER / arguments.image, tier, arguments.steps)
        show(found, arguments.out / f"{tier}.jpg")
        body = found.original > 0.02
        difference = np.abs(found.marked - found.original)
        changed, seen = (difference[body] > 0).mean(), (difference > SEEN).mean()
        yield f"{tier:9} {found.psnr:5.1f} dB  changed in the body {changed:6.1%}  plainly seen {seen:5.1%}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--image", default=IMAGE, help="a test file of pydicom")
    parser.add_argument("--steps", type=int, default=80)
    arguments = parser.parse_args()
    for line in lines(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
