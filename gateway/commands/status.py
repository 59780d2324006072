"""`miad-gateway status`: the whole flow on one screen."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import show_json, show_table, show_text

if TYPE_CHECKING:
    from gateway.flow.overview import Overview

CLEAR = "\x1b[H\x1b[2J"


def status(
    config: ConfigFile,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Show what came in, what went out and what is held, per route and destination."""
    from gateway import service
    from gateway.config import load_config
    from gateway.flow.overview import look
    from gateway.network.presence import is_ours, listeners

    settings = load_config(config)
    engine = service.database(settings)
    while True:
        overview = look(engine, settings.routes, settings.destinations)
        ports = [(path[0], f"{host}:{port}", is_ours(host, port)) for path, host, port in listeners(settings)]
        if as_json:
            listening = [{"role": role, "address": address, "up": up} for role, address, up in ports]
            show_json({**asdict(overview), "listeners": listening})
        else:
            if watch and sys.stdout.isatty():
                sys.stdout.write(CLEAR)
            _show(overview, [f"{role} {address} {'up' if up else 'DOWN'}" for role, address, up in ports])
        if not watch:
            return
        try:
            time.sleep(every)
        except KeyboardInterrupt:
            return


def _show(overview: Overview, ports: list[str]) -> None:

    show_text(f"{time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(overview.at))}  {', '.join(ports)}")
    show_text("")
    rows = [
        [
            one.route + ("" if one.configured else " (gone)"),
            *map(str, (one.total, one.waiting, one.marked, one.held, one.delivered, one.discarded)),
            _ago(overview.at, one.oldest_at),
        ]
        for one in overview.routes
    ]
    show_table(["ROUTE", "RECEIVED", "WAITING", "MARKED", "HELD", "DELIVERED", "DISCARDED", "OLDEST"], rows)
    show_text("")
    rows = [
        [
            one.destination + ("" if one.configured else " (gone)") + (" (paused)" if one.paused_at else ""),
            one.route,
            *map(str, (one.queued, one.held, one.sent, one.uncommitted)),
            _ago(overview.at, one.oldest_at),
            _next(overview.at, one.next_attempt_at, one.opens_at),
            _ago(overview.at, one.last_sent_at),
        ]
        for one in overview.deliveries
    ]
    show_table(
        ["DESTINATION", "ROUTE", "QUEUED", "HELD", "SENT", "UNCOMMITTED", "OLDEST", "NEXT TRY", "LAST SENT"], rows
    )
    if overview.held:
        show_text("")
        rows = [[one.reason_code, one.route, str(one.count)] for one in overview.held]
        show_table(["HELD BECAUSE", "ROUTE", "INSTANCES"], rows)
        show_text("see `miad-gateway queue ls --state held`, then `queue release` or `queue discard`")


def _ago(now: float, moment: float | None) -> str:
    from gateway.flow.overview import span

    return f"{span(now - moment)} ago" if moment else "-"


def _next(now: float, next_attempt_at: float | None, opens_at: float | None) -> str:
    from gateway.flow.overview import span

    if opens_at is not None:
        return f"opens in {span(opens_at - now)}"
    return f"in {span(next_attempt_at - now)}" if next_attempt_at else "-"
