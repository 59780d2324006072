"""What cannot be marked and never leaves by itself: waveforms, documents, video, raw data, tomography of the eye.

Also a table's other kinds that no image stands behind: relations between images, displays, annotations in bulk.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import MPEG4HP41, UID

from tests.iods.multiframe import add_groups, volume
from tests.iods.parts import MAKER, Real, add_pixels, code, composite, item, reference, uid
from tests.support.dicom import studies

EYE = code("5665001", "SCT", "Retina")


def blocked(real: Real) -> dict[str, Dataset]:
    """Name -> data set of classes that the policy table does not list."""
    return {
        "ecg": _ecg(real),
        "pdf": _document("104.1", "pdf", _pdf(), "application/pdf"),
        "cda": _document("104.2", "cda", b"<ClinicalDocument xmlns='urn:hl7-org:v3'/>", "text/XML"),
        "stl": _document("104.3", "stl", b"solid made\nendsolid made\n", "model/stl"),
        "video": _video(),
        "raw-data": _raw(real),
        "ophthalmic-tomography": _tomography(real),
    }


def referring(images: Sequence[Dataset], slide: Dataset, colour: Sequence[Dataset]) -> dict[str, Dataset]:
    """Name -> data set of classes without pixels that only refer to images.

    images: CT slices of one series; slide: a whole slide image; colour: two photographs of an eye.
    """
    return {
        "stereometric": _stereometric(colour),
        "content-assessment": _assessment(images),
        "bulk-annotations": _annotations(slide),
        "structured-display": _display(images),
        "label-map": _label_map(images),
    }


def _ecg(real: Real) -> Dataset:
    """Twelve leads; the samples are rows of a radiograph, since only their way through the gateway counts."""
    ds = composite("9.1.1", "ECG", "ecg", AcquisitionDateTime="20260101120000", AcquisitionContextSequence=[])
    samples = real.xray[0][:12].astype("<i2")
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    source = [code(f"MDC_ECG_LEAD_{lead.upper()}", "MDC", f"Lead {lead}") for lead in leads]
    ds.WaveformSequence = [
        item(
            WaveformOriginality="ORIGINAL", NumberOfWaveformChannels=12,
            NumberOfWaveformSamples=samples.shape[1], SamplingFrequency=500, WaveformBitsAllocated=16,
            WaveformSampleInterpretation="SS",
            ChannelDefinitionSequence=[
                item(
                    ChannelSourceSequence=[lead], WaveformBitsStored=16, ChannelSensitivity=1,
                    ChannelSensitivityUnitsSequence=[code("uV", "UCUM", "microvolt")],
                    ChannelSensitivityCorrectionFactor=1, ChannelBaseline=0, ChannelSampleSkew=0,
                )
                for lead in source
            ],
        )
    ]  # fmt: skip
    ds.WaveformSequence[0].add_new(0x54001010, "OW", samples.T.tobytes())
    return ds


def _document(suffix: str, name: str, document: bytes, kind: str) -> Dataset:
    ds = composite(suffix, "M3D" if name == "stl" else "DOC", name, ConversionType="WSD", BurnedInAnnotation="YES")
    ds.AcquisitionDateTime, ds.DocumentTitle, ds.ConceptNameCodeSequence = "", "made", []
    ds.MIMETypeOfEncapsulatedDocument = kind
    ds.EncapsulatedDocumentLength = len(document)
    ds.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    if name == "cda":
        ds.HL7InstanceIdentifier = uid("cda", "document")
    if name == "stl":
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("frame of reference"), ""
        ds.MeasurementUnitsCodeSequence = [code("mm", "UCUM", "mm")]
        ds.BurnedInAnnotation, ds.RecognizableVisualFeatures = "NO", "NO"
    return ds


def _pdf() -> bytes:
    """One empty page."""
    return (
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    )


def _video() -> Dataset:
    """Video Endoscopic in MPEG-4 AVC; its stream is a header and no more: nobody here decodes video."""
    ds = composite("77.1.1.1", "ES", "video", ImageType=["ORIGINAL", "PRIMARY", ""], PatientOrientation=["L", "F"])
    ds.AcquisitionContextSequence, ds.BurnedInAnnotation, ds.FrameTime = [], "NO", 40
    ds.AnatomicRegionSequence = [code("39937001", "SCT", "Skin")]
    add_pixels(ds, np.zeros((2, 64, 64, 3), np.uint8))
    ds.PhotometricInterpretation, ds.FrameIncrementPointer = "YBR_PARTIAL_420", 0x00181063
    ds.LossyImageCompression, ds.LossyImageCompressionRatio, ds.LossyImageCompressionMethod = "01", 40, "ISO_14496_10"
    stream = bytes.fromhex("000000186674797069736f6d00000200") + b"isomiso2" + bytes(40)
    ds.PixelData = encapsulate([stream], has_bot=False)
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = UID(MPEG4HP41)
    return ds


def _raw(real: Real) -> Dataset:
    """Numbers of a maker's own in a private element (PS3.3 A.37)."""
    ds = composite("66", "MR", "raw-data", CreatorVersionUID=uid("raw", "version"), AcquisitionContextSequence=[])
    block = ds.private_block(0x0099, "TESTS RAW", create=True)
    block.add_new(0x01, "OB", zlib.compress(real.mr[0].tobytes()))
    return ds


