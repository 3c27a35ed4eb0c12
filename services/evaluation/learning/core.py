"""Labels and commands to champions: a challenger learns, is tested on what it has not seen, and takes over or does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
from penstock.alerts import log_range
from penstock.bus import Emit, Message
from penstock.contracts.records import Label, LogRange, ModelCommand
from penstock.stateful import Logic, Lookup

from services.evaluation.learning.alerts import suspect_alert
from services.evaluation.learning.changes import InvalidCommand, anew, begun, obeyed, promoted
from services.evaluation.learning.guards import admitted, author_slot, refusing, trusted
from services.evaluation.learning.learner import Learner
from services.evaluation.learning.prequential import balance, lacking, lost, tested
from services.evaluation.learning.publishing import kept_versions, snapshot_emit
from services.evaluation.learning.rules import LearningRules
from services.evaluation.learning.state import Archived, Learning

__all__ = ["InvalidLabel", "learning"]


class InvalidLabel(ValueError):
    """A label that no classifier here can learn from."""


@dataclass(frozen=True, slots=True)
class Taught:
    """A label, where it stands in the log, and the champion's packed weights."""

    label: Label
    origin: LogRange
    champion: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """A command, where it stands, and the packed weights of each version that there is."""

    command: ModelCommand
    origin: LogRange
    archive: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Filed:
    """Packed weights of a version for the archive; ``None`` takes them out."""

    version: str
    weights: bytes | None


State = Learning | Archived
Event = Taught | Told | Filed


def learning(learners: Mapping[str, Learner[Any]], rules: LearningRules) -> Logic[State, Event]:
    """Return the processor of ``labels`` and ``model-commands``.

    Keys: ``<model>``, the classifier; ``<model>@<version>``, the archive: the weights of each champion, filed with the first
    message after its promotion. Until that is done the classifier's own state has them, as its challenger.

    Args:
        learners: classifiers by name.
        rules: bounds of learning and of promotion.
    """

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Event]]:
        learner = learners.get(record.model)
        if learner is None:
            error = InvalidLabel if isinstance(record, Label) else InvalidCommand
            raise error(f"no classifier {record.model!r} learns here; there are {', '.join(learners)}")
        state = _of_this_release(lookup(learner.name), learner)
        yield from _filing(learner.name, state, lookup)
        origin = log_range(message)
        if isinstance(record, Label):
            yield learner.name, Taught(record, origin, _weights(state, state.version, learner, lookup))
            return
        archive = {
            version: _weights(state, version, learner, lookup)
            for version in [learner.version, *kept_versions(state.schedule)]
        }
        yield learner.name, Told(record, origin, archive)

    def step(state: State | None, event: Event, now: datetime) -> tuple[State | None, Sequence[Emit]]:
        if isinstance(event, Filed):
            return (None if event.weights is None else Archived(event.version, event.weights)), []
        learner = learners[event.label.model if isinstance(event, Taught) else event.command.model]
        current = _of_this_release(state, learner)
        if isinstance(event, Taught):
            return _taught(current, event, learner, rules, now)
        return obeyed(current, event.command, event.origin, event.archive, learner, rules, now)

    return Logic(step=step, route=route, state_type=State)


def _of_this_release(state: State | None, learner: Learner[Any]) -> Learning:
    """Return the state. What was learned on top of other shipped weights is left behind: it is a difference to those."""
    return state if isinstance(state, Learning) and state.shipped == learner.version else begun(learner)


def _filing(model: str, state: Learning, lookup: Lookup) -> Iterable[tuple[str, Filed]]:
    """Yield what the archive lacks, or has too much: the same whenever it is asked for, until it is done."""
    if state.unfiled:
        yield f"{model}@{state.version}", Filed(state.version, state.challenger)
    for version in state.withdrawn:
        if lookup(f"{model}@{version}") is not None:
            yield f"{model}@{version}", Filed(version, None)


def _weights(state: Learning, version: str, learner: Learner[Any], lookup: Lookup) -> bytes:
    if version == learner.version:
        return learner.pack(learner.shipped())
    if version == state.version and state.unfiled:
        return state.challenger
    archived: Archived | None = lookup(f"{learner.name}@{version}")
    if archived is None:
        raise LookupError(f"the archive of {learner.name} has no {version}: restore the table from its changelog")
    return archived.weights


def _taught(
    state: Learning, event: Taught, learner: Learner[Any], rules: LearningRules, now: datetime
) -> tuple[Learning, list[Emit]]:
    label = event.label
    # With this message the champion is in the archive.
    state = msgspec.structs.replace(state, unfiled=False)
    if label.features_version != learner.features_version:
        # A label that was given before a new version of the features came: nobody's fault, and of no use.
        return refusing(state, "outdated"), []
    positive = learner.labels.get(label.label)
    if positive is None:
        # Anybody can write anything into feedback: as dead letters such labels would stop the service.
        return refusing(state, "unknown_label"), []

    @cache
    def scores() -> tuple[float, float]:
        """Return what champion and challenger say of the text."""
        before, unseen = (learner.score(label.features, learner.unpack(each)) for each in (event.champion, challenger))
        return before, unseen

    def contradicts() -> bool:
        return all(abs(score - 0.5) >= rules.confident and (score >= 0.5) != positive for score in scores())

    challenger = state.challenger
    admission = admitted(state, label, contradicts, rules, now)
    state = admission.state
    emits = [
        suspect_alert(label, ordinal, suspect, event.origin, now) for ordinal, suspect in enumerate(admission.suspects)
    ]
    if admission.refused:
        return state, emits
    weight = balance(state.test, positive)
    if trusted(label):
        state = msgspec.structs.replace(state, test=tested(state.test, author_slot(label), positive, *scores(), rules))
    influence = admission.influence * weight
    learned = learner.learn(label.features, learner.unpack(challenger), positive, influence / learner.reach)
    state = msgspec.structs.replace(state, challenger=learner.pack(learned))
    if trusted(label):
        if not state.frozen and not lacking(state.test, rules):
            state, promotion = promoted(state, label, event.origin, learner, rules, now)
            return state, emits + promotion
        if lost(state.test, rules):
            state = anew(state, event.champion)
    if _due(state, rules, now):
        state = msgspec.structs.replace(state, published=state.taken, published_at=now.timestamp())
        emits.append(snapshot_emit(label, learner, state, rules, now))
    return state, emits


def _due(state: Learning, rules: LearningRules, now: datetime) -> bool:
    """Return whether the challenger is to be published again."""
    waited = now.timestamp() - state.published_at
    return state.taken - state.published >= rules.snapshot_labels or waited >= rules.snapshot_after.total_seconds()
