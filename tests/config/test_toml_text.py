"""What is written as TOML reads as it was."""

from __future__ import annotations

import datetime
import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.toml_text import to_toml

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLAIN = (
    TEXT
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.dates()
    | st.times()
    | st.datetimes(min_value=datetime.datetime(1990, 1, 1))
    | st.datetimes(timezones=st.just(datetime.UTC))
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_reads_as_it_was(table):
    assert tomllib.loads(to_toml(table)) == table


def test_the_sample_configuration():
    table = tomllib.loads((Path(__file__).parents[2] / "deploy" / "gateway.toml").read_text("utf-8"))
    text = to_toml(table)
    assert tomllib.loads(text) == table
    assert "[[restore.workstations]]\n" in text and "[restore.tls]\n" in text  # as a person writes it


def test_what_has_no_equal_and_what_toml_has_not():
    assert math.isnan(tomllib.loads(to_toml({"a": float("nan")}))["a"])
    until = datetime.datetime(2026, 11, 26, 8, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    assert to_toml({"until": until}) == "until = 2026-11-26T08:00:00+01:00\n"
    with pytest.raises(TypeError):
        to_toml({"a": None})
