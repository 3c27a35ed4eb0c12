"""W3C trace context through Kafka headers.

Without a collector the headers are passed on untouched, which costs nothing. With one, every hop is a span whose parent
is the span of the hop before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["Headers", "NoTracing", "SpanTracing", "Tracing", "carried", "tracing_to"]

Headers = Sequence[tuple[str, bytes]]
_CARRIED = frozenset({"traceparent", "tracestate"})
_propagator = TraceContextTextMapPropagator()


def carried(headers: Headers) -> list[tuple[str, bytes]]:
    """Return the headers that every hop passes on."""
    return [(key, value) for key, value in headers if key in _CARRIED]


class Tracing(Protocol):
    """What the bus asks of a tracer."""

    def hop(self, name: str, headers: Headers) -> AbstractContextManager[list[tuple[str, bytes]]]:
        """Return a context manager around the work on one message; it gives the headers for what the work emits."""
        ...


class NoTracing:
    """Passes trace context on and records nothing."""

    def hop(self, name: str, headers: Headers) -> AbstractContextManager[list[tuple[str, bytes]]]:
        return nullcontext(carried(headers))


class SpanTracing:
    """One span a message and hop."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._tracer = provider.get_tracer("penstock")

    @contextmanager
    def hop(self, name: str, headers: Headers) -> Iterator[list[tuple[str, bytes]]]:
        parent = _propagator.extract({key: value.decode("ascii", "replace") for key, value in carried(headers)})
        span = self._tracer.start_span(name, context=parent, kind=trace.SpanKind.CONSUMER)
        out: dict[str, str] = {}
        _propagator.inject(out, context=trace.set_span_in_context(span))
        try:
            yield [(key, value.encode("ascii")) for key, value in out.items()]
        finally:
            span.end()


def tracing_to(service: str, exporter: SpanExporter) -> SpanTracing:
    """Return tracing that sends the spans of ``service`` to ``exporter`` in batches."""
    provider = TracerProvider(resource=Resource.create({"service.name": f"penstock-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return SpanTracing(provider)
