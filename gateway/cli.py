"""The command `miad-gateway`: names, help and exit codes. Each command is a module of `gateway.commands`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from gateway import __version__
from gateway.commands import (
    certificates,
    clock,
    config,
    conformance,
    database,
    demo,
    destinations,
    doctor,
    files,
    init,
    keys,
    mark,
    network,
    notify,
    page,
    probe,
    queue,
    reload,
    report,
    serve,
    simulate,
    status,
    surrogates,
    train_mark,
    vault,
)
from gateway.commands.exits import MEANING, ExitCode, exit_code_of
from gateway.commands.output import say, show_error, show_text
from gateway.errors import ConfigError, GatewayError

DEBUG_VARIABLE = "MIAD_GATEWAY_DEBUG"

_EXIT_CODES = "Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANING.items()) + "."

app = typer.Typer(
    name="miad-gateway",
    help="Marks what leaves a hospital's archive, and gives authorized workstations the bit-exact original.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command()(init.init)
app.command()(serve.serve)
app.command()(reload.reload)
app.command()(files.protect)
app.command()(files.restore)
app.command()(mark.mark)
app.command("train-mark")(train_mark.train_mark)
app.command()(demo.demo)
app.add_typer(config.app, name="config")
app.command()(files.explain)
app.command()(simulate.simulate)
app.command()(report.report)
app.command()(conformance.conformance)
app.command()(network.echo)
app.command()(probe.probe)
app.add_typer(destinations.app, name="destinations")
app.add_typer(surrogates.app, name="surrogates")
app.command()(status.status)
app.command()(doctor.doctor)
app.add_typer(queue.app, name="queue")
app.add_typer(page.app, name="page")
app.add_typer(notify.app, name="notify")
app.add_typer(clock.app, name="clock")
app.add_typer(vault.app, name="vault")
app.add_typer(database.app, name="database")
app.add_typer(keys.app, name="keys")
app.add_typer(certificates.app, name="certificates")


def _show_version(wanted: bool) -> None:
    if wanted:
        show_text(f"miad-gateway {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command. Whatever is logged goes to standard error: standard output is for results."""
    from gateway.log import set_up_logging

    set_up_logging(level="warning")


def _not_ours(error: PermissionError) -> ConfigError:
    """Which file this user may not use, and who may."""
    from pathlib import Path

    from gateway.config.users import run_as

    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    hint = (run_as(Path(name)) if name else "") or "see who owns it, and its mode"
    return ConfigError("not-permitted", f"this user may not use {name or 'a file or port'}", hint)


def main() -> None:
    """Run the command line and leave the process with one of the `ExitCode`s."""
    # torch's threads wait by spinning otherwise, which on busy cores takes the time from the work itself
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except GatewayError as error:
        show_error(error)
        sys.exit(exit_code_of(error))
    except PermissionError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        show_error(_not_ours(error))
        sys.exit(ExitCode.USAGE)
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        # The text of a foreign error may quote a data set: type and place are enough to report it (promise 7).
        from gateway.log import describe_error

        described = describe_error(error)
        say(f"error: unexpected {described['type']} at {', '.join(described['at'])}")
        say(f"hint: set {DEBUG_VARIABLE}=1 and run again for the whole traceback, which may quote patient data")
        sys.exit(ExitCode.FAILED)


if __name__ == "__main__":
    main()
