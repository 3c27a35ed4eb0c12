"""What on-call is told of classifiers that learn."""

from __future__ import annotations

from datetime import datetime

from penstock.alerts import alert_emit, fingerprint
from penstock.bus import Emit
from penstock.contracts.envelope import Envelope, derive
from penstock.contracts.records import Alert, Label, LogRange, Record

from services.evaluation.learning.guards import Suspect
from services.evaluation.learning.state import Change, Learning

__all__ = ["promoted_alert", "rolled_back_alert", "suspect_alert"]

_RUNBOOK = "services/alerting/runbooks/quality.md"
_PLATFORM = "platform"
"""A classifier is everybody's: no team's alert."""


def promoted_alert(cause: Record, model: str, state: Learning, origin: LogRange, now: datetime) -> Emit:
    """Return the alert that a challenger became the champion; ``state`` is the one before its test begins anew."""
    change = state.schedule[-1]
    test = state.test
    count = max(test.better.count, 1)
    by = f"by command of {change.author or 'somebody'}" if change.cause == "commanded" else "by its test"
    alert = Alert(
        **_envelope(cause, f"promoted.{model}", now),
        kind="quality",
        name="model_promoted",
        severity="info",
        title=f"{model}: version {change.version} becomes the champion {by}",
        description=(
            f"From {change.effective_from:%Y-%m-%d %H:%M:%S} UTC results are scored with {model} {change.version}, before "
            f"with {state.schedule[-2].version}. On {test.better.count} trusted labels that it had not seen, its squared "
            f"error was {test.challenger / count:.4f}, the champion's {test.champion / count:.4f}. "
            f"{change.reason}"
        ).rstrip(),
        suggested_action=(
            "Nothing, where the scores of `penstock tail evaluations` look right; else "
            f"`penstock evaluate models rollback {model}`."
        ),
        fingerprint=fingerprint("quality", "model_promoted", model, change.version),
        labels={"team": _PLATFORM, "model": model, "version": change.version},
        figures={
            "labels": float(test.better.count),
            "champion_brier": round(test.champion / count, 6),
            "challenger_brier": round(test.challenger / count, 6),
            "authors": float(len(test.authors)),
        },
        evidence=[origin],
        runbook=_RUNBOOK,
    )
    return alert_emit(alert)


def rolled_back_alert(cause: Record, model: str, before: str, change: Change, origin: LogRange, now: datetime) -> Emit:
    """Return the alert that an earlier version is in force again."""
    alert = Alert(
        **_envelope(cause, f"rolled_back.{model}", now),
        kind="quality",
        name="model_rolled_back",
        severity="info",
        title=f"{model}: back to version {change.version}",
        description=(
            f"{change.author or 'Somebody'} took {model} back from {before} to {change.version}, in force from "
            f"{change.effective_from:%Y-%m-%d %H:%M:%S} UTC. The challenger begins anew from there. "
            f"{change.reason or 'No reason was given.'}"
        ),
        suggested_action=(
            f"See that scores are right again; `penstock evaluate models freeze {model}` while the cause is looked for."
        ),
        fingerprint=fingerprint("quality", "model_rolled_back", model, change.version),
        labels={"team": _PLATFORM, "model": model, "version": change.version},
        evidence=[origin],
        runbook=_RUNBOOK,
    )
    return alert_emit(alert)


def suspect_alert(cause: Label, ordinal: int, suspect: Suspect, origin: LogRange, now: datetime) -> Emit:
    """Return the alert that somebody may be poisoning a classifier."""
    model = cause.model
    if suspect.cause == "rate":
        what = f"reached the limit of {suspect.evidence:.0f} labels an hour; what is over it is not learned from"
    else:
        what = (
            "labels texts against champion and challenger, both confident, far more often than the moderators do "
            f"(evidence {suspect.evidence:.1f} nats)"
        )
    alert = Alert(
        **_envelope(cause, f"suspect.{model}.{suspect.cause}", now, ordinal),
        kind="quality",
        name="label_poisoning",
        severity="info",
        title=f"{model}: labels of {suspect.who} may be poisoning",
        description=(
            f"{suspect.who} {what}. The champion is not touched by it, and the challenger no more than the bounds allow."
        ),
        suggested_action=(
            f"Read its labels with `penstock tail labels --from-start --no-follow`; where they are wrong, "
            f"`penstock evaluate models reset {model}` and stop the account."
        ),
        fingerprint=fingerprint("quality", "label_poisoning", model, suspect.cause, suspect.who),
        labels={"team": _PLATFORM, "model": model, "source": cause.source, "cause": suspect.cause},
        figures={"evidence": round(suspect.evidence, 4)},
        evidence=[origin],
        sample_requests=[cause.request_id] if cause.request_id else [],
        runbook=_RUNBOOK,
    )
    return alert_emit(alert)


def _envelope(cause: Record, stage: str, now: datetime, ordinal: int = 0) -> Envelope:
    derived = derive(cause, f"learning.{stage}", ordinal, now)
    derived["tenant_id"] = _PLATFORM
    return derived
