"""What an adversary may do to an image without having seen pairs: the grid of formats and processing (A1 of mark,
section 4), off-the-shelf denoisers (A2), cutting everything but the region of interest away (A5), and blackening the
background or cropping to the anatomy, which takes letters in the air away.

Every treatment takes display images float32 in 0..1 and gives such images back. The same treatment is applied to
unmarked images, so that its cost is seen; the report takes the setting that is best *for the adversary*. Denoisers:
scikit-image and OpenCV. Inpainting is given the true strokes of each image, more than an adversary has.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import restoration

from gateway.mark.visibility.region import find_foreground

GRID = "a1"
DENOISE = "denoiser"
INPAINT = "inpaint"
CROP = "crop"
BLANK = "blanked"
ANATOMY = "cropped to the anatomy"
TRUE, FOUND = "true foreground", "foreground found in the copy"
"""Settings of both: the foreground of the original, more than an adversary has, and what the copy shows of it."""
LETTER = 9
"""Pixels across which strokes of letters, and no anatomy that matters, disappear."""
SPECK = 0.1
"""Share of the largest piece below which another is no anatomy."""


@dataclass(frozen=True)
class Shown:
    """One display image with what the adversary is told about it.

    Attributes
    ----------
    image
        float32 (H, W) or (H, W, 3) in 0..1.
    strokes
        bool (H, W), true strokes.
    roi
        bool (H, W), region of interest.
    foreground
        bool (H, W), of the unmarked image.
    """

    image: np.ndarray
    strokes: np.ndarray
    roi: np.ndarray
    foreground: np.ndarray

    @property
    def channel_axis(self) -> int | None:
        """As scikit-image wants it."""
        return None if self.image.ndim == 2 else 2


@dataclass(frozen=True)
class Treatment:
    """One setting of one kind of removal.

    Attributes
    ----------
    group
        ``a1``, ``denoiser``, ``inpaint``, ``crop``, ``blanked`` or ``cropped to the anatomy``.
    setting
        e.g. ``jpeg-75``.
    apply
        one image to one image of the same shape.
    needs_strokes
        meaningless where a mark has none.
    """

    group: str
    setting: str
    apply: Callable[[Shown], np.ndarray]
    needs_strokes: bool = False


def jpeg(quality: int) -> Callable[[Shown], np.ndarray]:
    """Return baseline JPEG at a quality of 1..95 (Pillow)."""

    def apply(one: Shown) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(_levels(one.image)).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer), np.float32) / np.float32(255.0)

    return apply


def rescale(side: int) -> Callable[[Shown], np.ndarray]:
    """Return scaling down to ``side`` pixels (area) and up again (cubic)."""

    def apply(one: Shown) -> np.ndarray:
        small = cv2.resize(one.image, (side, side), interpolation=cv2.INTER_AREA)
        back = cv2.resize(small, one.image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return np.clip(back, 0.0, 1.0)

    return apply


def blur(sigma: float) -> Callable[[Shown], np.ndarray]:
    """Return a Gaussian of ``sigma`` pixels."""

    def apply(one: Shown) -> np.ndarray:
        return ndimage.gaussian_filter(one.image, sigma, axes=(0, 1))

    return apply


def median(side: int) -> Callable[[Shown], np.ndarray]:
    """Return the median over ``side`` x ``side`` pixels."""

    def apply(one: Shown) -> np.ndarray:
        return ndimage.median_filter(one.image, side, axes=(0, 1))

    return apply


def depth(bits: int) -> Callable[[Shown], np.ndarray]:
    """Return rounding to 2**bits grey levels."""
    top = np.float32(2**bits - 1)
    return lambda one: np.rint(one.image * top) / top


def nlm(strength: float) -> Callable[[Shown], np.ndarray]:
    """Return non-local means (Buades et al. 2005) with h = ``strength`` times the estimated noise."""

    def apply(one: Shown) -> np.ndarray:
        sigma = max(float(np.mean(restoration.estimate_sigma(one.image, channel_axis=one.channel_axis))), 0.005)
        return restoration.denoise_nl_means(
            one.image, 5, 6, h=strength * sigma, sigma=sigma, fast_mode=True, channel_axis=one.channel_axis
        )

    return apply


def total_variation(weight: float) -> Callable[[Shown], np.ndarray]:
    """Return total variation denoising (Chambolle 2004)."""
    return lambda one: restoration.denoise_tv_chambolle(one.image, weight=weight, channel_axis=one.channel_axis)


def bilateral(colour: float, space: float) -> Callable[[Shown], np.ndarray]:
    """Return a bilateral filter (Tomasi and Manduchi 1998), OpenCV's."""
    return lambda one: cv2.bilateralFilter(np.ascontiguousarray(one.image), -1, colour, space)


