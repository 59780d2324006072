"""The Grafana dashboard, made out of a table of panels: `miad-gateway page dashboard` writes it.

Grafana imports the JSON and asks for the Prometheus data source (variable ``datasource``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SCHEMA_VERSION = 39  # Grafana 10.4 and later
_WIDTH = 24  # columns of Grafana's grid
_P = "miad_gateway_"


@dataclass(frozen=True)
class Panel:
    """One panel: its title, what it says, its queries as (expression, legend), and how wide and of which kind."""

    title: str
    text: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "bargauge"] = "timeseries"
    width: int = 12
    height: int = 8
    bad_above: float | None = None
    bad_below: float | None = None


PANELS = (
    Panel("Database", "1 while it answers.", ((f"{_P}database_up", ""),), kind="stat", width=4, height=4, bad_below=1),
    Panel(
        "Roles", "1 while it listens.", ((f"{_P}listener_up", "{{role}}"),), kind="stat", width=6, height=4, bad_below=1
    ),
    Panel(
        "Worker seen",
        "A worker says each minute that it is there.",
        ((f"{_P}worker_seen_seconds", ""),),
        "s",
        "stat",
        4,
        4,
        bad_above=300,
    ),
    Panel(
        "Held",
        "They wait for a person.",
        ((f"sum({_P}held_instances) or vector(0)", ""),),
        kind="stat",
        width=3,
        height=4,
        bad_above=1,
    ),
    Panel(
        "Failing",
        "Deliveries tried in vain.",
        ((f"sum({_P}deliveries_failing)", ""),),
        kind="stat",
        width=3,
        height=4,
        bad_above=1,
    ),
    Panel(
        "Disk left",
        "On the disk of the state folder.",
        ((f"{_P}state_free_bytes", ""),),
        "bytes",
        "stat",
        4,
        4,
        bad_below=5 * 1024**3,
    ),
    Panel(
        "Traffic in",
        "Received and marked, mean of five minutes.",
        ((f"{_P}received_per_second", "{{route}} received"), (f"{_P}marked_per_second", "{{route}} marked")),
        "iops",
    ),
    Panel(
        "Traffic out",
        "Delivered, mean of five minutes.",
        ((f"{_P}sent_per_second", "{{route}} to {{destination}}"),),
        "iops",
    ),
    Panel(
        "Latency",
        "From receipt to delivery, mean of five minutes.",
        ((f"{_P}latency_seconds", "{{route}} to {{destination}}"),),
        "s",
    ),
    Panel(
        "Age of the oldest",
        "Of what is neither delivered nor held.",
        ((f"{_P}oldest_seconds", "{{route}}"), (f"{_P}delivery_oldest_seconds", "{{route}} to {{destination}}")),
        "s",
    ),
    Panel(
        "Where instances are",
        "All but those that are delivered.",
        ((f'{_P}instances{{state!="delivered"}}', "{{route}} {{state}}"),),
    ),
    Panel(
        "Queues",
        "Deliveries that wait, and what was sent and is not committed where that is asked for.",
        (
            (f'{_P}deliveries{{state="queued"}}', "{{route}} to {{destination}}"),
            (f"{_P}deliveries_uncommitted", "{{route}} to {{destination}}, not committed"),
            (f"{_P}destination_paused", "{{destination}}, paused"),
        ),
    ),
    Panel(
        "Held, by reason",
        "Codes as in the queue.",
        ((f"{_P}held_instances", "{{route}} {{reason}}"),),
        kind="bargauge",
        bad_above=1,
    ),
    Panel(
        "Certificates",
        "Days until the first one there ends.",
        ((f"{_P}certificate_days_left", "{{where}}"),),
        "d",
        "bargauge",
        bad_below=30,
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana's JSON model."""
    panels, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(PANELS, 1):
        if x + panel.width > _WIDTH:
            x, y, row = 0, y + row, 0
        panels.append(_panel(number, panel, x, y))
        x, row = x + panel.width, max(row, panel.height)
    return {
        "uid": "miad-gateway",
        "title": "MIAD Gateway",
        "description": "The flow of one gateway; made by `miad-gateway page dashboard`.",
        "tags": ["miad-gateway"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}
            ]
        },
        "panels": panels,
    }


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": source,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, **_thresholds(panel)}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}} if panel.kind != "timeseries" else {},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "expr": expression,
                "legendFormat": legend or "__auto",
                "datasource": source,
            }
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _thresholds(panel: Panel) -> dict[str, Any]:
    """Colours: bad from `bad_above` on, or below `bad_below`."""
    if panel.bad_above is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.bad_above}]
    elif panel.bad_below is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.bad_below}]
    else:
        return {}
    return {"color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}
