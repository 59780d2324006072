"""Images with functional groups (PS3.3 C.7.6.16): enhanced and legacy-converted, tomosynthesis, maps, spectra."""

from __future__ import annotations

import copy

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

from tests.iods.parts import BREAST, HEAD, MADE_BY, MAKER, Real, add_pixels, code, composite, item, srgb, storage, uid

VOLUME = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
_ACQUIRED = {
    "AcquisitionDateTime": "20260101120000",
    "AcquisitionDuration": 1,
    "AcquisitionNumber": 1,
    "ContentQualification": "PRODUCT",
    "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "NONE",
    "AcquisitionContextSequence": [],
    "LossyImageCompression": "00",
    "BurnedInAnnotation": "NO",
    "PresentationLUTShape": "IDENTITY",
}


def multiframe(real: Real, made: dict[str, Dataset]) -> dict[str, Dataset]:
    """Name -> data set. made: single images, which are the source of what is converted."""
    ct = [made[f"ct{number}"] for number in range(3)]
    return (
        {
            "enhanced-ct": _ct(real),
            "enhanced-mr": _mr(real, "4.1", "enhanced-mr", real.mr),
            "enhanced-mr-colour": _mr(real, "4.3", "enhanced-mr-colour", real.skin),
            "enhanced-pet": _pet(real),
            "enhanced-xa": _projection(real, "12.1.1", "XA"),
            "enhanced-rf": _projection(real, "12.2.1", "XRF"),
            "us-volume": _us_volume(real),
            "xa-3d": _from_projections(real, "13.1.1", "XA", "xa-3d"),
            "craniofacial-3d": _from_projections(real, "13.1.2", "DX", "craniofacial-3d"),
            "tomosynthesis": _breast(real, "13.1.3", "tomosynthesis"),
            "breast-projection-presentation": _breast(real, "13.1.4", "breast-projection-presentation"),
            "breast-projection-processing": _breast(real, "13.1.5", "breast-projection-processing"),
            "spectroscopy": _spectroscopy(real),
        }
        | _legacy(made)
        | {"parametric-map": _parametric_map(real, ct)}
    )


def add_groups(ds: Dataset, count: int, shared: dict[str, object], per_frame: dict[str, list[Dataset]]) -> None:
    """Functional groups and a dimension along the slices (PS3.3 C.7.6.16, C.7.6.17)."""
    organization = uid(ds.SOPInstanceUID, "dimensions")
    ds.NumberOfFrames = count
    ds.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organization)]
    ds.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=0x00209057,  # In-Stack Position Number
            FunctionalGroupPointer=0x00209111,
        )
    ]
    ds.SharedFunctionalGroupsSequence = [item(**shared)]
    ds.PerFrameFunctionalGroupsSequence = [
        item(
            FrameContentSequence=[
                item(
                    FrameAcquisitionDateTime="20260101120000",
                    FrameReferenceDateTime="20260101120000",
                    FrameAcquisitionDuration=1,
                    FrameAcquisitionNumber=1,
                    StackID="1",
                    InStackPositionNumber=number + 1,
                    DimensionIndexValues=number + 1,
                )
            ],
            **{keyword: [items[number]] for keyword, items in per_frame.items()},
        )
        for number in range(count)
    ]


