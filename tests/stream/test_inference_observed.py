"""What inference measures and traces, on the in-memory log: calls, requests, tokens and energy, under the agreed names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from penstock.bus import MemoryBus, Producer, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import EnergyFigures, Retrieval, Route, Target
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    Alternative,
    Completion,
    Context,
    GroundedRequest,
    Message,
    Refusal,
    Sampling,
    Status,
    Usage,
)
from penstock.settings import ServiceSettings
from penstock.telemetry import gen_ai
from penstock.telemetry.traces import SpanTracing
from prometheus_client import REGISTRY

from services.inference.adapters import BackendError
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.core import Answered
from services.inference.pieces import Pieces
from services.inference.progress import Progress

CATALOGUE = Catalogue.load()
SETTINGS = ServiceSettings()
PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
SECRET = "the secret of the pyramids"


class Model:
    """Answers as a test says; ``says`` may raise."""

    def __init__(self, says: Callable[[], Answered]) -> None:
        self.says = says
        self.began = asyncio.Event()
        self.stays = False

    async def generate(self, request: GroundedRequest, target: Target, pieces: Pieces, progress: Progress) -> Answered:
        progress.began = True
        await pieces.add("Once upon a time, " * 4)
        self.began.set()
        if self.stays:
            progress.usage = Usage(input_tokens=9, output_tokens=2)
            await asyncio.Event().wait()
        return self.says()


class CalledOff:
    """Cancels a request when the test says so."""

    def __init__(self) -> None:
        self.reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def watch(self, request: GroundedRequest) -> asyncio.Future[str]:
        return self.reason


@dataclass
class Inference:
    bus: MemoryBus
    clock: ManualClock
    exporter: InMemorySpanExporter
    called_off: CalledOff
    before: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)

    async def ask(self, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "event_id": "grounded", "request_id": "r", "tenant_id": "t", "occurred_at": self.clock.now(),
            "causation_id": "", "messages": [Message(role="user", content=SECRET)],
            "context": Context(requested_at=self.clock.now(), conversation_id="c-1", priority="batch"),
            "sampling": Sampling(temperature=0.5, stop=[SECRET]),
        }  # fmt: skip
        self.before = series()
        record = GroundedRequest(**fields | changes)
        await self.bus.publish("requests-grounded", "c-1", record, headers=[PARENT])
        self.clock.advance(0.25)

    async def ended(self) -> list[Any]:
        await self.bus.settled("inference", ["requests-grounded"], timeout_s=20)
        found = [event.record for topic in ("completions", "refusals") for event in await self.bus.collect(topic, 0)]
        return [record for record in found if isinstance(record, Completion | Refusal)]

    def grown(self, name: str, **labels: str) -> float:
        """How much a series with these labels has grown since the request was sent."""
        return sum(
            value - self.before.get(key, 0.0)
            for key, value in series().items()
            if key[0] == name and set(labels.items()) <= set(key[1])
        )

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


def series() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
    }


@asynccontextmanager
async def inference(*models: Model) -> AsyncIterator[Inference]:
    clock, exporter = ManualClock(), InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = SpanTracing(provider)
    bus = MemoryBus(CATALOGUE, clock)
    there = Target(backend="openai", model="m1", base_url="http://127.0.0.1:1/v1")
    # The first one always answers first.
    targets = (Target(backend="vllm", model="m0", weight=10**6), there)[: len(models)]
    figures = EnergyFigures(model="m0", joules_per_input_token=1, joules_per_output_token=10, source="a test")
    plane = ConfigPlane.of([Route(name="default", targets=targets, retrieval=Retrieval(enabled=False)), figures])
    own = Inference(bus, clock, exporter, CalledOff())
    hop = inference_hop(
        plane,
        dict(zip(("vllm", "openai"), models, strict=False)),
        MemoryAnswers(clock),
        clock,
        4,
        Producer(bus.producer(), bus.codec, "inference", clock),
        cancellations=own.called_off,
        grid_grams_per_kwh=360.0,
        tracing=tracing,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), SETTINGS, stop, tracing))
    try:
        yield own
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


def said() -> Answered:
    return Answered(
        "m0-2026", "vllm", "Once upon a time.", "stop", Usage(input_tokens=9, output_tokens=5), 900_000,
        first_token_us=100_000, engine_queue_us=40_000,
    )  # fmt: skip


async def test_a_call_is_measured_and_traced_within_its_hop() -> None:
    async with inference(Model(said)) as own:
        await own.ask(stream=True)
        [ended] = await own.ended()
    assert ended.energy.joules == 59.0
    call = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "vllm", "gen_ai_request_model": "m0"}
    assert own.grown("gen_ai_client_operation_duration_seconds_count", **call, error_type="") == 1
    assert round(own.grown("gen_ai_server_time_to_first_token_seconds_sum", **call), 6) == 0.1
    # 0.8 s for the four tokens after the first.
    assert round(own.grown("gen_ai_server_time_per_output_token_seconds_sum", **call), 6) == 0.2
    assert own.grown("gen_ai_client_token_usage_sum", **call, gen_ai_token_type="input") == 9
    assert own.grown("gen_ai_client_token_usage_sum", **call, gen_ai_token_type="output") == 5
    assert own.grown("gen_ai_server_request_duration_seconds_count", route="default", error_type="") == 1
    assert own.grown("penstock_finished_generations_total", model="m0", finish_reason="stop") == 1
    assert own.grown("penstock_queue_seconds_count", priority="batch") == 1
    assert round(own.grown("penstock_engine_queue_seconds_sum", model="m0"), 6) == 0.04
    assert own.grown("penstock_energy_joules_total", model="m0") == 59.0
    assert round(own.grown("penstock_energy_co2e_grams_total", model="m0"), 9) == 0.0059
    spans = own.spans()
    chat, hop = spans["chat m0"], spans["inference"]
    assert chat.kind is SpanKind.CLIENT
    assert chat.parent is not None
    assert hop.context is not None
    assert chat.parent.span_id == hop.context.span_id
    assert f"{hop.context.trace_id:032x}" in PARENT[1].decode()
    assert dict(chat.attributes or {}) == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "vllm", "gen_ai.request.model": "m0",
        "gen_ai.conversation.id": "c-1", "gen_ai.output.type": "text", "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.5, "gen_ai.response.id": ended.event_id, "gen_ai.response.model": "m0-2026",
        "gen_ai.response.finish_reasons": ("stop",), "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 5,
    }  # fmt: skip
    # The pieces go on within the same span.
    [piece, *_] = own.bus.messages("completion-chunks")
    assert f"{hop.context.span_id:016x}" in dict(piece.headers)["traceparent"].decode()


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ({"retriable": True}, "unavailable"),
        ({"cancelled": True}, "timeout"),
        ({"of_request": True}, "invalid_request"),
        ({}, "failed"),
    ],
)
async def test_why_a_call_failed_is_one_of_few_words(flags: dict[str, bool], kind: str) -> None:
    def fails() -> Answered:
        raise BackendError("HTTP 400", **flags)

    async with inference(Model(fails)) as own:
        await own.ask()
        await own.ended()
    name = "gen_ai_client_operation_duration_seconds_count"
    assert (own.grown(name), own.grown(name, error_type=kind)) == (1, 1)
    ended_as = "unsupported_request" if "of_request" in flags else "model_unavailable"
    assert own.grown("gen_ai_server_request_duration_seconds_count", error_type=ended_as) == 1


async def test_a_call_that_fails_says_of_what_kind_and_quotes_nothing() -> None:
    def fails() -> Answered:
        raise BackendError(f"HTTP 400: {SECRET}", charged=True)

    async with inference(Model(fails), Model(said)) as own:
        await own.ask()
        abandoned, ended = await own.ended()
    assert (abandoned.kind, ended.error) == ("abandoned", None)
    assert own.grown("gen_ai_client_operation_duration_seconds_count", gen_ai_request_model="m0", error_type="") == 0
    assert own.grown(
        "gen_ai_client_operation_duration_seconds_count", gen_ai_request_model="m0", error_type="broken_off"
    ) == 1  # fmt: skip
    assert own.grown("gen_ai_server_request_duration_seconds_count", error_type="") == 1
    # Both are paid for, so both count.
    assert own.grown("gen_ai_client_token_usage_count", gen_ai_token_type="output") == 2
    failed = own.spans()["chat m0"]
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})[gen_ai.ERROR_TYPE] == "broken_off"
    for span in own.exporter.get_finished_spans():
        assert SECRET not in span.to_json()


async def test_several_answers_count_each_by_why_it_ended_and_share_no_time_per_token() -> None:
    def several() -> Answered:
        other = Alternative(content="x", finish_reason="because-i-can")
        return Answered(
            "m0", "vllm", "y", "length", Usage(output_tokens=5), 10, first_token_us=5, alternatives=(other,)
        )

    async with inference(Model(several)) as own:
        await own.ask(sampling=Sampling(n=2))
        await own.ended()
    assert own.grown("penstock_finished_generations_total", model="m0", finish_reason="length") == 1
    assert own.grown("penstock_finished_generations_total", model="m0", finish_reason="_OTHER") == 1
    assert own.grown("gen_ai_server_time_per_output_token_seconds_count") == 0
    assert (own.spans()["chat m0"].attributes or {})["gen_ai.response.finish_reasons"] == ("length", "because-i-can")


async def test_a_call_that_is_cancelled_is_counted_with_what_it_used_and_its_stream_ends_so() -> None:
    model = Model(said)
    model.stays = True
    async with inference(model) as own:
        await own.ask(stream=True)
        await asyncio.wait_for(model.began.wait(), 10)
        own.called_off.reason.set_result("they closed the window")
        [ended] = await own.ended()
        chunks = [event.record for event in await own.bus.collect("completion-chunks", 0)]
    assert (ended.ends_as, ended.finish_reason, ended.error) == (
        Status.CANCELLED,
        "cancelled",
        "they closed the window",
    )
    assert chunks[-1].finish_reason == "cancelled"
    assert own.grown("gen_ai_client_operation_duration_seconds_count", error_type="cancelled") == 1
    assert own.grown("gen_ai_server_request_duration_seconds_count", error_type="cancelled") == 1
    assert own.grown("gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 2
    assert own.grown("penstock_energy_joules_total", model="m0") == 29.0


async def test_a_request_that_ends_without_a_call_is_no_call() -> None:
    async with inference(Model(said)) as own:
        await own.ask(context=Context(requested_at=own.clock.now(), deadline_at=own.clock.now()))
        [ended] = await own.ended()
    assert isinstance(ended, Refusal)
    assert own.grown("gen_ai_server_request_duration_seconds_count", error_type="expired") == 1
    assert own.grown("gen_ai_client_operation_duration_seconds_count") == 0
    assert own.grown("gen_ai_client_token_usage_count") == 0
