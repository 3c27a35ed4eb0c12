"""The proof of the ledger: each cost against its call, each live sum against the ledger. Pure.

    1. ``config`` for what stands on config-teams and config-prices, from the beginning
    2. ``cost`` for what stands on costs, then ``close``
    3. ``source`` for what stands on completions and documents-indexed; ``cost`` for what came on costs meanwhile
    4. ``review`` for what stands on costs once more, where it :meth:`Verification.has_doubts`
    5. ``faults``

The live sums are compared with :attr:`Verification.ledger` by :mod:`penstock.ledger.standing` and
:mod:`penstock.ledger.comparison`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from penstock.bus.types import Event, Message
from penstock.contracts.codec import Undecodable
from penstock.contracts.records import Completion, ConfigEntry, Cost, DocumentIndexed
from penstock.ledger.budget_history import BudgetHistory
from penstock.ledger.faults import Fault
from penstock.ledger.price_history import PriceHistory
from penstock.ledger.reading import accounted_at, identity
from penstock.ledger.rebuild import Ledger, Series, number_at
from penstock.ledger.recomputation import Call, calls_of, is_derived, judge

__all__ = ["Beginnings", "Verification"]

_CLOCKS_MS = 10 * 60 * 1000
"""How far the clocks of the services and of the broker may differ."""
_CONFIG_MS = 60_000
"""How long after its publication a budget may still be unknown to evaluation."""


class Beginnings:
    """Where each topic begins: retention may have cut it."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, int], tuple[int, int]] = {}

    def see(self, message: Message) -> None:
        """Note a message; the first of each partition says where it begins."""
        self._first.setdefault((message.topic, message.partition), (message.offset, message.timestamp_ms))

    def offsets(self, topic: str) -> dict[int, int]:
        """Return the first offset by partition."""
        return {partition: offset for (name, partition), (offset, _) in sorted(self._first.items()) if name == topic}

    def complete_since_ms(self, topic: str, now_ms: int, retention_ms: int | None) -> int:
        """Return from when on a topic holds everything, ms since the epoch by the broker's clock; 0: from the beginning.

        A partition that is empty does not say what it held: what retention may have taken counts as taken.
        """
        cut = [at_ms for (name, _), (offset, at_ms) in self._first.items() if name == topic and offset > 0]
        return max([0 if retention_ms is None else now_ms - retention_ms, *cut])


