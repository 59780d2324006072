"""What C-FIND and finding an original cost in a vault of many records, beside one of few, on SQLite and PostgreSQL.

    nice -n -5 python -m tests.benchmarks.many_records [--few 10000] [--many 1000000] [--rounds 200] [--json FILE]
        [--analyze] [--folder DIR [--keep]] [--only SQLite]

A vault of so many records: studies of 250 instances in two series, one patient a study, twenty studies a day. The rows
are made by the database; those that are asked for are signed as the worker signs. Asked is, at random places: C-FIND of
a study by its UID, by Patient ID, by Accession Number, of the series of a study and of the instances of a series (125
answers); the plan of a C-MOVE of a series; and the records of an original by its own and by its copy's UID. Medians
over the rounds in milliseconds, few and many in turns. SQLite in a file and PostgreSQL in a cluster that is started
here; `--analyze` gathers SQLite's statistics too, as somebody may do by hand. With `--keep` all of it stays in
`--folder`: what was stopped (by Ctrl-C, so that PostgreSQL ends well) goes on where it was, and what is full is asked
again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from hashlib import md5
from pathlib import Path
from random import Random

from pydicom import Dataset
from sqlalchemy import Engine, create_engine, text

from gateway.config.default import default_config
from gateway.database import open_database, sqlite_url
from gateway.keys.generate import make_keys
from gateway.keys.keyring import SealingKeys
from gateway.vault import RecordFacts, RecordStore
from gateway.vault.index import Index, Scope
from tests.benchmarks.facts import facts
from tests.benchmarks.postgresql import postgresql

INSTANCES, SERIES, STUDIES_A_DAY = 250, 2, 20
ROOT = "1.2.826.0.1.99"
EVERYTHING = Scope()
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
SIGNED = 50  # studies of which one instance is signed
DATABASES = ("SQLite", "PostgreSQL")
AT_ONCE = 250_000  # rows in one statement


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
    date = str(20000101 + day // 336 * 10000 + day // 28 % 12 * 100 + day % 28)
    return _attributes(str(number), str(of_study), str(number * SERIES // INSTANCES), date, number % INSTANCES)


def _attributes(instance: str, of_study: str, of_series: str, date: str, place: int | str) -> dict:
    return {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080016": {"vr": "UI", "Value": [CT]},
        "00080018": {"vr": "UI", "Value": [f"{ROOT}.3.{instance}"]},
        "00080020": {"vr": "DA", "Value": [date]},
        "00080050": {"vr": "SH", "Value": [f"A{of_study}"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"Bench^{of_study}"}]},
        "00100020": {"vr": "LO", "Value": [f"P{of_study}"]},
        "0020000D": {"vr": "UI", "Value": [f"{ROOT}.1.{of_study}"]},
        "0020000E": {"vr": "UI", "Value": [f"{ROOT}.2.{of_series}"]},
        "00200013": {"vr": "IS", "Value": [place]},
    }


def fill(engine: Engine, home: Path, count: int, analyze: bool) -> RecordStore:
    """`count` records, of which the first of `SIGNED` studies spread over all are signed."""
    if not (home / "keys").exists():
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
    filled, began = home / "filled", 0  # below which number all have their rows
    some = text("SELECT count(*) FROM (SELECT 1 FROM vault_record LIMIT :most) AS found")
    with engine.connect() as connection:  # what PostgreSQL does not log is gone after a crash
        if filled.exists() and connection.scalar(some, {"most": SIGNED + 1}) > SIGNED:
            began = int(filled.read_text())
    for number in () if began else signed:
        store.create(_facts(number))
    _multiply(engine, range(began, count), signed, lambda number: filled.write_text(str(number)))
    if analyze or engine.dialect.name == "postgresql":  # as its autovacuum does; nobody does so with the embedded one
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


def _multiply(engine: Engine, numbers: range, without: set[int], told: Callable[[int], object]) -> None:
    """Let the database write the rows of these numbers; `told` hears below which number all are there.

    Indexes grow with them: made afterwards each would read a table that no memory holds.
    """
    sqlite = engine.dialect.name == "sqlite"
    columns, values = zip(*_expressions("" if sqlite else "::json").items(), strict=True)
    insert = text(
        "WITH RECURSIVE number(n) AS"  # noqa: S608  # all of it is written here
        " (SELECT CAST(:start AS BIGINT) UNION ALL SELECT n + 1 FROM number WHERE n + 1 < :stop)"
        f" INSERT INTO vault_record ({', '.join(columns)}) SELECT {', '.join(values)} FROM number"
        f" WHERE n NOT IN ({', '.join(map(str, sorted(without)))}) ON CONFLICT DO NOTHING"
    )
    fixed = {"token": b"\0" * 150, "document": b"\0" * 900, "signature": b"\0" * 64}
    with engine.begin() as connection:
        if sqlite:
            driver = connection.connection.driver_connection
            driver.create_function("md5", 1, lambda one: md5(one.encode(), usedforsecurity=False).hexdigest())
            connection.execute(text("PRAGMA cache_size = -2000000"))
        else:
            connection.execute(text("ALTER TABLE vault_record SET UNLOGGED"))  # nothing is written while it is asked
    for start in range(numbers.start, numbers.stop, AT_ONCE):
        stop = min(start + AT_ONCE, numbers.stop)
        with engine.begin() as connection:
            connection.execute(insert, {"start": start, "stop": stop, **fixed})
        told(stop)


def _expressions(json_type: str) -> dict[str, str]:
    """Column -> SQL of its value for the number `n`, as the functions above give it; other columns have defaults."""
    text_of = "CAST({} AS TEXT)".format
    of_study, of_series = f"n / {INSTANCES}", f"n * {SERIES} / {INSTANCES}"
    day = f"(n / {INSTANCES * STUDIES_A_DAY})"
    date = text_of(f"20000101 + {day} / 336 * 10000 + {day} / 28 % 12 * 100 + {day} % 28")
    known = f"'{json.dumps(_attributes('@i', '@s', '@e', '@d', '@p'))}'"
    filled = {"'@i'": "n", "'@s'": of_study, "'@e'": of_series, "'@d'": date, "'\"@p\"'": f"n % {INSTANCES}"}
    for place, value in filled.items():
        known = f"replace({known}, {place}, {text_of(value)})"
    known = known.replace(":", "\\:")  # not the name of a parameter
    return {
        "locator": f"md5({text_of('n')})",
        "generation": "1",
        "original_sop_uid": f"'{ROOT}.3.' || {text_of('n')}",
        "original_series_uid": f"'{ROOT}.2.' || {text_of(of_series)}",
        "study_uid": f"'{ROOT}.1.' || {text_of(of_study)}",
        "derived_sop_uid": f"'{ROOT}.4.' || {text_of('n')}",
        "derived_series_uid": f"'{ROOT}.2.' || {text_of(of_series)} || '.9'",
        "derived_study_uid": "''",
        "sop_class_uid": f"'{CT}'",
        "transfer_syntax_uid": f"'{EXPLICIT}'",
        "original_sha256": f"'{'0' * 64}'",
        "original_size": "524288",
        "policy": "'benchmark'",
        "token": ":token",
        "document": ":document",
        "signature": ":signature",
        "signer": f"'{'0' * 16}'",
        "payload_file": "'sealed'",
        "created_at": "1000000000.0 + n",
        "patient_id": f"'P' || {text_of(of_study)}",
        "study_date": date,
        "accession_number": f"'A' || {text_of(of_study)}",
        "modality": "'CT'",
        "attributes": f"({known})" + json_type.replace(":", "\\:"),
    }


def query(**keys: str) -> Dataset:
    """An identifier of these keys, with some that are to be answered."""
    asked = Dataset()
    for keyword in ("PatientName", "PatientID", "StudyDate", "AccessionNumber", "StudyInstanceUID"):
        setattr(asked, keyword, "")
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    return asked


@dataclass(frozen=True)
class _Asked:
    """A vault of so many records, and what can be asked of it."""

    engine: Engine
    count: int
    questions: dict[str, Callable[[int], int]]


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


def measure(few: _Asked, many: _Asked, rounds: int) -> list[dict]:
    """Median milliseconds of each question, asked of one and of the other in turns."""
    random, rows = Random(2026), []
    for name in few.questions:
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for one, times in zip((few, many), taken, strict=True):
                number = random.randrange(one.count)
                begun = time.perf_counter()
                answers = one.questions[name](number)
                times.append(1000 * (time.perf_counter() - begun))
                if not answers:
                    raise SystemExit(f"{name}: nothing found")
        few_ms, many_ms = map(statistics.median, taken)
        rows.append({"question": name, "few_ms": few_ms, "many_ms": many_ms, "ratio": many_ms / few_ms})
    return rows


def both(
    folder: Path, few: int, many: int, rounds: int, analyze: bool, kinds: Sequence[str], keep: bool = False
) -> list[dict]:
    """Every question of both sizes on these kinds of database."""
    rows = []
    with postgresql(folder) as url:
        for kind in kinds:
            asked = []
            for count in (few, many):
                home = folder / f"{kind}-{count}"
                home.mkdir(exist_ok=True)
                begun = time.perf_counter()
                engine = open_database(
                    sqlite_url(home / "a.sqlite") if kind == "SQLite" else _database(url, f"records_{count}")
                )
                store = fill(engine, home, count, analyze)
                asked.append(_Asked(engine, count, questions(engine, store, count)))
                print(f"{kind}: {count} records in {time.perf_counter() - begun:.0f} s", flush=True)
            rows += [{"database": kind, **row} for row in measure(asked[0], asked[1], rounds)]
            for one in asked:
                one.engine.dispose()
            if not keep:
                shutil.rmtree(folder / f"{kind}-{many}")  # the next kind needs the room
    return rows


def _database(url: str, name: str) -> str:
    """The URL of a database of the cluster, new unless it was kept."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if not connection.scalar(text("SELECT count(*) FROM pg_database WHERE datname = :name"), {"name": name}):
            connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.rpartition("/")[0] + f"/{name}"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--analyze", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="on a disk with room for 4 GiB a million records (default: TMPDIR)")
    parser.add_argument("--only", choices=DATABASES, help="one kind of database")
    parser.add_argument("--keep", action="store_true", help="leave it in --folder, and go on with what is there")
    arguments = parser.parse_args()
    if arguments.keep and not arguments.folder:
        parser.error("--keep needs --folder")
    kinds = [arguments.only] if arguments.only else DATABASES
    place = nullcontext(arguments.folder) if arguments.keep else tempfile.TemporaryDirectory(dir=arguments.folder)
    with place as name:
        told = facts(Path(name), "PostgreSQL")
        given = (arguments.few, arguments.many, arguments.rounds, arguments.analyze, kinds, arguments.keep)
        rows = both(Path(name), *given)
    for row in rows:
        times = f"{row['few_ms']:9.2f} ms {row['many_ms']:9.2f} ms"
        print(f"{row['database']:11} {row['question']:30} {times}  {row['ratio']:5.2f}")
    sizes = f"{arguments.few} and {arguments.many} records"
    print(f"{sizes}, {arguments.rounds} rounds; {told}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "facts": asdict(told)}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
