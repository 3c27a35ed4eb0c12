"""The backend of the engine, with engines in memory that die when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from penstock.config.kinds import Adapter, Target
from penstock.contracts.records import Context, GroundedRequest, Message, Sampling, Usage
from penstock.telemetry import metrics

from services.inference.adapters import BackendError
from services.inference.core import Answered
from services.inference.pieces import NoPieces, Pieces
from services.inference.progress import Progress
from services.inference.vllm.adapters import WEIGHTS, AdapterError, Adapters, digest_of
from services.inference.vllm.backend import VllmBackend
from services.inference.vllm.settings import EngineSettings
from services.inference.vllm.tools import Tools
from tests.stream.vllm_memory import MemoryEngine

SETTINGS = EngineSettings(model="/models/m", served_model_name=("m",), enable_lora=True, max_lora_rank=8)
TARGET = Target(backend="vllm", model="m")
DEADLINE_S = 10.0


class Engines:
    """Engines one after the other."""

    def __init__(self, *engines: MemoryEngine) -> None:
        self.left = list(engines)

    async def engine(self) -> MemoryEngine:
        return self.left[0]

    def lost(self, engine: Any) -> None:
        assert engine is self.left.pop(0)


class Reader:
    """Reads along."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.broken = False

    async def add(self, text: str) -> None:
        assert not self.broken
        self.read.append(text)

    async def break_off(self) -> None:
        self.broken = True


def request(text: str = "How far is it?", **sampling: Any) -> GroundedRequest:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return GroundedRequest(
        event_id="event", request_id="r", tenant_id="t", occurred_at=now, causation_id="",
        context=Context(requested_at=now, priority="interactive"),
        messages=[Message(role="user", content=text)], sampling=Sampling(**sampling),
    )  # fmt: skip


async def generate(
    *engines: MemoryEngine,
    pieces: Pieces | None = None,
    progress: Progress | None = None,
    target: Target = TARGET,
    **sampling: Any,
) -> Answered:
    backend = VllmBackend(Engines(*engines), SETTINGS, lambda name: None)
    return await backend.generate(request(**sampling), target, pieces or NoPieces(), progress or Progress())


def wasted() -> float:
    return float(metrics.WASTED_TOKENS.labels("vllm", "m", "engine")._value.get())


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not met():
            await asyncio.sleep(0.001)


# -- the backend -----------------------------------------------------------------------------------------------------


async def test_an_answer_with_its_tokens() -> None:
    engine, reader, progress = MemoryEngine(), Reader(), Progress()
    answer = await generate(engine, pieces=reader, progress=progress)
    assert (answer.content, answer.finish_reason, answer.model) == ("One two three four", "stop", "m")
    assert answer.usage == progress.usage == Usage(input_tokens=4, output_tokens=4)
    assert reader.read == ["One", " two", " three", " four"]
    assert engine.submitted == [("event.1", 0, None)]
    assert answer.first_token_us is not None


class Parser:
    """Reads what follows a colon as a call, as vLLM's parsers do what stands in their marks."""

    def parse(self, text: str, request: Any, **given: Any) -> tuple[None, str, list[Any]]:
        words, _, arguments = text.partition(":")
        called = [SimpleNamespace(id=None, name="look_up", arguments=arguments)] if arguments else []
        return None, words, called


TOOLS = Tools([], {}, {}, event_id="event", request=None, parser=Parser)


async def test_words_and_calls_are_told_apart_before_anybody_reads_them() -> None:
    engine, reader = MemoryEngine(tokens=("I look", ":", "{}"), calls=TOOLS), Reader()
    answer = await generate(engine, pieces=reader, tools="[]")
    (call,) = answer.tool_calls
    assert (answer.content, answer.finish_reason, call.name, call.arguments) == (
        "I look",
        "tool_calls",
        "look_up",
        "{}",
    )
    assert reader.read == ["I look"]
    again = await generate(MemoryEngine(tokens=("I look", ":", "{}"), calls=TOOLS), tools="[]")
    assert again.tool_calls == answer.tool_calls
    words = await generate(MemoryEngine(calls=TOOLS), tools="[]")
    assert (words.content, words.finish_reason, words.tool_calls) == ("One two three four", "stop", ())


class Confused(Parser):
    def parse(self, text: str, request: Any, **given: Any) -> tuple[None, str, list[Any]]:
        raise KeyError("arguments")


async def test_an_answer_that_the_parser_breaks_on_is_paid_for() -> None:
    progress = Progress()
    with pytest.raises(BackendError, match="cannot be read as calls of tools") as broken:
        await generate(MemoryEngine(calls=replace(TOOLS, parser=Confused)), progress=progress, tools="[]")
    assert broken.value.charged
    assert progress.usage == Usage(input_tokens=4, output_tokens=4)


async def test_tools_that_nobody_reads_the_calls_of_are_refused_and_may_be_left_alone() -> None:
    with pytest.raises(BackendError, match="nothing here reads calls") as refused:
        await generate(MemoryEngine(), tools="[]")
    assert (refused.value.of_request, refused.value.charged) == (True, False)
    assert (await generate(MemoryEngine(), tools="[]", tool_choice='"none"')).content == "One two three four"


