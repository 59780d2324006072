"""A header of functional groups for hundreds of frames is read and derived in seconds, however its sequences end."""

from __future__ import annotations

import time

import pytest

from gateway.dicom.copy.derive import derive
from gateway.dicom.encoding.parts import split
from gateway.dicom.pixels.stored_values import pixels_of
from tests.support.dicom.long_headers import Writer, enhanced_mr
from tests.support.dicom.samples import facts, slightly_changed
from tests.support.flow import decoded

WRITERS = [Writer(implicit, undefined) for implicit in (False, True) for undefined in (False, True)]
FRAMES = 360


@pytest.mark.parametrize("writer", WRITERS, ids=str)
def test_a_header_of_a_megabyte_takes_seconds_at_most(writer):
    data, syntax = enhanced_mr(writer, FRAMES), writer.transfer_syntax_uid
    begin = time.process_time()
    parts = split(data, syntax)
    pixels = pixels_of(parts)
    frames = slightly_changed(pixels.frames, pixels.limits)
    copy = derive(data, syntax, frames, facts(map_uid=lambda uid: "2.25.7"), pixels, parts)
    assert time.process_time() - begin < 12
    groups = decoded(copy).PerFrameFunctionalGroupsSequence
    assert len(groups) == FRAMES
    for group in groups:
        assert group.MRImageFrameTypeSequence[0].FrameType == ["DERIVED", "PRIMARY", "M", "NONE"]
        assert group.ReferencedImageSequence[0].ReferencedSOPInstanceUID == "2.25.7"
