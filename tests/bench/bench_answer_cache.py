"""What looking up an answer costs, beside a bare GET on the same Redis in the same run.

    python -m tests.bench.bench_answer_cache [redis://host:port/0]

Without an address a stack is started for the run.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from penstock.clock import SystemClock
from penstock.config.kinds import Target
from penstock.contracts.records import Context, GroundedRequest, Message, Passage, Sampling, Usage
from redis.asyncio import Redis

from services.inference.answers import RedisAnswers
from services.inference.exact_cache import Kept, asked_of
from tests.bench.bench_stack import bench_stack

ROUNDS, AT_ONCE = 2000, 64
TARGET = Target(backend="openai", model="m", base_url="http://127.0.0.1:1/v1")
REQUEST = GroundedRequest(
    event_id="e", request_id="r", tenant_id="bench", occurred_at=datetime.now(UTC), causation_id="c",
    context=Context(requested_at=datetime.now(UTC)), sampling=Sampling(temperature=0.0),
    messages=[Message(role="system", content="Be brief. " * 40), Message(role="user", content="Why is it so? " * 10)],
    passages=[
        Passage(passage_id=f"p{n}", document_id="d", text="Words of the passage. " * 45, score=0.5) for n in range(4)
    ],
)  # fmt: skip
KEPT = Kept(
    event_id="e", model="m", backend="openai", content="An answer of some length. " * 40, citations=("p0",),
    usage=Usage(input_tokens=1200, output_tokens=200), model_us=1200, first_token_us=None, compute_us=None,
    reduced_input_tokens=0,
)  # fmt: skip

Call = Callable[[], Awaitable[object]]


async def alone(call: Call) -> float:
    """Return the median microseconds of one call after the other."""
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await call()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e6


async def together(call: Call) -> float:
    """Return the microseconds of CPU of a call where as many run at once as inference has in flight."""
    started = time.process_time()
    for _ in range(ROUNDS // AT_ONCE):
        await asyncio.gather(*(call() for _ in range(AT_ONCE)))
    return (time.process_time() - started) / (ROUNDS // AT_ONCE * AT_ONCE) * 1e6


async def measure(url: str) -> None:
    redis = Redis.from_url(url)
    answers = RedisAnswers(redis, "secret", SystemClock())
    await answers.keep("bench", asked_of(REQUEST, TARGET), KEPT, 600)

    async def bare() -> None:
        await redis.get("penstock:{bench}:nothing")

    async def hit() -> None:
        assert await answers.find("bench", asked_of(REQUEST, TARGET)) is not None

    async def miss() -> None:
        assert await answers.find("bench", asked_of(REQUEST, TARGET) + b"!") is None

    async def keep() -> None:
        await answers.keep("bench", asked_of(REQUEST, TARGET), KEPT, 600)

    calls: dict[str, Call] = {"bare GET": bare, "miss": miss, "hit": hit, "keep": keep}
    for call in calls.values():
        await call()
    print(f"{'':>9} {'alone, us':>10} {'CPU of ' + str(AT_ONCE) + ' at once, us each':>28}")
    for name, call in calls.items():
        print(f"{name:>9} {await alone(call):>10.0f} {await together(call):>28.0f}")
    await redis.aclose()


def main() -> None:
    """Print the figures."""
    if len(sys.argv) > 1:
        asyncio.run(measure(sys.argv[1]))
        return
    with bench_stack("bench-answer-cache") as own:
        asyncio.run(measure(own.environ["REDIS_URL"]))


if __name__ == "__main__":
    main()
