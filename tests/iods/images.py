"""Images without functional groups: radiography, tomography, ultrasound, visible light, secondary capture."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from tests.iods.parts import BREAST, CHEST, Real, add_pixels, add_plane, code, composite, item, srgb, uid

ORIGINAL, DERIVED = ["ORIGINAL", "PRIMARY"], ["DERIVED", "PRIMARY"]
WHOLE = {"LossyImageCompression": "00", "BurnedInAnnotation": "NO"}


def images(real: Real) -> dict[str, Dataset]:
    """Name -> data set, one of each SOP class."""
    made = {f"ct{number}": ct(real, number) for number in range(3)}
    made |= {"mr": _mr(real), "cr": _cr(real), "pet": _pet(real), "nm": _nm(real)}
    made |= _radiographs(real) | _angiography(real) | _ultrasound(real) | _visible_light(real) | _captures(real)
    return made


def ct(real: Real, number: int) -> Dataset:
    """A CT slice with padding, of the series that everything else in the study refers to."""
    ds = composite("2", "CT", f"ct{number}", ImageType=[*ORIGINAL, "AXIAL"])
    add_plane(ds, number)
    ds.KVP, ds.AcquisitionNumber, ds.PatientPosition = 120, 1, "HFS"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    add_pixels(ds, real.ct[number])
    ds.PixelPaddingValue = -1500
    return ds


def _mr(real: Real) -> Dataset:
    ds = composite("4", "MR", "mr", ImageType=[*ORIGINAL, "M"], PatientPosition="HFS")
    add_plane(ds)
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", "NONE", "", "2D"
    ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = 500, 10, 1
    add_pixels(ds, real.mr[0], 12)
    return ds


def _cr(real: Real) -> Dataset:
    """MONOCHROME1: low values are shown white."""
    more = {"BodyPartExamined": "CHEST", "ViewPosition": "PA", "KVP": 120, "PlateID": "1", "AcquisitionNumber": 1}
    ds = composite("1", "CR", "cr", ImageType=ORIGINAL, PatientOrientation=["L", "F"], **more)
    add_pixels(ds, 4095 - real.xray[0], 12, "MONOCHROME1")
    ds.WindowCenter, ds.WindowWidth = 2048, 4096
    return ds


def _pet(real: Real) -> Dataset:
    more = {"SeriesType": ["STATIC", "IMAGE"], "Units": "BQML", "CountsSource": "EMISSION", "NumberOfSlices": 1}
    more |= {"CorrectedImage": ["DECY", "ATTN"], "DecayCorrection": "START", "CollimatorType": "NONE"}
    ds = composite("128", "PT", "pet", ImageType=ORIGINAL, **more)
    add_plane(ds)
    ds.AcquisitionDate, ds.AcquisitionTime, ds.ActualFrameDuration = "20260101", "120000", 60000
    ds.FrameReferenceTime, ds.ImageIndex, ds.DecayFactor = 0, 1, 1
    ds.RescaleIntercept, ds.RescaleSlope = 0, 2.5
    ds.PatientOrientationCodeSequence = [code("102538003", "SCT", "recumbent")]
    ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = [code("40199007", "SCT", "supine")]
    ds.PatientGantryRelationshipCodeSequence = [code("102540008", "SCT", "headfirst")]
    ds.RadiopharmaceuticalInformationSequence = [
        item(
            RadionuclideCodeSequence=[code("77004003", "SCT", "^18^Fluorine")],
            RadiopharmaceuticalCodeSequence=[code("35321007", "SCT", "Fluorodeoxyglucose F^18^")],
            RadiopharmaceuticalStartTime="110000",
            RadionuclideTotalDose=370000000,
        )
    ]
    add_pixels(ds, real.mr[0])
    return ds


def _nm(real: Real) -> Dataset:
    """Two static views: a multi-frame image with frame vectors (PS3.3 C.8.4.8)."""
    more = {"ImageType": [*ORIGINAL, "STATIC", "EMISSION"], "NumberOfFrames": 2, "PatientOrientation": ["L", "F"]}
    ds = composite("20", "NM", "nm", FrameIncrementPointer=[0x00540010, 0x00540020], **more)
    ds.EnergyWindowVector, ds.NumberOfEnergyWindows = [1, 1], 1
    ds.DetectorVector, ds.NumberOfDetectors = [1, 2], 2
    ds.EnergyWindowInformationSequence = [item()]
    ds.RadiopharmaceuticalInformationSequence = [item(RadionuclideCodeSequence=[])]
    ds.DetectorInformationSequence = [
        item(
            CollimatorType="PARA", ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[0, y, 0],
            FieldOfViewShape="RECTANGLE",
        )
        for y in (-100, 100)
    ]  # fmt: skip
    for detector in ds.DetectorInformationSequence:
        detector.ViewCodeSequence = [code("399348003", "SCT", "antero-posterior")]
    ds.PatientOrientationCodeSequence = [code("102538003", "SCT", "recumbent")]
    ds.PatientOrientationCodeSequence[0].PatientOrientationModifierCodeSequence = [code("40199007", "SCT", "supine")]
    ds.PatientGantryRelationshipCodeSequence = [code("102540008", "SCT", "headfirst")]
    ds.PixelSpacing, ds.ActualFrameDuration, ds.AcquisitionTerminationCondition = [4, 4], 1000, "TIME"
    ds.CountsAccumulated = 1000
    add_pixels(ds, real.mr[:2] >> 4)
    return ds


def _radiographs(real: Real) -> dict[str, Dataset]:
    """DX, mammography and intra-oral, for presentation and for processing."""
    kinds = {"dx": ("1.1", "DX", CHEST), "mg": ("1.2", "MG", BREAST), "io": ("1.3", "IO", CHEST)}
    made = {}
    for kind, (suffix, modality, region) in kinds.items():
        for intent in ("presentation", "processing"):
            name = f"{kind}-{intent}"
            raw = intent == "processing"
            ds = composite(suffix + ".1" * raw, modality, name, ImageType=[*ORIGINAL, ""], **WHOLE)
            ds.PresentationIntentType = f"FOR {intent.upper()}"
            ds.PatientOrientation, ds.ImageLaterality, ds.AnatomicRegionSequence = ["L", "F"], "U", [region]
            ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LIN" if raw else "LOG", -1
            ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
            ds.DetectorType, ds.ImagerPixelSpacing, ds.AcquisitionContextSequence = "DIRECT", [0.2, 0.2], []
            ds.PresentationLUTShape = "IDENTITY"
            if not raw:
                ds.WindowCenter, ds.WindowWidth = 2048, 4096
            if kind == "mg":
                ds.ImageLaterality, ds.PositionerType, ds.OrganExposed = "L", "MAMMOGRAPHIC", "BREAST"
                ds.PatientOrientation = ["A", "L"]
                ds.BodyPartExamined, ds.BreastImplantPresent = "BREAST", "NO"
                view = code("399162004", "SCT", "cranio-caudal")
                view.ViewModifierCodeSequence = []
                ds.ViewCodeSequence = [view]
            if kind == "io":
                ds.PositionerType, ds.ImageLaterality = "NONE", "L"
                ds.AnatomicRegionSequence = [code("39606008", "SCT", "Maxillary molar region")]
                ds.PrimaryAnatomicStructureSequence = [code("38199008", "SCT", "tooth")]
            add_pixels(ds, real.xray[1], 12)
            made[name] = ds
    return made


def _angiography(real: Real) -> dict[str, Dataset]:
    made = {}
    for name, suffix, modality in (("xa", "12.1", "XA"), ("rf", "12.2", "RF")):
        ds = composite(suffix, modality, name, ImageType=[*ORIGINAL, "SINGLE PLANE"], PatientOrientation=["L", "F"])
        ds.PixelIntensityRelationship, ds.RadiationSetting, ds.KVP = "LIN", "GR", 80
        ds.XRayTubeCurrent, ds.ExposureTime, ds.Exposure = 100, 10, 1
        if name == "xa":
            ds.PositionerMotion, ds.PositionerPrimaryAngle, ds.PositionerSecondaryAngle = "STATIC", 0, 0
        ds.NumberOfFrames, ds.FrameIncrementPointer, ds.FrameTime = 3, 0x00181063, 66
        ds.LossyImageCompression = "00"
        add_pixels(ds, real.gray)
        made[name] = ds
    return made


def _ultrasound(real: Real) -> dict[str, Dataset]:
    """Single, multi-frame, and the retired classes of both, which old archives still send."""
    kinds = {"us": ("6.1", 1), "us-multi-frame": ("3.1", 2), "us-retired": ("6", 1), "us-multi-frame-retired": ("3", 2)}
    made = {}
    for name, (suffix, frames) in kinds.items():
        ds = composite(suffix, "US", name, ImageType=[*ORIGINAL, "", "0001"], LossyImageCompression="00")
        ds.PatientOrientation = ["L", "F"]
        if frames > 1:
            ds.NumberOfFrames, ds.FrameIncrementPointer, ds.FrameTime = frames, 0x00181063, 40
        colour = np.repeat(real.gray[:frames, ..., None], 3, axis=3)
        add_pixels(ds, colour if frames == 1 else real.gray[:frames])
        made[name] = ds
    return made


def _visible_light(real: Real) -> dict[str, Dataset]:
    """Endoscopic, microscopic, photographic, dermoscopic, ophthalmic; slide coordinates and a slide's tiles."""
    made = {}
    for name, suffix, modality in (
        ("endoscopic", "77.1.1", "ES"),
        ("microscopic", "77.1.2", "GM"),
        ("slide-coordinates", "77.1.3", "SM"),
        ("photographic", "77.1.4", "XC"),
        ("dermoscopic", "77.1.7", "DMS"),
    ):
        ds = composite(suffix, modality, name, ImageType=[*ORIGINAL, ""], LossyImageCompression="00")
        ds.PatientOrientation, ds.AcquisitionContextSequence = ["L", "F"], []
        ds.AnatomicRegionSequence = [code("39937001", "SCT", "Skin")]
        if name == "dermoscopic":
            ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("skin"), ""
            ds.RecognizableVisualFeatures, ds.LightSourcePolarization, ds.EmitterColorTemperature = "NO", None, None
            ds.ContactMethod, ds.OpticalMagnificationFactor = None, None
        if name == "slide-coordinates":
            _specimen(ds)
            ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("slide"), "SLIDE_CORNER"
            ds.ImageCenterPointCoordinatesSequence = [
                item(
                    XOffsetInSlideCoordinateSystem=1, YOffsetInSlideCoordinateSystem=1, ZOffsetInSlideCoordinateSystem=0
                )
            ]
        add_pixels(ds, real.skin[0])
        made[name] = ds
    for name, suffix in (("op-8", "77.1.5.1"), ("op-16", "77.1.5.2")):
        made[name] = _ophthalmic(real, name, suffix)
    return made | {"whole-slide": _whole_slide(real)}


