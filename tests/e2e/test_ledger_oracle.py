"""The books equal an independent oracle to the last digit, whatever is duplicated, late, out of order or killed.

In ``make test`` with some 1,500 calls; ``make soak`` makes it LEDGER_CALLS=100000. LEDGER_SEED gives another month.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaConsumer, TopicPartition
from penstock.bus import KafkaBus
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import ConfigEntry, Cost, Record, TeamSpend
from penstock.settings import KafkaSettings
from penstock.stack import Stack
from penstock.stack.supervisor import RestartPolicy, Supervisor, service_specs

from tests.conftest import PROJECT, penstock
from tests.e2e.ledger_oracle import Line, Subject, Window, lines, subjects
from tests.e2e.ledger_traffic import TEAMS, Call, Indexed, completion, indexed, prices, traffic

CALLS = int(os.environ.get("LEDGER_CALLS", "1500"))
SEED = int(os.environ.get("LEDGER_SEED", "20260101"))
KILLS = 4 if CALLS < 20_000 else 16
_PATIENCE_S = 300 + CALLS / 50
_ROLLING_HOURS = (24, 168, 720)
_SERVICES = {"evaluation": 2, "intake": 1}
_GROUPS = {"evaluation": ("completions", "documents-indexed", "costs"), "intake-settlement": ("costs",)}
_SHOWN = 25

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600 + _PATIENCE_S)]


@dataclass
class Books:
    """A stack of the test's own with evaluation in two replicas and intake, which settles budgets."""

    stack: Stack
    environment: Mapping[str, str]
    supervisor: Supervisor
    bus: KafkaBus
    codec: Codec
    offsets: AIOKafkaConsumer
    now: datetime
    """The end of the month that the traffic is of."""

    async def until(self, holds: Callable[[], Any], waiting_for: str) -> None:
        """Ask ``holds`` (an async function) until it says so.

        Raises:
            AssertionError: it does not in time, or a service was given up.
        """
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while not await holds():
                    failed = [str(one.failure) for one in self.supervisor.members if one.failure is not None]
                    assert not failed, failed
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(
                f"after {_PATIENCE_S:.0f} s still waiting for {waiting_for}: {await self.lag()}"
            ) from None

    async def ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """The offset after the last message of each partition."""
        catalogue = self.codec.catalogue
        wanted = [TopicPartition(topic, n) for topic in topics for n in range(catalogue.topic(topic).partitions)]
        return dict(await self.offsets.end_offsets(wanted))

    async def lag(self) -> dict[str, int]:
        """Messages that each group has not committed yet, by group and topic; empty where there are none."""
        behind: dict[str, int] = defaultdict(int)
        for group, topics in _GROUPS.items():
            committed = {tuple(place): at for place, at in (await self.bus.committed(group, topics)).items()}
            for place, end in (await self.ends(topics)).items():
                behind[f"{group} of {place.topic}"] += end - committed.get((place.topic, place.partition), 0)
        return {name: count for name, count in behind.items() if count}

    async def read(self, topic: str) -> list[tuple[bytes | None, Record]]:
        """Everything on ``topic`` with its key, in order within its partitions."""
        reader = await self.bus.read([topic])
        found: list[tuple[bytes | None, Record]] = []
        try:
            while not await reader.at_end():
                polled = await reader.poll(0.5)
                found.extend((message.key, self.codec.decode(topic, message.value)) for message in polled)
        finally:
            await reader.close()
        return found


@pytest.fixture
async def books(project: Path, tmp_path: Path) -> AsyncIterator[Books]:
    stack = Stack.open(f"ledger-{uuid.uuid4().hex[:8]}", tmp_path / "stack")
    now = datetime.now(UTC)
    stack.up()
    try:
        environment = stack.environment()
        folder = configuration(project, tmp_path / "config", now)
        for command in (["topics", "apply"], ["schemas", "apply"], ["config", "apply", str(folder)]):
            run = penstock(command, environment)
            assert run.returncode == 0, f"penstock {' '.join(command)}: {run.stderr}{run.stdout}"
        settings = KafkaSettings(
            kafka_bootstrap=environment["KAFKA_BOOTSTRAP"], schema_registry_url=environment["SCHEMA_REGISTRY_URL"]
        )
        codec = await Codec.resolve(Catalogue.load(), settings.schema_registry_url)
        supervisor = Supervisor(
            service_specs(tuple(_SERVICES), project, _SERVICES),
            {**os.environ, **environment, "PENSTOCK_STACK": stack.name, "SESSION_TIMEOUT_MS": "6000"},
            stack.folder,
            cwd=project,
            policy=RestartPolicy(max_crashes=2 * KILLS, max_delay_s=0.5),
        )
        offsets = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
        await offsets.start()
        try:
            async with KafkaBus(settings, client_id="penstock-oracle") as bus:
                await supervisor.start()
                yield Books(stack, environment, supervisor, bus, codec, offsets, now)
        finally:
            await offsets.stop()
            await supervisor.close()
    finally:
        stack.down(purge=True)


