"""What an import makes of a file of prices: history stays, versions last, and the text reads back exactly."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.config.files import load_files
from penstock.config.plane import ConfigPlane
from penstock.config.price_files import ImportPlan, made_by_import, plan_import, prices_text, read_prices
from penstock.config.prices import TIERED, TIERS, Price

STEADY: dict[str, Any] = {"deadline": None, "derandomize": True}
SPRING, SUMMER = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
OTHER = Path("prices/own.yaml")


def price(model: str = "m", cost: str = "1e-6", begins: datetime | None = None, **fields: Any) -> Price:
    return Price.model_validate(
        {"model": model, "input_cost_per_token": cost, "output_cost_per_token": 0, "effective_from": begins, **fields}
    )


def actions(plan: ImportPlan) -> list[tuple[str, str]]:
    return [(change.action, change.model) for change in plan.changes]


def test_first_import_is_all_new() -> None:
    plan = plan_import([price("b"), price("a")], [], {})
    assert actions(plan) == [("new", "b"), ("new", "a")]
    assert plan.prices == (price("a"), price("b"))


def test_same_prices_again_change_nothing_though_they_were_read_on_another_day() -> None:
    own = [price("a", source="read in May")]
    plan = plan_import([price("a", source="read in June")], own, {})
    assert (plan.changes, plan.unchanged, plan.prices) == ((), 1, tuple(own))
    dated = plan_import([price("a", source="read in June", begins=SUMMER)], own, {}, effective_from=SUMMER)
    assert (dated.changes, dated.prices) == ((), tuple(own))


def test_change_without_a_date_is_in_place() -> None:
    plan = plan_import([price(cost="2e-6", source="new")], [price(source="old")], {})
    [change] = plan.changes
    assert (change.action, change.in_place) == ("changed", True)
    assert change.differences() == [("input_cost_per_token", '"0.000001"', '"0.000002"')]
    assert plan.prices == (price(cost="2e-6", source="new"),)


def test_change_without_a_date_replaces_the_newest_of_several() -> None:
    own = [price(), price(cost="2e-6", begins=SPRING)]
    plan = plan_import([price(cost="3e-6")], own, {})
    assert plan.prices == (price(), price(cost="3e-6", begins=SPRING))


def test_change_with_a_date_follows_the_older_price() -> None:
    plan = plan_import([price(cost="2e-6", begins=SPRING)], [price()], {}, effective_from=SPRING)
    [change] = plan.changes
    assert (change.action, change.in_place) == ("changed", False)
    assert plan.prices == (price(), price(cost="2e-6", begins=SPRING))
    plane = ConfigPlane.of(plan.prices)
    before = plane.price("m", datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC))
    assert before is not None
    assert before.input_cost_per_token == Decimal("1e-6")


def test_change_with_the_date_of_the_newest_is_in_place_and_a_later_price_stays() -> None:
    own = [price(), price(cost="2e-6", begins=SPRING), price(cost="5e-6", begins=SUMMER)]
    plan = plan_import([price(cost="3e-6", begins=SPRING)], own, {}, effective_from=SPRING)
    assert [change.in_place for change in plan.changes] == [True]
    assert plan.prices == (price(), price(cost="3e-6", begins=SPRING), price(cost="5e-6", begins=SUMMER))


def test_price_of_another_file_is_left_to_it_unless_a_dated_one_follows_it() -> None:
    others = {OTHER: [price()]}
    plan = plan_import([price(cost="2e-6")], [], others)
    [change] = plan.changes
    assert (change.action, change.where, plan.prices) == ("elsewhere", OTHER, ())
    dated = plan_import([price(cost="2e-6", begins=SPRING)], [], others, effective_from=SPRING)
    assert actions(dated) == [("changed", "m")]
    assert dated.prices == (price(cost="2e-6", begins=SPRING),)
    assert plan_import([price()], [], others).prices == ()  # equal: nothing to write


def test_model_that_is_gone_keeps_its_price_until_it_is_pruned() -> None:
    own = [price("a"), price("b"), price("b", "2e-6", SPRING)]
    kept = plan_import([price("a")], own, {})
    assert actions(kept) == [("gone", "b")]
    assert kept.prices == tuple(own)
    assert plan_import([price("a")], own, {}, prune=True).prices == (price("a"),)
    unasked = plan_import([price("a")], own, {}, prune=True, gone=lambda price: price.model == "a")
    assert (unasked.changes, unasked.prices) == ((), tuple(own))


amounts = (
    st.none()
    | st.decimals(min_value=0, max_value=10**6, places=12)
    | st.integers(0, 60).map(lambda n: Decimal(n).scaleb(-12))
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
models = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=20).filter(
    lambda name: not any(map(str.isspace, name))
)
any_price = st.builds(
    lambda model, source, provider, begins, most, costs: Price.model_validate(
        {"model": model, "source": source, "litellm_provider": provider, "effective_from": begins, "mode": "embedding",
         "max_input_tokens": most, "input_cost_per_token": 0, **costs}
    ),
    models, texts, texts, st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.none() | st.integers(1, 10**9),
    st.dictionaries(st.sampled_from(["input_cost_per_second", *(f"{n}_above_{t}_tokens" for n in TIERED for t in TIERS)]),
                    amounts, max_size=4),
)  # fmt: skip


@settings(max_examples=150, **STEADY)
@given(prices=st.lists(any_price, max_size=4), comment=st.just("where from"))
def test_text_reads_back_to_exactly_the_same_entries(
    tmp_path_factory: pytest.TempPathFactory, prices: list[Price], comment: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    file.write_text(prices_text(prices, comment), "utf-8")
    back = read_prices(file)
    assert back == prices
    assert [entry.version for entry in back] == [entry.version for entry in prices]
    assert made_by_import(file)


def test_text_is_plain_to_a_person() -> None:
    text = prices_text([price("azure/m", "1.5e-07", SPRING, litellm_provider="azure")], "From prices.json.")
    assert text.splitlines()[1:] == [
        "# From prices.json.",
        "- model: azure/m",
        "  litellm_provider: azure",
        "  mode: chat",
        "  input_cost_per_token: 0.00000015",
        "  output_cost_per_token: 0",
        "  effective_from: 2026-04-01",
    ]
    assert text.startswith("# Made by `penstock prices import`")
    assert yaml.safe_load(text)[0]["input_cost_per_token"] == 1.5e-07  # a number to any other reader, too


def test_file_of_an_import_is_valid_configuration(tmp_path: Path) -> None:
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices" / "litellm.yaml").write_text(prices_text([price("@cf/m:free"), price("1e3")], "x"), "utf-8")
    assert set(load_files(tmp_path).kinds["prices"]) == {"@cf/m:free", "1e3"}


def test_file_of_a_person_is_not_made_by_an_import(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("# my prices\n", "utf-8")
    assert not made_by_import(tmp_path / "own.yaml")