def _ophthalmic(real: Real, name: str, suffix: str) -> Dataset:
    ds = composite(suffix, "OP", name, ImageType=[*ORIGINAL, ""], NumberOfFrames=1, **WHOLE)
    ds.ImageLaterality, ds.PatientOrientation = "R", ["L", "F"]
    ds.AnatomicRegionSequence = [code("5665001", "SCT", "Retina")]
    ds.AcquisitionDateTime, ds.AcquisitionContextSequence = "20260101120000", []
    ds.SynchronizationFrameOfReferenceUID, ds.SynchronizationTrigger = uid("clock"), "NO TRIGGER"
    ds.AcquisitionTimeSynchronized = "N"
    ds.PatientEyeMovementCommanded, ds.RefractiveStateSequence = "NO", []
    ds.EmmetropicMagnification, ds.IntraOcularPressure, ds.HorizontalFieldOfView = None, None, None
    ds.PupilDilated, ds.DetectorType, ds.FrameIncrementPointer, ds.FrameTime = "NO", "CCD", 0x00181063, 100
    ds.IlluminationTypeCodeSequence = [code("111741", "DCM", "Transmission")]
    ds.LightPathFilterTypeStackCodeSequence, ds.ImagePathFilterTypeStackCodeSequence = [], []
    ds.LensesCodeSequence, ds.PresentationLUTShape = [], "IDENTITY"
    ds.AcquisitionDeviceTypeCodeSequence = [code("409898007", "SCT", "Fundus Camera")]
    if name == "op-8":
        del ds.PresentationLUTShape
        add_pixels(ds, real.fundus[0])
    else:
        add_pixels(ds, real.fundus[0][..., 1].astype(np.uint16) << 8)
    ds.NumberOfFrames = 1
    return ds


