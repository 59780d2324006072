"""Registrations, fiducials, segmentations, surfaces, tracts, value maps (PS3.3 A.39, A.40, A.51, A.57, A.78, A.46)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom import Dataset

from tests.iods.parts import code, composite, item, reference, uid
from tests.support.dicom import studies

IDENTITY = [float(value) for value in np.eye(4).ravel()]
ORGAN = code("91723000", "SCT", "Anatomical structure")
LIVER = code("10200004", "SCT", "Liver")


def spatial(images: Sequence[Dataset]) -> dict[str, Dataset]:
    """Name -> data set; all refer to the images."""
    return {
        "registration": _registration(images, "66.1", "registration"),
        "fiducials": _fiducials(images),
        "deformable-registration": _registration(images, "66.3", "deformable-registration"),
        "segmentation": studies.segmentation(images),
        "surface-segmentation": _surface(images),
        "tracts": _tracts(images),
        "value-map": _value_map(images),
    }


def _content(suffix: str, modality: str, name: str, images: Sequence[Dataset]) -> Dataset:
    """Content identification, frame of reference and the instances that are referred to."""
    ds = composite(suffix, modality, name, ContentLabel="MADE", ContentDescription="", ContentCreatorName="")
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = images[0].FrameOfReferenceUID, ""
    ds.ReferencedSeriesSequence = [
        item(
            SeriesInstanceUID=images[0].SeriesInstanceUID,
            ReferencedInstanceSequence=[reference(image) for image in images],
        )
    ]
    return ds


def _registration(images: Sequence[Dataset], suffix: str, name: str) -> Dataset:
    ds = _content(suffix, "REG", name, images)
    matrix = item(FrameOfReferenceTransformationMatrix=IDENTITY, FrameOfReferenceTransformationMatrixType="RIGID")
    listed = [reference(image) for image in images]
    if suffix == "66.1":
        steps = [item(RegistrationTypeCodeSequence=[], MatrixSequence=[matrix])]
        one = item(FrameOfReferenceUID=ds.FrameOfReferenceUID, MatrixRegistrationSequence=steps)
        one.ReferencedImageSequence = listed
        ds.RegistrationSequence = [one]
    else:
        one = item(SourceFrameOfReferenceUID=ds.FrameOfReferenceUID, ReferencedImageSequence=listed)
        one.RegistrationTypeCodeSequence = []
        one.PreDeformationMatrixRegistrationSequence = [matrix]
        one.PostDeformationMatrixRegistrationSequence = [matrix]
        one.DeformableRegistrationGridSequence = [
            item(
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                ImagePositionPatient=[0, 0, 0],
                GridDimensions=[1, 1, 1],
                GridResolution=[1.0, 1.0, 1.0],
                VectorGridData=np.zeros(3, "<f4").tobytes(),
            )
        ]
        ds.DeformableRegistrationSequence = [one]
    return ds


def _fiducials(images: Sequence[Dataset]) -> Dataset:
    ds = _content("66.2", "FID", "fiducials", images)
    del ds.FrameOfReferenceUID, ds.PositionReferenceIndicator
    point = item(ShapeType="POINT", FiducialIdentifier="1", FiducialDescription="")
    point.GraphicCoordinatesDataSequence = [
        item(GraphicData=[64.0, 64.0], ReferencedImageSequence=[reference(images[0])])
    ]
    ds.FiducialSetSequence = [
        item(ReferencedImageSequence=[reference(image) for image in images], FiducialSequence=[point])
    ]
    return ds


def _surface(images: Sequence[Dataset]) -> Dataset:
    """One triangle."""
    ds = _content("66.5", "SEG", "surface-segmentation", images)
    ds.NumberOfSurfaces = 1
    algorithm = item(AlgorithmFamilyCodeSequence=[code("123109", "DCM", "Manual Processing")], AlgorithmName="hand")
    algorithm.AlgorithmVersion = "1"
    points = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0]], "<f4")
    ds.SurfaceSequence = [
        item(
            SurfaceNumber=1, SurfaceProcessing="NO", RecommendedDisplayGrayscaleValue=65535,
            RecommendedDisplayCIELabValue=[65535, 32896, 32896], RecommendedPresentationOpacity=1.0,
            RecommendedPresentationType="SURFACE", FiniteVolume="NO", Manifold="NO",
            SurfacePointsSequence=[item(NumberOfSurfacePoints=3, PointCoordinatesData=points.tobytes())],
            SurfacePointsNormalsSequence=[],
            SurfaceMeshPrimitivesSequence=[
                item(
                    LongTrianglePointIndexList=np.array([1, 2, 3], "<u4").tobytes(), LongEdgePointIndexList=b"",
                    LongVertexPointIndexList=b"", TriangleStripSequence=[], TriangleFanSequence=[], LineSequence=[],
                    FacetSequence=[],
                )
            ],
        )
    ]  # fmt: skip
    ds.SegmentSequence = [
        item(
            SegmentNumber=1, SegmentLabel="liver", SegmentAlgorithmType="MANUAL", SurfaceCount=1,
            SegmentedPropertyCategoryCodeSequence=[ORGAN], SegmentedPropertyTypeCodeSequence=[LIVER],
            ReferencedSurfaceSequence=[
                item(
                    ReferencedSurfaceNumber=1, SegmentSurfaceGenerationAlgorithmIdentificationSequence=[algorithm],
                    SegmentSurfaceSourceInstanceSequence=[reference(image) for image in images],
                )
            ],
        )
    ]  # fmt: skip
    return ds


def _tracts(images: Sequence[Dataset]) -> Dataset:
    """One track of two points."""
    ds = _content("66.6", "MR", "tracts", images)
    ds.TrackSetSequence = [
        item(
            TrackSetNumber=1, TrackSetLabel="made", TrackSetDescription="",
            TrackSetAnatomicalTypeCodeSequence=[code("12738006", "SCT", "Brain")],
            TrackSequence=[item(PointCoordinatesData=np.arange(6, dtype="<f4").tobytes())],
            RecommendedDisplayCIELabValue=[65535, 32896, 32896],
            DiffusionAcquisitionCodeSequence=[code("113224", "DCM", "DTI")],
            DiffusionModelCodeSequence=[code("113231", "DCM", "Single Tensor")],
            TrackingAlgorithmIdentificationSequence=[
                item(
                    AlgorithmFamilyCodeSequence=[code("113211", "DCM", "Deterministic")], AlgorithmName="made",
                    AlgorithmVersion="1",
                )
            ],
        )
    ]  # fmt: skip
    ds.ReferencedInstanceSequence = [reference(image) for image in images]
    return ds


def _value_map(images: Sequence[Dataset]) -> Dataset:
    """Stored values times two (PS3.3 A.46)."""
    ds = _content("67", "RWV", "value-map", images)
    del ds.FrameOfReferenceUID, ds.PositionReferenceIndicator
    mapping = item(
        RealWorldValueFirstValueMapped=0, RealWorldValueLastValueMapped=4095, RealWorldValueIntercept=0.0,
        RealWorldValueSlope=2.0, LUTExplanation="made", LUTLabel="1",
        MeasurementUnitsCodeSequence=[code("[hnsf'U]", "UCUM", "Hounsfield unit")],
    )  # fmt: skip
    mapping["RealWorldValueFirstValueMapped"].VR = mapping["RealWorldValueLastValueMapped"].VR = "US"
    ds.ReferencedImageRealWorldValueMappingSequence = [
        item(ReferencedImageSequence=[reference(image) for image in images], RealWorldValueMappingSequence=[mapping])
    ]
    ds.DeviceUID = uid("device")
    return ds
