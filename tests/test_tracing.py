"""One trace from a request to its mesh: in memory within one process, and by OTLP from the processes of a cluster."""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from backend.errors import ConfigurationError, NoForeground
from backend.services import AgentServices
from backend.telemetry.tracing import NoTraces, OtelTraces, current_trace, open_traces
from tests.support.agent_service import AgentService, agent_service, fail_with, image
from tests.support.faults.harness import FAKE_WORKER, Process
from tests.support.hostile_pictures import good_png
from tests.support.redis_backend import redis_server
from tests.support.running import RunningService
from tests.support.workshop import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"
STAGES = {"preprocess", "encode", "sample", "decode", "mesh", "finish", "export"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Provide what the services of this test put their spans into."""
    exporter = InMemorySpanExporter()
    opened = AgentServices.from_settings

    def traced(*arguments: Any, **options: Any) -> AgentServices:
        return opened(*arguments, **options, traces=OtelTraces(SimpleSpanProcessor(exporter)))

    monkeypatch.setattr(AgentServices, "from_settings", traced)
    return exporter


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = (span for span in spans.get_finished_spans() if span.name == name)
    return found


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def wait_for(spans: InMemorySpanExporter, name: str) -> None:
    eventually(lambda: any(span.name == name for span in spans.get_finished_spans()))


def submit(service: AgentService) -> str:
    answer = service.generate(image(), traceparent=PARENT)
    return str(answer.get_json().get("job_id", ""))


def test_a_request_and_its_run_are_one_trace(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    with agent_service(tmp_path, running=True) as service:
        job_id = submit(service)
        wait_for(spans, "job run")
    request, run = named(spans, "POST /api/agent/generate-3d"), named(spans, "job run")
    assert parent_of(request) == int(CALLER, 16)
    assert parent_of(run) == parent_of(named(spans, "job queued")) == request.context.span_id
    stages = [span for span in spans.get_finished_spans() if span.name in STAGES]
    assert {span.name for span in stages} == STAGES
    assert {parent_of(span) for span in stages} == {run.context.span_id}
    assert {span.context.trace_id for span in (request, run, *stages)} == {int(TRACE, 16)}
    assert all(span.start_time <= span.end_time for span in stages if span.start_time and span.end_time)
    assert run.attributes is not None
    assert request.attributes is not None
    assert (run.attributes["orfeas.job_id"], run.attributes["orfeas.outcome"]) == (job_id, "COMPLETED")
    assert request.attributes["http.response.status_code"] == 200
    assert current_trace() is None


def test_a_failed_run_says_so_and_probes_are_not_traced(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    with agent_service(tmp_path, running=True) as service:
        fail_with(service, NoForeground())
        submit(service)
        service.app.test_client().get("/metrics")
        service.app.test_client().get("/api/agent/health")
        wait_for(spans, "job run")
    run = named(spans, "job run")
    assert run.attributes is not None
    assert run.attributes["orfeas.outcome"] == "NO_FOREGROUND"
    assert not run.status.is_ok
    assert [span.name for span in spans.get_finished_spans() if "metrics" in span.name or "health" in span.name] == []


def test_a_request_without_a_trace_begins_its_own(tmp_path: Path, spans: InMemorySpanExporter) -> None:
    with agent_service(tmp_path) as service:
        service.get("/jobs")
        service.get("/jobs", traceparent="made up")
    first, second = (span for span in spans.get_finished_spans() if span.name == "GET /api/agent/jobs")
    assert first.parent is None
    assert second.parent is None
    assert first.context.trace_id != second.context.trace_id


def test_nothing_is_traced_where_nobody_asked_for_it(tmp_path: Path) -> None:
    assert isinstance(open_traces({}), NoTraces)
    assert isinstance(open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}), NoTraces)
    with agent_service(tmp_path) as service:
        assert service.services.store.get(service.submit(), service.owner("ann")).trace is None


def test_an_endpoint_without_the_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match="orfeas\\[otel\\]"):
        open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})


@dataclass
class Receiver:
    """What a collector would be sent; the spans by the process that sent them."""

    port: int = 0
    spans: list[tuple[int, Span]] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            about = {each.key: each.value for each in resource.resource.attributes}
            assert about["service.name"].string_value == "orfeas"
            own = [span for scope in resource.scope_spans for span in scope.spans]
            self.spans += [(hash(about["service.instance.id"].string_value), span) for span in own]

    def named(self, name: str) -> tuple[int, Span]:
        return next((who, span) for who, span in self.spans if span.name == name)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Take in what OTLP over HTTP brings, as opentelemetry-proto defines it."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            made.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
def test_web_and_worker_send_one_trace_to_a_collector(tmp_path: Path) -> None:
    with receiver() as collector:
        settings: dict[str, Any] = {
            "CELERY_BROKER_URL": redis_server().url,
            "WORKER_ENABLED": "false",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        web = RunningService(tmp_path, **settings)
        own = {**settings, "ORFEAS_DATA_DIR": str(web.data), "FAKE_STEP_SECONDS": "0.01"}
        worker = Process(FAKE_WORKER, own, tmp_path / "worker.log")
        try:
            worker.start()
            web.start()
            answer = web.generate(good_png(), headers={"traceparent": PARENT}, async_="true", color="none")
            web.wait(answer.json()["job_id"])
            web.wait_until(lambda: any(span.name == "job run" for _, span in collector.spans))
            web.wait_until(lambda: any(span.name.startswith("POST") for _, span in collector.spans))
        finally:
            web.kill()
            worker.kill_all()
    _, request = collector.named("POST /api/agent/generate-3d")
    _, run = collector.named("job run")
    assert request.trace_id.hex() == run.trace_id.hex() == TRACE
    assert run.parent_span_id == request.span_id
    assert request.parent_span_id.hex() == CALLER
    names = {span.name for _, span in collector.spans if span.parent_span_id == run.span_id}
    assert names == STAGES
