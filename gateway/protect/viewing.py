"""Pictures for a person who compares a copy with its original: before, after, their difference, and the zones.

Foreign codestreams are decoded in a child without keys, as when an image is marked (`gateway.dicom.pixels.codecs`).
Nothing is stored.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from gateway.dicom.encoding.encoded import InstanceHeader
from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.syntaxes import syntax_of
from gateway.dicom.pixels.frames import FrameReader
from gateway.dicom.pixels.shown import shown
from gateway.dicom.pixels.stored_values import Pixels, pixels_of
from gateway.dicom.pixels.windows import Window
from gateway.errors import DicomError, MarkError, NotFoundError
from gateway.mark import MarkRequest, ModalityProfile
from gateway.mark.drafting import zones_of
from gateway.mark.visibility.display import display_of, untouchable_of
from gateway.protect.marking import Opened, how_shown, requests_of
from gateway.protect.policy import Decision

View = Literal["before", "after", "difference", "zones"]
VIEWS: tuple[View, ...] = ("before", "after", "difference", "zones")
MOST_PIXELS = 64 << 20  # of one frame
MOST_DEFLATED = 64 << 20  # bytes; a deflated data set is read whole
Interest = Callable[[MarkRequest, ModalityProfile], np.ndarray | None]
COLOURS = {  # of the zones
    "air": (70, 130, 220),
    "anatomy": (70, 190, 110),
    "interest": (190, 60, 200),
    "changed": (255, 140, 0),
}
_TINT = 0.4  # share of a zone's colour in its pixels
_NO_KEY = bytes(32)  # zones do not depend on the mark's key


@dataclass(frozen=True)
class Stored:
    """A data set that can be read: what opens it, its bytes, and how it is encoded."""

    open: Callable[[], BinaryIO]
    size: int
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Wish:
    """What is to be shown.

    Attributes
    ----------
    frame
        From 1.
    window
        Centre and width in output units; None: the image's own. Of a difference the width alone counts: stored values
        from black to white; None: what takes in 99 of 100 changed pixels.
    side
        Longest side of the picture; None: as it is.
    """

    view: View
    frame: int = 1
    window: tuple[float, float] | None = None
    side: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture (PNG), and what it was made of.

    Attributes
    ----------
    window
        Centre and width that it was shown in; None: colour, or from the smallest to the largest value.
    span
        Of a difference: stored values from no change (middle gray) to white.
    """

    png: bytes
    frames: int
    rows: int
    columns: int
    window: tuple[float, float] | None = None
    span: float | None = None


@dataclass(frozen=True)
class _Frame:
    """One frame of an object: the pixels that hold it, where in them, and the header that they are of."""

    header: InstanceHeader
    pixels: Pixels
    index: int
    first: int  # number of the first of `pixels`, from 0

    @property
    def values(self) -> np.ndarray:
        return self.pixels.frames[self.index]


def picture(
    before: Stored | None,
    after: Stored | None,
    wish: Wish,
    decide: Callable[[InstanceHeader], Decision],
    interest: Interest | None = None,
) -> Picture:
    """What was wished for, of an original and its marked copy, of which one may not be there.

    Parameters
    ----------
    decide
        What the route decides about the original: zones are those of the profile that it names.
    interest
        Finds the region of interest, as the route's mark does.

    Raises
    ------
    NotFoundError
        ``received-gone``, ``no-copy``: what the view is made of is not there; ``no-such-frame``, ``no-zones``.
    DicomError
        It cannot be decoded, or is "too-large-to-view".
    SealError
        A file was changed since it was written.
    """
    if before is None and wish.view != "after":
        raise NotFoundError("received-gone", "the gateway has let the received bytes go", "the copy can be shown")
    if after is None and wish.view in ("after", "difference"):
        message = "no copy is kept here: it was not made yet, or has gone since"
        raise NotFoundError("no-copy", message, "retention.derived_days says how long copies are kept")
    one = _frame(before if wish.view != "after" else after, wish.frame)
    span: float | None = None
    window = _window(one, wish)
    if wish.view in ("before", "after"):
        array = shown(one.pixels, one.index, window)
    elif wish.view == "difference":
        array, span = _difference(one, _frame(after, wish.frame), wish)
        window = None
    else:
        pair = (one, _frame(after, wish.frame) if after else None)
        array = _zones(*pair, decide(one.header).profile, window, interest)
    told = (window.center, window.width) if window else None
    return Picture(_png(array, wish.side), one.header.frames, one.header.rows, one.header.columns, told, span)


