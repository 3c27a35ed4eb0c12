"""Repricing: nothing changes with the prices that were applied, and what cannot be said is not made up."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.config.plane import ConfigPlane
from penstock.config.prices import Price
from penstock.contracts.records import Cost, Usage
from penstock.ledger.dimensions import dimensions
from penstock.ledger.reprice import NO_PRICE, NO_TIME, Repricing
from penstock.money import charge, from_pico

from tests.unit.ledger_costs import PRICES, START, costs, priced

USAGE = Usage(input_tokens=1000, output_tokens=10, cached_input_tokens=100)


def repricing(*prices: Price, by: tuple[str, ...] = ("model",), **options: Any) -> Repricing:
    return Repricing(ConfigPlane.of(prices).price, dimensions(by), **options)


def taken(made: Repricing, entries: list[Cost]) -> Repricing:
    for one in entries:
        made.add(one)
    return made


@settings(max_examples=80, deadline=None)
@given(st.lists(costs(), max_size=25))
def test_unchanged_prices_change_nothing(entries: list[Cost]) -> None:
    made = taken(repricing(*PRICES.values()), entries)
    total = made.total
    assert f"{from_pico(total.difference):f}" == "0.000000000000"
    assert total.repriced == total.actual
    assert all(model == "unheard-of" for model, _ in made.unmatched)


@settings(max_examples=80, deadline=None)
@given(st.lists(costs(), max_size=25), st.sampled_from(["model", "team", "kind", "tag:feature"]))
def test_the_sums_add_up_by_every_dimension(entries: list[Cost], by: str) -> None:
    other = {
        "small": Price(model="small", input_cost_per_token=Decimal("0.0000003"), output_cost_per_token=Decimal("0")),
        "unheard-of": Price(
            model="unheard-of", input_cost_per_token=Decimal("0.000001"), output_cost_per_token=Decimal("0.000002")
        ),
    }
    made = taken(repricing(*other.values(), by=(by,)), entries)
    total = made.total
    assert total.repriced == total.actual - total.unmatched + total.difference + total.newly_priced
    assert total.calls == total.compared_calls + total.newly_priced_calls + total.unmatched_calls
    assert total.unmatched_calls == sum(left.calls for left in made.unmatched.values())
    expected = sum(
        (charge(other[one.model], one.usage).total for one in entries if one.model in other and one.kind != "cached"),
        Decimal(0),
    )
    assert from_pico(total.repriced) == expected
    rows = list(made.sheet().rows)
    index = [column.name for column in made.sheet().columns].index("repriced")
    assert sum((cell for row in rows if isinstance(cell := row[index], Decimal)), Decimal(0)) == expected


def test_a_model_without_a_price_is_listed_and_is_null_not_zero() -> None:
    made = taken(repricing(PRICES["small"]), [priced("large", USAGE), priced("small", USAGE)])
    rows = {row[0]: row for row in made.sheet().rows}
    names = [column.name for column in made.sheet().columns]
    large = dict(zip(names, rows["large"], strict=True))
    assert (large["repriced"], large["difference"], large["calls_without_price"]) == (None, None, 1)
    assert large["actual_without_price"] == large["actual"] == charge(PRICES["large"], USAGE).total
    [(key, left)] = made.unmatched.items()
    assert key == ("large", NO_PRICE)
    assert left.calls == 1


def test_what_was_unpriced_gets_a_price_and_counts_apart_from_the_difference() -> None:
    new = Price(model="unheard-of", input_cost_per_token=Decimal("0.000001"), output_cost_per_token=Decimal("0"))
    total = taken(repricing(new), [priced("unheard-of", USAGE)]).total
    assert (total.newly_priced_calls, from_pico(total.newly_priced)) == (1, Decimal("0.001"))
    assert (total.difference, total.compared_calls, total.actual) == (0, 0, 0)


def test_the_price_in_force_at_the_call_applies_unless_an_instant_is_given() -> None:
    planned = Price(
        model="small",
        input_cost_per_token=Decimal("0.000001"),
        output_cost_per_token=Decimal("0"),
        effective_from=START + timedelta(days=30),
    )
    entry = priced("small", USAGE)
    assert taken(repricing(planned), [entry]).unmatched
    assert taken(repricing(PRICES["small"], planned), [entry]).total.difference == 0
    as_of = taken(repricing(PRICES["small"], planned, as_of=START + timedelta(days=31)), [entry])
    assert from_pico(as_of.total.repriced) == Decimal("0.001")
    assert as_of.versions == {"small": {planned.version}}


def test_the_model_that_answered_is_looked_up_where_the_one_asked_for_has_no_price() -> None:
    dated = Price(model="large-2026", input_cost_per_token=Decimal("0.000001"), output_cost_per_token=Decimal("0"))
    assert from_pico(taken(repricing(dated), [priced("large", USAGE)]).total.repriced) == Decimal("0.001")


def test_a_price_by_the_second_says_nothing_of_calls_whose_time_was_not_recorded() -> None:
    timed = Price(model="small", input_cost_per_second=Decimal("0.001"))
    made = taken(repricing(timed), [priced("small", USAGE)])
    assert [reason for _, reason in made.unmatched] == [NO_TIME]
    faster = Price(model="timed", input_cost_per_second=Decimal("0.001"))
    recorded = taken(repricing(faster), [priced("timed", USAGE, compute_us=2_000_000)])
    assert from_pico(recorded.total.repriced) == Decimal("0.002")


def test_an_answer_from_a_cache_costs_nothing_with_any_price() -> None:
    dearer = Price(model="small", input_cost_per_token=Decimal("1"), output_cost_per_token=Decimal("1"))
    total = taken(repricing(dearer), [priced("small", USAGE, kind="cached")]).total
    assert (total.actual, total.repriced, total.difference) == (0, 0, 0)
