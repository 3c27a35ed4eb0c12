"""From the events of a request to what they say of its experiments: a stateless hop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from penstock.bus import Emit, Event, Hop, Outcome
from penstock.config.kinds import Experiment
from penstock.contracts.envelope import event_id
from penstock.contracts.records import Completion, Cost, Evaluation, LlmResult, Observation, Purpose, Status
from penstock.telemetry import get_logger

from services.evaluation.experiments.core import ASSIGNMENT, UNPRICED

__all__ = ["SOURCES", "Configuration", "Ended", "observations_hop", "observe"]

log = get_logger(__name__)

SOURCES = ("llm-results", "evaluations", "costs", "completions")
"""Feedback comes as scores of the subject feedback."""

# What a judge or a policy in shadow costs is no cost of the answer.
_NOT_OF_THE_ANSWER = frozenset({"judge", "shadow"})

# So long after an experiment's end somebody may still wait to be told: the services may have stood still.
_TOLD_WITHIN = timedelta(days=30)

_Source = LlmResult | Evaluation | Cost | Completion


class Configuration(Protocol):
    """The part of the config plane that the projection reads."""

    @property
    def has_experiments(self) -> bool: ...
    def experiment(self, name: str) -> Experiment | None: ...
    def experiments(self, team: str) -> list[Experiment]: ...


def observe(topic: str, record: _Source, experiment_of: Callable[[str], Experiment | None]) -> list[Emit]:
    """Return an observation for each experiment that the request of ``record`` takes part in, in the design in force.

    A result is one even where no metric is taken from it: it says that the request took part.
    """
    if record.context.purpose != Purpose.SERVE:
        return []
    emits = []
    for name, arm in record.context.experiments.items():
        experiment = experiment_of(name)
        design = record.context.experiment_versions.get(name)
        if experiment is None or not experiment.includes(record.tenant_id) or experiment.design != design:
            log.debug("an observation of another design is left out", experiment=name, design=design)
            continue
        wanted = {metric.name for metric in experiment.metrics}
        if "cost" in wanted:
            wanted.add(UNPRICED)
        values = {metric: value for metric, value in _values(record).items() if metric in wanted}
        if values or topic == ASSIGNMENT:
            emits.append(_emit(topic, record, experiment, arm, values))
    return emits


def _values(record: _Source) -> Mapping[str, float]:
    match record:
        case Cost():
            if record.kind in _NOT_OF_THE_ANSWER:
                return {}
            return {"cost": float(record.amount)} if record.amount is not None else {UNPRICED: 1.0}
        case Evaluation():
            return {f"{score.subject}.{score.name}": score.score for score in record.scores}
        case Completion():
            return _of_call(record)
        case _ if (record.stage, record.code) == ("inference", "model_unavailable"):
            # No model was at work, so there is no completion to say that the first target failed.
            return {"completed": 0.0, "failed": 1.0}
        case _ if record.status != "completed":
            return {"completed": 0.0}
        case _:
            # From the platform's own clock, where it is known: no arm changes what happened before.
            since = record.context.admitted_at or record.context.requested_at
            latency = (record.occurred_at - since).total_seconds() * 1000
            return {"completed": 1.0, "latency_ms": latency, "output_tokens": float(record.usage.output_tokens)}


def _of_call(completion: Completion) -> Mapping[str, float]:
    """Return what became of the target that was asked first, in the first answer to a request.

    An answer from a cache says nothing of it, nor does a call that nobody wanted the end of. One that took longer than the
    request could wait is a failure: whoever asked got nothing.
    """
    if completion.kind != "completion" or completion.attempt or completion.ends_as == Status.CANCELLED:
        return {}
    if completion.error is not None or completion.failures:
        return {"failed": 1.0}
    return {"failed": 0.0, "model_ms": completion.timings.model_us / 1000}


def _emit(topic: str, record: _Source, experiment: Experiment, arm: str, values: Mapping[str, float]) -> Emit:
    context = record.context
    names = (context.user_id, context.conversation_id, record.request_id, record.tenant_id)
    unit = experiment.unit_of(*names) if arm else ""
    observation = Observation(
        event_id=event_id(record.event_id, f"evaluation.observation.{experiment.name}"),
        request_id=record.request_id,
        tenant_id=record.tenant_id,
        occurred_at=record.occurred_at,
        causation_id=record.event_id,
        experiment=experiment.name,
        version=experiment.design,
        arm=arm,
        unit=unit,
        source=topic,
        values=dict(values),
    )
    return Emit("experiment-observations", f"{experiment.team}|{experiment.name}", observation)


class Ended:
    """Says once a process that an experiment's time is over: with the first result of its team that comes after.

    The agent acts on what it reads, and requests are assigned no longer: nothing else would come to tell it. Another
    process, or this one after a restart, may say it again, which changes nothing.
    """

    def __init__(self, config: Configuration) -> None:
        self._config = config
        self._said: set[tuple[str, str, datetime]] = set()

    def observe(self, record: LlmResult) -> Iterable[Emit]:
        """Yield an observation without an arm for every experiment of the team that has ended since the last one."""
        for experiment in self._config.experiments(record.tenant_id):
            if experiment.ends_at is None or record.occurred_at < experiment.ends_at:
                continue
            what = (experiment.name, experiment.design, experiment.ends_at)
            if what not in self._said and record.occurred_at - experiment.ends_at < _TOLD_WITHIN:
                self._said.add(what)
                yield _emit("llm-results", record, experiment, "", {})


def observations_hop(config: Configuration) -> Hop:
    """Return the hop from the flow's topics to experiment-observations."""
    ended = Ended(config)

    async def handle(events: Sequence[Event[Any]]) -> Sequence[Outcome]:
        return [_outcome(event) for event in events]

    def _outcome(event: Event[Any]) -> Outcome:
        emits = observe(event.topic, event.record, config.experiment)
        if isinstance(event.record, LlmResult):
            told = {emit.record.event_id for emit in emits}
            emits += [emit for emit in ended.observe(event.record) if emit.record.event_id not in told]
        return emits

    return Hop(
        service="evaluation",
        group="evaluation-observations",
        topics=SOURCES,
        handler=handle,
        # Without an experiment no event is an observation: decoding them all would be most of what the hop costs.
        wanted=lambda: config.has_experiments,
    )
