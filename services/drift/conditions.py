"""What becomes of a confirmed change, pure: whether it alerts, what it belongs to, and when its condition has ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
from penstock.alerts import alert_emit
from penstock.bus import Emit
from penstock.contracts.records import Record, Severity

from services.drift import detectors as watching
from services.drift.causes import Causes, contributions, followed, releases
from services.drift.commands import rebase
from services.drift.detection.shift import Shift
from services.drift.detectors import Found
from services.drift.segments import Condition, Group, Observed, SegmentState, Told
from services.drift.signals import Kind, definition
from services.drift.verdicts import alert_of, described, drift_event, resolved_alert, started

__all__ = ["confirmed", "ended", "in_order", "resolved"]

# A burst is told of as an alert that ends by itself.
_BURST = timedelta(hours=1)
# How often a pinned condition that goes on is recorded and told again.
_AGAIN = timedelta(hours=1)
_PATIENCE = 4
_PATIENCE_LEAST = 200
_TOLD = 12
# A signal that changed so often within so long has no steady state: on-call has heard of it.
_UNSTEADY, _UNSTEADY_CHANGES = timedelta(days=1), 3
# Kinds that follow from the inputs where those change at the same time.
_OUTPUTS: frozenset[Kind] = frozenset({"model", "quality", "retrieval", "cost", "latency"})


def confirmed(state: SegmentState, found: Found, event: Observed, now: datetime) -> tuple[SegmentState, list[Emit]]:
    """Record a confirmed change, and alert where on-call should know.

    Args:
        state: the segment's state, with ``event`` in it.
        found: the change.
        event: what confirmed it.
        now: the log's timestamp.
    """
    signal, shift = found
    defined = definition(signal)
    description = described(signal, shift)
    is_pinned, follows = signal in state.pinned, None
    mode = "pinned" if is_pinned else "release" if signal in state.inherited else "baseline"
    known = state.conditions.get(description.name)
    if is_pinned:
        state = msgspec.structs.replace(state, detectors=watching.replaced(state.detectors, state.pinned, signal))
        if known is not None:
            state = _kept(state, description.name, msgspec.structs.replace(known, quiet=0))
        if any(each.signal == signal and now - each.at < _AGAIN for each in state.told):
            return state, []
    elif shift.pattern != "outlier":
        state = msgspec.structs.replace(state, inherited=tuple(name for name in state.inherited if name != signal))
    if defined.kind in _OUTPUTS:
        follows = followed(state.told, state.detectors, shift, event.offset)
    state, group = _grouped(state, shift, event)
    causes = Causes(
        releases(state.versions, shift, event.offset),
        contributions(event.record.segment, state, event.siblings(), signal, shift),
        follows,
    )
    record = drift_event(
        event.record, shift, description, signal,
        # A model's drift is that of its outputs at like inputs; with other inputs it is theirs.
        kind="data" if defined.kind == "model" and follows is not None else defined.kind,
        mode=mode, causes=causes, samples=state.samples, partition=event.partition, offset=event.offset, now=now,
    )  # fmt: skip
    told = Told(signal, defined.kind, shift.size, shift.test_first_offset, event.offset, now)
    state = msgspec.structs.replace(state, told=(*state.told, told)[-_TOLD:])
    emits = [Emit("drift-events", record.segment, record)]
    is_back, matters, state = _against_baseline(state, signal, shift, description.matters, is_pinned)
    if is_back:
        names = [name for name, condition in state.conditions.items() if condition.signal == signal]
        state, ends = resolved(state, names, event.record, record.segment, "the baseline is back", now)
        return state, [*emits, *ends]
    state, severity = _severity(state, signal, shift, matters)
    changes = sum(each.signal == signal and now - each.at < _UNSTEADY for each in state.told)
    if severity is None or (changes > _UNSTEADY_CHANGES and not is_pinned):
        return state, emits
    condition = Condition(
        signal=signal,
        kind="guardrail" if defined.kind == "guardrail" else "drift",
        drift=record.kind,
        severity=severity,
        title=description.title,
        event_id=record.event_id,
        since=known.since if known is not None else started(state.samples, shift.test_first_offset) or now,
        told_at=now,
        group=group,
        until=now + _BURST if shift.pattern == "outlier" else None,
        patience=max(_PATIENCE * shift.after_count, _PATIENCE_LEAST) if is_pinned else 0,
    )
    name = description.name
    if shift.pattern == "outlier":
        # A burst beside a change that goes on is another condition.
        name = f"{name.rpartition('_')[0]}_burst"
        description = description._replace(name=name)
    alert = alert_of(record, description, condition, follows, now)
    return _kept(state, name, condition), [*emits, alert_emit(alert)]


def ended(
    state: SegmentState, event: Observed, now: datetime, rebase_after: timedelta
) -> tuple[SegmentState, list[Emit]]:
    """End what has ended without a word of a detector: bursts, pinned conditions that were not confirmed again, and what
    nobody touched for so long that the present is the baseline by now.

    Args:
        state: the segment's state, with ``event`` in it.
        event: the newest event.
        now: the log's timestamp.
        rebase_after: how old a condition becomes.
    """
    emits: list[Emit] = []
    segment = event.record.segment
    for name, condition in list(state.conditions.items()):
        if condition.until is not None:
            if now >= condition.until:
                state, ends = resolved(state, [name], event.record, segment, "the burst is over", now)
                emits += ends
        elif condition.patience:
            if not watching.has(event.record, condition.signal):
                continue
            quiet = condition.quiet + 1
            state = _kept(state, name, msgspec.structs.replace(condition, quiet=quiet))
            if quiet >= condition.patience:
                reason = f"{quiet} values did not confirm it again against the pinned reference"
                state, ends = resolved(state, [name], event.record, segment, reason, now)
                emits += ends
        elif now - condition.since >= rebase_after and name in state.conditions:
            state, names = rebase(state, [condition.signal])
            reason = f"nobody touched it for {rebase_after / timedelta(days=1):g} days: the present is the baseline now"
            state, ends = resolved(state, names, event.record, segment, reason, now)
            emits += ends
    return state, emits


def resolved(
    state: SegmentState, names: Iterable[str], cause: Record, segment: str, reason: str, now: datetime
) -> tuple[SegmentState, list[Emit]]:
    """End conditions by the names of their alerts."""
    names = list(names)
    emits = [alert_emit(resolved_alert(cause, segment, name, state.conditions[name], reason, now)) for name in names]
    left = {name: condition for name, condition in state.conditions.items() if name not in names}
    return msgspec.structs.replace(state, conditions=left), emits


def in_order(found: Sequence[Found]) -> list[Found]:
    """Return the changes that one event confirmed, those of the inputs first: what follows from them then says so."""
    return sorted(found, key=lambda each: definition(each.signal).kind != "data")


def _against_baseline(
    state: SegmentState, signal: str, shift: Shift, matters: bool, is_pinned: bool
) -> tuple[bool, bool, SegmentState]:
    """Return whether the baseline is back, whether the change is large enough to alert, and the state that knows from where
    the signal set out: many small steps are a large one."""
    if is_pinned or shift.pattern == "outlier":
        return False, matters, state
    known = state.baselines.get(signal)
    is_back = shift.returned
    if shift.what == "level":
        far = definition(signal).matters(shift.before["mean"] if known is None else known, shift.after["mean"])
        # Not the very level of before, but so near to it that it would not have alerted.
        is_back = is_back or (not far and any(each.signal == signal for each in state.conditions.values()))
        matters = matters or far
        known = shift.before["mean"] if known is None else known
    baselines = {name: level for name, level in state.baselines.items() if name != signal}
    if known is not None and not shift.returned:
        baselines[signal] = known
    return is_back, matters, msgspec.structs.replace(state, baselines=baselines)


def _severity(state: SegmentState, signal: str, shift: Shift, matters: bool) -> tuple[SegmentState, str | None]:
    """Return how severe the alert is; ``None`` for none."""
    if shift.pattern == "recurring":
        returns = state.returns.get(signal, 0) + 1
        state = msgspec.structs.replace(state, returns={**state.returns, signal: returns})
        return state, Severity.INFO if returns == 1 and matters else None
    if not matters:
        return state, None
    return state, Severity.INFO if shift.pattern == "outlier" else Severity.WARNING


def _grouped(state: SegmentState, shift: Shift, event: Observed) -> tuple[SegmentState, str]:
    """Return the name of the group that the change belongs to: of those whose windows overlap, the first one's event."""
    group = state.group
    first, last = shift.test_first_offset, event.offset
    if group is None or first > group.last_offset or last < group.first_offset:
        group = Group(event.record.event_id, first, last)
    else:
        group = Group(group.name, min(group.first_offset, first), max(group.last_offset, last))
    return msgspec.structs.replace(state, group=group), group.name


def _kept(state: SegmentState, name: str, condition: Condition) -> SegmentState:
    return msgspec.structs.replace(state, conditions={**state.conditions, name: condition})
