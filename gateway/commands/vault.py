"""`miad-gateway vault`: verify what is kept, back it up, bring it back on an empty machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, LocalConfigFile, read_config
from gateway.commands.output import say, show_json, show_text
from gateway.commands.progress import ProgressShown, Shown, showing_progress
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.audit import AuditLog
    from gateway.config import Config

app = typer.Typer(help="The sealed originals: verify, backup, recover.", no_args_is_help=True)

PASSPHRASE_VARIABLE = "MIAD_GATEWAY_PASSPHRASE"

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help=f"File whose first line is the passphrase; else the variable {PASSPHRASE_VARIABLE}; else it is asked for.",
    ),
]

_DATABASE_HELP = (
    "Put the records into this empty database, as database.url names one: env:NAME, file:PATH or a URL;"
    " else into SQLite in the new folder."
)


@app.command()
def verify(config: LocalConfigFile, as_json: AsJson = False, shown: ProgressShown = Shown.AUTO) -> None:
    """Open every original once and compare it with its signed record, and the restore keys; needs the private key."""
    settings = _site(config)
    from gateway.audit import audited, events
    from gateway.vault.verify import verify_vault

    audit = _audit(settings)
    audited(audit, events.KEY_USED, "success", operation="vault-verify")
    counted, wrong = 0, 0
    with showing_progress("verifying", shown, as_json=as_json) as progress:
        for result in verify_vault(settings, progress, lambda text: say(f"warning: {text}")):
            counted += 1
            wrong += not result.ok
            if as_json:
                show_json(result)
            elif not result.ok:
                show_text(f"{result.locator}: {result.reason} [{result.reason_code}]")
    outcome = "failure" if wrong else "success"
    audited(audit, events.KEY_USED, outcome, operation="vault-verified", count=counted, failed=wrong)
    say(f"{counted} originals verified, {wrong} wrong")
    if wrong:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def backup(
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="The backup file.")],
    config: LocalConfigFile,
    passphrase_file: PassphraseFile = None,
    shown: ProgressShown = Shown.AUTO,
) -> None:
    """Write the whole site into one encrypted file: keys, configuration, TLS files, records, sealed originals."""
    settings = _site(config)
    from gateway.audit import audited, events
    from gateway.errors import GatewayError
    from gateway.vault.backup import backup as write_backup

    passphrase = _passphrase(passphrase_file, confirm=True)
    audit = _audit(settings)
    audited(audit, events.KEY_USED, "success", operation="vault-backup")  # first: it takes every key along
    try:
        with showing_progress("backing up originals", shown) as progress:
            write_backup(settings, out, passphrase, config, progress)
    except (GatewayError, OSError):
        audited(audit, events.BACKUP, "failure")
        raise
    audited(audit, events.BACKUP, "success", bytes=out.stat().st_size)
    say(f"backup written to {out}; it holds the private key: keep it and its passphrase apart")


@app.command()
def recover(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A backup file.")],
    folder: Annotated[Path, typer.Option("--into", file_okay=False, help="An empty or new folder.")],
    passphrase_file: PassphraseFile = None,
    database: Annotated[str, typer.Option(help=_DATABASE_HELP)] = "",
    shown: ProgressShown = Shown.AUTO,
) -> None:
    """Bring a site back into an empty folder, with a configuration that `serve` and `restore` start with."""
    from gateway.audit import AuditLog, events
    from gateway.vault.recovery import recover as read_backup

    passphrase = _passphrase(passphrase_file, confirm=False)
    with showing_progress("recovering", shown, unit="MiB") as progress:
        made = read_backup(file, folder, passphrase, database, progress)
    for note in made.notes:
        say(f"note: {note}")
    audit = AuditLog(folder / "state" / "audit" / "operator.jsonl")
    audit.write(events.BACKUP, "success", operation="vault-recover")
    say(f"recovered into {folder}; start it with: miad-gateway serve --config {made.config}")
    say(f"or restore at once: miad-gateway restore PATH... --out DIR --config {made.config}")


def _site(path: Path | None) -> Config:
    """The configuration of a site whose state folder is there, be it new and empty."""
    settings = read_config(path)
    from gateway import service

    service.places(settings)
    return settings


def _audit(settings: Config) -> AuditLog:
    """The operator's audit of the site."""
    from gateway import service
    from gateway.audit import AuditLog

    return AuditLog(service.places(settings).audit("operator"))


def _passphrase(file: Path | None, *, confirm: bool) -> str:
    """Never an argument of the command line: other users of the machine can see those."""
    if file is not None:
        passphrase = file.read_text("utf-8").split("\n", 1)[0]
    else:
        passphrase = os.environ.get(PASSPHRASE_VARIABLE) or typer.prompt(
            "Passphrase", hide_input=True, confirmation_prompt=confirm, err=True
        )
    if not passphrase:
        raise ConfigError("no-passphrase", "the passphrase is empty")
    return passphrase