def _frame(stored: Stored | None, number: int) -> _Frame:
    assert stored is not None
    with stored.open() as file:
        if syntax_of(stored.transfer_syntax_uid).deflated:
            if stored.size > MOST_DEFLATED:
                raise _too_large()
            parts = split(file.read(), stored.transfer_syntax_uid)
            if parts.pixels is None:
                raise DicomError("no-pixels", "the object has no pixel data")
            _check(parts.header, number)
            return _Frame(parts.header, pixels_of(parts), number - 1, 0)
        reader = FrameReader(file, stored.size, stored.transfer_syntax_uid)
        _check(reader.header, number)
        first = (number - 1) // 2 * 2  # pieces begin at even frames
        pixels = reader.piece(first, min(first + 2, reader.header.frames))
        return _Frame(reader.header, pixels, number - 1 - first, first)


def _check(header: InstanceHeader, number: int) -> None:
    if not 1 <= number <= header.frames:
        raise NotFoundError("no-such-frame", f"it has {header.frames} frames")
    if header.rows * header.columns > MOST_PIXELS:
        raise _too_large()


def _too_large() -> DicomError:
    return DicomError("too-large-to-view", "it is too large to be shown here")


def _window(one: _Frame, wish: Wish) -> Window | None:
    """The window to show it in; None for colour, and where the image names none."""
    if one.values.ndim == 3:
        return None
    if wish.window is not None and wish.view != "difference":
        return Window(*wish.window, "LINEAR_EXACT")
    display = one.pixels.displays[one.index]
    return display.windows[0] if display.windows and not display.tables else None


def _difference(before: _Frame, after: _Frame, wish: Wish) -> tuple[np.ndarray, float]:
    """Copy minus original, (H, W) uint8: middle gray is no change; and the change that is white."""
    if before.values.shape != after.values.shape:
        raise DicomError("no-pair", "the copy has other rows and columns than the received image")
    change = after.values.astype(np.int32) - before.values
    if change.ndim == 3:  # the channel that changed most
        change = np.take_along_axis(change, np.abs(change).argmax(axis=2, keepdims=True), 2)[..., 0]
    changed = np.abs(change[change != 0])
    span = float(np.quantile(changed, 0.99)) if changed.size else 1.0
    span = max(wish.window[1] / 2 if wish.window else span, 1.0)
    return np.rint(127.5 + 127.5 * np.clip(change / span, -1.0, 1.0)).astype(np.uint8), span


def _zones(
    before: _Frame,
    after: _Frame | None,
    profile: ModalityProfile | None,
    window: Window | None,
    interest: Interest | None,
) -> np.ndarray:
    """The image in gray, its air, anatomy and region of interest tinted, and what the mark changed; (H, W, 3)."""
    if profile is None:
        raise NotFoundError("no-zones", "no modality profile takes this image, so it has no zones")
    count = len(before.pixels.frames)
    about = how_shown(before.header)[before.first : before.first + count]
    opened = Opened(b"", before.header, before.pixels)
    request = requests_of(opened, profile, _NO_KEY, [None] * count, about)[before.index]
    zones = zones_of(request, display_of(request, untouchable_of(request)), profile)
    gray = shown(before.pixels, before.index, window).astype(np.float32)
    canvas = gray if gray.ndim == 3 else np.repeat(gray[..., None], 3, axis=2)
    masks = {"air": zones.air, "anatomy": zones.anatomy}
    region = zones.region if interest is None else _attempted(interest, request, profile)
    if region is not None:
        masks["interest"] = region
    if after is not None:
        if before.values.shape != after.values.shape:
            raise DicomError("no-pair", "the copy has other rows and columns than the received image")
        changed = before.values != after.values
        masks["changed"] = changed.any(axis=2) if changed.ndim == 3 else changed
    for name, mask in masks.items():
        canvas[mask] = canvas[mask] * (1.0 - _TINT) + np.array(COLOURS[name], np.float32) * _TINT
    return np.rint(canvas).astype(np.uint8)


def _attempted(interest: Interest, request: MarkRequest, profile: ModalityProfile) -> np.ndarray | None:
    """The region of interest; None where the image cannot be marked, and so has none."""
    try:
        return interest(request, profile)
    except MarkError:
        return None


def _png(array: np.ndarray, side: int | None) -> bytes:
    made = Image.fromarray(array)
    if side is not None and max(made.size) > side:
        made.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    made.save(out, "PNG", compress_level=3)
    return out.getvalue()
