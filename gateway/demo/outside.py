"""The marked copies at the outside PACS: found there, not taken from the gateway's own account."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pydicom

from gateway.demo.images import DemoImage
from gateway.demo.peers import Orthanc


@dataclass(frozen=True)
class Copy:
    """One marked copy as it lies outside."""

    file: bytes  # PS3.10
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    source_uid: str  # the original's SOP Instance UID as Source Image Sequence (0008,2112) names it; may be empty
    is_derived: bool  # Image Type says so (PS3.3 C.7.6.1.1.2), and a derivation description is there


def copies_at(pacs: Orthanc) -> list[Copy]:
    """All instances at the PACS."""
    return [_copy(pacs.file(identifier)) for identifier in pacs.instances()]


def has_new_uids(copy: Copy, original: DemoImage) -> bool:
    """Whether nobody can take the copy for the original, or for a part of its series."""
    return copy.sop_instance_uid != original.sop_instance_uid and copy.series_uid != original.series_uid


def _copy(file: bytes) -> Copy:
    header = pydicom.dcmread(io.BytesIO(file), stop_before_pixels=True)
    sources = header.get("SourceImageSequence") or []
    return Copy(
        file=file,
        sop_instance_uid=str(header.SOPInstanceUID),
        series_uid=str(header.SeriesInstanceUID),
        study_uid=str(header.StudyInstanceUID),
        source_uid=str(sources[0].get("ReferencedSOPInstanceUID", "")) if len(sources) == 1 else "",
        is_derived="DERIVED" in header.get("ImageType", []) and bool(header.get("DerivationDescription")),
    )
