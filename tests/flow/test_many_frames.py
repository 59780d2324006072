"""An enhanced MR of 1,200 frames with 8 MB of header: received, sealed, marked, delivered, and given back exactly."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from gateway.dicom.encoding.parts import split
from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
from gateway.dicom.pixels.stored_values import pixels_of
from tests.support.dicom.enhanced import ENHANCED_MR
from tests.support.dicom.long_headers import Writer, enhanced_mr

FRAMES = 1200


@pytest.mark.full  # most of it the mark's, for each frame: with 3,600 frames a minute of a processor
@pytest.mark.timeout(600)
def test_an_enhanced_mr_of_many_frames_is_marked_and_given_back(make_flow):
    data = enhanced_mr(Writer(), FRAMES, items=5)
    original = split(data, EXPLICIT_LITTLE)
    assert len(original.header_bytes) > 8_000_000
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = ENHANCED_MR, f"1.2.826.0.1.96.{FRAMES}.1"
    flow = make_flow()
    instance_id = flow.receive(ds, data=data)
    flow.run()
    row = flow.row(instance_id)
    assert (row.state, row.reason) == ("delivered", None)
    (_, item, copy), *_ = flow.sender.received
    marked, before = pixels_of(split(copy, EXPLICIT_LITTLE)).frames, pixels_of(original).frames
    assert marked.shape == before.shape == (FRAMES, 32, 32)
    assert (marked != before).any(axis=(1, 2)).mean() > 0.99
    assert flow.restored(item.sop_instance_uid) == data
