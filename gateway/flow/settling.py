"""Changes of a whole batch as one statement of PostgreSQL: what a step brings about, in one round trip.

Only what is plain is done here: rows whose lease still holds, and of which no delivery is known that would have to be
queued again or waited for. Who calls does the rest, which is rare, by the way that SQLite goes always. The keys stand
in each statement twice, as a join and as an array: so they are what rows are found by, however old the statistics are.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, Float, Integer

from gateway.database import DeliveryRow, InstanceRow
from gateway.flow.changes import Change, DeliveryChange
from gateway.flow.states import DELIVERED, MARKED, QUEUED, SENT

_ARRAYS = {Integer: "int4[]", BigInteger: "int8[]", Float: "float8[]"}  # all else is text


class Group:
    """Changes from one state that give the same columns new values."""

    def __init__(self, state: str, names: tuple[str, ...], queues: bool) -> None:
        self.state = state
        self.names = names
        self.queues = queues
        self.changes: list[Change] = []


def groups(changes: Iterable[Change]) -> list[Group]:
    """Changes, put together as far as one statement can make them."""
    made: dict[tuple[str, tuple[str, ...], bool], Group] = {}
    for change in changes:
        key = (change.state, tuple(sorted(change.values)), change.destinations is not None)
        made.setdefault(key, Group(*key)).changes.append(change)
    return list(made.values())


def settle_group(connection: Connection, owner: str, group: Group) -> set[str]:
    """Make the changes of a group; returns the ids of the instances of which they count now.

    Of the others the lease is lost, or deliveries are there already, or there is nobody to deliver to.
    """
    changes = [change for change in group.changes if change.destinations or not group.queues]
    if not changes:
        return set()
    own, given = _columns(group.names, [change.values for change in changes])
    given |= {
        "id": [change.row.id for change in changes],
        "token": [change.row.lease_token for change in changes],
        "owner": owner,
        "from_state": group.state,
    }
    if group.queues:
        pairs = [(change.row.id, name) for change in changes for name in change.destinations or ()]
        given |= {"to_id": [one for one, _ in pairs], "to_name": [name for _, name in pairs], "queued": QUEUED}
    return set(connection.exec_driver_sql(_instances(group.names, own, group.queues), given).scalars())


def settle_sent(connection: Connection, owner: str, changes: Sequence[DeliveryChange]) -> dict[int, str]:
    """Make the changes of deliveries that went out, each its instance's only one: that is delivered.

    Returns the ids of the deliveries of which they count now, each with its instance's.
    """
    by_names: dict[tuple[str, ...], list[DeliveryChange]] = defaultdict(list)
    for change in changes:
        if change.values.get("state") == SENT:
            by_names[tuple(sorted(change.values))].append(change)
    done: dict[int, str] = {}
    for names, members in by_names.items():
        own, given = _columns(names, [change.values for change in members])
        given |= {
            "id": [change.delivery.id for change in members],
            "token": [change.delivery.lease_token for change in members],
            "instances": sorted({change.delivery.instance_id for change in members}),
            "owner": owner,
            "queued": QUEUED,
            "marked": MARKED,
            "delivered": DELIVERED,
            "now": time.time(),
        }
        rows = connection.exec_driver_sql(_deliveries(names, own), given)
        done |= {row[0]: row[1] for row in rows}
    return done


def _columns(names: Sequence[str], values: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Which columns differ from row to row, and the parameters: of these arrays, of the others one value for all."""
    first = values[0]
    own = tuple(name for name in names if any(one[name] != first[name] for one in values))
    return own, {f"new_{name}": [one[name] for one in values] if name in own else first[name] for name in names}


def _given(table: type[InstanceRow] | type[DeliveryRow], key: str, own: Sequence[str]) -> str:
    """A table of the parameters that differ from row to row."""
    columns = table.__table__.c
    arrays = [f"%(id)s::{key}", "%(token)s::int8[]"]
    arrays += [f"%(new_{name})s::{_ARRAYS.get(type(columns[name].type), 'text[]')}" for name in own]
    # names are those of columns, never a value
    return f"SELECT * FROM unnest({', '.join(arrays)}) AS given({', '.join(['id', 'token', *own])})"  # noqa: S608


def _values(names: Sequence[str], own: Sequence[str]) -> str:
    sets = [f"{name} = {f'given.{name}' if name in own else f'%(new_{name})s'}" for name in names]
    return ", ".join([*sets, "lease_owner = NULL", "lease_until = 0"])


@cache
def _instances(names: tuple[str, ...], own: tuple[str, ...], queues: bool) -> str:
    new = "AND instance.marked_at IS NULL" if queues else ""  # what was never marked has no deliveries
    insert = """, queued AS (
        INSERT INTO delivery (instance_id, route, destination, state, attempts, next_attempt_at, lease_until)
        SELECT settled.id, settled.route, wanted.name, %(queued)s, 0, 0, 0 FROM settled
        JOIN unnest(%(to_id)s::text[], %(to_name)s::text[]) AS wanted(id, name) ON wanted.id = settled.id)"""
    return f"""WITH given AS ({_given(InstanceRow, "text[]", own)}), settled AS (
        UPDATE instance SET {_values(names, own)} FROM given
        WHERE instance.id = given.id AND instance.id = ANY(%(id)s::text[]) AND instance.lease_token = given.token
        AND instance.lease_owner = %(owner)s AND instance.state = %(from_state)s {new}
        RETURNING instance.id, instance.route){insert if queues else ""}
        SELECT id FROM settled"""  # noqa: S608 - as above


@cache
def _deliveries(names: tuple[str, ...], own: tuple[str, ...]) -> str:
    # first the instances, in one order, as everywhere else
    return f"""WITH given AS ({_given(DeliveryRow, "int4[]", own)}), locked AS (
        SELECT instance.id FROM instance WHERE id = ANY(%(instances)s::text[]) ORDER BY id FOR UPDATE), sent AS (
        UPDATE delivery SET {_values(names, own)} FROM given, locked
        WHERE delivery.id = given.id AND delivery.id = ANY(%(id)s::int4[]) AND locked.id = delivery.instance_id
        AND delivery.lease_token = given.token AND delivery.lease_owner = %(owner)s AND delivery.state = %(queued)s
        AND NOT EXISTS (SELECT FROM delivery AS other
            WHERE other.instance_id = delivery.instance_id AND other.id <> delivery.id)
        RETURNING delivery.id, delivery.instance_id), done AS (
        UPDATE instance SET state = %(delivered)s, delivered_at = %(now)s FROM sent
        WHERE instance.id = sent.instance_id AND instance.state = %(marked)s)
        SELECT id, instance_id FROM sent"""  # noqa: S608 - as above
