"""`deploy/postgresql-grants.sql`: each role does its work under its own account and cannot do another's."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom import Dataset
from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ProgrammingError
from starlette.testclient import TestClient

from gateway.config.accounts import Account, write_accounts
from gateway.config.commitment import DELIVERED_STATEMENT, Commitment
from gateway.config.page import Page
from gateway.database import open_database
from gateway.database.tables import Base
from gateway.flow.ports import CommitmentReport, Reference
from gateway.flow.promises import Promises, RequestBook
from gateway.keys import OpeningKeys
from gateway.keys.generate import make_keys
from gateway.restore import Restorer
from gateway.restore.checks import PayloadChecks
from gateway.service import places
from gateway.service.page import page_sources
from gateway.service.wiring import build_requested
from gateway.vault import Index, Scope
from gateway.web.app import create_app
from gateway.web.passwords import hash_password
from tests.support.flow import ROUTE, Flow, configuration, ct

GRANTS = Path(__file__).parents[2] / "deploy" / "postgresql-grants.sql"
SCHEMA = ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"]
OTHERS_WORK = {
    "miad_ingress": [
        "SELECT 1 FROM vault_record",
        "SELECT 1 FROM delivery",
        "UPDATE instance SET action = 'pass'",
        "DELETE FROM instance",
        "UPDATE commitment_request SET state = 'answered'",
        "SELECT 1 FROM payload_check",
        "CREATE TABLE mine (id int)",
    ],
    "miad_worker": [
        "DELETE FROM vault_record",
        "UPDATE payload_check SET result = 'good'",
        "INSERT INTO payload_check (locator, asked_at, checked_at, result) VALUES ('x', 1, 2, 'good')",
        "DELETE FROM payload_check",
        "DROP TABLE instance",
        "ALTER TABLE vault_record ADD COLUMN x int",
        "CREATE TABLE mine (id int)",
    ],
    "miad_restore": [
        "SELECT 1 FROM instance",
        "SELECT 1 FROM commitment_request",
        "UPDATE payload_check SET promised_at = 1",
        "UPDATE vault_record SET study_uid = '1.2'",
        "INSERT INTO vault_record (locator) VALUES ('x')",
        "DELETE FROM vault_record",
        "CREATE TABLE mine (id int)",
    ],
    "miad_page": [
        "UPDATE instance SET state = 'delivered'",
        "UPDATE delivery SET destination = 'elsewhere'",
        "INSERT INTO instance (id) VALUES ('x')",
        "DELETE FROM delivery",
        "UPDATE clock SET stopped_at = NULL",
        "SELECT patient_id FROM vault_record",
        "SELECT attributes FROM vault_record",
        "SELECT document FROM vault_record",
        "UPDATE vault_record SET study_uid = '1.2'",
        "SELECT 1 FROM emergency_override",
        "UPDATE page_request SET state = 'done'",
        "DELETE FROM page_request",
        "SELECT proof FROM page_request",
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
    told = ROUTE.model_copy(update={"delivered_statement": DELIVERED_STATEMENT})
    config = configuration(tmp_path / "state", tmp_path / "keys", told)
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
    told: list[CommitmentReport] = []
    committer = SimpleNamespace(answer=lambda calling_ae, report: told.append(report))
    asked = Reference(str(image.SOPClassUID), str(image.SOPInstanceUID))
    RequestBook(accounts("miad_ingress"), Commitment()).asked("ARCHIVE", "1.2.3", [asked])
    tables = (config.routes, config.destinations, config.retention, Commitment())
    promises = Promises(*tables, accounts("miad_worker"), committer, worker.context.audit)
    promises.once()
    assert PayloadChecks(engine, restorer).once() == 1
    assert promises.once(time.time() + 3) == 1 and told[0].committed == (asked,)
    assert worker.store.promised()


@pytest.mark.peers
def test_the_page_shows_everything_under_its_own_account(accounts, postgresql_url, tmp_path):
    make_keys(tmp_path / "keys")
    config = configuration(tmp_path / "state", tmp_path / "keys")
    owner = str(make_url(postgresql_url))
    flow = Flow(config, accounts("miad"))
    ids = [flow.receive(ct(1)), flow.receive(ct(2))]
    flow.run()
    page = Page(database_url=str(make_url(owner).set(username="miad_page")))
    client = TestClient(create_app(page_sources(config.model_copy(update={"page": page}))), base_url="http://localhost")
    names = ("status", "queue", "destinations", "configuration", "audit", f"instances/{ids[0]}", "studies", "marks")
    names += ("restores", f"studies/{ct().StudyInstanceUID}", "studies?uid=1.2")
    for path in ("/", "/queue", "/audit", "/ready", f"/instances/{ids[0]}", *(f"/api/v1/{name}" for name in names)):
        assert client.get(path).status_code == 200, path
    for name in ("instances/abc%00", "instances/abc%ff", "instances/" + "a" * 9000):  # what PostgreSQL takes in no text
        assert client.get(f"/{name}").status_code == 404
        assert client.get(f"/api/v1/{name}").status_code == 422
    (route,) = client.get("/api/v1/status").json()["routes"]
    assert route["delivered"] == 2
    assert "miad_gateway_database_up 1.0" in client.get("/metrics").text
    # ... and may ask, which changes nothing until the worker has looked at it under its own account
    instance, users = ids[1], tmp_path / "page-users"
    write_accounts(users, {"ops": Account("ops", "operator", hash_password("a long enough password"))})
    page = page.model_copy(update={"users": users})
    config = config.model_copy(update={"page": page})
    client = TestClient(create_app(page_sources(config)), base_url="http://localhost")
    login = client.post("/api/v1/session", json={"name": "ops", "password": "a long enough password"})
    headers = {"x-form-token": login.json()["form_token"]}
    wanted = {"action": "discard", "instance_id": instance, "confirmation": instance}
    with accounts("miad").begin() as connection:
        connection.exec_driver_sql("UPDATE instance SET state = 'held' WHERE id = %s", (instance,))
    assert client.post("/api/v1/requests", json=wanted, headers=headers).status_code == 202
    assert flow.row(instance).state == "held"
    worker = Flow(config, accounts("miad_worker"))
    assert build_requested(config, worker.engine, worker.store, worker.context.audit).once() == 1
    assert flow.row(instance).state == "discarded"
    assert client.get("/api/v1/requests").json()[0]["state"] == "done"
    client.app.state.sources.engine().dispose()


@pytest.mark.peers
@pytest.mark.parametrize("account", OTHERS_WORK)
def test_no_role_can_do_another_s_work(accounts, account):
    engine = accounts(account)
    for statement in OTHERS_WORK[account]:
        with pytest.raises(ProgrammingError) as caught, engine.begin() as connection:
            connection.exec_driver_sql(statement)
        assert type(caught.value.orig).__name__ == "InsufficientPrivilege", statement


def test_every_table_is_granted_to_somebody():
    granted = set(re.findall(r"\w+", " ".join(re.findall(r"^GRANT [\w, ()]+ ON (.*) TO", GRANTS.read_text(), re.M))))
    assert set(Base.metadata.tables) <= granted
