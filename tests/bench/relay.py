"""One hop of the raw relay: python -m tests.bench.relay FROM TO. Plain aiokafka, bytes in, bytes out, nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def _relay(source: str, sink: str) -> None:
    address = os.environ["KAFKA_BOOTSTRAP"]
    consumer = AIOKafkaConsumer(
        source, bootstrap_servers=address, group_id=f"relay-{source}", enable_auto_commit=False,
        auto_offset_reset="earliest",
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True, linger_ms=0)
    await consumer.start()
    await producer.start()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    committed = loop.time()
    while not stop.is_set():
        polled = await consumer.getmany(timeout_ms=200, max_records=256)
        records = [r for rs in polled.values() for r in rs]
        if records:
            await asyncio.gather(*[await producer.send(sink, r.value, key=r.key) for r in records])
        if loop.time() - committed > 0.25:
            await consumer.commit()
            committed = loop.time()
    await consumer.stop()
    await producer.stop()


if __name__ == "__main__":
    uvloop.run(_relay(sys.argv[1], sys.argv[2]))
