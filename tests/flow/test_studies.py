"""Studies as the page lists them: each once, the newest first, found by any UID, on SQLite and PostgreSQL."""

from __future__ import annotations

import secrets

import pytest
from sqlalchemy import insert

from gateway.database import FiguresRow, InstanceRow, VaultRow, transaction
from gateway.errors import ConfigError, NotFoundError
from gateway.flow import studies
from gateway.flow.studies import copies_of, newest_studies, recent_marks, studies_of, study


def fill(engine, received: list[tuple[str, float]], psnr: float = 40.0) -> None:
    """One original with its copy for each (study, when it was received), all in a series of their study."""
    records, rows, figures = [], [], []
    for number, (uid, at) in enumerate(received):
        locator = secrets.token_hex(16)
        records.append(
            {
                "locator": locator, "generation": 0, "study_uid": uid, "original_sop_uid": f"1.9.{number}",
                "original_series_uid": f"{uid}.1", "derived_sop_uid": f"2.25.{number}", "derived_series_uid": "2.25.7",
                "sop_class_uid": "1.2", "transfer_syntax_uid": "1.2", "original_sha256": "ab" * 32, "original_size": 1,
                "policy": "p", "derived_sha256": "cd" * 32 if number % 2 else None, "token": b"", "document": b"",
                "signature": b"", "signer": "s", "payload_file": locator, "created_at": at, "patient_id": "P4711",
                "attributes": {"00100010": "Doe"},
            }
        )  # fmt: skip
        rows.append(
            {
                "id": secrets.token_hex(16), "state": "marked", "route": "relay", "calling_ae": "A", "called_ae": "B",
                "peer_address": "::1", "association_id": "a", "sop_class_uid": "1.2", "transfer_syntax_uid": "1.2",
                "sop_instance_uid": f"1.9.{number}", "size": 1, "sha256": "ab" * 32, "action": "mark",
                "record": locator, "received_at": at, "marked_at": at + 1,
            }
        )  # fmt: skip
        figures.append(
            {
                "locator": locator, "route": "relay", "policy": {"tier": "notice"}, "frames": 1, "psnr": psnr,
                "psnr_windows": {}, "region_share": 0.5, "stroke_share": 0.25, "roi_share": 0.125,
            }
        )  # fmt: skip
    with transaction(engine) as session:
        for table, values in ((VaultRow, records), (InstanceRow, rows), (FiguresRow, figures)):
            session.execute(insert(table), values)


def paged(engine, limit: int) -> list[str]:
    """The studies of all pages, one page after the other."""
    found, older = [], None
    for _ in range(50):
        page = newest_studies(engine, limit, older)
        found += [one.study_uid for one in page.lines]
        if page.older is None:
            return found
        assert older is None or page.older < older
        older = page.older
    pytest.fail("the pages have no end")


@pytest.mark.peers
@pytest.mark.parametrize("step", [2, 3, 1000])
def test_each_study_stands_once_where_its_latest_instance_does(engine, monkeypatch, step):
    monkeypatch.setattr(studies, "_AT_ONCE", step)
    # 1.1 goes on while others come and go; 1.4 and 1.5 came at the same moment
    moments = [("1.1", 1.0), ("1.2", 2.0), ("1.1", 3.0), ("1.3", 4.0), ("1.4", 5.0), ("1.5", 5.0), ("1.1", 6.0)]
    fill(engine, moments)
    for limit in (1, 2, 3, 10):
        found = paged(engine, limit)
        assert sorted(found) == ["1.1", "1.2", "1.3", "1.4", "1.5"], limit
        assert (found[0], found[3:]) == ("1.1", ["1.3", "1.2"]), limit


@pytest.mark.peers
def test_a_study_is_found_by_any_uid(engine):
    fill(engine, [("1.10.5", 1.0), ("1.10.6", 2.0), ("1.10.6", 3.0), ("1.100", 4.0), ("1.2", 5.0)])
    assert [one.study_uid for one in studies_of(engine, "1.10").lines] == ["1.10.5", "1.10.6", "1.100"]
    first = studies_of(engine, "1.10", limit=2)
    assert first.after == "1.10.6" and [one.study_uid for one in studies_of(engine, "1.10", 2, "1.10.6").lines] == [
        "1.100"
    ]
    for uid in ("1.9.1", "2.25.1", "1.10.6.1"):  # of an original, a copy and a series
        assert [one.study_uid for one in studies_of(engine, uid).lines] == ["1.10.6"], uid
    assert studies_of(engine, "3").lines == ()
    for odd in ("", "1%", "1*", "1_", "Doe", "1" * 65):
        with pytest.raises(ConfigError, match="digits and dots"):
            studies_of(engine, odd)


@pytest.mark.peers
def test_a_study_tells_of_its_originals_and_copies(engine):
    fill(engine, [("1.1", float(number)) for number in range(5)])
    one = study(engine, "1.1")
    assert (one.originals, one.copies, one.sealed, one.states) == (5, 2, 5, {"marked": 5})
    assert (one.first_at, one.last_at) == (0.0, 4.0)
    lines = copies_of(engine, "1.1", limit=3)
    assert [line.original_sop_uid for line in lines] == ["1.9.0", "1.9.1", "1.9.2"]
    assert [line.is_fixed for line in lines] == [False, True, False]
    assert lines[0].state == "marked" and lines[0].figures.stroke_share == 0.25
    assert len(copies_of(engine, "1.1", limit=3, start=3)) == 2
    with pytest.raises(NotFoundError):
        study(engine, "1.2")


def test_marks_are_the_newest_and_an_unchanged_copy_has_no_figure(flow):
    fill(flow.engine, [("1.1", float(number)) for number in range(4)], psnr=float("inf"))
    found = recent_marks(flow.engine, ["relay", "other"], limit=3)
    assert [one.marked_at for one in found] == [4.0, 3.0, 2.0]
    assert found[0].figures.psnr is None and found[0].figures.tier == "notice"
