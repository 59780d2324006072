"""`miad-gateway keys`: made once for a site, and the restore keys proved to be a pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.options import LocalConfigFile, read_config
from gateway.commands.output import say

app = typer.Typer(help="The keys of a site.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The keys of a site."""


@app.command()
def make(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to; made when missing.")] = Path("keys"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing keys: what they sealed can then never be restored.")
    ] = False,
) -> None:
    """Make all keys of a new site (restore, signing, spool, UID, mark); only this user can read the private ones."""
    from gateway.keys.generate import make_keys

    make_keys(folder, overwrite=overwrite)
    tell_of_keys(folder, folder / "audit.jsonl")  # of no site yet: it stays with the keys
    say(f"keys made in {folder}; give restore.private.pem to the restore role only, and back them all up")


@app.command()
def prove(
    config: LocalConfigFile,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", dir_okay=False, help="Where to, instead of where it is looked for.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a proof that is another one.")] = False,
) -> None:
    """Compare the restore keys of a site and write the proof that they are a pair; sealing roles look at it at start.

    Run it where the private restore key and the signing key can both be read. The proof itself is no secret.
    """
    settings = read_config(config)
    from gateway import service
    from gateway.audit import AuditLog, audited, events
    from gateway.keys.prove import prove_pair

    audit = AuditLog(service.places(settings).audit("operator"))
    audited(audit, events.KEY_USED, "success", operation="keys-prove")
    proved = prove_pair(settings.keys, out, overwrite)
    audited(
        audit, events.KEY_USED, "success", operation="keys-proved", key_id=proved.key_id, signer_id=proved.signer_id
    )
    say(f"{proved.path} {'was there and proves' if proved.was_there else 'proves now'} the restore keys a pair")


def tell_of_keys(folder: Path, audit: Path) -> None:
    """Write into an audit file that the keys in `folder` were made, and their ids."""
    from gateway.audit import AuditLog, audited, events
    from gateway.keys.generate import ids_of

    restore, signer = ids_of(folder)
    audited(AuditLog(audit), events.KEYS_MADE, "success", key_id=restore, signer_id=signer)
