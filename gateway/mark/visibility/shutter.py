"""Display shutters: only what is seen is marked, and only that counts in any budget or figure (PS3.3 C.7.6.11).

The part that is seen is cut out, marked as an image of its own, and put back. Where it is no rectangle, the rest of its
bounding box is never touched and counts nothing (``Canvas.seen``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gateway.mark.surrogates.nets import MIN_INPUT
from gateway.mark.types import MarkedImage, MarkRequest

MARGIN = 0.14
"""What is cut out is wider than what is seen by this share of its shorter side: so a letter across the edge is known as
half a letter, and noise at the edge is measured as everywhere."""

Place = tuple[slice, slice]
"""Rows and columns of what is seen."""


def cut_out(request: MarkRequest) -> tuple[MarkRequest, Place | None]:
    """Return the request for what is seen, and its place; the request itself and None where nothing can be cut off."""
    hidden = request.hidden
    shape = request.image.shape[:2]
    masks = [mask for mask in (hidden, request.padding, request.roi) if mask is not None]
    if hidden is None or any(mask.shape != shape or mask.dtype != np.bool_ for mask in masks) or hidden.all():
        return request, None  # a wrong mask is told of where the request is checked
    rows, columns = (np.flatnonzero((~hidden).any(axis=axis)) for axis in (1, 0))
    margin = round(MARGIN * min(len(rows), len(columns)))
    place = _bounds(rows, margin, shape[0]), _bounds(columns, margin, shape[1])
    padding, roi = (None if mask is None else mask[place] for mask in (request.padding, request.roi))
    left = hidden[place]
    image = np.ascontiguousarray(request.image[place])
    return replace(request, image=image, hidden=left if left.any() else None, padding=padding, roi=roi), place


def put_back(result: MarkedImage, request: MarkRequest, place: Place | None) -> MarkedImage:
    """Return the result for the whole of ``request`` whose part at ``place`` was marked."""
    if place is None:
        return result
    image, residual = request.image.copy(), np.zeros(request.image.shape, np.int32)
    image[place], residual[place] = result.image, result.residual
    masks = np.zeros((3, *request.image.shape[:2]), bool)
    masks[:, place[0], place[1]] = result.strokes, result.region, result.roi
    if result.air is not None and result.anatomy is not None:
        zones = np.zeros((2, *request.image.shape[:2]), bool)
        zones[:, place[0], place[1]] = result.air, result.anatomy
        result = replace(result, air=zones[0], anatomy=zones[1])
    return replace(result, image=image, residual=residual, strokes=masks[0], region=masks[1], roi=masks[2])


def _bounds(places: np.ndarray, margin: int, side: int) -> slice:
    """First to last place and a margin, at least what a network takes."""
    first, end = int(places[0]) - margin, int(places[-1]) + 1 + margin
    lacking = max(0, MIN_INPUT - (end - first))
    first = max(0, min(first - lacking // 2, side - MIN_INPUT))
    return slice(first, min(side, max(end, first + MIN_INPUT)))
