"""`miad-gateway database`: how far the schema is, a copy of it, and the way to another release and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_facts, show_json
from gateway.commands.progress import ProgressShown, Shown, showing_progress

if TYPE_CHECKING:
    from gateway.config import Config

app = typer.Typer(help="The database across releases: show, upgrade, downgrade, backup, restore.", no_args_is_help=True)

_STOPPED = "Stop all roles first."


@app.command()
def show(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show the schema's revision, the newest that this release knows, and where they are one a digest of what was done.

    Changes nothing. Exit code 2 where a newer release wrote it.
    """
    from gateway.database.engine import schema_version
    from gateway.database.upkeep import content_digest

    settings = _settings(config)
    version = schema_version(settings.database_url)
    current = version.current if version else None
    is_newest = version is not None and current == version.newest
    facts = {
        "revision": current or "-",
        "newest": version.newest if version else "-",
        "known": "-" if version is None else version.is_known,
        "digest": content_digest(settings.database_url) if is_newest else "-",
    }
    show_json(facts) if as_json else show_facts(facts)
    if version is not None and not version.is_known:
        say("error: the database was written by a newer version of the gateway")
        raise typer.Exit(ExitCode.USAGE)


@app.command()
def upgrade(config: ConfigFile, shown: ProgressShown = Shown.AUTO) -> None:
    """Bring the schema to this release's; any start does it too, where its account may change tables."""
    from gateway.database.engine import schema_version
    from gateway.database.upkeep import upgrade as run_upgrade

    settings = _settings(config)
    before = schema_version(settings.database_url)
    with showing_progress("revisions of the schema", shown) as progress:
        run_upgrade(settings.database_url, progress)
    after = schema_version(settings.database_url)
    say(f"schema {before.current if before and before.current else 'none'} -> {after.current if after else '-'}")


@app.command(epilog=_STOPPED)
def downgrade(
    revision: Annotated[str, typer.Argument(help="As `database show` of the older release has it, as 0012.")],
    config: ConfigFile,
) -> None:
    """Bring the schema back to that of an older release, with all rows; refused where that one could not read them."""
    from gateway.database.upkeep import downgrade as run_downgrade

    settings = _settings(config)
    run_downgrade(settings.database_url, revision)
    say(f"schema {revision}; now start the release that it belongs to, not this one")


@app.command()
def backup(
    config: ConfigFile, out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="The new file.")]
) -> None:
    """Copy the database alone into a file, for `restore`; keys and originals are in `vault backup`."""
    from gateway.database.upkeep import copy_to

    settings = _settings(config)
    copy_to(settings.database_url, out)
    _tell(settings, "database-backup")
    say(f"{out}: identifiers and query keys in clear text, so keep it closed")


@app.command(epilog=_STOPPED)
def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file of `database backup`.")],
    config: ConfigFile,
    forget: Annotated[
        bool, typer.Option("--forget", help="Needed: whatever was received since is forgotten by the database.")
    ] = False,
) -> None:
    """Put a copy in the place of the database. What was received since keeps its bytes, and has no row."""
    from gateway.database.upkeep import put_back
    from gateway.errors import ConfigError

    if not forget:
        message = "what was received since that copy would be forgotten"
        raise ConfigError("not-confirmed", message, "compare `database show`; if that is meant, give --forget")
    settings = _settings(config)
    put_back(settings.database_url, file)
    _tell(settings, "database-restore")
    say(f"the database is as it was in {file}")


def _settings(config: Path) -> Config:
    from gateway import service
    from gateway.config import load_config

    settings = load_config(config)
    service.places(settings)
    return settings


def _tell(settings: Config, operation: str) -> None:
    from gateway import service
    from gateway.audit import AuditLog, audited, events

    audited(AuditLog(service.places(settings).audit("operator")), events.BACKUP, "success", operation=operation)
