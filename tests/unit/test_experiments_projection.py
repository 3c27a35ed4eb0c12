"""What each event of the flow says of the experiments of its request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from penstock.bus import Event, Message
from penstock.config.kinds import Metric
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import Context, Cost, Evaluation, LlmResult, Observation, Score, Usage

from services.evaluation.experiments.projection import SOURCES, observations_hop, observe
from tests.unit.experiment_cases import an_experiment

AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
RUNNING = an_experiment(
    metrics=(
        Metric(name="feedback.rating"),
        Metric(name="completed"),
        Metric(name="latency_ms", upper_bound=9_000, better="lower"),
        Metric(name="output_tokens", upper_bound=4_000, better="lower"),
        Metric(name="cost", upper_bound=1, better="lower"),
    )
)
CONTEXT = Context(
    user_id="ada", conversation_id="c1", requested_at=AT - timedelta(hours=1), admitted_at=AT,
    experiments={"models": "large"}, experiment_versions={"models": RUNNING.design},
)  # fmt: skip


def envelope(**changes: Any) -> dict[str, Any]:
    return {
        "event_id": "e1", "request_id": "r1", "tenant_id": "support", "occurred_at": AT + timedelta(seconds=2.5),
        "causation_id": "", "context": CONTEXT,
    } | changes  # fmt: skip


def a_result(**changes: Any) -> LlmResult:
    return LlmResult(**envelope(**{"status": "completed", "usage": Usage(input_tokens=9, output_tokens=40)} | changes))


def a_cost(**changes: Any) -> Cost:
    return Cost(**envelope(**{"model": "m", "priced": True, "amount": Decimal("0.00012")} | changes))


def only(topic: str, record: Any) -> Observation:
    (emit,) = observe(topic, record, {"models": RUNNING}.get)
    assert isinstance(emit.record, Observation)
    assert (emit.topic, emit.key) == ("experiment-observations", "support|models")
    return emit.record


def test_a_result_is_the_assignment_and_says_how_long_it_took() -> None:
    seen = only("llm-results", a_result())
    assert seen.values == {"completed": 1.0, "latency_ms": 2500.0, "output_tokens": 40.0}
    assert (seen.arm, seen.version, seen.source) == ("large", RUNNING.design, "llm-results")
    assert seen.unit == RUNNING.unit_of("ada", "c1", "r1")
    assert "ada" not in str(seen)


def test_what_did_not_complete_says_that_alone() -> None:
    assert only("llm-results", a_result(status="failed")).values == {"completed": 0.0}
    bare = an_experiment(metrics=(Metric(name="feedback.rating"),))
    context = Context(requested_at=AT, experiments={"models": "large"}, experiment_versions={"models": bare.design})
    (emit,) = observe("llm-results", a_result(context=context), {"models": bare}.get)
    assert emit.record.values == {}, "it took part, whatever is measured"  # type: ignore[attr-defined]


def test_scores_that_are_compared_are_taken_by_subject_and_name() -> None:
    scores = [Score(name="rating", subject="feedback", score=0.75), Score(name="toxicity", subject="answer", score=0.1)]
    assert only("evaluations", Evaluation(**envelope(scores=scores))).values == {"feedback.rating": 0.75}
    assert observe("evaluations", Evaluation(**envelope(scores=scores[1:])), {"models": RUNNING}.get) == []


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, {"cost": 0.00012}),
        ({"kind": "repeat"}, {"cost": 0.00012}),
        ({"kind": "abandoned"}, {"cost": 0.00012}),
        ({"kind": "cached", "amount": Decimal(0)}, {"cost": 0.0}),
        ({"priced": False, "amount": None}, {"cost.unpriced": 1.0}),
        ({"kind": "judge"}, None),
        ({"kind": "shadow"}, None),
    ],
)
def test_costs_of_the_answer_count_and_an_unknown_one_is_said(
    changes: dict[str, Any], values: dict[str, float] | None
) -> None:
    found = observe("costs", a_cost(**changes), {"models": RUNNING}.get)
    assert [emit.record.values for emit in found] == ([] if values is None else [values])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "changes",
    [
        {"context": Context(requested_at=AT)},
        {"context": Context(requested_at=AT, experiments={"gone": "x"}, experiment_versions={"gone": "y"})},
        {"context": Context(requested_at=AT, experiments={"models": "large"}, experiment_versions={"models": "older"})},
        {"context": Context(requested_at=AT, experiments={"models": "large"})},
        {"tenant_id": "research"},
    ],
)
def test_other_requests_other_designs_and_other_teams_say_nothing(changes: dict[str, Any]) -> None:
    for topic, record in (("llm-results", a_result(**changes)), ("costs", a_cost(**changes))):
        assert observe(topic, record, {"models": RUNNING}.get) == []


def test_each_event_has_one_identity_by_experiment() -> None:
    other = an_experiment(name="other")
    context = Context(
        requested_at=AT, experiments={"models": "large", "other": "control"},
        experiment_versions={"models": RUNNING.design, "other": other.design},
    )  # fmt: skip
    found = [
        observe("llm-results", a_result(context=context), {"models": RUNNING, "other": other}.get) for _ in range(2)
    ]
    assert found[0] == found[1]
    assert len({emit.record.event_id for emit in found[0]}) == 2


def test_events_are_read_only_where_there_is_an_experiment() -> None:
    hop = observations_hop(ConfigPlane.of([]))
    assert hop.wanted is not None
    assert not hop.wanted()


async def test_the_hop_says_once_that_an_experiments_time_is_over() -> None:
    ends = an_experiment(ends_at=AT, metrics=RUNNING.metrics)
    hop = observations_hop(ConfigPlane.of([ends]))
    assert hop.topics == SOURCES
    assert hop.wanted is not None
    assert hop.wanted()

    async def emitted(*records: LlmResult) -> list[Observation]:
        events = [Event(Message("llm-results", 0, n, 0, b"k", b""), record) for n, record in enumerate(records)]
        return [emit.record for outcome in await hop.handler(events) for emit in outcome]  # type: ignore[union-attr,misc]

    plain = Context(requested_at=AT)
    before = a_result(event_id="before", context=plain, occurred_at=AT - timedelta(seconds=1))
    assert await emitted(before, a_result(event_id="elsewhere", tenant_id="research", context=plain)) == []
    (tick,) = await emitted(*(a_result(event_id=f"after{n}", context=plain) for n in range(5)))
    assert (tick.arm, tick.unit, tick.experiment, tick.causation_id) == ("", "", "models", "after0")
    assert await emitted(a_result(event_id="later", context=plain)) == []