def volume(ds: Dataset, spacing: float = 2) -> tuple[dict[str, object], list[Dataset]]:
    """Frame of reference, shared measures and orientation, and a position for each of three frames."""
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid("frame of reference"), ""
    shared = {
        "PixelMeasuresSequence": [item(PixelSpacing=[spacing, spacing], SliceThickness=5, SpacingBetweenSlices=5)],
        "PlaneOrientationSequence": [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        "FrameAnatomySequence": [item(FrameLaterality="U", AnatomicRegionSequence=[HEAD])],
        "FrameVOILUTSequence": [item(WindowCenter=40, WindowWidth=400)],
    }
    return shared, [item(ImagePositionPatient=[-128, -128, 5 * number]) for number in range(3)]


def _transformations(*slopes: float, kind: str = "US") -> list[Dataset]:
    return [item(RescaleIntercept=0, RescaleSlope=slope, RescaleType=kind) for slope in slopes]


def _ct(real: Real) -> Dataset:
    """Each frame has its own rescale slope."""
    ds = composite("2.1", "CT", "enhanced-ct", ImageType=VOLUME, PixelPresentation="MONOCHROME", **_ACQUIRED)
    ds.PatientPosition = "HFS"
    shared, positions = volume(ds)
    kind = item(FrameType=VOLUME, PixelPresentation="MONOCHROME", VolumetricProperties="VOLUME")
    kind.VolumeBasedCalculationTechnique = "NONE"
    shared |= {
        "CTImageFrameTypeSequence": [kind],
        "CTAcquisitionTypeSequence": [
            item(AcquisitionType="SEQUENCED", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")
        ],
        "CTAcquisitionDetailsSequence": [
            item(
                RotationDirection="CW", RevolutionTime=1.0, SingleCollimationWidth=1.0, TotalCollimationWidth=4.0,
                TableHeight=0.0, GantryDetectorTilt=0.0, DataCollectionDiameter=500,
            )
        ],
        "CTGeometrySequence": [item(DistanceSourceToDetector=1000, DistanceSourceToDataCollectionCenter=500.0)],
        "CTTableDynamicsSequence": [item()],
        "IrradiationEventIdentificationSequence": [item(IrradiationEventUID=uid("irradiation"))],
        "CTReconstructionSequence": [
            item(
                ReconstructionAlgorithm="FILTER_BACK_PROJ", ConvolutionKernel="A", ConvolutionKernelGroup="BRAIN",
                ReconstructionDiameter=250, ReconstructionAngle=0.0,
                ReconstructionPixelSpacing=[2.0, 2.0], ImageFilter="NONE",
            )
        ],
        "CTExposureSequence": [
            item(ExposureTimeInms=1000.0, XRayTubeCurrentInmA=100.0, ExposureInmAs=100.0,
                 ExposureModulationType="NONE", CTDIvol=1.0)
        ],
        "CTXRayDetailsSequence": [item(KVP=120, FocalSpots=1.0, FilterType="FLAT", FilterMaterial="ALUMINUM",
                                       CalciumScoringMassFactorPatient=1.0)],
    }  # fmt: skip
    add_groups(ds, 3, shared, {
        "PlanePositionSequence": positions,
        "PixelValueTransformationSequence": _transformations(1, 1.5, 0.5, kind="HU"),
        "CTPositionSequence": [item(TablePosition=5.0 * n, DataCollectionCenterPatient=[0, 0, 5.0 * n],
                                    ReconstructionTargetCenterPatient=[0, 0, 5.0 * n]) for n in range(3)],
    })  # fmt: skip
    add_pixels(ds, real.ct)
    return ds


def _mr(real: Real, suffix: str, name: str, frames: np.ndarray) -> Dataset:
    colour = frames.ndim == 4
    presentation = "TRUE_COLOR" if colour else "MONOCHROME"
    described = {"PixelPresentation": presentation, "ComplexImageComponent": "MAGNITUDE"}
    described |= {"AcquisitionContrast": "UNKNOWN", "VolumetricProperties": "VOLUME"}
    described |= {"VolumeBasedCalculationTechnique": "NONE"}
    kind = ["DERIVED", *VOLUME[1:]]  # what is derived needs no details of its acquisition
    ds = composite(suffix, "MR", name, ImageType=kind, **{**_ACQUIRED, **described})
    if colour:
        ds.ICCProfile = srgb()
    ds.PatientPosition, ds.ResonantNucleus, ds.KSpaceFiltering, ds.MagneticFieldStrength = "HFS", "1H", "NONE", 1.5
    ds.ApplicableSafetyStandardAgency = "IEC"
    shared, positions = volume(ds)
    shared["MRImageFrameTypeSequence"] = [item(FrameType=kind, **described)]
    per_frame = {"PlanePositionSequence": positions}
    if colour:
        del shared["FrameVOILUTSequence"]
    else:
        per_frame["PixelValueTransformationSequence"] = _transformations(1, 2, 4)
    add_groups(ds, 3, shared, per_frame)
    add_pixels(ds, frames, 0 if colour else 12)
    return ds


def _pet(real: Real) -> Dataset:
    kind = ["DERIVED", *VOLUME[1:]]
    ds = composite("130", "PT", "enhanced-pet", ImageType=kind, PixelPresentation="MONOCHROME", **_ACQUIRED)
    ds.PatientPosition, ds.CountsSource, ds.DecayCorrected = "HFS", "EMISSION", "NO"
    ds.TableMotion, ds.TimeOfFlightInformationUsed, ds.SliceProgressionDirection = "STATIC", "FALSE", "APEX_TO_BASE"
    for what in ("Attenuation", "Scatter", "DeadTime", "GantryMotion", "PatientMotion", "CountLossNormalization"):
        setattr(ds, what + "Corrected", "NO")
    ds.RandomsCorrected, ds.NonUniformRadialSamplingCorrected, ds.SensitivityCalibrated = "NO", "NO", "NO"
    ds.DetectorNormalizationCorrection = "NO"
    ds.ViewCodeSequence = [code("399348003", "SCT", "antero-posterior")]
    ds.RadiopharmaceuticalInformationSequence = [
        item(
            RadionuclideCodeSequence=[code("77004003", "SCT", "^18^Fluorine")], RadiopharmaceuticalAgentNumber=1,
            RadiopharmaceuticalCodeSequence=[code("35321007", "SCT", "Fluorodeoxyglucose F^18^")],
            AdministrationRouteCodeSequence=[code("47625008", "SCT", "Intravenous route")],
            RadiopharmaceuticalStartDateTime="20260101110000", RadionuclideTotalDose=370000000,
            RadionuclideHalfLife=6586.2, RadionuclidePositronFraction=0.97,
        )
    ]  # fmt: skip
    shared, positions = volume(ds)
    shared["RadiopharmaceuticalUsageSequence"] = [item(RadiopharmaceuticalAgentNumber=1)]
    described = {"PixelPresentation": "MONOCHROME", "VolumetricProperties": "VOLUME"}
    shared["PETFrameTypeSequence"] = [item(FrameType=kind, VolumeBasedCalculationTechnique="NONE", **described)]
    bounds = {"PlanePositionSequence": positions, "PixelValueTransformationSequence": _transformations(1, 2, 4)}
    add_groups(ds, 3, shared, bounds)
    for frame in ds.PerFrameFunctionalGroupsSequence:
        frame.FrameContentSequence[0].TemporalPositionIndex = 1
    add_pixels(ds, real.mr)
    return ds


def _projection(real: Real, suffix: str, modality: str) -> Dataset:
    """Enhanced XA and RF."""
    kind = ["DERIVED", "PRIMARY", "SINGLE PLANE", "NONE"]
    ds = composite(suffix, modality, f"enhanced-{modality.lower()}", ImageType=kind, **_ACQUIRED)
    del ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique
    ds.PatientOrientation, ds.PlanesInAcquisition, ds.PlaneIdentification = ["L", "F"], "SINGLE PLANE", "MONOPLANE"
    ds.PositionerType, ds.CArmPositionerTabletopRelationship = "CARM", "NO"
    shared, _ = volume(ds)
    del shared["PlaneOrientationSequence"], shared["PixelMeasuresSequence"]
    shared["XAXRFFrameCharacteristicsSequence"] = [item(DerivationDescription="")]
    shared["FrameDisplaySequence"] = [item(RecommendedDisplayFrameRateInFloat=10.0)]
    shared["PixelValueTransformationSequence"] = _transformations(1)
    shared["IrradiationEventIdentificationSequence"] = [item(IrradiationEventUID=uid("irradiation"))]
    shared["FramePixelDataPropertiesSequence"] = [
        item(
            FrameType=kind,
            PixelIntensityRelationship="LIN",
            PixelIntensityRelationshipSign=1,
            ImageProcessingApplied="NONE",
            GeometricalProperties="UNIFORM",
            ImagerPixelSpacing=[0.2, 0.2],
        )
    ]
    add_groups(ds, 3, shared, {})
    add_pixels(ds, real.xray, 12)
    return ds


def _us_volume(real: Real) -> Dataset:
    ds = composite("6.2", "US", "us-volume", ImageType=VOLUME, **_ACQUIRED)
    del ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique, ds.AcquisitionNumber
    ds.SynchronizationFrameOfReferenceUID, ds.SynchronizationTrigger = uid("clock"), "NO TRIGGER"
    ds.AcquisitionTimeSynchronized, ds.DimensionOrganizationType, ds.PatientOrientation = "N", "3D", ["L", "F"]
    ds.AnatomicRegionSequence = [HEAD]
    ds.ViewCodeSequence = [code("399348003", "SCT", "antero-posterior")]
    ds.TransducerScanPatternCodeSequence = [code("125241", "DCM", "Plane scan pattern")]
    ds.TransducerGeometryCodeSequence = [code("125252", "DCM", "Linear ultrasound transducer geometry")]
    ds.TransducerBeamSteeringCodeSequence = [code("125258", "DCM", "Phased beam steering")]
    ds.TransducerApplicationCodeSequence = [code("125261", "DCM", "External Transducer")]
    ds.MechanicalIndex = ds.BoneThermalIndex = ds.CranialThermalIndex = ds.SoftTissueThermalIndex = 0.1
    ds.DepthsOfFocus, ds.DepthOfScanField = [30.0], 60
    ds.RescaleIntercept, ds.RescaleSlope = 0, 1
    shared, _ = volume(ds)
    del shared["PlaneOrientationSequence"]
    ds.UltrasoundAcquisitionGeometry, ds.ApexPosition = "APEX", [0.0, 0.0, 0.0]
    ds.VolumeFrameOfReferenceUID, ds.VolumeToTransducerRelationship = uid("volume"), "FIXED"
    ds.VolumeToTransducerMappingMatrix = [float(value) for value in np.eye(4).ravel()]
    shared["ImageDataTypeSequence"] = [
        item(DataType="TISSUE_INTENSITY", AliasedDataType="NO", ZeroVelocityPixelValue=0)
    ]
    shared["PlaneOrientationVolumeSequence"] = [item(ImageOrientationVolume=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0])]
    positions = [item(ImagePositionVolume=[0.0, 0.0, 5.0 * number]) for number in range(3)]
    kind = item(FrameType=VOLUME, VolumetricProperties="VOLUME", VolumeBasedCalculationTechnique="NONE")
    shared["USImageDescriptionSequence"] = [kind]
    add_groups(ds, 3, shared, {"PlanePositionVolumeSequence": positions})
    add_pixels(ds, real.gray)
    return ds


def _from_projections(real: Real, suffix: str, modality: str, name: str) -> Dataset:
    """X-Ray 3D angiographic and craniofacial: volumes reconstructed from projections."""
    kind = ["DERIVED", *VOLUME[1:]]
    ds = composite(suffix, modality, name, ImageType=kind, PixelPresentation="MONOCHROME", **_ACQUIRED)
    ds.PatientPosition = "HFS"
    projection = item(ReferencedSOPClassUID=storage("12.1.1"), ReferencedSOPInstanceUID=uid("projection"))
    projection.InstanceNumber = 1
    series = item(SeriesInstanceUID=uid("projections"), SeriesNumber=1, ReferencedInstanceSequence=[projection])
    source = item(StudyInstanceUID=ds.StudyInstanceUID, ReferencedSeriesSequence=[series])
    detector = {"DetectorType": "DIRECT", "DetectorID": "1", "DateOfLastDetectorCalibration": "20260101"}
    detector |= {"TimeOfLastDetectorCalibration": "120000", "DetectorElementSpacing": [0.1, 0.1]}
    ds.ContributingSourcesSequence = [
        item(
            ContributingSOPInstancesReferenceSequence=[source], Rows=128, Columns=128, BitsStored=12,
            LossyImageCompression="00", AcquisitionDeviceProcessingDescription="none", Manufacturer=MADE_BY,
            ManufacturerModelName="Builder", DeviceSerialNumber="1", SoftwareVersions="1",
            **(detector if modality == "MG" else {}),
        )
    ]  # fmt: skip
    ds.XRay3DReconstructionSequence = [
        item(
            ReconstructionDescription="", ApplicationName="A", ApplicationVersion="1", ApplicationManufacturer="Tests",
            AlgorithmType="FILTER_BACK_PROJ", AcquisitionIndex=1,
        )
    ]  # fmt: skip
    shared, positions = volume(ds)
    described = {"PixelPresentation": "MONOCHROME", "VolumetricProperties": "VOLUME"}
    frame = item(FrameType=kind, VolumeBasedCalculationTechnique="NONE", ReconstructionIndex=1, **described)
    shared["XRay3DFrameTypeSequence"] = [frame]
    add_groups(
        ds,
        3,
        shared,
        {"PlanePositionSequence": positions, "PixelValueTransformationSequence": _transformations(1, 1, 1)},
    )
    add_pixels(ds, real.xray, 12)
    return ds


def _breast(real: Real, suffix: str, name: str) -> Dataset:
    """Breast tomosynthesis, and the projections that it is made of."""
    if suffix == "13.1.3":
        ds = _from_projections(real, suffix, "MG", name)
        del ds.PatientPosition
        kind = ds.SharedFunctionalGroupsSequence[0].XRay3DFrameTypeSequence
        del ds.SharedFunctionalGroupsSequence[0].XRay3DFrameTypeSequence
        for frame in ds.PerFrameFunctionalGroupsSequence:
            frame.XRay3DFrameTypeSequence = kind
    else:
        intent = name.rpartition("-")[2].upper()
        kind = ["ORIGINAL", "PRIMARY", "TOMO_PROJ", "NONE"]
        ds = composite(suffix, "MG", name, ImageType=kind, PresentationIntentType=f"FOR {intent}", **_ACQUIRED)
        shared, _ = volume(ds)
        del shared["PlaneOrientationSequence"], shared["PixelMeasuresSequence"]
        shared["XRay3DFrameTypeSequence"] = [item(FrameType=kind)]
        shared |= _exposure(ds, kind)
        shared["PixelValueTransformationSequence"] = _transformations(1)
        ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
        add_groups(ds, 3, shared, {})
        add_pixels(ds, real.xray, 12)
        ds.PatientOrientationCodeSequence = [code("10904000", "SCT", "erect")]
    ds.BodyPartExamined, ds.BreastImplantPresent, ds.ImageLaterality = "BREAST", "NO", "L"
    view = code("399162004", "SCT", "cranio-caudal")
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]
    anatomy = ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0]
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "L", [BREAST]
    return ds


