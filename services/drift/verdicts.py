"""What a confirmed change says: the drift event for the record, the alert for on-call, and that it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from penstock.alerts import fingerprint
from penstock.contracts.envelope import derive
from penstock.contracts.records import Alert, DriftEvent, LogRange, Record, Release, Signal

from services.drift.causes import Causes
from services.drift.detection.shift import Shift
from services.drift.segments import Condition, Sample, Samples
from services.drift.signals import EMBEDDING_SIGNAL, Definition, definition

__all__ = ["RUNBOOK", "Description", "alert_of", "described", "drift_event", "resolved_alert", "started"]

RUNBOOK = "services/alerting/runbooks/drift.md"

_SAMPLES = 5
# Of a spread: within a third more or less lies what workloads do.
_SPREAD = 1.33
_ACTIONS = {
    "data": "Read the sample requests after the change: a new use, another client or an attack? Check that prompts, "
    "the document collection and the guardrails fit the new traffic.",
    "model": "Compare the sample answers before and after. Look for a release of the model, the prompt or the route at "
    "this time, and take it back if answers are worse.",
    "concept": "Feedback and scores no longer agree. Read the sample requests with their feedback; teach or replace the "
    "evaluator, and do not trust its scores until then.",
    "retrieval": "Compare the passages of the sample requests before and after. Look for documents that were changed, "
    "removed or refused at this time, and for an embedder that was replaced.",
    "quality": "Read the sample requests and their scores. Look for changed documents, prompts or models at this time.",
    "guardrail": "Read the verdicts of the sample requests. An attack: find who sends it. A changed policy: see whether "
    "it was meant to do this, and take it back if not.",
    "cost": "Look at tokens and model of the sample requests. If the change is not wanted, set or lower the team's "
    "budget or send the route to a cheaper model.",
    "latency": "Look at the model endpoint's load and at queue times in the sample requests; add capacity or another "
    "target to the route.",
}
_VERSIONS = {
    "prompt": "prompt version", "model": "model", "request_model": "model asked for", "policy": "policy version",
    "price": "price version", "embedder": "embedder",
}  # fmt: skip


class Description(NamedTuple):
    """A change in words and in its signal's units.

    Attributes:
        name: of the alert, e.g. ``cost_usd_shift``.
        title: one line.
        before: figures of the reference.
        after: figures since the change.
        matters: whether it is large enough for an alert.
    """

    name: str
    title: str
    before: dict[str, float]
    after: dict[str, float]
    matters: bool


def described(signal: str, shift: Shift) -> Description:
    """Put a change into words and into its signal's units."""
    defined = definition(signal)
    stem = "topic" if signal == EMBEDDING_SIGNAL else signal.replace(".", "_")
    name = f"{stem}_{'spread' if shift.what == 'spread' else 'shift'}"
    before, after = _figures(shift.before, defined, shift.what), _figures(shift.after, defined, shift.what)
    if shift.what == "level":
        matters = defined.matters(shift.before["mean"], shift.after["mean"])
        title = f"{signal} went from {_value(shift.before['mean'], defined)} to {_value(shift.after['mean'], defined)}"
    elif shift.what == "spread":
        old, new = shift.before["deviation"], shift.after["deviation"]
        # The spread of a rate follows from its level.
        matters = defined.scale != "rate" and not 1 / _SPREAD < new / max(old, 1e-12) < _SPREAD
        unit = " log units" if defined.scale == "amount" else ""
        title = f"{signal} scatters {'more' if new > old else 'less'}: deviation from {old:.3g} to {new:.3g}{unit}"
    elif shift.what == "mixture":
        matters = shift.size >= defined.least
        names = {**shift.before, **shift.after}
        moved = max(names, key=lambda each: abs(shift.after.get(each, 0.0) - shift.before.get(each, 0.0)), default="")
        title = (
            f"{signal} is mixed otherwise: {moved or 'other'} from {shift.before.get(moved, 0.0):.1%} to "
            f"{shift.after.get(moved, 0.0):.1%}"
        )
    else:
        matters = True
        subject = "the prompts' topic" if signal == EMBEDDING_SIGNAL else f"{signal}: what the texts are about"
        title = f"{subject} has shifted, by {shift.size:.2g} of the usual spread"
    return Description(name, _pattern(title, signal, shift), before, after, matters)


