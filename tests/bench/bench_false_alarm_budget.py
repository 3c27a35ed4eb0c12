"""False alarms of a partition of drift over days without a change, beside its budget, and how soon it finds one.

    python -m tests.bench.bench_false_alarm_budget [--segments 40] [--events 400] [--days 3] [--budgets 1 10 100]

Each segment has eight signals: costs and latencies (lognormal), lengths (negative binomial), a rare and a common rate, a
score (beta), a language, and a topic (an embedding from one of four clusters). A budget is what the whole partition may
spend in a day, so what is found before the change is to be compared with days times budget. In the last twelve hours the
costs of every segment rise by a factor of 1.5, which is one deviation. With ``--run`` the messages of a segment stay on a
cluster for so many on the average, as those of conversations do; with ``--untold`` nobody says which belong together.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from penstock.bus import Message
from penstock.contracts.records import DriftEvent, Signal

from services.drift.budget import Budget
from services.drift.core import Rules, logic

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
DIMENSIONS = 64
_CHANGE_HOURS = 12
_FACTOR = 1.5


def traffic(
    segments: int, per_day: int, days: int, seed: int, run: float = 1.0, told: bool = True
) -> Iterator[tuple[Signal, bool]]:
    """Yield the signals of a partition in order, and whether they come after the change."""
    rng = np.random.default_rng(seed)
    total = segments * per_day * days
    span = timedelta(days=days)
    centres = rng.standard_normal((4, DIMENSIONS))
    levels = np.exp(rng.normal(0, 1, segments))
    state = rng.integers(0, 4, segments)
    conversation = np.zeros(segments, int)
    for n in range(total):
        which = int(rng.integers(0, segments))
        at = BEGIN + span * (n / total)
        changed = at >= BEGIN + span - timedelta(hours=_CHANGE_HOURS)
        if rng.random() < 1 / run:
            state[which] = rng.integers(0, 4)
            conversation[which] += 1
        level = levels[which]
        values = {
            "cost.usd": 1e-5 * level * float(np.exp(rng.normal(0, 0.4))) * (_FACTOR if changed else 1),
            "model.latency_ms": 200 * level * float(np.exp(rng.normal(0, 0.6))),
            "prompt.tokens": float(1 + rng.negative_binomial(4, 0.05)),
            "model.error": float(rng.random() < 0.01),
            "retrieval.empty": float(rng.random() < 0.2),
            "answer.groundedness": float(rng.beta(8, 2)),
        }
        vector = (centres[state[which]] + rng.standard_normal(DIMENSIONS)).astype("<f4")
        yield (
            Signal(
                event_id=f"e{n}", request_id=f"r{n}", tenant_id="bench", occurred_at=at, causation_id=f"c{n}",
                segment=f"bench|m|v1|route{which}", source="completions", source_partition=0, source_offset=n, values=values,
                categories={"answer.language": str(rng.choice(["en", "de", "fr"], p=[0.8, 0.15, 0.05]))},
                vectors={"prompt.topic": vector.tobytes()},
                conversation_id=f"{which}-{conversation[which]}" if told else None,
            ),
            changed,
        )  # fmt: skip


def figures(budget: float, segments: int, per_day: int, days: int, seed: int, run: float, told: bool) -> str:
    """Run the partition once and return a line of the table."""
    rules = logic(Rules(budget=Budget(per_day=budget)))
    states: dict[str, Any] = {}
    false = events = 0
    since: dict[str, int] = {}
    delays: dict[str, int] = {}
    begun = time.process_time()
    for record, changed in traffic(segments, per_day, days, seed, run, told):
        events += 1
        if changed:
            since[record.segment] = since.get(record.segment, 0) + 1
        message = Message("signals", 0, record.source_offset, round(record.occurred_at.timestamp() * 1000), b"k", b"v")
        stores = []
        for key, event in rules.route(record, message, states.get):
            assert key is not None
            state, emits = rules.step(states.get(key), event, record.occurred_at)
            stores.append((key, state))
            for emit in emits:
                told = emit.record
                if isinstance(told, DriftEvent):
                    if changed and told.signal == "cost.usd" and told.what == "level":
                        delays.setdefault(told.segment, since[told.segment])
                    else:
                        false += 1
        states.update(stores)
    spent = time.process_time() - begun
    delay = f"{float(np.median(list(delays.values()))):.0f}" if delays else "-"
    return (
        f"| {budget:g} | {budget * days:g} | {false} | {10_000 * false / (events * 8):.3f} "
        f"| {len(delays)} of {len(since)} | {delay} | {events / spent:,.0f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=40, help="segments of the partition (default: 40)")
    parser.add_argument("--events", type=int, default=400, help="events of a segment in a day (default: 400)")
    parser.add_argument("--days", type=int, default=3, help="days (default: 3)")
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[1.0, 10.0, 100.0], help="a day (default: 1 10 100)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the traffic (default: 1)")
    parser.add_argument("--run", type=float, default=1.0, help="messages on one cluster in a row (default: 1)")
    parser.add_argument("--untold", action="store_true", help="producers name no conversation")
    given = parser.parse_args()
    print(
        "| budget a day | may be spent | false alarms | in 10,000 values | changes found | delay, events | events/s |"
    )
    print("|---|---|---|---|---|---|---|")
    for budget in given.budgets:
        print(
            figures(budget, given.segments, given.events, given.days, given.seed, given.run, not given.untold),
            flush=True,
        )


if __name__ == "__main__":
    main()
