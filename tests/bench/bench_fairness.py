"""What a flood of one team does to the latency of another, through the whole flow.

    python -m tests.bench.bench_fairness [--seconds 20] [--rounds 3] [--concurrency 16] [--flood 10]

The model is an endpoint that takes 100 to 200 ms and answers so many at a time, which is its capacity. The steady team asks
for a tenth of that, at random times; in every other window, at the same times again, while another team of the same share
sends ten times as much: together more than there is. A request of the flood is of use for some seconds only, as those of
people who wait are. Latency counts from the planned time of the send to the result in the log; open loop, the windows of
both kinds in turn, so that what else the machine does falls on both. Where its cores are busy with other things, the turns
are seen apart from them at ten times the latency and thus a tenth of the rates:

    python -m tests.bench.bench_fairness --latency-ms 1000:2000 --seconds 60 --deadline 60
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec
import uvloop
from penstock.bus import KafkaBus
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import LlmResult
from penstock.settings import KafkaSettings
from penstock.stack.ports import free_port
from rich.console import Console
from rich.table import Table

from tests.bench.bench_pipeline import a_request, bench_config, processes
from tests.bench.bench_stack import bench_stack, deploy, services

TOPICS = ("llm-requests", "requests-admitted", "requests-screened", "requests-grounded", "completions", "llm-results")
SERVICES = ("intake", "guardrails", "retrieval", "inference", "evaluation")
STEADY, FLOODING = "bench", "flood"
_SHARE = 0.1
_LATE_S = 120.0


@dataclass(frozen=True, slots=True)
class Window:
    """What the steady team saw, milliseconds, and how the flood beside it ended."""

    names: list[str]
    latencies: list[float]
    steady: Counter[str]
    flood: Counter[str]

    def at(self, share: float) -> float:
        return quantile(self.latencies, share)


class Load:
    """Sends requests when their time has come, and notes when and how each ended."""

    def __init__(self, bus: KafkaBus, codec: Codec) -> None:
        self._producer = bus.producer()
        self._codec = codec
        self._planned: dict[str, float] = {}
        self.ended: dict[str, tuple[float, str]] = {}
        """By request: seconds from the planned send to the result, and its status."""

    async def collect(self, bus: KafkaBus) -> None:
        """Note results until cancelled."""
        reader = await bus.read(["llm-results"], from_end=True)
        try:
            while True:
                for message in await reader.poll(0.5):
                    now, name = time.perf_counter(), (message.key or b"").decode()
                    if name in self._planned and name not in self.ended:
                        result = cast("LlmResult", self._codec.decode("llm-results", message.value))
                        self.ended[name] = now - self._planned[name], result.status
        finally:
            await reader.close()

    async def send(self, team: str, times: Sequence[float], deadline_s: float | None) -> list[str]:
        """Send a request of ``team`` at each of ``times``, seconds from now, and return their names."""
        start, prefix = time.perf_counter(), f"{team}-{uuid.uuid4().hex[:8]}"
        acks: list[Awaitable[object]] = []
        names = [f"{prefix}-{number}" for number in range(len(times))]
        for name, at in zip(names, times, strict=True):
            if (wait := start + at - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            self._planned[name] = start + at
            until = None if deadline_s is None else datetime.now(UTC) + timedelta(seconds=deadline_s)
            request = msgspec.structs.replace(a_request(name), tenant_id=team, deadline_at=until)
            value = self._codec.encode("llm-requests", request)
            acks.append(await self._producer.send("llm-requests", name.encode(), value))
        await asyncio.gather(*acks)
        return names

    async def all_ended(self, names: Sequence[str]) -> None:
        """Wait until each of ``names`` has its result.

        Raises:
            TimeoutError: some have none long after.
        """
        async with asyncio.timeout(_LATE_S):
            while not all(name in self.ended for name in names):
                await asyncio.sleep(0.1)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of ``values`` do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def at_random(rate: float, seconds: float, seed: int) -> list[float]:
    """Return times of a Poisson process of ``rate`` a second, seconds."""
    chance, times, at = random.Random(seed), [], 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        times.append(at)
    return times


async def window(load: Load, steady: Sequence[float], flood: Sequence[float], deadline_s: float) -> Window:
    """Let both teams send at their times, and wait until all of it has ended."""
    flooding = asyncio.create_task(load.send(FLOODING, flood, deadline_s))
    asked = await load.send(STEADY, steady, None)
    flooded = await flooding
    await load.all_ended([*asked, *flooded])
    return Window(
        asked,
        [load.ended[name][0] * 1000 for name in asked],
        Counter(load.ended[name][1] for name in asked),
        Counter(load.ended[name][1] for name in flooded),
    )


async def log_times(bus: KafkaBus, since_ms: int) -> dict[str, list[int]]:
    """Return when each request of the steady team stood in each of the topics of the flow, ms since the epoch."""
    reader = await bus.read(TOPICS, since_ms=since_ms)
    found: dict[str, dict[str, int]] = {}
    while not await reader.at_end():
        for message in await reader.poll(0.5):
            name = (message.key or b"").decode()
            if name.startswith(STEADY):
                found.setdefault(name, {}).setdefault(message.topic, message.timestamp_ms)
    await reader.close()
    return {name: [at[topic] for topic in TOPICS] for name, at in found.items() if len(at) == len(TOPICS)}


def show_stages(console: Console, quiet: Sequence[Window], flooded: Sequence[Window], at: dict[str, list[int]]) -> None:
    """Print where the steady team's time goes, from log to log."""
    table = Table("stage", "", "p50 ms", "p95 ms", title="From topic to topic")
    for number, (before, after) in enumerate(itertools.pairwise(TOPICS)):
        for name, of in (("alone", quiet), ("beside the flood", flooded)):
            times = [at[asked][number + 1] - at[asked][number] for one in of for asked in one.names if asked in at]
            table.add_row(f"{before} to {after}", name, *(str(quantile(times, share)) for share in (0.5, 0.95)))
    console.print(table)


