"""Canaries and shadows on the in-memory log: who is asked, what is observed, and that nothing of a shadow is released."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from penstock.bus import Hop, MemoryBus, Producer, run_hops
from penstock.cli.publishing import taken_back
from penstock.clock import ManualClock, SystemClock
from penstock.config.canaries import CANARY, STABLE, canary_experiment, read_rollback
from penstock.config.kinds import Canary, Policy, Route, Shadow, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    Completion,
    Context,
    ExperimentEvent,
    GroundedRequest,
    Message,
    Observation,
    Purpose,
    Usage,
)
from penstock.settings import ServiceSettings

from services.evaluation.experiments.core import experiments
from services.evaluation.experiments.projection import observations_hop
from services.guardrails.adapters import MemoryReleases
from services.guardrails.app import release_hop
from services.guardrails.held_texts import MemoryReviews, MemoryVault
from services.guardrails.judge import Judge
from services.guardrails.screening import Limits
from services.inference.adapters import Backend, BackendError
from services.inference.answers import MemoryAnswers
from services.inference.app import inference_hop
from services.inference.core import Answered
from services.inference.pieces import Pieces
from services.inference.progress import Progress
from services.inference.routing import TargetRouting
from services.inference.routing.canary import CanaryArms, Rollbacks
from services.inference.shadow import GROUP, shadow_hop

CLOCK = ManualClock()
STABLE_TARGET = Target(backend="openai", model="stable")
TRIED = Target(backend="openai", model="tried")


@dataclass
class Models(Backend):
    """Answers with its name, or fails; counts who was asked."""

    failing: set[str] = field(default_factory=set)
    asked: list[tuple[str, GroundedRequest]] = field(default_factory=list)
    held: asyncio.Event | None = None

    async def generate(self, request: GroundedRequest, target: Target, pieces: Pieces, progress: Progress) -> Answered:
        self.asked.append((target.model, request))
        if self.held is not None and target is not STABLE_TARGET:
            await self.held.wait()
        if target.model in self.failing:
            raise BackendError(f"{target.model} is away")
        await pieces.add(f"as {target.model} says")
        return Answered(target.model, "openai", f"as {target.model} says", "stop", Usage(input_tokens=3), 150_000)

    def of(self, model: str) -> int:
        return sum(name == model for name, _ in self.asked)


def a_route(**changes: Any) -> Route:
    fields: dict[str, Any] = {"name": "default", "targets": (STABLE_TARGET,), "breaker": {"enabled": False}}
    return Route(**fields | changes)


def on_trial(**changes: Any) -> Route:
    fields: dict[str, Any] = {"target": TRIED, "share": 0.5, "sticky": "request"}
    return a_route(canary=Canary(**fields | changes))


def a_request(request_id: str, **changes: Any) -> GroundedRequest:
    fields: dict[str, Any] = {
        "event_id": f"e-{request_id}", "request_id": request_id, "tenant_id": "support", "occurred_at": CLOCK.now(),
        "causation_id": "c", "context": Context(requested_at=CLOCK.now()),
        "messages": [Message(role="user", content="Who says so?")],
    }  # fmt: skip
    return GroundedRequest(**fields | changes)


@asynccontextmanager
async def running(bus: MemoryBus, hops: Sequence[Hop]) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run_hops(hops, bus, bus.codec, SystemClock(), ServiceSettings(), stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(Catalogue.load(), CLOCK)


def serving(bus: MemoryBus, config: ConfigPlane, models: Models, rollbacks: Rollbacks) -> Hop:
    backends: Mapping[str, Backend] = {"openai": models}
    routing = TargetRouting(config, CLOCK, arms=CanaryArms(config.experiment, rollbacks))
    producer = Producer(bus.producer(), bus.codec, "inference", CLOCK)
    return inference_hop(config, backends, MemoryAnswers(CLOCK), CLOCK, 8, producer, routing=routing)


def shadowing(config: ConfigPlane, models: Models, **changes: Any) -> Hop:
    return shadow_hop(config, {"openai": models}, CLOCK, 4, **{"max_wait_s": 30.0} | changes)


async def send(bus: MemoryBus, requests: Sequence[GroundedRequest]) -> None:
    for request in requests:
        await bus.publish("requests-grounded", request.request_id, request)


async def completions(bus: MemoryBus, count: int = 0) -> list[Completion]:
    return [event.record for event in await bus.collect("completions", count)]


async def test_a_failing_canary_is_observed_taken_back_and_asked_no_more(bus: MemoryBus) -> None:
    """Inference and the observing hop; the agent's own step on what they observed; and its decision back to inference."""
    config, models = ConfigPlane.of([on_trial()]), Models({"tried"})
    experiment = canary_experiment(on_trial())
    assert experiment is not None
    rollbacks = await Rollbacks.open(bus, bus.codec, timeout_s=5, clock=SystemClock())
    stopping = asyncio.Event()
    following = asyncio.create_task(rollbacks.follow(stopping))
    async with running(bus, [serving(bus, config, models, rollbacks), observations_hop(config)]):
        await send(bus, [a_request(f"r{number}") for number in range(80)])
        answered = await completions(bus, 80)
        observed = await bus.collect("experiment-observations", 80)
        assert {each.content for each in answered} == {"as stable says"}, "the stable target stands in"
        by_arm = {each.request_id: each.context.experiments[experiment.name] for each in answered}
        assert set(by_arm.values()) == {CANARY, STABLE}
        assert models.of("tried") == sum(arm == CANARY for arm in by_arm.values())
        for event in observed:
            assert isinstance(event.record, Observation)
            assert event.record.values["failed"] == (event.record.arm == CANARY)
            assert event.record.arm == by_arm[event.record.request_id]
        logic, state, told = experiments(config.experiment), None, list[Any]()
        for event in observed:
            for _, each in logic.route(event.record, event.message, lambda key: None):
                state, emits = logic.step(state, each, CLOCK.now())
                told += [emit for emit in emits if emit.topic == "experiment-events"]
        (emit,) = told
        assert isinstance(emit.record, ExperimentEvent)
        await bus.publish(emit.topic, emit.key, emit.record)
        async with asyncio.timeout(10):
            while rollbacks.of(experiment) is None:
                await asyncio.sleep(0.005)
        asked = models.of("tried")
        await send(bus, [a_request(f"s{number}") for number in range(40)])
        later = (await completions(bus, 120))[80:]
        assert models.of("tried") == asked
        assert all(each.context.experiments == {} and not each.failures for each in later)
    stopping.set()
    await following
    # A restart forgets nothing; another salt begins anew.
    again = await Rollbacks.open(bus, bus.codec, timeout_s=5, clock=SystemClock())
    assert again.of(experiment) == emit.record
    other = canary_experiment(on_trial(salt="mended"))
    assert other is not None
    assert again.of(other) is None
    assert await read_rollback(bus, bus.codec, on_trial()) == emit.record
    assert await read_rollback(bus, bus.codec, on_trial(salt="mended")) is None
    assert await read_rollback(bus, bus.codec, a_route()) is None
    # Whoever publishes it again as it is, is told that it gets nothing.
    said = await taken_back(bus, bus.codec, on_trial())
    assert said is not None
    assert "canary: tried was taken back" in said
    assert await taken_back(bus, bus.codec, on_trial(salt="mended")) is None


