"""Which price was in force, as far as was known: versions, withdrawals, later publications of earlier prices."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from penstock.config.kinds import Team
from penstock.ledger.budget_history import BudgetHistory
from penstock.ledger.price_history import PriceHistory

from tests.unit.ledger_books import BUDGETS, PUBLISHED, SMALL, START, a_price, entry, ms

OLD = a_price("small", input_cost_per_token="0.1", output_cost_per_token="0")
NEW = a_price("small", input_cost_per_token="0.2", output_cost_per_token="0")
FROM_MAY = a_price("small", input_cost_per_token="0.3", output_cost_per_token="0", effective_from=START)


def history(*published: tuple[object, int]) -> PriceHistory:
    made = PriceHistory()
    for price, at_ms in published:
        made.take(entry(price).record, at_ms)  # type: ignore[arg-type]
    return made


def test_the_newest_version_of_a_key_counts_from_its_publication_on() -> None:
    made = history((OLD, 100), (NEW, 200))
    assert made.in_force("small", START, 99) is None
    assert made.in_force("small", START, 100) == OLD
    assert made.in_force("small", START, 199) == OLD
    assert made.in_force("small", START, 200) == NEW
    assert made.in_force("other", START, 200) is None
    assert sorted(made.changes("small", 50, 200)) == [50, 100, 200]
    assert sorted(made.changes("small", 100, 199)) == [100]


def test_a_price_counts_from_its_effective_date_even_where_published_late() -> None:
    made = history((OLD, 100), (FROM_MAY, 300))
    assert made.in_force("small", START - timedelta(microseconds=1), 300) == OLD
    assert made.in_force("small", START, 300) == FROM_MAY
    assert made.in_force("small", START, 299) == OLD


def test_every_version_stays_known_though_it_is_replaced_or_withdrawn() -> None:
    made = history((OLD, 100), (NEW, 200))
    made.take(msgspec.structs.replace(entry(NEW).record, deleted=True, content=""), 300)
    assert made.in_force("small", START, 300) is None
    assert made.in_force("small", START, 299) == NEW
    assert made.version(OLD.version) == OLD
    assert made.version(NEW.version) == NEW
    assert made.version("0" * 16) is None
    assert len(made) == 2


def test_what_is_no_price_changes_nothing() -> None:
    made = history((OLD, 100))
    made.take(msgspec.structs.replace(entry(NEW).record, version="0" * 16), 200)
    assert made.in_force("small", START, 200) == OLD
    assert len(made.invalid) == 1
    assert "small@0000000000000000" in made.invalid[0]


def test_a_broker_clock_that_is_set_back_does_not_turn_the_order() -> None:
    made = history((OLD, 200), (NEW, 100))
    assert made.in_force("small", START, 200) == NEW


def test_budgets_count_from_when_they_were_defined_so() -> None:
    made = BudgetHistory()
    first = Team(name="t", budgets=BUDGETS)
    raised = (BUDGETS[0].model_copy(update={"limit": BUDGETS[0].limit * 2}), *BUDGETS[1:])
    soft = (raised[0].model_copy(update={"mode": "soft"}), *BUDGETS[1:])
    hard_again = raised
    longer = (BUDGETS[0], BUDGETS[1].model_copy(update={"hours": 24}))
    for at_ms, budgets in ((100, BUDGETS), (200, raised), (300, soft), (400, hard_again), (500, longer)):
        made.take(entry(first.model_copy(update={"budgets": budgets})).record, at_ms)
        known = {name: made.known("t", name) for name in ("monthly", "users")}
        found = {name: (each.since_ms, each.hard_since_ms) for name, each in known.items() if each is not None}
        assert (
            found
            == {
                100: {"monthly": (100, 100), "users": (100, 100)},
                200: {"monthly": (100, 100), "users": (100, 100)},
                300: {"monthly": (100, None), "users": (100, 100)},
                400: {"monthly": (100, 400), "users": (100, 100)},
                500: {"monthly": (100, 400), "users": (500, 500)},
            }[at_ms]
        )
    assert made.teams() == ["t"]
    made.take(msgspec.structs.replace(entry(first).record, deleted=True, content=""), 600)
    assert made.budgets("t") == ()


def test_prices_of_another_kind_are_none() -> None:
    made = PriceHistory()
    made.take(entry(Team(name="t")).record, ms(PUBLISHED))
    made.take(entry(SMALL).record, ms(PUBLISHED))
    assert len(made) == 1
