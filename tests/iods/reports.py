"""Structured reports of every class, and what else is a document of references: key objects (PS3.3 A.35)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset

from tests.iods.parts import code, composite, item, reference, uid
from tests.support.dicom import studies

# Name: suffix of the SOP class, root template and document title (PS3.16).
KINDS = {
    "basic-text": ("88.11", "2000", ("18782-3", "LN", "Radiology Study observation")),
    "comprehensive-3d": ("88.34", "1500", ("126000", "DCM", "Imaging Measurement Report")),
    "extensible": ("88.35", "1500", ("126000", "DCM", "Imaging Measurement Report")),
    "procedure-log": ("88.40", "3001", ("121120", "DCM", "Cath Lab Procedure Log")),
    "mammography-cad": ("88.50", "4000", ("111036", "DCM", "Mammography CAD Report")),
    "chest-cad": ("88.65", "4100", ("112000", "DCM", "Chest CAD Report")),
    "dose": ("88.67", "10011", ("113701", "DCM", "X-Ray Radiation Dose Report")),
    "radiopharmaceutical-dose": ("88.68", "10021", ("113500", "DCM", "Radiopharmaceutical Radiation Dose Report")),
    "colon-cad": ("88.69", "4120", ("112220", "DCM", "Colon CAD Report")),
    "implantation-plan": ("88.70", "7000", ("122361", "DCM", "Implantation Plan")),
    "acquisition-context": ("88.71", "8001", ("126220", "DCM", "Preclinical Small Animal Acquisition Context")),
    "echo": ("88.72", "5300", ("125200", "DCM", "Adult Echocardiography Procedure Report")),
    "patient-dose": ("88.73", "10030", ("113507", "DCM", "Patient Radiation Dose Report")),
    "planned-agent": ("88.74", "11001", ("130219", "DCM", "Planned Imaging Agent Administration")),
    "performed-agent": ("88.75", "11020", ("130220", "DCM", "Performed Imaging Agent Administration")),
    "waveform-annotation": ("88.77", "3750", ("130600", "DCM", "Waveform Annotation Report")),
    "macular-grid": ("79.1", "2100", ("111690", "DCM", "Macular Grid Thickness and Volume Report")),
    "enhanced-dose": ("88.76", "10040", ("130500", "DCM", "Enhanced X-Ray Radiation Dose Report")),
}


def reports(images: Sequence[Dataset]) -> dict[str, Dataset]:
    """Name -> data set; all name the first image, some others too."""
    made = {f"sr-{name}": _report(images, f"sr-{name}", *KINDS[name]) for name in KINDS}
    made["sr-comprehensive"] = studies.report(images)
    made["sr-enhanced"] = _report(images, "sr-enhanced", "88.22", "2000", KINDS["basic-text"][2])
    made["key-object"] = studies.rejection_note(images)
    return made


def evidence(images: Sequence[Dataset]) -> list[Dataset]:
    """Hierarchical references, one study (PS3.3 table C.17-3)."""
    series: dict[str, list[Dataset]] = {}
    for image in images:
        series.setdefault(image.SeriesInstanceUID, []).append(reference(image))
    listed = [item(SeriesInstanceUID=name, ReferencedSOPSequence=found) for name, found in series.items()]
    return [item(StudyInstanceUID=images[0].StudyInstanceUID, ReferencedSeriesSequence=listed)]


def _report(images: Sequence[Dataset], name: str, suffix: str, template: str, title: tuple[str, str, str]) -> Dataset:
    """A title, a sentence and an image."""
    ds = composite(suffix, "SR", name, CompletionFlag="PARTIAL", VerificationFlag="UNVERIFIED")
    ds.ReferencedPerformedProcedureStepSequence, ds.PerformedProcedureCodeSequence = [], []
    ds.CurrentRequestedProcedureEvidenceSequence = evidence(images)
    ds.ValueType, ds.ContinuityOfContent, ds.ConceptNameCodeSequence = "CONTAINER", "SEPARATE", [code(*title)]
    ds.ContentTemplateSequence = [item(MappingResource="DCMR", TemplateIdentifier=template)]
    ds.ContentSequence = [
        item(
            RelationshipType="CONTAINS",
            ValueType="TEXT",
            ConceptNameCodeSequence=[code("121071", "DCM", "Finding")],
            TextValue="made",
        ),
        item(
            RelationshipType="CONTAINS",
            ValueType="IMAGE",
            ConceptNameCodeSequence=[code("121112", "DCM", "Source of Measurement")],
            ReferencedSOPSequence=[reference(images[0])],
        ),
        item(
            RelationshipType="CONTAINS",
            ValueType="UIDREF",
            ConceptNameCodeSequence=[code("112040", "DCM", "Tracking Unique Identifier")],
            UID=uid(name, "tracking"),  # names a thing, no instance: it stays
        ),
    ]
    if suffix == "88.11":
        ds.ContentSequence = ds.ContentSequence[:2]
    if suffix == "88.40":
        ds.SynchronizationFrameOfReferenceUID, ds.SynchronizationTrigger = uid("clock"), "NO TRIGGER"
        ds.AcquisitionTimeSynchronized = "N"
    return ds