def _exposure(ds: Dataset, kind: list[str]) -> dict[str, list[Dataset]]:
    """Acquisition of breast projections (PS3.3 C.8.31): of the instance, and as shared functional groups."""
    ds.PositionerType, ds.PositionerMotion, ds.DetectorType, ds.KVP = "MAMMOGRAPHIC", "DYNAMIC", "DIRECT", 28
    ds.XRayTubeCurrentInmA, ds.ExposureTimeInms, ds.ExposureInmAs = 50.0, 100.0, 5.0
    ds.FocalSpots, ds.AnodeTargetMaterial, ds.BodyPartThickness, ds.CompressionForce = 0.3, "TUNGSTEN", 50, 100
    ds.PaddleDescription, ds.ExposureControlMode, ds.ExposureControlModeDescription = "FLAT", "MANUAL", "made"
    ds.OrganDose, ds.EntranceDoseInmGy, ds.TypeOfDetectorMotion = 0.01, 1, "STATIONARY"
    properties = item(FrameType=kind, ImagerPixelSpacing=[0.1, 0.1], GeometricalProperties="UNIFORM")
    properties.PixelIntensityRelationship, properties.PixelIntensityRelationshipSign = "LOG", -1
    properties.ImageProcessingApplied = "NONE"
    isocenter = item()
    for what in ("XRaySource", "BreastSupport", "Detector"):
        setattr(isocenter, what + "IsocenterPrimaryAngle", 0.0)
        setattr(isocenter, what + "IsocenterSecondaryAngle", 0.0)
        for axis in "XYZ" if what != "XRaySource" else "":
            setattr(isocenter, f"{what}{axis}PositionToIsocenter", 0.0)
    isocenter.DetectorActiveAreaTLHCPosition, isocenter.DetectorActiveAreaOrientation = [0.0] * 3, [1.0, 0, 0, 0, 1, 0]
    return {
        "IrradiationEventIdentificationSequence": [item(IrradiationEventUID=uid("irradiation"))],
        "FieldOfViewSequence": [
            item(FieldOfViewShape="RECTANGLE", FieldOfViewDimensionsInFloat=[12.8, 12.8], FieldOfViewOrigin=[0.0, 0.0],
                 FieldOfViewRotation=0, FieldOfViewHorizontalFlip="NO")
        ],
        "FramePixelDataPropertiesSequence": [properties],
        "CollimatorShapeSequence": [
            item(CollimatorShape="RECTANGULAR", CollimatorLeftVerticalEdge=0, CollimatorRightVerticalEdge=128,
                 CollimatorUpperHorizontalEdge=0, CollimatorLowerHorizontalEdge=128)
        ],
        "XRayGeometrySequence": [item(DistanceSourceToDetector=650, DistanceSourceToPatient=600,
                                      DistanceSourceToIsocenter=600.0, EstimatedRadiographicMagnificationFactor=1.1)],
        "XRayAcquisitionDoseSequence": [item(KVP=28, OrganDose=0.01, EntranceDoseInmGy=1, HalfValueLayer=0.3,
                                             ExposureTimeInms=100.0, ExposureInmAs=5.0)],
        "DerivationImageSequence": [],
        "IsocenterReferenceSystemSequence": [isocenter],
        "PatientOrientationInFrameSequence": [item(PatientOrientation=["A", "L"])],
    }  # fmt: skip


