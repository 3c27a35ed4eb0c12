"""What watching costs: updates a second of each detector and of a worker, bytes of a segment, 100,000 segments in one.

    python -m tests.bench.bench_drift_worker [--segments 100000] [--messages 4000] [--no-kafka]

The step is the pure core; the worker is the service's own process on a Kafka of its own, killed by nobody.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from penstock.bus import KafkaBus, Message, Producer
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Signal
from penstock.settings import KafkaSettings

from services.drift.core import Rules, logic
from services.drift.lookback.replay_baselines import BASELINES
from services.drift.lookback.replay_detectors import factory
from tests.bench.bench_stack import bench_stack, deploy

PROJECT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
_MIB = 1024 * 1024
_DEADLINE_S = 300.0

SIGNALS = {
    "prompt.tokens": 60.0, "answer.tokens": 40.0, "answer.characters": 200.0, "model.latency_ms": 800.0,
    "model.error": 0.0, "retrieval.score": 0.6, "cost.usd": 2e-5, "cache.hit": 0.0,
}  # fmt: skip
"""Numbers of one completion as the projection writes them, and their sizes."""


def a_signal(number: int, segment: str, vector: bytes | None) -> Signal:
    """Return the ``number``-th event of a segment: eight numbers, a category, and an embedding where one is given."""
    rng = np.random.default_rng([number, len(segment)])
    values = {
        name: float(rng.random() < 0.1) if not size else size * float(rng.lognormal(0, 0.4))
        for name, size in SIGNALS.items()
    }
    return Signal(
        event_id=f"{segment}/{number}",
        request_id=f"r{number}",
        tenant_id=segment.partition("|")[0],
        occurred_at=NOW + timedelta(seconds=number),
        causation_id="bench",
        segment=segment,
        source="completions",
        source_partition=0,
        source_offset=number,
        values=values,
        categories={"answer.finish_reason": "stop" if rng.random() < 0.95 else "length"},
        vectors={} if vector is None else {"prompt.topic": vector},
        versions={"model": "m", "prompt": "v1"},
    )


def embeddings(count: int, dimensions: int = 384) -> list[bytes]:
    """Return vectors about a few topics, float32."""
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((8, dimensions))
    drawn = centres[rng.integers(8, size=count)] + rng.standard_normal((count, dimensions))
    return [row.astype("<f4").tobytes() for row in drawn]


def detectors() -> Iterator[str]:
    """Yield the pace of every detector, as a replay runs it."""
    rng = np.random.default_rng(1)
    numbers, errors = rng.normal(0, 1, 20_000).tolist(), (rng.random(20_000) < 0.2).astype(float).tolist()
    vectors = [np.frombuffer(row, "<f4") for row in embeddings(4000)]
    categories = rng.choice(["en", "de", "fr", "es"], 20_000, p=[0.7, 0.2, 0.07, 0.03]).tolist()
    streams: list[tuple[str, str, list[Any]]] = [
        ("penstock", "numbers", numbers), ("penstock", "rates", errors), ("penstock", "vectors", vectors),
        ("penstock", "categories", categories),
    ]  # fmt: skip
    for name in BASELINES:
        kind = "vectors" if name in ("mmd", "centroid") else "numbers" if name in _OF_NUMBERS else "rates"
        values = {"vectors": vectors, "numbers": numbers, "rates": errors}[kind]
        streams.append((name, kind, values[:3000] if name == "kswin" else values))
    for name, kind, values in streams:
        detector = factory(name)[1]("value")
        started = time.perf_counter()
        for index, value in enumerate(values):
            detector.update(value, index)
        spent = time.perf_counter() - started
        yield f"  {name:14s} {kind:10s} {len(values) / spent:12,.0f} a second  {spent / len(values) * 1e6:8.1f} us"


_OF_NUMBERS = ("adwin", "kswin", "page-hinkley", "ks")


class Partition:
    """One partition's states and the core on it, without a log."""

    def __init__(self, rules: Rules) -> None:
        self.states: dict[str, Any] = {}
        self._logic = logic(rules)
        self._offset = 0

    def take(self, record: Signal) -> int:
        """Take an event; return how many records it gave."""
        at = int(record.occurred_at.timestamp() * 1000)
        message = Message(
            topic="signals", partition=0, offset=self._offset, timestamp_ms=at, key=b"", value=b"", headers=()
        )
        self._offset += 1
        emitted = 0
        for key, event in self._logic.route(record, message, self.states.get):
            assert key is not None
            self.states[key], outputs = self._logic.step(self.states.get(key), event, record.occurred_at)
            emitted += len(outputs)
        return emitted


def core(messages: int) -> Iterator[str]:
    """Yield the pace of the pure step on whole events, and what a segment's state holds as it grows."""
    vectors = embeddings(messages)
    for name, with_vector in (("8 numbers, 1 category", False), ("8 numbers, 1 category, 1 embedding", True)):
        partition = Partition(Rules())
        records = [a_signal(n, "t|m|v|r", vectors[n] if with_vector else None) for n in range(messages)]
        sizes, started = {}, time.perf_counter()
        for number, record in enumerate(records, 1):
            partition.take(record)
            if number in (20, 100, 1000, messages):
                sizes[number] = len(msgspec.msgpack.encode(partition.states["t|m|v|r"]))
        spent = time.perf_counter() - started
        pace = messages / spent
        values = pace * (9 + with_vector)
        yield f"  {name:38s} {pace:8,.0f} events a second, {values:9,.0f} values a second"
        yield f"  {'':38s} bytes after events: " + ", ".join(f"{number:,}: {size:,}" for number, size in sizes.items())


