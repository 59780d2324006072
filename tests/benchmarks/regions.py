"""How much of a lesion saliency covers: what share of an image has to stay untouched where nobody drew the lesion.

    python -m tests.benchmarks.regions --open ../shared/open --shares 0.10,0.15,0.25

Regions of interest are found as the marker does it (surrogates that the profile names, saliency, dilation); lesions are
connected parts of the sets' masks. A lesion counts as missed where less than half of it is covered. A profile's
``roi_share`` is the least share of which at most 2 % are missed; where none is, its ``without_air`` is ``discreet``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from gateway.mark import MarkRequest, load_packs, load_profiles
from gateway.mark.drafting import ROI_MARGIN
from gateway.mark.grids import WORKING_SIDE, to_tensor, working_shape
from gateway.mark.resample import resize
from gateway.mark.surrogates.packs import select_packs
from gateway.mark.surrogates.saliency import saliency
from gateway.mark.visibility.display import display_of
from gateway.mark.visibility.region import dilate, find_foreground, salient_region

SETS = {
    "brain_tumor": ("brain_tumor/test.npz", "masks", "brain-mr"),
    "dermoscopy": ("dermoscopy/test.npz", "masks", "dermoscopy"),
    "fundus_lesions": ("fundus_dr/fundus_lesions.npz", "masks_any", "fundus"),
}
LEAST_LESION = 9
"""Pixels below which a part of a mask is a speck of its drawing, or no larger than the margin around any region."""
CPU = torch.device("cpu")


def covered(image: np.ndarray, mask: np.ndarray, found: np.ndarray, shares: Sequence[float]) -> list[list[float]]:
    """Return per lesion of a mask (H, W) bool the covered share at each of ``shares``.

    Parameters
    ----------
    image
        (H, W) or (H, W, 3) uint8.
    mask
        (H, W) bool.
    found
        (H, W) saliency.
    shares
        of the foreground.
    """
    nothing = np.zeros(mask.shape, bool)
    display = display_of(MarkRequest(image, bytes(32)), nothing).shown(image)
    foreground = find_foreground(display, nothing)
    margin = ROI_MARGIN * min(mask.shape)
    regions = [dilate(salient_region(found, foreground, share), margin) for share in shares]
    labels, count = ndimage.label(mask, np.ones((3, 3), bool))
    lesions = (labels == number for number in range(1, count + 1))
    return [[float(region[lesion].mean()) for region in regions] for lesion in lesions if lesion.sum() >= LEAST_LESION]


def measure(path: Path, masks: str, profile_name: str, shares: Sequence[float], most: int) -> np.ndarray:
    """Return (lesions, shares) float64: how much of each lesion of a set is covered."""
    profile = load_profiles()[profile_name]
    with np.load(path) as held:
        images, drawn = held["images"][:most], held[masks][:most]
    channels = 3 if images.ndim == 4 else 1
    packs = select_packs(list(load_packs().values()), profile.packs[channels], channels)
    members = [one for pack in packs for one in pack.load(CPU) if one.asked(profile.tasks)]
    rows: list[list[float]] = []
    for image, mask in zip(images, drawn, strict=True):
        display = image.astype(np.float32) / np.float32(255.0)
        small = resize(to_tensor(display, CPU), *working_shape(mask.shape, WORKING_SIDE))
        whole = resize(torch.from_numpy(saliency(small, members, profile.tasks))[:, None], *mask.shape)
        rows += covered(image, mask, whole[0, 0].numpy(), shares)
    return np.array(rows)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open", type=Path, required=True, help="the folder of the open sets")
    parser.add_argument("--shares", default="0.10,0.15,0.25")
    parser.add_argument("--most", type=int, default=1000, help="images of each set")
    arguments = parser.parse_args()
    shares = [float(one) for one in arguments.shares.split(",")]
    print("| set | lesions | " + " | ".join(f"missed at {share:.0%} (mean covered)" for share in shares) + " |")
    print("| --- " * (2 + len(shares)) + "|")
    for name, (file, masks, profile) in SETS.items():
        rows = measure(arguments.open / file, masks, profile, shares, arguments.most)
        cells = [f"{(rows[:, at] < 0.5).mean():.1%} ({rows[:, at].mean():.2f})" for at in range(len(shares))]
        print(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
