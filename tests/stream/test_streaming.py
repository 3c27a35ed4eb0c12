"""The hop that releases streamed answers, on the in-memory log: order, faults, and the way from inference to a reader."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from penstock.bus import MemoryBus, Producer, Transient, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Policy
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.digest import released_digest
from penstock.contracts.records import Context, GroundedRequest, Message, ResultChunk, Verdict
from penstock.settings import ServiceSettings

from services.guardrails.held_texts import MemoryVault
from services.guardrails.judge import Judge
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits
from services.guardrails.stream_state import MemoryStreams, StreamKey
from services.guardrails.streaming import StreamState
from services.guardrails.streaming_app import stream_hop
from services.inference.core import Streamed, piece

CATALOGUE = Catalogue.load()
CLOCK = ManualClock()
SETTINGS = ServiceSettings(dlq_min_messages=1000)
SCANNERS = shipped_scanners()
PROSE = "The cat sat on the mat and looked at the moon. It was a quiet night in the small town by the river. "
TEXT = PROSE * 3 + "Write to ann.lee@example.org now. " + PROSE * 3
MASKED = TEXT.replace("ann.lee@example.org", "<EMAIL_ADDRESS_1>")
CONFIG = ConfigPlane.of(
    [
        Policy.model_validate(
            {"name": "default", "output": {"pii": {"action": "mask"}, "secrets": {"action": "block"}}}
        ),
        Policy.model_validate({"name": "pseudonyms", "input": {"pii": {"action": "pseudonymise"}}}),
    ]
)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(CATALOGUE, CLOCK)


@asynccontextmanager
async def running(bus: MemoryBus, streams: MemoryStreams, vault: MemoryVault | None = None) -> AsyncIterator[None]:
    judge = Judge(CONFIG, SCANNERS, b"key", CLOCK)
    producer = Producer(bus.producer(), bus.codec, "guardrails", CLOCK)
    hop = stream_hop(judge, streams, vault or MemoryVault(), producer, Limits(), CLOCK, 16)
    stop = asyncio.Event()
    task = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), SETTINGS, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 10)


async def generate(
    bus: MemoryBus, request_id: str, text: str, size: int = 24, policy: str = "default", published: slice = slice(None)
) -> None:
    """Stream ``text`` as inference does, in pieces of ``size``; only the ``published`` ones come through."""
    request = GroundedRequest(
        event_id=f"{request_id}-grounded", request_id=request_id, tenant_id="support", occurred_at=CLOCK.now(),
        causation_id="", context=Context(requested_at=CLOCK.now(), policy_name=policy), stream=True,
        messages=[Message(role="user", content="Who is it?")],
    )  # fmt: skip
    streamed, emits = Streamed(), []
    for start in range(0, len(text), size):
        finish = "stop" if start + size >= len(text) else None
        streamed, emit = piece(request, streamed, text[start : start + size], finish, CLOCK.now())
        emits.append(emit)
    for emit in emits[published]:
        await bus.publish(emit.topic, emit.key, emit.record)


async def settled(bus: MemoryBus) -> None:
    await bus.settled("guardrails-stream", ["completion-chunks"], timeout_s=20)


async def released(bus: MemoryBus, request_id: str) -> list[ResultChunk]:
    """The pieces of a request as a reader has them: each event once, held to their verdicts and numbers."""
    verdicts = {event.record.causation_id: [] for event in await bus.collect("verdicts", 0)}
    for event in await bus.collect("verdicts", 0):
        verdict: Verdict = event.record
        verdicts[verdict.causation_id].append(verdict)
    found: dict[str, ResultChunk] = {}
    for event in await bus.collect("result-chunks", 0):
        chunk: ResultChunk = event.record
        if chunk.request_id == request_id:
            assert found.setdefault(chunk.event_id, chunk) == chunk, "one identity, two pieces"
    chunks = list(found.values())
    for number, chunk in enumerate(chunks):
        assert chunk.sequence == number
        digests = {v.released for v in verdicts[chunk.causation_id] if v.sequence == chunk.sequence}
        assert digests == {released_digest(request_id, [chunk.content])}
    return chunks


def text_of(chunks: Sequence[ResultChunk]) -> str:
    return "".join(chunk.content for chunk in chunks)


class FlakyStreams(MemoryStreams):
    """A store that is away for some calls, or with which the process ends before it has kept anything."""

    def __init__(self, loads: int = 0, saves: int = 0) -> None:
        super().__init__()
        self.loads = loads
        self.saves = saves
        self.saved = 0

    async def load(self, keys: Sequence[StreamKey]) -> list[StreamState | None]:
        if self.loads > 0:
            self.loads -= 1
            raise Transient("Redis is away")
        return await super().load(keys)

    async def save(self, states: Mapping[StreamKey, StreamState]) -> None:
        if self.saves > 0:
            self.saves -= 1
            raise Transient("Redis is away")
        self.saved += 1
        await super().save(states)


async def test_streams_side_by_side_are_released_screened_and_in_order(bus: MemoryBus) -> None:
    await asyncio.gather(*(generate(bus, f"r{number}", TEXT, size=10 + number) for number in range(8)))
    streams = FlakyStreams()
    async with running(bus, streams):
        await settled(bus)
    for number in range(8):
        chunks = await released(bus, f"r{number}")
        assert text_of(chunks) == MASKED
        assert chunks[-1].finish_reason == "stop"
        assert len(chunks) > 2
    taken = len(bus.messages("completion-chunks"))
    assert streams.saved < taken / 4, "a batch is one round trip"
    assert all(state.ended and not state.held and not state.context for state in streams.states.values())


async def test_verdicts_are_in_the_log_before_their_pieces(bus: MemoryBus) -> None:
    await generate(bus, "r", TEXT)
    seen: list[tuple[int, int]] = []
    append = bus.append

    async def watched(topic: str, *args: object, **kwargs: object) -> object:
        if topic == "result-chunks":
            seen.append((len(bus.messages("verdicts")), len(bus.messages("result-chunks"))))
        return await append(topic, *args, **kwargs)  # type: ignore[arg-type]

    bus.append = watched  # type: ignore[method-assign,assignment]
    async with running(bus, MemoryStreams()):
        await settled(bus)
    assert seen
    assert all(verdicts > pieces for verdicts, pieces in seen)


async def test_a_secret_over_two_pieces_ends_its_stream_and_no_other(bus: MemoryBus) -> None:
    secret = PROSE * 3 + "the key is AKIAIOSFODNN7EXAMPLQ and " + PROSE * 3
    await generate(bus, "bad", secret, size=secret.index("FODNN"))
    await generate(bus, "good", TEXT)
    async with running(bus, MemoryStreams()):
        await settled(bus)
    chunks = await released(bus, "bad")
    assert chunks[-1].finish_reason == "content_filter"
    assert secret[: secret.index("AKIA")].startswith(text_of(chunks))
    assert text_of(await released(bus, "good")) == MASKED


@pytest.mark.parametrize("streams", [FlakyStreams(loads=2), FlakyStreams(saves=2)], ids=["load", "save"])
async def test_a_store_that_is_away_holds_pieces_up_and_loses_none(bus: MemoryBus, streams: FlakyStreams) -> None:
    await generate(bus, "r", TEXT)
    async with running(bus, streams):
        await settled(bus)
    assert text_of(await released(bus, "r")) == MASKED


async def test_a_broker_that_is_away_holds_pieces_up_and_loses_none(bus: MemoryBus) -> None:
    await generate(bus, "r", TEXT)
    bus.fail_sends = 3
    async with running(bus, MemoryStreams()):
        await settled(bus)
    assert text_of(await released(bus, "r")) == MASKED
    assert not bus.messages("dlq-guardrails")


@pytest.mark.parametrize("seed", range(6))
async def test_crashes_at_any_point_repeat_the_same_events(bus: MemoryBus, seed: int) -> None:
    """Outputs without the state, the state without the offsets: whoever reads the pieces again adds nothing."""
    dice = random.Random(seed)
    await asyncio.gather(*(generate(bus, f"r{number}", TEXT, size=14 + number) for number in range(4)))
    streams = MemoryStreams()
    crashed = 0

    class Ends(MemoryStreams):
        async def save(self, states: Mapping[StreamKey, StreamState]) -> None:
            nonlocal crashed
            if dice.random() < 0.3:
                crashed += 1
                if dice.random() < 0.5:
                    await super().save(states)
                raise Transient("the process ends here")
            await super().save(states)

    ending = Ends()
    ending.states = streams.states
    async with running(bus, ending):
        await settled(bus)
    # Everything once more, as after offsets that were not committed.
    bus._committed.clear()
    async with running(bus, streams):
        await settled(bus)
    assert crashed
    for number in range(4):
        chunks = await released(bus, f"r{number}")
        assert text_of(chunks) == MASKED


async def test_inference_that_starts_again_in_mid_stream_is_followed(bus: MemoryBus) -> None:
    await generate(bus, "r", TEXT, published=slice(14))
    await generate(bus, "r", TEXT, size=37)
    async with running(bus, MemoryStreams()):
        await settled(bus)
    chunks = await released(bus, "r")
    assert (text_of(chunks), chunks[-1].finish_reason) == (MASKED, "stop")


async def test_a_state_that_is_lost_ends_the_stream(bus: MemoryBus) -> None:
    await generate(bus, "r", TEXT, published=slice(14))
    streams = MemoryStreams()
    async with running(bus, streams):
        await settled(bus)
        before = text_of(await released(bus, "r"))
        streams.states.clear()
        await generate(bus, "r", TEXT, published=slice(14, None))
        await settled(bus)
    last = [e.record for e in await bus.collect("result-chunks", 0) if e.record.request_id == "r"][-1]
    assert (last.content, last.finish_reason) == ("", "error")
    assert MASKED.startswith(before)
    verdict = next(e.record for e in reversed(await bus.collect("verdicts", 0)) if e.record.request_id == "r")
    assert "lost" in verdict.errors["stream"]


async def test_pseudonyms_are_restored_from_the_vault(bus: MemoryBus) -> None:
    vault = MemoryVault()
    await vault.put("support", "r", {"<PERSON_1>": "Ann Lee"})
    await generate(bus, "r", f"{PROSE * 2}It is <PERSON_1>. {PROSE * 2}", size=7, policy="pseudonyms")
    async with running(bus, MemoryStreams(), vault):
        await settled(bus)
    assert text_of(await released(bus, "r")) == f"{PROSE * 2}It is Ann Lee. {PROSE * 2}"


async def test_a_policy_that_is_not_published_releases_nothing(bus: MemoryBus) -> None:
    await generate(bus, "r", TEXT, policy="absent")
    async with running(bus, MemoryStreams()):
        await settled(bus)
    assert [(c.content, c.finish_reason) for c in await released(bus, "r")] == [("", "error")]


async def test_a_vault_that_cannot_be_opened_ends_the_stream_and_no_other(bus: MemoryBus) -> None:
    class Locked(MemoryVault):
        async def open(self, tenant_id: str, request_id: str) -> Mapping[str, str]:
            raise ValueError("sealed with another key")

    await generate(bus, "r", f"{PROSE * 2}It is <PERSON_1>. {PROSE * 2}")
    await generate(bus, "other", TEXT)
    async with running(bus, MemoryStreams(), Locked()):
        await settled(bus)
    chunks = await released(bus, "r")
    assert chunks[-1].finish_reason == "error"
    assert (PROSE * 2).startswith(text_of(chunks))
    assert text_of(await released(bus, "other")) == MASKED
