"""`penstock ledger verify` on a stack of its own, with evaluation and intake as processes: it agrees, until one digit
anywhere is another; then it names that and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from penstock.bus import KafkaBus, Producer
from penstock.config.budgets import Budget
from penstock.config.kinds import Team
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import (
    Completion,
    Context,
    Cost,
    DocumentIndexed,
    LlmRequest,
    Message,
    Sampling,
    TeamSpend,
    Usage,
)
from penstock.ledger.reading import read_topic
from penstock.money.counters import open_reservations, read_counters
from penstock.settings import KafkaSettings
from penstock.stack import Stack
from redis.asyncio import Redis

Cli = Callable[[list[str], Mapping[str, str]], subprocess.CompletedProcess[str]]
PROJECT = Path(__file__).resolve().parents[2]
MODEL = "gpt-4o-mini"
"""Priced in infra/config/prices: 0.15 and 0.60 USD a million tokens."""
EACH = Decimal("0.00015") + Decimal("0.00006")
EMBEDDED = Decimal("0.000000002")
"""One token of all-MiniLM-L6-v2, priced there too."""
CALLS = 60

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


@dataclass
class Books:
    """A cluster with its processes."""

    environment: Mapping[str, str]
    logs: Path
    bus: KafkaBus
    codec: Codec
    producer: Producer
    redis: Redis
    cli: Cli
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, service: str) -> None:
        with (self.logs / f"{service}.log").open("ab") as log:
            self.processes[service] = subprocess.Popen(
                [sys.executable, "-m", f"services.{service}"],
                cwd=PROJECT,
                env={
                    **os.environ,
                    **self.environment,
                    "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    async def stop(self, service: str) -> None:
        process = self.processes.pop(service)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 60) == 0, (self.logs / f"{service}.log").read_text()

    async def verify(self, *options: str) -> tuple[int, dict[str, Any]]:
        run = await asyncio.to_thread(self.cli, ["ledger", "verify", "--json", *options], self.environment)
        assert run.stdout, run.stderr
        return run.returncode, json.loads(run.stdout)

    async def send(self, topic: str, key: str, record: Any) -> None:
        await (await self.producer.send(topic, key, record))

    async def costs(self) -> list[Cost]:
        return [event.record async for event in read_topic(self, "costs")]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A stack that no other test writes to: the whole of its log has to agree."""
    own = {name: value for name, value in os.environ.items() if not name.endswith(("_BOOTSTRAP", "_URL"))}
    stack = Stack.open(f"books-{uuid.uuid4().hex[:8]}", tmp_path_factory.mktemp("books"), environ=own)
    stack.up()
    yield stack.environment()
    stack.down(purge=True)


@pytest.fixture
async def books(environment: Mapping[str, str], penstock_cli: Cli, tmp_path: Path) -> AsyncIterator[Books]:
    for command in (["topics", "apply"], ["schemas", "apply"], ["config", "apply", "--reason", "tests"]):
        run = await asyncio.to_thread(penstock_cli, command, environment)
        assert run.returncode == 0, run.stderr
    settings = KafkaSettings.model_validate(
        {"kafka_bootstrap": environment["KAFKA_BOOTSTRAP"], "schema_registry_url": environment["SCHEMA_REGISTRY_URL"]}
    )
    codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url)
    redis = Redis.from_url(environment["REDIS_URL"])
    async with KafkaBus(settings) as bus:
        made = Books(environment, tmp_path, bus, codec, Producer(bus.producer(), codec, "test"), redis, penstock_cli)
        try:
            yield made
        finally:
            for process in made.processes.values():
                process.kill()
                process.wait()
            await redis.aclose()


def a_team(name: str) -> Team:
    return Team(
        name=name,
        budgets=(
            Budget(name="monthly", window="month", limit=Decimal(100)),
            Budget(name="each-user", per="user", window="rolling", hours=24, limit=Decimal(10)),
            Budget(name="features", per="tag", tag="feature", limit=Decimal(1), mode="soft"),
        ),
    )


