"""Observations to decisions: the pure logic of the agent of experiments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from penstock.alerts import log_range
from penstock.bus import Emit, Message
from penstock.config.kinds import Experiment
from penstock.contracts.records import LogRange, Observation
from penstock.stateful import Logic, Lookup

from services.evaluation.experiments.clusters import added, bucket_of, quantised
from services.evaluation.experiments.comparison import Levels, compare, levels
from services.evaluation.experiments.decisions import Decided, events_of
from services.evaluation.experiments.matching import control_came, trial_came
from services.evaluation.experiments.sequential import ratio_evidence
from services.evaluation.experiments.state import Standing, Told, begin, is_bet_on
from services.evaluation.experiments.units import first_seen

__all__ = ["ASSIGNMENT", "UNPRICED", "Observed", "experiments", "state_key"]

ASSIGNMENT = "llm-results"
"""Source of the observations that say that a request took part: one a request."""
UNPRICED = "cost.unpriced"
"""Value of an observation of a call that has no price."""

_MOST_CONTROLS = 4
"""Outcomes of the control that one of an arm is matched with, at most."""
# Longer than the observations are kept.
_KEPT = timedelta(days=45)


@dataclass(frozen=True, slots=True)
class Observed:
    """An observation with the experiment it is of, and where it stands."""

    observation: Observation
    experiment: Experiment
    origin: LogRange


def state_key(team: str, experiment: str, design: str) -> str:
    """Return the key of the state of one design of an experiment. All that decides stands in it alone: two states that a
    crash left at different offsets would decide at another observation than before."""
    return f"{team}|{experiment}|{design}"


def experiments(experiment_of: Callable[[str], Experiment | None]) -> Logic[Standing, Observed]:
    """Return the processor of ``experiment-observations``.

    Args:
        experiment_of: the configuration of an experiment in force. Observations of another design of it, and of one that
            is there no longer, are left out.
    """

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Observed]]:
        if not isinstance(record, Observation):
            return
        experiment = experiment_of(record.experiment)
        if experiment is None or not experiment.includes(record.tenant_id) or experiment.design != record.version:
            return
        key = state_key(experiment.team, record.experiment, record.version)
        yield key, Observed(record, experiment, log_range(message))

    return Logic(step=step, route=route, state_type=Standing, expires_at=lambda key, state: state.newest + _KEPT)


def step(state: Standing | None, event: Observed, now: datetime) -> tuple[Standing, Sequence[Emit]]:
    """Take one observation in, and decide what can be decided."""
    experiment, observation = event.experiment, event.observation
    standing = state or begin(experiment, event.origin, now)
    evidence = msgspec.structs.replace(standing.evidence, last_offset=event.origin.last_offset)
    standing = msgspec.structs.replace(standing, evidence=evidence, newest=max(standing.newest, now))
    arm = next((index for index, each in enumerate(experiment.arms) if each.name == observation.arm), None)
    changed: list[int] = []
    if arm is not None:
        if observation.source == ASSIGNMENT:
            standing = _counted(standing, experiment, arm, observation.unit)
        standing, changed = _measured(standing, experiment, arm, observation)
        standing = _bet(standing, experiment, arm, observation)
    if standing.mismatched:
        return standing, []
    decided: list[Decided] = []
    spent = levels(experiment)
    if experiment.tests_ratio and standing.ratio_p_value <= spent.ratio:
        decided.append(Decided("sample_ratio_mismatch"))
    elif _over(standing, experiment, observation.occurred_at):
        if not standing.told:
            decided.append(Decided("ended"))
    elif arm is not None:
        standing, decided = _compared(standing, experiment, arm, changed, spent)
    told = [Told(one.decision, one.arm, one.metric, observation.occurred_at) for one in decided]
    standing = msgspec.structs.replace(standing, told=(*standing.told, *told))
    return standing, [emit for one in decided for emit in events_of(one, standing, experiment, observation, now)]


def _over(standing: Standing, experiment: Experiment, at: datetime) -> bool:
    """Whether the experiment's time is over: by ``at``, or since that was told. A later ``ends_at`` opens it again."""
    if experiment.ends_at is None:
        return False
    told = max((one.at for one in standing.told if one.decision == "ended"), default=at)
    return max(at, told) >= experiment.ends_at


