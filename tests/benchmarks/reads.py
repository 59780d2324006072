"""Does a mark read? A foreign reader (Tesseract) looks for one whole word of the text in marked images of all sets.

    python -m tests.benchmarks.reads --data ../shared --images 12 --steps 0 --out FOLDER

Prints for each set how many images it marked, in how many of them the word has room, and in how many of those it was
read; with ``--out`` a picture of each set, a green or red corner for read or not. An image has room where the short
word in the least letters fits into the region of the mark, unless that fell back to `discreet`, without words.
``--steps 0`` puts random texture into the strokes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings, ModalityProfile
from gateway.mark.arrays import image_key
from plugins.modalities import brain_mr, cr_dx, ct, dermoscopy, fundus, us
from tests.support.reader import can_read, has_room, reads

SETS: dict[str, ModalityProfile] = {
    "data/brain_mri": brain_mr.PROFILE,
    "data/chest_ct": ct.PROFILE,
    "data/chest_xray": cr_dx.PROFILE,
    "data/fundus": fundus.PROFILE,
    "data/skin": dermoscopy.PROFILE,
    "open/brain_tumor": brain_mr.PROFILE,
    "open/breast_us": us.PROFILE,
    "open/dermoscopy": dermoscopy.PROFILE,
    "open/fundus_dr": fundus.PROFILE,
}
KEY = bytes(range(32))
TILE, TILES = 320, 6
"""Side and number in a row of the images of a picture."""


@dataclass(frozen=True)
class Read:
    """One marked image: shown, whether a word has room in it, whether one was read."""

    image: np.ndarray
    room: bool
    read: bool


def read_set(requests: list[MarkRequest], profile: ModalityProfile, settings: MarkSettings) -> list[Read]:
    """Mark 8-bit images and read them; those that cannot be marked are left out."""
    marked = [one for one in Marker(settings).mark(requests, profile) if isinstance(one, MarkedImage)]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda one: reads(one.image, f"{settings.text} {settings.word}"), marked)
        return [
            Read(one.image, one.tier != "discreet" and has_room(one.region, settings.word), got)
            for one, got in zip(marked, found, strict=True)
        ]


def requests_of(file: Path, count: int) -> list[MarkRequest]:
    """Return requests for ``count`` images of a set, drawn by a fixed seed, with true masks where it has them."""
    with np.load(file) as archive:
        images = archive["images"]
        masks = archive["masks"].astype(bool) if "masks" in archive.files else None
    index = np.random.default_rng(2026).permutation(len(images))[:count]
    return [MarkRequest(images[i], image_key(KEY, int(i)), roi=None if masks is None else masks[i]) for i in index]


def show(found: list[Read], path: Path) -> None:
    """Write a picture of the images, six in a row, their corner green or red for read or not."""
    tiles = []
    for one in found:
        colours = one.image if one.image.ndim == 3 else np.repeat(one.image[..., None], 3, axis=2)
        tile = np.asarray(Image.fromarray(colours).resize((TILE, TILE), Image.Resampling.BICUBIC)).copy()
        tile[:6, :24] = (0, 200, 0) if one.read else (220, 0, 0)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % TILES)
    rows = [np.concatenate(tiles[at : at + TILES], axis=1) for at in range(0, len(tiles), TILES)]
    Image.fromarray(np.concatenate(rows)).save(path)


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the table, a line a set."""
    settings = MarkSettings(tier=arguments.tier, steps=arguments.steps, device=arguments.device)
    yield f"tier {settings.tier}, {settings.mode}, {settings.steps} steps, {settings.text!r} and {settings.word!r}"
    total = np.zeros(3, int)
    for name, profile in SETS.items():
        file = arguments.data / name / "test.npz"
        if not file.is_file():
            yield f"{name:18} is not there"
            continue
        found = read_set(requests_of(file, arguments.images), profile, settings)
        row = np.array([len(found), sum(one.room for one in found), sum(one.room and one.read for one in found)])
        total += row
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            show(found, arguments.out / f"{name.replace('/', '-')}.png")
        yield line(name, row)
    yield line("all", total)


def line(name: str, counts: np.ndarray) -> str:
    """Return a line of the table."""
    marked, room, read = counts.tolist()
    return f"{name:18} marked {marked:4}  with room {room:4}  read {read:4}  {read / max(1, room):.2f}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared"), help="folder of data/ and open/")
    parser.add_argument("--images", type=int, default=12, help="of each set")
    parser.add_argument("--tier", default=MarkSettings().tier)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="folder for pictures")
    arguments = parser.parse_args()
    if not can_read():
        raise SystemExit("tesseract is missing: apt-get install tesseract-ocr")
    for line in lines(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
