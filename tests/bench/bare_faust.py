"""A bare Faust app for bench_money: python -m tests.bench.bare_faust TOTALS

Two agents as Faust's documentation writes them. One decodes each completion and sends a cost, the other decodes each cost
and sends TOTALS totals for each, on average. They compute nothing, keep nothing, and acknowledge as Faust does by itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import faust
import uvloop
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Context, Cost, TeamSpend, Usage
from penstock.settings import ServiceSettings
from penstock.stateful import faust_settings

PREFIX = "bench-bare-"
"""Its topics are copies of the project's, under names with this before them."""
PARTITIONS = 4

_AT = datetime(2026, 1, 5, 9, tzinfo=UTC)
_ENVELOPE = {
    "event_id": "ba28d38c-278a-545e-967b-85446e749de4", "request_id": "0b6f3c1e-58d4-4b8e-9a53-7a4b1c0de001",
    "tenant_id": "bench-team-3", "occurred_at": _AT, "causation_id": "2469f97b-5e55-5c6c-b714-14a4639ae4cd",
}  # fmt: skip
COST = Cost(
    **_ENVELOPE,  # type: ignore[arg-type]
    context=Context(
        user_id="user-17", key_id="key-2", tags={"feature": "search"}, requested_at=_AT, admitted_at=_AT,
    ),
    model="gpt-4o-mini", backend="openai", priced=True, price_version="526a7ba6f49185ca",
    amount=Decimal("0.000080400000"), input_amount=Decimal("0.000061800000"), output_amount=Decimal("0.000018600000"),
    compute_amount=Decimal("0.000000000000"), usage=Usage(input_tokens=412, output_tokens=31), accounted_at=_AT,
)  # fmt: skip
SPEND = TeamSpend(
    **_ENVELOPE,  # type: ignore[arg-type]
    window="day", window_start=_AT, window_end=_AT, amount=Decimal("12.345678901234"), calls=100_000,
    saved=Decimal("1.345678901234"), budget=Decimal(50),
)  # fmt: skip


async def main(totals: float) -> None:
    """Run until SIGTERM."""
    settings = ServiceSettings(kafka_bootstrap=os.environ["KAFKA_BOOTSTRAP"])
    codec = await Codec.resolve(Catalogue.load(), os.environ["SCHEMA_REGISTRY_URL"])
    app = faust.App("bench-bare", **faust_settings(settings, PARTITIONS))
    completions, costs, spends = (
        app.topic(PREFIX + name, key_type=bytes, value_type=bytes) for name in ("completions", "costs", "team-spend")
    )

    @app.agent(completions, concurrency=1)
    async def price(stream: Any) -> AsyncIterator[None]:
        async for value in stream:
            codec.decode("completions", value)
            await costs.send(key=b"bench-team-3", value=codec.encode("costs", COST))
            yield

    @app.agent(costs, concurrency=1)
    async def spend(stream: Any) -> AsyncIterator[None]:
        due = 0.0
        async for value in stream:
            codec.decode("costs", value)
            due += totals
            while due >= 1:
                due -= 1
                await spends.send(key=b"bench-team-3/day/2026-01-05", value=codec.encode("team-spend", SPEND))
            yield

    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await app.start()
    await stopping.wait()
    await app.stop()


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1])))
