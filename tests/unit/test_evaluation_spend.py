"""Costs to what teams and the subjects of their budgets have spent: whatever the order, the duplicates and the lateness."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.bus import Message
from penstock.config.kinds import Budget, Team
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Context, Cost, TeamSpend, Usage
from penstock.money import window_of
from penstock.stateful import EmitLike

from services.evaluation.core.cost_rules import CostWatchRules
from services.evaluation.core.spend import TooLate, spending
from services.evaluation.core.team_windows import ROLLING
from tests.unit.stateful_fakes import CODEC, Broker, BrokerAway, processor_of, run
from tests.unit.stateful_fakes import NOW as START

NOW = datetime(2026, 3, 14, 15, 9, tzinfo=UTC)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cost(
    number: int, amount: str | None, at: datetime = NOW, *, team: str = "t", kind: str = "completion", **fields: Any
) -> Cost:
    saved = fields.pop("saved", {})
    model = fields.pop("model", "m")
    return Cost(
        event_id=event_id(team, "cost", number), request_id=f"r{number}", tenant_id=team, causation_id="",
        # The producer's clock is off; what counts is the admission.
        occurred_at=at + timedelta(days=9), accounted_at=at, context=Context(requested_at=NOW, **fields), model=model,
        kind=kind, priced=amount is not None, amount=None if amount is None else Decimal(amount).quantize(Decimal("1e-12")),
        usage=Usage(input_tokens=10, output_tokens=1, cached_input_tokens=3), saved=saved,
    )  # fmt: skip


def drive(
    costs: Sequence[Cost], team: Team | None = None, *, state: dict[str, Any] | None = None, now: datetime | None = None
) -> list[EmitLike]:
    """Run the processor over costs as the shell does; the log's time is that of each cost unless ``now`` says it."""
    logic = spending(lambda name: team, CostWatchRules())
    states = {} if state is None else state
    out: list[EmitLike] = []
    for offset, record in enumerate(costs):
        message = Message("costs", 2, offset, 0, b"k", b"v")
        stepped = [
            (key, *logic.step(states.get(key or ""), event, now or record.accounted_at or NOW))
            for key, event in logic.route(record, message, states.get)
        ]
        for key, after, emits in stepped:
            out += emits
            states[key or ""] = after
    return out


def newest(emits: Sequence[EmitLike]) -> dict[str, TeamSpend]:
    return {emit.key: emit.record for emit in emits if isinstance(emit.record, TeamSpend)}


def totals(emits: Sequence[EmitLike]) -> dict[str, tuple[Decimal, int]]:
    return {key: (spend.amount, spend.calls) for key, spend in newest(emits).items()}


# -- the team's windows ------------------------------------------------------------------------------------------------


def test_a_cost_counts_in_every_window_of_its_team() -> None:
    emits = drive([cost(0, "0.1"), cost(1, None), cost(2, "0", kind="cached", saved={"exact_cache": Decimal("0.02")})])
    spend = newest(emits)
    assert {key: (s.window_start, s.window_end) for key, s in spend.items()} == {
        "t/day/2026-03-14": (instant("2026-03-14"), instant("2026-03-15")),
        "t/month/2026-03-01": (instant("2026-03-01"), instant("2026-04-01")),
        "t/rolling-24h": (instant("2026-03-13 15:00"), instant("2026-03-14 16:00")),
        "t/rolling-168h": (instant("2026-03-07 15:00"), instant("2026-03-14 22:00")),
        "t/rolling-720h": (instant("2026-02-12 06:00"), instant("2026-03-15 12:00")),
    }
    for s in spend.values():
        assert (str(s.amount), s.calls, s.unpriced_calls, s.cached_calls) == ("0.100000000000", 3, 1, 1)
        # No model read the tokens of a call that a cache answered.
        assert (s.input_tokens, s.output_tokens, s.cached_input_tokens) == (20, 2, 6)
        assert str(s.saved) == "0.020000000000"
        assert (s.budget, s.budget_name, s.subject) == (None, None, None)
    assert all(CODEC.decode(e.topic, CODEC.encode(e.topic, e.record)) == e.record for e in emits)