def drift_event(
    cause: Signal,
    shift: Shift,
    description: Description,
    signal: str,
    *,
    kind: str,
    mode: str,
    causes: Causes,
    samples: Samples,
    partition: int,
    offset: int,
    now: datetime,
) -> DriftEvent:
    """Return the record of a change.

    Args:
        cause: the event that confirmed it.
        shift: the change.
        description: the same in words.
        signal: what changed.
        kind: of the drift-event.
        mode: where the reference comes from.
        causes: what is told of its origin.
        samples: requests of the segment.
        partition: partition of ``signals``.
        offset: of ``cause`` there.
        now: the log's timestamp of ``cause``.
    """
    first = shift.test_first_offset
    known = (*samples.older, *samples.newest)
    return DriftEvent(
        **derive(cause, f"drift.{signal}.{shift.what}", 0, now),
        segment=cause.segment,
        signal=signal,
        detector=shift.detector,
        kind=kind,
        statistic=shift.statistic,
        threshold=shift.threshold,
        before=description.before | {"events": float(shift.before_count)},
        after=description.after | {"events": float(shift.after_count)},
        reference=[_range(partition, shift.reference_first_offset, max(first - 1, shift.reference_first_offset))],
        test=[_range(partition, first, offset)],
        sample_before=_requests([each for each in known if each.offset < first][-_SAMPLES:]),
        sample_after=_requests([each for each in known if each.offset >= first][-_SAMPLES:]),
        what=shift.what,
        pattern=shift.pattern,
        returned=shift.returned,
        size=shift.size,
        alpha=shift.alpha,
        reference_mode=mode,
        releases=causes.releases,
        contributions=causes.contributions,
    )


def started(samples: Samples, first_offset: int) -> datetime | None:
    """Return when the first request since an offset came, as far as it is remembered."""
    return next((each.at for each in (*samples.older, *samples.newest) if each.offset >= first_offset), None)


def alert_of(
    event: DriftEvent, description: Description, condition: Condition, follows: str | None, now: datetime
) -> Alert:
    """Return the alert about a change.

    Args:
        event: its record.
        description: the change in words.
        condition: what is kept of it until it ends.
        follows: signal of the inputs that changed with it.
        now: the log's timestamp.
    """
    team, model, prompt_version, route = event.segment.split("|")
    since = f", since {_release(event.releases[0])}" if event.releases else ""
    figures = {f"before_{name}": value for name, value in description.before.items()}
    figures |= {f"after_{name}": value for name, value in description.after.items()}
    labels = _labels(event.segment, event.signal, condition) | {"pattern": event.pattern}
    if follows is not None:
        labels["follows"] = follows
    return Alert(
        **derive(event, "drift.alert", 0, now),
        kind=condition.kind,
        name=description.name,
        severity=condition.severity,
        title=f"{team}: {description.title}{since}",
        description=" ".join(_sentences(event, description, follows, f"team {team}, model {model}, route {route}, "
                                        f"prompt version {prompt_version}")),
        suggested_action=_ACTIONS[condition.drift],
        fingerprint=fingerprint("drift", event.segment, description.name),
        labels=labels,
        figures=figures | {"statistic": event.statistic, "threshold": event.threshold, "size": event.size},
        evidence=[*event.reference, *event.test],
        sample_requests=[*event.sample_before, *event.sample_after],
        runbook=RUNBOOK,
        starts_at=condition.since,
    )  # fmt: skip


