"""The share that caches serve, and when it has fallen: River's Page-Hinkley test with a confirmation. Pure.

Two shares are watched per team and model: prompt tokens that the provider's prefix cache served, and calls that the
exact or semantic cache answered. A value is the share of a batch of calls, so tokens weigh as they cost.

By tests/bench/bench_cost_alerts.py (a call a minute, shares of single calls with a deviation of 0.25 and a rhythm of the
day) a fall from 70 % to 20 % is told after 125 calls, one to 45 % or from 40 % to 20 % after 150 (medians); none of 18 was
missed, and there was no false alarm in 18 times 30 days.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec
from penstock.contracts.records import Cost
from river import drift, stats

from services.evaluation.core.cost_rules import CacheRateRules

__all__ = ["CacheFinding", "CacheRate", "observe_calls", "observe_tokens"]

_MEMORY = 400.0
_CLIP = 5.0
_SAMPLES = 5
_FADE = 0.98
_PROMPT_CACHED = frozenset({"completion", "repeat", "cancelled"})
_ANSWERED = frozenset({"completion", "cancelled", "cached"})


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Calls of the value to come."""

    hits: int = 0
    total: int = 0
    calls: int = 0
    saved: float = 0.0
    first: int = -1


class Fall(msgspec.Struct, frozen=True, array_like=True):
    """A fall: a candidate until it is confirmed."""

    before: float
    """Mean share before."""
    first: int
    """Offset of the first call of the first low batch."""
    since: float
    """Epoch seconds."""
    values: tuple[float, ...] = ()
    """The last shares since the finding."""
    confirmed: bool = False
    told_at: float = 0.0


