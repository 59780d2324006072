"""The line scanner: every path that tomllib reads has its line, whatever the notation."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.lines import KeyLines, KeyPath, format_path

# In these texts each integer is the number of the line that its key stands on: the text is its own oracle.
TEXTS = {
    "tables": "a = 1\n[t]\nb = 3\n\n# c = 5\n[t.u]\nd = 7\n",
    "dotted keys": "a.b.c = 1\na.b.d = 2\n[t]\nx.y = 4\nx.z = 5\n",
    "blanks": "  a   =  1\n[ t . u ]\n\tb = 3\n",
    "quoted keys": '"a b" = 1\n\'c.d\' = 2\n["t#]"]\n"\\u0041" = 4\n"x"."y" = 5\n',
    "arrays of tables": "[[r]]\na = 2\n[[r]]\na = 4\n[r.s]\nb = 6\n",
    "arrays of tables in arrays of tables": "[[r]]\n[[r.s.t]]\nc = 3\n[[r.s.t]]\nc = 5\n[[r]]\n[[r.q]]\nd = 8\n",
    "arrays over lines": "a = [1,\n  2, # 9, ]\n  3\n]\nb = [[5], [\n6], ]\nc = 7\n",
    "inline tables": "a = {x = 1, y.z = 1}\nb = [{x = 2}, {x = 2},\n {x = 3}]\nc = {}\nd = 5\n",
    "strings with brackets": 'a = "] # = {"\nb = 2\nc = \'"[\'\nd = 4\ne = "\\"]"\nf = 6\n',
    "multi-line strings": 'a = """\nx = 9\n""" # """\nb = 4\nc = \'\'\'\n[t]\n\'\'\'\nd = 8\ne = """q\\""""\nf = 10\n',
    "strings that end in quotes": 'a = """\n""x"""""\nb = 3\nc = \'\'\'x\'\'\'\'\'\nd = 5\n',
    "keys without values around": "[t]\n[t.u]\n[[v]]\n\n[w]\na = 6",
    "comments last": "a = 1 # b = 9\n# c = 9",
}


def leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every path of a parsed document with its value, tables and lists before what is in them."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_every_key_has_its_line(text: str) -> None:
    found = KeyLines(text).as_mapping()
    expected = dict(leaves(tomllib.loads(text)))
    assert set(found) == set(expected)
    for path, value in expected.items():
        if isinstance(value, int):
            assert found[path] == value, format_path(path)


def test_a_table_stands_where_its_own_header_is_even_when_it_comes_late() -> None:
    lines = KeyLines("[a.b]\nx = 2\n[a]\ny = 4\n")
    assert lines.line(("a",)) == 3
    assert lines.line(("a", "b")) == 1


def test_what_is_not_written_has_the_line_of_the_table_around_it() -> None:
    lines = KeyLines("\n[a]\nx = 3\n")
    assert lines.line(("a", "missing", 0)) == 2
    assert lines.line(("missing",)) is None


def test_paths_are_written_as_people_write_them() -> None:
    assert format_path(("routes", 0, "mark", "tier")) == "routes[0].mark.tier"
    assert format_path(("a b", "c")) == '"a b".c'
    assert format_path(()) == ""


_names = st.text("ab", min_size=1, max_size=2)
_values = st.recursive(
    st.sampled_from(["1", "true", '"]"', "'#'", '"""\n[x]\n"""', "'''\n'\n'''", "1979-05-27", "-0.5e1"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # ]\n".join(items) + "\n]"),
        st.dictionaries(_names, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(st.sampled_from(["", "[{}]", "[[{}]]", "[{}.c]"]), _names, _names, _values), max_size=8))
def test_any_valid_text_is_scanned_whole(parts: list[tuple[str, str, str, str]]) -> None:
    text = "".join(f"{header.format(table)}\n{key} = {value}\n" for header, table, key, value in parts)
    try:
        expected = dict(leaves(tomllib.loads(text)))
    except tomllib.TOMLDecodeError:
        return  # a key twice, or an inline table over lines: the loader stops before the scanner
    assert set(KeyLines(text).as_mapping()) == set(expected)
