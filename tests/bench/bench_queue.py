"""Whether a request that is refused for its queue would have been late, and one that is let in is in time.

    python -m tests.bench.bench_queue [redis://host:port/0]

Requests of one team come at random instants to a route that serves some at once; admission is real, on Redis, what serves
them is simulated, first come, first served. "Possible" is what the route can serve in the time at most. Without an address
a stack is started for the run.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from penstock.config.kinds import Team
from penstock.contracts.records import Context, LlmRequest, Message, Sampling
from redis.asyncio import Redis

from services.intake.adapters import RedisClaims
from services.intake.admission import Admission
from services.intake.core import Decision, Judgement
from services.intake.queues import RedisQueues
from services.intake.settlement import Departure
from tests.bench.bench_stack import bench_stack


@dataclass(frozen=True)
class Scenario:
    """``slots`` are served at once, for ``mean_s`` seconds each, exactly or exponentially distributed; ``load`` gives the
    share of what can be served that comes at an instant, ``slower`` the factor of ``mean_s``.
    """

    name: str
    slots: int
    mean_s: float
    within_s: float
    load: Callable[[float], float]
    seconds: float = 20.0
    exact: bool = False
    slower: Callable[[float], float] = lambda at: 1.0


@dataclass
class Told:
    """What became of the requests of a scenario."""

    sent: int = 0
    refused: int = 0
    expired: int = 0
    late: int = 0
    in_time: int = 0
    ratios: list[float] = field(default_factory=list)


SCENARIOS = [
    Scenario("half of what can be served", 4, 0.2, 2.0, lambda at: 0.5),
    Scenario("twice that, after 8 s of a tenth", 4, 0.2, 2.0, lambda at: 0.1 if at < 8 else 2.0),
    Scenario("five times, and nothing known", 4, 0.2, 2.0, lambda at: 5.0),
    Scenario("three times, one after another", 1, 0.1, 3.0, lambda at: 3.0, exact=True),
    Scenario(
        "twice that, then slower by three", 4, 0.2, 4.0, lambda at: 2.0, slower=lambda at: 3.0 if at > 10 else 1.0
    ),
]


async def run(redis: Redis, scenario: Scenario) -> Told:
    """Send what comes, serve what is let in, and return what became of it."""
    route, chance, told = f"bench-{uuid.uuid4().hex[:8]}", random.Random(7), Told()
    team = Team(name=route)
    queues = RedisQueues(redis, 600)
    admission = Admission(RedisClaims(redis, 600, in_flow=1_000_000), queues)
    line: asyncio.Queue[LlmRequest] = asyncio.Queue()
    started = time.monotonic()

    async def serve() -> None:
        while True:
            request = await line.get()
            assert request.deadline_at is not None
            served = datetime.now(UTC) < request.deadline_at
            if served:
                mean_s = scenario.mean_s * scenario.slower(time.monotonic() - started)
                await asyncio.sleep(mean_s if scenario.exact else chance.expovariate(1 / mean_s))
                in_time = datetime.now(UTC) <= request.deadline_at
                told.in_time, told.late = told.in_time + in_time, told.late + (not in_time)
            else:
                told.expired += 1
            in_time = served and datetime.now(UTC) <= request.deadline_at
            departure = Departure(team.name, request.request_id, route, in_time, not in_time)
            for gone in await queues.leave([departure]):
                if gone.told_s is not None:
                    told.ratios.append(gone.took_s / gone.told_s)
            line.task_done()

    slots = [asyncio.create_task(serve()) for _ in range(scenario.slots)]
    due = 0.0
    capacity = scenario.slots / scenario.mean_s
    while (at := time.monotonic() - started) < scenario.seconds:
        due += chance.expovariate(capacity * scenario.load(at))
        await asyncio.sleep(max(0.0, started + due - time.monotonic()))
        now = datetime.now(UTC)
        request = LlmRequest(
            event_id=f"e{told.sent}", request_id=f"r{told.sent}", tenant_id=team.name, occurred_at=now, causation_id="",
            messages=[Message(role="user", content="?")], deadline_at=now + timedelta(seconds=scenario.within_s),
        )  # fmt: skip
        judgement = Judgement(
            request=request, context=Context(requested_at=now, route=route, deadline_at=request.deadline_at),
            messages=request.messages, sampling=Sampling(), at=now, team=team, place=f"log/0/{told.sent}",
        )  # fmt: skip
        told.sent += 1
        (claim,) = await admission.admit([judgement])
        if claim.decision is Decision.ADMITTED:
            line.put_nowait(request)
        else:
            told.refused += 1
    await line.join()
    for slot in slots:
        slot.cancel()
    return told


async def bench(url: str) -> None:
    columns = ("sent", 6), ("refused", 9), ("in time", 9), ("late", 6), ("expired", 9), ("possible", 10)
    print(f"{'':38}" + "".join(f"{name:>{width}}" for name, width in columns) + f"{'actual/told p50':>17}{'p95':>6}")
    async with Redis.from_url(url) as redis:
        for scenario in SCENARIOS:
            told = await run(redis, scenario)
            rates = [
                min(scenario.load(at), 1 / scenario.slower(at)) * scenario.slots / scenario.mean_s
                for at in range(round(scenario.seconds))
            ]
            cuts = statistics.quantiles(told.ratios, n=20) if len(told.ratios) > 1 else [float("nan")] * 19
            print(
                f"{scenario.name:38}{told.sent:6}{told.refused:9}{told.in_time:9}{told.late:6}{told.expired:9}"
                f"{sum(rates):10.0f}{cuts[9]:17.2f}{cuts[18]:6.2f}"
            )


def main() -> None:
    """Run every scenario."""
    if len(sys.argv) > 1:
        asyncio.run(bench(sys.argv[1]))
        return
    with bench_stack("bench-queue") as own:
        asyncio.run(bench(own.environ["REDIS_URL"]))


if __name__ == "__main__":
    main()
