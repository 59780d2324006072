"""Metrics for Prometheus: golden signals per route and destination, read from the database when they are asked for.

Latency, traffic and errors are of the last five minutes, so that an alert rule needs no history of its own. Labels are
names of the configuration, states and reason codes: nothing of a patient, and no UID.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.errors import GatewayError
from gateway.flow.overview import RECENT_S, Overview
from gateway.web.sources import Sources

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "miad_gateway_"


class FlowCollector(Collector):
    """Reads everything anew at each scrape (`Looks` bounds what that costs)."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering it must not look at the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families; without the database those that do not need it."""
        try:
            self._sources.looks.ping()  # what is shown may be older
            overview = self._sources.looks.overview()
        except GatewayError:
            overview = None
        yield _one("database_up", "Whether the database answers.", overview is not None)
        if overview is not None:
            yield from _routes(overview)
            yield from _deliveries(overview)
            held = [([one.route, one.reason_code], one.count) for one in overview.held]
            yield _gauge("held_instances", "Held instances, by the code of the reason.", ["route", "reason"], held)
            seen = overview.at - overview.worker_seen_at if overview.worker_seen_at else None
            yield _one("worker_seen_seconds", "Since a worker said that it is there, as it does each minute.", seen)
            text = "Whether nothing is purged by age, since the clock runs ahead."
            yield _one("clock_doubted", text, overview.clock_doubt is not None)
        yield from self._machine()

    def _machine(self) -> Iterator[Metric]:
        now = time.time()
        ends: dict[str, float] = {}
        for one in self._sources.certificates():
            ends[one.where] = min(one.ends_at, ends.get(one.where, one.ends_at))
        days = [([where], (end - now) / 86_400) for where, end in ends.items()]
        yield _gauge("certificate_days_left", "Days until the first certificate there ends.", ["where"], days)
        up = [([one.role, one.address], float(one.up)) for one in self._sources.listeners()]
        yield _gauge("listener_up", "Whether a role of this machine listens there.", ["role", "address"], up)
        try:
            free = shutil.disk_usage(self._sources.config.site.state).free
        except OSError:
            free = None
        yield _one("state_free_bytes", "Free bytes on the disk of the state folder.", free)


def render(sources: Sources) -> bytes:
    """One scrape, in the text format 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FlowCollector(sources))
    return generate_latest(registry)


def _routes(overview: Overview) -> Iterator[Metric]:
    states = [
        ([one.route, state], getattr(one, state))
        for one in overview.routes
        for state in ("waiting", "marked", "held", "delivered", "discarded")
    ]
    yield _gauge("instances", "Instances, by what has become of them.", ["route", "state"], states)
    names = ["route"]
    rates = [([one.route], one.received_recently / RECENT_S) for one in overview.routes]
    yield _gauge("received_per_second", "Instances received, mean of five minutes.", names, rates)
    rates = [([one.route], one.marked_recently / RECENT_S) for one in overview.routes]
    yield _gauge("marked_per_second", "Instances marked, mean of five minutes.", names, rates)
    ages = [([one.route], _age(overview, one.oldest_at)) for one in overview.routes]
    yield _gauge("oldest_seconds", "Age of the oldest that is neither delivered nor held; 0: none.", names, ages)


def _deliveries(overview: Overview) -> Iterator[Metric]:
    names = ["route", "destination"]
    every = overview.deliveries
    counts = [
        ([one.route, one.destination, state], getattr(one, state))
        for one in every
        for state in ("queued", "held", "sent")
    ]
    yield _gauge("deliveries", "Deliveries, by state.", [*names, "state"], counts)
    failing = [([one.route, one.destination], one.failing) for one in every]
    yield _gauge("deliveries_failing", "Queued deliveries that were tried in vain before.", names, failing)
    left = [([one.route, one.destination], one.uncommitted) for one in every]
    yield _gauge("deliveries_uncommitted", "Sent, and not yet committed where that is asked for.", names, left)
    rates = [([one.route, one.destination], one.sent_recently / RECENT_S) for one in every]
    yield _gauge("sent_per_second", "Instances delivered, mean of five minutes.", names, rates)
    latency = [([one.route, one.destination], one.latency_s) for one in every if one.latency_s is not None]
    yield _gauge("latency_seconds", "From receipt to delivery, mean of five minutes.", names, latency)
    paused = {one.destination: float(one.paused_at is not None) for one in every}
    text = "Whether a person has paused the destination."
    yield _gauge("destination_paused", text, ["destination"], [([name], value) for name, value in paused.items()])
    ages = [([one.route, one.destination], _age(overview, one.oldest_at)) for one in every]
    yield _gauge("delivery_oldest_seconds", "Age of the oldest that waits for this destination; 0: none.", names, ages)


def _age(overview: Overview, moment: float | None) -> float:
    return max(0.0, overview.at - moment) if moment else 0.0


def _gauge(name: str, text: str, labels: list[str], values: Iterable[tuple[list[str], float]]) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}{name}", text, labels=labels)
    for where, value in values:
        family.add_metric(where, value)
    return family


def _one(name: str, text: str, value: float | None) -> Metric:
    return _gauge(name, text, [], [] if value is None else [([], float(value))])
