"""`miad-gateway config ...`: what a configuration says, whether it can be used, and in what it differs from another."""

from __future__ import annotations

from pathlib import Path
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
    from gateway.config import InvalidConfigError, Source
    from gateway.config.problems import in_words, shown
    from gateway.preflight import preflight

    try:
        source = Source.read(config)
        settings = source.parse()
    except InvalidConfigError as error:
        if not as_json:
            raise
        for problem in error.problems:
            row = {"level": "error", "path": problem.path, "line": problem.line, "file": problem.file}
            show_json({**row, "message": problem.message, "hint": problem.suggestion})
        raise typer.Exit(ExitCode.USAGE) from None

    findings = preflight(settings, role.value)
    for finding in findings:
        if as_json:
            stands, line = source.places.place(finding.path) or (config, None)
            row = {"level": finding.level, "path": finding.where, "line": line, "file": shown(stands, config)}
            show_json({**row, "message": finding.message, "hint": finding.hint})
        else:
            show_text(f"{finding.level}: {in_words(finding, source.places, config)}")
    errors = sum(finding.level == "error" for finding in findings)
    say(f"{config}: {errors} errors, {len(findings) - errors} warnings" if findings else f"{config}: all right")
    if errors:
        raise typer.Exit(ExitCode.USAGE)


@app.command()
def explain(
    config: ConfigFile,
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Only what begins so, as `ingress` or `routes[0].mark`."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every value in force, and where it comes from: file and line, a default, or the modality profile of each image.

    A key that a secret is named by is shown as it stands; passwords in URLs are masked.
    """
    from gateway.config import Source
    from gateway.config.explained import explained

    for value in explained(Source.read(config)):
        if keys and not any(value.path.startswith(key) for key in keys):
            continue
        if as_json:
            show_json(value)
        else:
            origin = f"{value.file}:{value.line}" if value.origin == "file" else value.origin
            show_text(f"{value.path} = {value.value}  # {origin}")


@app.command()
def schema() -> None:
    """The JSON Schema of the configuration file, for editors that complete and check as one writes."""
    import json

    from gateway.config.schema import json_schema

    show_text(json.dumps(json_schema(), indent=2))


@app.command()
def diff(
    config: ConfigFile,
    other: Annotated[
        Path | None, typer.Argument(help="Another configuration file; without it, what the gateway runs on now.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Values that differ: from what the gateway runs on now, or from OTHER, to this file (`reload` would change them).

    Exit code 3 when there are any. Entries of lists are matched by name; passwords in URLs are masked.
    """
    from gateway.config import Source, load_config
    from gateway.config.explained import differences
    from gateway.service.operate import compare

    source = Source.read(config)
    settings = source.parse()
    if other is not None:
        found = {str(other): [vars(one) for one in differences(load_config(other), settings)]}
    else:
        found = compare(settings, source)
    for side, rows in found.items():
        for row in rows:
            if as_json:
                show_json({"compared_with": side, **row})
            else:
                before, after = ("(not there)" if text is None else text for text in (row["before"], row["after"]))
                show_text(f"{row['path']}: {before} -> {after}")
        if not as_json:
            say(f"{config}: {len(rows)} values differ from {side}" if rows else f"{config}: the same as {side}")
    if any(found.values()):
        raise typer.Exit(ExitCode.HELD)
