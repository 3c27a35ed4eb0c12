"""A shadow against what was served: pairs, whatever order they come in, and intervals that hold the truth."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from penstock.cli.shadow_comparison import Difference, ShadowPairs
from penstock.contracts.records import Completion, Context, Cost, Evaluation, Score, Timings, Usage

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def call(number: int, *, shadow: bool, ms: float = 100.0, **changes: Any) -> Completion:
    purpose, kind, target = ("shadow", "shadow", "tried") if shadow else ("serve", "completion", "stable")
    fields: dict[str, Any] = {
        "event_id": f"{kind}-{number}", "request_id": f"r{number}", "tenant_id": "t", "occurred_at": NOW, "causation_id": "",
        "context": Context(requested_at=NOW, purpose=purpose, user_id=f"u{number % 50}"), "messages": [], "model": target,
        "target": target, "backend": "openai", "kind": kind, "usage": Usage(output_tokens=7),
        "timings": Timings(model_us=int(ms * 1000)),
    }  # fmt: skip
    return Completion(**fields | changes)


def said(completion: Completion, score: float, cost: str) -> list[Evaluation | Cost]:
    envelope: dict[str, Any] = {
        "request_id": completion.request_id, "tenant_id": "t", "occurred_at": NOW, "causation_id": completion.event_id,
        "context": completion.context,
    }  # fmt: skip
    scores = [
        Score(name="groundedness", subject="answer", score=score),
        Score(name="rating", subject="feedback", score=1),
    ]
    return [
        Evaluation(event_id=f"{completion.event_id}-s", scores=scores, **envelope),
        Cost(event_id=f"{completion.event_id}-c", model="m", priced=True, amount=Decimal(cost), **envelope),
    ]


def figures(events: list[Any], route: str = "default") -> dict[str, Difference]:
    pairs = ShadowPairs(route)
    for event in events:
        pairs.take(event)
    (found,) = pairs.results()
    return {each.metric: each for each in found.differences}


def traffic(count: int) -> list[Any]:
    dice, events = np.random.default_rng(1), list[Any]()
    for number in range(count):
        slow = float(dice.normal(0, 5))
        served = call(number, shadow=False, ms=100 + slow)
        error = {"error": "away", "finish_reason": "error"} if number % 10 == 0 else {}
        shadow = call(number, shadow=True, ms=130 + slow + float(dice.normal(0, 20)), **error)
        events += [served, shadow, *said(served, 0.9, "0.001")]
        events += [] if error else said(shadow, 0.9 - 0.05 * float(dice.random()), "0.0004")
    return events


def test_figures_are_of_the_same_requests_whatever_the_order_and_however_often() -> None:
    events = traffic(200)
    found = figures(events)
    assert list(found) == ["failed", "model_ms", "cost", "output_tokens", "answer.groundedness"]
    assert (found["failed"].pairs, found["failed"].served, found["failed"].shadow) == (200, 0.0, 0.1)
    assert found["model_ms"].pairs == 180, "those that both answered"
    assert found["cost"].mean == pytest.approx(-0.0006)
    mixed = [*events, *events[:100]]
    random.Random(1).shuffle(mixed)
    again = figures(mixed)
    assert {name: pytest.approx(each.mean) for name, each in found.items()} == {n: e.mean for n, e in again.items()}
    low, high = found["model_ms"].low, found["model_ms"].high
    assert low is not None
    assert high is not None
    assert low < 30 < high
    assert high - low < 10, "the requests' own spread cancels out"


def test_what_is_no_pair_is_left_out() -> None:
    cached = call(1, shadow=False, kind="cached")
    repeat = call(2, shadow=False, attempt=1)
    judge = call(3, shadow=False, context=Context(requested_at=NOW, purpose="judge"))
    other = call(4, shadow=False, context=Context(requested_at=NOW, route="other"))
    alien = call(5, shadow=False, tenant_id="another")
    pairs = ShadowPairs("default")
    for event in [cached, repeat, judge, other, alien, *(call(number, shadow=True) for number in range(6))]:
        pairs.take(event)
    (found,) = pairs.results()
    assert (found.target, found.calls, found.requests, found.differences) == ("tried", 6, 0, ())


def test_there_is_no_interval_of_few_users_nor_where_nothing_differs() -> None:
    found = figures(traffic(20))["model_ms"]
    assert found.pairs == 18
    assert (found.low, found.high) == (None, None)
    assert figures(traffic(200))["output_tokens"].low is None


def test_an_interval_holds_the_truth_as_often_as_it_says_where_users_differ() -> None:
    """Users have levels of their own: intervals that took requests for independent would be too narrow."""
    held, streams = 0, 150
    for seed in range(streams):
        dice, events = np.random.default_rng(seed), list[Any]()
        level = dice.normal(0, 10, 50)
        for number in range(150):
            own = 50 + level[number % 50] + float(dice.normal(0, 5))
            events += [call(number, shadow=False), call(number, shadow=True, ms=100 + own)]
        found = figures(events)["model_ms"]
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 50 <= found.high
    assert 0.90 <= held / streams <= 0.99


def test_the_since_of_a_shadow_says_nothing_of_other_routes() -> None:
    late = call(1, shadow=True, occurred_at=NOW + timedelta(hours=1))
    pairs = ShadowPairs("another")
    pairs.take(late)
    assert pairs.results() == []
