"""What the demo calls a success: every promise that does not hold is named and makes the exit code 1."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from gateway.demo.run import _show
from gateway.demo.site import Ports, Site
from gateway.demo.table import LEAST_ASKED, Line, Outcome, as_table, shown
from gateway.mark.evaluation.picture import Pair, save_picture

GOOD = Line(
    name="one.dcm",
    sop_instance_uid="1.2.3",
    archive_sha256="ab" * 32,
    state="delivered",
    derived_sop_uid="2.25.1",
    delivered=True,
    new_uids=True,
    changed=True,
    psnr=27.0,
    task="brain_tumor",
    learnt=True,
    before="glioma",
    after="pituitary",
    under_noise="glioma",
    margin_before=2.0,
    margin_after=-1.0,
    margin_noise=1.9,
    restored_sha256="ab" * 32,
    restored_sop_uid="1.2.3",
    stranger_refused=True,
)


def test_a_line_of_which_everything_holds_passes():
    assert Outcome((GOOD,)).failures() == []
    assert Outcome((GOOD,)).as_dict()["passed"] is True


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"restored_sha256": "cd" * 32}, "restored"),
        ({"restored_sop_uid": "2.25.1"}, "restored"),
        ({"restored_sha256": None}, "restored"),
        ({"delivered": False, "state": "held", "reason": "no-profile"}, "not delivered (held: no-profile)"),
        ({"stranger_refused": False}, "stranger"),
        ({"psnr": 25.9}, "PSNR"),
        ({"changed": False}, "pixels"),
        ({"new_uids": False}, "UID"),
        ({"margin_after": None}, "classifier"),
        ({"margin_noise": math.nan}, "classifier"),
        ({"psnr": math.nan}, "PSNR"),
        ({"psnr": None, "reason": "weights-corrupt"}, "not compared with its original (weights-corrupt)"),
        ({"delivered": False}, "said to be delivered, and not found outside"),
        ({"derived_sop_uid": None}, "compared with nothing"),
    ],
)
def test_a_line_that_fails_is_named(change, problem):
    outcome = Outcome((replace(GOOD, **change),))
    assert any(problem in failure for failure in outcome.failures())
    assert outcome.as_dict()["passed"] is False
    json.dumps(outcome.as_dict(), allow_nan=False)


def test_of_what_was_not_measured_nothing_is_said():
    unknown = {"psnr": None, "changed": False, "margin_before": None, "margin_after": None, "margin_noise": None}
    assert len(list(replace(GOOD, **unknown).failures())) == 1
    assert len(list(replace(GOOD, **unknown, derived_sop_uid=None, stranger_refused=False).failures())) == 1


def test_what_was_not_restored_is_not_equal_even_when_the_archive_gave_nothing():
    line = replace(GOOD, archive_sha256="", restored_sha256=None)
    assert any("restored" in failure for failure in line.failures())


def test_one_bad_line_among_good_ones_fails_the_run():
    other = replace(GOOD, name="two.dcm", derived_sop_uid="2.25.2", restored_sha256="cd" * 32)
    assert Outcome((GOOD, other)).failures() == ["two.dcm: what was restored is not what the archive sends"]


def test_one_uid_for_two_copies_fails_the_run():
    assert Outcome((GOOD, replace(GOOD, name="two.dcm"))).failures() == ["2.25.1 names more than one marked copy"]


def test_no_lines_fail():
    assert Outcome(()).failures() == ["there is no line"]


def lines(count: int, **change: object) -> tuple[Line, ...]:
    return tuple(replace(GOOD, derived_sop_uid=f"2.25.{number}", **change) for number in range(count))


@pytest.mark.parametrize("change", [{"margin_after": 1.95}, {"after": "glioma"}, {"under_noise": "pituitary"}])
def test_a_mark_that_does_no_more_than_noise_fails_a_run_of_enough_images(change):
    assert Outcome(lines(LEAST_ASKED)).failures() == []
    assert any("noise of equal energy" in failure for failure in Outcome(lines(LEAST_ASKED, **change)).failures())
    assert Outcome(lines(LEAST_ASKED - 1, **change)).failures() == []
    assert Outcome(lines(LEAST_ASKED, learnt=False, **change)).failures() == []


def test_answers_are_counted_where_the_classifier_learnt_the_kind():
    stays = replace(GOOD, derived_sop_uid="2.25.90", after="glioma")
    noisy = replace(GOOD, derived_sop_uid="2.25.91", under_noise="meningioma")
    foreign = replace(GOOD, derived_sop_uid="2.25.92", learnt=False)
    assert Outcome((GOOD, stays, noisy, foreign)).as_dict()["answers"] == {
        "asked": 3,
        "changed": 2,
        "changed_by_noise": 1,
    }


def test_the_mean_margin_counts_not_each_one():
    weak = replace(GOOD, derived_sop_uid="2.25.2", margin_after=2.5)
    outcome = Outcome((GOOD, weak))
    assert outcome.mean_fall == pytest.approx((3.0 - 0.5) / 2)
    assert outcome.mean_fall_noise == pytest.approx(0.1)
    assert outcome.failures() == []


def test_the_table_shows_what_failed():
    screen = Console(file=io.StringIO(), width=150)
    screen.print(as_table([GOOD, replace(GOOD, restored_sha256="cd" * 32), Line("x", "1", "", "held", "no-profile")]))
    shown = screen.file.getvalue()
    assert "abababababab" in shown
    assert "+2.00 → -1.00 (+1.90)" in shown
    assert "glioma → pituitary" in shown and "(stays)" not in shown
    assert "NO" in shown
    assert "no-profile" in shown


def test_an_answer_about_a_kind_that_was_never_learnt_stands_in_brackets():
    screen = Console(file=io.StringIO(), width=150)
    screen.print(as_table([replace(GOOD, learnt=False)]))
    shown = screen.file.getvalue()
    assert "(changes)" in shown and "(stays)" in shown and "glioma" not in shown


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_no_screen_cuts_anything_off(width):
    """Least of all whether it was delivered, restored and refused: of narrow screens those columns fell off."""
    screen = Console(file=io.StringIO(), width=width)
    long = replace(
        GOOD, name="series_ct_head_ge/CT000012.dcm", before="seborrheic_keratosis", after="seborrheic_keratosis"
    )
    lost = replace(GOOD, restored_sha256="cd" * 32)
    screen.print(shown([long, lost, replace(GOOD, delivered=False)], screen))
    text = screen.file.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    assert text.count("NO") == 2 and text.count("abababababab") == 3 and text.count("27.0") == 3
    assert "seborrheic" in text and "stranger" in text


@pytest.mark.parametrize(("change", "told"), [({}, "What you see"), ({"restored_sha256": None}, "What should be seen")])
def test_the_words_below_the_table_are_those_of_a_success_only_when_it_is_one(change, told, tmp_path, capsys):
    site = Site(tmp_path, Ports(*range(20_001, 20_007)))
    code = _show(Outcome((replace(GOOD, **change),)), site, tmp_path / "marked.png", 1.0)
    assert told in capsys.readouterr().out and code == bool(change)


def test_picture_has_a_row_for_each_pair(tmp_path):
    gray = np.linspace(0, 1, 64 * 80, dtype=np.float32).reshape(64, 80)
    colour = np.repeat(gray[..., None], 3, axis=2)
    pairs = [Pair("gray", "PSNR 30 dB", gray, gray * 0.99), Pair("colour", "PSNR 30 dB", colour, colour * 0.99)]
    save_picture(pairs, tmp_path / "two.png")
    save_picture(pairs[:1], tmp_path / "one.png")
    with Image.open(tmp_path / "two.png") as two, Image.open(tmp_path / "one.png") as one:
        assert two.width == one.width
        assert two.height == pytest.approx(2 * one.height, abs=2)
        assert np.asarray(two).std() > 10
