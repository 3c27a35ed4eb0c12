"""Pricing and spend beside a bare Faust app that does the same sends, in one run; memory over many events.

    python -m tests.bench.bench_money [--rounds 3] [--calls 20000] [--events 200000]

One worker each, in turn, over the same completions on one local Kafka. Penstock's is the service as it is shipped: it prices
exactly, drops duplicates, adds up every window of teams and budgets, watches for alerts, and keeps its state in changelogs.
The bare one decodes the same records and sends as many, and does nothing else. Both are timed from 10 % of the costs written
to the last offset committed, with the input already in the log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from penstock.bus import KafkaBus
from penstock.contracts.catalogue import Catalogue, project_file
from penstock.contracts.codec import Codec
from penstock.contracts.records import Completion, Context, Timings, Usage
from rich.console import Console
from rich.table import Table

from tests.bench.bare_faust import PARTITIONS, PREFIX
from tests.bench.bench_stack import bench_stack, deploy

_DEADLINE_S = 600.0
_SAMPLE_EVERY = 50_000
# So many fill the remembered event ids, 32,768 a partition: until then memory grows by them.
_WARM_UP = 150_000
_TEAMS = 12
_USERS = 200
_MODELS = ("gpt-4o-mini", "gpt-4o", "gpt-4.1", "gpt-4.1-mini")


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the two: its process, its group, and the topics it reads and writes."""

    name: str
    command: Sequence[str]
    group: str
    completions: str
    costs: str
    written: Sequence[str]
    """All topics that it writes."""


PENSTOCK = Worker(
    "penstock", ["-m", "services.evaluation"], "evaluation", "completions", "costs",
    ("costs", "team-spend", "alerts"),
)  # fmt: skip


