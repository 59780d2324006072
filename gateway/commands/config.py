"""`miad-gateway config check`: everything about a configuration that can be known before it is used."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json, show_text
from gateway.commands.serve import Role

app = typer.Typer(help="The configuration file.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The configuration file."""


@app.command()
def check(
    config: ConfigFile,
    role: Annotated[Role, typer.Option(help="Look at what this role needs.")] = Role.ALL,
    as_json: AsJson = False,
) -> None:
    """Check the file, the keys and certificates it names, the ports, and tell of every bold choice in words.

    The private key of the restore role is read for --role restore only.
    """
    from gateway.config import InvalidConfigError, KeyLines, load_config, read_text
    from gateway.preflight import preflight

    try:
        settings = load_config(config)
    except InvalidConfigError as error:
        if not as_json:
            raise
        for problem in error.problems:
            row = {"level": "error", "path": problem.path, "line": problem.line}
            show_json({**row, "message": problem.message, "hint": problem.suggestion})
        raise typer.Exit(ExitCode.USAGE) from None

    lines = KeyLines(read_text(config))
    findings = preflight(settings, role.value)
    for finding in findings:
        line = lines.line(finding.path)
        if as_json:
            row = {"level": finding.level, "path": finding.where, "line": line}
            show_json({**row, "message": finding.message, "hint": finding.hint})
        else:
            place = f"line {line}, {finding.where}" if line else finding.where
            show_text(f"{finding.level}: {place}: {finding.message}" + (f" ({finding.hint})" if finding.hint else ""))
    errors = sum(finding.level == "error" for finding in findings)
    say(f"{config}: {errors} errors, {len(findings) - errors} warnings" if findings else f"{config}: all right")
    if errors:
        raise typer.Exit(ExitCode.USAGE)
