"""Pictures of marks as a person sees them: original, marked, difference, and what is above the threshold where.

One image pixel is drawn as a square of whole screen pixels, or several share one: nothing is blended, so what is
painted can be counted in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from gateway.mark.types import MarkedImage, MarkRequest
from gateway.mark.visibility.display import display_of, untouchable_of
from gateway.mark.visibility.quality import visible_pixels
from gateway.mark.visibility.region import luminance
from gateway.mark.visibility.threshold import step_limit, visibility_threshold

AMPLIFIED = 20
"""How often the difference is shown."""
INSIDE = (0, 150, 255)
"""RGB of the outline around what is visible inside strokes (blue)."""
OUTSIDE = (255, 60, 0)
"""RGB of what is visible outside strokes (red): there should be next to none."""
PANEL = 380
"""Side in screen pixels that a panel comes near to: the next whole multiple or fraction of the image's longer side."""
_TITLE, _GAP, _DPI = 26, 8, 100  # screen pixels; dots per inch


@dataclass(frozen=True)
class Pair:
    """One row of a picture.

    Attributes
    ----------
    title
        above the original.
    remark
        above the marked image.
    original
        (H, W) or (H, W, 3) display values, float in 0..1.
    marked
        the same of the marked image.
    strokes
        (H, W) bool; with ``visible`` it gives the row its fourth panel. None: not known.
    visible
        (H, W) bool, what changes by more than the masked threshold; or None.
    """

    title: str
    remark: str
    original: np.ndarray
    marked: np.ndarray
    strokes: np.ndarray | None = None
    visible: np.ndarray | None = None


def pair_of(request: MarkRequest, result: MarkedImage, noise_factor: float, title: str) -> Pair:
    """Return the row of one marked image, all of it measured anew from the stored values.

    Parameters
    ----------
    request
        what was marked.
    result
        what came out.
    noise_factor
        k of the profile.
    title
        above the original.
    """
    window = display_of(request, untouchable_of(request))
    before, after = window.shown(request.image), window.shown(result.image)
    limit = step_limit(visibility_threshold(before, noise_factor), window.unit)
    visible = visible_pixels(before, after, limit)
    remark = f"PSNR {result.quality.psnr:.1f} dB, SSIM {result.quality.ssim:.3f}"
    return Pair(title, remark, before, after, result.strokes, visible)


def paint_visible(gray: np.ndarray, strokes: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8: the image in gray, what is visible inside strokes outlined and tinted, outside painted.

    Parameters
    ----------
    gray
        (H, W) float display values in 0..1.
    strokes
        (H, W) bool.
    visible
        (H, W) bool.

    Visible pixels outside strokes have exactly the colour ``OUTSIDE``, the rim of what is visible inside them exactly
    ``INSIDE``, the rest inside is half gray, half that; no other pixel has any colour.
    """
    base = np.repeat(np.rint(np.clip(gray, 0.0, 1.0) * 255.0)[..., None], 3, axis=2)
    inside = visible & strokes
    base[inside] = (base[inside] + np.array(INSIDE)) / 2.0
    base[inside & ~_core(inside)] = INSIDE
    base[visible & ~strokes] = OUTSIDE
    return base.astype(np.uint8)


def save_picture(pairs: Sequence[Pair], path: Path | IO[bytes]) -> None:
    """Write a PNG with one row for each pair: original, marked, difference x20 (0 is mid-gray), and what is visible.

    The fourth column is there when a pair has ``strokes`` and ``visible``.

    Raises
    ------
    ValueError
        no pair.
    OSError
        the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not pairs:
        raise ValueError("a picture needs at least one pair")
    rows = [_panels(pair) for pair in pairs]
    columns = max(len(row) for row in rows)
    cell = max(image.shape[1] for row in rows for _, image in row)
    heights = [row[0][1].shape[0] for row in rows]
    width = columns * (cell + _GAP) + _GAP
    height = sum(one + _TITLE + _GAP for one in heights)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    FigureCanvasAgg(figure)
    top = 0
    for row in rows:
        top += _TITLE
        for column, (title, image) in enumerate(row):
            left = _GAP + column * (cell + _GAP)
            rows_high, columns_wide = image.shape[:2]
            bottom = height - top - rows_high
            axis = figure.add_axes((left / width, bottom / height, columns_wide / width, rows_high / height))
            axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="none", aspect="auto")
            axis.set_axis_off()
            figure.text(left / width, (height - top + 6) / height, title, fontsize=8, va="bottom")
        top += row[0][1].shape[0] + _GAP
    figure.savefig(path, dpi=_DPI, format="png")


def _panels(pair: Pair) -> list[tuple[str, np.ndarray]]:
    """Titles and uint8 images of one row, at their size on the screen."""
    difference = np.clip(0.5 + AMPLIFIED * (pair.marked - pair.original), 0.0, 1.0)
    shown = [
        (pair.title, pair.original),
        (f"marked: {pair.remark}", pair.marked),
        (f"difference x{AMPLIFIED}", difference),
    ]
    panels = [(title, np.rint(255.0 * _fitted(np.clip(image, 0.0, 1.0))).astype(np.uint8)) for title, image in shown]
    if pair.strokes is not None and pair.visible is not None:
        # Outside first: where several pixels share one on the screen, a visible one outside strokes is shown for sure.
        outside = _fitted(pair.visible & ~pair.strokes)
        inside = _fitted(pair.visible & pair.strokes) & ~outside
        share = float((pair.visible & ~pair.strokes).mean())
        painted = paint_visible(_fitted(luminance(pair.marked)), inside, inside | outside)
        panels.append((f"above threshold: in strokes blue, outside red ({share:.2%})", painted))
    return panels


def _fitted(image: np.ndarray) -> np.ndarray:
    """The image at a whole multiple or fraction of its size; of a bool image a pixel counts if any of its own does."""
    longer = max(image.shape[:2])
    times = round(PANEL / longer)
    if times >= 1:
        return image.repeat(times, axis=0).repeat(times, axis=1)
    step = -(-longer // PANEL)
    height, width = (-(-side // step) for side in image.shape[:2])
    edges = [(0, height * step - image.shape[0]), (0, width * step - image.shape[1]), *[(0, 0)] * (image.ndim - 2)]
    mode: Literal["constant", "edge"] = "constant" if image.dtype == np.bool_ else "edge"
    blocks = np.pad(image, edges, mode=mode).reshape(height, step, width, step, *image.shape[2:])
    return np.asarray(blocks.any(axis=(1, 3)) if image.dtype == np.bool_ else blocks.mean(axis=(1, 3)))


def _core(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask whose four neighbours belong to it too."""
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return inner
