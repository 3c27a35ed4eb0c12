"""Intake on the in-memory log, with claims in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from penstock.bus import Event, MemoryBus, run_hops
from penstock.bus import Message as LogMessage
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import KINDS, Arm, Experiment, Metric
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    AdmittedRequest,
    Context,
    Cost,
    DeadLetter,
    LlmRequest,
    LlmResult,
    Message,
    Refusal,
)
from penstock.settings import ServiceSettings

from services.intake.app import admission_hop, settlement_hop, waiting_hop
from services.intake.assignment import Assigned
from services.intake.core import Claim, Decision, Judgement, Limits, content_hash
from services.intake.queueing import queue_of
from services.intake.settlement import Charge, Release
from services.intake.waiting_room import WaitingRoom
from tests.unit.test_intake_core import PLANE

CLOCK = ManualClock()


class MemoryClaims:
    """The ledger of claims as a dictionary; no rate, no budget."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[str, str, Decision]] = {}
        self.assigned: dict[str, Assigned] = {}
        self.settled: list[Charge | Release] = []

    async def admit(self, judgements: Sequence[Judgement]) -> list[Claim]:
        return [Claim(self._one(one), one.at, one.refused, assigned=self._arms(one)) for one in judgements]

    def _arms(self, judgement: Judgement) -> Assigned:
        return self.assigned.setdefault(judgement.request.request_id, judgement.assigned)

    def _one(self, judgement: Judgement) -> Decision:
        request = judgement.request
        mine = Decision.REFUSED if judgement.refused else Decision.ADMITTED
        event, digest, decision = self.seen.setdefault(
            request.request_id, (request.event_id, content_hash(request), mine)
        )
        if event == request.event_id:
            return decision
        return Decision.DUPLICATE if digest == content_hash(request) else Decision.CONFLICT

    async def settle(self, settlements: Sequence[Charge | Release], now: datetime) -> None:
        self.settled.extend(settlements)

    async def leave_room(self, left: Sequence[tuple[str, str, str]]) -> None:
        """Nobody waits."""


def a_request(request_id: str, event_id: str = "", **changes: Any) -> LlmRequest:
    fields: dict[str, Any] = {
        "event_id": event_id or f"event-{request_id}", "request_id": request_id, "tenant_id": "support",
        "occurred_at": CLOCK.now(), "causation_id": "", "messages": [Message(role="user", content="hello")],
    }  # fmt: skip
    return LlmRequest(**fields | changes)


async def test_requests_are_admitted_refused_or_set_aside() -> None:
    bus = MemoryBus(Catalogue.load(), CLOCK)
    for request in [
        a_request("good"),
        a_request("good", "second-send"),
        a_request("good", "third-send", messages=[Message(role="user", content="something else")]),
        a_request("stranger", tenant_id="nobody"),
        a_request("", "no-identity"),
    ]:
        await bus.publish("llm-requests", "one-key", request)
    stop = asyncio.Event()
    hop = admission_hop(PLANE, MemoryClaims(), Limits(), CLOCK)
    task = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), ServiceSettings(), stop))
    await bus.settled("intake", ["llm-requests"])
    stop.set()
    await task
    admitted = [bus.codec.decode("requests-admitted", m.value).request_id for m in bus.messages("requests-admitted")]
    refused = [bus.codec.decode("refusals", m.value).request_id for m in bus.messages("refusals")]
    conflicts = [bus.codec.decode("request-conflicts", m.value) for m in bus.messages("request-conflicts")]
    assert admitted == ["good"]
    assert refused == ["stranger"]
    assert [(conflict.request_id, conflict.causation_id) for conflict in conflicts] == [("good", "third-send")]
    assert len(bus.messages("dlq-intake")) == 1


