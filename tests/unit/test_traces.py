"""Spans through Kafka headers: one trace over all hops."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from penstock.telemetry.traces import NoTracing, SpanTracing

PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


def a_tracing() -> tuple[SpanTracing, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return SpanTracing(provider), exporter


def test_each_hop_is_the_child_of_the_hop_before() -> None:
    tracing, exporter = a_tracing()
    with (
        tracing.hop("intake", [PARENT, ("tracestate", b"vendor=1"), ("other", b"x")]) as first,
        tracing.hop("guardrails", first),
    ):
        pass
    inner, outer = exporter.get_finished_spans()
    assert (outer.name, inner.name) == ("intake", "guardrails")
    assert outer.context is not None
    assert inner.parent is not None
    assert outer.parent is not None
    assert f"{outer.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{outer.parent.span_id:016x}" == "b7ad6b7169203331"
    assert inner.parent.span_id == outer.context.span_id
    assert dict(first)["tracestate"] == b"vendor=1"
    assert "other" not in dict(first)


def test_a_message_without_context_starts_a_trace_and_a_broken_one_does_too() -> None:
    tracing, exporter = a_tracing()
    for headers in ([], [("traceparent", b"\xff\xfe nonsense")]):
        with tracing.hop("intake", headers) as out:
            assert "traceparent" in dict(out)
    assert all(span.parent is None for span in exporter.get_finished_spans())


def test_without_a_collector_context_is_passed_on_as_it_came() -> None:
    with NoTracing().hop("intake", [PARENT, ("other", b"x")]) as out:
        assert out == [PARENT]