def _tomography(real: Real) -> Dataset:
    """Ophthalmic Tomography: B-scans, here slices of a head (PS3.3 A.40)."""
    ds = composite(
        "77.1.5.4", "OPT", "ophthalmic-tomography", ImageType=["ORIGINAL", "PRIMARY"], BodyPartExamined="EYE"
    )
    ds.ImageLaterality, ds.AcquisitionDateTime, ds.AcquisitionNumber = "R", "20260101120000", 1
    ds.AcquisitionContextSequence, ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = [], uid("eye"), ""
    ds.SynchronizationFrameOfReferenceUID, ds.SynchronizationTrigger = uid("clock"), "NO TRIGGER"
    ds.AcquisitionTimeSynchronized, ds.PresentationLUTShape = "N", "IDENTITY"
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    ds.AcquisitionDuration, ds.AnatomicRegionSequence, ds.ConcatenationFrameOffsetNumber = 1.0, [EYE], 0
    ds.InConcatenationNumber = ds.InConcatenationTotalNumber = 1
    ds.AxialLengthOfTheEye = ds.HorizontalFieldOfView = ds.EmmetropicMagnification = ds.IntraOcularPressure = None
    ds.RefractiveStateSequence, ds.PupilDilated, ds.DetectorType = [], None, "CCD"
    ds.AcquisitionDeviceTypeCodeSequence = [code("392012008", "SCT", "Optical Coherence Tomography Scanner")]
    ds.LightPathFilterTypeStackCodeSequence = []
    shared, positions = volume(ds)
    shared["FrameAnatomySequence"] = [item(FrameLaterality="R", AnatomicRegionSequence=[EYE])]
    del shared["FrameVOILUTSequence"]
    add_groups(ds, 3, shared, {"PlanePositionSequence": positions})
    add_pixels(ds, real.mr, 12)
    return ds


def _series_of(images: Sequence[Dataset]) -> list[Dataset]:
    listed = [reference(image) for image in images]
    return [item(SeriesInstanceUID=images[0].SeriesInstanceUID, ReferencedInstanceSequence=listed)]


def _stereometric(colour: Sequence[Dataset]) -> Dataset:
    """Which photograph is the left one of a pair (PS3.3 A.41.7)."""
    ds = composite("77.1.5.3", "SMR", "stereometric")
    left, right = colour
    ds.StereoPairsSequence = [
        item(
            LeftImageSequence=[reference(left)], RightImageSequence=[reference(right)],
            StereoBaselineAngle=None, StereoBaselineDisplacement=None, StereoHorizontalPixelOffset=None,
            StereoVerticalPixelOffset=None, StereoRotation=None,
        )
    ]  # fmt: skip
    ds.ReferencedSeriesSequence = [*_series_of([left]), *_series_of([right])]
    return ds


def _assessment(images: Sequence[Dataset]) -> Dataset:
    """A structure set or report found fit for use (PS3.3 A.81)."""
    ds = composite("90.1", "ASMT", "content-assessment", ContentLabel="MADE", ContentDescription="")
    ds.ContentCreatorName, ds.AssessmentLabel = "", "made"
    ds.AssessmentTypeCodeSequence = [code("130150", "DCM", "Assessment By Comparison")]
    ds.AssessmentSummary, ds.AssessmentObservationsSequence = "NORMAL", []
    ds.AssessedSOPInstanceSequence = [reference(image) for image in images]
    ds.ReferencedSeriesSequence = _series_of(images)
    return ds


def _annotations(slide: Dataset) -> Dataset:
    """Two points on a slide."""
    group = hd.ann.AnnotationGroup(
        number=1,
        uid=uid("annotations", "group"),
        label="cells",
        annotated_property_category=codes.SCT.AnatomicalStructure,
        annotated_property_type=codes.SCT.Nucleus,
        graphic_type=hd.ann.GraphicTypeValues.POINT,
        graphic_data=[np.array([[10.0, 10.0]]), np.array([[20.0, 30.0]])],
        algorithm_type=hd.ann.AnnotationGroupGenerationTypeValues.MANUAL,
    )
    return hd.ann.MicroscopyBulkSimpleAnnotations(
        [slide],
        hd.ann.AnnotationCoordinateTypeValues.SCOORD,
        [group],
        series_instance_uid=uid("bulk-annotations", "series"),
        series_number=1,
        sop_instance_uid=uid("bulk-annotations", "instance"),
        instance_number=1,
        content_label="MADE",
        **MAKER,
    )


def _display(images: Sequence[Dataset]) -> Dataset:
    """A screen with one box that shows a slice (PS3.3 A.33.7)."""
    ds = composite("131", "PR", "structured-display", ContentLabel="MADE", ContentDescription="")
    ds.PresentationCreationDate, ds.PresentationCreationTime, ds.ContentCreatorName = "20260101", "120000", ""
    ds.StructuredDisplayBackgroundCIELabValue, ds.NumberOfScreens = [0, 32896, 32896], 1
    ds.HangingProtocolName, ds.HangingProtocolCreator = "made", ""
    ds.NominalScreenDefinitionSequence = [
        item(
            NumberOfVerticalPixels=100,
            NumberOfHorizontalPixels=100,
            DisplayEnvironmentSpatialPosition=[0.0, 1.0, 1.0, 0.0],
            ScreenMinimumGrayscaleBitDepth=8,
        )
    ]
    ds.StructuredDisplayImageBoxSequence = [
        item(
            ImageBoxNumber=1, ImageBoxLayoutType="SINGLE", DisplayEnvironmentSpatialPosition=[0.0, 1.0, 1.0, 0.0],
            ReferencedInstanceSequence=[reference(images[0])],
        )
    ]  # fmt: skip
    ds.ReferencedSeriesSequence = _series_of(images[:1])
    return ds


def _label_map(images: Sequence[Dataset]) -> Dataset:
    """A segmentation whose stored values are the numbers of segments (PS3.3 A.51)."""
    uids = {"series_instance_uid": uid("label-map", "series"), "sop_instance_uid": uid("label-map", "instance")}
    return studies.liver(images, hd.seg.SegmentationTypeValues.LABELMAP, series_number=1, **uids)
