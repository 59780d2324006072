"""Radiotherapy (PS3.3 A.17 to A.20, A.28, A.29, A.31, A.49, A.50): image and dose of real pixels, and what refers."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset

from tests.iods.parts import Real, add_pixels, add_plane, composite, item, reference, uid
from tests.support.dicom import studies

DERIVED = ["DERIVED", "SECONDARY"]
_RECORDS = {
    "rt-beams-record": "481.4",
    "rt-brachy-record": "481.6",
    "rt-summary-record": "481.7",
    "rt-ion-record": "481.9",
}


def radiotherapy(real: Real, images: Sequence[Dataset]) -> dict[str, Dataset]:
    """Name -> data set, one of each class; structure set, plans and records refer to each other and to the images."""
    structures = studies.structure_set(images)
    structures.FrameOfReferenceUID, structures.PositionReferenceIndicator = images[0].FrameOfReferenceUID, ""
    plan = _plan("481.5", "rt-plan", structures)
    return {
        "rt-image": _image(real),
        "rt-dose": _dose(real, plan),
        "rt-structure-set": structures,
        "rt-plan": plan,
        "rt-ion-plan": _plan("481.8", "rt-ion-plan", structures),
    } | {name: _record(suffix, name, plan) for name, suffix in _RECORDS.items()}


def _image(real: Real) -> Dataset:
    """A portal image: a radiograph of 12 bits."""
    ds = composite("481.1", "RTIMAGE", "rt-image", ImageType=[*DERIVED, "PORTAL"], ConversionType="WSD")
    ds.RTImageLabel, ds.RTImageDescription, ds.RTImagePlane, ds.ReportedValuesOrigin = "MADE", "", "NORMAL", "ACTUAL"
    ds.ImagePlanePixelSpacing, ds.RTImagePosition, ds.XRayImageReceptorTranslation = [1, 1], [-64, 64], [0, 0, 0]
    ds.XRayImageReceptorAngle, ds.RadiationMachineName, ds.RTImageOrientation = 0, "", [1, 0, 0, 0, -1, 0]
    ds.GantryAngle, ds.BeamLimitingDeviceAngle, ds.PatientSupportAngle, ds.PrimaryDosimeterUnit = 0, 0, 0, "MU"
    ds.RadiationMachineSAD, ds.RTImageSID, ds.PatientOrientation, ds.OperatorsName = 1000, 1400, "", ""
    add_pixels(ds, real.xray[0], 12)
    return ds


def _dose(real: Real, plan: Dataset) -> Dataset:
    """A dose grid of three planes (PS3.3 C.8.8.3): the values stand for doses, they are a brain's."""
    ds = composite("481.2", "RTDOSE", "rt-dose", DoseUnits="GY", DoseType="PHYSICAL", DoseSummationType="PLAN")
    add_plane(ds)
    ds.NumberOfFrames, ds.FrameIncrementPointer, ds.GridFrameOffsetVector = 3, 0x3004000C, [0, 5, 10]
    ds.DoseGridScaling, ds.TissueHeterogeneityCorrection, ds.OperatorsName = 0.001, "IMAGE", ""
    ds.ReferencedRTPlanSequence = [reference(plan)]
    add_pixels(ds, real.mr)
    return ds


def _plan(suffix: str, name: str, structures: Dataset) -> Dataset:
    """One beam, of photons or of protons, without a fraction scheme of more than one group."""
    ion = suffix == "481.8"
    ds = composite(suffix, "RTPLAN", name, RTPlanLabel="MADE", RTPlanDate="20260101", RTPlanTime="120000")
    ds.RTPlanGeometry, ds.OperatorsName, ds.FrameOfReferenceUID = "PATIENT", "", uid("frame of reference")
    ds.PositionReferenceIndicator, ds.ApprovalStatus = "", "UNAPPROVED"
    ds.ReferencedStructureSetSequence = [reference(structures)]
    setup = item(PatientSetupNumber=1, PatientPosition="HFS")
    ds.PatientSetupSequence = [setup]
    group = item(FractionGroupNumber=1, NumberOfFractionsPlanned=1, NumberOfBeams=1, NumberOfBrachyApplicationSetups=0)
    group.ReferencedBeamSequence = [item(ReferencedBeamNumber=1)]
    ds.FractionGroupSequence = [group]
    beam = item(BeamNumber=1, BeamName="1", BeamType="STATIC", RadiationType="PROTON" if ion else "PHOTON")
    beam.TreatmentMachineName, beam.PrimaryDosimeterUnit, beam.TreatmentDeliveryType = "", "MU", "TREATMENT"
    beam.NumberOfWedges = beam.NumberOfCompensators = beam.NumberOfBoli = beam.NumberOfBlocks = 0
    beam.FinalCumulativeMetersetWeight, beam.NumberOfControlPoints = 1, 2
    positions = [item(RTBeamLimitingDeviceType=axis, LeafJawPositions=[-50, 50]) for axis in ("X", "Y")]
    points = [item(ControlPointIndex=number, CumulativeMetersetWeight=number) for number in (0, 1)]
    first = points[0]
    first.NominalBeamEnergy, first.GantryAngle, first.GantryRotationDirection = 6, 0, "NONE"
    first.BeamLimitingDeviceAngle, first.BeamLimitingDeviceRotationDirection = 0, "NONE"
    first.PatientSupportAngle, first.PatientSupportRotationDirection, first.IsocenterPosition = 0, "NONE", [0, 0, 0]
    first.TableTopVerticalPosition = first.TableTopLongitudinalPosition = first.TableTopLateralPosition = None
    if ion:
        beam.ScanMode, beam.VirtualSourceAxisDistances, beam.NumberOfRangeShifters = "NONE", [2000.0, 2000.0], 0
        beam.NumberOfLateralSpreadingDevices = beam.NumberOfRangeModulators = 0
        beam.PatientSupportType = "TABLE"
        first.TableTopPitchAngle = first.TableTopRollAngle = 0.0
        first.TableTopPitchRotationDirection = first.TableTopRollRotationDirection = "NONE"
        beam.IonControlPointSequence, ds.IonBeamSequence = points, [beam]
    else:
        beam.SourceAxisDistance = 1000
        beam.BeamLimitingDeviceSequence = [
            item(RTBeamLimitingDeviceType=axis, NumberOfLeafJawPairs=1) for axis in ("X", "Y")
        ]
        first.BeamLimitingDevicePositionSequence = positions
        first.TableTopEccentricAngle, first.TableTopEccentricRotationDirection = 0, "NONE"
        beam.ControlPointSequence, ds.BeamSequence = points, [beam]
    return ds


