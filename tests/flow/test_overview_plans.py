"""The page's statements on SQLite: what it asks again and again must not look at every instance that ever was."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from gateway.flow.overview import look
from gateway.flow.selection import Filter, list_instances
from tests.support.flow import ROUTE


@pytest.fixture
def plans(engine):
    """How the database goes about each statement that it is given."""
    seen: list[str] = []

    def explain(connection, _cursor, statement, parameters, *_rest) -> None:
        if statement.startswith("SELECT"):
            driver = connection.connection.driver_connection
            seen.extend(row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    event.listen(engine, "before_cursor_execute", explain)
    return seen


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_looking_goes_by_indexes(engine, plans) -> None:
    look(engine, [ROUTE])
    assert "SCAN instance USING COVERING INDEX instance_final" in plans
    assert "SCAN delivery USING INDEX delivery_sent" in plans
    assert "SEARCH instance USING INDEX instance_received (received_at>?)" in plans
    assert "SEARCH instance USING COVERING INDEX instance_marked (route=? AND marked_at>?)" in plans
    assert "SCAN instance" not in plans


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "only",
    [
        Filter(),
        Filter("delivered"),
        Filter(route="relay"),
        Filter(destination="outside"),
        Filter("delivered", None, None, "x"),
    ],
)
def test_the_newest_of_many_are_found_by_their_time(engine, plans, only: Filter) -> None:
    list_instances(engine, limit=100, only=only)
    assert "SCAN instance USING INDEX instance_received" in plans
    assert not [one for one in plans if "TEMP B-TREE" in one]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_those_of_a_study_are_found_by_their_records(engine, plans) -> None:
    list_instances(engine, limit=100, only=Filter(study="1.2.3"))
    assert not [one for one in plans if one in ("SCAN instance", "SCAN vault_record")]
    assert [one for one in plans if "vault_study" in one] and [one for one in plans if "instance_record" in one]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("state", ["received", "sealed", "marked", "held"])
def test_the_few_of_a_state_are_found_by_it(engine, plans, state: str) -> None:
    list_instances(engine, limit=100, only=Filter(state, route="relay"))
    assert [one for one in plans if one.startswith("SEARCH instance USING INDEX") and "state=?" in one]
