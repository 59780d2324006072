"""Sends spans to the collector of [traces] by OTLP/HTTP; the libraries of the extra `otel` are loaded only for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from gateway import __version__, tracing
from gateway.config import Config
from gateway.config.traces import Traces
from gateway.errors import ConfigError, GatewayError
from gateway.network.fetching import Fetcher

EVERY_MS = 2000.0  # between two batches
MOST = 4096  # spans that wait for the collector; of more the rest is dropped
_MISSING = "pip install 'miad-gateway[otel]', or take the [traces] table out"

log = structlog.get_logger(__name__)
_close: Callable[[], None] | None = None


def set_up_tracing(config: Config, role: str) -> None:
    """Trace as the configuration says, from now on; what waited under the one before is sent.

    A collector that cannot be used is told of, and hinders nothing.
    """
    global _close
    end_tracing()
    if config.traces is None:
        return
    try:
        sink, _close = open_collector(config.traces, config.site.name, role)
    except ConfigError as error:
        log.error("no traces", code=error.code, message=error.message, hint=error.hint)
        return
    tracing.send_to(sink)


def end_tracing() -> None:
    """Send what waits, and trace no more."""
    global _close
    tracing.send_to(None)
    if _close is not None:
        _close()
        _close = None


def open_collector(traces: Traces, site: str, role: str) -> tuple[Callable[[tracing.Span], None], Callable[[], None]]:
    """What takes a span, and what sends the rest and ends it.

    Raises
    ------
    ConfigError
        ``otel-missing``: the extra is not installed; or `trust` cannot be used.
    """
    try:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
    except ImportError:
        raise ConfigError("otel-missing", "the libraries of OpenTelemetry are not installed", _MISSING) from None

    asks = Fetcher(traces.endpoint, traces.trust, traces.timeout_s)
    # Nothing of the environment: OTEL_RESOURCE_ATTRIBUTES and detectors could name what nobody meant to send.
    about = {"service.name": "miad-gateway", "service.version": __version__, "service.namespace": site}
    resource = Resource({**about, "service.instance.id": role})
    scope = InstrumentationScope("gateway", __version__)
    kinds = {"receive": SpanKind.SERVER, "deliver": SpanKind.CLIENT}

    class ToCollector(SpanExporter):
        """By the client that asks nobody but the configured place."""

        def __init__(self) -> None:
            self._is_failing = False
            self.is_ending = False

        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            if self.is_ending and self._is_failing:
                return SpanExportResult.FAILURE  # a stop or a reload does not wait for each batch in turn
            body = encode_spans(spans).SerializeToString()
            try:
                status = asks.tell(traces.endpoint, body, {"Content-Type": "application/x-protobuf"})
                code = "" if 200 <= status < 300 else f"http-{status}"
            except GatewayError as error:
                code = error.code
            if code and not self._is_failing:
                log.warning("traces are lost: the collector does not take them", code=code)
            self._is_failing = bool(code)
            return SpanExportResult.FAILURE if code else SpanExportResult.SUCCESS

    def context_of(instance_id: str, span_id: int) -> SpanContext:
        return SpanContext(int(instance_id, 16), span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

    to_collector = ToCollector()
    processor = BatchSpanProcessor(
        to_collector,
        max_queue_size=MOST,
        max_export_batch_size=512,
        schedule_delay_millis=EVERY_MS,
        export_timeout_millis=traces.timeout_s * 1000,
    )

    def sink(span: tracing.Span) -> None:
        if int(span.instance_id[:8], 16) >= traces.share * (1 << 32):
            return
        first = span_id_of(span.instance_id, tracing.FIRST)
        own = first if span.name == tracing.FIRST else span_id_of(span.instance_id, f"{span.name} {span.begun}")
        failed = Status(StatusCode.ERROR, span.failed) if span.failed else Status(StatusCode.UNSET)
        made = ReadableSpan(
            span.name,
            context=context_of(span.instance_id, own),
            parent=None if own == first else context_of(span.instance_id, first),
            resource=resource,
            attributes={"miad.instance_id": span.instance_id, **{f"miad.{k}": v for k, v in span.attributes.items()}},
            kind=kinds.get(span.name, SpanKind.INTERNAL),
            status=failed,
            start_time=span.begun,
            end_time=span.ended,
            instrumentation_scope=scope,
        )
        processor.on_end(made)

    def close() -> None:
        to_collector.is_ending = True
        processor.shutdown()

    return sink, close


def span_id_of(instance_id: str, name: str) -> int:
    """An id that is the same in every process, and not zero."""
    digest = hashlib.sha256(f"{instance_id} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1
