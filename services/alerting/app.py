"""The shell of alerting: each alert is decided, grouped, delivered, remembered and recorded, then its offset is
committed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from penstock.bus import Event, Hop, Outcome
from penstock.clock import Clock
from penstock.contracts.records import Alert
from penstock.telemetry import get_logger

from services.alerting.adapters import Channel, Memory
from services.alerting.core import Policy, Receipt, decide, group_of, recorded

__all__ = ["Deliveries", "delivery_hop"]

log = get_logger(__name__)

_KEPT = 10_000


@dataclass(slots=True)
class _Group:
    """Alerts that wait to be sent together."""

    alerts: list[Alert] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    receipt: asyncio.Future[Receipt] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Deliveries:
    """Brings each alert to the channel once, those of one group that come within a moment together."""

    def __init__(
        self, channel: Channel, memory: Memory, policy: Policy, clock: Clock, group_wait_s: float, group_most: int
    ) -> None:
        self._channel = channel
        self._memory = memory
        self._policy = policy
        self._clock = clock
        self._group_wait_s = group_wait_s
        self._group_most = group_most
        self._open: dict[str, _Group] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Acknowledged here, perhaps not yet in the memory: a retry because the memory was away must not send again.
        self._acknowledged: OrderedDict[str, Receipt] = OrderedDict()

    async def settle(self, alert: Alert) -> Receipt:
        """Return how the delivery of an alert ended; waits until it has.

        Raises:
            Transient: the memory is away.
        """
        receipt = self._acknowledged.get(alert.event_id) or await self._memory.receipt(alert.event_id)
        if receipt is None:
            last = await self._memory.last(alert.fingerprint)
            decision = decide(alert, last, self._policy, self._clock.now())
            if decision.deliver:
                receipt = await self._join(alert)
            else:
                receipt = Receipt("suppressed", self._channel.name, self._channel.destination, reason=decision.reason)
            if receipt.at is None:
                receipt = msgspec.structs.replace(receipt, at=self._clock.now())
        self._acknowledged[alert.event_id] = receipt
        while len(self._acknowledged) > _KEPT:
            self._acknowledged.popitem(last=False)
        await self._memory.remember(alert, receipt)
        return receipt

    async def close(self) -> None:
        """Stop what is under way. It was not committed, so it is delivered after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, alert: Alert) -> Receipt:
        key = group_of(alert)
        group = self._open.get(key)
        if group is None:
            group = self._open[key] = _Group()
            task = asyncio.create_task(self._send(key, group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        group.alerts.append(alert)
        if len(group.alerts) >= self._group_most:
            self._open.pop(key)
            group.full.set()
        return await asyncio.shield(group.receipt)

    async def _send(self, key: str, group: _Group) -> None:
        waits = [asyncio.ensure_future(self._clock.sleep(self._group_wait_s)), asyncio.ensure_future(group.full.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._open.get(key) is group:
            del self._open[key]
        try:
            receipt = await self._channel.deliver(group.alerts, lambda: self._answered(group.alerts))
        except asyncio.CancelledError:
            group.receipt.cancel()
            raise
        except Exception as error:
            group.receipt.set_exception(error)
            return
        group.receipt.set_result(receipt)

    async def _answered(self, alerts: Sequence[Alert]) -> Receipt | None:
        """Return a receipt if another replica has delivered all of the alerts."""
        receipts = [await self._memory.receipt(alert.event_id) for alert in alerts]
        return receipts[0] if all(receipt is not None for receipt in receipts) else None


def delivery_hop(deliveries: Deliveries, concurrency: int) -> Hop:
    """Return the hop alerts -> alert-deliveries.

    Alerts are in flight side by side, those of one fingerprint in order: a receiver that hangs holds up its own
    alerts, and consumption goes on. An alert's offset is committed only when its delivery has ended, so none is lost.
    """

    async def handle(events: Sequence[Event[Alert]]) -> Sequence[Outcome]:
        receipts = await asyncio.gather(*(deliveries.settle(event.record) for event in events))
        for event, receipt in zip(events, receipts, strict=True):
            log.info(
                "alert settled",
                event_id=event.record.event_id,
                kind=event.record.kind,
                outcome=receipt.outcome,
                attempts=receipt.attempts,
                reason=receipt.reason,
            )
        return [[recorded(event.record, receipt)] for event, receipt in zip(events, receipts, strict=True)]

    return Hop(service="alerting", group="alerting", topics=("alerts",), handler=handle, concurrency=concurrency)
