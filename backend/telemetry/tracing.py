"""One trace for each request, from its arrival to its mesh: whichever processes worked on it, it is found as one.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) says where spans go; needs the extra
`otel`. The other variables of OpenTelemetry's SDK are read by it. A job keeps the context of the request that made it
in its row, so that its worker goes on with the same trace. This module does not know what is traced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from backend.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

Attributes = Mapping[str, str | int | float | bool]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PARENT = "traceparent"
_STOP_SECONDS = 3.0
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


@dataclass(frozen=True)
class Stage:
    """A piece of a run's time; begun, ended : seconds since 1970."""

    name: str
    begun: float
    ended: float


@dataclass(frozen=True)
class RunTrace:
    """A run of a job that has ended. parent : what the job's row has; stages : in the order in which they ended."""

    parent: str | None
    submitted: datetime
    begun: float
    ended: float
    outcome: str
    stages: Sequence[Stage]
    attributes: Attributes


class RequestTrace(Protocol):
    """The span of a request at hand."""

    def end(self, name: str, status: int, attributes: Attributes) -> None:
        """End it, once; name : the request's method and route."""


class Traces(Protocol):
    """Take in what was done; called from any thread, and never raises."""

    def begin_request(self, header: Callable[[str], str | None]) -> RequestTrace | None:
        """Begin the span of a request, as part of its caller's trace where a header names one; None: not traced."""

    def run_ended(self, run: RunTrace) -> None:
        """Take in a run, with a span for each of its stages."""

    def stop(self) -> None:
        """Send what is still to be sent, for a few seconds at most."""


class NoTraces:
    """Trace nothing."""

    def begin_request(self, header: Callable[[str], str | None]) -> RequestTrace | None:  # noqa: ARG002
        """Return None."""
        return None

    def run_ended(self, run: RunTrace) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


class OtelTraces:
    """Spans by OpenTelemetry's SDK."""

    def __init__(self, processor: SpanProcessor) -> None:
        """Give spans to a processor; its threads begin now, so never before a fork."""
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        # OTEL_SERVICE_NAME goes before this name: what the SDK found in the environment is merged last.
        named = Resource.create({SERVICE_NAME: "orfeas"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("orfeas")
        self._propagator = TraceContextTextMapPropagator()

    def begin_request(self, header: Callable[[str], str | None]) -> RequestTrace | None:
        """As Traces says."""
        from opentelemetry.trace import SpanKind

        given = {name: header(name) or "" for name in (_PARENT, "tracestate")}
        span = self._tracer.start_span("request", self._propagator.extract(given), SpanKind.SERVER)
        _current.set(self._written(span))
        return _OtelRequest(span)

    def run_ended(self, run: RunTrace) -> None:
        """As Traces says."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        parent = self._read(run.parent)
        waited = self._tracer.start_span("job queued", parent, start_time=_nanoseconds(run.submitted.timestamp()))
        waited.end(_nanoseconds(run.begun))
        span = self._tracer.start_span(
            "job run", parent, SpanKind.CONSUMER, dict(run.attributes), start_time=_nanoseconds(run.begun)
        )
        span.set_attribute("orfeas.outcome", run.outcome)
        if run.outcome != "COMPLETED":
            span.set_status(Status(StatusCode.ERROR, run.outcome))
        within = set_span_in_context(span)
        for stage in run.stages:
            made = self._tracer.start_span(stage.name, within, start_time=_nanoseconds(stage.begun))
            made.end(_nanoseconds(stage.ended))
        span.end(_nanoseconds(run.ended))

    def stop(self) -> None:
        """As Traces says."""
        # A collector that is away would be waited for by the SDK for longer than a process has to end.
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(_STOP_SECONDS)

    def _written(self, span: Span) -> str | None:
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        return carrier.get(_PARENT)

    def _read(self, parent: str | None) -> Context:
        return self._propagator.extract({_PARENT: parent or ""})


class _OtelRequest:
    """The span of a request."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, name: str, status: int, attributes: Attributes) -> None:
        """As RequestTrace says."""
        from opentelemetry.trace import Status, StatusCode

        self._span.update_name(name)
        self._span.set_attribute("http.response.status_code", status)
        for key, value in attributes.items():
            if value != "":
                self._span.set_attribute(key, value)
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
        _current.set(None)


def current_trace() -> str | None:
    """Return the context of the request at hand, for what goes on with it later; None where nothing is traced."""
    return _current.get()


def open_traces(environ: Mapping[str, str]) -> Traces:
    """Return what sends spans to where the environment says, or nothing that traces where it says nothing.

    Begins a thread: call it after a fork. Raises ConfigurationError where the extra is missing.
    """
    if not any(environ.get(name) for name in _ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NoTraces()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            f"{_ENDPOINTS[0]} is set, but OpenTelemetry is not installed: pip install 'orfeas[otel]', or unset it."
        ) from error
    return OtelTraces(BatchSpanProcessor(OTLPSpanExporter()))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