BOUNDARIES = [
    ("2026-02-28 23:59:59.999999", "2026-02-28", "2026-02-01", "2026-03-01"),
    ("2026-03-01 00:00:00", "2026-03-01", "2026-03-01", "2026-04-01"),
    ("2024-02-29 00:00:00", "2024-02-29", "2024-02-01", "2024-03-01"),
    ("2024-02-29 23:59:59.999999", "2024-02-29", "2024-02-01", "2024-03-01"),
    ("2025-12-31 23:59:59.999999", "2025-12-31", "2025-12-01", "2026-01-01"),
    ("2026-01-01 00:00:00", "2026-01-01", "2026-01-01", "2026-02-01"),
]


@pytest.mark.parametrize(("at", "day", "month", "end"), BOUNDARIES)
def test_days_and_months_begin_at_midnight_utc(at: str, day: str, month: str, end: str) -> None:
    spend = newest(drive([cost(0, "1", instant(at))]))
    assert f"t/day/{day}" in spend
    assert (spend[f"t/month/{month}"].window_start, spend[f"t/month/{month}"].window_end) == (
        instant(month),
        instant(end),
    )


def test_an_instant_of_another_zone_counts_in_its_day_of_utc() -> None:
    at = datetime.fromisoformat("2026-03-15T01:30:00+02:00")
    assert "t/day/2026-03-14" in newest(drive([cost(0, "1", at)]))


