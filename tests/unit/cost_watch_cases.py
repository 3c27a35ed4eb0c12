"""Costs for the tests of the watch, and the watch run over them as the shell runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from penstock.contracts.records import Alert, Context, Cost, LogRange, Usage

from services.evaluation.core.cost_watch import CostWatch, CostWatchRules, watch_keys, watch_step

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
TEAM_KEY, MODEL_KEY = "watch/team/acme", "watch/model/acme/large"


def cost(at: datetime, usd: str | None = "0.01", **fields: Any) -> Cost:
    """Return a cost of team acme on model large, in two equal shares."""
    number = fields.pop("number", 0)
    usage = fields.pop("usage", Usage(input_tokens=1000, output_tokens=100))
    total = None if usd is None else Decimal(usd).quantize(Decimal("1e-12"))
    half = None if total is None else total / 2
    values: dict[str, Any] = {
        "event_id": f"e{number}", "request_id": f"r{number}", "tenant_id": "acme", "occurred_at": at, "causation_id": "c",
        "context": Context(requested_at=at), "model": "large", "priced": total is not None, "amount": total,
        "input_amount": half, "output_amount": half, "usage": usage,
        "price_version": None if total is None else "v1",
    }  # fmt: skip
    return Cost(**{**values, **fields})


class Watched:
    """The states of all keys; alerts as they come, with the moment of their cost's message."""

    def __init__(self, rules: CostWatchRules | None = None) -> None:
        self.rules = rules or CostWatchRules()
        self.states: dict[str, CostWatch] = {}
        self.alerts: list[tuple[datetime, str, Alert]] = []
        self.offset = 0

    def feed(self, costs: Iterable[tuple[Cost, datetime]]) -> list[Alert]:
        """Take costs with the timestamps of their messages; return the alerts of these."""
        before = len(self.alerts)
        for each, now in costs:
            origin = LogRange(topic="costs", partition=3, first_offset=self.offset, last_offset=self.offset)
            for key in watch_keys(each):
                self.states[key], emits = watch_step(key, self.states.get(key), each, origin, self.rules, now)
                for emit in emits:
                    assert emit.topic == "alerts"
                    assert isinstance(emit.record, Alert)
                    assert emit.key == emit.record.fingerprint
                    self.alerts.append((now, key, emit.record))
            self.offset += 1
        return [alert for _, _, alert in self.alerts[before:]]


def office(hour: datetime) -> float:
    """Return calls a minute of a team with offices: quiet at night and at weekends."""
    working = 8 <= hour.hour < 18 and hour.weekday() < 5
    return 1.0 if working else 0.02


def steady(hour: datetime) -> float:
    """Return calls a minute of a team that is always busy."""
    return 1.0


def traffic(
    rate: Any, start: datetime, length: timedelta, seed: int, times: float = 1.0
) -> Iterator[tuple[Cost, datetime]]:
    """Yield costs of calls at random moments, ``rate(hour)`` a minute, lognormal and reaching the log a little later."""
    rng = np.random.default_rng(seed)
    hour = start
    while hour < start + length:
        minutes = min(timedelta(hours=1), start + length - hour) / timedelta(minutes=1)
        count = int(rng.poisson(rate(hour) * times * minutes))
        for at in np.sort(rng.random(count)) * minutes:
            moment = hour + timedelta(minutes=float(at))
            amount = f"{0.01 * float(rng.lognormal(0, 0.8)):.9f}"
            yield cost(moment, amount, number=int(rng.integers(1 << 40))), moment + timedelta(seconds=2)
        hour += timedelta(hours=1)
