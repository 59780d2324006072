"""Every place where a UID refers to instances, series or studies, and what becomes of it there.

The rows of `FOLLOWED` are those of the project's list of references (tags in its order), each followed down to its
UIDs; below them stands what is followed besides, what names a study, what stays as it is, and what is taken out. A path
lists attributes by their names in PS3.6, outermost first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydicom import Dataset
from pydicom.datadict import DicomDictionary

Outcome = Literal["instance", "series", "study", "kept", "removed"]

# Tags of the sequences (and of the one UID) that the list names.
LISTED = """
    0008,1140 0008,114A 0008,1115 0008,1199 0008,1200 0008,2112 0008,9092 0008,9124 0020,9172 0042,0013
    0040,A375 0040,A385 0040,A360 0040,A525 0040,A730 3006,0014 3006,0016 300C,0002 300C,0060 0008,9237 0020,9161
"""


@dataclass(frozen=True)
class Row:
    """One place.

    Attributes
    ----------
    path
        Attributes by name; all but the last are sequences.
    outcome
        ``instance`` or ``series``: mapped as such a UID; ``study``: kept or mapped, by choice; ``kept``; ``removed``.
    on_image
        What becomes of it in the marked copy of an image, where that differs.
    code
        Concept name of the content item that holds the UID (SR).
    sop_class
        Referenced SOP Class UID beside it.
    """

    path: str
    outcome: Outcome
    on_image: Outcome | None = None
    code: str = ""
    sop_class: str = "1.2.840.10008.5.1.4.1.1.2"

    @property
    def keywords(self) -> list[str]:
        """The path by keyword."""
        return [_KEYWORDS[name] for name in self.path.split(" > ")]

    @property
    def key(self) -> tuple[str, ...]:
        """What tells this place from others: the sequence right around, and the attribute."""
        return ("", *self.keywords)[-2:] + ((self.code,) if self.code else ())

    def outcome_in(self, kind: str) -> Outcome:
        """What must become of it in a copy of this kind: "marked" or "remapped"."""
        return self.on_image if kind == "marked" and self.on_image else self.outcome


_KEYWORDS = {name: keyword for _, _, name, _, keyword in DicomDictionary.values()}


def _rows(text: str, outcome: Outcome, **more: str) -> list[Row]:
    return [Row(" ".join(line.split()), outcome, **more) for line in text.strip().splitlines()]


_INSTANCE = "Referenced SOP Instance UID"
_SERIES = "Series Instance UID"
_LIST = "Referenced Series Sequence > Referenced SOP Sequence > Referenced SOP Instance UID"
_EVIDENCE = "Referenced Series Sequence > Series Instance UID"
_PRESENTATION = "Referenced Presentation State Sequence"
_STUDY = "1.2.840.10008.3.1.2.3.1"
_RT = "Referenced Frame of Reference Sequence > RT Referenced Study Sequence > RT Referenced Series Sequence"

FOLLOWED = [
    # (0008,1140), also of presentation states and of functional groups
    Row(f"Referenced Image Sequence > {_INSTANCE}", "instance"),
    Row(f"Referenced Series Sequence > Referenced Image Sequence > {_INSTANCE}", "instance"),
    Row(f"Graphic Annotation Sequence > Referenced Image Sequence > {_INSTANCE}", "instance"),
    Row(
        f"Shared Functional Groups Sequence > Referenced Image Sequence > {_INSTANCE}",
        "instance",
    ),
    # (0008,114A)
    Row(f"Referenced Instance Sequence > {_INSTANCE}", "instance"),
    # (0008,1115)
    Row(_EVIDENCE, "series"),
    Row(_LIST, "instance"),
    Row(f"Referenced Series Sequence > Referenced Instance Sequence > {_INSTANCE}", "instance"),
    # (0008,1199)
    Row(f"Referenced SOP Sequence > {_INSTANCE}", "instance"),
    # (0008,1200)
    Row(f"Studies Containing Other Referenced Instances Sequence > {_EVIDENCE}", "series"),
    Row(
        "Studies Containing Other Referenced Instances Sequence > Referenced Series Sequence"
        f" > Referenced Instance Sequence > {_INSTANCE}",
        "instance",
    ),
    # (0008,2112): a marked image names its own original there instead, or nothing
    Row(f"Source Image Sequence > {_INSTANCE}", "instance", on_image="removed"),
    # (0008,9092)
    Row(f"Referenced Image Evidence Sequence > {_EVIDENCE}", "series"),
    Row(f"Referenced Image Evidence Sequence > {_LIST}", "instance"),
    # (0008,9124)
    Row(f"Derivation Image Sequence > Source Image Sequence > {_INSTANCE}", "instance"),
    Row(
        "Per-Frame Functional Groups Sequence > Derivation Image Sequence > Source Image Sequence > " + _INSTANCE,
        "instance",
    ),
    # (0020,9172)
    Row(f"Conversion Source Attributes Sequence > {_INSTANCE}", "instance"),
    Row(
        f"Shared Functional Groups Sequence > Conversion Source Attributes Sequence > {_INSTANCE}",
        "instance",
    ),
    # (0042,0013)
    Row(f"Source Instance Sequence > {_INSTANCE}", "instance"),
    # (0040,A375), (0040,A385), (0040,A360), (0040,A525)
    Row(f"Current Requested Procedure Evidence Sequence > {_EVIDENCE}", "series"),
    Row(f"Current Requested Procedure Evidence Sequence > {_LIST}", "instance"),
    Row(f"Pertinent Other Evidence Sequence > {_EVIDENCE}", "series"),
    Row(f"Pertinent Other Evidence Sequence > {_LIST}", "instance"),
    Row(f"Predecessor Documents Sequence > {_EVIDENCE}", "series"),
    Row(f"Predecessor Documents Sequence > {_LIST}", "instance"),
    Row(f"Identical Documents Sequence > {_EVIDENCE}", "series"),
    Row(f"Identical Documents Sequence > {_LIST}", "instance"),
    # (0040,A730): IMAGE, COMPOSITE and WAVEFORM items; UIDREF items that name a series; CID 7201, 7202, 7210
    Row(f"Content Sequence > Referenced SOP Sequence > {_INSTANCE}", "instance"),
    Row(f"Content Sequence > Content Sequence > Referenced SOP Sequence > {_INSTANCE}", "instance"),
    Row(
        "Content Sequence > Referenced SOP Sequence > Referenced Image Sequence > " + _INSTANCE,
        "instance",
    ),
    Row("Content Sequence > UID", "series", code="112002"),
    Row("Content Sequence > Content Sequence > UID", "series", code="121232"),
    Row("Content Sequence > UID", "series", code="121323"),
    # (3006,0014), (3006,0016)
    Row(f"{_RT} > {_SERIES}", "series"),
    Row(f"{_RT} > Contour Image Sequence > {_INSTANCE}", "instance"),
    Row(f"ROI Contour Sequence > Contour Sequence > Contour Image Sequence > {_INSTANCE}", "instance"),
    # (300C,0002), (300C,0060)
    Row(f"Referenced RT Plan Sequence > {_INSTANCE}", "instance"),
    Row(f"Referenced Structure Set Sequence > {_INSTANCE}", "instance"),
    # (0008,9237)
    Row(f"{_PRESENTATION} > {_INSTANCE}", "instance"),
    Row(f"{_PRESENTATION} > {_EVIDENCE}", "series"),
    Row(f"{_PRESENTATION} > {_LIST}", "instance"),
    # (0020,9161)
    Row("Concatenation UID", "instance"),
]

BESIDES = [
    Row("Frame Extraction Sequence > Multi-frame Source SOP Instance UID", "instance"),
    Row("SOP Instance UID of Concatenation Source", "instance"),
    Row("Related Series Sequence > Series Instance UID", "series"),
    Row("Advanced Blending Sequence > Series Instance UID", "series"),
    *_rows(
        """
        Definition Source Sequence > Referenced SOP Instance UID
        Referenced Dose Sequence > Referenced SOP Instance UID
        Referenced Treatment Record Sequence > Referenced SOP Instance UID
        Referenced Waveform Sequence > Referenced SOP Instance UID
        Referenced Raw Data Sequence > Referenced Instance Sequence > Referenced SOP Instance UID
        Referenced Real World Value Mapping Instance Sequence > Referenced SOP Instance UID
        Referenced Spatial Registration Sequence > Referenced SOP Instance UID
        Segment Surface Source Instance Sequence > Referenced SOP Instance UID
        Left Image Sequence > Referenced SOP Instance UID
        Right Image Sequence > Referenced SOP Instance UID
        Assessed SOP Instance Sequence > Referenced SOP Instance UID
        Referenced Surface Data Sequence > Referenced SOP Instance UID
        Structured Display Image Box Sequence > Referenced Instance Sequence > Referenced SOP Instance UID
        """,
        "instance",
    ),
]

STUDIES = [
    *_rows(
        """
        Study Instance UID
        Current Requested Procedure Evidence Sequence > Study Instance UID
        Pertinent Other Evidence Sequence > Study Instance UID
        Predecessor Documents Sequence > Study Instance UID
        Identical Documents Sequence > Study Instance UID
        Referenced Image Evidence Sequence > Study Instance UID
        Studies Containing Other Referenced Instances Sequence > Study Instance UID
        Referenced Request Sequence > Study Instance UID
        Request Attributes Sequence > Study Instance UID
        Related Series Sequence > Study Instance UID
        Blending Sequence > Study Instance UID
        Advanced Blending Sequence > Study Instance UID
        Contributing SOP Instances Reference Sequence > Study Instance UID
        """,
        "study",
    ),
    Row("Content Sequence > UID", "study", code="110180"),  # Study Instance UID
    Row("Content Sequence > UID", "study", code="121018"),  # Procedure Study Instance UID
    # A reference to a study by its own SOP class (retired) names it by its UID
    Row(f"Referenced Study Sequence > {_INSTANCE}", "study", sop_class=_STUDY),
    Row(f"Request Attributes Sequence > Referenced Study Sequence > {_INSTANCE}", "study", sop_class=_STUDY),
    Row(
        f"Referenced Frame of Reference Sequence > RT Referenced Study Sequence > {_INSTANCE}",
        "study",
        sop_class=_STUDY,
    ),
]

KEPT = [
    # Objects of which no copy is made: procedure steps, patients, visits
    Row(f"Referenced Performed Procedure Step Sequence > {_INSTANCE}", "kept", sop_class="1.2.840.10008.3.1.2.3.3"),
    Row(f"Referenced Patient Sequence > {_INSTANCE}", "kept", sop_class="1.2.840.10008.3.1.2.1.1"),
    Row(f"Referenced Visit Sequence > {_INSTANCE}", "kept", sop_class="1.2.840.10008.3.1.2.2.1"),
    Row(f"Related Procedure Step Sequence > {_INSTANCE}", "kept", sop_class="1.2.840.10008.5.1.4.34.6.1"),
    # Objects of no patient; a well-known instance has its UID from the standard (PS3.6 table A-1)
    Row("Referenced Color Palette Instance UID", "kept"),
    # Frames of reference, and what else is told apart by a UID of its own
    *_rows(
        """
        Frame of Reference UID
        Referenced Frame of Reference Sequence > Frame of Reference UID
        Structure Set ROI Sequence > Referenced Frame of Reference UID
        Registration Sequence > Frame of Reference UID
        Fiducial Set Sequence > Frame of Reference UID
        Surface Sequence > Tracking UID
        Segment Sequence > Tracking UID
        Dimension Organization Sequence > Dimension Organization UID
        Dimension Index Sequence > Dimension Organization UID
        Content Sequence > Referenced Frame of Reference UID
        Content Sequence > Observation UID
        Synchronization Frame of Reference UID
        Volume Frame of Reference UID
        Deformable Registration Sequence > Source Frame of Reference UID
        Presentation Display Collection UID
        Annotation Group Sequence > Annotation Group UID
        Specimen Description Sequence > Specimen UID
        Irradiation Event Identification Sequence > Irradiation Event UID
        Palette Color Lookup Table Sequence > Palette Color Lookup Table UID
        Irradiation Event UID
        Palette Color Lookup Table UID
        Device UID
        """,
        "kept",
    ),
    Row("Content Sequence > UID", "kept", code="112040"),  # Tracking Unique Identifier
    Row("Content Sequence > UID", "kept", code="112227"),  # Frame of Reference UID
    Row("Content Sequence > UID", "kept", code="113769"),  # Irradiation Event UID
    Row("Content Sequence > UID", "kept", code="121012"),  # Device Observer UID
]

# Where the archive has what is referred to: true of originals only (PS3.3 C.17.2, 10.3.2; PS3.4 C.6)
_RETRIEVALS = """
    DICOM Retrieval Sequence > Retrieve AE Title
    DICOM Media Retrieval Sequence > Storage Media File-set UID
    WADO Retrieval Sequence > Retrieve URI
    XDS Retrieval Sequence > Repository Unique ID
    XDS Retrieval Sequence > Home Community ID
    WADO-RS Retrieval Sequence > Retrieve URL
