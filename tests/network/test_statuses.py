"""One table of C-STORE statuses: delivery and retrieval read it alike."""

from __future__ import annotations

from itertools import pairwise

import pytest

from gateway.errors import PermanentError, TransientError
from gateway.flow.statuses import TABLE, Kind, delivered, is_stored, is_warning, kind_of
from gateway.network.egress import failure
from gateway.network.retrieve.suboperations import Tally
from gateway.network.scu import Response


@pytest.mark.parametrize("status", [0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007, 0xBFFF])
def test_a_warning_says_that_it_is_stored(status):
    assert is_warning(status) and is_stored(status) and delivered(status)
    tally = Tally(remaining=1)
    tally.count("1.2.3", status)
    assert (tally.warning, tally.failed, tally.final_status()) == (1, 0, 0xB000)


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213])
def test_what_may_pass_is_tried_again(status):
    assert kind_of(status) is Kind.LATER and not delivered(status)
    assert isinstance(failure("outside", Response(status)), TransientError)


@pytest.mark.parametrize("status", [0x0105, 0x0112, 0x0117, 0x0122, 0x0124, 0xA900, 0xC000, 0xFE00, 0xFF00, 0x7777])
def test_everything_else_is_a_failure(status):
    assert kind_of(status) is Kind.FAILED and not delivered(status) and not is_stored(status)
    assert isinstance(failure("outside", Response(status)), PermanentError)
    tally = Tally(remaining=1)
    tally.count("1.2.3", status)
    assert tally.failed_uids == ["1.2.3"]


def test_a_duplicate_is_delivered_as_a_copy_and_not_restored_as_an_original():
    assert delivered(0x0111) and not is_stored(0x0111) and not is_warning(0x0111)


def test_the_table_has_one_row_for_a_status_and_says_where_it_stands():
    rows = sorted(TABLE)
    assert all(row.first <= row.last and "PS3." in row.where for row in rows)
    assert all(one.last < following.first for one, following in pairwise(rows))
