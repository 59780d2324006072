"""`deploy/postgresql-grants.sql`: each role does its work under its own account and cannot do another's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ProgrammingError

from gateway.database import open_database
from gateway.database.tables import Base
from gateway.keys import OpeningKeys
from gateway.keys.generate import make_keys
from gateway.restore import Restorer
from gateway.service import places
from gateway.vault import Index, Scope
from tests.flow.conftest import postgresql_url
from tests.support.flow import Flow, configuration, ct

__all__ = ["postgresql_url"]

GRANTS = Path(__file__).parents[2] / "deploy" / "postgresql-grants.sql"
SCHEMA = ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"]
OTHERS_WORK = {
    "miad_ingress": [
        "SELECT 1 FROM vault_record",
        "SELECT 1 FROM delivery",
        "UPDATE instance SET action = 'pass'",
        "DELETE FROM instance",
        "CREATE TABLE mine (id int)",
    ],
    "miad_worker": [
        "DELETE FROM vault_record",
        "DROP TABLE instance",
        "ALTER TABLE vault_record ADD COLUMN x int",
        "CREATE TABLE mine (id int)",
    ],
    "miad_restore": [
        "SELECT 1 FROM instance",
        "UPDATE vault_record SET study_uid = '1.2'",
        "INSERT INTO vault_record (locator) VALUES ('x')",
        "DELETE FROM vault_record",
        "CREATE TABLE mine (id int)",
    ],
}


@pytest.fixture
def accounts(postgresql_url):
    """A schema made by its owner, with the grants; gives the engine of an account by name."""
    owner = open_database(postgresql_url)
    with owner.begin() as connection:
        connection.connection.driver_connection.execute(GRANTS.read_text("utf-8"))  # as psql does: no parameters
    engines: dict[str, Engine] = {}

    def engine(account: str) -> Engine:
        if account not in engines:
            engines[account] = open_database(str(make_url(postgresql_url).set(username=account)))
        return engines[account]

    yield engine
    for made in engines.values():
        made.dispose()
    with owner.begin() as connection:
        for statement in SCHEMA:
            connection.exec_driver_sql(statement)
    owner.dispose()


@pytest.mark.peers
def test_each_role_works_under_its_own_account(accounts, tmp_path):
    make_keys(tmp_path / "keys")
    config = configuration(tmp_path / "state", tmp_path / "keys")
    image = ct()
    Flow(config, accounts("miad_ingress")).receive(image)
    worker = Flow(config, accounts("miad_worker"))
    worker.run()
    worker.retainer.once()
    assert len(worker.sender.received) == 1
    engine = accounts("miad_restore")
    query = Dataset()
    query.StudyInstanceUID = ""
    (answer,) = Index(engine).find("STUDY", "STUDY", query, Scope(), 10)
    assert answer.StudyInstanceUID == image.StudyInstanceUID
    restorer = Restorer(engine, places(config).vault, OpeningKeys.load(config.keys), config.site.name)
    with restorer.by_uid(image.SOPInstanceUID) as original:
        original.verify()


@pytest.mark.peers
@pytest.mark.parametrize("account", OTHERS_WORK)
def test_no_role_can_do_another_s_work(accounts, account):
    engine = accounts(account)
    for statement in OTHERS_WORK[account]:
        with pytest.raises(ProgrammingError) as caught, engine.begin() as connection:
            connection.exec_driver_sql(statement)
        assert type(caught.value.orig).__name__ == "InsufficientPrivilege", statement


def test_every_table_is_granted_to_somebody():
    granted = set(re.findall(r"\w+", " ".join(re.findall(r"^GRANT [\w, ]+ ON (.*) TO", GRANTS.read_text(), re.M))))
    assert set(Base.metadata.tables) <= granted
