"""`miad-gateway queue`: look at what is on its way, hold it, release it, send it once more."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json, show_table

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from gateway.flow.operations import Operator

app = typer.Typer(help="Instances on their way: list, hold, release, replay.", no_args_is_help=True)

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Instances, by their id in `queue ls`.")]


class State(StrEnum):
    """How far an instance has come."""

    RECEIVED = "received"
    SEALED = "sealed"
    MARKED = "marked"
    DELIVERED = "delivered"
    HELD = "held"


@app.command("ls")
def list_queue(
    config: ConfigFile,
    state: Annotated[State | None, typer.Option(help="Only instances in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List instances: state, route, deliveries, and for what is held, why."""
    from gateway.flow import operations

    entries = operations.list_instances(_open(config), state.value if state else None, limit)
    if as_json:
        for entry in entries:
            show_json(entry)
        return
    rows = [
        [
            entry.id,
            entry.state,
            entry.route,
            entry.calling_ae,
            datetime.fromtimestamp(entry.received_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
            " ".join(f"{name}:{reached}" for name, reached in entry.deliveries.items()) or "-",
            f"{entry.reason} [{entry.reason_code}]" if entry.reason_code else "-",
        ]
        for entry in entries
    ]
    show_table(["ID", "STATE", "ROUTE", "FROM", "RECEIVED", "DELIVERIES", "REASON"], rows)


@app.command()
def hold(
    ids: Ids,
    config: ConfigFile,
    reason: Annotated[str, typer.Option(help="Shown in `queue ls`; no patient data.")] = "held by the operator",
) -> None:
    """Hold instances that are on their way."""
    _tell("held", _operator(config).hold(ids, reason), len(ids))


@app.command()
def release(ids: Ids, config: ConfigFile) -> None:
    """Let held instances begin anew: they are decided and marked again, never sent as they are."""
    _tell("released", _operator(config).release(ids), len(ids))


@app.command()
def replay(ids: Ids, config: ConfigFile) -> None:
    """Send delivered instances once more, the same bytes to those of the same destinations that the route still
    names.
    """
    _tell("sent again", _operator(config).replay(ids), len(ids))


def _operator(config: Path) -> Operator:
    from gateway import service
    from gateway.audit import AuditLog
    from gateway.config import load_config
    from gateway.flow.operations import Operator

    settings = load_config(config)
    audit = AuditLog(service.places(settings).audit("operator"))
    return Operator(service.database(settings), settings.routes, audit)


def _open(config: Path) -> Engine:
    from gateway import service
    from gateway.config import load_config

    return service.database(load_config(config))


def _tell(what: str, done: int, wanted: int) -> None:
    say(f"{done} of {wanted} {what}")
    if done < wanted:
        say("this cannot be done with the others in their present state; see `miad-gateway queue ls`")
        raise typer.Exit(ExitCode.HELD)
