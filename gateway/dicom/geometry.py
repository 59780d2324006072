"""Where a slice lies (PS3.3 C.7.6.2.1.1)."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from gateway.dicom import values


def slice_position(ds: Dataset) -> float | None:
    """Distance in mm of the slice from the origin along the slice normal.

    From Image Position and Image Orientation (Patient); where they are missing or degenerate, Slice Location
    (0020,1041), else None. It grows with the same sign over a whole series, whatever the order of arrival.
    """
    position = values.numbers(ds, "ImagePositionPatient")
    orientation = values.numbers(ds, "ImageOrientationPatient")
    if len(position) == 3 and len(orientation) == 6:
        normal = np.cross(orientation[:3], orientation[3:])
        length = float(np.linalg.norm(normal))
        if length > 1e-3:
            return float(np.dot(position, normal / length))
    return values.number(ds, "SliceLocation")