def _record(suffix: str, name: str, plan: Dataset) -> Dataset:
    """A treatment record of one session of the plan."""
    ds = composite(suffix, "RTRECORD", name, TreatmentDate="20260101", TreatmentTime="120000", OperatorsName="")
    if suffix == "481.7":
        ds.CurrentTreatmentStatus, ds.FirstTreatmentDate, ds.MostRecentTreatmentDate = "ON_TREATMENT", "", ""
        ds.ReferencedRTPlanSequence = [reference(plan)]
        return ds
    ds.ReferencedRTPlanSequence, ds.NumberOfFractionsPlanned = [reference(plan)], None
    ds.TreatmentMachineSequence = [
        item(TreatmentMachineName="", Manufacturer="", InstitutionName="", ManufacturerModelName="",
             DeviceSerialNumber="")
    ]  # fmt: skip
    point = item(ReferencedControlPointIndex=0, TreatmentControlPointDate="20260101")
    point.TreatmentControlPointTime, point.SpecifiedMeterset, point.DeliveredMeterset = "120000", 1.0, 1.0
    point.NominalBeamEnergy, point.NominalBeamEnergyUnit = 6, "MV"
    session = item(ReferencedBeamNumber=1, CurrentFractionNumber=1, BeamName="1", BeamType="STATIC")
    session.RadiationType, session.TreatmentDeliveryType, session.NumberOfWedges = "PHOTON", "TREATMENT", 0
    session.NumberOfCompensators = session.NumberOfBoli = session.NumberOfBlocks = 0
    session.TreatmentTerminationStatus, session.TreatmentVerificationStatus = "NORMAL", "VERIFIED_OVR"
    session.NumberOfControlPoints = 1
    ds.PrimaryDosimeterUnit = "MU"
    if suffix == "481.4":
        point.DoseRateSet, point.DoseRateDelivered = None, None
        session.BeamLimitingDeviceLeafPairsSequence = [item(RTBeamLimitingDeviceType="X", NumberOfLeafJawPairs=1)]
        session.ControlPointDeliverySequence = [point]
        ds.TreatmentSessionBeamSequence = [session]
    elif suffix == "481.9":
        point.MetersetRateSet, point.MetersetRateDelivered, point.NominalBeamEnergy = None, None, 100
        point.NominalBeamEnergyUnit = "MEV"
        session.RadiationType, session.ScanMode, session.PatientSupportType = "PROTON", "NONE", "TABLE"
        session.NumberOfRangeShifters = session.NumberOfLateralSpreadingDevices = session.NumberOfRangeModulators = 0
        session.IonControlPointDeliverySequence = [point]
        ds.TreatmentSessionIonBeamSequence = [session]
    else:
        ds.BrachyTreatmentTechnique, ds.BrachyTreatmentType = "INTRALUMENARY", "HDR"
        ds.RecordedSourceSequence = [
            item(
                SourceNumber=1, SourceType="POINT", SourceManufacturer="", SourceSerialNumber="",
                SourceIsotopeName="Ir-192", SourceIsotopeHalfLife=73.8, ReferenceAirKermaRate=40000,
                SourceStrengthReferenceDate="20260101", SourceStrengthReferenceTime="120000",
            )
        ]  # fmt: skip
        ds.TreatmentSessionApplicationSetupSequence = [
            item(
                ApplicationSetupType="OTHER", ReferencedBrachyApplicationSetupNumber=1, TotalReferenceAirKerma=0,
                CurrentFractionNumber=1, TreatmentDeliveryType="TREATMENT", TreatmentTerminationStatus="NORMAL",
                TreatmentVerificationStatus="VERIFIED_OVR",
                RecordedChannelSequence=[
                    item(
                        ChannelNumber=1, SpecifiedChannelTotalTime=1, DeliveredChannelTotalTime=1,
                        SourceMovementType="FIXED", ReferencedSourceNumber=1, NumberOfControlPoints=2,
                        ChannelLength=None, TransferTubeNumber=None,
                        BrachyControlPointDeliveredSequence=[
                            item(
                                ReferencedControlPointIndex=number, TreatmentControlPointDate="20260101",
                                TreatmentControlPointTime="120000", ControlPointRelativePosition=0,
                            )
                            for number in (0, 1)
                        ],
                    )
                ],
            )
        ]  # fmt: skip
    return ds
