"""The SDK asking for vectors, and for certain documents, on the in-memory log."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import msgspec
import pytest
from penstock import Client
from penstock.bus import MemoryBus
from penstock.client import Embeddings, NotEmbedded
from penstock.clock import ManualClock
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import derive
from penstock.contracts.records import Context, LlmResult, RetrievalFilter, Usage

CLOCK = ManualClock()


async def answered(bus: MemoryBus, asking: asyncio.Task[Any], **fields: Any) -> Any:
    """What ``asking`` gives once the request it sent has a result with ``fields``."""
    [event] = await bus.collect("llm-requests", 1)
    request = event.record
    context = Context(requested_at=CLOCK.now(), purpose=request.purpose)
    result = LlmResult(**derive(request, "gate", 0, CLOCK.now()), context=context, **fields)
    await bus.publish("llm-results", request.request_id, result)
    return await asking


async def test_texts_become_vectors_in_their_order() -> None:
    bus = MemoryBus(Catalogue.load(), CLOCK)
    async with Client(tenant="support", transport=bus, codec=bus.codec, clock=CLOCK) as client:
        asking = asyncio.create_task(client.embed(["one", "two"], request_id="v-1", tags={"feature": "search"}))
        vectors = [(0.5, -0.25), (1.0, 0.0)]
        made = await answered(
            bus, asking, status="completed", model="all-MiniLM-L6-v2", usage=Usage(input_tokens=2),
            embeddings=[struct.pack("<2f", *vector) for vector in vectors],
        )  # fmt: skip
    assert made == Embeddings("v-1", "all-MiniLM-L6-v2", vectors, 2)
    [event] = await bus.collect("llm-requests", 1)
    request = event.record
    assert (request.purpose, request.tags, request.stream) == ("embed", {"feature": "search"}, False)
    assert [(each.role, each.content) for each in request.messages] == [("user", "one"), ("user", "two")]


async def test_texts_without_vectors_say_why() -> None:
    bus = MemoryBus(Catalogue.load(), CLOCK)
    async with Client(tenant="support", transport=bus, codec=bus.codec, clock=CLOCK) as client:
        asking = asyncio.create_task(client.embed("AKIA"))
        with pytest.raises(NotEmbedded, match="a secret was found") as blocked:
            await answered(bus, asking, status="blocked", code="secret", reason="a secret was found")
    assert blocked.value.result.code == "secret"


async def test_a_request_may_name_the_documents_that_ground_it() -> None:
    bus = MemoryBus(Catalogue.load(), CLOCK)
    wanted = RetrievalFilter(collection="faq", tags={"product": "mill"}, language="de", as_of=CLOCK.now())
    async with Client(tenant="support", transport=bus, codec=bus.codec, clock=CLOCK) as client:
        await client.submit("hello", retrieval=wanted)
    [event] = await bus.collect("llm-requests", 1)
    assert msgspec.structs.asdict(event.record.retrieval) == msgspec.structs.asdict(wanted)
