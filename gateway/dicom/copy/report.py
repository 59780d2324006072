"""The protection report: a Comprehensive SR (PS3.3 A.35.3) that tells of one study what was marked, how, and what the
mark does not promise. It refers to the marked copies and has UIDs of its own; it is no copy of anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import highdicom as hd
from highdicom.sr.coding import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ComprehensiveSRStorage

from gateway.dicom.copy.derivation import SCHEME, scheme_identification
from gateway.dicom.encoding.attributes import PATIENT, STUDY
from gateway.dicom.encoding.explicit import encode
from gateway.dicom.encoding.part10 import IMPLEMENTATION_CLASS_UID

SOP_CLASS = str(ComprehensiveSRStorage)
NO_PROMISE = (
    "The mark lowers the accuracy of the models that it was tested on. It is a deterrent, no encryption, no access "
    "control and no de-identification. It can be detected, and a determined party can remove it. It may also mislead "
    "models that are authorized. A marked copy is not for diagnosis, computer-aided detection, radiotherapy or "
    "measurement: whoever needs the image for these restores the original first."
)
NO_CONTACT = "No contact was configured. Authorized workstations retrieve originals from the site's restore service."
_SERIES_NUMBER = 9901
_RELATION = hd.sr.RelationshipTypeValues
_DECIBEL = CodedConcept("dB", "UCUM", "decibel")
_PERCENT = CodedConcept("%", "UCUM", "percent")
_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
          "StudyTime", "ReferringPhysicianName")  # fmt: skip


@dataclass(frozen=True)
class CopyFacts:
    """One marked copy: its own UIDs, what chose its mark in plain words, and figures (none: not kept).

    psnr and psnr_windows in dB, shares from 0 to 1 of the pixels.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    policy: str
    frames: int | None = None
    psnr: float | None = None
    psnr_windows: Mapping[str, float] | None = None
    region_share: float | None = None
    stroke_share: float | None = None
    roi_share: float | None = None


@dataclass(frozen=True)
class ReportFacts:
    """All that a report says.

    Attributes
    ----------
    attributes
        Patient and study, DICOM JSON model, as `gateway.dicom.encoding.attributes.query_attributes` gives it.
    study_uid
        Study Instance UID of the report itself: that of the copies.
    contact
        Who restores originals; may be empty.
    number
        1 for the first report of a study, counted on.
    previous
        SOP Instance UID of the report that this one replaces, or "".
    """

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    number: int
    copies: Sequence[CopyFacts]
    attributes: Mapping[str, Any]
    manufacturer: str
    software_version: str
    device_serial: str = ""
    institution: str = ""
    contact: str = ""
    previous: str = ""


def build_report(facts: ReportFacts) -> bytes:
    """The encoded data set, Explicit VR Little Endian, without File Meta.

    Raises
    ------
    ValueError
        There is no copy to tell of.
    """
    study = _study(facts)
    document = hd.sr.ComprehensiveSR(
        evidence=[_reference(study, copy) for copy in facts.copies],
        content=_content(facts),
        series_instance_uid=facts.series_uid,
        series_number=_SERIES_NUMBER,
        sop_instance_uid=facts.sop_instance_uid,
        instance_number=facts.number,
        manufacturer=facts.manufacturer[:64],
        institution_name=facts.institution[:64] or None,
        is_complete=True,
        is_final=True,
        previous_versions=[_previous(facts)] if facts.previous else None,
        specific_character_set="ISO_IR 192",
        manufacturer_model_name="MIAD Gateway",
        series_description="Protection report",
        software_versions=facts.software_version[:64],
        device_serial_number=facts.device_serial[:64] or None,
    )
    document.CodingSchemeIdentificationSequence = [scheme_identification()]
    return encode(document)


def _study(facts: ReportFacts) -> Dataset:
    """Patient and study modules as the originals had them; type 2 attributes are there, empty if need be."""
    known = Dataset.from_json(dict(facts.attributes))
    study = Dataset()
    for keyword in (*PATIENT, *STUDY):
        if keyword in known:
            study.add(known[keyword])
    for keyword in _EMPTY:
        if keyword not in study:
            setattr(study, keyword, "")
    study.StudyInstanceUID = facts.study_uid
    return study


