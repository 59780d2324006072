"""Each broken site ends with its code and says place, reason and cure (`python -m tests.support.broken` shows all)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.support.broken import words
from tests.support.broken.run import run_row
from tests.support.broken.site import Row, all_rows, make_template
from tests.support.warm import Warm

ROWS = [pytest.param(row, id=row.what, marks=[] if row in words.ROWS else pytest.mark.full) for row in all_rows()]


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    make_template(folder)
    return folder


@pytest.mark.parametrize("row", ROWS)
def test_a_broken_site_is_told_of_with_place_reason_and_cure(
    row: Row, template: Path, tmp_path: Path, warm: Warm
) -> None:
    if not row.rights and os.geteuid() != 0:
        missing("root, who makes files of another user")
    code, said = run_row(row, tmp_path / "site", template, warm)
    assert code == row.code, said
    for words_of_it in row.said:
        assert words_of_it in said, said
    assert "Traceback" not in said and "unexpected" not in said, said
    assert "all right" not in said and "S3CRET" not in said, said


def test_the_rows_are_many_and_none_stands_twice() -> None:
    names = [row.what for row in all_rows()]
    assert len(names) >= 60 and len(set(names)) == len(names)


def test_the_sound_site_is_all_right(template: Path, tmp_path: Path, warm: Warm) -> None:
    """Else each row could be told of for something else."""
    code, said = run_row(Row("nothing", lambda site: None, 0, ()), tmp_path / "site", template, warm)
    assert code == 0 and "all right" in said, said