"""
REMOVED = [
    *_rows(_RETRIEVALS, "removed"),
    *_rows(_RETRIEVALS.replace("    ", "Referenced Instance Sequence > "), "removed"),
    *(
        Row(f"{around}{name}", "removed")
        for around in (
            "",
            "Referenced Series Sequence > ",
            "Referenced Image Evidence Sequence > Referenced Series Sequence > ",
            "Current Requested Procedure Evidence Sequence > Referenced Series Sequence > ",
            "Referenced Series Sequence > Referenced SOP Sequence > ",
        )
        for name in (
            "Retrieve AE Title",
            "Instance Availability",
            "Retrieve URL",
            "Retrieve URI",
            "Retrieve Location UID",
            "Storage Media File-set ID",
            "Storage Media File-set UID",
        )
    ),
]

ROWS = [*FOLLOWED, *BESIDES, *STUDIES, *KEPT, *REMOVED]
OUTCOMES = {row.key: row.outcome for row in ROWS}

OWN = {("", "SOPInstanceUID"), ("", "SeriesInstanceUID")}
# UIDs of kinds and makers, not of instances.
NO_REFERENCES = {
    "SOPClassUID", "ReferencedSOPClassUID", "SOPClassesInStudy", "RelatedGeneralSOPClassUID", "InstanceCreatorUID",
    "CreatorVersionUID", "CodingSchemeUID", "ContextUID", "MappingResourceUID", "ContextGroupExtensionCreatorUID",
}  # fmt: skip


def holding(row: Row, value: object, into: Dataset) -> Dataset:
    """Put `value` at the row's place, with what stands beside it there in real objects."""
    *sequences, attribute = row.keywords
    inner = into
    for name in sequences:
        item = Dataset()
        setattr(inner, name, [item])
        inner = item
    if attribute == "ReferencedSOPInstanceUID":
        inner.ReferencedSOPClassUID = row.sop_class
    if row.code:
        name = Dataset()
        name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = row.code, "DCM", "as in PS3.16"
        inner.ValueType, inner.ConceptNameCodeSequence = "UIDREF", [name]
    setattr(inner, attribute, value)
    return into


def found(row: Row, ds: Dataset) -> object:
    """What stands at the row's place; None when nothing does."""
    *sequences, attribute = row.keywords
    for name in sequences:
        if not ds.get(name):
            return None
        [ds] = ds[name].value
    return ds[attribute].value if attribute in ds else None


def uids(ds: Dataset, around: str = "") -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(`Row.key` of its place, values) of every public UID at any level that may name an instance, series or the like.

    The object's own are among them, as `OWN`.
    """
    for element in ds:
        if element.tag.is_private or element.keyword in NO_REFERENCES:
            continue
        if element.VR == "SQ":
            for item in element.value:
                yield from uids(item, element.keyword)
        elif element.VR == "UI":
            code = (ds.ConceptNameCodeSequence[0].CodeValue,) if element.keyword == "UID" else ()
            values = element.value or []
            yield (around, element.keyword, *code), (values,) if isinstance(values, str) else tuple(map(str, values))
