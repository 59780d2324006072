"""How the databases find what C-FIND, C-MOVE and C-GET ask for: by indexes, however many records there are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydicom import Dataset
from sqlalchemy import Engine, event, insert, text

from gateway.database import VaultRow, transaction
from gateway.vault.index import Index, Scope
from tests.flow.conftest import engine

__all__ = ["engine"]

RECORDS, OF_A_STUDY = 6000, 20
ALL = Scope()


@pytest.fixture
def many(engine: Engine) -> Engine:
    """Records of 300 studies with the statistics of all columns: most copies have no study of their own."""
    columns = {column.name for column in VaultRow.__table__.columns if not column.nullable}
    rows = []
    for number in range(RECORDS):
        study = number // OF_A_STUDY
        row: dict = dict.fromkeys(columns, "") | {"token": b"", "signature": b"", "document": bytes(1200)}
        row |= {
            "locator": f"{number * 7919 % RECORDS:032x}",
            "generation": 1,
            "original_size": 1,
            "created_at": 1.0 + number,
            "original_sop_uid": f"1.3.{number}",
            "derived_sop_uid": f"1.4.{number}",
            "original_series_uid": f"1.2.{study}.1",
            "derived_series_uid": f"1.2.{study}.2",
            "study_uid": f"1.1.{study}",
            "derived_study_uid": "1.9.1" if study == 1 else "",
            "patient_id": f"P{study}" if study else "\\P0\\P7",
            "accession_number": f"A{study}" if study else "\\A0\\A7",
            "payload_file": "sealed",
            "attributes": {"00100020": {"vr": "LO", "Value": [f"P{study}"] if study else ["P0", "P7"]}},
        }
        row["attributes"]["00080050"] = {"vr": "SH", "Value": [f"A{study}"] if study else ["A0", "A7"]}
        rows.append(row)
    with transaction(engine) as session:
        session.execute(insert(VaultRow), rows)
    with engine.begin() as connection:
        connection.execute(text("ANALYZE"))
    return engine


@pytest.fixture
def plans(many: Engine) -> Iterator[list[str]]:
    """How the database goes about each statement."""
    seen: list[str] = []
    explain = "EXPLAIN QUERY PLAN " if many.dialect.name == "sqlite" else "EXPLAIN "

    def look(connection, _cursor, statement, parameters, *_rest) -> None:
        if statement.startswith(("SELECT", "WITH")):
            cursor = connection.connection.cursor()
            cursor.execute(explain + statement, parameters)
            seen.extend(str(row[-1]) for row in cursor.fetchall())

    event.listen(many, "before_cursor_execute", look)
    yield seen


def identifier(level: str, **keys: str) -> Dataset:
    """A query that asks for these."""
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    for name, value in {"StudyInstanceUID": "", **keys}.items():
        setattr(asked, name, value)
    return asked


FEW = ("vault_patients", "vault_accessions", "vault_derived_study")  # partial indexes: all of these are few


def read_through(plans: list[str]) -> list[str]:
    """Lines of plans that read all records, or an index of all of them, from one end to the other."""
    scans = [line for line in plans if line.startswith("SCAN vault_record") or "Seq Scan on vault_record" in line]
    return [line for line in scans if not line.endswith(FEW)]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("level", "keys", "found"),
    [
        ("STUDY", {"PatientID": "P5"}, ["1.1.5"]),
        ("STUDY", {"PatientID": "P7"}, ["1.1.0", "1.1.7"]),  # one has two Patient IDs
        ("STUDY", {"AccessionNumber": "A5"}, ["1.1.5"]),
        ("STUDY", {"AccessionNumber": "A7"}, ["1.1.0", "1.1.7"]),
        ("STUDY", {"StudyInstanceUID": "1.1.5"}, ["1.1.5"]),
        ("STUDY", {"StudyInstanceUID": "1.9.1"}, ["1.1.1"]),  # the copy's
        ("SERIES", {"StudyInstanceUID": "1.1.5", "SeriesInstanceUID": ""}, ["1.1.5"]),
        ("SERIES", {"StudyInstanceUID": "1.1.5", "SeriesInstanceUID": "1.2.5.2"}, ["1.1.5"]),
    ],
)
def test_what_is_named_exactly_is_found_without_reading_all(many, plans, level, keys, found) -> None:
    answers = Index(many).find("STUDY", level, identifier(level, **keys), ALL, 100)
    assert sorted({answer.StudyInstanceUID for answer in answers}) == found
    assert plans and not read_through(plans), "\n".join(plans)


@pytest.mark.peers
def test_a_retrieval_is_planned_without_reading_all(many, plans) -> None:
    wanted = identifier("IMAGE", StudyInstanceUID="1.1.5", SeriesInstanceUID="1.2.5.2", SOPInstanceUID="1.4.101")
    assert len(Index(many).select("STUDY", "IMAGE", wanted, ALL)) == 1
    assert len(Index(many).select("STUDY", "STUDY", identifier("STUDY", StudyInstanceUID="1.9.1"), ALL)) == OF_A_STUDY
    assert plans and not read_through(plans), "\n".join(plans)


@pytest.mark.peers
def test_what_originals_alone_are_named_by_is_read_as_it_arrived(many, plans) -> None:
    """Not by a list of locators, which are random: each row of a study would be a page of its own to read."""
    wanted = identifier("SERIES", StudyInstanceUID="1.1.5", SeriesInstanceUID="1.2.5.1")
    assert len(Index(many).select("STUDY", "SERIES", wanted, ALL)) == OF_A_STUDY
    assert plans and not joined(plans), "\n".join(plans)
    if many.dialect.name == "sqlite":  # PostgreSQL reads rows too where pages are not known to be seen by all
        assert [line for line in plans if "COVERING INDEX vault_study (study_uid=? AND original_series_uid=?)" in line]
    both = identifier("STUDY", StudyInstanceUID=["1.1.5", "1.9.1"])  # of an original and of another's copy
    assert len(Index(many).select("STUDY", "STUDY", both, ALL)) == 2 * OF_A_STUDY
    assert joined(plans)


def joined(plans: list[str]) -> list[str]:
    """Lines of plans that put lists of locators together."""
    return [line for line in plans if line.startswith("UNION ALL") or "Append" in line]
