"""What a real PostgreSQL refuses is told as one error with its cause, and without the password."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from gateway.database import open_database, try_database
from gateway.errors import ConfigError


@pytest.fixture(scope="module")
def locked(postgresql_url: str) -> str:
    """URL of an account that needs a password, and has no other right than to connect."""
    engine = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE locked LOGIN PASSWORD 'S3CRET'")
        file = Path(connection.exec_driver_sql("SHOW hba_file").scalar_one())
        file.write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{file.read_text()}")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()
    return make_url(postgresql_url).set(username="locked", password="S3CRET").render_as_string(hide_password=False)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"password": "WR0NG"}, "wrong user or password"),
        ({"password": None}, "wrong user or password"),
        ({"username": "nobody", "password": "WR0NG"}, "the server does not let this user in"),
        ({"database": "none"}, "there is no database of this name"),
    ],
)
def test_what_waiting_does_not_heal(locked: str, changed: dict, words: str) -> None:
    url = make_url(locked).set(**changed)
    if "password" in changed and changed["password"] is None:
        url = url._replace(password=None)
    text = url.render_as_string(hide_password=False)
    for look in (try_database, open_database):
        with pytest.raises(ConfigError) as caught:
            look(text)
        assert caught.value.code == "database-refused"
        assert str(caught.value).count(words) == 1 and caught.value.hint
        assert "WR0NG" not in str(caught.value) and "S3CRET" not in str(caught.value)


@pytest.mark.peers
def test_a_right_that_is_missing(locked: str) -> None:
    """The account may connect, which is all that a check does, and may not make the tables."""
    try_database(locked)
    with pytest.raises(ConfigError) as caught:
        open_database(locked)
    assert caught.value.code == "database-refused"
    assert "lacks a right" in str(caught.value)
