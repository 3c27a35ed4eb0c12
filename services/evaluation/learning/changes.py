"""Changes of the champion: by the test, by command, and back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec
from penstock.bus import Emit
from penstock.contracts.records import LogRange, ModelCommand, Record
from penstock.stateful import InvalidEvent

from services.evaluation.learning.alerts import promoted_alert, rolled_back_alert
from services.evaluation.learning.learner import Learner
from services.evaluation.learning.publishing import (
    kept_versions,
    schedule_emit,
    snapshot_emit,
    version_emit,
    version_of,
    withdrawn_emit,
)  # fmt: skip
from services.evaluation.learning.rules import LearningRules
from services.evaluation.learning.state import ALWAYS, Change, Learning, Test

__all__ = ["ACTIONS", "InvalidCommand", "anew", "begun", "obeyed", "promoted"]

ACTIONS = ("promote", "rollback", "freeze", "unfreeze", "reset")
_LONGEST_SCHEDULE = 64


class InvalidCommand(InvalidEvent):
    """A command that cannot be carried out as it stands."""


def begun(learner: Learner[Any]) -> Learning:
    """Return the state of a classifier that has learned nothing since it was shipped."""
    return Learning(learner.version, learner.pack(learner.shipped()), (Change(ALWAYS, learner.version, "shipped"),))


def anew(state: Learning, challenger: bytes) -> Learning:
    """Return the state with a challenger that begins from ``challenger``: its test and everybody's influence begin at
    nothing. Limits by the hour and suspicions stay."""
    return msgspec.structs.replace(
        state,
        challenger=challenger,
        test=Test(),
        spent={},
        sources={name: msgspec.structs.replace(tally, spent=0.0) for name, tally in state.sources.items()},
        authors={slot: msgspec.structs.replace(tally, spent=0.0) for slot, tally in state.authors.items()},
    )


def promoted(
    state: Learning,
    cause: Record,
    origin: LogRange,
    learner: Learner[Any],
    rules: LearningRules,
    now: datetime,
    command: ModelCommand | None = None,
) -> tuple[Learning, list[Emit]]:
    """Make the challenger the champion.

    Args:
        state: before.
        cause: the label that decided the test, or the command.
        origin: where that stands in the log.
        learner: the classifier.
        rules: how long until it is in force, and how many versions are kept.
        now: timestamp of the cause in the log.
        command: the command, where one decided.
    """
    number = state.promotions + 1
    version = version_of(state.shipped, number, state.challenger)
    change = Change(
        _from(state, rules.grace, now),
        version,
        "commanded" if command else "promoted",
        command.author if command else "",
        command.reason if command else "",
    )
    state = _changed(msgspec.structs.replace(state, promotions=number, unfiled=True), change, rules)
    emits = [
        # Its weights stand on the topic before anything names it.
        version_emit(cause, learner, version, state.challenger, now),
        schedule_emit(cause, learner.name, state, now),
        *(withdrawn_emit(cause, learner.name, gone, now) for gone in state.withdrawn),
        promoted_alert(cause, learner.name, state, origin, now),
    ]
    state = anew(state, state.challenger)
    return state, [*emits, snapshot_emit(cause, learner, state, rules, now)]


def obeyed(
    state: Learning,
    command: ModelCommand,
    origin: LogRange,
    archive: Mapping[str, bytes],
    learner: Learner[Any],
    rules: LearningRules,
    now: datetime,
) -> tuple[Learning, list[Emit]]:
    """Carry out a command.

    Args:
        state: before.
        command: what people decided.
        origin: where that stands in the log.
        archive: packed weights by version.
        learner: the classifier.
        rules: how long until a change is in force, and how many versions are kept.
        now: timestamp of the command in the log.

    Raises:
        InvalidCommand: its action or version is not known, or it would change nothing.
    """
    champion = archive[state.version]
    # With this message the champion is in the archive.
    state = msgspec.structs.replace(state, unfiled=False)
    match command.action:
        case "promote":
            if state.frozen:
                raise InvalidCommand(f"{learner.name} is frozen: unfreeze it first")
            if state.challenger == champion:
                raise InvalidCommand(f"the challenger of {learner.name} has learned nothing that the champion has not")
            return promoted(state, command, origin, learner, rules, now, command)
        case "rollback":
            return _rolled_back(state, command, origin, archive, learner, rules, now)
        case "freeze" | "unfreeze":
            state = msgspec.structs.replace(state, frozen=command.action == "freeze")
            return state, [schedule_emit(command, learner.name, state, now)]
        case "reset":
            state = anew(state, champion)
            return state, [snapshot_emit(command, learner, state, rules, now)]
        case _:
            raise InvalidCommand(f"the action {command.action!r} is not known; there are {', '.join(ACTIONS)}")


def _rolled_back(
    state: Learning,
    command: ModelCommand,
    origin: LogRange,
    archive: Mapping[str, bytes],
    learner: Learner[Any],
    rules: LearningRules,
    now: datetime,
) -> tuple[Learning, list[Emit]]:
    before = state.version
    version = command.version or _before(state)
    if version == before:
        raise InvalidCommand(f"{learner.name} {version} is the champion already")
    if version not in archive:
        raise InvalidCommand(f"{learner.name} has no version {version!r}; there are {', '.join(archive)}")
    change = Change(_from(state, rules.grace, now), version, "rolled back", command.author, command.reason)
    state = _changed(state, change, rules)
    emits = [
        schedule_emit(command, learner.name, state, now),
        *(withdrawn_emit(command, learner.name, gone, now) for gone in state.withdrawn),
        rolled_back_alert(command, learner.name, before, change, origin, now),
    ]
    state = anew(state, archive[version])
    return state, [*emits, snapshot_emit(command, learner, state, rules, now)]


def _before(state: Learning) -> str:
    """Return the version made before the champion, whatever was in force in between."""
    made = sorted(kept_versions(state.schedule), key=lambda version: _number(version, state.shipped))
    place = made.index(state.version)
    return made[place - 1] if place else state.shipped


def _number(version: str, shipped: str) -> int:
    return 0 if version == shipped else int(version.removeprefix(f"{shipped}.").partition("-")[0])


def _from(state: Learning, grace: timedelta, now: datetime) -> datetime:
    """Return when a change made at ``now`` is in force: later than every one before."""
    return max(now + grace, state.schedule[-1].effective_from + timedelta(microseconds=1))


def _changed(state: Learning, change: Change, rules: LearningRules) -> Learning:
    """Return the state with a change in its schedule, which names the newest versions only."""
    schedule = (*state.schedule, change)[-_LONGEST_SCHEDULE:]
    while len([version for version in kept_versions(schedule) if version != state.shipped]) > rules.kept:
        schedule = schedule[1:]
    kept = {*kept_versions(schedule), state.shipped}
    gone = tuple(version for version in kept_versions(state.schedule) if version not in kept)
    return msgspec.structs.replace(state, schedule=schedule, withdrawn=gone)