def configuration(project: Path, folder: Path, now: datetime) -> Path:
    """The project's configuration with the oracle's teams and prices."""
    shutil.copytree(project / "infra" / "config", folder)
    entries = [
        {"model": model, **price, **({} if since is None else {"effective_from": since.isoformat()})}
        for model, versions in prices(now).items()
        for since, price in versions
    ]
    (folder / "prices" / "oracle.yaml").write_text(yaml.safe_dump(entries))
    for team, budgets in TEAMS.items():
        (folder / "teams" / f"{team}.yaml").write_text(
            yaml.safe_dump({"name": team, "budgets": [dict(budget) for budget in budgets]})
        )
    return folder


async def test_the_books_equal_the_oracle_to_the_last_digit(books: Books) -> None:
    calls, documents, arrivals = traffic(CALLS, SEED, books.now)
    expected = {(line.event, line.kind == "embedding"): line for line in lines(calls, documents, prices(books.now))}
    async with asyncio.TaskGroup() as group:
        group.create_task(publish(books, arrivals))
        group.create_task(disturb(books, len(expected)))
    await books.until(lambda: _nothing_left(books), "every group to reach the end of its topics")

    costs = await recorded(books)
    versions = await published(books)
    differences = [*of_costs(expected, costs, versions), *of_windows(expected.values(), await told(books))]
    assert not differences, f"{len(differences)} differences with seed {SEED}\n" + "\n".join(differences[:_SHOWN])

    first, second = verified(books), verified(books)
    assert first["hash"] == second["hash"]
    whole = sum(line.amount or 0 for line in expected.values())
    for report in (first, second):
        assert (report["entries"], _pico(Decimal(report["totals"]["amount"]))) == (len(expected), whole)
        assert report["windows"] > 0 < report["counters"]


async def publish(books: Books, arrivals: Iterable[Call | Indexed]) -> None:
    """Send everything in the order of arrival."""
    producer = books.bus.producer()
    sent: list[Any] = []
    for event in arrivals:
        if isinstance(event, Call):
            value = books.codec.encode("completions", completion(event))
            sent.append(await producer.send("completions", event.partition_key.encode(), value))
        else:
            value = books.codec.encode("documents-indexed", indexed(event))
            sent.append(await producer.send("documents-indexed", f"oracle-d{event.number}".encode(), value))
        if len(sent) >= 2_000:
            await asyncio.gather(*sent)
            sent.clear()
    await asyncio.gather(*sent)


async def disturb(books: Books, expected: int) -> None:
    """Kill processes when random shares of the costs have been written; supervision starts them again."""
    rng = random.Random(SEED)
    names = [member.name for member in books.supervisor.members]
    for share in sorted(rng.uniform(0.02, 0.95) for _ in range(KILLS)):
        # Evaluation's two replicas are what the proof is about; intake may be the one as well.
        victim = rng.choices(names, [1 if name == "intake" else 2 for name in names])[0]

        async def due(share: float = share, victim: str = victim) -> bool:
            written = sum((await books.ends(["costs"])).values())
            return written >= share * expected and victim in books.supervisor.pids()

        await books.until(due, f"{share:.0%} of the costs, and {victim} to run")
        await books.supervisor.kill(victim, signal.SIGKILL)


async def recorded(books: Books) -> dict[tuple[str, bool], Cost]:
    """Every cost by the event it is of and whether it is of an embedding; what stands there again must say the same."""
    found: dict[tuple[str, bool], Cost] = {}
    identities: dict[str, tuple[str, bool]] = {}
    for key, record in await books.read("costs"):
        assert isinstance(record, Cost)
        if record.tenant_id not in TEAMS:
            continue
        place = record.causation_id, record.kind == "embedding"
        assert key == record.tenant_id.encode()
        assert found.setdefault(place, record) == record, "one call has two costs that differ"
        assert identities.setdefault(record.event_id, place) == place, "two calls have costs of one event_id"
    return found


async def published(books: Books) -> dict[str, tuple[str, datetime | None]]:
    """Model and first instant of every price by its version, as its topic keeps them."""
    found = {}
    for _, record in await books.read("config-prices"):
        assert isinstance(record, ConfigEntry)
        content = json.loads(record.content)
        since = content.get("effective_from")
        found[record.version] = content["model"], since and datetime.fromisoformat(since)
    return found


async def told(books: Books) -> dict[Subject, TeamSpend]:
    """The newest total of every window, as a reader of the compacted topic sees it."""
    newest: dict[bytes | None, TeamSpend] = {}
    for key, record in await books.read("team-spend"):
        assert isinstance(record, TeamSpend)
        if record.tenant_id in TEAMS:
            newest[key] = record
    found = {}
    for record in newest.values():
        start = None if record.window.startswith("rolling") else record.window_start
        subject = Subject(record.tenant_id, record.window, record.budget_name, record.subject, start)
        assert subject not in found, f"two keys for {subject}"
        found[subject] = record
    return found


