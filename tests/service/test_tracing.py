"""Traces: what the end of a collector gets of an instance on its way, across processes, and what it does not get."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway import tracing
from gateway.config.models import Config
from gateway.config.traces import Traces
from gateway.errors import PermanentError
from gateway.keys.generate import make_keys
from gateway.service.tracing import end_tracing, set_up_tracing
from tests.conftest import needed
from tests.network.test_ingress import until
from tests.support.flow import ROUTE, Flow, configuration, ct
from tests.support.network.peers import free_port

service = needed("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
needed("opentelemetry.exporter.otlp.proto.common")
REPOSITORY = Path(__file__).parents[2]
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "P4711", "AccessionNumber": "A0815"}


class Collector:
    """What was sent, decoded."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.status = 200
        self.url = ""

    @property
    def spans(self) -> list:
        found = []
        for body in self.bodies:
            request = service.ExportTraceServiceRequest.FromString(body)
            found += [span for one in request.resource_spans for each in one.scope_spans for span in each.spans]
        return found

    def roles(self) -> set[str]:
        return {
            item.value.string_value
            for body in self.bodies
            for one in service.ExportTraceServiceRequest.FromString(body).resource_spans
            for item in one.resource.attributes
            if item.key == "service.instance.id"
        }


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if made.status == 200:
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                made.bodies.append(body)
            self.send_response(made.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield made
    end_tracing()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    make_keys(tmp_path / "keys")
    return Flow(configuration(tmp_path / "state", tmp_path / "keys", ROUTE))


def traced(flow: Flow, endpoint: str, role: str, **more: object) -> None:
    set_up_tracing(flow.config.model_copy(update={"traces": Traces(endpoint=endpoint, **more)}), role)


def test_one_trace_over_receive_seal_mark_and_deliver(flow: Flow, collector: Collector, monkeypatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "secret=of-the-environment")
    traced(flow, collector.url, "ingress")
    ds = ct(1, **PATIENT)
    one = flow.receive(ds)
    traced(flow, collector.url, "worker")  # as another process: nothing but the row goes over
    flow.run()
    assert flow.row(one).state == "delivered"
    end_tracing()
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"receive", "seal", "mark", "deliver"} and len(collector.spans) == 4
    assert {span.trace_id.hex() for span in spans.values()} == {one}
    first = spans.pop("receive")
    assert first.parent_span_id == b"" and {span.parent_span_id for span in spans.values()} == {first.span_id}
    assert collector.roles() == {"ingress", "worker"}
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in collector.spans)
    attributes = {item.key for span in collector.spans for item in span.attributes}
    names = ("instance_id", "association_id", "bytes", "route", "batch", "destination", "attempt")
    assert attributes == {f"miad.{name}" for name in names}
    everything = b"".join(collector.bodies)
    for word in (*PATIENT.values(), "Doe", str(ds.SOPInstanceUID), "ARCHIVE", "RELAY", "of-the-environment"):
        assert word.encode() not in everything, word


def test_what_fails_is_said_by_its_code(flow: Flow, collector: Collector) -> None:
    error = PermanentError("context-refused", "outside will not have Doe^Jane", "ask its people")
    flow.sender.fail = lambda destination, item: error
    traced(flow, collector.url, "worker")
    one = flow.receive(ct(1))
    flow.run()
    end_tracing()
    (span,) = [span for span in collector.spans if span.name == "deliver"]
    assert (span.status.code, span.status.message) == (2, "context-refused") and span.trace_id.hex() == one
    assert b"Doe" not in b"".join(collector.bodies)


def test_a_share_is_the_same_in_every_role(flow: Flow, collector: Collector) -> None:
    for role in ("ingress", "worker"):
        traced(flow, collector.url, role, share=0.5)
        for number in range(64):
            instance_id = f"{number * 4:02x}" + "7" * 30
            with tracing.span("receive" if role == "ingress" else "mark", instance_id):
                pass
    end_tracing()
    by_name: dict[str, set] = {"receive": set(), "mark": set()}
    for span in collector.spans:
        by_name[span.name].add(span.trace_id)
    assert by_name["receive"] == by_name["mark"] and len(by_name["mark"]) == 32


def test_a_collector_that_is_down_hinders_nothing(flow: Flow, collector: Collector) -> None:
    collector.status = 503
    for endpoint in (collector.url, f"http://127.0.0.1:{free_port()}/v1/traces"):
        traced(flow, endpoint, "worker", timeout_s=2)
        one = flow.receive(ct(1))
        flow.run()
        assert flow.row(one).state == "delivered"
        end_tracing()
    assert collector.bodies == []


def test_spans_go_out_by_themselves(flow: Flow, collector: Collector) -> None:
    traced(flow, collector.url, "ingress")
    flow.receive(ct(1))
    until(lambda: collector.bodies)


def test_it_costs_nothing_where_it_is_off() -> None:
    set_up_tracing(Config(), "worker")
    assert not tracing.is_on() and tracing.now() == 0
    code = (
        "import sys, gateway.service.tracing, gateway.flow.receive\n"
        "loaded = [name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'google.protobuf'))]\n"
        "sys.exit(' '.join(loaded))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stderr.strip() == ""


def test_clear_text_stays_on_this_machine() -> None:
    Traces(endpoint="http://localhost:4318/v1/traces")
    Traces(endpoint="https://collector.example/v1/traces")
    with pytest.raises(ValidationError, match="https only"):
        Traces(endpoint="http://collector.example/v1/traces")


def test_a_collector_that_hangs_holds_up_the_end_for_one_answer(flow: Flow) -> None:
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang() -> None:
            with contextlib.suppress(OSError):
                while True:
                    asked.append(listener.accept())  # takes each connection, and never says a word

        thread = threading.Thread(target=hang, daemon=True)
        thread.start()
        traced(flow, f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces", "worker", timeout_s=1)
        for number in range(2500):  # five batches
            with tracing.span("mark", f"{number:032x}"):
                pass
        end_tracing()
        until(lambda: not [one for one in threading.enumerate() if one.name.startswith("OtelBatch")])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(60)
    for connection, _ in asked:
        connection.close()
    assert 1 <= len(asked) <= 2  # the batch under way, and one more


def test_a_clock_that_is_set_back_makes_no_span_that_ends_before_it_began(flow: Flow, collector: Collector) -> None:
    traced(flow, collector.url, "worker")
    tracing.add("mark", "7" * 32, tracing.now() + 10**12, {})
    end_tracing()
    (span,) = collector.spans
    assert span.end_time_unix_nano == span.start_time_unix_nano
