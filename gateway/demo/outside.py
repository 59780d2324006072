"""The marked copies at the outside PACS: found there, not taken from the gateway's own account."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset

from gateway.demo.images import DemoImage
from gateway.demo.peers import Orthanc


@dataclass(frozen=True)
class Copy:
    """One marked copy as it lies outside."""

    file: bytes  # PS3.10
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    is_derived: bool  # Image Type says so (PS3.3 C.7.6.1.1.2), and a derivation description is there


def copies_at(pacs: Orthanc) -> dict[str, list[Copy]]:
    """All instances at the PACS by the original's SOP Instance UID that they name as their source.

    What names no source is listed under the empty string: nothing of that kind should be there.
    """
    found: dict[str, list[Copy]] = {}
    for identifier in pacs.instances():
        file = pacs.file(identifier)
        header = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
        copy = Copy(
            file=file,
            sop_instance_uid=str(header.SOPInstanceUID),
            series_uid=str(header.SeriesInstanceUID),
            study_uid=str(header.StudyInstanceUID),
            is_derived="DERIVED" in header.get("ImageType", []) and bool(header.get("DerivationDescription")),
        )
        found.setdefault(_source_of(header), []).append(copy)
    return found


def has_new_uids(copy: Copy, original: DemoImage) -> bool:
    """Whether nobody can take the copy for the original, or for a part of its series."""
    return copy.sop_instance_uid != original.sop_instance_uid and copy.series_uid != original.series_uid


def _source_of(header: Dataset) -> str:
    """Source Image Sequence (0008,2112), last item: originals that were derived images name older sources before it."""
    items = header.get("SourceImageSequence") or []
    return str(items[-1].get("ReferencedSOPInstanceUID", "")) if items else ""
