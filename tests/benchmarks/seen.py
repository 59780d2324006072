"""What is seen of a mark on the anatomy, by a second measure than the one that places it: one row a kind of image.

    python -m tests.benchmarks.seen [--data ../shared/data] [--images 4] [--tier notice] [--steps 80]
                                    [--sets brain_tumor,chest_ct] [--out FOLDER]

Printed are, outside letters: display PSNR (dB, mean), the largest change in 8-bit levels, and the share of pixels
that differ by more than one threshold of `gateway.mark.evaluation.sight`, on a screen at 50 cm and enlarged threefold;
the image of which most is seen beside the mean. Training images, none that anything is tested on. ``--out`` writes a
picture a kind: original and copy as they are, and the place of which most is seen, both enlarged threefold.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gateway.mark import MarkedImage, Marker, MarkSettings
from gateway.mark.evaluation.sight import seen_differences
from gateway.mark.visibility.budget import psnr
from gateway.mark.visibility.region import luminance
from tests.benchmarks.mark.data import PROFILES, SIDE, Sample, draw_pool, requests_of, shown

SETS = ("brain_tumor", "chest_ct", "breast_us", "chest_xray", "fundus_dr", "dermoscopy")
CUT = 88
"""Side in pixels of what is shown enlarged."""
SEED = 7


@dataclass(frozen=True)
class Seen:
    """Of one marked image: PSNR (dB), largest change (8-bit levels), shares seen as it is and enlarged, and a picture.

    picture
        (H, W, 3) uint8.
    """

    psnr: float
    levels: float
    plain: float
    enlarged: float
    picture: np.ndarray


def seen_of(image: np.ndarray, copy: np.ndarray, strokes: np.ndarray, anatomy: np.ndarray | None) -> Seen:
    """Return what is seen of a mark on an 8-bit image, outside its letters, over the anatomy where it is known."""
    before, after = shown(image[None])[0], shown(copy[None])[0]
    counted = ~strokes if anatomy is None else anatomy & ~strokes
    planes = (slice(None), slice(None), *([None] * (image.ndim - 2)))
    quiet = np.where(strokes[planes], before, after)  # letters are to be seen
    plain, enlarged = (seen_differences(luminance(before), luminance(quiet), one) for one in (1.0, 3.0))
    most = np.unravel_index(int(np.argmax(np.where(counted, enlarged, 0.0))), counted.shape)
    return Seen(
        psnr(before, quiet, counted),
        float(np.abs(quiet - before).max() * 255.0),
        float((plain[counted] > 1.0).mean()),
        float((enlarged[counted] > 1.0).mean()),
        picture(image, copy, (int(most[0]), int(most[1]))),
    )


def picture(before: np.ndarray, after: np.ndarray, centre: tuple[int, int]) -> np.ndarray:
    """Return (H, W, 3) uint8: both images, and below them what is around ``centre``, enlarged threefold."""
    top, left = (min(max(at - CUT // 2, 0), side - CUT) for at, side in zip(centre, before.shape[:2], strict=True))
    columns = []
    for one in (before, after):
        colours = one if one.ndim == 3 else np.repeat(one[..., None], 3, axis=2)
        cut = colours[top : top + CUT, left : left + CUT].repeat(3, axis=0).repeat(3, axis=1)
        wide = np.zeros((SIDE + cut.shape[0], cut.shape[1], 3), np.uint8)
        wide[: colours.shape[0], : colours.shape[1]] = colours[:, : cut.shape[1]]
        wide[SIDE:] = cut
        columns.append(wide)
    return np.concatenate(columns, axis=1)


def measure(sample: Sample, settings: MarkSettings) -> list[Seen]:
    """Mark a sample and return what is seen; images that cannot be marked are left out."""
    results = Marker(settings).mark(requests_of(sample), PROFILES[sample.name])
    pairs = zip(sample.images, results, strict=True)
    return [seen_of(image, one.image, one.strokes, one.anatomy) for image, one in pairs if isinstance(one, MarkedImage)]


def row(name: str, found: list[Seen]) -> str:
    """Return a line of the table."""
    plain, enlarged = ([getattr(one, which) for one in found] for which in ("plain", "enlarged"))
    return (
        f"| {name} ({PROFILES[name].name}) | {len(found)} | {np.mean([one.psnr for one in found]):.1f} | "
        f"{max(one.levels for one in found):.0f} | {np.mean(plain):.2%} ({max(plain):.2%}) | "
        f"{np.mean(enlarged):.2%} ({max(enlarged):.2%}) |"
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the older sets")
    parser.add_argument("--images", type=int, default=4, help="of each set")
    parser.add_argument("--tier", default=MarkSettings().tier)
    parser.add_argument("--steps", type=int, default=MarkSettings().steps)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--out", type=Path, help="folder for pictures")
    arguments = parser.parse_args()
    settings = MarkSettings(tier=arguments.tier, steps=arguments.steps, device="cpu")
    print(f"tier {settings.tier}, {settings.steps} steps; outside letters; in brackets the image of which most is seen")
    print("| set (profile) | images | dB | levels | seen | seen, enlarged |\n|---|---|---|---|---|---|")
    for name in arguments.sets.split(","):
        found = measure(draw_pool(arguments.data, name, arguments.images, SEED), settings)
        print(row(name, found), flush=True)
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            for number, one in enumerate(found):
                Image.fromarray(one.picture).save(arguments.out / f"{name}-{number}.png")


if __name__ == "__main__":
    main()
