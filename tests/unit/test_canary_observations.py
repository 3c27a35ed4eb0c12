"""What calls say of canaries: whether the target that was asked first gave an answer, and how long it took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from penstock.bus import MemoryBus, Producer
from penstock.clock import ManualClock
from penstock.config.canaries import CANARY, canary_experiment
from penstock.config.kinds import Canary, Metric, Policy, Route, Target, Team
from penstock.config.publish import Change, publish_changes
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Completion, Context, LlmResult, Observation, TargetFailure, Timings

from services.evaluation.experiments.projection import SOURCES, observe
from services.evaluation.experiments.reading import read_experiments
from tests.unit.experiment_cases import an_experiment

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
ROUTE = Route(
    name="default",
    targets=(Target(backend="openai", model="stable"),),
    canary=Canary(target=Target(backend="openai", model="tried"), share=0.1, max_latency_ms=100),
)
ON_TRIAL = canary_experiment(ROUTE)
assert ON_TRIAL is not None
CONTEXT = Context(
    requested_at=NOW, user_id="ada", experiments={ON_TRIAL.name: CANARY},
    experiment_versions={ON_TRIAL.name: ON_TRIAL.design},
)  # fmt: skip
AWAY = TargetFailure(target="tried", reason="away")


def envelope(**changes: Any) -> dict[str, Any]:
    return {
        "event_id": "e", "request_id": "r", "tenant_id": "support", "occurred_at": NOW, "causation_id": "c",
        "context": CONTEXT,
    } | changes  # fmt: skip


def a_call(**changes: Any) -> Completion:
    fields = {"messages": [], "model": "tried", "backend": "openai", "timings": Timings(model_us=250_000)}
    return Completion(**envelope(**fields | changes))


def seen(topic: str, record: Any) -> list[Observation]:
    observations = [emit.record for emit in observe(topic, record, {ON_TRIAL.name: ON_TRIAL}.get)]  # type: ignore[union-attr]
    assert all(isinstance(each, Observation) for each in observations)
    return observations  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, {"failed": 0.0, "model_ms": 250.0}),
        ({"failures": [AWAY], "target": "stable"}, {"failed": 1.0}),
        ({"error": "broke off"}, {"failed": 1.0}),
        ({"error": "the deadline passed", "ends_as": "expired"}, {"failed": 1.0}),
        ({"error": "nobody wants it", "ends_as": "cancelled"}, None),
        ({"kind": "cached", "cached_by": "exact"}, None),
        ({"kind": "abandoned", "error": "broke off"}, None),
        ({"kind": "shadow"}, None),
        ({"attempt": 1}, None),
    ],
    ids=lambda value: "-".join(value) if value else "nothing",
)
def test_a_call_says_whether_its_first_target_failed(changes: dict[str, Any], values: dict[str, float] | None) -> None:
    assert [each.values for each in seen("completions", a_call(**changes))] == ([] if values is None else [values])


def test_where_no_model_was_at_work_the_result_says_it_and_else_it_does_not() -> None:
    def result(**changes: Any) -> LlmResult:
        return LlmResult(**envelope(**{"status": "failed", "stage": "inference"} | changes))

    (nobody,) = seen("llm-results", result(code="model_unavailable"))
    assert nobody.values == {"failed": 1.0}
    (told_before,) = seen("llm-results", result(code="model_error"))
    assert told_before.values == {}, "its completion said so"


def test_requests_of_every_team_are_observed_and_their_users_are_not_one() -> None:
    (here,), (there,) = seen("completions", a_call()), seen("completions", a_call(tenant_id="sales"))
    assert (here.tenant_id, there.tenant_id) == ("support", "sales")
    assert here.unit != there.unit
    keys = {
        emit.key for team in ("a", "b") for emit in observe("completions", a_call(tenant_id=team), lambda _: ON_TRIAL)
    }
    assert keys == {"platform|canary:default"}, "one place sees all of them"
    assert "completions" in SOURCES


def test_configured_experiments_may_use_these_figures_too() -> None:
    metrics = (Metric(name="answer.quality"), Metric(name="failed", role="guard", better="lower", margin=0.1))
    running = an_experiment(metrics=metrics)
    context = Context(requested_at=NOW, experiments={"models": "large"}, experiment_versions={"models": running.design})
    (emit,) = observe("completions", a_call(context=context), {"models": running}.get)
    assert emit.record.values == {"failed": 0.0}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="upper_bound"):
        Metric(name="model_ms", better="lower")


async def test_canaries_are_among_the_experiments_that_are_read() -> None:
    bus = MemoryBus(
        Catalogue(
            topics={
                **Catalogue.load().topics,
                "evaluation-experiments-changelog": Catalogue.load().topics["costs"],
            },
            root=Catalogue.load().root,
        ),
        ManualClock(NOW),
    )
    configured = an_experiment(routes=(), arms=an_experiment().arms)
    entries = [
        ("routes", ROUTE),
        ("experiments", configured),
        ("teams", Team(name="support")),
        ("policies", Policy(name="p")),
    ]
    changes = [Change(kind, entry.key, "new", None, entry) for kind, entry in entries]
    await publish_changes(changes, Producer(bus.producer(), bus.codec, "test"), NOW + timedelta(seconds=1))
    found = await read_experiments(bus, bus.codec)
    assert [each.experiment.name for each in found] == ["canary:default", "models"]
    assert [each.experiment.name for each in await read_experiments(bus, bus.codec, team="support")] == ["models"]
    assert [each.experiment for each in await read_experiments(bus, bus.codec, names={"canary:default"})] == [ON_TRIAL]
