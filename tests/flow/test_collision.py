"""One SOP Instance UID in two studies (PS3.5 chapter 9 forbids it; archives send it): neither hides the other."""

from __future__ import annotations

import hashlib

import pytest
from pydicom import Dataset, dcmread

from gateway.dicom.encoding.part10 import split_part10
from gateway.flow.store import DELIVERED, HELD
from gateway.keys import OpeningKeys
from gateway.restore import Restorer
from gateway.service import places
from gateway.vault import Index, Scope
from tests.support.flow import Flow, ct

A, B = "1.2.826.0.1.3680043.10.1357.1", "1.2.826.0.1.3680043.10.1357.2"


def located(flow: Flow, study: str, series: str, instance: str) -> list[bytes]:
    """What C-MOVE gives by these three keys."""
    keys = Dataset()
    keys.StudyInstanceUID, keys.SeriesInstanceUID, keys.SOPInstanceUID = study, series, instance
    restorer = Restorer(
        flow.engine, places(flow.config).vault, OpeningKeys.load(flow.config.keys), flow.config.site.name
    )
    found = []
    for locator in Index(flow.engine).select("STUDY", "IMAGE", keys, Scope()):
        with restorer.by_locator(locator) as original:
            original.verify()
            found.append(b"".join(original.stream()))
    return found


@pytest.mark.parametrize("together", [True, False])
def test_both_originals_are_found_in_their_own_study_and_one_copy_leaves(flow, together):
    first, second = (
        ct(1, seed=n, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1") for n, study in ((1, A), (2, B))
    )
    ids = [flow.receive(first)]
    if not together:
        flow.run()
    ids.append(flow.receive(second))
    flow.run()
    rows = [flow.row(one) for one in ids]
    assert [(row.state, row.reason_code) for row in rows] == [(DELIVERED, None), (HELD, "uid-collision")]
    assert flow.audited("instance-held")[0]["reason"] == "uid-collision"
    assert len(flow.sender.received) == 1
    for row, study in zip(rows, (A, B), strict=True):
        (data,) = located(flow, study, f"{study}.1", first.SOPInstanceUID)
        assert hashlib.sha256(data).hexdigest() == row.sha256
    assert located(flow, A, f"{B}.1", first.SOPInstanceUID) == []


def test_the_field_s_pair(flow, field_inputs):
    found = {}
    for name in ("dup_a", "dup_b"):
        file = field_inputs / "find" / f"{name}.dcm"
        ds = dcmread(file)
        with open(file, "rb") as opened:
            syntax = split_part10(opened)[0].transfer_syntax_uid
            found[name] = opened.read()
        flow.receive(ds, syntax, data=found[name])
    flow.run()
    for name in found:
        ds = dcmread(field_inputs / "find" / f"{name}.dcm")
        assert located(flow, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID) == [found[name]]
