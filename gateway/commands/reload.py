"""`miad-gateway reload`: let the running gateway take over the configuration as it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json

if TYPE_CHECKING:
    from pathlib import Path


def reload(config: ConfigFile, as_json: AsJson = False) -> None:
    """Let the running gateway take over the configuration as it is now, without an end to what is at hand.

    The roles check it as `config check` does and swap whole: ports, certificates, routes, destinations, peers and
    workstations. Open associations end under the old configuration. On any error the old one stays in force. The state
    folder, the database, the limits of codecs and which roles run change by a restart only.
    """
    from gateway.config import InvalidConfigError, load_config
    from gateway.service.operate import reload as reload_all

    try:
        settings = load_config(config)
    except InvalidConfigError as error:
        _refuse(config, "here", error.code, [vars(problem) for problem in error.problems], as_json)
        raise typer.Exit(ExitCode.USAGE) from None
    answers = reload_all(settings)
    for answer in answers:
        if not answer["ok"]:
            _refuse(config, answer["role"], answer["code"], answer["problems"], as_json)
        elif as_json:
            show_json({"role": answer["role"], "reloaded": True, "configuration_sha256": answer["digest"]})
        else:
            say(f"{answer['role']}: took {config} over")
    if not all(answer["ok"] for answer in answers):
        raise typer.Exit(ExitCode.USAGE)


def _refuse(config: Path, role: str, code: str, problems: list[dict], as_json: bool) -> None:
    from gateway.config import ConfigProblem

    if as_json:
        show_json({"role": role, "reloaded": False, "code": code, "problems": problems})
        return
    say(f"{config}: not taken over, the old configuration stays in force")
    for problem in problems:
        say(f"error: {role}: {ConfigProblem(**problem)}")
    say(f"code: {code}")
