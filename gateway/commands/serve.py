"""`miad-gateway serve`: run the roles."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import ConfigFile
from gateway.commands.output import say


class Role(StrEnum):
    """What this process does; `all` starts the others as processes of their own."""

    ALL = "all"
    INGRESS = "ingress"
    WORKER = "worker"
    RESTORE = "restore"
    PAGE = "page"


def serve(
    config: ConfigFile,
    role: Annotated[Role, typer.Option(help="Which part to run; only restore is given the private key.")] = Role.ALL,
) -> None:
    """Run the gateway until it is told to stop (Ctrl-C or SIGTERM).

    SIGHUP reloads the configuration, as `miad-gateway reload` does; so does a change of its files.
    """
    from gateway import service
    from gateway.config.duties import roles_of, roles_to_start
    from gateway.config.problems import in_words
    from gateway.log import get_logger, set_up_logging
    from gateway.preflight import preflight

    wishes, link = service.Wishes().on_signals(stop=False), service.Link.from_environment()
    source = service.source_of(config, link)
    settings = source.parse()
    set_up_logging(role.value, settings.log.format, settings.log.level)
    findings = preflight(settings, role.value)
    errors = [finding for finding in findings if finding.level == "error" and finding.keeps_from_starting]
    for finding in errors:
        say(f"error: {config}: {in_words(finding, source.places, config)}")
    without = {one for finding in errors for one in roles_of(finding.path)}
    wanted = roles_to_start(settings) if role is Role.ALL else [role.value]
    if errors and without.issuperset(wanted):
        raise typer.Exit(ExitCode.USAGE)
    if role is not Role.ALL:  # each role tells of its own bold choices; their supervisor need not repeat them
        for finding in findings:
            tell = get_logger(__name__).error if finding.level == "error" else get_logger(__name__).warning
            tell("configuration", where=finding.where, says=finding.message, hint=finding.hint)
    raise typer.Exit(service.serve(source, wishes, role.value, without, link))
