"""Marks of a stack of images, kept in files as they are made: an optimised mark takes seconds on a CPU."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gateway.errors import MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, ModalityProfile
from gateway.mark.marker import GPU_BATCH

ARRAYS = ("images", "strokes", "region", "roi", "anatomy", "tiers", "exact")
"""What of the marks is one row an image."""
CHUNK = GPU_BATCH
"""Images marked and written down together ..."""
CPU_CHUNK = 4
"""... where one of them takes seconds."""


@dataclass(frozen=True)
class Marks:
    """Marked images of a stack.

    Attributes
    ----------
    kept
        (K,) int, which images of the stack could be marked.
    images
        uint8 (K, H, W[, 3]).
    strokes
        bool (K, H, W).
    region
        bool (K, H, W), where a mark was allowed.
    roi
        bool (K, H, W), the region of interest, dilated.
    anatomy
        bool (K, H, W), what the mark's dB are counted over: the body where there is air, else the whole picture.
    tiers
        (K,) str, the tier that each image was marked in: without room in its air it is another than was asked for.
    exact
        bool (K,), whether image minus residual was the original, bit for bit.
    quality
        per kept image, the mark's own figures.
    refused
        image index -> error code.
    seconds
        per image, in mean over all images.
    """

    kept: np.ndarray
    images: np.ndarray
    strokes: np.ndarray
    region: np.ndarray
    roi: np.ndarray
    anatomy: np.ndarray
    tiers: np.ndarray
    exact: np.ndarray
    quality: list[dict[str, object]]
    refused: dict[int, str]
    seconds: float

    def __len__(self) -> int:
        return len(self.kept)

    def rows(self, index: np.ndarray) -> Marks:
        """Return the marks of these rows alone, as if of a stack of (n,) images that were all kept."""
        parts = {name: getattr(self, name)[index] for name in ARRAYS}
        quality = [self.quality[row] for row in index]
        return Marks(kept=np.arange(len(index)), quality=quality, refused={}, seconds=self.seconds, **parts)


def mark_stack(
    marker: Marker,
    requests: Sequence[MarkRequest],
    profile: ModalityProfile,
    folder: Path,
    name: str,
    say: Callable[[str], None] = lambda text: None,
) -> Marks:
    """Return the marks of all requests; chunks that a former run wrote to ``folder`` are read instead.

    Parameters
    ----------
    marker
        with its settings.
    requests
        one shape.
    profile
        of all images.
    folder
        for the chunks.
    name
        file stem; must depend on everything that the marks depend on besides the requests.
    say
        told what is marked.

    Raises
    ------
    SystemExit
        not one image could be marked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    chunk = CHUNK if marker.device.type == "cuda" else CPU_CHUNK
    for start in range(0, len(requests), chunk):
        end = min(start + chunk, len(requests))
        path = folder / f"{name}-{start:05d}-{_content(requests[start:end])}.npz"
        if not path.exists():
            part = _mark_chunk(marker, requests[start:end], profile)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez_compressed(file, **part)
            os.replace(partial, path)
            say(f"{end}/{len(requests)} marked, {float(part['seconds']) / (end - start):.1f} s an image")
        with np.load(path, allow_pickle=False) as archive:
            parts.append((start, {key: archive[key] for key in archive.files}))
    return _joined(parts, len(requests))


def _content(requests: Sequence[MarkRequest]) -> str:
    """Return 16 hexadecimal digits that depend on the images, keys and regions of interest."""
    total = hashlib.sha256()
    for request in requests:
        total.update(request.image.tobytes() + request.key + (b"" if request.roi is None else request.roi.tobytes()))
    return total.hexdigest()[:16]


def _mark_chunk(marker: Marker, requests: Sequence[MarkRequest], profile: ModalityProfile) -> dict[str, np.ndarray]:
    began = time.perf_counter()
    results = marker.mark(requests, profile)
    seconds = time.perf_counter() - began
    good = [(i, one) for i, one in enumerate(results) if isinstance(one, MarkedImage)]
    shape = requests[0].image.shape

    def stack(values: list[np.ndarray], shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.stack(values) if values else np.empty((0, *shape), dtype)

    return {
        "kept": np.array([i for i, _ in good], np.int64),
        "images": stack([one.image for _, one in good], shape, np.uint8),
        "strokes": stack([one.strokes for _, one in good], shape[:2], np.bool_),
        "region": stack([one.region for _, one in good], shape[:2], np.bool_),
        "roi": stack([one.roi for _, one in good], shape[:2], np.bool_),
        "anatomy": stack(
            [np.ones(shape[:2], bool) if one.anatomy is None else one.anatomy for _, one in good], shape[:2], np.bool_
        ),
        "tiers": np.array([one.tier for _, one in good], np.str_),
        "exact": np.array(
            [np.array_equal(one.image.astype(np.int32) - one.residual, requests[i].image) for i, one in good], bool
        ),
        "quality": np.array([json.dumps(one.quality.as_dict()) for _, one in good], dtype=np.str_),
        "refused": np.array(
            [f"{i} {one.code}" for i, one in enumerate(results) if isinstance(one, MarkError)], np.str_
        ),
        "seconds": np.array(seconds),
    }


def _joined(parts: Sequence[tuple[int, dict[str, np.ndarray]]], count: int) -> Marks:
    quality, refused = [], {}
    for start, part in parts:
        quality += [json.loads(str(text)) for text in part["quality"]]
        refused |= {start + int(line.split()[0]): line.split()[1] for line in map(str, part["refused"])}
    kept = np.concatenate([start + part["kept"] for start, part in parts])
    if not len(kept):
        raise SystemExit(f"no image could be marked: {', '.join(sorted(set(refused.values())))}")
    arrays = {key: np.concatenate([part[key] for _, part in parts]) for key in ARRAYS}
    seconds = sum(float(part["seconds"]) for _, part in parts) / count
    return Marks(kept=kept, quality=quality, refused=refused, seconds=seconds, **arrays)
