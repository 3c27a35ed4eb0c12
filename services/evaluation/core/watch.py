"""Watches each team's toxicity, as ``evaluations`` tell it: single severe texts and a rising share of toxic ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from penstock.alerts import alert_emit, fingerprint, log_range
from penstock.bus import Emit, Message
from penstock.config.kinds import Team
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, Evaluation, LogRange, Purpose
from penstock.stateful import Logic, Lookup

__all__ = ["Observation", "Watch", "WatchRules", "observe", "watching"]

_SAMPLES = 5
_RUNBOOK = "services/alerting/runbooks/toxicity.md"


@dataclass(frozen=True, slots=True)
class WatchRules:
    """When toxicity is an alert.

    Attributes:
        severe_from: score of a single text from which it is one, where the team's configuration sets no other.
        rate_from: share of toxic texts in the window from which it is one.
        rate_texts: texts the window must hold before the share counts.
        window: the share is taken over this, in the time of the source events.
        repeat_after: an alert about the same condition is not repeated before.
    """

    severe_from: float = 0.95
    rate_from: float = 0.1
    rate_texts: int = 50
    window: timedelta = timedelta(minutes=10)
    repeat_after: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Observation:
    """An evaluation that says how toxic its texts are."""

    evaluation: Evaluation
    severe_from: float
    origin: LogRange


class Minute(msgspec.Struct, frozen=True, array_like=True):
    """Texts and toxic texts of one minute."""

    texts: int = 0
    toxic: int = 0


class Watch(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A team's recent traffic in one partition.

    Attributes:
        minutes: by subject, then by minute since the epoch.
        told: by condition, when on-call was last told (epoch, seconds).
        suppressed: by condition, how often it held since then.
        samples: by subject, request_id of the last toxic ones.
    """

    minutes: dict[str, dict[int, Minute]] = {}
    told: dict[str, float] = {}
    suppressed: dict[str, int] = {}
    samples: dict[str, tuple[str, ...]] = {}


def watching(rules: WatchRules, team_of: Callable[[str], Team | None]) -> Logic[Watch, Observation]:
    """Return the processor of ``evaluations``. Keys, within the partition of the request: ``watch/<team>``."""

    def route(record: Evaluation, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Observation]]:
        del lookup
        if record.context.purpose == Purpose.SERVE and any(score.name == "toxicity" for score in record.scores):
            team = team_of(record.tenant_id)
            severe_from = team.toxicity_alert if team and team.toxicity_alert is not None else rules.severe_from
            yield f"watch/{record.tenant_id}", Observation(record, severe_from, log_range(message))

    def step(state: Watch | None, event: Observation, now: datetime) -> tuple[Watch, Sequence[Emit]]:
        return observe(state or Watch(), event, rules, now)

    return Logic(step=step, route=route, state_type=Watch)


def observe(state: Watch, event: Observation, rules: WatchRules, now: datetime) -> tuple[Watch, list[Emit]]:
    """Count an evaluation's texts; return the alerts that follow from them."""
    minutes, samples = dict(state.minutes), dict(state.samples)
    told, suppressed = dict(state.told), dict(state.suppressed)
    emits: list[Emit] = []

    def tell(condition: str, alert: Alert) -> None:
        last = told.get(condition)
        if last is not None and now.timestamp() - last < rules.repeat_after.total_seconds():
            suppressed[condition] = suppressed.get(condition, 0) + 1
            return
        told[condition] = now.timestamp()
        suppressed.pop(condition, None)
        emits.append(alert_emit(alert))

    for each in event.evaluation.scores:
        if each.name != "toxicity":
            continue
        subject, score, toxic = each.subject, each.score, each.label == "toxic"
        kept = _counted(minutes.get(subject, {}), toxic, rules.window, now)
        minutes[subject] = kept
        if not toxic:
            continue
        samples[subject] = (*samples.get(subject, ()), event.evaluation.request_id)[-_SAMPLES:]
        if score >= event.severe_from:
            tell(f"severe/{subject}", _severe(event, subject, score, suppressed.get(f"severe/{subject}", 0), now))
        texts = sum(minute.texts for minute in kept.values())
        share = sum(minute.toxic for minute in kept.values()) / texts
        if texts >= rules.rate_texts and share >= rules.rate_from:
            tell(f"rate/{subject}", _rate(event, subject, texts, share, rules, samples[subject], now))
    return Watch(minutes, told, suppressed, samples), emits


def _counted(minutes: dict[int, Minute], toxic: bool, window: timedelta, now: datetime) -> dict[int, Minute]:
    current = int(now.timestamp() // 60)
    oldest = current - int(window.total_seconds() // 60) + 1
    minute = minutes.get(current, Minute())
    kept = {number: counts for number, counts in minutes.items() if number >= oldest}
    kept[current] = Minute(minute.texts + 1, minute.toxic + toxic)
    return kept


def _severe(event: Observation, subject: str, score: float, suppressed: int, now: datetime) -> Alert:
    result = event.evaluation
    also = f" It held for {suppressed} more text(s) since the last alert." if suppressed else ""
    return Alert(
        **derive(result, f"evaluation.toxicity.severe.{subject}", 0, now),
        kind="toxicity",
        name=f"severe_{subject}",
        # What we say weighs more than what we are told.
        severity="critical" if subject == "answer" else "warning",
        title=f"Severely toxic {subject} in the traffic of {result.tenant_id}",
        description=(
            f"A {subject} of team {result.tenant_id} has toxicity {score:.3f}, over the threshold of {event.severe_from}. "
            f"The result's status is {result.status}.{also}"
        ),
        suggested_action=(
            "Read the request with `penstock tail llm-results`; tighten the team's policy, or send feedback with "
            f"labels {{'{subject}.toxicity': 'clean'}} where the score is wrong."
        ),
        fingerprint=fingerprint("toxicity", "severe", subject, result.tenant_id),
        labels={"team": result.tenant_id, "subject": subject, "model": result.model or ""},
        figures={"score": round(score, 4), "threshold": event.severe_from, "suppressed": float(suppressed)},
        evidence=[event.origin],
        sample_requests=[result.request_id],
        runbook=_RUNBOOK,
    )


def _rate(
    event: Observation,
    subject: str,
    texts: int,
    share: float,
    rules: WatchRules,
    samples: tuple[str, ...],
    now: datetime,
) -> Alert:
    result = event.evaluation
    minutes = rules.window.total_seconds() / 60
    return Alert(
        **derive(result, f"evaluation.toxicity.rate.{subject}", 0, now),
        kind="toxicity",
        name=f"{subject}_rate",
        severity="critical" if subject == "answer" else "warning",
        title=f"{share:.0%} of the {subject}s of {result.tenant_id} are toxic",
        description=(
            f"{share:.1%} of the last {texts} {subject}s of team {result.tenant_id} (in {minutes:g} minutes, one partition "
            f"of the log) are toxic; the threshold is {rules.rate_from:.0%}."
        ),
        suggested_action="Read the sample requests; look for one user, prompt version or model behind them.",
        fingerprint=fingerprint("toxicity", "rate", subject, result.tenant_id),
        labels={"team": result.tenant_id, "subject": subject, "model": result.model or ""},
        figures={"share": round(share, 4), "texts": float(texts), "threshold": rules.rate_from},
        evidence=[event.origin],
        sample_requests=list(samples),
        runbook=_RUNBOOK,
    )
