"""What an adversary may do to an image without having seen pairs: the grid of formats and processing (A1 of mark,
section 4), off-the-shelf denoisers (A2), and cutting everything but the region of interest away (A5).

Every treatment takes display images float32 in 0..1 and gives such images back. The same treatment is applied to
unmarked images, so that its cost is seen; the report takes the setting that is best *for the adversary*. Denoisers:
scikit-image and OpenCV. Inpainting is given the true strokes of each image, more than an adversary has.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import restoration

GRID = "a1"
DENOISE = "denoiser"
INPAINT = "inpaint"
CROP = "crop"


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
    """

    image: np.ndarray
    strokes: np.ndarray
    roi: np.ndarray

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
        ``a1``, ``denoiser``, ``inpaint`` or ``crop``.
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
    if not one.roi.any():
        return one.image
    rows, columns = np.flatnonzero(one.roi.any(axis=1)), np.flatnonzero(one.roi.any(axis=0))
    box = one.image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.clip(cv2.resize(box, one.image.shape[1::-1], interpolation=cv2.INTER_LINEAR), 0.0, 1.0)


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


def few_treatments() -> list[Treatment]:
    """Return one or two settings of each group, for CI."""
    wanted = {"jpeg-75", "blur-1", "median-3", "bilateral-0.15-3", "telea-3-grown-1", "box"}
    return [treatment for treatment in all_treatments() if treatment.setting in wanted]


def treated(treatment: Treatment, images: np.ndarray, strokes: np.ndarray, rois: np.ndarray) -> np.ndarray:
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
    """
    parts = zip(images, strokes, rois, strict=True)
    return np.stack([np.clip(treatment.apply(Shown(*part)), 0.0, 1.0).astype(np.float32) for part in parts])


def _levels(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
