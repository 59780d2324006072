"""`miad-gateway echo`: does a configured peer answer?"""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json


def echo(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A destination's name, or a workstation's AE title.")],
    config: ConfigFile,
    as_json: AsJson = False,
) -> None:
    """Send a C-ECHO to a destination as the gateway would connect to it, TLS and AE titles included."""
    from gateway import service
    from gateway.config import load_config

    result = service.echo(load_config(config), name)
    if as_json:
        show_json(result)
    else:
        say(result.message)
    if not result.reached:
        raise typer.Exit(ExitCode.UNREACHABLE)
