"""How long the desk of the edge knows of requests, on a real Redis with the log in memory, and what where it forgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import msgspec
import pytest
from penstock.bus import MemoryBus, Producer
from penstock.clock import ManualClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.request_content import content_hash
from penstock.money.counters import claim_key, key_prefix
from penstock.stack import Stack

from services.edge.desk import LogDesk
from services.edge.identities import fingerprint
from services.edge.protocol import Conflict, Gone, Ticket
from services.edge.redis_store import EdgeStore, Place
from services.edge.result_log import ResultLog
from tests.integration.desk_replicas import CLOCK, Edge

DAY_S = 86_400


@pytest.fixture
async def edge(stack: Stack) -> AsyncIterator[Edge]:
    async with AsyncExitStack() as replicas:
        made = Edge(MemoryBus(Catalogue.load(), CLOCK), stack.environment()["REDIS_URL"], replicas)
        yield made
        await replicas.aclose()
        await made.redis.aclose()


def request_key(edge: Edge, request_id: str) -> str:
    return f"{key_prefix(edge.team)}edge:request:{request_id}"


async def test_a_request_is_known_until_its_deadline_and_for_a_while_after_its_result(edge: Edge) -> None:
    desk = await edge.replica()  # requests are known for 600 s
    far = edge.request(request_id="far", deadline_at=CLOCK.now() + timedelta(days=7))
    for request in (far, edge.request(request_id="none"), edge.request(request_id="past", deadline_at=CLOCK.now())):
        await desk.submit(request)
    seconds = [await edge.redis.ttl(request_key(edge, name)) for name in ("far", "none", "past")]
    for known, wanted in zip(seconds, [7 * DAY_S + 600, 8 * DAY_S + 600, 600], strict=True):
        assert wanted - 60 <= known <= wanted + 1
    await edge.answer(far)
    await edge.settled()
    assert 540 <= await edge.redis.ttl(request_key(edge, "far")) <= 600


async def test_the_conversation_of_a_request_is_known_without_the_log(edge: Edge) -> None:
    one, other = await edge.replica(hop=False), await edge.replica(hop=False)
    await one.submit(edge.request(request_id="talk", conversation_id="c-1"))
    await one.submit(edge.request(request_id="alone"))
    known = [await other.conversation_of(edge.team, name) for name in ("talk", "alone", "never")]
    assert known == ["c-1", None, None]


async def test_who_joins_a_request_that_came_another_way_is_not_told_why_an_earlier_send_of_it_was_refused(
    edge: Edge,
) -> None:
    desk, request = await edge.replica(), edge.request(request_id="both-ways")
    await edge.answer(request, "", status="rejected", stage="intake", code="rate_limited", retry_after_ms=900)
    await edge.settled()
    admitted_us = str(int(CLOCK.now().timestamp() * 1e6))
    claim = {"event": "another-send", "hash": content_hash(request), "at": admitted_us}
    await edge.redis.set(claim_key(edge.team, "both-ways"), msgspec.json.encode(claim), ex=60)
    ticket = await desk.submit(request)
    assert await desk.result(ticket, 0.5) is None
    told = await edge.answer(msgspec.structs.replace(request, event_id="another-send"))
    assert await desk.result(ticket, 10) == told


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_nobody_is_given_the_answer_to_another_question_that_came_another_way_under_the_same_identity(
    edge: Edge, stream: bool
) -> None:
    desk = await edge.replica()
    mine = edge.request("Mine?", "shared", stream=stream)
    ticket = await desk.submit(mine)
    # Over Kafka came the other one, which intake admitted; that mine is turned away is told later than it is answered.
    other = edge.request("Theirs?", "shared", stream=stream)
    claim = {"event": other.event_id, "hash": content_hash(other), "at": "1"}
    await edge.redis.set(claim_key(edge.team, "shared"), msgspec.json.encode(claim), ex=60)
    await edge.piece(other, 0, "Theirs.", "stop")
    await edge.answer(other, "Theirs.")
    await edge.settled()
    with pytest.raises(Conflict, match="shared"):
        await desk.result(ticket, 5)
    async with desk.following(ticket) as events:
        with pytest.raises(Conflict, match="shared"):
            await anext(events)
    # The other one is asked for with its own content.
    await desk.submit(other)
    assert (await desk.result(ticket, 10)).content == "Theirs."  # type: ignore[union-attr]


async def test_an_edge_that_hashes_otherwise_than_intake_gives_answers_all_the_same(edge: Edge) -> None:
    desk = await edge.replica()
    ticket = await desk.submit(edge.request(request_id="newer"))
    [sent] = await edge.sent()
    claim = {"event": sent.event_id, "hash": "of an older version", "at": "1"}
    await edge.redis.set(claim_key(edge.team, "newer"), msgspec.json.encode(claim), ex=60)
    assert await edge.answer(sent) == await desk.result(ticket, 10)


async def test_what_was_left_at_one_replica_is_joined_once_at_another(edge: Edge) -> None:
    one, other = await edge.replica(hop=False), await edge.replica()
    request = edge.request(key_id="key-1")
    ticket = await one.submit(request)
    await one.leave(ticket, fingerprint(request))
    repeated = edge.request(key_id="key-1")
    assert fingerprint(repeated) == fingerprint(request) != fingerprint(edge.request(key_id="key-2"))
    found = await asyncio.gather(*(desk.adopt(edge.team, fingerprint(repeated)) for desk in (one, other, one)))
    assert sorted(found, key=str) == sorted([None, None, ticket.request_id], key=str)
    joined = await other.submit(msgspec.structs.replace(repeated, request_id=ticket.request_id))
    assert joined.again
    [sent, *_] = await edge.sent()
    assert await edge.answer(sent) == await other.result(joined, 10)


async def test_a_result_that_the_log_keeps_no_more_is_gone_and_not_under_way(edge: Edge) -> None:
    desk = await edge.replica()
    ticket = await desk.submit(edge.request(request_id="old"))
    [sent] = await edge.sent()
    await edge.answer(sent)
    await edge.settled()
    assert await desk.result(ticket, 10) is not None
    # Redis has dropped the result, and the log's retention what stood in its place.
    await edge.redis.delete(f"{key_prefix(edge.team)}edge:result:old")
    beyond = msgspec.json.encode(Place(0, 10_000, int(CLOCK.now().timestamp() * 1000)))
    await edge.redis.hset(request_key(edge, "old"), "place", beyond)
    for wait in (desk.standing(edge.team, "old"), desk.result(ticket, 10)):
        with pytest.raises(Gone, match="keeps its result no more"):
            await wait


async def test_a_result_that_redis_lost_is_found_in_the_log_again(edge: Edge) -> None:
    clock = ManualClock(CLOCK.now())
    store = EdgeStore(edge.redis, request_ttl_s=600)
    codec = edge.bus.codec
    desk = LogDesk(store, ResultLog(edge.bus, codec), Producer(edge.bus.producer(), codec, "edge", clock), codec, clock)
    ticket = await desk.submit(edge.request(request_id="lost"))
    [sent] = await edge.sent()
    # No hop keeps it: as where Redis was replaced by a replica that did not have it yet.
    result = await edge.answer(sent)
    standing = await desk.standing(edge.team, "lost")
    assert standing is not None
    assert standing.result is None  # it is not late yet, so the log is not looked through
    await asyncio.sleep(0)
    assert (await store.find((edge.team, "lost"))).place is None  # type: ignore[union-attr]
    clock.advance(601)
    async with asyncio.timeout(10):
        while (standing := await desk.standing(edge.team, "lost")) is None or standing.result is None:
            await asyncio.sleep(0.005)
    assert standing.result == result
    assert await desk.result(Ticket(edge.team, "lost", ticket.taken_at), 0) == result
