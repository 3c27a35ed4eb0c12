"""The shell of alerting: alerts and actions are taken in, their offsets are committed, and the dispatcher does the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from penstock.bus import Event, Hop, Outcome, Transient
from penstock.contracts.records import Alert, AlertAction
from penstock.telemetry import get_logger

from services.alerting.desk import Desk
from services.alerting.store import Emptied

__all__ = ["action_hop", "alert_hop"]

log = get_logger(__name__)
T = TypeVar("T")

Restore = Callable[[], Awaitable[None]]
"""Returns once what alerting knows stands in Redis."""


def alert_hop(desk: Desk, restore: Restore, concurrency: int) -> Hop:
    """Return the hop that takes alerts in.

    An alert's offset is committed once its incident and what is to be told of it stand in Redis: a receiver that fails for
    hours holds up no alert.
    """

    async def taken(event: Event[Alert]) -> Outcome:
        emits = await _whole(restore, desk.alert, event)
        record = event.record
        log.info("alert", event_id=record.event_id, kind=record.kind, name=record.name, held=len(emits))
        return emits

    async def handle(events: Sequence[Event[Alert]]) -> Sequence[Outcome]:
        return await asyncio.gather(*(taken(event) for event in events))

    return Hop(service="alerting", group="alerting", topics=("alerts",), handler=handle, concurrency=concurrency)


def action_hop(desk: Desk, restore: Restore) -> Hop:
    """Return the hop that takes in what people do about alerts."""

    async def handle(events: Sequence[Event[AlertAction]]) -> Sequence[Outcome]:
        outcomes = []
        for event in events:
            outcomes.append(await _whole(restore, desk.action, event))
            action = event.record
            log.info(
                "action",
                action=action.action,
                fingerprint=action.fingerprint,
                silence_id=action.silence_id,
                author=action.author,
            )
        return outcomes

    return Hop(service="alerting", group="alerting-actions", topics=("alert-actions",), handler=handle)


async def _whole(restore: Restore, step: Callable[[Event[Any]], Awaitable[T]], event: Event[Any]) -> T:
    while True:
        try:
            return await step(event)
        except Emptied:
            await _restored(restore)


async def _restored(restore: Restore) -> None:
    try:
        await restore()
    except Transient:
        raise
    except Exception as error:
        # The event is not to blame, whatever it is, and must not become a dead letter.
        raise Transient(f"what alerting knew cannot be rebuilt from the log: {error}") from error
