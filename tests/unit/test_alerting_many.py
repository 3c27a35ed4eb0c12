"""Many alerts at once: nothing that alerting keeps or changes in one piece grows with their number."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

import pytest
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Severity

from services.alerting.store import Body, Keys, Transaction, Write
from tests.unit.alerting_fakes import Platform, an_alert, an_entry
from tests.unit.alerting_memory_store import MemoryStore

T = TypeVar("T")


class Killed(Exception):
    """The process ended."""


class Measuring(MemoryStore):
    """Notes the largest value, and how many incidents one transaction changed at most; ends the process where told to."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.incidents = 0
        self.killed_at = -1

    async def run(self, body: Body[T], *, rebuilding: bool = False) -> T:
        async def measured(transaction: Transaction) -> T:
            result = await body(transaction)
            changed = sum(str(write[1]).startswith(Keys.incident("")) for write in transaction.writes)
            self.incidents = max(self.incidents, changed)
            if changed > 1:
                self.killed_at -= 1
                if self.killed_at == 0:
                    raise Killed
            return result

        return await super().run(measured, rebuilding=rebuilding)

    def _apply(self, write: Write) -> None:
        super()._apply(write)
        if write[0] == "SET":
            self.largest = max(self.largest, len(write[2]))  # type: ignore[arg-type]


async def test_a_summary_of_thousands_names_the_gravest_and_counts_every_other(catalogue: Catalogue) -> None:
    store = Measuring()
    entry = an_entry("oncall", group_by=["team"], most_per_hour=1, repeat_interval_s=86_400, group_wait_s=5)
    platform = Platform(catalogue, entry, store)
    total = 3200
    await platform.publish(*(an_alert(f"a{number}", fingerprint=f"f{number}") for number in range(100)))
    await platform.work(10)
    await platform.publish(
        *(
            an_alert(
                f"a{number}",
                fingerprint=f"f{number}",
                severity=Severity.INFO if number % 50 else Severity.WARNING,
            )
            for number in range(100, total)
        )
    )
    await platform.work(2 * 3600, step=300)
    first, summary = (notification for notification, _ in platform.channels["oncall"].got)
    assert len(first.alerts) == len(summary.alerts) == 100
    assert summary.left_out == total - 200
    named = Counter(alert.severity for alert in summary.alerts)
    assert named[Severity.WARNING] == (total - 100) // 50, "wherever they stood among the rest"
    ended = Counter(record.causation_id for record in platform.deliveries() if record.next_try_at is None)
    assert ended == {f"a{number}": 1 for number in range(total)}
    assert store.largest < 1_500_000
    assert store.incidents <= 10
    assert not any(key.startswith(Keys.progress("")) for key in store.data)


async def test_a_message_that_is_settled_in_part_is_settled_on_from_there(catalogue: Catalogue) -> None:
    store = Measuring()
    platform = Platform(catalogue, an_entry("oncall", repeat_interval_s=3600), store)
    await platform.publish(*(an_alert(f"a{number}", fingerprint=f"f{number}") for number in range(95)))
    store.killed_at = 4
    with pytest.raises(Killed):
        await platform.work(5)
    assert store.incidents == 10
    await platform.work(60)
    _, platform.dispatcher, _ = platform.replica("two")
    await platform.work(60)
    assert len(platform.channels["oncall"].got) == 1
    assert Counter(outcome for _, _, outcome in platform.outcomes()) == {"delivered": 95}
    # Each incident knows that it was told: an hour later each is repeated, once.
    await platform.work(3600, step=60)
    told = Counter(each for _, ids in platform.channels["oncall"].told() for each in ids)
    assert told == {f"a{number}": 2 for number in range(95)}
