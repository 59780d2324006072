"""Where slices lie: of one instance (PS3.3 C.7.6.2.1.1), and of each frame of an enhanced image (C.7.6.16.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset

from gateway.dicom.encoding import values
from gateway.dicom.encoding.groups import FunctionalGroups

# Position and orientation macros of the patient's and of an ultrasound volume's own coordinate system (C.7.6.16.2.3,
# C.7.6.16.2.4, C.8.24.6.1, C.8.24.6.2): sequence and attribute of either.
_PLANES = (
    (
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
    ),
    (
        ("PlanePositionVolumeSequence", "ImagePositionVolume"),
        ("PlaneOrientationVolumeSequence", "ImageOrientationVolume"),
    ),
)


def slice_position(ds: Dataset) -> float | None:
    """Distance in mm of the slice from the origin along the slice normal.

    From Image Position and Image Orientation (Patient); where they are missing or degenerate, Slice Location
    (0020,1041), else None. It grows with the same sign over a whole series, whatever the order of arrival.
    """
    position = values.numbers(ds, "ImagePositionPatient")
    orientation = values.numbers(ds, "ImageOrientationPatient")
    found = _along_normal(position, orientation)
    return values.number(ds, "SliceLocation") if found is None else found


def frame_positions(ds: Dataset, frames: int) -> list[float] | None:
    """Distance in mm of each frame from the origin along its slice normal, out of functional groups.

    Two frames of one place have one position, whatever stands between them in the order of frames (phases, echoes,
    diffusion weights). Without positions a stack is laid out by its In-Stack Position Number (0020,9057).

    Returns
    -------
    list of float or None
        None as soon as a frame has no place of its own in either way.

    Raises
    ------
    DicomError
        As `FunctionalGroups`.
    """
    groups = FunctionalGroups(ds, frames)
    for way in (_by_plane, _by_stack):
        found = [position for frame in range(frames) if (position := way(groups, frame)) is not None]
        if len(found) == frames:
            return found
    return None


def _by_plane(groups: FunctionalGroups, frame: int) -> float | None:
    for (places, place), (orientations, orientation) in _PLANES:
        where, how = groups.macro(frame, places), groups.macro(frame, orientations)
        if where is not None and how is not None:
            return _along_normal(values.numbers(where, place), values.numbers(how, orientation))
    return None


def _by_stack(groups: FunctionalGroups, frame: int) -> float | None:
    """Number in the stack (C.7.6.16.2.2) times the distance between slices; 1 mm where that is not told."""
    content = groups.macro(frame, "FrameContentSequence")
    number = values.integer(content, "InStackPositionNumber") if content is not None else None
    if number is None:
        return None
    measures = groups.macro(frame, "PixelMeasuresSequence")
    found = [values.number(measures, of) for of in ("SpacingBetweenSlices", "SliceThickness")] if measures else []
    return number * next((abs(distance) for distance in found if distance), 1.0)


def _along_normal(position: Sequence[float], orientation: Sequence[float]) -> float | None:
    if len(position) != 3 or len(orientation) != 6:
        return None
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    return float(np.dot(position, normal / length)) if length > 1e-3 else None
