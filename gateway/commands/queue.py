"""`miad-gateway queue`: look at what is on its way, hold it, release it, try or send it once more, give it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile, read_span
from gateway.commands.output import say, show_facts, show_json, show_table, show_text
from gateway.errors import CapacityError, ConfigError, GatewayError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from gateway.config import Config
    from gateway.database import Wakes
    from gateway.flow.operations import Operator
    from gateway.flow.selection import Filter

app = typer.Typer(help="Instances on their way: list, hold, release, retry, replay, discard.", no_args_is_help=True)

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", help="Instances, by their id in `queue ls` or its first letters.")
]
ByReason = Annotated[str | None, typer.Option("--reason", metavar="CODE", help="Only with this reason code.")]
ByDestination = Annotated[str | None, typer.Option("--destination", help="Only what goes to this destination.")]
ByRoute = Annotated[str | None, typer.Option("--route", help="Only what came by this route.")]
Older = Annotated[str | None, typer.Option("--older", metavar="SPAN", help="Only received so long ago: 30m, 2h, 3d.")]
After = Annotated[str | None, typer.Option("--after", metavar="SPAN", help="Not now, but after so long: 30m, 2h, 3d.")]
ByStudy = Annotated[str | None, typer.Option("--study", metavar="UID", help="Only of this study, once it is sealed.")]
All = Annotated[bool, typer.Option("--all", help="All that this can be done with.")]


class State(StrEnum):
    """How far an instance has come."""

    RECEIVED = "received"
    SEALED = "sealed"
    MARKED = "marked"
    DELIVERED = "delivered"
    HELD = "held"
    DISCARDED = "discarded"


@app.command("ls")
def list_queue(
    config: ConfigFile,
    state: Annotated[State | None, typer.Option(help="Only instances in this state.")] = None,
    reason: ByReason = None,
    destination: ByDestination = None,
    route: ByRoute = None,
    study: ByStudy = None,
    older: Older = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List instances: state, route, deliveries, tries, and for what is held or waits, why."""
    from gateway.flow.selection import list_instances

    settings = _load(config)
    only = replace(_filter(state.value if state else None, reason, destination, route, older), study=study)
    entries = list_instances(_open(settings), limit=limit, only=only, destinations=settings.destinations)
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
            _moment(entry.received_at),
            " ".join(f"{name}:{reached}" for name, reached in entry.deliveries.items()) or "-",
            str(entry.attempts),
            _moment(entry.next_attempt_at),
            entry.study_uid or "-",
            f"{entry.reason} [{entry.reason_code}]" if entry.reason_code else "-",
        ]
        for entry in entries
    ]
    show_table(["ID", "STATE", "ROUTE", "FROM", "RECEIVED", "DELIVERIES", "TRIES", "NEXT", "STUDY", "REASON"], rows)


@app.command()
def show(
    instance: Annotated[str, typer.Argument(metavar="ID", help="An instance, by its id or its first letters.")],
    config: ConfigFile,
    as_json: AsJson = False,
) -> None:
    """Tell all that is known of one instance, and of each of its deliveries."""
    from gateway.flow.selection import facts_of, whole_ids

    engine = _open(_load(config))
    facts = facts_of(engine, whole_ids(engine, [instance])[0])
    if as_json:
        show_json(facts)
        return
    deliveries = facts.pop("deliveries")
    shown = {name: _shown(name, value) for name, value in facts.items() if value not in (None, "")}
    show_facts(shown)
    for delivery in deliveries:
        show_text("")
        show_facts({name: _shown(name, value) for name, value in delivery.items() if value not in (None, "")})


@app.command()
def hold(
    config: ConfigFile,
    ids: Ids = None,
    destination: ByDestination = None,
    route: ByRoute = None,
    older: Older = None,
    every: All = False,
    reason: Annotated[str, typer.Option(help="Shown in `queue ls`; no patient data.")] = "held by the operator",
) -> None:
    """Hold instances that are on their way."""
    states = (State.RECEIVED, State.SEALED, State.MARKED)
    work = _Work(config, ids, every, None, destination, route, older, states)
    work.do("held", lambda operator, some: operator.hold(some, reason))


@app.command()
def release(
    config: ConfigFile,
    ids: Ids = None,
    reason: ByReason = None,
    destination: ByDestination = None,
    route: ByRoute = None,
    older: Older = None,
    every: All = False,
    after: After = None,
) -> None:
    """Let held instances begin anew: they are decided and marked again, never sent as they are."""
    after_s = _span(after)
    work = _Work(config, ids, every, reason, destination, route, older, (State.HELD,))
    work.do("released", lambda operator, some: operator.release(some, after_s))


@app.command()
def retry(
    config: ConfigFile,
    ids: Ids = None,
    reason: ByReason = None,
    destination: ByDestination = None,
    route: ByRoute = None,
    older: Older = None,
    every: All = False,
    after: After = None,
) -> None:
    """Try again now what waits for its next attempt, as after a destination was mended; or --after a while."""
    after_s = _span(after)
    states = (State.RECEIVED, State.SEALED, State.MARKED)
    work = _Work(config, ids, every, reason, destination, route, older, states)
    when = f"in {after}" if after else "now"
    work.do(f"tried again {when}", lambda operator, some: operator.retry(some, after_s), waits=True)


