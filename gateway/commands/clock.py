"""`miad-gateway clock`: whether the gateway trusts its clock, and what to do when it does not."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_facts, show_json

app = typer.Typer(help="The clock by which originals are deleted: look at it, confirm it.", no_args_is_help=True)


@app.command()
def show(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show what the clock says, what was believed last, and whether purging has stopped (then exit code 3)."""
    from gateway import service
    from gateway.config import load_config
    from gateway.flow import clock

    row = clock.state(service.database(load_config(config)))
    facts = {
        "now": _time(datetime.now(UTC).timestamp()),
        "last_believed": _time(row.seen_at) if row else "-",
        "purging_stopped_at": _time(row.stopped_at) if row and row.stopped_at is not None else "-",
        "reason": row.reason or "-" if row else "-",
    }
    if as_json:
        show_json(facts)
    else:
        show_facts(facts)
    if row is not None and row.stopped_at is not None:
        raise typer.Exit(ExitCode.HELD)


@app.command()
def confirm(config: ConfigFile) -> None:
    """Say that the clock is right: purging by age goes on from now. Look at it first (`date -u`). Audited."""
    from gateway import service
    from gateway.audit import AuditLog
    from gateway.config import load_config
    from gateway.flow import clock

    settings = load_config(config)
    audit = AuditLog(service.places(settings).audit("operator"))
    had_stopped = clock.confirm(service.database(settings), audit)
    say(f"confirmed: it is {_time(datetime.now(UTC).timestamp())}")
    if not had_stopped:
        say("purging had not been stopped")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