def wavelet(strength: float) -> Callable[[Shown], np.ndarray]:
    """Return BayesShrink wavelet denoising (Chang et al. 2000) for ``strength`` times the estimated noise."""

    def apply(one: Shown) -> np.ndarray:
        sigma = float(np.mean(restoration.estimate_sigma(one.image, channel_axis=one.channel_axis)))
        return restoration.denoise_wavelet(
            one.image, sigma=max(strength * sigma, 0.002), channel_axis=one.channel_axis, rescale_sigma=True
        )

    return apply


def inpaint(radius: float, method: int, grown: int) -> Callable[[Shown], np.ndarray]:
    """Return inpainting of the true strokes, grown by ``grown`` pixels (OpenCV: Telea 2004 or Navier-Stokes)."""

    def apply(one: Shown) -> np.ndarray:
        mask = ndimage.binary_dilation(one.strokes, iterations=grown) if grown else one.strokes
        filled = cv2.inpaint(_levels(one.image), mask.astype(np.uint8), radius, method)
        planes = mask if one.image.ndim == 2 else mask[..., None]
        return np.where(planes, filled.astype(np.float32) / np.float32(255.0), one.image)

    return apply


def crop_box(one: Shown) -> np.ndarray:
    """Return the bounding box of the region of interest, scaled to the whole image."""
    return _box(one.image, one.roi)