def bare(totals: float) -> Worker:
    """The bare app, whose second agent sends so many totals a cost."""
    return Worker(
        "bare Faust", ["-m", "tests.bench.bare_faust", f"{totals:.4f}"], "bench-bare", f"{PREFIX}completions",
        f"{PREFIX}costs", (f"{PREFIX}costs", f"{PREFIX}team-spend"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Round:
    """What one worker did with one batch."""

    rate: float
    """Cost events a second."""
    cpu_ms: float
    """Processor time for each, milliseconds."""
    sends: float
    """Records sent for each."""


class Bench:
    """The log, and what stands on it."""

    def __init__(self, bus: KafkaBus, codec: Codec, consumer: AIOKafkaConsumer, environ: Mapping[str, str]) -> None:
        self._bus = bus
        self._codec = codec
        self._consumer = consumer
        self._environ = environ
        self._rng = random.Random(20260101)
        self._number = 0
        self._begun = datetime.now(UTC) - timedelta(days=1)

    async def produce(self, topics: Sequence[str], calls: int) -> None:
        """Write the same ``calls`` completions to each of ``topics``."""
        producer = self._bus.producer()
        for start in range(0, calls, 5_000):
            acks = []
            for _ in range(min(5_000, calls - start)):
                event = self._completion()
                value = self._codec.encode("completions", event)
                acks += [await producer.send(topic, event.request_id.encode(), value) for topic in topics]
            await asyncio.gather(*acks)

    def _completion(self) -> Completion:
        self._number += 1
        rng, number = self._rng, self._number
        at = self._begun + timedelta(milliseconds=50 * number)
        prompt = rng.randrange(50, 4000)
        return Completion(
            event_id=f"00000000-0000-4000-8000-{number:012d}", request_id=f"bench-request-{number}",
            tenant_id=f"bench-team-{rng.randrange(_TEAMS)}", occurred_at=at, causation_id="bench",
            context=Context(
                user_id=f"user-{rng.randrange(_USERS)}", key_id=f"key-{rng.randrange(4)}", requested_at=at, admitted_at=at,
                tags={"feature": rng.choice(("search", "chat", "mail"))},
            ),
            messages=[], model=f"{_MODELS[0]}-2024-07-18", request_model=rng.choice(_MODELS), backend="openai",
            usage=Usage(input_tokens=prompt, output_tokens=rng.randrange(500), cached_input_tokens=prompt // 3),
            timings=Timings(model_us=900_000),
        )  # fmt: skip

    async def end(self, *topics: str) -> int:
        """How many messages stand on the topics in all."""
        ends = await self._consumer.end_offsets([TopicPartition(t, n) for t in topics for n in range(PARTITIONS)])
        return sum(ends.values())

    async def behind(self, worker: Worker) -> int:
        """Messages that the worker has not committed yet."""
        topics = [worker.completions, worker.costs]
        return await self.end(*topics) - sum((await self._bus.committed(worker.group, topics)).values())

    async def until(self, holds: Callable[[], Any], what: str, process: subprocess.Popen[bytes], log: Path) -> None:
        """Ask the async function ``holds`` until it says so; ``log`` is the process's."""
        deadline = time.monotonic() + _DEADLINE_S
        while not await holds():
            if process.poll() is not None:
                raise RuntimeError(f"the worker ended with exit code {process.returncode}: {_tail(log)}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {_DEADLINE_S:.0f} s: {_tail(log)}")
            await asyncio.sleep(0.05)

    async def changelogs(self) -> list[str]:
        """Evaluation's changelog topics, which it writes as well."""
        return sorted(topic for topic in await self._consumer.topics() if topic.startswith("evaluation-"))

    @contextmanager
    def running(self, worker: Worker, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """The worker's process."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *worker.command], env=dict(self._environ), stdout=output, stderr=subprocess.STDOUT
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(60)

    async def one_round(self, worker: Worker, calls: int, log: Path) -> Round:
        """Let ``worker`` work off ``calls`` completions that are in the log already."""
        await self.produce([worker.completions], calls)
        before = await self.end(worker.costs)
        sent_before = await self._sent(worker)
        with self.running(worker, log) as process:

            async def warm() -> bool:
                return await self.end(worker.costs) >= before + calls // 10

            async def done() -> bool:
                return await self.end(worker.costs) >= before + calls and await self.behind(worker) == 0

            await self.until(warm, f"{worker.name} to begin", process, log)
            first, begun, cpu = await self.end(worker.costs), time.perf_counter(), _cpu(process)
            await self.until(done, f"{worker.name} to end", process, log)
            elapsed, cpu = time.perf_counter() - begun, _cpu(process) - cpu
            count = before + calls - first
        return Round(count / elapsed, cpu / count * 1000, (await self._sent(worker) - sent_before) / calls)

    async def _sent(self, worker: Worker) -> int:
        written = list(worker.written)
        if worker is PENSTOCK:
            written += await self.changelogs()
        return await self.end(*written)

    async def memory(self, events: int, log: Path, console: Console) -> list[tuple[int, float]]:
        """Return resident MB of one worker after every 50,000 of ``events`` costs."""
        samples = []
        with self.running(PENSTOCK, log) as process:
            start = await self.end(PENSTOCK.costs)
            for target in range(_SAMPLE_EVERY, events + 1, _SAMPLE_EVERY):
                # Not all at once: the log on disk is not what is measured.
                await self.produce([PENSTOCK.completions], _SAMPLE_EVERY)

                async def reached(target: int = target) -> bool:
                    return await self.end(PENSTOCK.costs) >= start + target and await self.behind(PENSTOCK) == 0

                begun = time.perf_counter()
                await self.until(reached, f"{target:,} costs", process, log)
                samples.append((target, psutil.Process(process.pid).memory_info().rss / 1e6))
                console.print(
                    f"{target:>10,} costs  {samples[-1][1]:6.1f} MB resident  "
                    f"({_SAMPLE_EVERY / (time.perf_counter() - begun):,.0f}/s since the last)",
                    highlight=False,
                )
        return samples


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _cpu(process: subprocess.Popen[bytes]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def bench_config(folder: Path) -> Path:
    """The project's configuration with teams that have budgets of every kind."""
    shutil.copytree(project_file("infra/config"), folder, dirs_exist_ok=True)
    budgets = [
        {"name": "day", "window": "day", "limit": 10_000},
        {"name": "month", "window": "month", "limit": 100_000},
        {"name": "user", "per": "user", "window": "day", "limit": 1_000},
        {"name": "feature", "per": "tag", "tag": "feature", "window": "rolling", "hours": 24, "limit": 900, "mode": "soft"},
    ]  # fmt: skip
    for number in range(_TEAMS):
        team = {"name": f"bench-team-{number}", "budgets": budgets}
        (folder / f"teams/bench-{number}.yaml").write_text(json.dumps(team))  # JSON is YAML
    return folder


async def main(rounds: int, calls: int, events: int) -> int:
    console = Console(width=110)
    with bench_stack("bench-money") as own:
        # In production it steps back for services that requests wait for; here both have the same standing.
        environ = own.environ | {"PENSTOCK_LOG_LEVEL": "warning", "NICENESS": "0"}
        state, settings = own.folder, own.settings
        deploy(environ, bench_config(state / "config"))
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
        await admin.start()
        names = [f"{PREFIX}{name}" for name in ("completions", "costs", "team-spend")]
        await admin.create_topics([NewTopic(name, num_partitions=PARTITIONS, replication_factor=1) for name in names])
        await admin.close()
        codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url)
        consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
        await consumer.start()
        try:
            async with KafkaBus(settings, client_id="bench-money") as bus:
                bench = Bench(bus, codec, consumer, environ)
                ratio = await throughput(bench, rounds, calls, state, console)
                growth = await grown(bench, events, state, console) if events >= 4 * _SAMPLE_EVERY else 0.0
        finally:
            await consumer.stop()
    return 0 if ratio >= 0.6 and growth < 0.1 else 1


async def throughput(bench: Bench, rounds: int, calls: int, state: Path, console: Console) -> float:
    """Let the two take turns, print what each did, and return the ratio of the medians."""
    # The first round says how many records penstock sends beside the costs; it also warms the broker up.
    first = await bench.one_round(PENSTOCK, calls, state / "penstock.log")
    other = bare(max(0.0, first.sends - 1))
    await bench.one_round(other, calls, state / "bare.log")
    table = Table("round", "", "costs/s", "CPU ms a cost", "sends a cost", title=f"{calls:,} costs a round, one worker")
    ours: list[Round] = []
    theirs: list[Round] = []
    for number in range(rounds):
        # Each goes first every other time.
        for worker, found in ((PENSTOCK, ours), (other, theirs))[:: 1 if number % 2 == 0 else -1]:
            one = await bench.one_round(worker, calls, state / f"{worker.group}.log")
            found.append(one)
            table.add_row(
                str(number + 1), worker.name, f"{one.rate:,.0f}", f"{one.cpu_ms:.3f}", f"{one.sends:.3f}",
                end_section=len(ours) == len(theirs),
            )  # fmt: skip
    console.print(table)
    rate = statistics.median(one.rate for one in ours), statistics.median(one.rate for one in theirs)
    ratio = rate[0] / rate[1]
    cpu = statistics.median(one.cpu_ms for one in theirs) / statistics.median(one.cpu_ms for one in ours)
    console.print(
        f"cost events a second and worker: penstock {rate[0]:,.0f}, bare Faust {rate[1]:,.0f}: "
        f"ratio {ratio:.2f} (wanted: 0.6 or more); by processor time {cpu:.2f}",
        highlight=False,
    )
    return ratio


async def grown(bench: Bench, events: int, state: Path, console: Console) -> float:
    """Print resident memory over ``events`` costs, and return its growth since it had warmed up."""
    samples = await bench.memory(events, state / "memory.log", console)
    after, warm = next(sample for sample in samples if sample[0] >= max(events // 4, _WARM_UP))
    growth = samples[-1][1] / warm - 1
    console.print(
        f"resident memory over {events:,} costs: {warm:.1f} MB after {after:,}, {samples[-1][1]:.1f} MB at the end "
        f"({growth:+.1%})",
        highlight=False,
    )
    return growth


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each worker")
    parser.add_argument("--calls", type=int, default=20_000, help="completions a turn")
    parser.add_argument("--events", type=int, default=200_000, help="costs over which memory is watched; 0 for none")
    arguments = parser.parse_args()
    raise SystemExit(uvloop.run(main(arguments.rounds, arguments.calls, arguments.events)))
