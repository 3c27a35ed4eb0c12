"""A hard budget under 200 clients at once and three replicas of intake, one of which is killed: not one call too many, and
none too few."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from penstock.bus import KafkaBus, Producer
from penstock.clock import SystemClock
from penstock.config.budgets import Budget
from penstock.config.kinds import Policy, Price, Retrieval, Route, RouteSampling, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.envelope import derive, new_id
from penstock.contracts.records import AdmittedRequest, Alert, Cost, LlmRequest, LlmResult, Message, Record, Refusal
from penstock.demo.observe import Observer
from penstock.money.counters import Balance, open_reservations, read_counters
from penstock.settings import KafkaSettings
from penstock.stack import Stack
from penstock.stack.member import RestartPolicy
from penstock.stack.supervisor import Supervisor, service_specs
from redis.asyncio import Redis

from services.intake.core import Limits, judge

R = TypeVar("R", bound=Record)

CLIENTS = 200
FITTING = 37
"""Worst cases that the budget holds at first."""

UNIT = Decimal("0.000000000001")
_PATIENCE_S = 120.0

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Admission:
    """A team with a budget, and everything to send its requests and see what became of them."""

    team: str
    limit: Decimal
    worst: Decimal
    route: str
    supervisor: Supervisor
    producer: Producer
    observer: Observer
    redis: Redis

    def requests(self, run: str) -> list[LlmRequest]:
        """One request a client, all of one size."""
        return [a_request(self.team, self.route, f"{run}-{self.team}-{number:03}") for number in range(CLIENTS)]

    async def send(self, requests: Sequence[LlmRequest]) -> None:
        """Send each from a client of its own, all at once, and each of them three times: the same event twice, as a
        producer that got no acknowledgement, and once as another event, as a caller that tried again."""

        async def client(request: LlmRequest) -> None:
            again = msgspec.structs.replace(request, event_id=new_id())
            for event in (request, request, again):
                await (await self.producer.send("llm-requests", request.request_id, event))

        await asyncio.gather(*(client(request) for request in requests))

    def decided(self, requests: Sequence[LlmRequest]) -> tuple[dict[str, AdmittedRequest], dict[str, Refusal]]:
        """Those of ``requests`` that were admitted, and those that were refused."""
        wanted = {request.request_id for request in requests}
        admitted = unique(self.observer.records("requests-admitted", AdmittedRequest), wanted)
        return admitted, unique(self.observer.records("refusals", Refusal), wanted)

    def alerts(self) -> list[Alert]:
        """What on-call was told about the team."""
        return [alert for alert in self.observer.records("alerts", Alert) if alert.tenant_id == self.team]

    def count(self, requests: Sequence[LlmRequest]) -> int:
        """How many of ``requests`` have been decided."""
        admitted, refused = self.decided(requests)
        return len(admitted) + len(refused)

    async def until(self, condition: Callable[[], bool]) -> None:
        assert await self.observer.until(condition, timeout_s=_PATIENCE_S)

    async def all_decided(
        self, requests: Sequence[LlmRequest]
    ) -> tuple[dict[str, AdmittedRequest], dict[str, Refusal]]:
        await self.observer.until(lambda: self.count(requests) >= len(requests), _PATIENCE_S)
        admitted, refused = self.decided(requests)
        assert not admitted.keys() & refused.keys()
        assert len(admitted) + len(refused) == len(requests)
        return admitted, refused

    async def balance(self) -> Balance:
        counters = await read_counters(self.redis, self.team)
        assert len(counters) <= 1
        return Balance(counters[0].spent, counters[0].reserved) if counters else Balance()

    async def settle(self, admitted: Mapping[str, AdmittedRequest]) -> Decimal:
        """End every request as the flow would: most with a cost and a result, some without a call. Each event is sent
        twice. Return what was spent."""
        spent = Decimal(0)
        for number, request in enumerate(admitted.values()):
            called = number % 5 != 4
            if called:
                cost = a_cost(request, self.worst - UNIT * number)
                spent += cost.amount or Decimal(0)
                for _ in range(2):
                    await self.producer.send("costs", cost.tenant_id, cost)
            for _ in range(2):
                await self.producer.send("llm-results", request.request_id, a_result(request, calls=int(called)))
        return spent


@pytest.fixture
async def admission(
    stack: Stack, deployed: Mapping[str, str], kafka_settings: KafkaSettings, project: Path, tmp_path: Path
) -> AsyncIterator[Admission]:
    codec = await Codec.resolve(Catalogue.load(), kafka_settings.schema_registry_url)
    run = uuid.uuid4().hex[:8]
    supervisor = Supervisor(
        service_specs(("intake",), project, {"intake": 3}),
        {**os.environ, **deployed, "PENSTOCK_STACK": stack.name, "SESSION_TIMEOUT_MS": "6000", "RESERVATION_GRACE_S": "1"},
        stack.folder,
        cwd=project,
        policy=RestartPolicy(max_crashes=20, max_delay_s=1.0),
    )  # fmt: skip
    redis = Redis.from_url(deployed["REDIS_URL"])
    try:
        async with KafkaBus(kafka_settings, client_id="penstock-tests") as bus:
            producer = Producer(bus.producer(), codec, "tests", SystemClock())
            async with published(producer, run) as (team, route, worst):
                await supervisor.start("intake", "intake-2", "intake-3")
                await supervisor.wait_ready("intake", "intake-2", "intake-3", timeout_s=_PATIENCE_S)
                async with Observer(bus, codec) as observer:
                    limit = team.budgets[0].limit
                    yield Admission(team.name, limit, worst, route, supervisor, producer, observer, redis)
    finally:
        await supervisor.close()
        await redis.aclose()


@asynccontextmanager
async def published(producer: Producer, run: str) -> AsyncIterator[tuple[Team, str, Decimal]]:
    """Publish a team whose budget holds FITTING worst cases and all but a unit of one more; withdraw it afterwards."""
    price = Price(
        model=f"model-{run}", input_cost_per_token=Decimal("0.000000000003"),
        output_cost_per_token=Decimal("0.000000000007"),
    )  # fmt: skip
    route = Route(
        name=f"route-{run}",
        targets=(Target(backend="openai", model=price.model, base_url="http://127.0.0.1:1/v1"),),
        retrieval=Retrieval(enabled=False),
        policy=f"policy-{run}",
        sampling=RouteSampling(max_completion_tokens=100),
    )
    policy = Policy(name=f"policy-{run}")
    unlimited = Team(name=f"team-{run}", policy=policy.name)
    plane = ConfigPlane.of([price, route, policy, unlimited])
    worst = judge(
        a_request(unlimited.name, route.name, f"0-{unlimited.name}-000"), plane, Limits(), SystemClock().now()
    ).reserve
    assert worst is not None
    limit = worst * (FITTING + 1) - UNIT
    team = unlimited.model_copy(update={"budgets": (Budget(name="all", window="rolling", hours=24, limit=limit),)})
    entries = (price, route, policy, team)
    now = SystemClock().now()
    await publish_changes([Change(e.KIND, e.key, "new", None, e) for e in entries], producer, now, reason="tests")
    try:
        yield team, route.name, worst
    finally:
        await publish_changes([Change(e.KIND, e.key, "withdrawn", e, None) for e in entries], producer, now)


async def test_as_many_are_admitted_as_fit_and_no_more(
    admission: Admission, deployed: Mapping[str, str], penstock_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    first = admission.requests("1")
    sending = asyncio.create_task(admission.send(first))
    await admission.until(lambda: admission.count(first) >= 20)
    await admission.supervisor.kill("intake-2", signal.SIGKILL)
    await sending
    admitted, refused = await admission.all_decided(first)
    assert len(admitted) == FITTING
    assert {refusal.code for refusal in refused.values()} == {"over_budget"}
    assert {request.reserved_cost for request in admitted.values()} == {admission.worst}
    assert await admission.balance() == Balance(Decimal(0), admission.worst * FITTING)
    assert len({one.request_id for one in await open_reservations(admission.redis, admission.team)}) == FITTING
    # On-call was told once, with the request at which it began.
    await admission.until(lambda: bool(admission.alerts()))
    alerts = admission.alerts()
    assert {alert.name for alert in alerts} == {"budget_exhausted"}
    assert len({alert.event_id for alert in alerts}) == 1
    assert alerts[0].sample_requests[0] in refused

    shown = await asyncio.to_thread(penstock_cli, ["budgets", "show", admission.team, "--json"], deployed)
    (row,) = json.loads(shown.stdout)
    assert (row["spent"], row["left"]) == ("0.000000000000", f"{admission.worst - UNIT:f}")
    table = await asyncio.to_thread(penstock_cli, ["budgets", "show", admission.team], deployed)
    assert f"{admission.worst - UNIT:f}" in table.stdout
    nobody = await asyncio.to_thread(penstock_cli, ["budgets", "show", "nobody"], deployed)
    assert nobody.returncode == 1
    assert "no team 'nobody' is configured" in nobody.stderr

    spent = await admission.settle(admitted)
    async with asyncio.timeout(_PATIENCE_S):
        while await admission.balance() != Balance(spent, Decimal(0)):
            await asyncio.sleep(0.1)
    assert await open_reservations(admission.redis, admission.team) == []

    # What was given back can be had again, by exactly as many as fit in what is left.
    second = admission.requests("2")
    sending = asyncio.create_task(admission.send(second))
    await admission.until(lambda: admission.count(second) >= 20)
    await admission.supervisor.kill("intake", signal.SIGKILL)
    await sending
    admitted, refused = await admission.all_decided(second)
    fitting = int((admission.limit - spent) // admission.worst)
    assert 0 < fitting < FITTING
    assert len(admitted) == fitting
    assert {refusal.code for refusal in refused.values()} == {"over_budget"}
    assert await admission.balance() == Balance(spent, admission.worst * fitting)
    assert all(f"{spent.normalize():f} USD is spent" in refusal.reason for refusal in refused.values())
    spent += await admission.settle(admitted)
    async with asyncio.timeout(_PATIENCE_S):
        while await admission.balance() != Balance(spent, Decimal(0)):
            await asyncio.sleep(0.1)
    assert spent <= admission.limit
    # The second wave has passed every partition behind the first: nothing was decided about that one later.
    assert [len(decided) for decided in admission.decided(first)] == [FITTING, CLIENTS - FITTING]
    assert len({alert.event_id for alert in admission.alerts()}) == 1


def a_request(team: str, route: str, request_id: str) -> LlmRequest:
    return LlmRequest(
        event_id=new_id(), request_id=request_id, tenant_id=team, occurred_at=SystemClock().now(), causation_id="",
        route=route, messages=[Message(role="user", content=f"What is said of {request_id}?")],
    )  # fmt: skip


def a_cost(request: AdmittedRequest, amount: Decimal) -> Cost:
    """What evaluation says the request's call cost."""
    return Cost(
        **derive(request, "tests.cost", 0, SystemClock().now()), context=request.context, model="any", priced=True,
        amount=amount, accounted_at=request.context.admitted_at,
    )  # fmt: skip


def a_result(request: AdmittedRequest, *, calls: int) -> LlmResult:
    """What the release gate says at last: the answer, or that none was asked for."""
    return LlmResult(
        **derive(request, "tests.result", 0, SystemClock().now()),
        context=request.context,
        status="completed" if calls else "blocked",
        stage=None if calls else "guardrails",
        calls=calls,
    )


def unique(records: Sequence[R], wanted: set[str]) -> dict[str, R]:
    """By request. An event that stands twice, since a process was killed over it, has one event_id.

    Raises:
        AssertionError: a request has two different events.
    """
    found: dict[str, R] = {}
    for record in records:
        if record.request_id in wanted:
            assert found.setdefault(record.request_id, record).event_id == record.event_id
    return found