def _box(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        return image
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.clip(cv2.resize(box, image.shape[1::-1], interpolation=cv2.INTER_LINEAR), 0.0, 1.0)


def foreground_of(image: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool foreground of an unmarked display image (H, W[, 3])."""
    return find_foreground(image, np.zeros(image.shape[:2], bool))


def found_foreground(image: np.ndarray) -> np.ndarray:
    """Return the (H, W) bool foreground that a marked display image shows to somebody who knows that letters are thin.

    A grey opening takes bright strokes away, and of what is left large pieces count.
    """
    opened = ndimage.grey_opening(image, (LETTER, LETTER) + (1,) * (image.ndim - 2))
    mask = ndimage.binary_fill_holes(foreground_of(opened))
    pieces, count = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    return (sizes >= SPECK * sizes.max(initial=1))[pieces] & (pieces > 0)


def blanked(mask: Callable[[Shown], np.ndarray]) -> Callable[[Shown], np.ndarray]:
    """Return blackening of all that is no foreground."""

    def apply(one: Shown) -> np.ndarray:
        kept = mask(one)
        return np.where(kept if one.image.ndim == 2 else kept[..., None], one.image, np.float32(0.0))

    return apply


def background_treatments() -> list[Treatment]:
    """Return what takes the letters in the air away: blanking, and cropping to the anatomy."""
    masks: dict[str, Callable[[Shown], np.ndarray]] = {
        TRUE: lambda one: one.foreground,
        FOUND: lambda one: found_foreground(one.image),
    }
    found = [Treatment(BLANK, setting, blanked(mask)) for setting, mask in masks.items()]
    return [*found, Treatment(ANATOMY, TRUE, lambda one: _box(one.image, one.foreground))]


def keep_roi(fill: str) -> Callable[[Shown], np.ndarray]:
    """Return the image with all but the region of interest ``black``, ``mean`` (of the image) or ``blurred``."""

    def apply(one: Shown) -> np.ndarray:
        if fill == "blurred":
            rest = ndimage.gaussian_filter(one.image, 8.0, axes=(0, 1))
        else:
            level = one.image.mean(axis=(0, 1)) if fill == "mean" else 0.0
            rest = np.broadcast_to(np.float32(level), one.image.shape)
        return np.where(one.roi if one.image.ndim == 2 else one.roi[..., None], one.image, rest)

    return apply


def all_treatments() -> list[Treatment]:
    """Return every setting that is tried."""
    grid = [(f"jpeg-{quality}", jpeg(quality)) for quality in (40, 50, 60, 70, 75, 80, 85, 90, 95)]
    grid += [(f"resize-{side}", rescale(side)) for side in (64, 96, 128, 160, 192, 224)]
    grid += [(f"blur-{sigma:g}", blur(sigma)) for sigma in (0.5, 1.0, 1.5, 2.0, 3.0)]
    grid += [(f"median-{side}", median(side)) for side in (3, 5, 7, 9)]
    grid += [(f"bits-{bits}", depth(bits)) for bits in (3, 4, 5, 6)]
    denoise = [(f"nlm-{strength:g}", nlm(strength)) for strength in (0.8, 2.0, 5.0)]
    denoise += [(f"tv-{weight:g}", total_variation(weight)) for weight in (0.03, 0.1, 0.3)]
    denoise += [(f"bilateral-{c:g}-{s:g}", bilateral(c, s)) for c, s in ((0.05, 2.0), (0.15, 3.0), (0.4, 4.0))]
    denoise += [(f"wavelet-{strength:g}", wavelet(strength)) for strength in (1.0, 3.0, 6.0)]
    painted = [
        (f"{name}-{radius:g}-grown-{grown}", inpaint(radius, method, grown))
        for name, method in (("telea", cv2.INPAINT_TELEA), ("navier-stokes", cv2.INPAINT_NS))
        for radius, grown in ((3.0, 0), (3.0, 1), (5.0, 2))
    ]
    cut = [("box", crop_box), *((f"outside-{fill}", keep_roi(fill)) for fill in ("black", "mean", "blurred"))]
    groups = ((GRID, grid), (DENOISE, denoise), (CROP, cut))
    found = [Treatment(group, setting, apply) for group, settings in groups for setting, apply in settings]
    return found + [Treatment(INPAINT, setting, apply, needs_strokes=True) for setting, apply in painted]


FEW = {
    GRID: ("jpeg-75", "jpeg-50", "resize-128", "blur-1", "blur-2", "median-3", "median-5", "bits-4"),
    DENOISE: ("nlm-2", "tv-0.1", "bilateral-0.15-3"),
    INPAINT: ("telea-3-grown-1", "navier-stokes-5-grown-2"),
    CROP: ("box", "outside-mean"),
}
"""Settings of each group that two hours of a processor have time for."""
FEWEST = {GRID: ("jpeg-75", "median-3"), DENOISE: ("bilateral-0.15-3",), INPAINT: ("telea-3-grown-1",), CROP: ("box",)}
"""The same for CI."""


def treatments_of(groups: Sequence[str], settings: Mapping[str, Sequence[str]] | None = None) -> list[Treatment]:
    """Return the treatments of these groups, all of them or (by group) those of the named settings."""
    return [
        one
        for one in all_treatments()
        if one.group in groups and (settings is None or one.setting in settings[one.group])
    ]


def treated(
    treatment: Treatment, images: np.ndarray, strokes: np.ndarray, rois: np.ndarray, foregrounds: np.ndarray
) -> np.ndarray:
    """Return display images float32 (N, H, W[, 3]) after a treatment.

    Parameters
    ----------
    treatment
        which.
    images
        float32 (N, H, W[, 3]) in 0..1.
    strokes
        bool (N, H, W).
    rois
        bool (N, H, W).
    foregrounds
        bool (N, H, W), of the unmarked images.
    """
    parts = zip(images, strokes, rois, foregrounds, strict=True)
    return np.stack([np.clip(treatment.apply(Shown(*part)), 0.0, 1.0).astype(np.float32) for part in parts])


def _levels(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
