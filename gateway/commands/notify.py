"""`miad-gateway notify test`: one notice to each channel of [notify], marked as a test."""

from __future__ import annotations

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.options import ConfigFile
from gateway.commands.output import say
from gateway.errors import ConfigError, GatewayError

app = typer.Typer(help="Notices by mail and webhook: try them.", no_args_is_help=True)


@app.callback()
def notify() -> None:
    """Notices by mail and webhook: try them."""


@app.command()
def test(config: ConfigFile) -> None:
    """Send a test by each channel of [notify], and say what became of it. It is audited, and holds no figures."""
    from gateway import service
    from gateway.audit import AuditLog, audited, events
    from gateway.config import load_config
    from gateway.flow.notices import trial_notice
    from gateway.service.notifying import channels_of

    settings = load_config(config)
    if settings.notify is None:
        raise ConfigError("no-notify", f"{config} has no [notify] table", "add one: see deploy/gateway.toml")
    audit = AuditLog(service.places(settings).audit("operator"))
    failed = 0
    for channel in channels_of(settings):
        notice = trial_notice(settings.site.name)
        facts = {"operation": channel.name, "request_id": notice["id"], "count": 0}
        try:
            channel.send(notice)
        except GatewayError as error:
            failed += 1
            audited(audit, events.NOTICE_SENT, "failure", reason=error.code, **facts)
            say(f"{channel.name}: {error}")
        else:
            audited(audit, events.NOTICE_SENT, "success", **facts)
            say(f"{channel.name}: sent")
    if failed:
        raise typer.Exit(ExitCode.UNREACHABLE)