def many(segments: int, events: int) -> Iterator[str]:
    """Yield the memory of a worker's table of many segments that each have seen many events.

    So many events of so many segments would take hours: 20 segments run, each in its own way, and the table holds
    their states as the worker's does, as bytes of its own for each of the segments.
    """
    vectors, states = embeddings(256), []
    for seed in range(20):
        partition, name = Partition(Rules()), f"team{seed}|m|v{seed}|r"
        for number in range(events):
            partition.take(a_signal(number, name, vectors[(number * 7 + seed) % 256]))
        states.append(msgspec.msgpack.encode(partition.states[name]))
    process = psutil.Process()
    before = process.memory_info().rss
    table: dict[bytes, bytes] = {}
    for segment in range(segments):
        # bytes(bytearray(...)) and not the same object once more.
        table[b"0/team%d|model%d|v%d|r" % (segment % 500, segment % 7, segment)] = bytes(
            bytearray(states[segment % 20])
        )
    grown = process.memory_info().rss - before
    yield f"  {segments:,} segments of {events:,} events each, 8 numbers, a category, an embedding: {grown / _MIB:,.0f} MiB"
    yield f"  bytes of a state: median {statistics.median(map(len, states)):,.0f}, largest {max(map(len, states)):,}"


async def worker(environment: Mapping[str, str], messages: int, segments: int) -> list[str]:
    """Return the pace of one service process from the topic to its acknowledged offsets."""
    catalogue = Catalogue.load()
    codec = await Codec.resolve(catalogue, environment["SCHEMA_REGISTRY_URL"], timeout_s=10)
    settings = KafkaSettings(
        kafka_bootstrap=environment["KAFKA_BOOTSTRAP"], schema_registry_url=environment["SCHEMA_REGISTRY_URL"]
    )
    vectors = embeddings(256)
    async with KafkaBus(settings, client_id="bench") as bus:
        producer = Producer(bus.producer(), codec, "bench")
        acks = []
        for number in range(messages):
            team = f"team{number % segments}"
            record = a_signal(number // segments, f"{team}|m|v|r", vectors[number % 256])
            acks.append(await producer.send("signals", f"{team}|r", record))
        for ack in acks:
            await ack
        started = time.perf_counter()
        run = {**os.environ, **environment, "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}"}
        with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
            service = subprocess.Popen(
                [sys.executable, "-m", "services.drift"], cwd=PROJECT, env=run, stdout=log, stderr=log
            )
            try:
                first, done, waiting = await _worked_off(bus, messages, service, Path(log.name))
                memory = psutil.Process(service.pid).memory_info().rss
            finally:
                service.terminate()
                service.wait(60)
    return [
        f"  {messages:,} events of {segments:,} segments: {waiting / (done - first):,.0f} events a second, "
        f"{first - started:.1f} s to start, {memory / _MIB:,.0f} MiB",
    ]


async def _worked_off(
    bus: KafkaBus, messages: int, service: subprocess.Popen[bytes], log: Path
) -> tuple[float, float, int]:
    """Return when the first offset was committed and when the last, and how many events lay between the two."""
    deadline, first, taken = time.perf_counter() + _DEADLINE_S, 0.0, 0
    while True:
        committed = sum((await bus.committed("drift", ["signals"])).values())
        now = time.perf_counter()
        if committed and not first:
            first, taken = now, committed
        if committed >= messages:
            return first, now, messages - taken
        if service.poll() is not None or now > deadline:
            raise RuntimeError(f"the worker stands at {committed} of {messages}: {_tail(log)}")
        await asyncio.sleep(0.05)


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


def on_kafka(messages: int, segments: int) -> list[str]:
    """Run the worker on a stack of its own."""
    with bench_stack("bench-drift") as own:
        deploy(own.environ)
        return asyncio.run(worker(own.environ, messages, segments))


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--segments", type=int, default=100_000, help="segments in one worker's table (default: 100,000)"
    )
    parser.add_argument("--messages", type=int, default=3000, help="events through the pure step")
    # Offsets are committed about once a second: with few events the pace is that of the commits.
    parser.add_argument("--kafka-messages", type=int, default=10_000, help="events through a worker on Kafka")
    parser.add_argument("--events", type=int, default=400, help="events that each segment in the table has seen")
    parser.add_argument("--no-kafka", action="store_true", help="leave out the worker on Kafka")
    arguments = parser.parse_args()
    print("detectors, one value after another")
    for line in detectors():
        print(line, flush=True)
    print("the pure step of a segment")
    for line in core(arguments.messages):
        print(line, flush=True)
    print("one worker's table")
    for line in many(arguments.segments, arguments.events):
        print(line, flush=True)
    if not arguments.no_kafka:
        print("one worker process on Kafka, from the log to its committed offsets")
        for line in on_kafka(arguments.kafka_messages, 40):
            print(line, flush=True)


if __name__ == "__main__":
    main()