class Verification:
    """Takes what stands on the log and says what is wrong with it.

    Memory: that of the :class:`Ledger`, and some 2 kB for each call whose cost is missing or in doubt.

    Args:
        now_ms: the present, ms since the epoch.
        retention_ms: how long topics keep their messages, by name; None or absent: for ever.
    """

    def __init__(self, now_ms: int, retention_ms: dict[str, int | None]) -> None:
        self.prices = PriceHistory()
        self.budgets = BudgetHistory()
        self.ledger = Ledger(self.budgets.budgets)
        self.beginnings = Beginnings()
        self.calls = 0
        self.early: Counter[tuple[Series, int]] = Counter()
        """Costs in the windows of a budget that may have come before evaluation knew the budget."""
        self.before: Counter[tuple[Series, int]] = Counter()
        """Those of them that came before the budget was published."""
        self._now_ms = now_ms
        self._retention_ms = retention_ms
        self._unreadable: dict[str, Fault] = {}
        self._faults: list[Fault] = []
        self._closed = 0
        self._found = bytearray()
        self._awaited: dict[bytes | str, tuple[Call, str]] = {}
        self._doubted: dict[bytes | str, Call] = {}
        self._callless: set[bytes | str] = set()

    def config(self, event: Event[ConfigEntry]) -> None:
        """Take over an event of config-teams or config-prices."""
        history = self.prices if event.topic == "config-prices" else self.budgets
        history.take(event.record, event.message.timestamp_ms)

    def undecodable(self, message: Message, error: Undecodable) -> None:
        """Note a message that cannot be read; told once, however often it is read."""
        self.beginnings.see(message)
        where = f"{message.topic}/{message.partition}/{message.offset}"
        self._unreadable[where] = Fault("undecodable", where, cause=error.reason)

    def cost(self, event: Event[Cost]) -> list[Series]:
        """Count a cost; return the series that it counts in, none where it stood on the log before."""
        cost, written_ms = event.record, event.message.timestamp_ms
        self.beginnings.see(event.message)
        conflicts = len(self.ledger.conflicts)
        try:
            grown = self.ledger.add(cost)
        except ValueError as error:
            self._faults.append(Fault("undecodable", _where(event), cause=str(error)))
            return []
        if not grown:
            if len(self.ledger.conflicts) > conflicts:
                cause = "one call was priced twice with other content, or the topic was written to by another"
                self._faults.append(Fault("conflict", _where(event), live=_amount(cost), cause=cause))
            return []
        if not is_derived(cost):
            cause = f"it says that it was caused by {cost.causation_id or 'nothing'}; only evaluation may write costs"
            self._faults.append(
                Fault("underived", _where(event), ledger=_amount(cost), difference=cost.amount, cause=cause)
            )
        awaited = self._awaited.pop(identity(cost.event_id), None)
        if awaited is not None:
            self._judge(awaited[0], event)
        for series in grown:
            if series.budget is None:
                continue
            known = self.budgets.known(series.team, series.budget)
            if known is not None and written_ms < known.since_ms + _CONFIG_MS:
                number = number_at(series.window, accounted_at(cost))
                self.early[series, number] += 1
                self.before[series, number] += written_ms < known.since_ms
        return grown

    def close(self) -> None:
        """Say that the calls of every cost taken so far are on the log, if their topic still holds them."""
        self._closed = len(self.ledger)
        self._found = bytearray(self._closed)

    def source(self, event: Event[Completion | DocumentIndexed]) -> None:
        """Take over what tells of calls."""
        self.beginnings.see(event.message)
        for call in calls_of(event.record, event.message.timestamp_ms):
            self.calls += 1
            own = identity(call.cost.event_id)
            index = self.ledger.index(call.cost.event_id)
            if index is None:
                self._awaited.setdefault(own, (call, _where(event)))
            elif index >= self._closed or not self._found[index]:
                if index < self._closed:
                    self._found[index] = 1
                if not self.ledger.says(call.priced(call.price(self.prices, call.read_ms))):
                    self._doubted.setdefault(own, call)

    @property
    def awaiting(self) -> int:
        """Calls whose cost has not come yet."""
        return len(self._awaited)

    def has_doubts(self) -> bool:
        """Return whether costs must be looked at once more; to be asked once all sources were taken."""
        since_us = self._complete_since_ms("completions") * 1000
        loose = {
            index
            for index in range(self._closed)
            if not self._found[index] and self.ledger.called_at_us(index) >= since_us
        }
        self._callless = self.ledger.identities(loose)
        return bool(self._callless or self._doubted)

    def review(self, event: Event[Cost]) -> None:
        """Look once more at a cost that is in doubt."""
        cost = event.record
        own = identity(cost.event_id)
        call = self._doubted.pop(own, None)
        if call is not None:
            self._judge(call, event)
        if own in self._callless:
            self._callless.discard(own)
            topic = "documents-indexed" if _of_document(cost) else "completions"
            if cost.occurred_at.timestamp() * 1000 >= self._complete_since_ms(topic):
                cause = f"nothing on {topic} leads to it: it was written by another, or {topic} was cut"
                self._faults.append(
                    Fault("no_call", _where(event), ledger=_amount(cost), difference=cost.amount, cause=cause)
                )

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong with the costs, once everything was taken."""
        yield from self._unreadable.values()
        yield from self._faults
        for call, where in self._awaited.values():
            price = call.price(self.prices, call.read_ms)
            amount = call.priced(price).amount
            yield Fault(
                "no_cost", where, live=_amount(call.priced(price)), difference=amount,
                cause="evaluation has not priced it: is it running, and is nothing of it among the dead letters?",
            )  # fmt: skip

    def ledger_since_ms(self) -> int:
        """Return from when on the topic costs holds everything, ms since the epoch; 0: from the beginning."""
        return self.beginnings.complete_since_ms("costs", self._now_ms, self._retention_ms.get("costs"))

    def _complete_since_ms(self, topic: str) -> int:
        since = self.beginnings.complete_since_ms(topic, self._now_ms, self._retention_ms.get(topic))
        return since + _CLOCKS_MS if since else 0

    def _judge(self, call: Call, event: Event[Cost]) -> None:
        cost = event.record
        for kind, figures in judge(call, cost, self.prices, event.message.timestamp_ms):
            named = self.prices.version(cost.price_version or "")
            right = call.priced(named).amount if named is not None else None
            difference = None
            if kind == "other_amount" and cost.amount is not None and right is not None:
                difference = right - cost.amount
            self._faults.append(
                Fault(
                    kind, _where(event), ledger=_amount(cost),
                    live="" if right is None else f"{right:f} USD by the call",
                    difference=difference,
                    cause=figures,
                )
            )  # fmt: skip


def _of_document(cost: Cost) -> bool:
    # What a question's embedding cost has the context of its request; a document's has none.
    return cost.kind == "embedding" and cost.context.requested_at == cost.occurred_at


def _where(event: Event[Cost] | Event[Completion | DocumentIndexed]) -> str:
    record = event.record
    return f"{event.topic}/{event.partition}/{event.offset}, request {record.request_id} of team {record.tenant_id}"


def _amount(cost: Cost) -> str:
    return "no price" if cost.amount is None else f"{cost.amount:f} USD"
