"""What an experiment says in plain words, and what to do next. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstock.config.canaries import CANARY, CanaryExperiment
from penstock.config.kinds import Arm, Experiment

from services.evaluation.experiments.comparison import Comparison, compare, levels
from services.evaluation.experiments.state import Standing

__all__ = ["ArmSays", "advice", "arms_say", "held", "phase", "state_of"]


@dataclass(frozen=True, slots=True)
class ArmSays:
    """An arm against the control: every metric, as it is now."""

    arm: Arm
    comparisons: Sequence[Comparison]
    p_values: Sequence[float]
    decisions: Sequence[str]
    """By metric: as told, else empty."""


def arms_say(experiment: Experiment, standing: Standing) -> list[ArmSays]:
    """Return what each arm but the control says."""
    spent = levels(experiment)
    metrics = range(len(experiment.metrics))
    told = {(one.arm, one.metric): one.decision for one in standing.told}
    return [
        ArmSays(
            arm,
            [compare(standing, experiment, index, metric, spent) for metric in metrics],
            [standing.p_values[(index - 1) * len(experiment.metrics) + metric] for metric in metrics],
            [told.get((arm.name, metric.name), "") for metric in experiment.metrics],
        )
        for index, arm in enumerate(experiment.arms)
        if index > 0
    ]


def phase(experiment: Experiment, now: datetime) -> str:
    """Return paused, waiting, ended or running."""
    if experiment.paused:
        return "paused"
    if experiment.starts_at is not None and now < experiment.starts_at:
        return "waiting"
    return "running" if experiment.runs(now) else "ended"


def state_of(experiment: Experiment, standing: Standing | None, now: datetime) -> str:
    """Return the phase, or ``taken back`` for a canary that was worse than its bounds allow."""
    if isinstance(experiment, CanaryExperiment) and standing is not None and _harms(standing):
        return "taken back"
    return phase(experiment, now)


def _harms(standing: Standing) -> list[str]:
    """Return the metrics that took a canary back."""
    return [one.metric for one in standing.told if (one.decision, one.arm) == ("worse", CANARY)]


def advice(experiment: Experiment, standing: Standing | None, now: datetime) -> list[str]:
    """Return what to do next, a sentence each."""
    if isinstance(experiment, CanaryExperiment):
        return _of_canary(experiment, standing)
    if standing is None:
        return [_nothing_yet(experiment, now)]
    if standing.mismatched:
        return [
            "The arms have not the units they should, so the metrics say nothing. Find what one arm loses (the runbook "
            "quality.md, sample_ratio_mismatch), then begin again with another `salt`."
        ]
    said = []
    for each in arms_say(experiment, standing):
        decided = {c.metric.name: d for c, d in zip(each.comparisons, each.decisions, strict=True) if d}
        guards = [c for c in each.comparisons if c.metric.role == "guard"]
        harmed = [c.metric.name for c in guards if decided.get(c.metric.name) == "worse"]
        goals = {name: d for name, d in decided.items() if name not in harmed}
        unsure = [c.metric.name for c in guards if not held(c)]
        name = each.arm.name
        if harmed:
            said.append(f"{name} harms {', '.join(harmed)}: take the arm out, or pause the experiment.")
        elif "worse" in goals.values():
            said.append(f"{name} is worse by {_by(goals, 'worse')}: keep {experiment.control.name}.")
        elif "better" in goals.values() and unsure:
            said.append(
                f"{name} is better by {_by(goals, 'better')}. That {', '.join(unsure)} is not harmed is not yet certain: "
                "let the experiment run on."
            )
        elif "better" in goals.values():
            said.append(f"{name} is better by {_by(goals, 'better')}, and no guard is harmed: {_roll_out(each.arm)}")
        elif goals and all(c.metric.name in goals for c in each.comparisons if c.metric.role == "goal"):
            said.append(
                f"{name} and {experiment.control.name} do not differ by more than the margin: take the cheaper one."
            )
    if said:
        return said
    if not experiment.runs(now):
        return ["Nothing was decided. A longer time (`ends_at`), a larger share or a wider margin would decide more."]
    return ["Nothing is decided yet. Look as often as you like: the intervals hold at every look."]


def _nothing_yet(experiment: Experiment, now: datetime) -> str:
    if not experiment.runs(now):
        return f"The experiment is {phase(experiment, now)}, and nothing was observed of this design."
    return (
        "Nothing was observed yet. Does the team send requests that it concerns (routes, prompt, share), and do they leave "
        "prompt_label at its default? `penstock_experiment_skips` counts those that it could not assign."
    )


def _of_canary(experiment: CanaryExperiment, standing: Standing | None) -> list[str]:
    target, route = experiment.canary.target.label, experiment.route
    if standing is None:
        return [f"Nothing was observed yet: was route {route} asked since the canary is as it is?"]
    if harmed := _harms(standing):
        return [
            f"{target} was taken back for {', '.join(harmed)}: its traffic goes to the stable targets. Mend it and give the "
            "canary another salt, or take it out of the route; then `penstock config apply`."
        ]
    if not experiment.metrics:
        return ["The canary has no bounds, so nothing takes it back."]
    (says,) = arms_say(experiment, standing)
    if unsure := [one.metric.name for one in says.comparisons if not held(one)]:
        return [
            f"{target} stays: nothing says that it is worse than its bounds allow. That it keeps within them is not yet "
            f"certain of {', '.join(unsure)}."
        ]
    return [f"{target} keeps within every bound: give it a place among the route's targets, and take the canary out."]


def held(comparison: Comparison) -> bool:
    """Return whether a guard is certain not to be worse by more than its margin."""
    if comparison.low is None or comparison.high is None:
        return False
    worst = comparison.low if comparison.metric.better == "higher" else -comparison.high
    return worst >= -comparison.metric.margin


def _by(goals: dict[str, str], decision: str) -> str:
    return ", ".join(name for name, decided in goals.items() if decided == decision)


def _roll_out(arm: Arm) -> str:
    steps = []
    if arm.prompt_label:
        steps.append(f"give the prompt's version {arm.prompt_label} the label production")
    if arm.route:
        steps.append(f"make {arm.route} the team's default_route, or give its target to the route in use")
    if arm.policy:
        steps.append(f"name policy {arm.policy} in the team or its routes")
    what = "; ".join(steps) or "leave the route, prompt and policy as they are"
    return f"{what}; remove the experiment; then `penstock config apply --dry-run` and `penstock config apply`."
