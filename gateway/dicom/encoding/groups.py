"""Multi-frame functional groups: what an enhanced image says of each of its frames (PS3.3 C.7.6.16).

A macro stands either once in Shared Functional Groups Sequence (5200,9229) or in the item of each frame in Per-frame
Functional Groups Sequence (5200,9230). Where an image has both, the frame's own counts. Images of older kinds have
neither: what they say stands at the top level, for all frames alike.
"""

from __future__ import annotations

from pydicom import Dataset

from gateway.dicom.encoding import values
from gateway.errors import DicomError

# Regions of Anatomic Region Sequence as Body Part Examined (PS3.16 Annex L): SNOMED CT, and the codes before it.
_BODY_PARTS = {
    "12738006": "BRAIN",
    "T-A0100": "BRAIN",
    "69536005": "HEAD",
    "T-D1100": "HEAD",
    "89546000": "SKULL",
    "T-11100": "SKULL",
    "774007": "HEADNECK",
    "T-D1000": "HEADNECK",
}


class FunctionalGroups:
    """The functional groups of one image.

    Parameters
    ----------
    ds
        The header.
    frames
        Number of Frames.

    Raises
    ------
    DicomError
        "wrong-functional-groups": not one item a frame, so no item can be told to be a frame's.
    """

    def __init__(self, ds: Dataset, frames: int) -> None:
        shared = values.items(ds, "SharedFunctionalGroupsSequence")
        self._shared = shared[0] if shared else None
        self._frames = values.items(ds, "PerFrameFunctionalGroupsSequence")
        if self._frames and len(self._frames) != frames:
            raise DicomError(
                "wrong-functional-groups",
                f"{len(self._frames)} items of per-frame functional groups for {frames} frames",
                "the sender has to make them agree",
            )

    def macro(self, frame: int, keyword: str) -> Dataset | None:
        """The item of a functional group sequence for a frame (from 0), else the shared one; None without either."""
        if self._frames and (own := values.items(self._frames[frame], keyword)):
            return own[0]
        return self.shared(keyword)

    def shared(self, keyword: str) -> Dataset | None:
        """The item of a functional group sequence that stands for all frames, or None."""
        found = values.items(self._shared, keyword) if self._shared is not None else []
        return found[0] if found else None


def body_part_of(ds: Dataset) -> str:
    """Body Part Examined (0018,0015); of an enhanced image the region of its Frame Anatomy (PS3.3 C.7.6.16.2.8).

    "" where there is none, or a region without a name here. Of several frames the first one counts.
    """
    if part := values.text(ds, "BodyPartExamined"):
        return part
    groups = [values.items(ds, f"{kind}FunctionalGroupsSequence")[:1] for kind in ("PerFrame", "Shared")]
    for group in [item for found in groups for item in found]:
        for anatomy in values.items(group, "FrameAnatomySequence"):
            for region in values.items(anatomy, "AnatomicRegionSequence"):
                return _BODY_PARTS.get(values.text(region, "CodeValue"), "")
    return ""


def has_groups(ds: Dataset) -> bool:
    """Whether an image has per-frame functional groups; an enhanced one must (PS3.3 C.7.6.16.1, type 1)."""
    return bool(values.items(ds, "PerFrameFunctionalGroupsSequence"))
