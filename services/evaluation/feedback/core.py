"""Results, their scores and what people say of them, joined in whatever order they come. Pure.

The three topics are partitioned alike, so all about a request meets in one partition; within it nothing says which comes
first. After an outage feedback may be hours ahead of its result, and a person may label an answer days after it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from penstock.bus import Emit, Message
from penstock.contracts.envelope import event_id
from penstock.contracts.records import DeadLetter, Evaluation, Feedback, LlmResult, Purpose, Record
from penstock.stateful import Logic, Lookup

from services.evaluation.feedback.joining import Featuriser, joined
from services.evaluation.feedback.memory import (
    Arrived,
    Entry,
    Limits,
    Slot,
    Taken,
    heard,
    kept,
    overdue,
    packed,
    place,
    slots_of,
    swept,
    take,
)
from services.evaluation.feedback.opinions import Opinion, opinion
from services.evaluation.feedback.picking import Budget, Pick, PickRules, annotation_task, pick, room, spent

__all__ = ["SOURCES", "FeedbackRules", "State", "feedback_logic"]

SOURCES = ("llm-results", "evaluations", "feedback")
"""Topics the agent reads."""

_GROUP = "evaluation"


@dataclass(frozen=True, slots=True)
class FeedbackRules:
    """Parameters of the agent: what it remembers, and what it gives to annotators."""

    limits: Limits = field(default_factory=Limits)
    picking: PickRules = field(default_factory=PickRules)


@dataclass(frozen=True, slots=True)
class Joined:
    """Something about a request, for its slot; ``chosen`` says that it is given to annotators now."""

    arrived: Arrived
    cause: Record
    chosen: Pick | None


@dataclass(frozen=True, slots=True)
class Spent:
    """A task, for the budget of its team."""

    chosen: Pick


@dataclass(frozen=True, slots=True)
class Swept:
    """That it is time to look for what is overdue in a slot."""


State = Slot | Budget
Event = Joined | Spent | Swept


def feedback_logic(
    rules: FeedbackRules,
    featurisers: Mapping[str, Featuriser],
    threshold_of: Callable[[str], float | None],
) -> Logic[State, Event]:
    """Return the processor of :data:`SOURCES`.

    Keys, all within the partition of the request: ``slot/<n>`` what is remembered of the requests of a slot,
    ``budget/<team>`` how many tasks the team has had in this hour.

    Args:
        featurisers: makes of a labelled text what its classifier learns from, by the classifier's name.
        threshold_of: threshold of an evaluator by its name, where the configuration sets one.
    """
    limits, picking = rules.limits, rules.picking

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Event]]:
        now = _time_of(message)
        own = ""
        arrived = _arrived(record, message)
        if arrived is not None:
            team, request_id = arrived.team, arrived.request_id
            own = place(slots_of(team, request_id, limits.slots), lookup, team, request_id, now)
            taken = take(lookup(own), arrived, now, limits)
            budget = f"budget/{arrived.team}"
            chosen = pick(taken.entry, taken.before, room(lookup(budget), now, picking), picking, threshold_of)
            yield own, Joined(arrived, record, chosen)
            if chosen is not None:
                yield budget, Spent(chosen)
        if not isinstance(record, LlmResult):
            return
        # Every result looks after one other slot, so that what waits in vain is told of even where no request comes by.
        other = f"slot/{message.offset % limits.slots}"
        slot = lookup(other)
        if other != own and isinstance(slot, Slot) and overdue(slot, now):
            yield other, Swept()

    def step(state: State | None, event: Event, now: datetime) -> tuple[State | None, Sequence[Emit]]:
        if isinstance(event, Spent):
            return spent(state if isinstance(state, Budget) else None, event.chosen.reason, now), []
        slot = state if isinstance(state, Slot) else None
        if isinstance(event, Swept):
            left, fallen = swept(slot or Slot(), now, by_results=True)
            empty = left.joined is None and not left.waiting
            return None if empty else left, [_letter(entry, each, now) for entry, each in fallen]
        taken = take(slot, event.arrived, now, limits)
        emits = [_letter(entry, each, now) for entry, each in taken.fallen]
        emits += joined(taken, featurisers)
        if event.chosen is not None:
            emits.append(annotation_task(taken.entry, event.chosen, event.cause, picking))
            taken = _marked(taken)
        return taken.slot, emits

    return Logic(
        step=step,
        route=route,
        state_type=State,
        expires_at=lambda key, state: _expires_at(state, limits.keep.total_seconds()),
        # A dead letter that is sent again has the identity it had; what is known of it here counts once all the same.
        recognises=frozenset({"feedback"}),
    )


def _arrived(record: Any, message: Message) -> Arrived | None:
    """Return what a record says of a request; ``None`` where it says nothing that is joined, or is no traffic."""
    if isinstance(record, LlmResult):
        if record.context.purpose != Purpose.SERVE:
            return None
        return Arrived(record.tenant_id, record.request_id, result=packed(kept(record)), completion=record.causation_id)
    if isinstance(record, Evaluation):
        found = heard(record) if record.context.purpose == Purpose.SERVE else None
        return None if found is None else Arrived(record.tenant_id, record.request_id, heard=found)
    if isinstance(record, Feedback):
        given = opinion(record, message)
        return None if given is None else Arrived(record.tenant_id, record.request_id, opinion=given)
    return None


def _marked(taken: Taken) -> Taken:
    entry = msgspec.structs.replace(taken.entry, picked=True)
    return Taken(Slot(entry, taken.slot.waiting), entry, taken.before, taken.fallen)


def _time_of(message: Message) -> datetime:
    return datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=message.timestamp_ms)


def _expires_at(state: State, keep_s: float) -> datetime | None:
    """Return when the shell may forget a state by the newest time it has seen on any of the topics."""
    if isinstance(state, Budget):
        return datetime.fromtimestamp((state.hour + 2) * 3600, tz=UTC)
    if any(each.opinions for each in state.waiting):
        return None  # not to be forgotten without a dead letter
    ends = [each.until + keep_s for each in state.waiting]
    if state.joined is not None:
        ends.append(state.joined.until)
    return datetime.fromtimestamp(max(ends), tz=UTC)


def _letter(entry: Entry, lost: Opinion, now: datetime) -> Emit:
    """Return the dead letter of feedback whose result did not come."""
    origin = f"feedback/{lost.partition}/{lost.offset}"
    letter = DeadLetter(
        event_id=event_id(lost.event_id, f"dlq/{_GROUP}/feedback", 0),
        request_id="",
        tenant_id="",
        occurred_at=now,
        causation_id="",
        service="evaluation",
        group=_GROUP,
        origin_topic="feedback",
        origin_partition=lost.partition,
        origin_offset=lost.offset,
        origin_key=lost.key or None,
        origin_value=lost.value or None,
        truncated=not lost.value,
        code="result_unknown",
        reason=(
            f"no result of request {entry.request_id!r} of team {entry.team!r} is known: the id or the team is wrong, the "
            "record's key is not the request's (conversation_id where it has one, else request_id), it was no served "
            "traffic, or its result is forgotten; mend what is wrong and send the feedback again"
        ),
    )
    return Emit("dlq-evaluation", origin, letter)