def resolved_alert(cause: Record, segment: str, name: str, condition: Condition, reason: str, now: datetime) -> Alert:
    """Return the end of an alert.

    Args:
        cause: the event or command that ended it.
        segment: whose alert it is.
        name: of the alert.
        condition: what was kept of it.
        reason: why it has ended, as a sentence without its stop.
        now: the log's timestamp.
    """
    team = segment.split("|")[0]
    envelope = derive(cause, f"drift.resolved.{segment}.{name}", 0, now) | {"tenant_id": team.replace("%7C", "|")}
    return Alert(
        **envelope,
        kind=condition.kind,
        name=name,
        severity=condition.severity,
        status="resolved",
        title=f"{team}: {condition.title} (ended)",
        description=f"{reason[0].upper()}{reason[1:]}.",
        fingerprint=fingerprint("drift", segment, name),
        labels=_labels(segment, condition.signal, condition),
        runbook=RUNBOOK,
        starts_at=condition.since,
    )


def _labels(segment: str, signal: str, condition: Condition) -> dict[str, str]:
    team, model, prompt_version, route = segment.split("|")
    return {
        "team": team,
        "model": model,
        "route": route,
        "prompt_version": prompt_version,
        "segment": segment,
        "signal": signal,
        "drift": condition.drift,
        "group": condition.group,
    }


def _sentences(event: DriftEvent, description: Description, follows: str | None, where: str) -> list[str]:
    reference, test = event.reference[0], event.test[0]
    found = [f"{description.title[0].upper()}{description.title[1:]} ({where})."]
    if event.releases:
        found.append(f"Likely cause: {'; '.join(_release(each, full=True) for each in event.releases)}.")
    if follows is not None:
        found.append(
            f"{follows} changed at the same time, so this probably follows from other inputs and not from the model."
        )
    if len(event.contributions) > 1:
        shares = ", ".join(f"{segment} {share:.0%}" for segment, share in list(event.contributions.items())[:4])
        found.append(f"Shares of the change by segment: {shares}.")
    if event.reference_mode == "release":
        found.append("The reference is that of the segment this one replaces.")
    elif event.reference_mode == "pinned":
        found.append("The reference is pinned.")
    found.append(
        f"Evidence of the events after the candidate: {event.statistic:.1f} nats, {event.threshold:.1f} were needed; "
        f"signals partition {reference.partition}, offsets {reference.first_offset} to {reference.last_offset} against "
        f"{test.first_offset} to {test.last_offset}."
    )
    return found


def _pattern(title: str, signal: str, shift: Shift) -> str:
    if shift.returned:
        return f"{title}: its baseline is back"
    match shift.pattern:
        case "gradual":
            return f"{title}, gradually"
        case "recurring":
            return f"{title}, where it was before"
        case "outlier":
            return f"a burst in {signal}, which is over: {shift.after_count} events. {title[0].upper()}{title[1:]}"
        case _:
            return title


def _release(release: Release, *, full: bool = False) -> str:
    thing = _VERSIONS.get(release.name, release.name)
    came = f"first at {release.since:%H:%M:%S}"
    if full:
        came += f" UTC, after {_short(release.before)}"
    return f"{thing} {_short(release.after)} ({came})"


def _short(version: str) -> str:
    """Return a content hash as people call it: by its beginning."""
    is_hash = len(version) >= 16 and all(each in "0123456789abcdef" for each in version)
    return version[:8] if is_hash else version


def _figures(figures: Mapping[str, float], defined: Definition, what: str) -> dict[str, float]:
    if what not in {"level", "spread"} or defined.scale != "amount":
        return dict(figures)
    names = {"mean": "geometric_mean", "deviation": "log_deviation"}
    return {
        names.get(name, name): defined.restore(value) if name == "mean" else value for name, value in figures.items()
    }


def _value(value: float, defined: Definition) -> str:
    return f"{value:.1%}" if defined.scale == "rate" else f"{defined.restore(value):.4g}"


def _requests(samples: Sequence[Sample]) -> list[str]:
    return list(dict.fromkeys(each.request_id for each in samples))


def _range(partition: int, first: int, last: int) -> LogRange:
    return LogRange(topic="signals", partition=partition, first_offset=first, last_offset=last)
