"""`miad-gateway echo`: does a destination answer?"""

from __future__ import annotations

import time
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json
from gateway.errors import DeliveryError, NotFoundError

if TYPE_CHECKING:
    from gateway.config import Config, Destination


def echo(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A destination, by its name in the configuration.")],
    config: ConfigFile,
    as_json: AsJson = False,
) -> None:
    """Send a C-ECHO to a destination as the gateway would connect to it, TLS and AE titles included."""
    from gateway import service
    from gateway.audit import AuditLog
    from gateway.config import load_config
    from gateway.network.egress import Egress

    settings = load_config(config)
    destination = destination_of(settings, name)
    egress = Egress([destination], AuditLog(service.places(settings).audit("operator")))
    began, error = time.monotonic(), None
    try:
        egress.echo(name)
    except DeliveryError as caught:
        error = caught
    finally:
        egress.close()
    seconds = round(time.monotonic() - began, 3)
    peer = f"{destination.ae_title} at {destination.host}:{destination.port}"
    if as_json:
        row = {"name": name, "reached": error is None, "seconds": seconds}
        show_json({**row, "code": error.code if error else "", "reason": str(error) if error else ""})
    else:
        say(f"{name}: {peer} answered in {seconds} s" if error is None else f"{name}: {peer}: {error} [{error.code}]")
    if error is not None:
        raise typer.Exit(ExitCode.UNREACHABLE)


def destination_of(config: Config, name: str) -> Destination:
    """A destination by its name; NotFoundError ``no-such-destination``."""
    names = [destination.name for destination in config.destinations]
    if name not in names:
        close = get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"defined: {', '.join(names) or 'none'}"
        raise NotFoundError("no-such-destination", f"the configuration has no destination {name}", hint)
    return config.destinations[names.index(name)]