class CacheRate(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one share: about 200 bytes.

    Attributes:
        count, mean, variance: of the batches' shares.
        tested, tested_mean, sum_decrease, max_decrease: of the Page-Hinkley test.
        saved, hits: USD saved and what was hit, fading: their ratio is what one hit saves.
        start, turn: offsets of the first call known, and of the first after the test last stood at its maximum.
        dearest: calls since then.
    """

    batch: Batch = Batch()
    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    tested: float = 0.0
    tested_mean: float = 0.0
    sum_decrease: float = 0.0
    max_decrease: float = 0.0
    saved: float = 0.0
    hits: float = 0.0
    start: int = -1
    turn: int = -1
    dearest: tuple[tuple[Decimal, str], ...] = ()
    fall: Fall | None = None


class CacheFinding(NamedTuple):
    """A fall that was confirmed, goes on or is over."""

    status: Literal["firing", "resolved", "accepted"]
    what: Literal["tokens", "calls"]
    before: float
    after: float
    batches: int
    saved_per_hit: float
    """USD."""
    cost_per_day: float
    """What the fall costs, USD a day."""
    first_offset: int
    last_offset: int
    baseline_first: int
    samples: tuple[str, ...]


def observe_tokens(
    state: CacheRate, cost: Cost, offset: int, per_day: Callable[[], float], rules: CacheRateRules, now: datetime
) -> tuple[CacheRate, CacheFinding | None]:
    """Add a call to the share of cached prompt tokens; ``per_day()`` prompt tokens are used in 24 hours."""
    usage = cost.usage
    if cost.kind not in _PROMPT_CACHED or usage.input_tokens <= 0:
        return state, None
    # No prompt is so long; sums must stay within 64 bits whatever a backend says.
    total = min(usage.input_tokens, 10**9)
    hits = min(max(usage.cached_input_tokens, 0), total)
    saved = _usd(cost.saved.get("prefix_cache"))
    return _observed(state, "tokens", hits, total, saved, cost, offset, per_day, rules, now)


def observe_calls(
    state: CacheRate, cost: Cost, offset: int, per_day: Callable[[], float], rules: CacheRateRules, now: datetime
) -> tuple[CacheRate, CacheFinding | None]:
    """Add a call to the share that a cache answered; ``per_day()`` calls are made in 24 hours."""
    if cost.kind not in _ANSWERED:
        return state, None
    saved = _usd(cost.saved.get("exact_cache")) + _usd(cost.saved.get("semantic_cache"))
    return _observed(state, "calls", int(cost.kind == "cached"), 1, saved, cost, offset, per_day, rules, now)


def _usd(amount: Decimal | None) -> float:
    return min(max(float(amount or 0), 0.0), 1e15)


def _observed(
    state: CacheRate,
    what: Literal["tokens", "calls"],
    hits: int,
    total: int,
    saved: float,
    cost: Cost,
    offset: int,
    per_day: Callable[[], float],
    rules: CacheRateRules,
    now: datetime,
) -> tuple[CacheRate, CacheFinding | None]:
    batch = state.batch
    batch = Batch(
        batch.hits + hits,
        batch.total + total,
        batch.calls + 1,
        batch.saved + saved,
        offset if batch.first < 0 else min(batch.first, offset),
    )
    dearest = state.dearest
    amount = cost.amount
    if amount is not None and hits < state.mean * total and (len(dearest) < _SAMPLES or amount > dearest[-1][0]):
        dearest = tuple(sorted({*dearest, (amount, cost.request_id)}, key=lambda each: (-each[0], each[1]))[:_SAMPLES])
    start = offset if state.start < 0 else state.start
    if batch.calls < rules.batch_calls:
        return msgspec.structs.replace(state, batch=batch, dearest=dearest, start=start), None
    share = batch.hits / batch.total
    state = msgspec.structs.replace(
        state,
        batch=Batch(),
        dearest=dearest,
        start=start,
        saved=state.saved * _FADE + batch.saved,
        hits=state.hits * _FADE + batch.hits,
    )
    if state.fall is None:
        return _tested(state, share, batch, rules, now), None
    return _going_on(state, state.fall, share, what, offset, per_day, rules, now)


def _tested(state: CacheRate, share: float, batch: Batch, rules: CacheRateRules, now: datetime) -> CacheRate:
    count, mean, variance = state.count, state.mean, state.variance
    fall, turn = None, state.turn
    tested, tested_mean, sum_decrease, max_decrease = (
        state.tested,
        state.tested_mean,
        state.sum_decrease,
        state.max_decrease,
    )
    if count >= rules.least_batches and mean > 0:
        deviation = max(math.sqrt(max(variance, 0.0)), 0.02)
        standard = max(-_CLIP, min(_CLIP, (share - mean) / deviation))
        test: Any = drift.PageHinkley(1, rules.delta, rules.threshold, 1.0, "down")
        test._x_mean = stats.Mean._from_state(tested, tested_mean)
        test._sum_decrease, test._max_decrease = sum_decrease, max_decrease
        test.update(standard)
        sum_decrease, max_decrease = test._sum_decrease, test._max_decrease
        tested, tested_mean = min(test._x_mean.n, _MEMORY), test._x_mean.get()
        if sum_decrease >= max_decrease:
            # Only differences count; both begin at 0 again, so that they cannot grow without end.
            sum_decrease = max_decrease = 0.0
            turn = -1
            state = msgspec.structs.replace(state, dearest=())
        elif turn < 0:
            turn = batch.first
        if test.drift_detected:
            fall = Fall(mean, turn if turn >= 0 else batch.first, now.timestamp())
            sum_decrease = max_decrease = 0.0
    if fall is None:
        count += 1
        difference = share - mean
        weight = min(float(count), _MEMORY)
        mean += difference / weight
        variance += (difference * (share - mean) - variance) / weight
    return msgspec.structs.replace(
        state,
        count=count,
        mean=mean,
        variance=variance,
        tested=tested,
        tested_mean=tested_mean,
        sum_decrease=sum_decrease,
        max_decrease=max_decrease,
        turn=turn,
        fall=fall,
    )


def _going_on(
    state: CacheRate,
    fall: Fall,
    share: float,
    what: Literal["tokens", "calls"],
    offset: int,
    per_day: Callable[[], float],
    rules: CacheRateRules,
    now: datetime,
) -> tuple[CacheRate, CacheFinding | None]:
    values = (*fall.values, share)[-max(rules.confirm_most, rules.resolve_batches) :]
    fall = msgspec.structs.replace(fall, values=values)
    at = now.timestamp()

    def finding(status: Literal["firing", "resolved", "accepted"], after: float) -> CacheFinding:
        per_hit = state.saved / state.hits if state.hits > 0 else 0.0
        return CacheFinding(
            status,
            what,
            fall.before,
            after,
            len(values),
            per_hit,
            max(fall.before - after, 0.0) * per_day() * per_hit,
            min(fall.first, offset),
            offset,
            min(state.start, fall.first),
            tuple(request for _, request in state.dearest),
        )

    recent = values[-rules.resolve_batches :]
    back = math.fsum(recent) / len(recent)
    tolerated = max(rules.least_fall, fall.before * rules.least_relative_fall) / 2
    if len(recent) >= rules.resolve_batches and back >= fall.before - tolerated:
        ended = msgspec.structs.replace(state, fall=None, turn=-1, dearest=())
        return ended, finding("resolved", back) if fall.confirmed else None
    if at - fall.since >= rules.accept_after.total_seconds():
        return CacheRate(saved=state.saved, hits=state.hits), finding("accepted", back) if fall.confirmed else None
    if len(values) < rules.confirm_batches:
        return msgspec.structs.replace(state, fall=fall), None
    after = math.fsum(values) / len(values)
    found = finding("firing", after)
    large = fall.before - after >= max(rules.least_fall, fall.before * rules.least_relative_fall)
    if large and found.cost_per_day >= rules.least_cost:
        if fall.confirmed and at - fall.told_at < rules.repeat_after.total_seconds():
            return msgspec.structs.replace(state, fall=fall), None
        return msgspec.structs.replace(state, fall=msgspec.structs.replace(fall, confirmed=True, told_at=at)), found
    if not fall.confirmed and len(values) >= rules.confirm_most:
        return msgspec.structs.replace(state, fall=None, turn=-1, dearest=()), None
    return msgspec.structs.replace(state, fall=fall), None