def of_costs(
    expected: Mapping[tuple[str, bool], Line],
    costs: Mapping[tuple[str, bool], Cost],
    versions: Mapping[str, tuple[str, datetime | None]],
) -> Iterator[str]:
    """Yield what differs between the oracle's lines and the costs."""
    for place in expected.keys() - costs.keys():
        yield f"cost of {place[0]}: missing; {expected[place]}"
    for place in costs.keys() - expected.keys():
        yield f"cost of {place[0]}: of no call that was made; {costs[place]}"
    for place in expected.keys() & costs.keys():
        line, cost = expected[place], costs[place]
        fields = {
            "team": (line.team, cost.tenant_id),
            "kind": (line.kind, cost.kind),
            "model": (line.model, cost.model),
            "priced": (line.amount is not None, cost.priced),
            "price": (line.price, versions[cost.price_version] if cost.price_version else None),
            "amount": (line.amount, _pico(cost.amount)),
            "input": (line.input, _pico(cost.input_amount)),
            "output": (line.output, _pico(cost.output_amount)),
            "compute": (line.compute, _pico(cost.compute_amount)),
            "compute_us": (line.compute_us, cost.compute_us),
            "saved": (dict(line.saved), {cause: _pico(amount) for cause, amount in cost.saved.items()}),
            "accounted_at": (line.at, cost.accounted_at),
            "user": (line.user, cost.context.user_id or ""),
            "key": (line.key, cost.context.key_id or ""),
            "tags": (dict(line.tags), cost.context.tags),
            "attempt": (line.attempt, cost.attempt),
        }
        for name, (right, said) in fields.items():
            if right != said:
                yield f"cost of {place[0]} ({line.kind}, {line.model}): {name} is {said}, not {right}"


def of_windows(expected: Iterable[Line], spends: Mapping[Subject, TeamSpend]) -> Iterator[str]:
    """Yield what differs between the oracle's windows and those that were told."""
    members: defaultdict[Subject, list[Line]] = defaultdict(list)
    for line in expected:
        for subject in subjects(line, TEAMS[line.team], _ROLLING_HOURS):
            members[subject].append(line)
    for subject in members.keys() - spends.keys():
        yield f"{subject}: no total was told"
    for subject in spends.keys() - members.keys():
        yield f"{subject}: told, but no call counts in it"
    for subject in members.keys() & spends.keys():
        spend = spends[subject]
        assert spend.window_end is not None
        inside = members[subject]
        if subject.start is None:
            yield from _of_rolling(subject, spend, max(line.at for line in inside))
            inside = [line for line in inside if spend.window_start <= line.at < spend.window_end]
        window = Window()
        for line in inside:
            window.add(line)
        fields = {
            "amount": (window.amount, _pico(spend.amount)),
            "saved": (window.saved, _pico(spend.saved)),
            "calls": (window.calls, spend.calls),
            "unpriced_calls": (window.unpriced_calls, spend.unpriced_calls),
            "cached_calls": (window.cached_calls, spend.cached_calls),
            "input_tokens": (window.input_tokens, spend.input_tokens),
            "output_tokens": (window.output_tokens, spend.output_tokens),
            "cached_input_tokens": (window.cached_input_tokens, spend.cached_input_tokens),
        }
        for name, (right, said) in fields.items():
            if right != said:
                yield f"{subject}: {name} is {said}, not {right}"


def _of_rolling(subject: Subject, spend: TeamSpend, newest: datetime) -> Iterator[str]:
    hours = int(subject.window.removeprefix("rolling-").removesuffix("h"))
    assert spend.window_end is not None
    length = spend.window_end - spend.window_start
    if not timedelta(hours=hours) <= length <= timedelta(hours=hours) * 25 / 24:
        yield f"{subject}: is {length} long"
    if not spend.window_start <= newest < spend.window_end:
        yield f"{subject}: {spend.window_start} to {spend.window_end} does not hold the newest call, of {newest}"


def verified(books: Books) -> dict[str, Any]:
    """Rebuild the ledger by ``penstock ledger verify``, and return its report."""
    run = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "ledger", "verify", "--json"],
        env={**os.environ, **books.environment, "PYTHONPATH": str(PROJECT / "shared")},
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return dict(json.loads(run.stdout))


async def _nothing_left(books: Books) -> bool:
    return not await books.lag()


def _pico(amount: Any) -> int | None:
    if amount is None:
        return None
    scaled = amount.scaleb(12)
    assert scaled == int(scaled), f"{amount} has more than 12 places"
    return int(scaled)