def a_completion(team: str, number: int, at: datetime) -> Completion:
    context = Context(
        requested_at=at, admitted_at=at, user_id=f"user-{number % 3}", tags={"feature": "search"} if number % 2 else {}
    )
    return Completion(
        event_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{team}/{number}")), request_id=f"{team}-{number}", tenant_id=team,
        occurred_at=at + timedelta(seconds=1), causation_id="", context=context, messages=[], content="x",
        model="nobody-knows-it" if number % 40 == 39 else MODEL, backend="openai",
        cached_by="exact" if number % 10 == 5 else None, embedder="all-MiniLM-L6-v2", embedding_tokens=number % 4,
        usage=Usage(input_tokens=1000, output_tokens=100),
    )  # fmt: skip


async def spent(books: Books, team: str) -> dict[str, Decimal]:
    """What Redis says, by budget and value."""
    return {f"{one.budget}/{one.value}": one.spent for one in await read_counters(books.redis, team)}


async def test_the_ledger_agrees_until_a_digit_is_another(books: Books) -> None:
    teams = [f"team-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    now = datetime.now(UTC)
    await publish_changes(
        [Change("teams", team, "new", None, a_team(team)) for team in teams], books.producer, now, reason="tests"
    )
    books.start("evaluation")
    books.start("intake")
    for team in teams:
        for number in range(CALLS):
            completion = a_completion(team, number, now)
            await books.send("completions", completion.request_id, completion)
            if number % 7 == 0:  # a producer that crashed sends again
                await books.send("completions", completion.request_id, completion)
        document = DocumentIndexed(
            event_id=str(uuid.uuid4()), request_id="upload", tenant_id=team, occurred_at=now, causation_id="",
            document_id="d", status="indexed", embedder="all-MiniLM-L6-v2", embedded_tokens=77,
        )  # fmt: skip
        await books.send("documents-indexed", "d", document)

    # While the services work the live sums trail; verification waits for them.
    code, found = await books.verify("--wait", "50")
    assert (code, found["faults"]) == (0, []), found
    calls = 2 * sum(1 + bool(number % 4) for number in range(CALLS)) + 2
    assert found["entries"] == calls
    embedded = 77 + sum(number % 4 for number in range(CALLS))
    priced = sum(number % 40 != 39 and number % 10 != 5 for number in range(CALLS))
    assert Decimal(found["totals"]["amount"]) == 2 * (priced * EACH + embedded * EMBEDDED)
    assert found["totals"]["unpriced_calls"] == 2 * sum(number % 40 == 39 for number in range(CALLS))
    assert found["windows"] > 2 * 5
    # A document has no user: it counts as the user "".
    assert found["counters"] == 2 * (1 + 4)
    again, twice = await books.verify()
    assert (again, twice["hash"], twice["totals"]) == (0, found["hash"], found["totals"])

    await a_ledger_agrees_while_calls_are_made(books, teams)
    await what_is_reserved_is_compared(books, teams[0])
    await nothing_is_repaired_while_intake_settles(books, teams[0])
    await books.stop("evaluation")
    await books.stop("intake")
    await one_digit_in_redis_is_found_and_mended(books, teams[0])
    await one_digit_on_the_log_is_found(books, teams[1])


async def a_ledger_agrees_while_calls_are_made(books: Books, teams: list[str]) -> None:
    """Every sum moves meanwhile; each is compared at a moment at which both are of the same costs."""
    stop = asyncio.Event()

    async def traffic() -> int:
        number = CALLS
        while not stop.is_set():
            for team in teams:
                completion = a_completion(team, number, datetime.now(UTC))
                await books.send("completions", completion.request_id, completion)
            number += 1
            await asyncio.sleep(0.1)  # the pace of the traffic, not a wait
        return number

    sending = asyncio.create_task(traffic())
    try:
        code, found = await books.verify("--wait", "45")
    finally:
        stop.set()
        sent = await sending
    assert (code, found["faults"]) == (0, [])
    assert found["calls"] < 2 * 2 * sent


async def what_is_reserved_is_compared(books: Books, team: str) -> None:
    for number in range(3):
        request = LlmRequest(
            event_id=str(uuid.uuid4()), request_id=f"{team}-asks-{number}", tenant_id=team, occurred_at=datetime.now(UTC),
            causation_id="", messages=[Message(role="user", content="hello")],
            sampling=Sampling(max_completion_tokens=16),
        )  # fmt: skip
        await books.send("llm-requests", request.request_id, request)
    async with asyncio.timeout(60):
        while len({one.request_id for one in await open_reservations(books.redis, team)}) < 3:
            await asyncio.sleep(0.05)
    code, found = await books.verify("--wait", "60")
    assert (code, found["faults"]) == (0, [])
    (key,) = [key async for key in books.redis.scan_iter(f"penstock:{{{team}}}:budget:monthly:*")]
    await books.redis.hincrby(key, "reserved:0", 1)
    code, found = await books.verify("--wait", "1")
    assert [(fault["kind"], fault["difference"]) for fault in found["faults"]] == [("reserved", "0.000000000001")]
    await books.redis.hincrby(key, "reserved:0", -1)


async def nothing_is_repaired_while_intake_settles(books: Books, team: str) -> None:
    (key,) = [key async for key in books.redis.scan_iter(f"penstock:{{{team}}}:budget:monthly:*")]
    await books.redis.hincrby(key, "spent:0", 1)
    run = await asyncio.to_thread(books.cli, ["ledger", "verify", "--repair", "--yes"], books.environment)
    assert run.returncode == 1
    assert "stop every replica of intake" in run.stderr
    await books.redis.hincrby(key, "spent:0", -1)


async def one_digit_in_redis_is_found_and_mended(books: Books, team: str) -> None:
    right = await spent(books, team)
    (key,) = [key async for key in books.redis.scan_iter(f"penstock:{{{team}}}:budget:monthly:*")]
    await books.redis.hincrby(key, "spent:0", -1)
    (lost,) = [key async for key in books.redis.scan_iter(f"penstock:{{{team}}}:budget:each-user:*:user-2")]
    await books.redis.delete(lost)
    code, found = await books.verify("--wait", "1")
    faults = {fault["kind"]: fault for fault in found["faults"]}
    assert (code, sorted(fault["kind"] for fault in found["faults"])) == (1, ["counter", "no_counter"]), found
    assert f"team {team}, budget monthly" in faults["counter"]["where"]
    assert Decimal(faults["counter"]["difference"]) == Decimal("-0.000000000001")
    assert "'user-2'" in faults["no_counter"]["where"]
    assert Decimal(faults["no_counter"]["difference"]) == -right["each-user/user-2"]

    code, found = await books.verify("--wait", "1", "--no-redis")
    assert (code, found["faults"]) == (0, [])

    code, found = await books.verify("--repair", "--yes")
    assert (code, found["faults"]) == (0, [])
    assert await spent(books, team) == right


async def one_digit_on_the_log_is_found(books: Books, team: str) -> None:
    own = [cost for cost in await books.costs() if cost.tenant_id == team and cost.amount]
    digit = Decimal("0.000000000001")
    forged = msgspec.structs.replace(own[0], event_id=str(uuid.uuid4()), amount=digit)
    other = msgspec.structs.replace(own[1], amount=(own[1].amount or 0) + digit)
    live = [event.record async for event in read_topic(books, "team-spend")]
    newest = [each for each in live if each.tenant_id == team and each.window == "day" and each.budget_name is None][-1]
    wrong: TeamSpend = msgspec.structs.replace(newest, amount=newest.amount + digit)
    await books.send("costs", team, other)
    await books.send("team-spend", f"{team}/day/{newest.window_start:%Y-%m-%d}", wrong)
    code, found = await books.verify("--wait", "1")
    faults = {fault["kind"]: fault for fault in found["faults"]}
    assert (code, sorted(fault["kind"] for fault in found["faults"])) == (1, ["conflict", "window"]), found
    assert f"request {own[1].request_id} of team {team}" in faults["conflict"]["where"]
    assert f"team {team}, day" in faults["window"]["where"]
    assert Decimal(faults["window"]["difference"]) == digit

    await books.send("costs", team, forged)
    run = await asyncio.to_thread(books.cli, ["ledger", "verify", "--wait", "1"], books.environment)
    assert run.returncode == 1
    assert "THE LEDGER DOES NOT AGREE" in run.stdout
    assert "underived  costs/" in run.stdout
    assert "no_call  costs/" in run.stdout
    # It is in no live sum: evaluation and intake stand still.
    assert "difference: -0.000000000001 USD" in run.stdout


async def test_an_unreachable_redis_is_no_agreement(books: Books) -> None:
    away = {**books.environment, "REDIS_URL": "redis://127.0.0.1:1/0"}
    run = await asyncio.to_thread(books.cli, ["ledger", "verify"], away)
    assert run.returncode == 1
    assert "Redis cannot be read" in run.stderr
    assert "--no-redis" in run.stderr
