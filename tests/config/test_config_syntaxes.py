"""The list of transfer syntaxes of a destination: names in order, and what a person reads for a wrong one."""

from __future__ import annotations

import pytest

from gateway.config import InvalidConfigError
from gateway.config.check import check_config

LAST = "port = 11113\n"


def test_names_keep_their_order_and_the_default_is_uncompressed(site):
    names = ("jpeg-ls", "htj2k", "implicit")
    [given] = site.config({LAST: LAST + f"transfer_syntaxes = {list(names)}\n"}).destinations
    [default] = site.config().destinations
    assert given.transfer_syntaxes == names
    assert default.transfer_syntaxes == ("explicit", "implicit")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('["explict"]', "did you mean 'explicit'?"),
        ('["rle", "explicit", "rle"]', "'rle' stands in it more than once"),
        ("[]", "at least 1 entry"),
        ('"rle"', "must be a list"),
        ('["jpeg"]', "must be 'htj2k'"),
    ],
)
def test_a_wrong_list_is_told_with_its_line(site, value, text):
    with pytest.raises(InvalidConfigError) as caught:
        site.config({LAST: LAST + f"transfer_syntaxes = {value}\n"})
    [problem] = caught.value.problems
    assert problem.path.startswith("destinations[0].transfer_syntaxes") and problem.line == 17
    assert text in f"{problem.message} {problem.suggestion}"


@pytest.mark.parametrize(("names", "warned"), [('["htj2k", "rle"]', True), ('["htj2k", "implicit"]', False)])
def test_a_list_without_an_uncompressed_syntax_is_a_warning(site, names, warned):
    found = check_config(site.config({LAST: LAST + f"transfer_syntaxes = {names}\n"}))
    lines = [f for f in found if f.where == "destinations[0].transfer_syntaxes"]
    assert [f.level for f in lines] == ["warning"] * warned
    assert all("is held" in f.message and "explicit" in f.hint for f in lines)
