"""A study for tests: real CT slices, and what highdicom and pydicom build over them: SEG, SR, KO, GSPS, RTSTRUCT."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from highdicom.sr.coding import CodedConcept
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.sr.codedict import codes
from pydicom.uid import RTStructureSetStorage

MAKER = {
    "manufacturer": "Tests",
    "manufacturer_model_name": "Builder",
    "software_versions": "1",
    "device_serial_number": "1",
}
LIVER = CodedConcept("10200004", "SCT", "Liver")
# Titles of the notes by which IHE IOCM takes images back (PS3.16 CID 7011)
REJECTIONS = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}


def slices(count: int = 2) -> list[Dataset]:
    """Real CT slices of one series (pydicom's CT_small) at different positions."""
    found = []
    for number in range(1, count + 1):
        ds = dcmread(get_testdata_file("CT_small.dcm", download=False))
        ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.9.1", "1.2.826.0.9.2"
        ds.FrameOfReferenceUID = "1.2.826.0.9.3"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.9.4.{number}"
        ds.InstanceNumber = number
        ds.ImagePositionPatient = [*ds.ImagePositionPatient[:2], float(number * 5)]
        found.append(ds)
    return found


def segmentation(images: Sequence[Dataset]) -> Dataset:
    """A binary SEG of one segment."""
    uids = {"series_instance_uid": "1.2.826.0.9.10", "sop_instance_uid": "1.2.826.0.9.11"}
    return liver(images, hd.seg.SegmentationTypeValues.BINARY, series_number=10, **uids)


def liver(images: Sequence[Dataset], kind: hd.seg.SegmentationTypeValues, **identity: object) -> Dataset:
    """A segmentation of one segment; `identity`: UIDs and numbers of its own."""
    mask = np.zeros((len(images), images[0].Rows, images[0].Columns), np.uint8)
    mask[:, 40:60, 50:80] = 1
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="liver",
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=LIVER,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    return hd.seg.Segmentation(
        source_images=images,
        pixel_array=mask,
        segmentation_type=kind,
        segment_descriptions=[segment],
        instance_number=1,
        **identity,
        **MAKER,
    )


def report(images: Sequence[Dataset]) -> Dataset:
    """A Comprehensive SR that measures in an image region (TID 1500)."""
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=hd.sr.PersonObserverIdentifyingAttributes("Doe^Reader"),
    )
    region = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.CIRCLE,
        graphic_data=np.array([[60.0, 60.0], [70.0, 60.0]]),
        source_image=hd.sr.SourceImageForRegion.from_source_image(images[0]),
    )
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=region,
        tracking_identifier=hd.sr.TrackingIdentifier(uid="1.2.826.0.9.90", identifier="lesion"),
        measurements=[
            hd.sr.Measurement(name=codes.SCT.Diameter, value=10.0, unit=CodedConcept("mm", "UCUM", "millimeter"))
        ],
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_person_context=observer),
        procedure_reported=CodedConcept("24627-2", "LN", "CT Chest"),
        imaging_measurements=[group],
    )
    return hd.sr.ComprehensiveSR(
        evidence=images,
        content=content,
        series_instance_uid="1.2.826.0.9.20",
        series_number=20,
        sop_instance_uid="1.2.826.0.9.21",
        instance_number=1,
        is_complete=True,
        **{key: value for key, value in MAKER.items() if key == "manufacturer"},
    )


def rejection_note(images: Sequence[Dataset], code: str = "113001") -> Dataset:
    """A Key Object Selection that rejects images, by default for their quality (IHE IOCM)."""
    content = hd.ko.KeyObjectSelection(
        document_title=CodedConcept(code, "DCM", REJECTIONS[code]), referenced_objects=images
    )
    return hd.ko.KeyObjectSelectionDocument(
        evidence=images,
        content=content,
        series_instance_uid="1.2.826.0.9.30",
        series_number=30,
        sop_instance_uid="1.2.826.0.9.31",
        instance_number=1,
        **MAKER,
    )


def presentation_state(images: Sequence[Dataset]) -> Dataset:
    """A GSPS with a text on one image and a window for all."""
    layer = hd.pr.GraphicLayer(layer_name="TEXT", order=1)
    note = hd.pr.GraphicAnnotation(
        referenced_images=[images[0]],
        graphic_layer=layer,
        text_objects=[
            hd.pr.TextObject(text_value="look here", units=hd.pr.AnnotationUnitsValues.PIXEL, anchor_point=(10.0, 10.0))
        ],
    )
    return hd.pr.GrayscaleSoftcopyPresentationState(
        referenced_images=images,
        series_instance_uid="1.2.826.0.9.40",
        series_number=40,
        sop_instance_uid="1.2.826.0.9.41",
        instance_number=1,
        content_label="NOTE",
        graphic_layers=[layer],
        graphic_annotations=[note],
        voi_lut_transformations=[hd.pr.SoftcopyVOILUTTransformation(window_center=40.0, window_width=400.0)],
        **MAKER,
    )


def structure_set(images: Sequence[Dataset]) -> Dataset:
    """A RT Structure Set with one contour a slice (PS3.3 A.19)."""
    first = images[0]
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = RTStructureSetStorage, "1.2.826.0.9.51"
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "StudyID"):
        setattr(ds, keyword, first.get(keyword, ""))
    ds.SeriesInstanceUID, ds.Modality, ds.SeriesNumber, ds.Manufacturer = "1.2.826.0.9.50", "RTSTRUCT", 50, "Tests"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.ReferringPhysicianName = "20260101", "120000", "", ""
    ds.PatientBirthDate, ds.OperatorsName = "", ""
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = "LIVER", "20260101", "120000"
    series = Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    series.ContourImageSequence = [reference(image) for image in images]
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = "1.2.840.10008.3.1.2.3.1", first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    roi = Dataset()
    roi.ROINumber, roi.ROIName, roi.ROIGenerationAlgorithm = 1, "liver", "MANUAL"
    roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
    ds.StructureSetROISequence = [roi]
    contours = Dataset()
    contours.ReferencedROINumber = 1
    contours.ContourSequence = [_contour(image) for image in images]
    ds.ROIContourSequence = [contours]
    observation = Dataset()
    observation.ObservationNumber, observation.ReferencedROINumber = 1, 1
    observation.RTROIInterpretedType, observation.ROIInterpreter = "ORGAN", ""
    ds.RTROIObservationsSequence = [observation]
    return ds


def bare(ds: Dataset) -> Dataset:
    """Without File Meta, as it travels."""
    plain = Dataset()
    plain.update({tag: ds[tag] for tag in ds.keys()})  # noqa: SIM118 - a Dataset iterates over elements
    return plain


def others(images: Sequence[Dataset]) -> dict[str, Dataset]:
    """One of each kind of object that refers to the images, by modality."""
    return {
        "SEG": segmentation(images),
        "SR": report(images),
        "KO": rejection_note(images),
        "PR": presentation_state(images),
        "RTSTRUCT": structure_set(images),
    }


def _contour(image: Dataset) -> Dataset:
    z = image.ImagePositionPatient[2]
    contour = Dataset()
    contour.ContourImageSequence = [reference(image)]
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 3
    contour.ContourData = [0, 0, z, 10, 0, z, 10, 10, z]
    return contour


def reference(image: Dataset) -> Dataset:
    """SOP class and instance of an object, as an item of a sequence that refers to it."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item
