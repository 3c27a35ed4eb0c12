"""The whole flow beside a raw relay over the same number of hops, on one machine, in one run.

    python -m tests.bench.bench_pipeline [--seconds 15] [--rates 100,300,600]

Pass-through: the route `bench` has no retrieval, the cheap policy `minimal`, and a mock endpoint that answers at once.
All seven services, the broker, the registry, Redis, the endpoint and the load generator share the machine. The raw relay
moves messages of the same size over five topics with plain aiokafka processes. Open loop: a request is sent when its
time has come, whether or not earlier ones are answered; latency counts from the planned time of the send.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import uvloop
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from penstock.bus import KafkaBus
from penstock.bus.types import RawReader
from penstock.contracts.catalogue import Catalogue, project_file
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import new_id
from penstock.contracts.records import LlmRequest, Message
from penstock.settings import KafkaSettings
from penstock.stack import Stack
from penstock.stack.ports import free_port
from penstock.stack.supervisor import FLOW
from rich.console import Console
from rich.table import Table

from tests.bench.bench_stack import bench_stack, deploy, services

HOPS = 5  # intake, guardrails, retrieval, inference, release gate
WARM_UP = (50, 8)
PROMPT = "Please summarise the state of order 1234 for the customer in two friendly sentences, with the next step. " * 3
Send = Callable[[str], Awaitable[Awaitable[object]]]


@dataclass(frozen=True, slots=True)
class Run:
    """What one rate gave. Latencies in milliseconds."""

    rate: int
    achieved: float
    answered: int
    sent: int
    p50: float
    p95: float
    p99: float
    behind_s: float = float("nan")
    """Seconds after the last result until the last request was also priced and scored."""


async def drive(rate: int, seconds: float, send: Send, reader: RawReader, identity: Callable[[object], str]) -> Run:
    """Send ``rate`` requests a second for ``seconds`` and wait for what comes back."""
    prefix = uuid.uuid4().hex[:8]
    planned: dict[str, float] = {}
    latencies: dict[str, float] = {}
    last = 0.0
    total = int(rate * seconds)

    async def collect() -> None:
        nonlocal last
        while len(latencies) < total:
            for message in await reader.poll(0.5):
                now = time.perf_counter()
                name = identity(message)
                if name in planned and name not in latencies:
                    latencies[name] = (now - planned[name]) * 1000
                    last = now

    collector = asyncio.create_task(collect())
    start = time.perf_counter()
    acks: list[Awaitable[object]] = []
    for number in range(total):
        due = start + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        name = f"{prefix}-{number}"
        planned[name] = due
        acks.append(await send(name))
    await asyncio.gather(*acks)
    with contextlib.suppress(TimeoutError):
        # What is not back a minute after the last send is lost or hopelessly late.
        await asyncio.wait_for(collector, 60)
    values = sorted(latencies.values()) or [float("nan")]

    def at(share: float) -> float:
        return values[min(len(values) - 1, int(share * len(values)))]

    return Run(rate, len(latencies) / max(last - start, 1e-9), len(latencies), total, at(0.5), at(0.95), at(0.99))


@contextlib.asynccontextmanager
async def processes(commands: Sequence[Sequence[str]], environ: dict[str, str]) -> AsyncIterator[list[int]]:
    started = [subprocess.Popen([sys.executable, "-m", *c], env=environ, stdout=subprocess.PIPE) for c in commands]
    try:
        yield [p.pid for p in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(20)


async def raw_relay(
    settings: KafkaSettings, environ: dict[str, str], rates: Sequence[int], seconds: float, size: int
) -> list[Run]:
    topics = [f"bench-relay-{n}" for n in range(HOPS + 1)]
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(t, num_partitions=4, replication_factor=1) for t in topics])
    await admin.close()
    commands = [["tests.bench.relay", a, b] for a, b in itertools.pairwise(topics)]
    async with processes(commands, environ), KafkaBus(settings) as bus:
        producer, reader = bus.producer(), await bus.read([topics[-1]], from_end=True)

        async def send(name: str) -> Awaitable[object]:
            return await producer.send(topics[0], name.encode(), name.encode().ljust(size, b"."))

        def identity(message: object) -> str:
            return str(message.key.decode())  # type: ignore[attr-defined]

        await drive(*WARM_UP, send, reader, identity)
        runs = [await drive(rate, seconds, send, reader, identity) for rate in rates]
        await reader.close()
    return runs


async def whole_flow(settings: KafkaSettings, codec: Codec, rates: Sequence[int], seconds: float) -> list[Run]:
    async with KafkaBus(settings) as bus:
        producer, reader = bus.producer(), await bus.read(["llm-results"], from_end=True)

        async def send(name: str) -> Awaitable[object]:
            return await producer.send("llm-requests", name.encode(), codec.encode("llm-requests", a_request(name)))

        def identity(message: object) -> str:
            return str(message.key.decode())  # type: ignore[attr-defined]

        await drive(*WARM_UP, send, reader, identity)
        runs = []
        for rate in rates:
            behind = await bus.read(["costs", "evaluations"], from_end=True)
            run = await drive(rate, seconds, send, reader, identity)
            runs.append(replace(run, behind_s=await caught_up(behind, 2 * run.sent)))
            await behind.close()
        await reader.close()
    return runs


async def caught_up(reader: RawReader, count: int) -> float:
    """Return how long it takes until ``reader`` has seen ``count`` messages."""
    start, seen = time.perf_counter(), 0
    while seen < count:
        seen += len(await reader.poll(0.5))
        if time.perf_counter() - start > 120:
            raise TimeoutError(f"only {seen} of {count} costs and evaluations after two minutes")
    return time.perf_counter() - start


def a_request(request_id: str) -> LlmRequest:
    return LlmRequest(
        event_id=new_id(), request_id=request_id, tenant_id="bench", occurred_at=datetime.now(UTC), causation_id="",
        route="bench", messages=[Message(role="user", content=PROMPT)],
    )  # fmt: skip


def bench_config(folder: Path, port: int) -> Path:
    """The project's configuration with a team, a route and a price for the bench."""
    shutil.copytree(project_file("infra/config"), folder, dirs_exist_ok=True)
    (folder / "teams/bench.yaml").write_text("name: bench\n")
    (folder / "routes/bench.yaml").write_text(
        "name: bench\ntargets: [{backend: openai, model: bench-model, "
        f"base_url: 'http://127.0.0.1:{port}/v1'}}]\nretrieval: {{enabled: false}}\npolicy: minimal\n"
    )
    (folder / "prices/bench.yaml").write_text(
        "model: bench-model\ninput_cost_per_token: 1e-7\noutput_cost_per_token: 2e-7\n"
    )
    return folder


