"""Requests that nobody wants any more, that come too late, or that others go before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from penstock.bus import MemoryBus
from penstock.clock import ManualClock, SystemClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Cancellation, Completion, CompletionChunk, Refusal

from services.inference.cancellations import FollowedCancellations
from tests.stream.inference_model import PROMPT_TOKENS, TOKENS_SO_FAR, HeldModel, Process, a_request, until

CATALOGUE = Catalogue.load()
CLOCK = SystemClock()
REQUESTS = ["requests-grounded"]


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(CATALOGUE, CLOCK)


@pytest.fixture
async def cancellations(bus: MemoryBus) -> AsyncIterator[FollowedCancellations]:
    followed, stop = FollowedCancellations(bus.codec, CLOCK, 900), asyncio.Event()
    await followed.open(bus, 5)
    task = asyncio.create_task(followed.follow(stop))
    yield followed
    stop.set()
    await task


async def cancel(bus: MemoryBus, request_id: str, *, team: str = "support", reason: str = "") -> None:
    record = Cancellation(
        event_id=f"cancel-{request_id}", request_id=request_id, tenant_id=team, occurred_at=CLOCK.now(),
        causation_id="", reason=reason,
    )  # fmt: skip
    await bus.publish("cancellations", request_id, record)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_in_flight_is_stopped_and_paid_for_as_far_as_it_came(
    bus: MemoryBus, cancellations: FollowedCancellations, stream: bool
) -> None:
    model = HeldModel()
    await bus.publish("requests-grounded", "r", a_request("r", CLOCK, stream=stream))
    process = Process(bus, model, CLOCK, cancellations=cancellations)
    await until(lambda: model.held == {"r"})
    await cancel(bus, "r", team="another")
    await cancel(bus, "r", reason="the page was left")
    await bus.settled("inference", REQUESTS)
    await process.stopped()
    assert model.aborted == ["r"]
    (event,) = await bus.collect("completions", 1)
    record = event.record
    assert isinstance(record, Completion)
    assert (record.ends_as, record.finish_reason, record.content) == ("cancelled", "cancelled", "")
    assert record.error == "cancelled by its producer: the page was left"
    assert (record.usage.input_tokens, record.usage.output_tokens) == (PROMPT_TOKENS, TOKENS_SO_FAR + 1)
    pieces = [event.record for event in await bus.collect("completion-chunks", 0)]
    if stream:
        assert isinstance(pieces[-1], CompletionChunk)
        assert pieces[-1].finish_reason == "cancelled"
    assert bool(pieces) == stream
    assert not cancellations._watched


async def test_only_its_own_team_can_cancel_a_request(bus: MemoryBus, cancellations: FollowedCancellations) -> None:
    model = HeldModel()
    await cancel(bus, "r", team="another")
    await bus.publish("requests-grounded", "r", a_request("r", CLOCK))
    process = Process(bus, model, CLOCK, cancellations=cancellations)
    await until(lambda: model.held == {"r"})
    model.let_go()
    await bus.settled("inference", REQUESTS)
    await process.stopped()
    (event,) = await bus.collect("completions", 1)
    assert event.record.ends_as is None
    assert model.aborted == []


async def test_what_was_cancelled_before_its_turn_reaches_no_model(bus: MemoryBus) -> None:
    model = HeldModel()
    await cancel(bus, "before")
    await bus.append("cancellations", b"x", b"junk")
    followed, stop = FollowedCancellations(bus.codec, CLOCK, 900), asyncio.Event()
    await followed.open(bus, 5)
    task = asyncio.create_task(followed.follow(stop))
    process = Process(bus, model, CLOCK, 2, cancellations=followed)
    for name in ("first", "second"):
        await bus.publish("requests-grounded", name, a_request(name, CLOCK))
    await until(lambda: len(model.held) == 2)
    for name in ("waiting", "before"):
        await bus.publish("requests-grounded", name, a_request(name, CLOCK))
    await cancel(bus, "waiting")
    await until(lambda: ("support", "waiting") in followed._known)
    model.let_go()
    await bus.settled("inference", REQUESTS)
    await process.stopped()
    stop.set()
    await task
    assert set(model.calls) == {"first", "second"}
    refusals = {event.record.request_id: event.record for event in await bus.collect("refusals", 2)}
    assert set(refusals) == {"waiting", "before"}
    for refusal in refusals.values():
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.code, refusal.stage, refusal.calls) == (
            "cancelled",
            "cancelled",
            "inference",
            0,
        )


async def test_cancellations_are_forgotten_in_time_and_only_the_newest_are_kept(bus: MemoryBus) -> None:
    clock = ManualClock()
    log = MemoryBus(CATALOGUE, clock)
    followed = FollowedCancellations(log.codec, clock, 60)
    await cancel(log, "old")
    followed.take(log.messages("cancellations"))
    assert followed.watch(a_request("old", clock)).done()
    clock.advance(61)
    await cancel(log, "new")
    followed.take(log.messages("cancellations")[1:])
    assert not followed.watch(a_request("old", clock)).done()
    assert followed.watch(a_request("new", clock)).done()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_stops_the_call_and_what_was_generated_is_paid_for(bus: MemoryBus, stream: bool) -> None:
    model = HeldModel()
    soon = CLOCK.now() + timedelta(seconds=0.3)
    await bus.publish("requests-grounded", "r", a_request("r", CLOCK, deadline_at=soon, stream=stream))
    process = Process(bus, model, CLOCK)
    await bus.settled("inference", REQUESTS)
    await process.stopped()
    assert model.aborted == ["r"]
    (event,) = await bus.collect("completions", 1)
    record = event.record
    assert (record.ends_as, record.finish_reason) == ("expired", "cancelled")
    assert record.occurred_at >= soon
    assert (record.usage.input_tokens, record.usage.output_tokens) == (PROMPT_TOKENS, TOKENS_SO_FAR + 1)
    assert bool(bus.messages("completion-chunks")) == stream


async def test_what_expires_while_it_waits_reaches_no_model(bus: MemoryBus) -> None:
    model = HeldModel()
    for name in ("first", "second"):
        await bus.publish("requests-grounded", name, a_request(name, CLOCK))
    process = Process(bus, model, CLOCK, 2)
    await until(lambda: len(model.held) == 2)
    soon = CLOCK.now() + timedelta(seconds=0.1)
    await bus.publish("requests-grounded", "late", a_request("late", CLOCK, deadline_at=soon))
    await until(lambda: CLOCK.now() > soon)
    model.let_go()
    await bus.settled("inference", REQUESTS)
    await process.stopped()
    assert set(model.calls) == {"first", "second"}
    (event,) = await bus.collect("refusals", 1)
    assert (event.record.request_id, event.record.status) == ("late", "expired")


async def test_interactive_requests_go_before_standard_and_batch_and_the_earliest_deadline_first(
    bus: MemoryBus,
) -> None:
    model, now = HeldModel(), CLOCK.now()
    for name in ("first", "second"):
        await bus.publish("requests-grounded", name, a_request(name, CLOCK, priority="batch"))
    for name, priority, seconds in [
        ("batch", "batch", 60), ("standard", "standard", None), ("interactive", "interactive", None),
        ("later", "interactive", 120), ("sooner", "interactive", 60),
    ]:  # fmt: skip
        deadline = None if seconds is None else now + timedelta(seconds=seconds)
        await bus.publish("requests-grounded", name, a_request(name, CLOCK, priority=priority, deadline_at=deadline))
    process = Process(bus, model, CLOCK, 2, waiting=16)
    await until(lambda: len(model.held) == 2)
    first = set(model.held)
    model.let_go()
    await bus.settled("inference", REQUESTS)
    await process.stopped()
    expected = [name for name in ("sooner", "later", "interactive", "standard") if name not in first]
    assert [name for name in model.order[2:] if name in expected] == expected
    assert model.order[-1] in ("batch", "first", "second")
