"""The history of prices, as their topic tells it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.config.kinds import Team
from penstock.config.price_history import PriceVersion, price_history, timeline
from penstock.config.prices import Price
from penstock.contracts.envelope import new_id
from penstock.contracts.records import ConfigEntry

PUBLISHED = datetime(2026, 1, 1, 12, tzinfo=UTC)
SPRING, SUMMER = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)


def price(cost: str, begins: datetime | None = None, model: str = "m") -> Price:
    return Price.model_validate(
        {"model": model, "input_cost_per_token": cost, "output_cost_per_token": 0, "effective_from": begins}
    )


def published(*entries: Any, **changed: Any) -> list[ConfigEntry]:
    """The entries as records, an hour apart; ``("withdrawn", entry)`` withdraws one."""
    records = []
    for hours, item in enumerate(entries):
        deleted = isinstance(item, tuple)
        entry = item[1] if isinstance(item, tuple) else item
        fields = {
            "event_id": new_id(), "request_id": "", "tenant_id": "operations", "causation_id": "",
            "occurred_at": PUBLISHED + timedelta(hours=hours), "kind": entry.KIND, "name": entry.key,
            "version": entry.version, "content": "" if deleted else entry.canonical, "deleted": deleted,
            "author": f"author {hours}", "reason": f"reason {hours}",
        }  # fmt: skip
        records.append(ConfigEntry(**{**fields, **changed}))
    return records


def told(versions: list[PriceVersion]) -> list[tuple[str, str | None]]:
    return [(version.state, str(version.price.input_cost_per_token)) for version in versions]


def test_prices_that_follow_each_other_end_where_the_next_begins() -> None:
    records = published(price("3", SUMMER), price("1"), price("2", SPRING))
    assert told(price_history(records, SPRING - timedelta(microseconds=1))) == [
        ("in force", "1"), ("to come", "2"), ("to come", "3"),
    ]  # fmt: skip
    at_spring = price_history(records, SPRING)
    assert told(at_spring) == [("ended", "1"), ("in force", "2"), ("to come", "3")]
    assert [version.ends for version in at_spring] == [SPRING, SUMMER, None]
    assert [version.author for version in at_spring] == ["author 1", "author 2", "author 0"]
    assert told(price_history(records, SUMMER)) == [("ended", "1"), ("ended", "2"), ("in force", "3")]


def test_price_that_changed_in_place_is_kept_with_when_it_was_replaced() -> None:
    versions = price_history(published(price("1"), price("2")), SPRING)
    assert told(versions) == [("replaced", "1"), ("in force", "2")]
    assert versions[0].closed_at == versions[1].published_at == PUBLISHED + timedelta(hours=1)
    assert versions[0].price.version != versions[1].price.version


def test_same_version_again_is_no_other_version() -> None:
    [version] = price_history(published(price("1"), price("1")), SPRING)
    assert (version.published_at, version.author) == (PUBLISHED, "author 0")


def test_price_that_came_back_has_both_of_its_times() -> None:
    versions = price_history(published(price("1"), price("2"), price("1")), SPRING)
    assert told(versions) == [("replaced", "1"), ("replaced", "2"), ("in force", "1")]


def test_withdrawn_price_is_told_and_ends_no_other() -> None:
    versions = price_history(published(price("1"), price("2", SPRING), ("gone", price("2", SPRING))), SUMMER)
    assert told(versions) == [("in force", "1"), ("withdrawn", "2")]
    assert versions[0].ends is None
    assert versions[1].closed_at == PUBLISHED + timedelta(hours=2)
    assert price_history(published(("gone", price("1"))), SPRING) == []


def test_models_do_not_end_each_other() -> None:
    versions = price_history(published(price("1", model="a"), price("2", SPRING, model="b")), SUMMER)
    assert told(versions) == [("in force", "1"), ("in force", "2")]


def test_invalid_and_foreign_records_are_left_out() -> None:
    damaged = published(price("1"), version="0" * 16)
    assert told(price_history([*published(price("2")), *damaged, *published(Team(name="t"))], SPRING)) == [
        ("in force", "2")
    ]


def test_timeline_of_files_has_no_times_of_publication() -> None:
    versions = timeline([PriceVersion(price("2", SPRING)), PriceVersion(price("1"))], SPRING)
    assert told(versions) == [("ended", "1"), ("in force", "2")]
    assert {version.published_at for version in versions} == {None}
