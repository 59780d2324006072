"""`miad-gateway demo`: the whole way on this machine, with an archive, an outside PACS and two workstations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.commands.options import Overwrite, check_outputs


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after one run; exit code 0 only if every line holds.")] = (
        False
    ),
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", dir_okay=False, help="Write the table there as JSON.")
    ] = None,
    overwrite: Overwrite = False,
    folder: Annotated[Path, typer.Option(file_okay=False, help="Where keys, vault and both archives lie.")] = Path(
        "demo"
    ),
) -> None:
    """Send real images through the gateway, show what each side gets, and keep serving until Ctrl-C."""
    from gateway.demo import run

    check_outputs({"--json": json_file}, overwrite=overwrite)
    raise typer.Exit(run(once=once, json_path=json_file, folder=folder))
