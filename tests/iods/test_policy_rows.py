"""Every row of the policy table has an object, and each object gets what the table promises, to the last bit.

Objects are made from real pixels (`tests.iods.collection`); what must become of each is written in
`tests.iods.expected`.
"""

from __future__ import annotations

import numpy as np
import pytest

from gateway.config.models import OPT_IN_STATEMENTS
from gateway.protect.policy_table import TABLE
from tests.iods.collection import Made
from tests.iods.expected import EXPECTED, named
from tests.iods.passage import ROUTES, Passage, Passed
from tests.support.flow import decoded

# Hazards that a site may give up: name -> what the table says without the words.
OPTED = ["mg-presentation", "mg-processing", "dx-processing", "io-processing", "pet", "nm"]
RULED = ["rt-structure-set", "rt-plan", "rt-ion-plan", "rt-beams-record", "rt-brachy-record", "rt-summary-record"]
RULED += ["rt-ion-record"]


def test_every_row_of_the_policy_table_has_an_object(made):
    assert set(TABLE) - {str(one.ds.SOPClassUID) for one in made.values()} == set()
    assert set(made) == set(EXPECTED)
    uids = [str(one.ds.SOPInstanceUID) for one in made.values()]
    assert len(set(uids)) == len(uids)


def test_the_rows_are_those_of_the_objects(made):
    """An object whose class is no row is blocked, and only such a one or radiotherapy is."""
    for name, expected in EXPECTED.items():
        row = TABLE.get(str(made[name].ds.SOPClassUID))
        if row is None:
            assert expected.action == "block", name
        elif expected.action == "hold":
            assert row.action == "mark" and expected.code in row.hazards, name
        else:
            assert row.action == expected.action, name


@pytest.mark.parametrize("name", [*named("hold"), *named("block")])
def test_held_and_blocked_never_leave_and_lie_sealed(name, made, passage):
    one = made[name]
    passed = passage.through(one)
    assert (passed.row.state, passed.row.reason_code) == ("held", EXPECTED[name].code)
    assert passed.item is None and passed.marks == ()
    assert passage.escrowed(one.ds.SOPInstanceUID) == one.data


@pytest.mark.parametrize("name", named("mark"))
def test_marked_and_restored_to_the_last_bit(name, made, passage):
    one = made[name]
    passed = passage.through(one)
    assert (passed.row.state, passed.row.action) == ("delivered", "mark"), passed.row.reason
    assert_marked_as_declared(one, passed)
    assert_both_ways_back(one, passed, passage)


@pytest.mark.parametrize("name", named("remap"))
def test_remapped_and_restored_to_the_last_bit(name, made, passage):
    one = made[name]
    passed = passage.through(one)
    assert (passed.row.state, passed.row.action) == ("delivered", "remap"), passed.row.reason
    assert passed.marks == ()
    assert_references_followed(one, passed)
    assert_both_ways_back(one, passed, passage)


@pytest.mark.parametrize("name", OPTED)
def test_given_up_in_so_many_words_it_is_marked(name, made, passage):
    one = made[name]
    assert passage.through(one).row.state == "held"
    passed = passage.through(one, "opted")
    assert (passed.row.state, passed.row.action) == ("delivered", "mark"), passed.row.reason
    assert_marked_as_declared(one, passed)
    assert_both_ways_back(one, passed, passage)


def test_the_words_are_the_ones_that_the_site_is_asked_for():
    assert ROUTES["opted"].opt_in.model_dump() == OPT_IN_STATEMENTS


@pytest.mark.parametrize("name", RULED)
def test_radiotherapy_is_remapped_by_a_rule_only(name, made, passage):
    one = made[name]
    passed = passage.through(one, "ruled")
    assert (passed.row.state, passed.row.action) == ("delivered", "remap"), passed.row.reason
    assert_both_ways_back(one, passed, passage)


@pytest.mark.parametrize("name", ["rt-image", "rt-dose", "pdf", "ecg", "raw-data", "video", "whole-slide"])
def test_no_opt_in_lets_out_what_is_blocked(name, made, passage):
    passed = passage.through(made[name], "opted")
    assert (passed.row.state, passed.row.reason_code, passed.item) == ("held", "blocked-by-policy", None)


def assert_marked_as_declared(one: Made, passed: Passed) -> None:
    """Pydicom decodes both: the difference is the residual, none of it in the region of interest or in padding."""
    before = decoded(one.data, one.transfer_syntax_uid).pixel_array
    ds = passed.dataset()
    after = ds.pixel_array
    difference = after.astype(np.int64) - before
    assert np.array_equal(difference, passed.stacked("residual", before.shape))
    assert difference.any()
    assert not difference[passed.stacked("roi", before.shape)].any()
    assert not difference[~passed.stacked("region", before.shape)].any()
    if "PixelPaddingValue" in one.ds:
        padding = before == one.ds.PixelPaddingValue
        assert padding.any()
        assert np.array_equal(after == one.ds.PixelPaddingValue, padding)
    assert ds.ImageType[0] == "DERIVED"
    assert ds.SOPClassUID == one.ds.SOPClassUID


def assert_references_followed(one: Made, passed: Passed) -> None:
    """No UID that another object of the study goes out under is left, and nothing else lost its place."""
    before, after = _references(one.ds), _references(passed.dataset())
    assert len(before) == len(after) > 0
    assert not set(before) & set(after)
    if "PixelData" in one.ds:
        assert passed.dataset().PixelData == one.ds.PixelData


def _references(ds) -> list[str]:
    return [str(element.value) for element in ds.iterall() if element.keyword == "ReferencedSOPInstanceUID"]


def assert_both_ways_back(one: Made, passed: Passed, passage: Passage) -> None:
    assert passage.escrowed(passed.item.sop_instance_uid) == one.data
    assert passage.escrowed(one.ds.SOPInstanceUID) == one.data
    assert passage.carried(passed) == one.data
    assert passed.item.sop_instance_uid != one.ds.SOPInstanceUID
    assert passed.dataset().SOPInstanceUID == passed.item.sop_instance_uid
