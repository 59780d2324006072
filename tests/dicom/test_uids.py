"""Derived UIDs: valid, repeatable, apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from gateway.dicom.copy.uids import derived_uid, in_new_study

KEYS = st.binary(min_size=32, max_size=32)
UIDS = st.from_regex(r"[12](\.(0|[1-9][0-9]{0,8})){1,6}", fullmatch=True)


@given(key=KEYS, uid=UIDS, generation=st.integers(0, 1000))
def test_valid_and_repeatable(key, uid, generation):
    made = derived_uid(key, "instance", uid, generation)
    assert UID(made).is_valid and made.startswith("2.25.") and len(made) <= 44
    assert made == derived_uid(key, "instance", uid, generation)


@given(key=KEYS, other_key=KEYS, uid=UIDS, other_uid=UIDS, generation=st.integers(1, 50))
def test_every_input_counts(key, other_key, uid, other_uid, generation):
    made = {
        derived_uid(key, "instance", uid),
        derived_uid(key, "series", uid),
        derived_uid(key, "study", uid),
        derived_uid(key, "instance", uid, generation),
    }
    assert len(made) == 4
    assert (derived_uid(other_key, "instance", uid) in made) == (other_key == key)
    assert (derived_uid(key, "instance", other_uid) in made) == (other_uid == uid)


def test_a_known_value_never_changes():
    """Pins the byte layout: a change of it would break every reference ever mapped."""
    assert derived_uid(bytes(range(32)), "instance", "1.2.3.4", 0) == "2.25.192998745990261035868119015097221565774"
    assert derived_uid(bytes(range(32)), "series", "1.2.3.4") == "2.25.293977472015714297637766384290865426361"
    assert derived_uid(bytes(range(32)), "study", "1.2.3.4") == "2.25.325443341853668124282148414485039955986"
    assert in_new_study("1.2.3.4") == "1.2.3.4/study"


def test_wrong_use():
    for arguments in (
        (bytes(31), "instance", "1.2", 0),
        (bytes(32), "patient", "1.2", 0),
        (bytes(32), "instance", "", 0),
        (bytes(32), "instance", "1.2", -1),
        (bytes(32), "series", "1.2", 1),
        (bytes(32), "study", "1.2", 1),
    ):
        with pytest.raises(ValueError):
            derived_uid(*arguments)
