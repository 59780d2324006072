"""What C-FIND and finding an original cost in a vault of many records, beside one of few, on SQLite and PostgreSQL.

    nice -n -5 python -m tests.benchmarks.many_records [--few 10000] [--many 1000000] [--rounds 200] [--json FILE]
        [--analyze]

A vault of so many records: studies of 250 instances in two series, one patient a study, twenty studies a day. The rows
are made by the database; those that are asked for are signed as the worker signs. Asked is, at random places: C-FIND of
a study by its UID, by Patient ID, by Accession Number, of the series of a study and of the instances of a series (125
answers); the plan of a C-MOVE of a series; and the records of an original by its own and by its copy's UID. Medians
over the rounds in milliseconds. SQLite in a file and PostgreSQL in a cluster that is started here; `--analyze` gathers
SQLite's statistics too, as somebody may do by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from pydicom import Dataset
from sqlalchemy import Engine, text

from gateway.config.default import default_config
from gateway.database import VaultRow, open_database, sqlite_url, transaction
from gateway.keys.generate import make_keys
from gateway.keys.keyring import SealingKeys
from gateway.vault import RecordFacts, RecordStore
from gateway.vault.index import Index, Scope
from tests.benchmarks.transitions import postgresql

INSTANCES, SERIES, STUDIES_A_DAY = 250, 2, 20
ROOT = "1.2.826.0.1.99"
EVERYTHING = Scope()
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
SIGNED = 50  # studies of which one instance is signed
AT_ONCE = 5000  # rows in one statement


def study(number: int) -> str:
    """The study of the instance with this number."""
    return f"{ROOT}.1.{number // INSTANCES}"


def series(number: int) -> str:
    """Its series."""
    return f"{ROOT}.2.{number * SERIES // INSTANCES}"


def attributes(number: int) -> dict:
    """What C-FIND answers of it."""
    of_study = number // INSTANCES
    day = of_study // STUDIES_A_DAY
    return {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080016": {"vr": "UI", "Value": [CT]},
        "00080018": {"vr": "UI", "Value": [f"{ROOT}.3.{number}"]},
        "00080020": {"vr": "DA", "Value": [f"{2000 + day // 336}{1 + day // 28 % 12:02}{1 + day % 28:02}"]},
        "00080050": {"vr": "SH", "Value": [f"A{of_study}"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"Bench^{of_study}"}]},
        "00100020": {"vr": "LO", "Value": [f"P{of_study}"]},
        "0020000D": {"vr": "UI", "Value": [study(number)]},
        "0020000E": {"vr": "UI", "Value": [series(number)]},
        "00200013": {"vr": "IS", "Value": [number % INSTANCES]},
    }


def fill(engine: Engine, home: Path, count: int, analyze: bool) -> RecordStore:
    """`count` records, of which the first of `SIGNED` studies spread over all are signed."""
    make_keys(home / "keys")
    keys = SealingKeys.load(default_config(home).keys)
    store = RecordStore(
        engine,
        keys.signer,
        keys.verifier,
        vault_id="site",
        restore_public=keys.restore_public,
        derive_uid=lambda level, uid, generation: f"{uid}.9.{len(level)}.{generation}",
    )
    signed = set(signed_ones(count))
    for number in signed:
        store.create(_facts(number))
    template = {column.name: None for column in VaultRow.__table__.columns}
    for start in range(0, count, AT_ONCE):
        rows = [template | _row(n) for n in range(start, min(start + AT_ONCE, count)) if n not in signed]
        with engine.begin() as connection:
            connection.execute(VaultRow.__table__.insert(), rows)
    if (
        analyze or engine.dialect.name == "postgresql"
    ):  # as its autovacuum does; nobody does so with the embedded database
        with engine.begin() as connection:
            connection.execute(text("ANALYZE"))
    return store


def signed_ones(count: int) -> list[int]:
    """Numbers of the records that are asked for by their UIDs."""
    studies = count // INSTANCES
    return [INSTANCES * (index * studies // SIGNED) for index in range(min(SIGNED, studies))]


def _facts(number: int) -> RecordFacts:
    return RecordFacts(
        original_sop_uid=f"{ROOT}.3.{number}",
        original_series_uid=series(number),
        study_uid=study(number),
        sop_class_uid=CT,
        transfer_syntax_uid=EXPLICIT,
        original_sha256="0" * 64,
        original_size=524_288,
        policy="benchmark",
        attributes=attributes(number),
    )


def _row(number: int) -> dict:
    known = attributes(number)
    return {
        "locator": f"{(number * 0x9E3779B97F4A7C15 + 1) % (1 << 64):016x}{number:016x}",
        "generation": 1,
        "original_sop_uid": f"{ROOT}.3.{number}",
        "original_series_uid": series(number),
        "study_uid": study(number),
        "derived_sop_uid": f"{ROOT}.4.{number}",
        "derived_series_uid": f"{series(number)}.9",
        "derived_study_uid": "",
        "sop_class_uid": CT,
        "transfer_syntax_uid": EXPLICIT,
        "original_sha256": "0" * 64,
        "original_size": 524_288,
        "policy": "benchmark",
        "token": b"\0" * 150,
        "document": b"\0" * 900,
        "signature": b"\0" * 64,
        "signer": "0" * 16,
        "payload_file": "sealed",
        "created_at": 1e9 + number,
        "patient_id": f"P{number // INSTANCES}",
        "study_date": known["00080020"]["Value"][0],
        "accession_number": f"A{number // INSTANCES}",
        "modality": "CT",
        "attributes": known,
    }


def query(**keys: str) -> Dataset:
    """An identifier of these keys, with some that are to be answered."""
    asked = Dataset()
    for keyword in ("PatientName", "PatientID", "StudyDate", "AccessionNumber", "StudyInstanceUID"):
        setattr(asked, keyword, "")
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    return asked


def questions(engine: Engine, store: RecordStore, count: int) -> dict[str, Callable[[int], int]]:
    """What is asked of the record with a number; each gives how many answers there were."""
    index, chosen = Index(engine), signed_ones(count)

    def find(level: str, number: int, **keys: str) -> int:
        return len(list(index.find("STUDY", level, query(**keys), EVERYTHING, 10_000)))

    def one(number: int) -> int:
        return chosen[number % len(chosen)]

    return {
        "C-FIND study by UID": lambda n: find("STUDY", n, StudyInstanceUID=study(n)),
        "C-FIND study by patient": lambda n: find("STUDY", n, PatientID=f"P{n // INSTANCES}"),
        "C-FIND study by accession": lambda n: find("STUDY", n, AccessionNumber=f"A{n // INSTANCES}"),
        "C-FIND series of a study": lambda n: find("SERIES", n, StudyInstanceUID=study(n), SeriesInstanceUID=""),
        "C-FIND instances of a series": lambda n: find(
            "IMAGE", n, StudyInstanceUID=study(n), SeriesInstanceUID=series(n), SOPInstanceUID=""
        ),
        "plan of a C-MOVE of a series": lambda n: len(
            index.select("STUDY", "SERIES", query(StudyInstanceUID=study(n), SeriesInstanceUID=series(n)), EVERYTHING)
        ),
        "record by original UID": lambda n: len([store.by_original_uid(f"{ROOT}.3.{one(n)}")]),
        "record by the copy's UID": lambda n: len([store.by_derived_uid(f"{ROOT}.3.{one(n)}.9.8.1")]),
    }


def measure(engine: Engine, store: RecordStore, count: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of each question."""
    random, found = Random(2026), {}
    for name, ask in questions(engine, store, count).items():
        taken = []
        for _ in range(rounds):
            number = random.randrange(count)
            begun = time.perf_counter()
            answers = ask(number)
            taken.append(time.perf_counter() - begun)
            if not answers:
                raise SystemExit(f"{name}: nothing found")
        found[name] = round(1000 * statistics.median(taken), 3)
    return found


