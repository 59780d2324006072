"""What an upgrade and the way back are made of: digest, copy, put back, downgrade; databases of newer releases."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import insert

from gateway.database import (
    CommitmentRow,
    InstanceRow,
    PayloadCheckRow,
    open_database,
    schema_version,
    sqlite_url,
    transaction,
)
from gateway.database.engine import alembic_config
from gateway.database.tables import Base, OverrideRow, PausedRow
from gateway.database.upkeep import OLDEST_BACK, content_digest, copy_to, downgrade, put_back, upgrade
from gateway.errors import ConfigError


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = sqlite_url(tmp_path / "gateway.sqlite")
    upgrade(found)
    return found


def add_instance(url: str, name: str = "a") -> None:
    engine = open_database(url)
    words = ("state", "route", "calling_ae", "called_ae", "peer_address", "association_id", "sop_class_uid")
    words += ("sop_instance_uid", "transfer_syntax_uid", "sha256")
    with transaction(engine) as session:
        session.execute(
            insert(InstanceRow).values(id=name, size=1, received_at=1.0, **dict.fromkeys(words, "received"))
        )
    engine.dispose()


def test_the_digest_tells_whether_anything_was_done(url: str) -> None:
    before = content_digest(url)
    assert content_digest(url) == before
    add_instance(url)
    with_one = content_digest(url)
    assert with_one != before
    engine = open_database(url)
    with transaction(engine) as session:
        session.get(InstanceRow, "a").state = "sealed"
    engine.dispose()
    assert content_digest(url) not in (before, with_one)


@pytest.mark.parametrize(
    "row",
    [
        CommitmentRow(id="a", calling_ae="A", transaction_uid="1.2", asked_at=1.0, instances=[], state="answered"),
        PayloadCheckRow(locator="a", asked_at=1.0, promised_at=2.0),
        PausedRow(destination="outside", paused_at=1.0),
        OverrideRow(route="relay", until=2.0, started_at=1.0),
    ],
)
def test_the_digest_tells_of_promises_and_of_what_persons_did(url: str, row: Base) -> None:
    """A database that is put back would forget what an archive was told, and resume what somebody paused."""
    before = content_digest(url)
    engine = open_database(url)
    with transaction(engine) as session:
        session.merge(row)
    engine.dispose()
    assert content_digest(url) != before


def test_a_copy_is_closed_to_others_and_comes_back(url: str, tmp_path: Path) -> None:
    add_instance(url)
    digest, copy = content_digest(url), tmp_path / "copy"
    copy_to(url, copy)
    assert copy.stat().st_mode & 0o777 == 0o600
    add_instance(url, "b")
    assert content_digest(url) != digest
    put_back(url, copy)
    assert content_digest(url) == digest
    with pytest.raises(ConfigError, match="is there already"):
        copy_to(url, copy)
    with pytest.raises(ConfigError, match="there is no database"):
        copy_to(sqlite_url(tmp_path / "none.sqlite"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_downgrade_keeps_rows_and_knows_how_far_it_may_go(url: str) -> None:
    add_instance(url)
    newest = schema_version(url).newest
    downgrade(url, newest)
    assert schema_version(url).current == newest
    for revision, code in (("0004", "revision-too-old"), ("9999", "revision-unknown"), ("head", "revision-unknown")):
        with pytest.raises(ConfigError) as refused:
            downgrade(url, revision)
        assert refused.value.code == code
    if newest > OLDEST_BACK:
        downgrade(url, OLDEST_BACK)
        assert schema_version(url).current == OLDEST_BACK
    upgrade(url)
    engine = open_database(url)
    with transaction(engine) as session:
        assert session.get(InstanceRow, "a").state == "received"
    engine.dispose()


def test_a_newer_releases_database_is_told_of_in_one_line(url: str, tmp_path: Path) -> None:
    """By whatever opens it, and nothing is written to it."""
    file = tmp_path / "gateway.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = file.read_bytes()
    openers: list[Callable[[str], object]] = [open_database, upgrade, lambda url: downgrade(url, OLDEST_BACK)]
    for open_ in openers:
        with pytest.raises(ConfigError) as refused:
            open_(url)
        assert refused.value.code == "database-newer" and "\n" not in refused.value.message
    assert file.read_bytes() == before
    assert not schema_version(url).is_known


@pytest.mark.peers
def test_postgresql_is_copied_by_its_own_programs(postgresql_url: str, tmp_path: Path) -> None:
    url = postgresql_url
    upgrade(url)
    add_instance(url)
    digest = content_digest(url)
    copy_to(url, tmp_path / "copy")
    assert os.stat(tmp_path / "copy").st_mode & 0o777 == 0o600
    add_instance(url, "b")
    put_back(url, tmp_path / "copy")
    assert content_digest(url) == digest


@pytest.mark.peers
def test_postgresql_that_was_put_back_is_upgraded_again(postgresql_url: str, tmp_path: Path) -> None:
    """Tables of the newer schema that stayed would be in the way of their own migration."""
    url = postgresql_url
    upgrade(url)
    newest = schema_version(url).newest
    engine = open_database(url)
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0010")  # before the tables of storage commitment
    engine.dispose()
    copy_to(url, tmp_path / "copy")
    upgrade(url)
    put_back(url, tmp_path / "copy")
    assert schema_version(url).current == "0010"
    upgrade(url)
    assert schema_version(url).current == newest