def _specimen(ds: Dataset) -> None:
    ds.ContainerIdentifier, ds.IssuerOfTheContainerIdentifierSequence = "C1", []
    ds.ContainerTypeCodeSequence = [code("433466003", "SCT", "Microscope slide")]
    ds.SpecimenDescriptionSequence = [
        item(
            SpecimenIdentifier="S1",
            SpecimenUID=uid("specimen"),
            IssuerOfTheSpecimenIdentifierSequence=[],
            SpecimenPreparationSequence=[],
        )
    ]


def _whole_slide(real: Real) -> Dataset:
    """Four tiles of one slide (PS3.3 A.32.8)."""
    ds = composite("77.1.6", "SM", "whole-slide", ImageType=[*ORIGINAL, "VOLUME", "NONE"], **WHOLE)
    _specimen(ds)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("slide"), "SLIDE_CORNER"
    ds.AcquisitionDateTime, ds.AcquisitionContextSequence = "20260101120000", []
    ds.DimensionOrganizationType, ds.NumberOfFrames = "TILED_FULL", 4
    ds.ImagedVolumeWidth, ds.ImagedVolumeHeight, ds.ImagedVolumeDepth = 2, 2, 0.001
    ds.TotalPixelMatrixColumns = ds.TotalPixelMatrixRows = 128
    ds.TotalPixelMatrixFocalPlanes, ds.SpecimenLabelInImage, ds.FocusMethod = 1, "NO", "AUTO"
    ds.ExtendedDepthOfField, ds.VolumetricProperties = "NO", "VOLUME"
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    ds.TotalPixelMatrixOriginSequence = [item(XOffsetInSlideCoordinateSystem=10, YOffsetInSlideCoordinateSystem=10)]
    ds.NumberOfOpticalPaths = 1
    ds.OpticalPathSequence = [
        item(
            OpticalPathIdentifier="1",
            IlluminationColorCodeSequence=[code("371251000", "SCT", "White")],
            IlluminationTypeCodeSequence=[code("111744", "DCM", "Brightfield illumination")],
            ICCProfile=srgb(),
        )
    ]
    ds.SharedFunctionalGroupsSequence = [
        item(
            PixelMeasuresSequence=[item(PixelSpacing=[0.01, 0.01], SliceThickness=1)],
            WholeSlideMicroscopyImageFrameTypeSequence=[item(FrameType=ds.ImageType)],
        )
    ]
    ds.DimensionOrganizationSequence = [item(DimensionOrganizationUID=uid("slide", "dimensions"))]
    tiles = real.skin[0].reshape(2, 64, 2, 64, 3).transpose(0, 2, 1, 3, 4).reshape(4, 64, 64, 3)
    add_pixels(ds, np.ascontiguousarray(tiles))
    return ds


def _captures(real: Real) -> dict[str, Dataset]:
    """Secondary Capture: single, and the four multi-frame kinds (PS3.3 A.8)."""
    kinds = {
        "sc": ("7", real.skin[0]),
        "sc-one-bit": ("7.1", np.packbits(real.gray[:2] > 127, axis=-1, bitorder="little")),
        "sc-byte": ("7.2", real.gray[:2]),
        "sc-word": ("7.3", real.xray[:2]),
        "sc-colour": ("7.4", real.skin[:2]),
    }
    made = {}
    for name, (suffix, frames) in kinds.items():
        ds = composite(suffix, "OT", name, ConversionType="WSD", ImageType=DERIVED, PatientOrientation="")
        if name != "sc":
            ds.NumberOfFrames, ds.BurnedInAnnotation = 2, "NO"
            ds.FrameIncrementPointer, ds.FrameTime = 0x00181063, 100
            if frames.ndim == 3:
                ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
                ds.PresentationLUTShape = "IDENTITY"
        add_pixels(ds, frames, 12 if name == "sc-word" else 0)
        if name == "sc-one-bit":
            ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 128, 1, 1, 0
            del ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType, ds.PresentationLUTShape
        made[name] = ds
    return made
