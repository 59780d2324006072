"""`miad-gateway destinations`: which there are, pause and resume them. Whether one answers: `echo`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json, show_table

if TYPE_CHECKING:
    from gateway.flow.destinations import DestinationOperator

app = typer.Typer(help="Destinations: list, pause, resume. Whether one answers: `echo`.", no_args_is_help=True)
DestinationName = Annotated[str, typer.Argument(metavar="NAME", help="By its name in the configuration.")]


@app.command("ls")
def list_destinations(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show the destinations with what waits for them."""
    from gateway import service
    from gateway.config import load_config
    from gateway.flow.destinations import paused
    from gateway.flow.overview import look

    settings = load_config(config)
    engine = service.database(settings)
    figures, since = look(engine, settings.routes).deliveries, paused(engine)
    rows = []
    for one in settings.destinations:
        own = [each for each in figures if each.destination == one.name]
        queued, held = (sum(getattr(each, name) for each in own) for name in ("queued", "held"))
        peer = {"ae_title": one.ae_title, "host": one.host, "port": one.port, "type": one.type}
        rows.append({"name": one.name, **peer, "queued": queued, "held": held, "paused_at": since.get(one.name)})
    if as_json:
        for row in rows:
            show_json(row)
        return
    names = ["NAME", "AE TITLE", "HOST", "PORT", "TYPE", "QUEUED", "HELD", ""]
    show_table(names, [[*map(str, list(row.values())[:-1]), "paused" if row["paused_at"] else ""] for row in rows])


@app.command()
def pause(name: DestinationName, config: ConfigFile) -> None:
    """Send nothing more to a destination until it is resumed; what is being sent goes on, the rest waits."""
    with_wakes(config, lambda operator: _say(operator.pause(name), f"{name} is paused", f"{name} was paused already"))


@app.command()
def resume(name: DestinationName, config: ConfigFile) -> None:
    """Send to a destination again."""
    with_wakes(
        config, lambda operator: _say(operator.resume(name), f"{name} is sent to again", f"{name} was not paused")
    )


def with_wakes(config: Path, do: Callable[[DestinationOperator], None]) -> None:
    """Do something to destinations; the worker is woken for it."""
    from gateway import service
    from gateway.audit import AuditLog
    from gateway.config import load_config
    from gateway.database import open_wakes
    from gateway.flow.destinations import DestinationOperator
    from gateway.service.wiring import echo_of

    settings = load_config(config)
    engine, audit = service.database(settings), AuditLog(service.places(settings).audit("operator"))
    names = [one.name for one in settings.destinations]
    with closing(open_wakes(engine)) as wakes:
        do(DestinationOperator(engine, names, audit, echo_of(settings, audit), wakes))


def _say(done: int, what: str, otherwise: str) -> None:
    say(what if done else otherwise)
    if not done:
        raise typer.Exit(ExitCode.HELD)
