"""Functional groups: what is said of a frame reaches that frame, and no other."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pydicom.filereader import read_dataset

from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.encoded import read_header
from gateway.dicom.encoding.geometry import frame_positions, slice_position
from gateway.dicom.encoding.groups import FunctionalGroups, body_part_of
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import decode_pixels
from gateway.dicom.pixels.windows import displays_of
from gateway.errors import DicomError
from tests.support.dicom.enhanced import angiography, grouped, item, legacy_converted, real_slices, ultrasound_volume
from tests.support.dicom.samples import encode, facts, image, slightly_changed

SERIES = ("series_ct_head_ge", "series_mr_brain")
NOISE = np.random.default_rng(4).integers(0, 200, (3, 40, 40), dtype=np.uint8)


@pytest.mark.parametrize("series", SERIES)
def test_a_frame_of_a_real_series_is_shown_and_lies_as_its_slice_did(miad_data, series):
    slices = real_slices(miad_data / "dicom" / series)
    converted = legacy_converted([slices[i] for i in (2, 0, 3, 1)])
    ds = read_header(io.BytesIO(encode(converted)), EXPLICIT_LITTLE).dataset
    displays, positions = displays_of(ds, 4), frame_positions(ds, 4)
    by_place = {round(slice_position(one), 3): displays_of(one, 1)[0] for one in slices}
    assert len(set(by_place.values())) == 4
    assert [by_place[round(place, 3)] for place in positions] == list(displays)


def test_the_frame_s_own_group_counts_then_the_shared_one_then_the_top_level():
    own = item(PixelValueTransformationSequence=[item(RescaleSlope=4, RescaleIntercept=1)])
    shared = item(PixelValueTransformationSequence=[item(RescaleSlope=3, RescaleIntercept=2)])
    ds = grouped(image(np.zeros((2, 6, 8), np.uint16)), [own, item()], shared)
    ds.WindowCenter, ds.WindowWidth = 40, 400
    first, second = displays_of(ds, 2)
    assert [(one.slope, one.intercept) for one in (first, second)] == [(4, 1), (3, 2)]
    assert first.windows == second.windows != ()
    del ds.SharedFunctionalGroupsSequence
    assert displays_of(ds, 2)[1].slope == 1


def test_each_frame_has_its_own_window_function_or_table():
    table = item(LUTDescriptor=[1000, 200, 16])
    groups = [
        item(FrameVOILUTSequence=[item(WindowCenter=100, WindowWidth=50, VOILUTFunction="LINEAR_EXACT")]),
        item(FrameVOILUTSequence=[item(WindowCenter=[10, 20], WindowWidth=[101, 201])]),
        item(FrameVOILUTSequence=[item(VOILUTSequence=[table])]),
    ]
    ds = grouped(image(np.zeros((3, 6, 8), np.uint16)), groups)
    assert [one.primary for one in displays_of(ds, 3)] == [(75, 125), (-40.5, 59.5), (200, 1199)]


def test_planes_of_a_volume_lie_by_their_positions_not_their_numbers():
    assert frame_positions(ultrasound_volume(NOISE), 3) == [4, 2, 0]


def test_frames_of_one_place_lie_at_one_position():
    where = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])]) for z in (5, 9, 5, 9)]
    shared = item(PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    ds = grouped(image(np.zeros((4, 6, 8), np.uint16)), where, shared)
    assert frame_positions(ds, 4) == [5, 9, 5, 9]


def test_a_stack_without_positions_is_laid_out_by_its_numbers():
    numbers = [item(FrameContentSequence=[item(StackID="1", InStackPositionNumber=n)]) for n in (3, 1, 2)]
    ds = grouped(image(np.zeros((3, 6, 8), np.uint16)), numbers)
    assert frame_positions(ds, 3) == [3, 1, 2]
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence = [item(SliceThickness=5, SpacingBetweenSlices=2.5)]
    assert frame_positions(ds, 3) == [7.5, 2.5, 5.0]
    ds.PerFrameFunctionalGroupsSequence[1] = item()
    assert frame_positions(ds, 3) is None  # one frame without a place: none of them can be laid out by it


def test_what_has_no_place_has_no_positions():
    assert frame_positions(angiography(NOISE), 3) is None
    assert frame_positions(image(), 1) is None


@pytest.mark.parametrize("count", [1, 2, 4])
def test_groups_that_are_not_one_a_frame_are_refused(count):
    ds = grouped(image(NOISE), [item()] * count)
    for ask in (lambda: FunctionalGroups(ds, 3), lambda: decode_pixels(encode(ds), EXPLICIT_LITTLE)):
        with pytest.raises(DicomError) as caught:
            ask()
        assert caught.value.code == "wrong-functional-groups"


def test_the_body_part_is_told_by_the_region_of_the_frames():
    region = item(AnatomicRegionSequence=[item(CodeValue="12738006", CodingSchemeDesignator="SCT")])
    ds = grouped(image(), [item()], item(FrameAnatomySequence=[region]))
    assert body_part_of(ds) == "BRAIN"
    ds.BodyPartExamined = "NECK"
    assert body_part_of(ds) == "NECK"
    assert body_part_of(image()) == ""


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_groups_of_the_derived_image_follow_and_measurements_stay(syntax):
    ds = angiography(NOISE)
    data = encode(ds, syntax)
    marked = slightly_changed(NOISE, (0, 255))
    out = read_dataset(
        io.BytesIO(derive(data, syntax, marked, facts(map_uid={"1.2.3.77": "2.25.77"}.get))), False, True
    )
    for number, group in enumerate(out.PerFrameFunctionalGroupsSequence):
        sources = (group.DerivationImageSequence[0].SourceImageSequence[0], group.ReferencedImageSequence[0])
        assert [source.ReferencedSOPInstanceUID for source in sources] == ["2.25.77"] * 2
        assert group.RealWorldValueMappingSequence[0].RealWorldValueSlope == 0.5 + number
        assert group.XAXRFFrameCharacteristicsSequence[0].FrameType[0] == "DERIVED"
        assert group.FrameVOILUTSequence[0].WindowCenter == 100 + number
