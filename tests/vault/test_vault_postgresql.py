"""The vault on a real PostgreSQL: another locking, another collation, real concurrency; and the way back to SQLite."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydicom import Dataset

from gateway.config import load_config
from gateway.config.models import Database
from gateway.database import open_database
from gateway.keys import OpeningKeys
from gateway.restore import Restorer
from gateway.vault import Index, Scope, index
from gateway.vault import backup as module
from gateway.vault.backup import backup
from gateway.vault.recovery import recover
from tests.support.vault import Vault, data_set, facts_of, open_vault

pytestmark = pytest.mark.peers


@pytest.fixture
def on_server(vault, postgresql_url) -> Vault:
    made = open_vault(vault.config.model_copy(update={"database": Database(url=postgresql_url)}))
    yield made
    with made.engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    made.engine.dispose()


def test_generations_taken_at_once(on_server):
    work = [bytes([n % 8]) for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda data: on_server.records.create(facts_of(data)), work))
    assert sorted({record.generation for record in records}) == list(range(1, 9))
    assert len({record.locator for record in records}) == 8


def test_digests_fixed_at_once(on_server):
    locator = on_server.records.create(facts_of(b"a")).locator
    with ThreadPoolExecutor(8) as pool:
        fixed = list(pool.map(lambda n: on_server.records.fix_derived(locator, f"{n:064x}"), range(16)))
    assert sum(fixed) == 1


def test_index(on_server, monkeypatch):
    monkeypatch.setattr(index, "_PAGE", 5)
    attributes = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jürgen"}]},
        "00100020": {"vr": "LO", "Value": ["P1"]},
        "00080020": {"vr": "DA", "Value": ["20240105"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
    }
    for study in range(12):
        uid = f"1.2.{study}"
        on_server.records.create(
            facts_of(b"a", f"{uid}.1.1", study_uid=uid, original_series_uid=f"{uid}.1", attributes=attributes)
        )
    query = Dataset()
    query.PatientName, query.StudyDate = "MÜLL*", "20240101-20240131"
    query.StudyInstanceUID, query.ModalitiesInStudy, query.NumberOfStudyRelatedInstances = "", "CT", ""
    found = list(Index(on_server.engine).find("STUDY", "STUDY", query, Scope(), 1000))
    assert {answer.StudyInstanceUID for answer in found} == {f"1.2.{study}" for study in range(12)}
    assert len(found) == 12 and found[0].NumberOfStudyRelatedInstances == 1
    assert Index(on_server.engine).transfer_syntaxes() == {"1.2.840.10008.5.1.4.1.1.2": ["1.2.840.10008.1.2.1"]}


def test_backup_of_a_server_comes_back_without_one(on_server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LOG_N", 12)
    record = on_server.store(data_set(b"original" * 1000))
    backup(on_server.config, tmp_path / "b", "correct horse")
    config = load_config(recover(tmp_path / "b", tmp_path / "new", "correct horse").config)
    restorer = Restorer(
        open_database(config.database_url), config.site.state / "vault", OpeningKeys.load(config.keys), "local"
    )
    original = restorer.by_token(record.token, record.derived_sop_uid)
    original.verify()
    assert b"".join(original.stream()) == data_set(b"original" * 1000)
