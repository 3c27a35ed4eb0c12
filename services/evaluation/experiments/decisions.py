"""What is told of a decision: an event, and an alert where a person should act at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock.alerts import alert_emit, fingerprint
from penstock.bus import Emit
from penstock.config.canaries import CanaryExperiment
from penstock.config.kinds import Experiment
from penstock.contracts.envelope import Envelope, event_id
from penstock.contracts.records import Alert, ExperimentEvent, Observation

from services.evaluation.experiments.comparison import Comparison, levels
from services.evaluation.experiments.state import Standing
from services.evaluation.experiments.units import units_seen

__all__ = ["Decided", "events_of", "units_by_arm"]

_RUNBOOK = "services/alerting/runbooks/quality.md"


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision; ``comparison`` is what it was taken on, and ``p_value`` its always-valid one, where it is about an arm."""

    decision: str
    comparison: Comparison | None = None
    p_value: float | None = None

    @property
    def arm(self) -> str:
        """The arm it is about; empty for all."""
        return self.comparison.arm if self.comparison else ""

    @property
    def metric(self) -> str:
        """The metric that decided; empty for none."""
        return self.comparison.metric.name if self.comparison else ""


def units_by_arm(standing: Standing, experiment: Experiment) -> dict[str, int]:
    """Return about how many units each arm has: those counted, and their share of those that found no free place."""
    counted = sum(standing.units)
    whole = units_seen(counted)
    return {
        arm.name: round(units * whole / counted) if counted else 0
        for arm, units in zip(experiment.arms, standing.units, strict=True)
    }


def events_of(
    decided: Decided, standing: Standing, experiment: Experiment, observation: Observation, now: datetime
) -> Sequence[Emit]:
    """Return what is told of ``decided``. A decision has one identity, whichever observation brought it about."""
    event = _event(decided, standing, experiment, _envelope(decided, experiment, observation, now, "event"))
    emits = [Emit("experiment-events", experiment.name, event)]
    envelope = _envelope(decided, experiment, observation, now, "alert")
    if decided.decision == "sample_ratio_mismatch":
        emits.append(alert_emit(_mismatch(standing, experiment, event, envelope)))
    elif decided.comparison is not None and decided.decision == "worse" and decided.comparison.metric.role == "guard":
        emits.append(alert_emit(_harm(decided.comparison, experiment, event, envelope)))
    return emits


def _envelope(decided: Decided, experiment: Experiment, observation: Observation, now: datetime, what: str) -> Envelope:
    about = "|".join(
        (experiment.team, experiment.name, experiment.design, decided.decision, decided.arm, decided.metric)
    )
    return {
        "event_id": event_id(about, f"evaluation.experiments.{what}"),
        "request_id": observation.request_id,
        "tenant_id": experiment.team,
        "occurred_at": now,
        "causation_id": observation.event_id,
    }


def _event(decided: Decided, standing: Standing, experiment: Experiment, envelope: Envelope) -> ExperimentEvent:
    spent, found = levels(experiment), decided.comparison
    if found is None:
        mismatch = decided.decision == "sample_ratio_mismatch"
        return ExperimentEvent(
            **envelope,
            experiment=experiment.name,
            version=experiment.design,
            decision=decided.decision,
            control=experiment.control.name,
            confidence=1 - spent.ratio if mismatch else None,
            units=units_by_arm(standing, experiment),
            p_value=standing.ratio_p_value if mismatch else None,
            evidence=[standing.evidence],
        )
    means = {experiment.control.name: found.control, found.arm: found.mean}
    # Where few outcomes were enough there is no interval yet.
    interval = [] if found.low is None or found.high is None else [found.low, found.high]
    if decided.decision == "no_difference" and found.difference is not None and found.cautious is not None:
        interval = [found.difference - found.cautious, found.difference + found.cautious]
    return ExperimentEvent(
        **envelope,
        experiment=experiment.name,
        version=experiment.design,
        decision=decided.decision,
        arm=found.arm,
        metric=found.metric.name,
        control=experiment.control.name,
        difference=found.difference,
        interval=interval,
        confidence=1 - spent.of(found.metric),
        means={name: mean for name, mean in means.items() if mean is not None},
        units=units_by_arm(standing, experiment),
        p_value=decided.p_value,
        evidence=[standing.evidence],
    )


def _mismatch(standing: Standing, experiment: Experiment, event: ExperimentEvent, envelope: Envelope) -> Alert:
    weights = sum(arm.weight for arm in experiment.arms)
    counted = sum(standing.units)
    expected = ", ".join(f"{arm.name} {arm.weight / weights:.1%}" for arm in experiment.arms)
    found = ", ".join(
        f"{arm.name} {units / counted:.1%} ({units:,})"
        for arm, units in zip(experiment.arms, standing.units, strict=True)
    )
    return Alert(
        **envelope,
        kind="quality",
        name="sample_ratio_mismatch",
        severity="warning",
        title=f"The arms of experiment {experiment.name} have not the units they should",
        description=f"Of {counted:,} units that were counted: {found}. By the weights it should be {expected}; the "
        f"always-valid p-value is {standing.ratio_p_value:.2g}. Requests of some arm are lost or assigned otherwise, so "
        "nothing that its metrics say is decided any more.",
        suggested_action=f"penstock experiments show {experiment.name}",
        fingerprint=fingerprint(
            "quality", "sample_ratio_mismatch", experiment.team, experiment.name, experiment.design
        ),
        labels={"team": experiment.team, "experiment": experiment.name},
        figures={f"units.{arm.name}": float(n) for arm, n in zip(experiment.arms, standing.units, strict=True)},
        evidence=event.evidence,
        runbook=_RUNBOOK,
    )


def _harm(found: Comparison, experiment: Experiment, event: ExperimentEvent, envelope: Envelope) -> Alert:
    low, high = event.interval or (None, None)
    how = f"the always-valid p-value is {event.p_value:.2g}"
    if low is not None and high is not None:
        how = f"between {low:.4g} and {high:.4g} with {event.confidence:.2%} confidence at all times together"
    title = f"Arm {found.arm} of experiment {experiment.name} makes {found.metric.name} worse"
    action = (
        f"penstock experiments show {experiment.name}; then pause it or take the arm out, and `penstock config apply`"
    )
    if isinstance(experiment, CanaryExperiment):
        title = (
            f"Canary {experiment.canary.target.label} of route {experiment.route} is taken back: {found.metric.name}"
        )
        action = (
            f"Nothing at once: its traffic goes to the stable targets again. penstock experiments show {experiment.name}; "
            "mend the target and give the canary another salt, or take it out of the route, and `penstock config apply`"
        )
    return Alert(
        **envelope,
        kind="quality",
        name="experiment_guard_harmed",
        severity="critical",
        title=title,
        description=f"{found.metric.name} is {found.mean:.4g} in {found.arm} and {found.control:.4g} in "
        f"{experiment.control.name}: a difference of {found.difference:.4g}, {how}; {found.metric.margin:g} was allowed.",
        suggested_action=action,
        fingerprint=fingerprint(
            "quality", "experiment_guard_harmed", experiment.team, experiment.name, experiment.design, found.arm,
            found.metric.name,
        ),
        labels={
            "team": experiment.team, "experiment": experiment.name, "arm": found.arm, "metric": found.metric.name,
        },
        figures={"difference": found.difference or 0.0, "margin": found.metric.margin}
        | ({} if low is None or high is None else {"low": low, "high": high}),
        evidence=event.evidence,
        runbook=_RUNBOOK,
    )  # fmt: skip