async def test_where_nobody_answers_the_first_target_is_known_to_have_failed(bus: MemoryBus) -> None:
    """No model was at work, so there is no completion: the result of the refusal says it."""
    config, models = (
        ConfigPlane.of([on_trial(), Policy(name="default"), Team(name="support")]),
        Models({"tried", "stable"}),
    )
    hops = [serving(bus, config, models, Rollbacks(bus.codec)), released(config), observations_hop(config)]
    async with running(bus, hops):
        await send(bus, [a_request(f"r{number}") for number in range(6)])
        observed = await bus.collect("experiment-observations", 6)
    assert all(event.record.values == {"failed": 1.0} for event in observed)
    assert len({event.record.arm for event in observed}) == 2


def released(config: ConfigPlane) -> Hop:
    judge = Judge(config, {"input": {}, "output": {}, "documents": {}}, b"key", CLOCK)
    return release_hop(judge, MemoryReleases(), MemoryVault(), MemoryReviews(), Limits(), CLOCK, 64)


async def test_only_what_is_served_is_on_trial(bus: MemoryBus) -> None:
    config, models = ConfigPlane.of([on_trial()]), Models()
    arms = CanaryArms(config.experiment, Rollbacks(bus.codec))
    requests = [a_request(f"r{number}") for number in range(20)]
    found = [arms.assign(on_trial(), request) for request in requests]
    assert {each.target for each in found if each is not None} == {None, TRIED}
    assert found == [arms.assign(on_trial(), request) for request in requests], "sticky"
    for purpose in (Purpose.JUDGE, Purpose.EVALUATION, Purpose.SHADOW):
        context = Context(requested_at=CLOCK.now(), purpose=purpose)
        assert all(arms.assign(on_trial(), msgspec.structs.replace(r, context=context)) is None for r in requests)
    assert arms.assign(on_trial(salt="newer than the plane"), requests[0]) is None
    assert models.asked == []