@app.command()
def replay(
    config: ConfigFile,
    ids: Ids = None,
    destination: ByDestination = None,
    route: ByRoute = None,
    older: Older = None,
    every: All = False,
    after: After = None,
) -> None:
    """Send delivered instances once more, the same bytes to those of the same destinations that the route still
    names.
    """
    after_s = _span(after)
    work = _Work(config, ids, every, None, destination, route, older, (State.DELIVERED,))
    work.do("sent again", lambda operator, some: operator.replay(some, after_s))


@app.command()
def discard(
    config: ConfigFile,
    ids: Ids = None,
    reason: ByReason = None,
    destination: ByDestination = None,
    route: ByRoute = None,
    older: Older = None,
    every: All = False,
    really: Annotated[
        str, typer.Option(metavar="ID", help="The whole id again, where no sealed original is here.")
    ] = "",
) -> None:
    """Give held instances up: nothing more of them leaves. Their sealed originals stay in the vault."""
    work = _Work(config, ids, every, reason, destination, route, older, (State.HELD,))
    work.do("discarded", lambda operator, some: operator.discard(some, really))


class _Work:
    """Which instances a command is to change: ids, or all in the states it is for that the filters let through."""

    def __init__(
        self,
        config: Path,
        ids: Sequence[str] | None,
        every: bool,
        reason: str | None,
        destination: str | None,
        route: str | None,
        older: str | None,
        states: Sequence[State],
    ) -> None:
        from gateway.flow.selection import ids_of, whole_ids

        settings = _load(config)
        only = _filter(None, reason, destination, route, older)
        if bool(ids) == (every or bool(only)):
            message = "name instances, or choose them by --reason, --destination, --route, --older or --all"
            raise ConfigError(
                "no-choice", message if not ids else f"{message}: not both", "see `miad-gateway queue ls`"
            )
        self._engine = _open(settings)
        self._settings = settings
        self._is_choice = not ids
        if ids:
            self._ids = whole_ids(self._engine, ids)
        else:
            self._ids = [
                one
                for state in states
                for one in ids_of(self._engine, _filter(state, reason, destination, route, older))
            ]

    def do(self, what: str, action: Callable[[Operator, Sequence[str]], int], *, waits: bool = False) -> None:
        """Ids that were written are changed together or not at all; of a choice, each that can be.

        waits: of a choice, those that need nothing are no failure.
        """
        from gateway.database import open_wakes

        with closing(open_wakes(self._engine)) as wakes:
            self._do(self._operator(wakes), what, action, waits)

    def _do(self, operator: Operator, what: str, action: Callable[[Operator, Sequence[str]], int], waits: bool) -> None:
        if not self._is_choice:
            _tell(what, action(operator, self._ids), len(self._ids))
            return
        done, failed = 0, 0
        for one in self._ids:
            try:
                done += action(operator, [one])
            except CapacityError:
                say(f"{done} of {len(self._ids)} {what}, then:")
                raise
            except GatewayError as error:
                failed += 1
                say(f"{error.message} [{error.code}]" + (f" ({error.hint})" if error.hint else ""))
        say(f"{done} of {len(self._ids)} {what}")
        if failed or (done < len(self._ids) and not waits):
            raise typer.Exit(ExitCode.HELD)

    def _operator(self, wakes: Wakes) -> Operator:
        from gateway import service
        from gateway.audit import AuditLog
        from gateway.flow.operations import Operator
        from gateway.vault import open_payloads

        where = service.places(self._settings)
        audit = AuditLog(where.audit("operator"))
        return Operator(self._engine, self._settings.routes, audit, open_payloads(self._settings), wakes)


def _load(config: Path) -> Config:
    from gateway.config import load_config

    return load_config(config)


def _open(settings: Config) -> Engine:
    from gateway import service

    return service.database(settings)


def _filter(
    state: str | None,
    reason: str | None,
    destination: str | None,
    route: str | None,
    older: str | None,
) -> Filter:
    """A destination or route that is not configured any more may still have instances: it is no error."""
    from gateway.flow.selection import Filter

    return Filter(state, reason, destination, route, read_span(older) if older is not None else None)


def _span(after: str | None) -> float:
    return read_span(after) if after is not None else 0.0


def _moment(at: float | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at else "-"


def _shown(name: str, value: object) -> object:
    if isinstance(value, float) and name.endswith(("_at", "_until")):
        return _moment(value)
    return f"0x{value:04X}" if name == "dimse_status" and isinstance(value, int) else value


def _tell(what: str, done: int, wanted: int) -> None:
    say(f"{done} of {wanted} {what}")
    if done < wanted:
        say("this cannot be done with the others in their present state; see `miad-gateway queue ls`")
        raise typer.Exit(ExitCode.HELD)
