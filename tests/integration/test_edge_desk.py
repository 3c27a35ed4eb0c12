"""The desk of the edge on a real Redis, the log in memory: two replicas, and what may go wrong between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from penstock.bus import MemoryBus, Producer, Transient
from penstock.bus.types import Sent
from penstock.clock import ManualClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import derive, new_id
from penstock.contracts.records import (
    Feedback,
    LlmResult,
    RequestConflict,
    ResultChunk,
    Status,
)
from penstock.contracts.request_content import content_hash
from penstock.money.counters import claim_key, key_prefix
from penstock.stack import Stack
from redis.asyncio import Redis

from services.edge.desk import LogDesk
from services.edge.protocol import Conflict, Desk, Ticket, Unavailable
from services.edge.redis_store import EdgeStore
from services.edge.result_log import ResultLog
from tests.integration.desk_replicas import CLOCK, Edge, until


@pytest.fixture
async def edge(stack: Stack) -> AsyncIterator[Edge]:
    async with AsyncExitStack() as replicas:
        made = Edge(MemoryBus(Catalogue.load(), CLOCK), stack.environment()["REDIS_URL"], replicas)
        yield made
        await replicas.aclose()
        await made.redis.aclose()


async def collected(desk: Desk, ticket: Ticket) -> list[ResultChunk | LlmResult]:
    async with desk.following(ticket) as events:
        return [event async for event in events]


async def test_a_request_taken_at_one_replica_is_answered_at_another(edge: Edge) -> None:
    one, other = await edge.replica(hop=False), await edge.replica()
    ticket = await one.submit(edge.request())
    assert (await other.standing(edge.team, ticket.request_id)).result is None  # type: ignore[union-attr]
    waiting = [asyncio.create_task(desk.result(ticket, 10)) for desk in (one, other, one)]
    await until(lambda: one.waiting + other.waiting == 3)
    [request] = await edge.sent()
    result = await edge.answer(request)
    assert await asyncio.gather(*waiting) == [result] * 3
    for desk in (one, other):
        standing = await desk.standing(edge.team, ticket.request_id)
        assert standing is not None
        assert (standing.result, standing.ticket.taken_at) == (result, ticket.taken_at)
    assert one.waiting == other.waiting == 0


async def test_a_lost_notice_costs_a_look_and_nothing_else(edge: Edge) -> None:
    deaf = await edge.replica(look_again_s=0.02, listening=False)
    ticket = await deaf.submit(edge.request())
    waiting = asyncio.create_task(deaf.result(ticket, 10))
    await until(lambda: deaf.waiting == 1)
    [request] = await edge.sent()
    assert await edge.answer(request) == await waiting


async def test_a_send_that_is_repeated_is_the_same_event_and_other_content_conflicts(edge: Edge) -> None:
    desks = [await edge.replica(hop=False), await edge.replica()]
    again = edge.request(request_id="key-1")
    later = msgspec.structs.replace(
        again,
        event_id=new_id(),
        occurred_at=CLOCK.now() + timedelta(seconds=9),
        key_id="another",
        deadline_at=CLOCK.now(),
    )
    tickets = await asyncio.gather(*(desks[n % 2].submit((again, later)[n % 3 == 0]) for n in range(20)))
    assert len({ticket.taken_at for ticket in tickets}) == 1
    assert sum(not ticket.again for ticket in tickets) == 1
    sent = await edge.sent(20)
    assert len({request.event_id for request in sent}) == 1
    for other in (edge.request("Another question", "key-1"), edge.request(request_id="key-1", stream=True)):
        with pytest.raises(Conflict, match="key-1"):
            await desks[0].submit(other)
    result = await edge.answer(sent[0])
    assert await desks[0].result(tickets[0], 10) == result
    # What has its result is not put into the log again.
    joined = await desks[1].submit(again)
    assert joined.again
    assert await desks[1].result(joined, 0) == result
    assert len(edge.bus.messages("llm-requests")) == 20


async def test_teams_have_request_ids_of_their_own(edge: Edge) -> None:
    desk = await edge.replica()
    mine = edge.request(request_id="one")
    theirs = msgspec.structs.replace(edge.request("Something else", "one"), tenant_id=f"{edge.team}-2")
    tickets = [await desk.submit(mine), await desk.submit(theirs)]
    sent = {request.tenant_id: request for request in await edge.sent(2)}
    result = await edge.answer(sent[edge.team])
    assert await desk.result(tickets[0], 10) == result
    assert await desk.result(tickets[1], 0) is None


async def test_a_refusal_that_waiting_helps_ends_one_try_alone(edge: Edge) -> None:
    desk = await edge.replica()
    request = edge.request(request_id="key-2")
    first = await desk.submit(request)
    [tried] = await edge.sent()
    refusal = await edge.answer(tried, "", status=Status.REJECTED, code="rate_limited", retry_after_ms=1200)
    assert await desk.result(first, 10) == refusal
    second = await desk.submit(request)
    assert not second.again
    tried_again = (await edge.sent(2))[1]
    assert tried_again.event_id != tried.event_id
    # The refusal is delivered once more, as after a crash: it is not the result of the second try.
    await edge.bus.publish("llm-results", request.request_id, refusal)
    await edge.settled()
    assert await desk.result(second, 0) is None
    result = await edge.answer(tried_again)
    assert await desk.result(second, 10) == result
    assert (await desk.submit(request)).again


async def test_a_stream_is_followed_in_order_whatever_order_it_comes_in(edge: Edge) -> None:
    one, other = await edge.replica(hop=False), await edge.replica()
    ticket = await one.submit(edge.request(stream=True))
    [request] = await edge.sent()
    following = asyncio.create_task(collected(one, ticket))
    await until(lambda: one.waiting == 1)
    await edge.piece(request, 0, "Press ")
    await edge.piece(request, 1, "the ")
    await edge.settled()
    for number, content in enumerate(("Press ", "the ", "red ")):  # read again after a crash
        await edge.piece(request, number, content)
    result = await edge.answer(request, "Press the red button.")
    await edge.settled()
    await edge.piece(request, 3, "button.", "stop")
    events = await following
    assert events[-1] == result
    pieces = [event for event in events if isinstance(event, ResultChunk)]
    assert [piece.sequence for piece in pieces] == [0, 1, 2, 3]
    assert "".join(piece.content for piece in pieces) == result.content
    # Who comes later gets all of it, too.
    assert await collected(other, ticket) == events


async def test_nothing_is_waited_for_behind_what_was_not_streamed_or_not_answered(edge: Edge) -> None:
    desk = await edge.replica()
    plain, streamed = [await desk.submit(edge.request(stream=stream)) for stream in (False, True)]
    sent = {request.request_id: request for request in await edge.sent(2)}
    answered = await edge.answer(sent[plain.request_id])
    blocked = await edge.answer(sent[streamed.request_id], "", status=Status.BLOCKED, code="prompt_injection")
    async with asyncio.timeout(1.5):  # less than what late pieces are waited for
        assert await collected(desk, plain) == [answered]
        assert await collected(desk, streamed) == [blocked]


async def test_intake_turns_away_what_came_another_way_with_other_content(edge: Edge) -> None:
    desk = await edge.replica()
    ticket = await desk.submit(edge.request(request_id="key-3"))
    [request] = await edge.sent()
    waiting = asyncio.create_task(desk.result(ticket, 10))
    await until(lambda: desk.waiting == 1)
    for turned_away in (edge.request(request_id="key-3"), request):
        conflict = RequestConflict(
            **derive(turned_away, "intake.conflict", 0, CLOCK.now()), code="conflict", reason="send another request_id"
        )
        assert not waiting.done()  # another producer's conflict is not the edge's
        await edge.bus.publish("request-conflicts", request.request_id, conflict)
        await edge.settled()
    with pytest.raises(Conflict, match="send another request_id"):
        await waiting
    with pytest.raises(Conflict):
        await desk.submit(edge.request(request_id="key-3"))
    # The content that came the other way joins it.
    assert not (await desk.submit(edge.request("What the other one asked", "key-3"))).again


async def test_a_result_of_a_request_that_came_another_way_before_is_found_in_the_log(edge: Edge) -> None:
    desk = await edge.replica()
    request = edge.request(request_id="key-4")
    claim = {"event": request.event_id, "hash": content_hash(request), "at": microseconds(CLOCK.now())}
    await edge.redis.set(claim_key(edge.team, "key-4"), msgspec.json.encode(claim))
    result = await edge.answer(request)
    await edge.settled()
    assert await desk.standing(edge.team, "key-4") is None  # what did not come through the edge is not kept
    with pytest.raises(Conflict, match="key-4"):
        await desk.submit(edge.request("Another question", "key-4"))
    ticket = await desk.submit(edge.request(request_id="key-4"))
    assert await desk.result(ticket, 10) == result


async def test_the_log_has_a_result_that_redis_has_no_more(edge: Edge) -> None:
    desk = await edge.replica()
    tickets = [await desk.submit(edge.request(request_id=name)) for name in ("a", "b", "c")]
    results = {request.request_id: await edge.answer(request, request.request_id) for request in await edge.sent(3)}
    await edge.settled()
    assert await edge.redis.delete(*(f"{key_prefix(edge.team)}edge:result:{name}" for name in results)) == 3
    for ticket in tickets:
        assert await desk.result(ticket, 0) == results[ticket.request_id]


async def test_a_client_that_goes_away_ends_its_waiting_and_nothing_else(edge: Edge) -> None:
    desk = await edge.replica()
    ticket = await desk.submit(edge.request(stream=True))
    [request] = await edge.sent()
    gone = [asyncio.create_task(collected(desk, ticket)), asyncio.create_task(desk.result(ticket, 10))]
    await until(lambda: desk.waiting == 2)
    await edge.piece(request, 0, "Press ")
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    assert desk.waiting == 0
    await edge.piece(request, 1, "it.", "stop")
    result = await edge.answer(request)
    assert await desk.result(ticket, 10) == result
    assert [type(event) for event in await collected(desk, ticket)] == [ResultChunk, ResultChunk, LlmResult]


async def test_scripts_that_redis_has_forgotten_are_loaded_again(edge: Edge) -> None:
    desk = await edge.replica()
    ticket = await desk.submit(edge.request())
    [request] = await edge.sent()
    await edge.redis.script_flush()
    assert (await desk.submit(edge.request())).request_id != ticket.request_id
    await edge.redis.script_flush()
    assert await desk.result(ticket, 0) is None
    assert await edge.answer(request) == await desk.result(ticket, 10)


async def test_news_is_heard_again_when_the_connection_breaks(edge: Edge) -> None:
    desk = await edge.replica(look_again_s=0.05)
    server: Any = edge.redis
    tickets = [await desk.submit(edge.request()) for _ in range(2)]
    sent = {request.request_id: request for request in await edge.sent(2)}
    for ticket in tickets:
        waiting = asyncio.create_task(desk.result(ticket, 10))
        await until(lambda: desk.waiting == 1)
        assert await server.execute_command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        assert await edge.answer(sent[ticket.request_id]) == await waiting
        await edge.listening(1)


async def test_what_the_log_does_not_take_may_be_sent_again(edge: Edge) -> None:
    desk = await edge.replica()
    request = edge.request()
    edge.bus.fail_sends = 1
    with pytest.raises(Unavailable):
        await desk.submit(request)
    assert (await desk.submit(request)).again
    [sent] = await edge.sent()
    assert await edge.answer(sent) == await desk.result(Ticket(edge.team, request.request_id, CLOCK.now()), 10)
    edge.bus.fail_sends = 1
    opinion = Feedback(event_id=new_id(), request_id=request.request_id, tenant_id=edge.team, occurred_at=CLOCK.now(),
                       causation_id="", rating=1.0)  # fmt: skip
    with pytest.raises(Unavailable):
        await desk.give_feedback(opinion)
    await desk.give_feedback(opinion)
    assert [event.record for event in await edge.bus.collect("feedback", 1)] == [opinion]


class Silent:
    """A log that takes what it gets and says so when it is told to."""

    def __init__(self) -> None:
        self.taken: list[asyncio.Future[Sent]] = []

    async def send(self, *what: object) -> asyncio.Future[Sent]:
        self.taken.append(asyncio.get_running_loop().create_future())
        return self.taken[-1]


async def test_nothing_more_is_taken_up_while_the_log_is_silent(edge: Edge) -> None:
    clock, silent = ManualClock(), Silent()
    store = EdgeStore(edge.redis, request_ttl_s=600)
    producer = Producer(silent, edge.bus.codec, "edge", clock)
    desk = LogDesk(store, ResultLog(edge.bus, edge.bus.codec), producer, edge.bus.codec, clock)
    sends = [asyncio.create_task(desk.submit(edge.request(request_id=name))) for name in ("a", "b")]
    await until(lambda: len(silent.taken) == 2)
    clock.advance(6)
    with pytest.raises(Unavailable):
        await desk.submit(edge.request(request_id="c"))
    assert await store.find((edge.team, "c")) is None
    for taken in silent.taken:
        taken.set_result(Sent("llm-requests", 0, 0))
    assert {ticket.request_id for ticket in await asyncio.gather(*sends)} == {"a", "b"}


async def test_redis_away_is_said_and_nothing_goes_to_the_log(edge: Edge) -> None:
    async with Redis.from_url("redis://127.0.0.1:1/0") as nowhere:
        store = EdgeStore(nowhere)
        producer = Producer(edge.bus.producer(), edge.bus.codec, "edge", CLOCK)
        desk = LogDesk(store, ResultLog(edge.bus, edge.bus.codec), producer, edge.bus.codec, CLOCK)
        with pytest.raises(Unavailable) as raised:
            await desk.submit(edge.request())
        assert "127.0.0.1" not in str(raised.value)
        assert "127.0.0.1" in str(raised.value.__cause__)
        assert edge.bus.messages("llm-requests") == []
        ticket = Ticket(edge.team, "any", CLOCK.now())
        for wait in (desk.standing(edge.team, "any"), desk.result(ticket, 0.05), collected(desk, ticket)):
            with pytest.raises(Unavailable):
                await wait
        with pytest.raises(Transient):
            await store.conflicted((edge.team, "any"), 0, "another one")


def microseconds(at: datetime) -> str:
    return str((at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