def brokers(stack: Stack) -> dict[str, int]:
    """Process ids of the parts of the stack that run here."""
    return {part.name: part.pid for part in stack.status().parts if part.pid is not None}


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor time each process has used."""
    times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    return {name: used.user + used.system for name, used in times.items()}


def show(console: Console, raw: Sequence[Run], flow: Sequence[Run]) -> None:
    table = Table(
        "rate/s",
        "",
        "answered",
        "achieved/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "books behind s",
        title="Pass-through, two cores",
    )
    for one, other in zip(raw, flow, strict=True):
        for name, run in (("raw relay", one), ("penstock", other)):
            table.add_row(
                str(run.rate), name, f"{run.answered}/{run.sent}", f"{run.achieved:.0f}",
                f"{run.p50:.1f}", f"{run.p95:.1f}", f"{run.p99:.1f}",
                "" if run is one else f"{run.behind_s:.1f}",
            )  # fmt: skip
        table.add_row(
            "", "ratio", "", "", f"{other.p50 / one.p50:.2f}", f"{other.p95 / one.p95:.2f}", f"{other.p99 / one.p99:.2f}",
            style="bold", end_section=True,
        )  # fmt: skip
    console.print(table)


async def main(rates: Sequence[int], seconds: float) -> None:
    console = Console(width=110)
    with bench_stack() as own:
        environ, settings, port = {"EDGE_PORT": "0"} | own.environ, own.settings, free_port()
        deploy(environ, bench_config(own.folder / "config", port))
        codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url)
        size = len(codec.encode("llm-requests", a_request("x" * 16)))
        raw = await raw_relay(settings, environ, rates, seconds, size)
        environ["PENSTOCK_LOG_LEVEL"] = "warning"
        async with (
            processes([["tests.bench.mock_endpoint", str(port)]], environ),
            services(FLOW, own.stack, environ) as running,
        ):
            idle, before = running.rss(), cpu_seconds(running.pids() | brokers(own.stack))
            flow = await whole_flow(settings, codec, rates, seconds)
            busy, after = running.rss(), cpu_seconds(running.pids() | brokers(own.stack))
        show(console, raw, flow)
        requests = sum(run.sent for run in flow) + WARM_UP[0] * WARM_UP[1]
        table = Table("process", "idle MB", "after the load MB", "CPU ms a request", title="Memory and CPU")
        for name in after:
            memory = [f"{at[name] / 1e6:.0f}" if name in at else "" for at in (idle, busy)]
            table.add_row(name, *memory, f"{(after[name] - before[name]) / requests * 1000:.2f}")
        console.print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15, help="length of each run")
    parser.add_argument("--rates", default="100,300,600", help="requests per second, comma-separated")
    arguments = parser.parse_args()
    uvloop.run(main([int(rate) for rate in arguments.rates.split(",")], arguments.seconds))
