"""Sends tasks and waits for what becomes of them: for runs over golden sets, and whoever else wants verdicts in hand."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from penstock.bus import Producer, Transport
from penstock.bus.types import RawReader, Sent
from penstock.clock import Clock
from penstock.contracts.codec import Codec
from penstock.contracts.records import DeadLetter, Evaluation, JudgeTask

__all__ = ["Judged", "judge_all"]

_POLL_S = 0.5
_IN_FLIGHT = 500


@dataclass(slots=True)
class Judged:
    """What became of tasks, by their event_id: each is in exactly one of these.

    Attributes:
        evaluations: the verdicts.
        failed: why there is none, in words: the reason of the dead letter.
        waiting: tasks without an end when the time was over; theirs may still come.
    """

    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)


async def judge_all(
    tasks: Sequence[JudgeTask],
    *,
    transport: Transport,
    codec: Codec,
    producer: Producer,
    clock: Clock,
    timeout_s: float,
) -> Judged:
    """Send ``tasks`` and return what became of them, when all have ended or after ``timeout_s`` seconds.

    A task that was judged before, within a day, is not judged again: give each run's tasks event ids of their own.

    Raises:
        penstock.bus.KafkaUnavailable: Kafka is away, or a topic is missing.
        penstock.contracts.codec.Invalid: a task does not fit its schema.
    """
    judged = Judged(waiting={task.event_id for task in tasks})
    give_up = clock.monotonic() + timeout_s
    reader = await transport.read(["evaluations", "dlq-evaluation"], from_end=True)
    try:
        places = await _sent(tasks, producer)
        while judged.waiting and (left := give_up - clock.monotonic()) > 0:
            await _read(reader, min(left, _POLL_S), codec, places, judged)
    finally:
        await reader.close()
    return judged


async def _sent(tasks: Sequence[JudgeTask], producer: Producer) -> dict[tuple[str, int, int], str]:
    """Send the tasks; return where each stands in the log, which is what a dead letter says of it."""
    places: dict[tuple[str, int, int], str] = {}
    for start in range(0, len(tasks), _IN_FLIGHT):
        acks: list[tuple[JudgeTask, Awaitable[Sent]]] = [
            (task, await producer.send("judge-tasks", task.reply_key, task))
            for task in tasks[start : start + _IN_FLIGHT]
        ]
        for task, ack in acks:
            sent = await ack
            places[sent.topic, sent.partition, sent.offset] = task.event_id
    return places


async def _read(
    reader: RawReader, timeout_s: float, codec: Codec, places: dict[tuple[str, int, int], str], judged: Judged
) -> None:
    for message in await reader.poll(timeout_s):
        record = codec.readable(message.topic, message.value)
        if isinstance(record, Evaluation) and record.causation_id in judged.waiting:
            judged.evaluations[record.causation_id] = record
            judged.waiting.discard(record.causation_id)
        elif isinstance(record, DeadLetter):
            task = places.get((record.origin_topic, record.origin_partition, record.origin_offset))
            if task in judged.waiting:
                judged.failed[task] = f"{record.code}: {record.reason}"
                judged.waiting.discard(task)
