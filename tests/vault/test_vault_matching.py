"""Wild cards (PS3.4 C.2.2.2.4): the right answer for any key, and an answer in time for any key."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement

from gateway.vault.matching import matcher


def matches(key: str, value: str, vr: str = "LO") -> bool:
    test = matcher(DataElement(0x00081030 if vr == "LO" else 0x00100010, vr, key))
    return test is None or test([value])


@given(key=st.text("ab*?.(", min_size=1, max_size=9), value=st.text("ab.(", max_size=10))
def test_wild_cards_match_as_a_reference_does(key, value):
    assert matches(key, value) == fnmatchcase(value, key)


@pytest.mark.parametrize("vr", ["LO", "PN"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("*?" * 15 + "#", "x" * 35),
        ("*?" * 500 + "#", "x" * 1024),
        ("*a" * 500 + "b", "a" * 1024),
        ("*" + "a?" * 400 + "b*", "a" * 1024),
        ("?*" * 511 + "#", "x" * 1024),
    ],
)
def test_no_key_takes_long(key, value, vr):
    begun = time.process_time()
    assert not matches(key, value, vr)
    assert time.process_time() - begun < 0.5
