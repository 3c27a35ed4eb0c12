"""The watch over costs: changed prices, caches that serve less, and what holds whatever comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.contracts.records import Alert, Context, Cost, LogRange, Usage

from services.evaluation.core.cost_rules import CacheRateRules, CostWatchRules, SpendRateRules
from services.evaluation.core.cost_watch import CostWatch, watch_expires, watch_keys, watch_step
from tests.unit.cost_watch_cases import MODEL_KEY, MONDAY, TEAM_KEY, Watched, cost, steady, traffic

ORIGIN = LogRange(topic="costs", partition=3, first_offset=7, last_offset=7)


def priced(
    version: str, per_call: str, start: datetime, calls: int, every: timedelta = timedelta(minutes=1), number: int = 0
) -> Iterator[tuple[Cost, datetime]]:
    """Yield calls at one price."""
    for index in range(calls):
        at = start + every * index
        yield cost(at, per_call, price_version=version, number=number + index), at


def names(alerts: Sequence[Alert]) -> list[str]:
    return [alert.name for alert in alerts]


def test_a_changed_price_is_told_once_with_what_it_costs() -> None:
    watched = Watched()
    change = MONDAY + timedelta(hours=30)
    assert watched.feed(priced("v1", "0.010", MONDAY, 30 * 60)) == []
    alerts = watched.feed(priced("v2", "0.012", change, 600))
    assert names(alerts) == ["price_changed"]
    alert = alerts[0]
    # 24 full hours of 60 calls cost 14.4 USD; at the new rates a fifth more.
    assert "cost 14.4 USD" in alert.description
    assert "about 2.88 USD more (+20.0%)" in alert.description
    assert alert.figures["day_at_new"] == pytest.approx(17.28)
    assert alert.figures["per_thousand_before"] == pytest.approx(0.010 / 1.1)
    assert alert.figures["per_thousand_after"] == pytest.approx(0.012 / 1.1)
    assert (alert.severity, alert.status, alert.labels) == ("warning", "firing", {"team": "acme", "model": "large"})
    assert "v1" in alert.description
    assert "v2" in alert.description
    assert alert.evidence[0].first_offset == 30 * 60
    assert (alert.evidence[1].first_offset, alert.evidence[1].last_offset) == (0, 30 * 60 - 1)
    assert len(alert.sample_requests) == 5
    assert watched.alerts[0][0] - change == timedelta(minutes=15)


@pytest.mark.parametrize(("per_call", "severity"), [("0.0099", "info"), ("0.0104", "info"), ("0.0106", "warning")])
def test_a_fall_or_a_small_rise_is_information(per_call: str, severity: str) -> None:
    watched = Watched()
    watched.feed(priced("v1", "0.010", MONDAY, 200))
    alerts = watched.feed(priced("v2", per_call, MONDAY + timedelta(minutes=200), 50))
    assert [alert.severity for alert in alerts] == [severity]


def test_late_calls_at_the_old_price_are_no_change() -> None:
    watched = Watched()
    watched.feed(priced("v1", "0.010", MONDAY, 100))
    change = MONDAY + timedelta(minutes=100)
    assert names(watched.feed(priced("v2", "0.012", change, 30))) == ["price_changed"]
    late = priced("v1", "0.010", MONDAY + timedelta(minutes=50), 40)
    assert watched.feed((each, change + timedelta(minutes=40)) for each, _ in late) == []
    assert watched.feed(priced("v2", "0.012", change + timedelta(minutes=40), 60)) == []


def test_a_late_call_of_a_version_never_seen_is_no_change() -> None:
    watched = Watched()
    watched.feed(priced("v2", "0.010", MONDAY, 100))
    late = priced("v1", "0.020", MONDAY - timedelta(days=2), 50)
    assert watched.feed((each, MONDAY + timedelta(hours=2)) for each, _ in late) == []


def test_flapping_is_told_once() -> None:
    watched = Watched()
    watched.feed(priced("v1", "0.010", MONDAY, 100))
    told: list[Alert] = []
    for turn in range(20):
        start = MONDAY + timedelta(minutes=100 + 50 * turn)
        version, amount = ("v2", "0.012") if turn % 2 == 0 else ("v1", "0.010")
        told += watched.feed(priced(version, amount, start, 50))
    assert names(told) == ["price_changed"]


def test_taking_a_price_back_for_good_is_a_change_of_its_own() -> None:
    watched = Watched()
    watched.feed(priced("v1", "0.010", MONDAY, 100))
    watched.feed(priced("v2", "0.012", MONDAY + timedelta(minutes=100), 60 * 48))
    back = watched.feed(priced("v1", "0.010", MONDAY + timedelta(hours=50, minutes=40), 300))
    assert names(back) == ["price_changed"]
    assert back[0].severity == "info"


def test_few_calls_at_the_new_price_are_waited_for_a_quarter_of_an_hour() -> None:
    watched = Watched()
    watched.feed(priced("v1", "0.010", MONDAY, 10, timedelta(minutes=10)))
    alerts = watched.feed(priced("v2", "0.012", MONDAY + timedelta(minutes=100), 4, timedelta(minutes=10)))
    assert [alert.figures["calls"] for alert in alerts] == [3.0]


def test_unpriced_calls_and_cached_answers_are_no_change_of_the_price() -> None:
    watched = Watched()
    watched.feed(priced("v1", "0.010", MONDAY, 50))
    later = MONDAY + timedelta(hours=1)
    assert watched.feed((cost(later, None), later) for _ in range(50)) == []
    assert watched.feed((cost(later, "0", kind="cached", price_version="v9"), later) for _ in range(50)) == []


def cached(share: float, start: datetime, calls: int, seed: int, per_token: str = "0.000005") -> Iterator[Any]:
    """Yield calls with prompts of 4,000 tokens of which a share comes from the cache; two a minute."""
    rng = np.random.default_rng(seed)
    for index in range(calls):
        at = start + timedelta(seconds=30) * index
        hit = int(np.clip(rng.normal(share, 0.15), 0, 1) * 4000)
        usage = Usage(input_tokens=4000, output_tokens=100, cached_input_tokens=hit)
        yield cost(at, "0.02", usage=usage, saved={"prefix_cache": Decimal(per_token) * hit}, number=index), at


RATE_OFF = replace(SpendRateRules(), least_excess=1e9)
CACHE_RULES = CostWatchRules(spend_rate=RATE_OFF)


def test_a_prefix_cache_that_serves_less_is_found_with_what_it_costs_and_resolves() -> None:
    watched = Watched(CACHE_RULES)
    assert watched.feed(cached(0.7, MONDAY, 3000, 1)) == []
    fall = MONDAY + timedelta(seconds=30) * 3000
    alerts = watched.feed(cached(0.2, fall, 400, 2))
    assert names(alerts) == ["cache_hit_rate_fell"]
    alert = alerts[0]
    assert watched.alerts[0][0] - fall < timedelta(hours=2)
    assert alert.labels == {"team": "acme", "model": "large", "cache": "prefix"}
    assert alert.figures["before"] == pytest.approx(0.7, abs=0.03)
    assert alert.figures["after"] == pytest.approx(0.2, abs=0.05)
    # 2,880 calls a day of 4,000 tokens at 5e-6 USD a token saved.
    a_day = (alert.figures["before"] - alert.figures["after"]) * 2880 * 4000 * 5e-6
    assert alert.figures["cost_per_day"] == pytest.approx(a_day, rel=0.05)
    window, baseline = alert.evidence
    assert 2900 <= window.first_offset <= 3050
    assert baseline.first_offset == 0
    assert baseline.last_offset < window.first_offset
    assert len(alert.sample_requests) == 5
    back = watched.feed(cached(0.7, fall + timedelta(hours=4), 400, 3))
    assert [(each.status, each.fingerprint) for each in back] == [("resolved", alert.fingerprint)]


def test_a_cache_of_answers_that_serves_less_is_found() -> None:
    rng = np.random.default_rng(4)

    def calls(share: float, start: datetime, count: int) -> Iterator[tuple[Cost, datetime]]:
        for index in range(count):
            at = start + timedelta(seconds=30) * index
            if rng.random() < share:
                yield cost(at, "0", kind="cached", saved={"semantic_cache": Decimal("0.01")}, number=index), at
            else:
                yield cost(at, "0.01", number=index), at

    watched = Watched(CACHE_RULES)
    assert watched.feed(calls(0.5, MONDAY, 3000)) == []
    alerts = watched.feed(calls(0.1, MONDAY + timedelta(days=2), 600))
    assert names(alerts) == ["cache_hit_rate_fell"]
    assert alerts[0].labels["cache"] == "answer"
    assert alerts[0].figures["saved_per_hit"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("share", "fallen", "per_token"),
    [
        pytest.param(0.7, 0.65, "0.000005", id="too little"),
        pytest.param(0.7, 0.2, "0.00000001", id="too cheap"),
        pytest.param(0.0, 0.0, "0.000005", id="no cache at all"),
        pytest.param(0.4, 0.8, "0.000005", id="a rise"),
    ],
)
def test_what_costs_nothing_is_no_alert(share: float, fallen: float, per_token: str) -> None:
    watched = Watched(CACHE_RULES)
    watched.feed(cached(share, MONDAY, 1500, 5, per_token))
    assert watched.feed(cached(fallen, MONDAY + timedelta(hours=13), 1500, 6, per_token)) == []


def test_a_share_that_scatters_is_no_fall() -> None:
    alarms = 0
    for seed in range(6):
        watched = Watched(CACHE_RULES)
        watched.feed(cached(0.5, MONDAY, 4000, 10 + seed))
        alarms += len(watched.alerts)
    assert alarms == 0


def test_a_short_dip_is_not_confirmed() -> None:
    watched = Watched(CACHE_RULES)
    watched.feed(cached(0.7, MONDAY, 2000, 7))
    dip = MONDAY + timedelta(seconds=30) * 2000
    assert watched.feed(cached(0.1, dip, CacheRateRules().batch_calls, 8)) == []
    assert watched.feed(cached(0.7, dip + timedelta(minutes=30), 1000, 9)) == []


def test_a_share_that_stays_low_is_the_usual_from_then_on() -> None:
    watched = Watched(CACHE_RULES)
    watched.feed(cached(0.7, MONDAY, 2000, 7))
    alerts = watched.feed(cached(0.2, MONDAY + timedelta(days=1), 2 * 60 * 24 * 5, 8))
    assert alerts[0].status == "firing"
    assert alerts[-1].status == "resolved"
    assert "stay at" in alerts[-1].title
    assert len(alerts) <= 2 + timedelta(days=3) / CacheRateRules().repeat_after


def test_keys_are_the_team_and_the_model() -> None:
    one = cost(MONDAY)
    assert list(watch_keys(one)) == [TEAM_KEY, MODEL_KEY]
    assert len(set(watch_keys(msgspec.structs.replace(one, tenant_id="a", model="b/c")))) == 2


def test_an_idle_key_is_forgotten() -> None:
    state, _ = watch_step(MODEL_KEY, None, cost(MONDAY), ORIGIN, CostWatchRules(), MONDAY)
    assert watch_expires(state) == MONDAY + CostWatchRules().idle


def test_the_state_stays_small_and_travels() -> None:
    watched = Watched()
    watched.feed(traffic(steady, MONDAY, timedelta(days=9), 21, times=2))
    for state in watched.states.values():
        packed = msgspec.msgpack.encode(state)
        assert len(packed) < 6_000
        assert msgspec.msgpack.decode(packed, type=CostWatch) == state
        assert msgspec.json.decode(msgspec.json.encode(state), type=CostWatch) == state


moments = st.one_of(
    st.datetimes(datetime(2026, 1, 5, 9), datetime(2026, 1, 5, 13), timezones=st.just(UTC)),
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 9), timezones=st.just(UTC)),
    st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
)
amounts = st.decimals(0, Decimal("1e20"), places=12) | st.sampled_from(
    [Decimal(0), Decimal("0.01"), Decimal("1e-12"), Decimal(-1)]
)
tokens = st.integers(0, 10_000) | st.integers(-(2**63), 2**63 - 1)
kinds = st.sampled_from(["completion", "repeat", "cancelled", "cached", "judge", "shadow", "embedding", "?"])


@st.composite
def any_cost(draw: st.DrawFn) -> Cost:
    """Return any cost that the codec can carry."""
    at = draw(moments)
    amount = draw(st.none() | amounts)
    share = st.none() | amounts
    return cost(
        at,
        None,
        priced=amount is not None,
        amount=amount,
        input_amount=draw(share),
        output_amount=draw(share),
        compute_amount=draw(share),
        number=draw(st.integers(0, 10)),
        kind=draw(kinds),
        accounted_at=draw(st.none() | moments),
        price_version=draw(st.none() | st.sampled_from(["v1", "v2", "v3", "v4", "v5", "v6"])),
        usage=Usage(input_tokens=draw(tokens), output_tokens=draw(tokens), cached_input_tokens=draw(tokens)),
        saved=draw(st.dictionaries(st.sampled_from(["prefix_cache", "exact_cache", "other"]), amounts, max_size=2)),
        context=Context(requested_at=at),
    )


EAGER = CostWatchRules(
    spend_rate=SpendRateRules(least_calls=2, least_hours=0, deviations=0.1, least_excess=0.0, confirm_minutes=1),
    cache_rate=CacheRateRules(batch_calls=1, least_batches=1, least_cost=0.0, threshold=0.1, confirm_batches=1),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(any_cost(), moments), max_size=25))
def test_whatever_comes_it_neither_raises_nor_grows_nor_changes_its_input_and_a_replay_gives_the_same(
    events: list[tuple[Cost, datetime]],
) -> None:
    for rules in (CostWatchRules(), EAGER):
        runs = []
        for _ in range(2):
            states: dict[str, CostWatch] = {}
            out = []
            for offset, (record, now) in enumerate(events):
                origin = LogRange(topic="costs", partition=0, first_offset=offset, last_offset=offset)
                for key in watch_keys(record):
                    before = states.get(key)
                    packed = msgspec.msgpack.encode(before)
                    state, emits = watch_step(key, before, record, origin, rules, now)
                    assert msgspec.msgpack.encode(before) == packed
                    # The state as it comes back from the table.
                    states[key] = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=CostWatch)
                    out += emits
                    assert watch_expires(state) is not None
            for emit in out:
                assert isinstance(emit.record, Alert)
                assert all(np.isfinite(value) for value in emit.record.figures.values())
                assert all(0 <= each.first_offset <= each.last_offset < len(events) for each in emit.record.evidence)
            assert all(len(msgspec.msgpack.encode(state)) < 10_000 for state in states.values())
            runs.append((states, out))
        assert runs[0] == runs[1]
