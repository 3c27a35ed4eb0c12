"""The log as the commands of ``penstock drift`` read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from time import perf_counter
from typing import Any, Protocol

import click
import msgspec
from penstock.bus import Message, history
from penstock.cli.connection import Connection, connect
from penstock.clock import SystemClock
from penstock.contracts.records import Signal
from penstock.settings import load_settings
from penstock.stateful import partition_count

from services.drift.core import Rules, logic
from services.drift.lookback.replay import Filter, Replay, as_line, chosen
from services.drift.lookback.replay_detectors import DEFAULT
from services.drift.lookback.replay_finding import Detector
from services.drift.lookback.replay_lines import BadLine, Event
from services.drift.lookback.replay_log import ServiceReplay, event_line, events_of
from services.drift.settings import Settings

__all__ = ["COMMANDS", "SIGNALS", "milliseconds", "replay_log", "service_rules", "within"]

SIGNALS = "signals"
COMMANDS = "drift-commands"

_PER = 10_000
_UNBOUNDED = 1e12


class Printing(Protocol):
    """Where detections and figures go."""

    def passed(self, detector: str, event: Event) -> None:
        """Take note of a value that a detector is about to see."""
        ...

    def detected(
        self, detector: str, segment: str | None, signal: str, index: int, kind: str | None, line: dict[str, Any]
    ) -> None:
        """Take a detection."""
        ...

    def close(self, seconds: dict[str, float]) -> None:
        """Take the time spent in each detector."""
        ...


def milliseconds(instant: datetime | None) -> int | None:
    """Return an instant as the broker knows it: ms since the epoch."""
    return None if instant is None else int(instant.timestamp() * 1000)


async def within(
    messages: AsyncIterator[Message], since: datetime | None, until: datetime | None
) -> AsyncIterator[Message]:
    """Yield the messages of a period by the broker's clock, its end excluded."""
    first, last = milliseconds(since), milliseconds(until)
    async for message in messages:
        if (first is None or message.timestamp_ms >= first) and (last is None or message.timestamp_ms < last):
            yield message


async def service_rules(false_alarms: float | None = None) -> Rules:
    """Return the rules of the service as this environment sets it.

    Args:
        false_alarms: expected false alarms in 10,000 values, in place of the budget of a day.
    """
    settings = load_settings(Settings)
    rules = settings.rules(await partition_count(settings, [SIGNALS]))
    if false_alarms is None:
        return rules
    budget = msgspec.structs.replace(rules.budget, per_day=_UNBOUNDED, most=false_alarms / _PER)
    return msgspec.structs.replace(rules, budget=budget)


async def replay_log(
    only: Filter,
    factories: Sequence[tuple[str, Callable[[str], Detector]]],
    false_alarms: float | None,
    printing: Printing,
) -> None:
    """Run detectors over ``signals``: the service's own as the whole service, any other value by value.

    Raises:
        click.ClickException: the log holds nothing of that period.
    """
    others = [each for each in factories if each[0] != DEFAULT]
    seconds: dict[str, float] = {}
    async with connect() as connection:
        if len(others) < len(factories):
            seconds[DEFAULT] = await _service(connection, only, await service_rules(false_alarms), printing)
        if others:
            running = Replay(others)
            await _others(connection, only, running, printing)
            seconds |= running.seconds
    printing.close(seconds)


async def _service(connection: Connection, only: Filter, rules: Rules, printing: Printing) -> float:
    since = milliseconds(only.since)
    async with history(connection.bus, [COMMANDS], since_ms=since) as messages:
        commands = [message async for message in within(messages, only.since, only.until)]
    running = ServiceReplay(logic(rules), connection.codec, SystemClock(), commands)

    async def told(messages: AsyncIterator[Message]) -> AsyncIterator[Message]:
        async for message in messages:
            for event in chosen(_events(connection, message, running.messages), Filter(only.segment, only.signal)):
                printing.passed(DEFAULT, event)
            yield message

    started = perf_counter()
    async with history(connection.bus, [SIGNALS], since_ms=since) as messages:
        async for confirmed in running.run(told(within(messages, only.since, only.until))):
            event = confirmed.event
            if only.segment in (None, event.segment) and only.signal in (None, event.signal):
                line = event_line(confirmed)
                printing.detected(DEFAULT, event.segment, event.signal, confirmed.index, event.pattern, line)
    if running.refused:
        click.echo(f"{running.refused} messages were put aside, as the service does: see `penstock dlq list`", err=True)
    return perf_counter() - started


async def _others(connection: Connection, only: Filter, running: Replay, printing: Printing) -> None:
    index = 0
    async with history(connection.bus, [SIGNALS], since_ms=milliseconds(only.since)) as messages:
        async for message in within(messages, only.since, only.until):
            for event in chosen(_events(connection, message, index), Filter(only.segment, only.signal)):
                for name in running.seconds:
                    printing.passed(name, event)
                try:
                    detections = running.observe(event)
                except BadLine as error:
                    raise click.ClickException(
                        f"signal {event.signal} of {message.topic} {message.partition}/{message.offset}: {error}; choose "
                        "signals that it watches with --signal"
                    ) from error
                for found in detections:
                    kind, line = found.finding.kind, as_line(found)
                    printing.detected(found.detector, event.segment, event.signal, event.index, kind, line)
            index += 1


def _events(connection: Connection, message: Message, index: int) -> list[Event]:
    """Return the values of a message of ``signals``; of one that cannot be read there are none."""
    record = connection.codec.readable(message.topic, message.value)
    return list(events_of(record, message, index)) if isinstance(record, Signal) else []
