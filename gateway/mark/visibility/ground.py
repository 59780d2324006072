"""Images without anatomy to mark: blank ones, air alone, pages of text. Where letters go there.

A slice above the head, a dose report: no series may lack them, and nothing in them that is read may be touched. Letters
lie on the empty ground, and what stands on it (specks, text) stays as it is.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import ndimage

from gateway.mark.types import Details, MarkedImage, MarkRequest, Quality
from gateway.mark.visibility.budget import PSNR_CAP
from gateway.mark.visibility.display import display_of, padding_of, untouchable_of
from gateway.mark.visibility.region import dilate, find_content, find_foreground

BLANK, EMPTY, AIR, PAGE, WORDLESS = "blank", "empty", "no-anatomy", "page", "no-words"
"""``MarkedImage.note``."""
UNMARKED = (BLANK, EMPTY)
"""Notes of images that nothing was added to."""
EVEN_SIDE, MOST_DRIFT, MOST_OUTLIER = 9, 0.75, 8.0
"""An even ground: means over squares of this side stay this near to its mean, single pixels this near, in standard
deviations of its noise. Noise that is coarser than that is not called even."""
MOST_PADDING_VALUES = 4
"""A frame is blank only while its padding has no more values than this: with more of them it holds a picture."""
PAPER = 0.5
"""Least share of a page that has one and the same value."""
INK = 0.08
"""Least difference of ink from the paper, display units."""
THIN = 1.0 / 48.0
"""Strokes of text are thinner than this share of the shorter side (at least 5 pixels)."""
LEAST_INK, MOST_THICK = 0.001, 0.05
"""Least share of ink on a page; largest share of it that is not thin."""
CLEARANCE = 1.0 / 128.0
"""Distance of letters from what stands on the ground, as a share of the shorter side."""


def is_blank(request: MarkRequest, padding: np.ndarray) -> bool:
    """Return whether the image holds no picture: one value (or colour) but for padding, and that is no picture either.

    Parameters
    ----------
    request
        what is to be marked; what a shutter hides counts too, since programs see it.
    padding
        (H, W) bool, from ``display.padding_of``.
    """
    if not padding.any():
        return bool((request.image == request.image[0, 0]).all())
    pixels, rest = request.image[~padding], request.image[padding]
    if pixels.size and (pixels != pixels[0]).any():
        return False
    return len(np.unique(rest)) <= MOST_PADDING_VALUES


def is_empty(request: MarkRequest) -> bool:
    """Return whether nothing at all of the image is anatomy, whatever window it is looked at in.

    A stricter question than where letters may lie, since an image that leaves without a mark depends on it: nothing
    brighter than air, no region of interest, no shutter (programs see what it hides), and stored values that are one
    even ground with noise. A page of text is never empty: thin vessels on black may look like one.
    """
    if any(mask is not None and mask.any() for mask in (request.roi, request.hidden)):
        return False
    padding, skipped = padding_of(request), untouchable_of(request)
    if skipped.all() or len(np.unique(request.image[padding])) > MOST_PADDING_VALUES:
        return False
    if find_foreground(display_of(request, skipped).shown(request.image), skipped).any():
        return False
    return all(
        _is_even(plane.astype(np.float64), ~skipped) for plane in np.atleast_3d(request.image).transpose(2, 0, 1)
    )


def _is_even(plane: np.ndarray, seen: np.ndarray) -> bool:
    """Return whether a (H, W) plane of stored values is one level with noise, where ``seen`` (H, W) bool."""
    level = plane[seen].mean()
    steps = np.abs(np.diff(plane, axis=1))[seen[:, 1:] & seen[:, :-1]]
    noise = max(1.0, 1.4826 * float(np.median(steps)) / np.sqrt(2.0)) if steps.size else 1.0
    off = np.where(seen, plane - level, 0.0)
    drift = np.abs(ndimage.uniform_filter(off, EVEN_SIDE)).max()
    return bool(drift <= MOST_DRIFT * noise and np.abs(off).max() <= MOST_OUTLIER * noise)


def left_as_it_is(request: MarkRequest, note: str = BLANK) -> MarkedImage:
    """Return the result for an image that holds no picture: nothing changed."""
    nothing = np.zeros(request.image.shape[:2], bool)
    quality = Quality(PSNR_CAP, {}, 0.0, 0.0, 0, 0, partial(Details, ms_ssim=1.0))
    residual = np.zeros(request.image.shape, np.int32)
    return MarkedImage(request.image.copy(), residual, nothing, nothing, nothing, quality, note=note)


def text_of(gray: np.ndarray, stored: np.ndarray, skipped: np.ndarray) -> np.ndarray | None:
    """Return the (H, W) bool ink of a page of text or lines on even paper; None where it is no such page.

    Parameters
    ----------
    gray
        (H, W) float32 in 0..1, display luminance.
    stored
        (H, W) or (H, W, 3) stored values: even paper has one value there, not merely one beyond the window.
    skipped
        (H, W) bool, no part of the picture.
    """
    seen = ~skipped
    plane = stored if stored.ndim == 2 else stored.astype(np.int64) @ np.array([1, 1 << 16, 1 << 32])
    pixels = plane[seen] if skipped.any() else plane.ravel()
    # what takes up half of the picture is its median, and at most one value does
    most = np.partition(pixels, pixels.size // 2)[pixels.size // 2] if pixels.size else 0
    paper = plane == most
    if not pixels.size or np.count_nonzero(paper & seen) < PAPER * pixels.size:
        return None
    ink = (np.abs(gray - gray[paper & seen][0]) > INK) & seen
    amount = int(np.count_nonzero(ink))
    if amount < LEAST_INK * pixels.size:
        return None
    side = max(5, round(THIN * min(gray.shape)))
    thick = ndimage.binary_opening(ink, np.ones((side, side), bool))
    return ink if thick.sum() <= MOST_THICK * amount else None


def empty_ground(display: np.ndarray, skipped: np.ndarray, kept: np.ndarray, *, is_page: bool = False) -> np.ndarray:
    """Return the (H, W) bool ground on which nothing stands.

    Parameters
    ----------
    display
        (H, W) or (H, W, 3) float32 in 0..1.
    skipped
        (H, W) bool, no part of the picture.
    kept
        (H, W) bool, what must stay as it is (text, region of interest).
    is_page
        nothing else stands on it, however bright the paper is.
    """
    standing = kept if is_page or skipped.all() else find_content(display, skipped) | kept
    return ~dilate(standing, max(2.0, CLEARANCE * min(skipped.shape))) & ~skipped
