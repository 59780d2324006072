"""One SOP Instance UID in two studies (PS3.5 chapter 9 forbids it; archives send it).

Both originals are kept and found, and no copy passes for the other's.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from gateway.dicom.encoding.part10 import split_part10
from gateway.errors import VaultError
from gateway.keys import OpeningKeys
from gateway.restore import Restorer
from gateway.service import places
from gateway.vault import Index, Scope
from tests.support.dicom.samples import encode
from tests.support.flow import ROUTE, Flow, ct

UID = "1.2.826.0.1.99.1"


def other(study: str, seed: int = 2, series: str = "") -> Dataset:
    """A slice of another study (and series) under the UID of the first."""
    return ct(1, seed, StudyInstanceUID=study, SeriesInstanceUID=series or f"{study}.1")


def originals(flow: Flow, **asked: str) -> list[bytes]:
    """What a retrieval with these keys gives: opened as the restore role opens it, and verified."""
    query = Dataset()
    for keyword, value in asked.items():
        setattr(query, keyword, value)
    level = "IMAGE" if "SOPInstanceUID" in asked else "SERIES" if "SeriesInstanceUID" in asked else "STUDY"
    index = Index(flow.engine)
    locators = index.select("STUDY", level, query, Scope())
    answers = list(index.find("STUDY", level, query, Scope(), 10))
    assert len(answers) == len(locators) or level != "IMAGE"
    restorer = Restorer(
        flow.engine, places(flow.config).vault, OpeningKeys.load(flow.config.keys), flow.config.site.name
    )
    found = []
    for locator in locators:
        with restorer.by_locator(locator) as original:
            original.verify()
            found.append(b"".join(original.stream()))
    return found


@pytest.mark.parametrize(
    ("restoration", "together"), [("escrow", True), ("escrow", False), ("carried", True), ("both", True)]
)
def test_each_original_is_found_in_its_own_study_and_the_second_copy_is_held(
    make_flow, restoration: str, together: bool
) -> None:
    """`together`: both wait when the first is sealed; else it has left already."""
    flow = make_flow(ROUTE.model_copy(update={"restoration": restoration}))
    sets = {"1.2.21": other("1.2.21", 1), "1.2.22": other("1.2.22", 2)}
    ids = [flow.receive(sets["1.2.21"])]
    if not together:
        flow.run()
    ids.append(flow.receive(sets["1.2.22"]))
    flow.run()
    first, second = map(flow.row, ids)
    assert (first.state, second.state, second.reason_code) == ("delivered", "held", "uid-collision")
    assert [line["reason"] for line in flow.audited("instance-held")] == ["uid-collision"]
    assert len(flow.sender.received) == 1  # of the first study alone
    for study, ds in sets.items():
        if restoration == "carried" and study == "1.2.21":
            continue  # the copy that left carries it
        expected = [encode(ds)]
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "SOPInstanceUID": UID}
        assert originals(flow, **keys) == expected
        assert originals(flow, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.1") == expected
        assert originals(flow, StudyInstanceUID=study) == expected
        for wrong in ("1.2.9.9", *(f"{one}.1" for one in sets if one != study)):
            assert originals(flow, **(keys | {"SeriesInstanceUID": wrong})) == []


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
    assert originals(flow, StudyInstanceUID="1.2.21") == [encode(other("1.2.21", 3))]


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
    sets = {series: other("1.2.21", seed, series) for series, seed in (("1.2.21.1", 1), ("1.2.21.2", 2))}
    for ds in sets.values():
        flow.receive(ds)
    flow.run()
    assert len(originals(flow, StudyInstanceUID="1.2.21")) == 2
    for series, ds in sets.items():
        found = originals(flow, StudyInstanceUID="1.2.21", SeriesInstanceUID=series, SOPInstanceUID=UID)
        assert found == [encode(ds)]


def test_by_its_uid_alone_it_is_not_guessed_which_one_is_meant(flow: Flow) -> None:
    for study in ("1.2.21", "1.2.22"):
        flow.receive(other(study))
    flow.run()
    with pytest.raises(VaultError) as caught:
        flow.restored(UID)
    assert caught.value.code == "uid-collision"


def test_the_field_s_pair(flow: Flow, field_inputs: Path) -> None:
    """`dup_a` and `dup_b`: one SOP Instance UID in two studies."""
    sent = {}
    for name in ("dup_a", "dup_b"):
        with open(field_inputs / "find" / f"{name}.dcm", "rb") as file:
            syntax = split_part10(file)[0].transfer_syntax_uid
            sent[name] = file.read()
            file.seek(0)
            ds = dcmread(file)
        flow.receive(ds, syntax, data=sent[name])
    flow.run()
    for name, data in sent.items():
        ds = dcmread(field_inputs / "find" / f"{name}.dcm")
        keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        assert originals(flow, **{keyword: ds[keyword].value for keyword in keys}) == [data]
