"""The rounds of bench_inference: python -m tests.bench.inference_rounds, in the environment of vLLM.

It is the inference service itself, with one more job that drives it: it asks the same engine in turns through the log and
directly, and prints what it saw as one line of JSON. Its parameters come as JSON in BENCH_ROUNDS.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pydoc_data.topics import topics  # English prose that comes with every Python
from typing import Any

import msgspec
from penstock.bus import Hop, Producer
from penstock.bus.types import Emit, RawReader
from penstock.contracts.envelope import new_id
from penstock.contracts.records import Completion, Context, GroundedRequest, Message, Sampling
from penstock.service import Runtime, run_service

from services.inference import __main__ as inference
from services.inference.settings import Settings
from services.inference.vllm.backend import VllmBackend
from tests.bench.request_trace import Arrival

ROUTE = "bench"
_WORDS = " ".join(topics[name] for name in sorted(topics)).split()
_LATE_S = 300.0


class Parameters(msgspec.Struct, frozen=True):
    """What is measured.

    Attributes:
        lengths: of the requests of a round, all there at once.
        rounds: of each way.
        singles: requests asked one by one each way, to time the first token.
        arrivals: of a trace; empty for none.
    """

    lengths: list[Arrival]
    rounds: int
    singles: int
    arrivals: list[Arrival]


@dataclass(slots=True)
class Seen:
    """A request: when its first token and its end were seen, seconds since it was due; tokens of its answer."""

    first_s: float = float("nan")
    end_s: float = float("nan")
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Burst:
    """A round: tokens generated, seconds from the first request to the last answer."""

    tokens: int
    seconds: float


class Driver:
    """Asks both ways. ``llm`` is vLLM's AsyncLLM."""

    def __init__(self, runtime: Runtime[Settings], llm: Any, tokenizer: Any) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._runtime = runtime
        self._llm = llm
        self._tokenizer = tokenizer
        self._params = SamplingParams
        self._delta, self._final = RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY
        self._producer: Producer = runtime.producer()
        self._waiting: dict[str, Waiting] = {}
        self._dice = random.Random(7)

    def prompt(self, tokens: int) -> str:
        """Return prose of about so many tokens; no two begin alike, so that no prefix is shared by chance."""
        start = self._dice.randrange(len(_WORDS))
        words = [_WORDS[(start + number) % len(_WORDS)] for number in range(max(1, tokens // 3))]
        return f"{new_id()} {' '.join(words)}"

    # -- the two ways ------------------------------------------------------------------------------------------------

    async def direct(self, text: str, output_tokens: int, due: float, *, streamed: bool) -> Seen:
        """Ask the engine."""
        prompt = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        parameters = self._params(
            temperature=0.0, max_tokens=output_tokens, output_kind=self._delta if streamed else self._final
        )
        seen = Seen()
        async for output in self._llm.generate(prompt, parameters, new_id()):
            # The first text: a token may be half a character.
            if math.isnan(seen.first_s) and output.outputs[0].text:
                seen.first_s = time.perf_counter() - due
            seen.tokens += len(output.outputs[0].token_ids)
        seen.end_s = time.perf_counter() - due
        return seen

    async def through_the_log(self, text: str, output_tokens: int, due: float, *, streamed: bool) -> Seen:
        """Publish a request, and wait until its completion can be read."""
        request_id, now = new_id(), datetime.now(UTC)
        request = GroundedRequest(
            event_id=new_id(), request_id=request_id, tenant_id="bench", occurred_at=now, causation_id="",
            context=Context(requested_at=now, route=ROUTE), messages=[Message(role="user", content=text)],
            sampling=Sampling(temperature=0.0, max_completion_tokens=output_tokens), stream=streamed,
        )  # fmt: skip
        waiting = Waiting(Seen(), due, streamed, asyncio.get_running_loop().create_future())
        self._waiting[request_id] = waiting
        emit = Emit("requests-grounded", request_id, request)
        await self._producer.send(emit.topic, emit.key, emit.record, ())
        await waiting.done
        del self._waiting[request_id]
        return waiting.seen

    async def read(self, reader: RawReader) -> None:
        """Take what comes of the requests that were published. Pieces are not decoded: their readers have other machines."""
        codec = self._runtime.codec
        while True:
            for message in await reader.poll(0.5):
                now = time.perf_counter()
                waiting = self._waiting.get((message.key or b"").decode())
                if waiting is None:
                    continue
                if message.topic == "completion-chunks":
                    waiting.saw_piece(now)
                    continue
                record = codec.decode(message.topic, message.value)
                assert isinstance(record, Completion)
                if record.error is not None:
                    raise RuntimeError(record.error)
                waiting.saw_end(now, record.usage.output_tokens)


@dataclass(slots=True)
class Waiting:
    """A request that was published and is due since ``due``. It is done when its end was seen, and its first piece too."""

    seen: Seen
    due: float
    streamed: bool
    done: asyncio.Future[None]

    def saw_piece(self, now: float) -> None:
        if math.isnan(self.seen.first_s):
            self.seen.first_s = now - self.due
            self._settle()

    def saw_end(self, now: float, tokens: int) -> None:
        self.seen.end_s, self.seen.tokens = now - self.due, tokens
        self._settle()

    def _settle(self) -> None:
        whole = not math.isnan(self.seen.end_s) and not (self.streamed and math.isnan(self.seen.first_s))
        if whole and not self.done.done():
            self.done.set_result(None)


Way = Callable[..., Awaitable[Seen]]


async def burst(way: Way, requests: Sequence[tuple[str, int]]) -> Burst:
    """Ask all at once."""
    started = time.perf_counter()
    seen = await asyncio.gather(*[way(text, output, started, streamed=False) for text, output in requests])
    return Burst(sum(one.tokens for one in seen), time.perf_counter() - started)


async def replayed(way: Way, driver: Driver, arrivals: Sequence[Arrival]) -> list[Seen]:
    """Ask each when its time has come, whether or not earlier ones are answered."""
    prepared = [(driver.prompt(one.prompt_tokens), one) for one in arrivals]
    started = time.perf_counter()
    under_way: list[asyncio.Future[Seen]] = []
    for text, one in prepared:
        due = started + one.at_s
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        under_way.append(asyncio.ensure_future(way(text, one.output_tokens, due, streamed=True)))
    return await asyncio.gather(*under_way)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Milliseconds: median, 95th and 99th percentile, of those there are: an answer may have no text at all."""
    known = [value * 1000 for value in values if not math.isnan(value)]
    cuts = statistics.quantiles(known, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


async def measure(runtime: Runtime[Settings], backend: VllmBackend, parameters: Parameters) -> dict[str, Any]:
    """Return all figures."""
    engine: Any = await backend._engines.engine()
    llm = engine._llm  # what a program without Penstock would call
    driver = Driver(runtime, llm, llm.get_tokenizer())
    reader = await runtime.bus.read(["completions", "completion-chunks"], from_end=True)
    reading = asyncio.ensure_future(driver.read(reader))
    ways: dict[str, Way] = {"direct": driver.direct, "stream": driver.through_the_log}
    try:
        return await _measured(driver, ways, parameters, reading)
    finally:
        reading.cancel()
        await reader.close()


async def _measured(
    driver: Driver, ways: dict[str, Way], parameters: Parameters, reading: asyncio.Future[None]
) -> dict[str, Any]:
    async def unless_the_reader_fails(job: Awaitable[Any]) -> Any:
        task = asyncio.ensure_future(job)
        await asyncio.wait({task, reading}, timeout=_LATE_S, return_when=asyncio.FIRST_COMPLETED)
        if reading.done():
            reading.result()
        if not task.done():
            raise TimeoutError(f"no answer within {_LATE_S:.0f} s")
        return task.result()

    def round_of(count: int) -> list[tuple[str, int]]:
        return [(driver.prompt(one.prompt_tokens), one.output_tokens) for one in parameters.lengths[:count]]

    found: dict[str, Any] = {"bursts": {name: [] for name in ways}, "first": {}, "trace": {}}
    for way in ways.values():  # warm
        await unless_the_reader_fails(burst(way, round_of(8)))
    for number in range(parameters.rounds):
        # Each way goes first in turn.
        for name in sorted(ways, reverse=bool(number % 2)):
            print(f"round {number + 1} of {parameters.rounds}: {name}", file=sys.stderr, flush=True)
            requests = round_of(len(parameters.lengths))
            found["bursts"][name].append(asdict(await unless_the_reader_fails(burst(ways[name], requests))))
    firsts: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(parameters.singles):
        for name, way in ways.items():
            seen = await unless_the_reader_fails(way(driver.prompt(200), 4, time.perf_counter(), streamed=True))
            firsts[name].append(seen.first_s)
    if parameters.singles:
        found["first"] = {name: spread(values) for name, values in firsts.items()}
    for name, way in ways.items() if parameters.arrivals else ():
        print(f"trace: {name}", file=sys.stderr, flush=True)
        answers = await unless_the_reader_fails(replayed(way, driver, parameters.arrivals))
        found["trace"][name] = {
            "first": spread([one.first_s for one in answers]),
            "whole": spread([one.end_s for one in answers]),
            "tokens": sum(one.tokens for one in answers),
        }
    return found


async def build(runtime: Runtime[Settings]) -> Sequence[Hop]:
    """The service's own hops, and the job that drives them."""
    backends = await inference.open_backends(runtime)
    hops = await inference.hops_with(runtime, backends)
    parameters = msgspec.json.decode(os.environ["BENCH_ROUNDS"], type=Parameters)

    async def drive() -> None:
        backend = backends["vllm"]
        assert isinstance(backend, VllmBackend)
        print(json.dumps(await measure(runtime, backend, parameters)), flush=True)
        runtime.stopping.set()

    runtime.background(drive())
    return hops


if __name__ == "__main__":
    raise SystemExit(run_service("inference", Settings, build))