def both(folder: Path, few: int, many: int, rounds: int, analyze: bool) -> list[dict]:
    """Every question of both sizes on both kinds of database."""
    rows = []
    with postgresql(folder) as url:
        for kind in ("SQLite", "PostgreSQL"):
            sizes = []
            for count in (few, many):
                home = folder / f"{kind}-{count}"
                home.mkdir()
                engine = open_database(sqlite_url(home / "a.sqlite") if kind == "SQLite" else url)
                with transaction(engine) as session:
                    session.execute(text("DELETE FROM vault_record"))
                store = fill(engine, home, count, analyze)
                sizes.append(measure(engine, store, count, rounds))
                engine.dispose()
            rows += [
                {
                    "database": kind,
                    "question": name,
                    "few_ms": ms,
                    "many_ms": sizes[1][name],
                    "ratio": sizes[1][name] / ms,
                }
                for name, ms in sizes[0].items()
            ]
    return rows


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--analyze", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = both(Path(name), arguments.few, arguments.many, arguments.rounds, arguments.analyze)
    for row in rows:
        times = f"{row['few_ms']:9.2f} ms {row['many_ms']:9.2f} ms"
        print(f"{row['database']:11} {row['question']:30} {times}  {row['ratio']:5.2f}")
    sizes = f"{arguments.few} and {arguments.many} records"
    print(f"{sizes}, {arguments.rounds} rounds; {os.cpu_count()} cores, Python {platform.python_version()}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
