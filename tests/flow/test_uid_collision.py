"""One SOP Instance UID in two studies: both originals are kept and found, and no copy passes for the other's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from gateway.errors import VaultError
from gateway.vault import Index, Scope
from tests.support.dicom.samples import encode
from tests.support.flow import ROUTE, Flow, ct

UID = "1.2.826.0.1.99.1"


def other(study: str, seed: int = 2, series: str = "") -> Dataset:
    """A slice of another study (and series) under the UID of the first."""
    return ct(1, seed, StudyInstanceUID=study, SeriesInstanceUID=series or f"{study}.1")


def digests(flow: Flow, **asked: str) -> list[str]:
    """SHA-256 of the originals that a retrieval with these keys selects, all of them verified."""
    query = Dataset()
    for keyword, value in asked.items():
        setattr(query, keyword, value)
    level = "IMAGE" if "SOPInstanceUID" in asked else "SERIES" if "SeriesInstanceUID" in asked else "STUDY"
    index = Index(flow.engine)
    locators = index.select("STUDY", level, query, Scope())
    answers = list(index.find("STUDY", level, query, Scope(), 10))
    assert len(answers) == len(locators) or level != "IMAGE"
    return [flow.context.protector.record(locator).original_sha256 for locator in locators]


@pytest.mark.parametrize("restoration", ["escrow", "carried", "both"])
def test_each_original_is_found_in_its_own_study_and_the_second_copy_is_held(make_flow, restoration: str) -> None:
    flow = make_flow(ROUTE.model_copy(update={"restoration": restoration}))
    sets = {"1.2.21": other("1.2.21", 1), "1.2.22": other("1.2.22", 2)}
    ids = [flow.receive(ds) for ds in sets.values()]
    flow.run()
    first, second = map(flow.row, ids)
    assert (first.state, second.state, second.reason_code) == ("delivered", "held", "uid-collision")
    assert [line["reason"] for line in flow.audited("instance-held")] == ["uid-collision"]
    assert len(flow.sender.received) == 1  # of the first study alone
    for study, ds in sets.items():
        if restoration == "carried" and study == "1.2.21":
            continue  # the copy that left carries it
        data = encode(ds)
        expected = [hashlib.sha256(data).hexdigest()]
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "SOPInstanceUID": UID}
        assert digests(flow, **keys) == expected
        assert digests(flow, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1") == expected
        assert digests(flow, StudyInstanceUID=study) == expected
        assert digests(flow, **(keys | {"SeriesInstanceUID": "1.2.9.9"})) == []


def test_a_held_one_stays_held_when_it_is_released_and_the_owner_goes_on(flow: Flow) -> None:
    flow.receive(other("1.2.21", 1))
    flow.run()
    stray = flow.receive(other("1.2.22", 2))
    corrected = flow.receive(other("1.2.21", 3))
    flow.run()
    assert flow.row(corrected).state == "delivered"
    assert flow.row(stray).reason_code == "uid-collision"
    flow.operator.release([stray])
    flow.run()
    assert (flow.row(stray).state, flow.row(stray).reason_code) == ("held", "uid-collision")
    assert digests(flow, StudyInstanceUID="1.2.21") == [hashlib.sha256(encode(other("1.2.21", 3))).hexdigest()]


def test_the_same_bytes_once_more_are_no_newer_generation_because_another_study_came_between(flow: Flow) -> None:
    again = other("1.2.21", 1)
    flow.receive(again)
    flow.run()
    flow.receive(other("1.2.22", 2))
    flow.run()
    repeated = flow.receive(again)
    flow.run()
    assert flow.row(repeated).state == "delivered"
    assert len(flow.sender.byte_strings()) == 1


def test_two_series_of_one_study_keep_both(flow: Flow) -> None:
    for series, seed in (("1.2.21.1", 1), ("1.2.21.2", 2)):
        flow.receive(other("1.2.21", seed, series))
    flow.run()
    assert len(digests(flow, StudyInstanceUID="1.2.21")) == 2
    for series in ("1.2.21.1", "1.2.21.2"):
        assert len(digests(flow, StudyInstanceUID="1.2.21", SeriesInstanceUID=series, SOPInstanceUID=UID)) == 1


def test_by_its_uid_alone_it_is_not_guessed_which_one_is_meant(flow: Flow) -> None:
    for study in ("1.2.21", "1.2.22"):
        flow.receive(other(study))
    flow.run()
    with pytest.raises(VaultError) as caught:
        flow.restored(UID)
    assert caught.value.code == "uid-collision"


def test_field_files(flow: Flow, field_inputs: Path) -> None:
    """`dup_a` and `dup_b`: one SOP Instance UID in two studies."""
    sets = [dcmread(field_inputs / "find" / f"{name}.dcm") for name in ("dup_a", "dup_b")]
    for ds in sets:
        flow.receive(ds, ds.file_meta.TransferSyntaxUID)
    flow.seal()
    found = [
        digests(
            flow,
            StudyInstanceUID=ds.StudyInstanceUID,
            SeriesInstanceUID=ds.SeriesInstanceUID,
            SOPInstanceUID=ds.SOPInstanceUID,
        )
        for ds in sets
    ]
    assert [len(one) for one in found] == [1, 1] and found[0] != found[1]
