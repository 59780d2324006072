"""References at all nesting levels follow; what must stay stays."""

from __future__ import annotations

import io

import pytest
from pydicom import Dataset
from pydicom.filereader import read_dataset

from gateway.dicom.copy.remap import remap_references
from gateway.errors import DicomError
from tests.support.dicom.samples import encode, image


def _reference(uid: str | list[str] | None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    item.ReferencedSOPInstanceUID = uid
    return item


def _series(uid: str, *instances: str) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = uid
    item.StudyInstanceUID = "1.2.3.1"
    item.ReferencedSOPSequence = [_reference(instance) for instance in instances]
    return item


def _map(prefix: str):
    return lambda uid: f"{prefix}.{uid}" if uid.startswith("1.2.9") else None


def _study_of_references() -> Dataset:
    ds = image()
    ds.ReferencedImageSequence = [_reference("1.2.9.1"), _reference("1.2.8.1")]
    ds.ReferencedStudySequence = [_reference("1.2.9.100")]
    ds.ReferencedPerformedProcedureStepSequence = [_reference("1.2.9.101")]
    ds.ReferencedSeriesSequence = [_series("1.2.9.2", "1.2.9.3")]
    study = Dataset()
    study.StudyInstanceUID = "1.2.9.102"
    study.ReferencedSeriesSequence = [_series("1.2.9.4", "1.2.9.5", "1.2.9.6")]
    ds.CurrentRequestedProcedureEvidenceSequence = [study]
    content = Dataset()
    content.ValueType = "UIDREF"
    name = Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "112002", "DCM", "Series Instance UID"
    content.ConceptNameCodeSequence = [name]
    content.UID = "1.2.9.2"
    container = Dataset()
    container.ContentSequence = [content]
    ds.ContentSequence = [container]
    ds.FrameOfReferenceUID = "1.2.9.103"
    ds.ConcatenationUID = "1.2.9.7"
    ds.private_block(0x0029, "THEIRS", create=True).add_new(1, "SQ", [_reference("1.2.9.104")])
    return ds


def test_every_level_and_nothing_else():
    ds = _study_of_references()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = "1.2.9.105", "1.2.9.106", "1.2.9.107"
    count = remap_references(ds, _map("2.25.1"), _map("2.25.2"))
    assert [i.ReferencedSOPInstanceUID for i in ds.ReferencedImageSequence] == ["2.25.1.1.2.9.1", "1.2.8.1"]
    assert ds.ReferencedSeriesSequence[0].SeriesInstanceUID == "2.25.2.1.2.9.2"
    assert ds.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.1.1.2.9.3"
    evidence = ds.CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.StudyInstanceUID == "1.2.9.102"
    series = evidence.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "2.25.2.1.2.9.4"
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == ["2.25.1.1.2.9.5", "2.25.1.1.2.9.6"]
    assert ds.ContentSequence[0].ContentSequence[0].UID == "2.25.2.1.2.9.2"
    assert ds.ConcatenationUID == "2.25.1.1.2.9.7"
    assert count == 8
    left = encode(ds)
    for stays in range(100, 108):
        assert f"1.2.9.{stays}".encode() in left and f".1.2.9.{stays}".encode() not in left


def test_encoded_sequences_and_a_map_for_instances_only():
    for syntax, implicit in (("1.2.840.10008.1.2.1", False), ("1.2.840.10008.1.2", True)):
        ds = read_dataset(io.BytesIO(encode(_study_of_references(), syntax)), implicit, True)
        assert remap_references(ds, _map("2.25.1")) == 5
        assert ds.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.9.2"


def test_several_uids_where_one_belongs_all_follow():
    ds = image()
    ds.ReferencedImageSequence = [_reference(["1.2.9.1", "1.2.8.1", "1.2.9.2"])]
    assert remap_references(ds, _map("2.25.1")) == 2
    assert list(ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID) == [
        "2.25.1.1.2.9.1", "1.2.8.1", "2.25.1.1.2.9.2",
    ]  # fmt: skip


def test_a_reference_that_is_no_text_is_refused():
    """It would name the original in every copy; an empty one names nothing."""
    ds = image()
    ds.ReferencedImageSequence = [_reference("1.2.9.1")]
    data = encode(ds).replace(b"\x08\x00\x55\x11UI", b"\x08\x00\x55\x11SS")
    with pytest.raises(DicomError) as caught:
        remap_references(read_dataset(io.BytesIO(data), False, True), _map("2.25.1"))
    assert (caught.value.code, "1.2.9" in caught.value.message) == ("undecodable-header", False)
    ds.ReferencedImageSequence = [_reference(""), _reference(None)]
    assert remap_references(ds, _map("2.25.1")) == 0