def _counted(standing: Standing, experiment: Experiment, arm: int, unit: str) -> Standing:
    """Count a request, and its unit where it is new."""
    standing = msgspec.structs.replace(standing, requests=_more(standing.requests, arm))
    seen = first_seen(standing.seen, unit)
    if seen is None:
        return standing
    units = _more(standing.units, arm)
    if not experiment.tests_ratio:
        return msgspec.structs.replace(standing, seen=seen, units=units)
    now = ratio_evidence(units, [each.weight for each in experiment.arms])
    return msgspec.structs.replace(standing, seen=seen, units=units, ratio_p_value=min(standing.ratio_p_value, now))


def _measured(
    standing: Standing, experiment: Experiment, arm: int, observation: Observation
) -> tuple[Standing, list[int]]:
    """Add the values up; also return the indices of the metrics that changed."""
    block, bucket = standing.blocks[arm], bucket_of(observation.unit)
    low, high = list(standing.low), list(standing.high)
    changed = []
    for index, metric in enumerate(experiment.metrics):
        value, count = observation.values.get(metric.name), 1
        if metric.name == "cost":
            # A request may have several calls, or none: costs are added up, and each request counts once.
            count = 1 if observation.source == ASSIGNMENT else 0
            value = metric.lower_bound if value is None and count else value
        if value is None:
            continue
        quanta = quantised(value, metric)
        block = added(block, index, bucket, quanta, count)
        low[index] = quanta if low[index] < 0 else min(low[index], quanta)
        high[index] = max(high[index], quanta)
        changed.append(index)
    if UNPRICED in observation.values:
        standing = msgspec.structs.replace(standing, unpriced=_more(standing.unpriced, arm))
    if changed:
        blocks = (*standing.blocks[:arm], block, *standing.blocks[arm + 1 :])
        standing = msgspec.structs.replace(standing, blocks=blocks, low=tuple(low), high=tuple(high))
    return standing, changed


def _bet(standing: Standing, experiment: Experiment, arm: int, observation: Observation) -> Standing:
    """Bet on the first outcome of a unit, where failures are a guard."""
    guard = next((metric for metric in experiment.metrics if is_bet_on(metric)), None)
    failed = observation.values.get("failed")
    if guard is None or failed is None or (tried := first_seen(standing.tried, observation.unit)) is None:
        return standing
    came = control_came if arm == 0 else trial_came
    weights = [each.weight for each in experiment.arms]
    sizes = [min(_MOST_CONTROLS, max(1, round(weights[0] / weight))) for weight in weights[1:]]
    matched = tuple(
        came(each, failed > 0, guard.margin, size) if arm in (0, index) else each
        for index, (each, size) in enumerate(zip(standing.matched, sizes, strict=True), start=1)
    )
    return msgspec.structs.replace(standing, matched=matched, tried=tried)


def _compared(
    standing: Standing, experiment: Experiment, arm: int, changed: Sequence[int], spent: Levels
) -> tuple[Standing, list[Decided]]:
    """Look at every comparison that the metrics at ``changed`` of an arm are part of."""
    p_values = list(standing.p_values)
    decided = []
    for other in range(1, len(experiment.arms)) if arm == 0 else [arm]:
        for metric in changed:
            found = compare(standing, experiment, other, metric, spent)
            place = (other - 1) * len(experiment.metrics) + metric
            p_values[place] = min(p_values[place], found.p_value)
            if found.decision is None or any(
                (one.arm, one.metric) == (found.arm, found.metric.name) for one in standing.told
            ):
                continue
            decided.append(Decided(found.decision, found, p_values[place]))
    return msgspec.structs.replace(standing, p_values=tuple(p_values)), decided


def _more(counts: tuple[int, ...], index: int) -> tuple[int, ...]:
    return tuple(count + (place == index) for place, count in enumerate(counts))