async def test_a_request_whose_engine_dies_is_generated_again_and_the_waste_is_counted() -> None:
    before, progress = wasted(), Progress()
    first, second, third = MemoryEngine(lives=3), MemoryEngine(lives=0), MemoryEngine()
    answer = await generate(first, second, third, progress=progress)
    assert answer.content == "One two three four"
    assert answer.usage == progress.usage == Usage(input_tokens=4, output_tokens=4)
    # Of the first engine the prompt, three tokens, and one that had come and was not fetched; of the second that one alone.
    assert wasted() - before == (4 + 3 + 1) + (4 + 1)


async def test_a_request_that_engines_die_of_is_given_up_before_the_process_is() -> None:
    with pytest.raises(BackendError, match="died 3 times under the request") as found:
        await generate(*(MemoryEngine(lives=2) for _ in range(SETTINGS.max_restarts + 1)))
    assert not found.value.charged


async def test_a_reader_of_a_repeatable_answer_notices_nothing() -> None:
    reader = Reader()
    answer = await generate(
        MemoryEngine(lives=2), MemoryEngine(lives=1), MemoryEngine(("One t", "wo thr", "ee four")), pieces=reader
    )
    assert "".join(reader.read) == answer.content == "One two three four"
    assert not reader.broken


@pytest.mark.parametrize("other", [("One", " too", " late"), ("One",), ("Two",)])
async def test_what_a_reader_was_told_is_never_contradicted(other: Sequence[str]) -> None:
    reader = Reader()
    answer = await generate(MemoryEngine(lives=2), MemoryEngine(other), pieces=reader)
    assert answer.content == "".join(other)
    assert reader.read == ["One", " two"]
    assert reader.broken


async def test_a_call_that_is_given_up_is_stopped_in_the_engine_and_its_tokens_are_known() -> None:
    engine, progress = MemoryEngine(held=asyncio.Event()), Progress()
    call = asyncio.create_task(generate(engine, progress=progress))
    await until(lambda: progress.usage is not None)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert engine.aborted == ["event.1"]
    assert progress.began
    assert progress.usage == Usage(input_tokens=4, output_tokens=2)


async def test_a_target_has_its_own_patience() -> None:
    engine, progress = MemoryEngine(held=asyncio.Event()), Progress()
    target = Target(backend="vllm", model="m", timeout_s=0.05)
    with pytest.raises(BackendError, match="no answer within") as found:
        await generate(engine, target=target, progress=progress)
    assert found.value.cancelled
    assert engine.aborted == ["event.1"]
    assert progress.usage == Usage(input_tokens=4, output_tokens=2)


async def test_a_prompt_without_room_for_an_answer_is_no_failure_of_the_target() -> None:
    progress = Progress()
    with pytest.raises(BackendError, match="which leaves none of the 4 of the context window") as found:
        await generate(MemoryEngine(context_tokens=4), progress=progress)
    assert (found.value.of_request, found.value.charged, found.value.retriable) == (True, False, False)
    assert not progress.began


# -- adapters --------------------------------------------------------------------------------------------------------


def adapter(folder: Path, **changes: Any) -> Adapter:
    fields = {"name": "a", "base_model": "m", "path": str(folder), "sha256": digest_of(folder), "rank": 8}
    return Adapter.model_validate(fields | changes)


async def test_an_adapter_is_verified_and_again_where_its_file_changes(tmp_path: Path) -> None:
    weights = tmp_path / WEIGHTS
    weights.write_bytes(b"weights")
    registered = adapter(tmp_path)
    adapters = Adapters(lambda name: registered if name == "a" else None, SETTINGS)
    first = await adapters.loaded("a")
    assert await adapters.loaded("a") is first
    weights.write_bytes(b"others!!")
    with pytest.raises(AdapterError, match="has the digest"):
        await adapters.loaded("a")
    registered = adapter(tmp_path)
    second = await adapters.loaded("a")
    # The engine keeps what it loaded under a number and a name: other weights have others.
    assert (first.number, second.number) == (1, 2)
    assert first.name != second.name


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        ({"enable_lora": False}, {}, "set enable_lora"),
        ({}, {"base_model": "another"}, "belongs to another; the engine runs m"),
        ({}, {"rank": 16}, "set max_lora_rank"),
        ({}, {"path": "/nowhere"}, "cannot be read: No such file"),
        ({}, {"name": "b"}, "the engine serves m and the adapters of it"),
    ],
)
async def test_adapters_that_cannot_be_served_are_told(
    settings: dict[str, Any], changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    registered = adapter(tmp_path, **changes)
    find = {registered.name: registered}.get
    backend = VllmBackend(Engines(MemoryEngine()), SETTINGS.model_copy(update=settings), find)
    with pytest.raises(BackendError, match=said):
        await backend.generate(request(), Target(backend="vllm", model="a"), NoPieces(), Progress())
