"""What a confirmed change says: the drift event for the record, the alert for on-call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from penstock.bus import Emit
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, DriftEvent, LogRange, Severity, Signal

from services.drift.scalar import ScalarParameters, ScalarShift
from services.drift.signals import Definition, definition
from services.drift.topic import TopicParameters, TopicShift

__all__ = ["Change", "Evidence", "announce", "of_scalar", "of_topic"]

RUNBOOK = "services/alerting/runbooks/drift.md"

_ACTIONS = {
    "data": "Read the sample requests after the change: a new use, another client or an attack? Check that prompts, "
    "the document collection and the guardrails fit the new traffic.",
    "model": "Compare the sample answers before and after. Look for a release of the model, the prompt or the route at "
    "this time, and take it back if answers are worse.",
    "cost": "Look at tokens and model of the sample requests. If the change is not wanted, set or lower the team's "
    "budget or send the route to a cheaper model.",
    "latency": "Look at the model endpoint's load and at queue times in the sample requests; add capacity or another "
    "target to the route.",
    "quality": "Read the sample requests and their scores. Look for changed documents, prompts or models at this time.",
}


class Evidence(NamedTuple):
    """Where in ``signals`` the two windows lie, and some of their requests."""

    partition: int
    reference_first: int
    test_first: int
    last: int
    sample_before: list[str]
    sample_after: list[str]


class Change(NamedTuple):
    """A confirmed change of one signal, ready to be told."""

    signal: str
    name: str
    kind: str
    detector: str
    statistic: float
    threshold: float
    before: dict[str, float]
    after: dict[str, float]
    reference_first_offset: int
    test_first_offset: int
    title: str
    alerts: bool


def of_topic(signal: str, shift: TopicShift, parameters: TopicParameters) -> Change:
    """Describe a change of topic."""
    ratio = shift.distance_after / max(shift.distance_before, 1e-12)
    return Change(
        signal=signal,
        name="topic_shift",
        kind="data",
        detector=f"kernel Fisher discriminant over random Fourier features {_settings(parameters)}",
        statistic=shift.statistic,
        threshold=shift.threshold,
        before={"messages": shift.reference_size, "spread": shift.distance_before},
        after={"messages": shift.test_size, "discrepancy": shift.distance_after},
        reference_first_offset=shift.reference_first_offset,
        test_first_offset=shift.test_first_offset,
        title=f"the prompts' topic has shifted: the newest {shift.test_size} lie {ratio:.0%} of the usual spread away "
        f"from the {shift.reference_size} before",
        alerts=True,
    )


def of_scalar(signal: str, shift: ScalarShift, parameters: ScalarParameters) -> Change:
    """Describe a change of a number's level or spread."""
    defined = definition(signal)
    if shift.what == "mean":
        before, after = defined.restore(shift.before), defined.restore(shift.after)
        alerts = defined.matters(shift.before, shift.after)
        title = f"{signal} went from {_figure(before, defined)} to {_figure(after, defined)}"
    else:
        before, after = shift.before, shift.after
        # The spread of a rate follows from its level, and a third more or less of any other is within what workloads
        # do.
        alerts = defined.scale != "rate" and not 1 / 1.33 < after / max(before, 1e-12) < 1.33
        unit = "log units" if defined.scale == "amount" else "units"
        title = f"{signal} scatters otherwise: mean deviation from {before:.3g} to {after:.3g} {unit}"
    measure = "deviation" if shift.what == "spread" else "geometric_mean" if defined.scale == "amount" else "mean"
    return Change(
        signal=signal,
        name=f"{signal.replace('.', '_')}_{'shift' if shift.what == 'mean' else 'spread'}",
        kind=defined.kind,
        detector=f"ADWIN on the {shift.what} {_settings(parameters)}",
        statistic=shift.statistic,
        threshold=shift.threshold,
        before={measure: before, "events": shift.before_count},
        after={measure: after, "events": shift.after_count},
        reference_first_offset=shift.reference_first_offset,
        test_first_offset=shift.test_first_offset,
        title=title,
        alerts=alerts,
    )


def announce(cause: Signal, change: Change, evidence: Evidence, now: datetime) -> Sequence[Emit]:
    """Return the drift event and, where the change is large enough to matter, its alert."""
    reference = LogRange(
        topic="signals",
        partition=evidence.partition,
        first_offset=evidence.reference_first,
        last_offset=max(evidence.test_first - 1, evidence.reference_first),
    )
    test = LogRange(
        topic="signals", partition=evidence.partition, first_offset=evidence.test_first, last_offset=evidence.last
    )
    event = DriftEvent(
        **derive(cause, f"drift.{change.name}", 0, now),
        segment=cause.segment,
        signal=change.signal,
        detector=change.detector,
        kind=change.kind,
        statistic=change.statistic,
        threshold=change.threshold,
        before=change.before,
        after=change.after,
        reference=[reference],
        test=[test],
        sample_before=evidence.sample_before,
        sample_after=evidence.sample_after,
    )
    emits = [Emit("drift-events", cause.segment, event)]
    if change.alerts:
        alert = _alert(event, change, evidence, now)
        emits.append(Emit("alerts", alert.fingerprint, alert))
    return emits


def _alert(event: DriftEvent, change: Change, evidence: Evidence, now: datetime) -> Alert:
    team, model, prompt_version, route = event.segment.split("|")
    figures = {f"before_{name}": value for name, value in change.before.items()}
    figures |= {f"after_{name}": value for name, value in change.after.items()}
    return Alert(
        **derive(event, "drift.alert", 0, now),
        kind="drift",
        name=change.name,
        severity=Severity.WARNING,
        title=f"{team}: {change.title}",
        description=f"{change.title[0].upper()}{change.title[1:]} (team {team}, model {model}, route {route}, prompt "
        f"version {prompt_version}). Statistic {change.statistic:.1f} at a bound of {change.threshold:.1f}, "
        f"confirmed by the messages after it; signals partition {evidence.partition}, offsets "
        f"{event.reference[0].first_offset} to {event.reference[0].last_offset} against {evidence.test_first} to "
        f"{evidence.last}.",
        suggested_action=_ACTIONS[change.kind],
        fingerprint=sha256(f"drift/{event.segment}/{change.name}".encode()).hexdigest()[:32],
        labels={
            "team": team,
            "model": model,
            "route": route,
            "prompt_version": prompt_version,
            "signal": change.signal,
            "drift": change.kind,
        },
        figures=figures | {"statistic": change.statistic, "threshold": change.threshold},
        evidence=[*event.reference, *event.test],
        sample_requests=[*evidence.sample_before, *evidence.sample_after],
        runbook=RUNBOOK,
    )


def _settings(parameters: TopicParameters | ScalarParameters) -> str:
    settings = {name: getattr(parameters, name) for name in parameters.__struct_fields__}
    return "(" + ", ".join(f"{name}={value:g}" for name, value in settings.items()) + ")"


def _figure(value: float, defined: Definition) -> str:
    return f"{value:.1%}" if defined.scale == "rate" else f"{value:.4g}"
