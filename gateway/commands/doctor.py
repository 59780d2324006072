"""`miad-gateway doctor`: everything that can be known of a site now, and what to do about each finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json, show_text

if TYPE_CHECKING:
    from gateway.preflight.doctor import Examined

SIGNS = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}


def doctor(config: ConfigFile, as_json: AsJson = False) -> None:
    """Look at disk, clock, ports, names, certificates, keys, device, codecs, database and each destination.

    Each destination gets a C-ECHO and is asked what it accepts; nothing is sent or changed. Exit code 0: no error; 4:
    only peers or the database do not answer; 2: something else has to be mended.
    """
    from gateway.audit import AuditLog
    from gateway.config import load_config
    from gateway.preflight.doctor import examine

    settings = load_config(config)
    found = examine(settings, AuditLog(settings.site.state / "audit" / "operator.jsonl"))
    area = ""
    for one in found:
        if as_json:
            show_json(one)
            continue
        if one.area != area:
            area = one.area
            show_text(f"{area}:")
        show_text(f"  {SIGNS[one.level]}  {one.where}: {one.message}")
        if one.hint and one.level != "ok":
            show_text(f"           what to do: {one.hint}")
    errors = [one for one in found if one.level == "error"]
    warnings = sum(one.level == "warning" for one in found)
    say(f"{config}: {len(errors)} errors, {warnings} warnings")
    if errors:
        raise typer.Exit(_code(errors))


def _code(errors: list[Examined]) -> ExitCode:
    return ExitCode.UNREACHABLE if all(one.unreachable for one in errors) else ExitCode.USAGE