def _reference(study: Dataset, copy: CopyFacts) -> Dataset:
    """A copy as evidence: what highdicom needs to know of an instance."""
    ds = Dataset()
    ds.update(study)
    ds.SOPClassUID, ds.SOPInstanceUID = copy.sop_class_uid, copy.sop_instance_uid
    ds.SeriesInstanceUID, ds.StudyInstanceUID = copy.series_uid, copy.study_uid
    return ds


def _previous(facts: ReportFacts) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = SOP_CLASS, facts.previous
    ds.SeriesInstanceUID, ds.StudyInstanceUID = facts.series_uid, facts.study_uid
    return ds


def _content(facts: ReportFacts) -> Dataset:
    root = hd.sr.ContainerContentItem(name=_code("MARK_REPORT", "Protection report of marked copies"))
    images, frames = len(facts.copies), sum(copy.frames or 1 for copy in facts.copies)
    language = hd.sr.LanguageOfContentItemAndDescendants(CodedConcept("en-US", "RFC5646", "English (United States)"))
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=IMPLEMENTATION_CLASS_UID,
        name="MIAD Gateway",
        manufacturer_name=facts.manufacturer[:64],
        model_name="MIAD Gateway",
        serial_number=facts.device_serial or None,
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    items = [
        *language,
        *observer,
        _text("SUMMARY", "Summary", f"{images} image instances with {frames} frames of this study were marked."),
        _text("RESTORE_CONTACT", "Restore contact", facts.contact or NO_CONTACT),
        _text("NO_PROMISE", "What the mark does not promise", NO_PROMISE),
    ]
    by_policy = sorted(facts.copies, key=lambda copy: copy.policy)  # stable: the order of copies stays
    for policy, copies in groupby(by_policy, key=lambda copy: copy.policy):
        group = _container("MARKED_COPIES", "Marked copies")
        group.ContentSequence = hd.sr.ContentSequence(
            [_text("POLICY", "Policy of the mark", policy), *map(_instance, copies)]
        )
        items.append(group)
    root.ContentSequence = hd.sr.ContentSequence(items)
    return root


def _instance(copy: CopyFacts) -> hd.sr.ContainerContentItem:
    item = _container("MARKED_COPY", "Marked copy")
    image = hd.sr.ImageContentItem(
        name=_code("MARKED_IMAGE", "Marked image"),
        referenced_sop_class_uid=copy.sop_class_uid,
        referenced_sop_instance_uid=copy.sop_instance_uid,
        relationship_type=_RELATION.CONTAINS,
    )
    item.ContentSequence = hd.sr.ContentSequence([image, *_figures(copy)])
    return item


def _figures(copy: CopyFacts) -> Iterator[hd.sr.ContentItem]:
    if copy.psnr is None:
        yield _text("FIGURES", "Figures", "No figures of this copy were kept.")
        return
    yield _number("PSNR", "Display PSNR, worst frame", copy.psnr, 2, _DECIBEL, "primary window")
    for window, psnr in sorted((copy.psnr_windows or {}).items()):
        yield _number("PSNR", "Display PSNR, worst frame", psnr, 2, _DECIBEL, window)
    shares = (
        ("REGION_SHARE", "Share of pixels where a mark was allowed", copy.region_share),
        ("LETTERING_SHARE", "Share of pixels covered by lettering", copy.stroke_share),
        ("ROI_SHARE", "Share of pixels in the untouched region of interest", copy.roi_share),
    )
    for value, meaning, share in shares:
        if share is not None:
            yield _number(value, meaning, 100 * share, 3, _PERCENT)


def _number(
    value: str, meaning: str, number: float, digits: int, unit: CodedConcept, window: str = ""
) -> hd.sr.NumContentItem:
    item = hd.sr.NumContentItem(
        name=_code(value, meaning), value=round(number, digits), unit=unit, relationship_type=_RELATION.CONTAINS
    )
    if window:
        name = _text("WINDOW", "Display window", window, _RELATION.HAS_CONCEPT_MOD)
        item.ContentSequence = hd.sr.ContentSequence([name])
    return item


def _container(value: str, meaning: str) -> hd.sr.ContainerContentItem:
    return hd.sr.ContainerContentItem(name=_code(value, meaning), relationship_type=_RELATION.CONTAINS)


def _text(
    value: str, meaning: str, text: str, relation: hd.sr.RelationshipTypeValues = _RELATION.CONTAINS
) -> hd.sr.TextContentItem:
    return hd.sr.TextContentItem(name=_code(value, meaning), value=text, relationship_type=relation)


def _code(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, SCHEME, meaning)
