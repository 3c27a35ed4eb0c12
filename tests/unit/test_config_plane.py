"""The configuration plane on the in-memory log: what is published is seen, what is bad is skipped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from penstock.bus import MemoryBus, Producer
from penstock.clock import ManualClock
from penstock.config.files import load_files
from penstock.config.kinds import KINDS, Entry, Policy, Price, Prompt, PromptMessage, Route, Target, Team
from penstock.config.plane import ConfigError, ConfigPlane, parse_entry
from penstock.config.publish import Change, plan_changes, price_warnings, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.envelope import new_id
from penstock.contracts.records import ConfigEntry

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


@pytest.fixture
def log(catalogue: Catalogue) -> MemoryBus:
    return MemoryBus(catalogue, ManualClock(NOW))


def record(entry: Entry, *, key: str | None = None, deleted: bool = False, **changed: Any) -> ConfigEntry:
    fields = {
        "event_id": new_id(), "request_id": "", "tenant_id": "operations", "occurred_at": NOW, "causation_id": "",
        "kind": entry.KIND, "name": key or entry.key, "version": entry.version,
        "content": "" if deleted else entry.canonical, "deleted": deleted,
    }  # fmt: skip
    return ConfigEntry(**{**fields, **changed})


async def publish(log: MemoryBus, entry: Entry, **changed: Any) -> None:
    made = record(entry, **changed)
    await log.publish(f"config-{entry.KIND}", made.name, made)


@contextlib.asynccontextmanager
async def following(log: MemoryBus) -> AsyncIterator[ConfigPlane]:
    plane = await ConfigPlane.open(log, log.codec)
    stopping = asyncio.Event()
    task = asyncio.create_task(plane.follow(stopping))
    yield plane
    stopping.set()
    async with asyncio.timeout(1.0):  # at once, not after the poll in progress
        await task
    await plane.close()


async def eventually(condition: Any, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.001)


def prompt(text: str, *labels: str) -> Prompt:
    return Prompt(name="qa", template=(PromptMessage(role="user", content=text),), labels=labels or ("production",))


def price(amount: str, since: datetime | None = None) -> Price:
    return Price(
        model="m", input_cost_per_token=Decimal(amount), output_cost_per_token=Decimal(0), effective_from=since
    )


async def test_plane_holds_what_was_published_before_it_opened(log: MemoryBus) -> None:
    await publish(log, Team(name="acme"))
    await publish(log, Team(name="acme", policy="strict"))
    await publish(log, Team(name="gone"))
    await publish(log, Team(name="gone"), deleted=True)
    plane = await ConfigPlane.open(log, log.codec)
    assert plane.team("acme") == Team(name="acme", policy="strict")
    assert plane.team("gone") is None
    assert plane.team("nobody") is None
    assert plane.version("teams", "acme") == Team(name="acme", policy="strict").version
    assert plane.version("teams", "nobody") is None


async def test_plane_follows_what_is_published_later(log: MemoryBus) -> None:
    async with following(log) as plane:
        assert plane.policy("p") is None
        await publish(log, Policy(name="p"))
        await eventually(lambda: plane.policy("p") == Policy(name="p"))
        await publish(log, Policy(name="p", fail="open"))
        await eventually(lambda: plane.policy("p") == Policy(name="p", fail="open"))
        await publish(log, Policy(name="p"), deleted=True)
        await eventually(lambda: plane.policy("p") is None)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"content": '{"name":"acme","policy":3}'}, "policy: Input should be a valid string"),
        ({"content": '{"name":"acme","budgets":3}'}, "budgets: Input should be"),
        ({"content": '{"name":"acme","daily_budget":"3"}'}, "daily_budget: Extra inputs"),
        ({"content": "{"}, "Invalid JSON"),
        ({"version": "0" * 16}, "its content hashes to"),
        ({"kind": "teems"}, "unknown kind 'teems'"),
    ],
)
async def test_invalid_entry_is_skipped_and_the_last_good_version_stays(
    log: MemoryBus, change: dict[str, str], cause: str
) -> None:
    good = Team(name="acme", policy="strict")
    await publish(log, good)
    await publish(log, Team(name="acme"), **change)
    await publish(log, Team(name="later"))
    with structlog.testing.capture_logs() as logs:
        plane = await ConfigPlane.open(log, log.codec)
    assert plane.team("acme") == good
    assert plane.team("later") is not None
    [skipped] = [entry for entry in logs if entry["log_level"] == "error"]
    assert cause in skipped["cause"]
    assert (skipped["topic"], skipped["offset"], skipped["key"]) == ("config-teams", 1, "acme")


@pytest.mark.parametrize(
    "value", [b"not avro", b"", None, b"\x00\x00\x00\x00\x63x"], ids=["magic", "empty", "none", "id"]
)
async def test_undecodable_message_is_skipped(log: MemoryBus, value: bytes | None) -> None:
    await publish(log, Team(name="acme"))
    await log.append("config-teams", b"acme", value)
    with structlog.testing.capture_logs() as logs:
        plane = await ConfigPlane.open(log, log.codec)
    assert plane.team("acme") == Team(name="acme")
    assert [entry["offset"] for entry in logs if entry["log_level"] == "error"] == [1]


async def test_empty_topics_are_told_with_the_remedy(log: MemoryBus) -> None:
    with structlog.testing.capture_logs() as logs:
        await ConfigPlane.open(log, log.codec)
    assert any("penstock config apply" in entry.get("remedy", "") for entry in logs)


async def test_end_that_is_never_reached_is_an_error(log: MemoryBus) -> None:
    clock = ManualClock(NOW)

    class Stuck:
        closed = False

        async def poll(self, timeout_s: float) -> list[Any]:
            clock.advance(timeout_s)
            return []

        async def at_end(self) -> bool:
            return False

        async def close(self) -> None:
            self.closed = True

    class Log:
        reader = Stuck()

        async def read(self, topics: Any, **options: Any) -> Stuck:
            return self.reader

    stuck: Any = Log()
    with pytest.raises(ConfigError, match="was not reached within 5 s"):
        await ConfigPlane.open(stuck, log.codec, timeout_s=5.0, clock=clock)
    assert stuck.reader.closed


async def test_plane_without_a_log_cannot_be_followed() -> None:
    with pytest.raises(ConfigError, match="nothing to follow"):
        await ConfigPlane.of([]).follow()


def test_prompt_is_found_by_label_and_by_version() -> None:
    old, new = prompt("old", "stable"), prompt("new", "production", "canary")
    plane = ConfigPlane.of([old, new])
    assert plane.prompt("qa") == new
    assert plane.prompt("qa", "canary") == new
    assert plane.prompt("qa", "stable") == old
    assert plane.prompt("qa", old.version) == old
    assert plane.prompt("qa", "absent") is None
    assert plane.version("prompts", "qa@production") == new.version


def test_price_in_force_is_the_newest_that_has_begun() -> None:
    first, second = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)
    plane = ConfigPlane.of([price("3e-7", second), price("1e-7"), price("2e-7", first)])
    at = {
        first - timedelta(microseconds=1): "1e-7", first: "2e-7", second - timedelta(microseconds=1): "2e-7", second: "3e-7",
    }  # fmt: skip
    for instant, amount in at.items():
        found = plane.price("m", instant)
        assert found is not None
        assert found.input_cost_per_token == Decimal(amount)
    assert plane.price("other", second) is None
    plane.withdraw("prices", "m")
    assert plane.price("m", first - timedelta(days=1)) is None
    assert plane.price("m", first) is not None


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=8), st.integers(-1, 21))
def test_price_in_force_equals_a_search_of_all(entries: list[tuple[int, int]], day: int) -> None:
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    held = {days: price(f"{amount}e-7", begin + timedelta(days=days)) for days, amount in entries}
    plane = ConfigPlane.of(held.values())
    begun = [days for days in held if days <= day]
    assert plane.price("m", begin + timedelta(days=day)) == (held[max(begun)] if begun else None)


def test_entry_is_parsed_to_what_it_was() -> None:
    route = Route(name="r", targets=(Target(backend="extractive", model="penstock-extractive-1"),))
    assert parse_entry(record(route)) == route


# -- publishing ------------------------------------------------------------------------------------------------------


async def apply(log: MemoryBus, root: Path) -> list[tuple[str, str, str]]:
    plane = await ConfigPlane.open(log, log.codec)
    changes = plan_changes(load_files(root, {kind: plane.entries(kind) for kind in KINDS}), plane)
    producer = Producer(log.producer(), log.codec, "config", ManualClock(NOW))
    await publish_changes(changes, producer, NOW, author="ada", reason="why")
    return [(change.kind, change.key, change.action) for change in changes]


def write(root: Path, file: str, text: str) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text, "utf-8")


async def test_applying_publishes_the_difference_and_nothing_twice(log: MemoryBus, tmp_path: Path) -> None:
    write(tmp_path, "teams/a.yaml", "- name: a\n- name: b\n")
    write(tmp_path, "policies/p.yaml", "name: default\n")
    write(tmp_path, "routes/r.yaml", "name: default\ntargets: [{backend: openai, model: m}]\n")
    assert await apply(log, tmp_path) == [
        ("policies", "default", "new"), ("routes", "default", "new"), ("teams", "a", "new"), ("teams", "b", "new"),
    ]  # fmt: skip
    assert await apply(log, tmp_path) == []
    write(tmp_path, "teams/a.yaml", "- name: a\n  requests_per_minute: 5\n")
    assert await apply(log, tmp_path) == [("teams", "a", "changed"), ("teams", "b", "withdrawn")]
    assert await apply(log, tmp_path) == []
    newest = [log.codec.decode("config-teams", message.value) for message in log.messages("config-teams")][-2:]
    by_name = {entry.name: entry for entry in newest if isinstance(entry, ConfigEntry)}
    assert by_name["b"].deleted
    assert by_name["b"].content == ""
    assert {(entry.author, entry.reason, entry.tenant_id) for entry in by_name.values()} == {
        ("ada", "why", "a"), ("ada", "why", "b"),
    }  # fmt: skip


async def test_kind_without_files_is_left_alone(log: MemoryBus, tmp_path: Path) -> None:
    await publish(log, Policy(name="default"))
    await publish(log, Route(name="default", targets=(Target(backend="openai", model="m"),)))
    write(tmp_path, "teams/a.yaml", "name: a\n")
    assert await apply(log, tmp_path) == [("teams", "a", "new")]
    plane = await ConfigPlane.open(log, log.codec)
    assert plane.policy("default") is not None


async def test_moving_a_label_keeps_the_old_version_and_withdrawing_it_too(log: MemoryBus, tmp_path: Path) -> None:
    text = "name: qa\nlabels: [{}]\ntemplate: [{{role: user, content: {}}}]\n"
    write(tmp_path, "prompts/qa.yaml", text.format("production, canary", "one"))
    await apply(log, tmp_path)
    write(tmp_path, "prompts/qa.yaml", text.format("production", "two"))
    changed = await apply(log, tmp_path)
    one, two = prompt("one"), prompt("two")
    assert set(changed) == {
        ("prompts", two.key, "new"), ("prompts", "qa@production", "changed"), ("prompts", "qa@canary", "withdrawn"),
    }  # fmt: skip
    plane = await ConfigPlane.open(log, log.codec)
    assert plane.version("prompts", "qa@production") == two.version
    assert plane.prompt("qa", one.version) is not None
    assert plane.prompt("qa", "canary") is None
    assert await apply(log, tmp_path) == []


async def test_entry_that_was_damaged_on_its_topic_is_published_again(log: MemoryBus, tmp_path: Path) -> None:
    write(tmp_path, "policies/p.yaml", "name: default\n")
    await publish(log, Policy(name="default"), version="0" * 16)
    assert await apply(log, tmp_path) == [("policies", "default", "new")]
    assert await apply(log, tmp_path) == []


def test_difference_is_told_by_field() -> None:
    before = ConfigPlane.of([Team(name="a", requests_per_minute=5, toxicity_alert=0.5)])

    after = Team(name="a", requests_per_minute=9, policy="strict")
    change = Change("teams", "a", "changed", before.team("a"), after)
    assert set(change.differences()) == {
        ("requests_per_minute", "5", "9"), ("toxicity_alert", "0.5", None), ("policy", None, '"strict"'),
    }  # fmt: skip
    assert replace(change, before=None).differences()


def test_prices_that_change_what_came_before_are_warned_of() -> None:

    spring = datetime(2026, 4, 1, tzinfo=UTC)
    changed = Change("prices", "m", "changed", price("1e-7"), price("2e-7"))
    withdrawn = Change("prices", "m@2026-04-01", "withdrawn", price("1e-7", spring), None)
    assert [text.split(":")[0] for text in price_warnings([changed, withdrawn])] == [
        "prices/m changes in place", "prices/m@2026-04-01 is withdrawn",
    ]  # fmt: skip
    harmless = [
        Change("prices", "m@2026-04-01", "new", None, price("1e-7", spring)),
        Change("prices", "m", "changed", price("1e-7"), price("1e-7").model_copy(update={"source": "elsewhere"})),
        Change("teams", "a", "changed", Team(name="a"), Team(name="a", policy="strict")),
    ]
    assert price_warnings(harmless) == []