def test_a_user_keeps_the_arm_over_conversations_and_a_conversation_over_requests(bus: MemoryBus) -> None:
    keys: dict[str, dict[str, Any]] = {"user": {"user_id": "ada"}, "conversation": {"conversation_id": "c"}}
    for sticky, same in keys.items():
        route = on_trial(sticky=sticky)
        arms = CanaryArms(ConfigPlane.of([route]).experiment, Rollbacks(bus.codec))
        found = set()
        for number in range(20):
            context = Context(**{"requested_at": CLOCK.now(), "conversation_id": f"c{number}", **same})
            assigned = arms.assign(route, a_request(f"r{number}", context=context))
            assert assigned is not None
            found.add(assigned.target)
        assert len(found) == 1


async def test_nothing_a_shadow_says_is_released(bus: MemoryBus) -> None:
    route = a_route(shadows=(Shadow(target=TRIED, share=1.0),))
    config, models = ConfigPlane.of([route, Policy(name="default"), Team(name="support")]), Models()
    hops = [serving(bus, config, models, Rollbacks(bus.codec)), shadowing(config, models), released(config)]
    async with running(bus, hops):
        await send(bus, [a_request(f"r{number}", stream=True) for number in range(10)])
        said = await completions(bus, 20)
        results = await bus.collect("llm-results", 10)
        await bus.settled("guardrails-release", ["completions"])
    assert sorted(each.kind for each in said) == ["completion"] * 10 + ["shadow"] * 10
    assert len({each.event_id for each in said}) == 20
    assert {each.content for each in said if each.kind == "shadow"} == {"as tried says"}
    assert [event.record.content for event in results] == ["as stable says"] * 10
    for topic in ("llm-results", "result-chunks", "completion-chunks", "reviews", "verdicts"):
        for event in await bus.collect(topic, 0):
            assert "tried" not in str(event.record)
    assert all(not request.stream for model, request in models.asked if model == "tried")


async def test_a_shadow_that_fails_or_breaks_is_counted_and_harms_nothing(bus: MemoryBus) -> None:
    other = Target(backend="vllm", model="absent")
    shadows = (Shadow(target=TRIED, share=1.0), Shadow(target=other, share=1.0))
    config, models = ConfigPlane.of([a_route(shadows=shadows)]), Models({"tried"})
    async with running(bus, [serving(bus, config, models, Rollbacks(bus.codec)), shadowing(config, models)]):
        await send(bus, [a_request("r")])
        said = await completions(bus, 3)
    failed = {each.target: each.error for each in said if each.kind == "shadow"}
    assert failed == {"tried": "tried is away", "absent": "absent: this process has no vllm backend"}
    assert [each.content for each in said if each.kind == "completion"] == ["as stable says"]
    assert all(each.usage == Usage() for each in said if each.kind == "shadow"), "nothing to pay for"


async def test_a_shadow_that_hangs_holds_up_nothing_and_what_waits_too_long_for_it_is_left_out(bus: MemoryBus) -> None:
    route = a_route(shadows=(Shadow(target=TRIED, share=1.0),))
    config, models = ConfigPlane.of([route]), Models(held=asyncio.Event())
    assert models.held is not None
    async with running(bus, [serving(bus, config, models, Rollbacks(bus.codec)), shadowing(config, models)]):
        await send(bus, [a_request(f"r{number}") for number in range(30)])
        served = await completions(bus, 30)
        assert {each.kind for each in served} == {"completion"}
        async with asyncio.timeout(10):
            while models.of("tried") < 4:
                await asyncio.sleep(0.005)
        CLOCK.advance(31)
        models.held.set()
        await bus.settled(GROUP, ["requests-grounded"])
        said = await completions(bus, 34)
    assert models.of("tried") == 4, "as many as the window holds"
    assert sum(each.kind == "shadow" for each in said) == 4


@pytest.mark.parametrize(
    "context",
    [
        {"purpose": "evaluation"},
        {"purpose": "judge"},
        {"deadline_at": CLOCK.now() - timedelta(seconds=1)},
        {"route": "x"},
    ],
)
async def test_what_has_no_shadow(bus: MemoryBus, context: dict[str, Any]) -> None:
    config, models = ConfigPlane.of([a_route(shadows=(Shadow(target=TRIED, share=1.0),))]), Models()
    async with running(bus, [shadowing(config, models)]):
        await send(bus, [a_request("r", context=Context(**{"requested_at": CLOCK.now()} | context))])
        await bus.settled(GROUP, ["requests-grounded"])
    assert models.asked == []
    assert await completions(bus) == []
