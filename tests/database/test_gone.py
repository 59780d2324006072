"""What a process that is gone, or stands still, had locked in PostgreSQL is free again soon."""

from __future__ import annotations

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from gateway.database import open_database

pytestmark = pytest.mark.peers
ASKED = "SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('tcp_keepalives_idle')"


def test_the_server_is_told_to_notice(postgresql_url: str) -> None:
    engine = open_database(postgresql_url)
    with engine.connect() as connection:
        assert connection.execute(text(ASKED)).one() == ("5min", "10")
    engine.dispose()


def test_the_server_compiles_no_statement(postgresql_url: str) -> None:
    """Found at ten million records: C-FIND took seconds, nearly all of it for the compiler."""
    engine = open_database(postgresql_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SHOW jit")) == "off"
    engine.dispose()


def test_a_site_may_say_it_itself(postgresql_url: str) -> None:
    url = make_url(postgresql_url).update_query_dict({"options": "-c idle_in_transaction_session_timeout=9s"})
    engine = open_database(url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        assert connection.execute(text(ASKED)).one()[0] == "9s"
    engine.dispose()


def test_what_stands_still_in_a_transaction_loses_its_locks(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(open_database.__globals__["_OF_SERVER"], "idle_in_transaction_session_timeout", "300ms")
    still, other = open_database(postgresql_url), open_database(postgresql_url)
    with other.begin() as connection:
        connection.execute(text("CREATE TABLE one_row AS SELECT 1 AS n"))
    try:
        with pytest.raises(DBAPIError), still.begin() as stands:
            stands.execute(text("SELECT n FROM one_row FOR UPDATE"))
            with other.begin() as connection:
                connection.execute(text("SET LOCAL lock_timeout = '30s'"))
                connection.execute(text("UPDATE one_row SET n = 2"))
            stands.execute(text("UPDATE one_row SET n = 3"))
        with other.connect() as connection:
            assert connection.execute(text("SELECT n FROM one_row")).scalar_one() == 2
    finally:
        with other.begin() as connection:
            connection.execute(text("DROP TABLE one_row"))
        still.dispose()
        other.dispose()