def _spectroscopy(real: Real) -> Dataset:
    """An image object with spectra instead of pixels (PS3.3 A.36.3)."""
    ds = composite("4.2", "MR", "spectroscopy", ImageType=["DERIVED", "PRIMARY", "SPECTROSCOPY", "NONE"], **_ACQUIRED)
    del ds.PresentationLUTShape, ds.LossyImageCompression, ds.BurnedInAnnotation
    ds.Rows = ds.Columns = 2
    ds.DataPointRows, ds.DataPointColumns, ds.SignalDomainColumns, ds.DataRepresentation = 1, 32, "TIME", "COMPLEX"
    ds.PatientPosition, ds.ResonantNucleus, ds.MagneticFieldStrength = "HFS", "1H", 1.5
    ds.ApplicableSafetyStandardAgency = "IEC"
    described = {"ComplexImageComponent": "COMPLEX", "AcquisitionContrast": "UNKNOWN"}
    ds.update(item(**described))
    shared, positions = volume(ds)
    kind = item(FrameType=ds.ImageType, VolumetricProperties="VOLUME", VolumeBasedCalculationTechnique="NONE")
    kind.update(item(**described))
    shared["MRSpectroscopyFrameTypeSequence"] = [kind]
    add_groups(ds, 1, shared, {"PlanePositionSequence": positions})
    ds.SpectroscopyData = real.mr[0, :2, :128].astype("<f4").tobytes()
    return ds


