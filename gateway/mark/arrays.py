"""Marking plain arrays: what ``miad-gateway mark ARRAYS.npz`` does."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gateway.errors import MarkError
from gateway.mark.marker import Marker
from gateway.mark.settings import MarkSettings
from gateway.mark.types import MarkedImage, MarkRequest


def image_key(site_key: bytes, index: int) -> bytes:
    """Return the 32-byte mark key of image ``index``: HMAC-SHA-256 of the index under the site's mark key."""
    return hmac.new(site_key, b"miad-mark/arrays/v1" + struct.pack(">Q", index), hashlib.sha256).digest()


def requests_for(images: np.ndarray, masks: np.ndarray | None, key: bytes) -> list[MarkRequest]:
    """Return one request per image of a stack, each with a key of its own; arguments as for ``mark_arrays``.

    Raises
    ------
    MarkError
        ``bad-request`` for arrays of the wrong shape or kind, or a key below 16 bytes.
    """
    if images.ndim not in (3, 4) or len(images) == 0:
        raise MarkError("bad-request", f"images must have shape (N,H,W) or (N,H,W,3) with N > 0, not {images.shape}")
    if masks is not None and (masks.dtype != np.bool_ or masks.shape != images.shape[:3]):
        raise MarkError("bad-request", f"masks must be bool {images.shape[:3]}, not {masks.dtype} {masks.shape}")
    if len(key) < 16:
        raise MarkError("bad-request", "the mark key is shorter than 16 bytes")
    requests = [MarkRequest(image=image, key=image_key(key, index)) for index, image in enumerate(images)]
    if masks is not None:
        requests = [replace(request, roi=mask) for request, mask in zip(requests, masks, strict=True)]
    return requests


def mark_all(
    requests: Sequence[MarkRequest],
    profile_name: str,
    marker: Marker,
    progress: Callable[[int, int], None] | None = None,
) -> list[MarkedImage]:
    """Return every request's marked image.

    Raises
    ------
    MarkError
        the code of the first image that cannot be marked, with its index in the message.
    ConfigError
        unknown profile.
    """
    marked = []
    for index, result in enumerate(marker.mark(requests, profile_name, progress)):
        if isinstance(result, MarkError):
            raise MarkError(result.code, f"image {index}: {result.message}", result.hint) from result
        marked.append(result)
    return marked


def as_arrays(marked: Sequence[MarkedImage]) -> dict[str, np.ndarray]:
    """Return the arrays that ``mark_arrays`` returns, of images of one shape."""
    return {
        "images": np.stack([result.image for result in marked]),
        "psnr": np.array([result.quality.psnr for result in marked]),
        "stroke_share": np.array([result.quality.stroke_share for result in marked]),
        "queries": np.array([result.queries for result in marked], np.int64),
        "strokes": np.stack([result.strokes for result in marked]),
        "roi": np.stack([result.roi for result in marked]),
        "notes": np.array([result.note for result in marked], np.str_),
    }


def mark_arrays(
    images: np.ndarray,
    masks: np.ndarray | None,
    profile_name: str,
    settings: MarkSettings,
    key: bytes,
    progress: Callable[[int, int], None] | None = None,
    marker: Marker | None = None,
) -> dict[str, np.ndarray]:
    """Mark a stack of images.

    Parameters
    ----------
    images
        uint8, uint16 or int16, (N, H, W) or (N, H, W, 3).
    masks
        bool (N, H, W), regions of interest; None: label-free saliency.
    profile_name
        an installed modality profile, e.g. ``brain-mr``.
    settings
        how to mark.
    key
        the site's mark key, at least 16 bytes; each image gets a key of its own derived from it.
    progress
        called with (done, all).
    marker
        to be used instead of a new one (its settings hold); for callers that mark many stacks.

    Returns
    -------
    ``images`` (dtype and shape as given), ``psnr`` float64 (N,) display dB, ``stroke_share`` float64 (N,),
    ``queries`` int64 (N,) of a search without gradients, ``strokes`` and ``roi`` bool (N, H, W), ``notes`` str (N,) as
    ``MarkedImage.note``.

    Raises
    ------
    MarkError
        ``bad-request`` for arrays of the wrong shape or kind; else the code of the first image that cannot
        be marked, with its index in the message.
    ConfigError
        unknown profile.
    """
    requests = requests_for(images, masks, key)
    return as_arrays(mark_all(requests, profile_name, marker or Marker(settings), progress))
