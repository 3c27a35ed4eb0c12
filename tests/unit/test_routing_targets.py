"""Routing as inference uses it: nobody is forgotten, calls that end in any order are told apart, what hangs is found out."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from penstock.clock import ManualClock
from penstock.config.kinds import Breaker, Price, Route, Target
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import Context, GroundedRequest, Message, Sampling, TargetFailure, Usage
from prometheus_client import REGISTRY

from services.inference.core import Answered
from services.inference.routing import Attempt, TargetRouting

BREAKER = Breaker(failure_ratio=0.5, min_calls=3, window_s=30, open_s=10)
TARGETS = tuple(
    Target.model_validate({"name": f"t{n}", "backend": "vllm", "model": f"model-{n}", "weight": n, "timeout_s": 20})
    for n in range(1, 4)
)
PRICES = [
    Price(model=f"model-{n}", input_cost_per_token=Decimal(n) / 10**6, output_cost_per_token=Decimal(n) / 10**6)
    for n in range(1, 4)
]


def a_route(name: str = "r", **changes: Any) -> Route:
    return Route.model_validate({"name": name, "targets": TARGETS, "breaker": BREAKER} | changes)


def a_request(clock: ManualClock, number: int = 0, **changes: Any) -> GroundedRequest:
    context = Context(requested_at=clock.now(), route="r", deadline_at=changes.pop("deadline_at", None))
    return GroundedRequest(
        event_id=f"e{number}", request_id=f"q{number}", tenant_id="t", occurred_at=clock.now(), causation_id="c",
        context=context, messages=[Message(role="user", content="how? " * 10)], **changes,
    )  # fmt: skip


def an_answer(seconds: float = 0.5, tokens: int = 20, model: str = "m") -> Answered:
    return Answered(
        model=model, backend="vllm", content="x", finish_reason="stop",
        usage=Usage(input_tokens=12, output_tokens=tokens), model_us=int(seconds * 1e6),
    )  # fmt: skip


def begun(attempt: Attempt | TargetFailure) -> Attempt:
    assert not isinstance(attempt, TargetFailure), attempt.reason
    return attempt


def test_a_target_that_hangs_is_found_out_though_nobody_waits_for_its_timeout() -> None:
    clock = ManualClock()
    routing, route = TargetRouting(ConfigPlane.of([]), clock), a_route()
    for _ in range(30):
        begun(routing.begin(route, TARGETS[0])).answered(an_answer())
    clock.advance(60)
    for _ in range(2):
        quick = begun(routing.begin(route, TARGETS[0]))
        clock.advance(0.6)
        quick.given_up()
    assert not isinstance(routing.begin(route, TARGETS[0]), TargetFailure)  # it had no more time than answers take
    for _ in range(3):
        hanging = begun(routing.begin(route, TARGETS[0]))
        clock.advance(5)
        hanging.given_up()
    refused = routing.begin(route, TARGETS[0])
    assert isinstance(refused, TargetFailure)
    assert "no answer within 5.0 s, when nobody waited any more" in refused.reason


def test_what_is_chosen_may_fail_before_it_is_asked() -> None:
    clock = ManualClock()
    routing, route = TargetRouting(ConfigPlane.of([]), clock), a_route()
    choice = routing.choose(route, a_request(clock))
    assert (len(choice.targets), choice.left_alone) == (3, [])
    spare = choice.targets[1]
    for _ in range(3):
        begun(routing.begin(route, spare)).failed("HTTP 503")
    refused = routing.begin(route, spare)
    assert isinstance(refused, TargetFailure)
    assert (
        refused.reason
        == f"{spare.label} is left alone until 09:00:10 UTC: 3 of 3 calls failed within 30 s, the last: HTTP 503"
    )


def test_a_state_and_its_changes_are_measured() -> None:
    clock = ManualClock()
    target = Target(backend="openai", model="measured", base_url="http://127.0.0.1:9/v1")
    routing, route = TargetRouting(ConfigPlane.of([]), clock), a_route(name="measured", targets=(target,))
    labels = {"backend": "openai", "model": "measured", "endpoint": "127.0.0.1:9"}
    for _ in range(3):
        begun(routing.begin(route, target)).failed("HTTP 503")
    assert REGISTRY.get_sample_value("penstock_circuit_state", labels) == 2
    routing.choose(route, a_request(clock))
    assert (
        REGISTRY.get_sample_value("penstock_targets_left_alone_total", {"route": "measured", "target": "measured"}) == 1
    )
    none = {"route": "measured", "target": "", "reason": "none_left"}
    assert REGISTRY.get_sample_value("penstock_route_choices_total", none) == 1
    clock.advance(10)
    assert REGISTRY.get_sample_value("penstock_circuit_state", labels) == 1  # due, though no call came by
    probe = begun(routing.begin(route, target))
    assert REGISTRY.get_sample_value("penstock_circuit_state", labels) == 1
    probe.answered(an_answer())
    assert REGISTRY.get_sample_value("penstock_circuit_state", labels) == 0
    assert REGISTRY.get_sample_value("penstock_circuit_changes_total", {**labels, "state": "open"}) == 1


def test_the_deadline_decides_which_cheap_target_is_asked() -> None:
    clock = ManualClock()
    routing = TargetRouting(ConfigPlane.of(PRICES), clock)
    route = a_route(choice="cheapest")
    for target, seconds in zip(TARGETS, (10.0, 2.0, 0.2), strict=True):
        for _ in range(10):
            begun(routing.begin(route, target)).answered(an_answer(seconds))

    def first(deadline_s: float | None) -> str:
        at = None if deadline_s is None else clock.now() + timedelta(seconds=deadline_s)
        request = a_request(clock, 3, deadline_at=at, sampling=Sampling(max_completion_tokens=20))
        return routing.choose(route, request).targets[0].label

    assert [first(seconds) for seconds in (None, 60, 5, 1)] == ["t1", "t1", "t2", "t3"]


class AnyCalls(RuleBasedStateMachine):
    """Requests that are routed, and calls that end in any order, on routes that share endpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.routing = TargetRouting(ConfigPlane.of(PRICES), self.clock)
        self.routes = [
            a_route("r"),
            a_route("cheap", choice="cheapest"),
            a_route("fast", choice="fastest", breaker=BREAKER.model_copy(update={"enabled": False})),
        ]
        self.calls: list[Attempt] = []
        self.number = 0

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(which=st.integers(0, 2), deadline_s=st.none() | st.floats(0.1, 30))
    def a_request_is_routed(self, which: int, deadline_s: float | None) -> None:
        self.number += 1
        route = self.routes[which]
        at = None if deadline_s is None else self.clock.now() + timedelta(seconds=deadline_s)
        request = a_request(self.clock, self.number, deadline_at=at)
        choice = self.routing.choose(route, request)
        assert choice == self.routing.choose(route, request)
        labels = [target.label for target in choice.targets] + [failure.target for failure in choice.left_alone]
        assert sorted(labels) == ["t1", "t2", "t3"]
        assert not (choice.left_alone and not route.breaker.enabled)
        assert choice.kept_of is not None
        for target in choice.targets[:1]:
            attempt = self.routing.begin(route, target)
            # Nothing happened since it was chosen.
            self.calls.append(begun(attempt))

    @rule(
        which=st.integers(0, 50), how=st.sampled_from(["answered", "failed", "given_up"]), seconds=st.floats(0.01, 20)
    )
    def a_call_ends(self, which: int, how: str, seconds: float) -> None:
        if not self.calls:
            return
        call = self.calls.pop(which % len(self.calls))
        if how == "answered":
            call.answered(an_answer(seconds, tokens=max(1, int(seconds * 10))))
        elif how == "failed":
            call.failed("HTTP 500")
        else:
            call.given_up()

    @invariant()
    def each_call_is_known_once(self) -> None:
        assert sum(known.in_flight for known in self.routing._endpoints._known.values()) == len(self.calls)


AnyCalls.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestAnyCalls = AnyCalls.TestCase


@pytest.mark.parametrize("choice", ["weighted", "cheapest", "fastest"])
def test_a_route_of_one_target_asks_it(choice: str) -> None:
    clock = ManualClock()
    routing, route = TargetRouting(ConfigPlane.of([]), clock), a_route(choice=choice, targets=TARGETS[:1])
    assert [target.label for target in routing.choose(route, a_request(clock)).targets] == ["t1"]