def _legacy(made: dict[str, Dataset]) -> dict[str, Dataset]:
    """Legacy-converted CT, MR and PET: highdicom makes them of single images."""
    kinds = {
        "legacy-ct": (hd.legacy.LegacyConvertedEnhancedCTImage, [made[f"ct{number}"] for number in range(3)]),
        "legacy-mr": (hd.legacy.LegacyConvertedEnhancedMRImage, [_windowed(made["mr"])]),
        "legacy-pet": (hd.legacy.LegacyConvertedEnhancedPETImage, [_windowed(made["pet"])]),
    }
    found = {
        name: make(
            legacy_datasets=sources,
            series_instance_uid=uid(name, "series"),
            series_number=1,
            sop_instance_uid=uid(name, "instance"),
            instance_number=1,
        )
        for name, (make, sources) in kinds.items()
    }
    for ds in found.values():
        for frame in ds.PerFrameFunctionalGroupsSequence:  # left out of a lone slice with nothing for it
            if "UnassignedPerFrameConvertedAttributesSequence" not in frame:
                frame.UnassignedPerFrameConvertedAttributesSequence = [item()]
    return found


def _windowed(ds: Dataset) -> Dataset:
    ds = copy.deepcopy(ds)
    ds.WindowCenter, ds.WindowWidth = 500, 1000
    return ds


def _parametric_map(real: Real, sources: list[Dataset]) -> Dataset:
    """16-bit integers with a real world value mapping."""
    mapping = hd.pm.RealWorldValueMapping(
        lut_label="1",
        lut_explanation="values",
        unit=codes.UCUM.NoUnits,
        value_range=(0, 4095),
        slope=0.5,
        intercept=0.0,
    )
    ds = hd.pm.ParametricMap(
        source_images=sources,
        pixel_array=real.mr,
        series_instance_uid=uid("parametric-map", "series"),
        series_number=1,
        sop_instance_uid=uid("parametric-map", "instance"),
        instance_number=1,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=500, window_width=1000)],
        **MAKER,
    )
    ds.BodyPartExamined = "HEAD"
    return ds