async def windows(
    settings: KafkaSettings, arguments: argparse.Namespace
) -> tuple[list[Window], list[Window], dict[str, list[int]]]:
    """Return the windows without the flood, those with it, and when the steady team's requests were where."""
    codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url)
    capacity = arguments.concurrency / (statistics.mean(map(float, arguments.latency_ms.split(":"))) / 1000)
    quiet: list[Window] = []
    flooded: list[Window] = []
    began_ms = int(time.time() * 1000)
    async with KafkaBus(settings) as bus:
        load = Load(bus, codec)
        collecting = asyncio.create_task(load.collect(bus))
        await window(load, at_random(0.5 * capacity, 8, seed=1), at_random(0.5 * capacity, 8, seed=2), 60)
        for number in range(arguments.rounds):
            steady = at_random(_SHARE * capacity, arguments.seconds, seed=100 + number)
            flood = at_random(arguments.flood * _SHARE * capacity, arguments.seconds, seed=200 + number)
            quiet.append(await window(load, steady, [], arguments.deadline))
            flooded.append(await window(load, steady, flood, arguments.deadline))
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        at = await log_times(bus, began_ms)
    return quiet, flooded, at


def show(console: Console, quiet: Sequence[Window], flooded: Sequence[Window]) -> None:
    """Print the windows side by side, and all of each kind together."""
    table = Table("window", "", "asked", "p50 ms", "p95 ms", "max ms", "the flood's results", title="The steady team")
    for number, pair in enumerate(zip(quiet, flooded, strict=True)):
        for name, one in zip(("alone", "beside the flood"), pair, strict=True):
            ends = ", ".join(f"{count} {status}" for status, count in sorted(one.flood.items()))
            figures = [f"{one.at(share):.0f}" for share in (0.5, 0.95, 1.0)]
            table.add_row(str(number + 1), name, str(len(one.latencies)), *figures, ends)
    console.print(table)
    alone, beside = ([t for one in of for t in one.latencies] for of in (quiet, flooded))
    for share in (0.5, 0.95):
        before, after = quantile(alone, share), quantile(beside, share)
        console.print(
            f"p{share * 100:.0f} of all: {before:.0f} ms alone, {after:.0f} ms beside the flood ({after / before - 1:+.0%})"
        )
    lost = sum(count for one in (*quiet, *flooded) for status, count in one.steady.items() if status != "completed")
    if lost:
        raise SystemExit(f"{lost} requests of the steady team were not answered")


async def main(arguments: argparse.Namespace) -> None:
    """Start the flow, run the windows, and print."""
    console = Console(width=110)
    with bench_stack() as own:
        environ = {
            **own.environ, "PENSTOCK_LOG_LEVEL": "warning", "INFERENCE_CONCURRENCY": str(arguments.concurrency),
            "INFERENCE_SHADOW_CONCURRENCY": "0",
        }  # fmt: skip
        port = free_port()
        config = bench_config(own.folder / "config", port)
        (config / f"teams/{FLOODING}.yaml").write_text(f"name: {FLOODING}\n")
        deploy(environ, config)
        endpoint = ["tests.bench.mock_endpoint", str(port), "--concurrency", str(arguments.concurrency)]
        endpoint += ["--latency-ms", arguments.latency_ms]
        async with processes([endpoint], environ), services(SERVICES, own.stack, environ):
            quiet, flooded, at = await windows(own.settings, arguments)
        show_stages(console, quiet, flooded, at)
        show(console, quiet, flooded)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="length of a window")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each kind")
    parser.add_argument("--concurrency", type=int, default=16, help="answers that the endpoint works on at once")
    parser.add_argument("--latency-ms", default="100:200", help="least and most that the endpoint takes, milliseconds")
    parser.add_argument("--flood", type=float, default=10, help="what the flood is, in times of the other team")
    parser.add_argument("--deadline", type=float, default=10, help="how long an answer is of use to the flood, seconds")
    uvloop.run(main(parser.parse_args()))