def test_a_defect_ends_the_request_that_met_it_and_its_place_in_the_queue() -> None:
    request = a_request("broken", tenant_id="research")
    event = Event(LogMessage("llm-requests", 0, 7, 0, b"broken", b""), request)
    room = WaitingRoom(MemoryClaims(), CLOCK)
    for hop in (
        admission_hop(PLANE, MemoryClaims(), Limits(), CLOCK),
        waiting_hop(PLANE, MemoryClaims(), room, Limits(), CLOCK),
    ):
        assert hop.failed is not None
        [emit] = hop.failed(event, RuntimeError("a defect"))
        refusal = emit.record
        assert isinstance(refusal, Refusal)
        assert (emit.topic, refusal.request_id, refusal.status) == ("refusals", "broken", "failed")
        # Its place is in the queue of the route which its team's "default" is, and ends with the result.
        assert queue_of(refusal.context) == "slow"


async def test_what_is_read_again_keeps_its_arm_though_the_experiment_was_changed() -> None:
    bus, claims = MemoryBus(Catalogue.load(), CLOCK), MemoryClaims()
    await bus.publish("llm-requests", "one-key", a_request("good"))

    async def admitted_under(experiment: Experiment) -> AdmittedRequest:
        """Read the topic from its start, as after a crash before anything was committed."""
        plane = ConfigPlane.of([*(entry for kind in KINDS for entry in PLANE.entries(kind).values()), experiment])
        hop = replace(admission_hop(plane, claims, Limits(), CLOCK), group=f"intake-{experiment.design}")
        stop, before = asyncio.Event(), len(bus.messages("requests-admitted"))
        task = asyncio.create_task(run_hops([hop], bus, bus.codec, SystemClock(), ServiceSettings(), stop))
        events = await bus.collect("requests-admitted", before + 1)
        stop.set()
        await task
        record: AdmittedRequest = events[-1].record
        return record

    arms = (Arm(name="control", route="slow"), Arm(name="prompted", route="default"))
    metrics = (Metric(name="feedback.rating"),)
    first = await admitted_under(Experiment(name="routes", team="support", arms=arms, metrics=metrics))
    moved = tuple(arm.model_copy(update={"route": "slow" if arm.route == "default" else "default"}) for arm in arms)
    again = await admitted_under(Experiment(name="routes", team="support", arms=moved, metrics=metrics))
    assert first.context.experiments.keys() == {"routes"}
    assert again == first


async def test_costs_and_results_settle_and_an_amount_that_is_none_is_set_aside() -> None:
    bus = MemoryBus(Catalogue.load(), CLOCK)
    claims = MemoryClaims()
    context = Context(requested_at=CLOCK.now(), admitted_at=CLOCK.now())
    common: dict[str, Any] = {
        "tenant_id": "support",
        "occurred_at": CLOCK.now(),
        "causation_id": "",
        "context": context,
    }
    for number, amount in enumerate(["0.25", "-1"]):
        cost = Cost(
            event_id=f"cost-{number}", request_id=f"r{number}", model="m", priced=True, amount=Decimal(amount), **common
        )
        await bus.publish("costs", "support", cost)
    for team in ("support", "research"):
        ended = LlmResult(
            event_id=f"result-{team}", request_id="r0", status="completed", calls=1, **common | {"tenant_id": team}
        )
        await bus.publish("llm-results", "r0", ended)
    stop = asyncio.Event()
    task = asyncio.create_task(
        run_hops([settlement_hop(PLANE, claims, CLOCK)], bus, bus.codec, SystemClock(), ServiceSettings(), stop)
    )
    await bus.settled("intake-settlement", ["costs", "llm-results"])
    stop.set()
    await task
    charge = next(one for one in claims.settled if isinstance(one, Charge))
    assert (charge.request_id, charge.slot, charge.amount) == ("r0", "0", 250_000_000_000)
    # A team without a hard budget has nothing to settle.
    assert [one for one in claims.settled if isinstance(one, Release)] == [Release("support", "r0", 1, at_once=True)]
    (letter,) = bus.messages("dlq-intake")
    record = bus.codec.decode("dlq-intake", letter.value)
    assert isinstance(record, DeadLetter)
    assert record.code == "invalid_amount"