@pytest.mark.parametrize("hours", [24, 168, 720])
def test_a_rolling_window_counts_the_present_bucket_and_24_before(hours: int) -> None:
    bucket = timedelta(hours=hours) / 24
    first = datetime.fromtimestamp(NOW.timestamp() // bucket.total_seconds() * bucket.total_seconds(), UTC)
    tick = timedelta(microseconds=1)
    instants = [first - tick, first, first + bucket - tick, first + 24 * bucket]
    emits = drive([cost(n, "1", at) for n, at in enumerate(instants)])
    window = newest(emits)[f"t/rolling-{hours}h"]
    assert (window.amount, window.window_start) == (3, first)
    # A bucket on, all of the first bucket is out; before that nothing of it is.
    assert (
        newest(drive([cost(n, "1", at) for n, at in enumerate([*instants, first + 25 * bucket - tick])]))[
            f"t/rolling-{hours}h"
        ].amount
        == 4
    )
    assert (
        newest(drive([cost(n, "1", at) for n, at in enumerate([*instants, first + 25 * bucket])]))[
            f"t/rolling-{hours}h"
        ].amount
        == 2
    )


def test_what_lies_before_the_rolling_window_counts_by_calendar_only() -> None:
    emits = drive([cost(0, "1"), cost(1, "2", NOW - timedelta(days=2))])
    assert totals(emits) == {
        "t/day/2026-03-14": (1, 1), "t/day/2026-03-12": (2, 1), "t/month/2026-03-01": (3, 2),
        "t/rolling-24h": (1, 1), "t/rolling-168h": (3, 2), "t/rolling-720h": (3, 2),
    }  # fmt: skip


def test_a_team_window_names_the_lowest_limit_of_the_whole_team() -> None:
    team = Team(
        name="t",
        budgets=(
            Budget(name="a", limit=Decimal(9)),
            Budget(name="b", limit=Decimal(7), mode="soft"),
            Budget(name="c", per="user", limit=Decimal(1)),
            Budget(name="d", window="rolling", hours=168, limit=Decimal(30)),
        ),
    )
    spend = newest(drive([cost(0, "1")], team))
    limits = {s.window: s.budget for s in spend.values() if s.budget_name is None}
    assert limits == {"day": 7, "month": None, "rolling-24h": None, "rolling-168h": 30, "rolling-720h": None}


def test_what_is_late_by_more_than_a_quarter_is_refused_and_leaves_no_trace() -> None:
    state: dict[str, Any] = {}
    drive([cost(0, "1")], state=state)
    kept = dict(state)
    with pytest.raises(TooLate, match="rebuild the totals"):
        drive([cost(1, "1", NOW - timedelta(days=93))], state=state)
    assert state == kept
    assert totals(drive([cost(2, "1", NOW - timedelta(days=91))], state=state))["t/day/2025-12-13"] == (1, 1)


def test_lateness_goes_by_the_log_once_a_team_falls_silent() -> None:
    state: dict[str, Any] = {}
    drive([cost(0, "1")], state=state)
    with pytest.raises(TooLate):
        drive([cost(1, "1")], state=state, now=NOW + timedelta(days=93))


def test_old_events_in_a_young_log_are_not_late_and_a_clock_ahead_closes_nothing() -> None:
    years = [cost(n, "1", NOW + timedelta(days=n)) for n in range(60)]
    assert totals(drive(years, now=NOW + timedelta(days=3000)))["t/day/2026-03-14"] == (1, 1)
    ahead = [cost(0, "1", NOW + timedelta(days=4000)), cost(1, "1", NOW)]
    assert totals(drive(ahead, now=NOW))["t/day/2026-03-14"] == (1, 1)


def test_states_outlive_what_may_still_come_and_no_more() -> None:
    state: dict[str, Any] = {}
    team = Team(name="t", budgets=(Budget(name="each", per="user", limit=Decimal(1)),))
    drive([cost(0, "1", user_id="ada")], team, state=state)
    expires = spending(lambda name: team, CostWatchRules()).expires_at
    assert expires is not None
    due = {key.split("/")[0]: expires(key, each) for key, each in state.items()}
    late = timedelta(days=92)
    assert due["calendar"] == due["budget"]
    for key in ("calendar", "budget"):
        moment = due[key]
        assert moment is not None
        # The last that may be added to a month's first day comes with the month's last, so much late.
        assert NOW + late + timedelta(days=31) < moment <= NOW + late + timedelta(days=40)
    assert due["recent"] is not None
    assert due["recent"] > NOW + timedelta(days=365)


async def test_the_table_does_not_grow_with_the_years() -> None:
    """One cost a day, each of another user and model: what is closed and who is idle is forgotten."""
    team = Team(name="t", budgets=(Budget(name="each", per="user", limit=Decimal(1)),))
    sizes = []
    broker = Broker(spacing_s=86_400.0)
    for year in range(3):
        for day in range(365):
            number = year * 365 + day
            made = cost(
                number, "0.1", START + timedelta(days=number), user_id=f"user-{number}", model=f"model-{number}"
            )
            broker.source.append(CODEC.encode("costs", made))
        await run(processor_of(broker, spending(lambda name: team, CostWatchRules())), broker, checkpoint_every=5)
        contents: dict[bytes, bytes] = {}
        await broker.restore(contents)
        sizes.append(len(contents))
    assert not broker.letters
    assert sizes[0] < 124 + 15 + 40
    assert max(sizes) - sizes[0] <= 10


# -- any order gives the sums of a few lines -----------------------------------------------------------------------------


def plain_sums(costs: Sequence[Cost], budgets: Sequence[Budget]) -> dict[str, tuple[Decimal, int]]:
    """What the newest total of each window must be, by a plain sum over the distinct costs."""
    sums: dict[str, list[Any]] = defaultdict(lambda: [Decimal(0), 0])
    distinct = list({each.event_id: each for each in costs}.values())
    subjects: list[tuple[str, Budget, list[Cost]]] = [
        ("", Budget(name="x", window="rolling", hours=hours, limit=1), distinct) for hours in (24, 168, 720)
    ]
    subjects += [("", Budget(name="x", window=window, limit=1), distinct) for window in ("day", "month")]  # type: ignore[arg-type]
    for budget in budgets:
        groups: dict[str, list[Cost]] = defaultdict(list)
        for each in distinct:
            values = {
                "team": "", "user": each.context.user_id or "", "model": each.model,
                "tag": each.context.tags.get("feature", ""), "key": each.context.key_id or "",
            }  # fmt: skip
            groups[values[budget.per]].append(each)
        subjects += [(f"/{budget.name}/{value}", budget, mine) for value, mine in groups.items()]
    for suffix, budget, mine in subjects:
        last = window_of(budget, max(each.accounted_at or NOW for each in mine))
        for each in mine:
            at = each.accounted_at or NOW
            if budget.window == "rolling":
                if at < last.start:
                    continue
                key = f"t/{budget.window_name}{suffix}"
            else:
                key = f"t/{budget.window}/{window_of(budget, at).start:%Y-%m-%d}{suffix}"
            sums[key][0] += each.amount or 0
            sums[key][1] += 1
    return {key: (amount, calls) for key, (amount, calls) in sums.items()}


BUDGETS = (
    Budget(name="daily", limit=Decimal(100)),
    Budget(name="month", window="month", limit=Decimal(1), mode="soft"),
    Budget(name="user", per="user", window="rolling", hours=5, limit=Decimal(1)),
    Budget(name="model", per="model", window="rolling", hours=744, limit=Decimal(1)),
    Budget(name="feature", per="tag", tag="feature", limit=Decimal(1)),
    Budget(name="key", per="key", window="month", limit=Decimal(1)),
)
TEAM = Team(name="t", budgets=BUDGETS)

made = st.builds(
    lambda number, pico, minutes, user, model, feature: cost(
        number, None if pico is None else str(Decimal(pico).scaleb(-12)), NOW - timedelta(minutes=minutes),
        user_id=user, model=model, tags={"feature": feature} if feature else {},
    ),
    st.integers(0, 10**6),
    st.none() | st.integers(0, 10**13),
    # Up to 91 days late, and much of it around the present.
    st.integers(0, 91 * 24 * 60) | st.integers(0, 400),
    st.sampled_from(["ada", "alan", None]),
    st.sampled_from(["m", "n"]),
    st.sampled_from(["", "chat"]),
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(costs=st.lists(made, min_size=1, max_size=40, unique_by=lambda each: each.event_id), seed=st.integers(0, 2**32))
def test_any_order_gives_the_plain_sums(costs: list[Cost], seed: int) -> None:
    shuffled = random.Random(seed).sample(costs, len(costs))
    emits = drive(shuffled, TEAM, now=NOW)
    assert totals(emits) == plain_sums(costs, BUDGETS)
    assert {spend.amount.as_tuple().exponent for spend in newest(emits).values()} == {-12}
    forward: dict[str, Any] = {}
    backward: dict[str, Any] = {}
    drive(costs, TEAM, state=forward, now=NOW)
    drive(shuffled, TEAM, state=backward, now=NOW)
    assert forward.keys() == backward.keys()


@settings(max_examples=60, deadline=None)
@given(
    costs=st.lists(made, min_size=1, max_size=15, unique_by=lambda each: each.event_id),
    repeats=st.lists(st.integers(0, 14), max_size=10),
    crashes=st.lists(st.integers(0, 60), max_size=4),
    every=st.integers(1, 5),
)
def test_duplicates_and_crashes_change_no_sum(
    costs: list[Cost], repeats: list[int], crashes: list[int], every: int
) -> None:
    """Through the shell: the log in memory stops taking messages after any number of them, in mid-checkpoint too."""
    feed = [*costs, *(costs[index % len(costs)] for index in repeats)]
    broker = Broker(source=[CODEC.encode("costs", each) for each in feed])

    async def live() -> None:
        for takes in crashes:
            broker.takes = takes
            try:
                await run(
                    processor_of(broker, spending(lambda name: TEAM, CostWatchRules())), broker, checkpoint_every=every
                )
            except BrokerAway:
                continue
        broker.takes = float("inf")
        await run(processor_of(broker, spending(lambda name: TEAM, CostWatchRules())), broker, checkpoint_every=every)

    asyncio.run(live())
    assert not broker.letters
    published = {key: record for topic, key, record in broker.outputs if isinstance(record, TeamSpend)}
    assert {key: (spend.amount, spend.calls) for key, spend in published.items()} == plain_sums(costs, BUDGETS)


def test_the_buckets_of_the_team_are_those_of_money() -> None:
    for kind in ROLLING:
        like = Budget(name="x", window="rolling", hours=kind.hours, limit=1)
        spend = newest(drive([cost(0, "1")]))[f"t/{kind.name}"]
        window = window_of(like, NOW)
        assert (spend.window_start, spend.window_end) == (window.start, window.end)


def test_a_sum_beyond_38_digits_is_refused_rather_than_rounded() -> None:
    huge = "9" * 26
    with pytest.raises(ArithmeticError):
        drive([cost(0, huge), cost(1, huge)])
