"""Classifiers on ``config-models``: versions of weights, the schedule of what is in force when, the challenger.

| key | what |
|---|---|
| ``<model>`` | the schedule: ``metadata["schedule"]`` has the changes, oldest first; ``version`` is the newest's |
| ``<model>@<version>`` | packed weights of a version; format ``withdrawn`` and no weights once it is no longer kept |
| ``<model>@challenger`` | packed weights of the challenger, and the figures of its test |

A record's ``name`` is its key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from itertools import pairwise
from typing import Any

import msgspec
from penstock.bus import Emit
from penstock.contracts.envelope import derive
from penstock.contracts.records import ModelWeights, Record

from services.evaluation.learning.learner import Learner
from services.evaluation.learning.prequential import lacking
from services.evaluation.learning.rules import LearningRules
from services.evaluation.learning.state import Change, Learning

__all__ = [
    "CHALLENGER", "MODELS", "SCHEDULE", "WITHDRAWN", "kept_versions", "read_schedule", "read_weights", "schedule_emit",
    "snapshot_emit", "version_emit", "version_of", "withdrawn_emit",
]  # fmt: skip

MODELS = "config-models"
SCHEDULE = "schedule"
WITHDRAWN = "withdrawn"
CHALLENGER = "challenger"
_LAYOUT = "1"


def version_of(shipped: str, number: int, packed: bytes) -> str:
    """Return the version of the ``number``-th champion that was learned: of what, which, and its content's hash."""
    return f"{shipped}.{number}-{sha256(packed).hexdigest()[:12]}"


def version_emit(cause: Record, learner: Learner[Any], version: str, packed: bytes, now: datetime) -> Emit:
    """Return the weights of a version on their way out."""
    key = f"{learner.name}@{version}"
    record = ModelWeights(
        **derive(cause, f"learning.version.{learner.name}", 0, now),
        name=key,
        version=version,
        format=learner.format,
        shape=list(learner.shape(learner.unpack(packed))),
        weights=packed,
        metadata=_identity(learner, packed),
    )
    return Emit(MODELS, key, record)


def withdrawn_emit(cause: Record, model: str, version: str, now: datetime) -> Emit:
    """Return the withdrawal of a version's weights."""
    key = f"{model}@{version}"
    record = ModelWeights(
        **derive(cause, f"learning.withdrawn.{model}.{version}", 0, now),
        name=key,
        version=version,
        format=WITHDRAWN,
        shape=[],
        weights=b"",
    )
    return Emit(MODELS, key, record)


def schedule_emit(cause: Record, model: str, state: Learning, now: datetime) -> Emit:
    """Return the schedule on its way out."""
    record = ModelWeights(
        **derive(cause, f"learning.schedule.{model}", 0, now),
        name=model,
        version=state.version,
        format=SCHEDULE,
        shape=[],
        weights=b"",
        metadata={
            "layout": _LAYOUT,
            "shipped": state.shipped,
            "frozen": "true" if state.frozen else "false",
            "schedule": msgspec.json.encode(state.schedule).decode(),
        },
    )
    return Emit(MODELS, model, record)


def snapshot_emit(cause: Record, learner: Learner[Any], state: Learning, rules: LearningRules, now: datetime) -> Emit:
    """Return the challenger with the figures of its test on the way out."""
    key = f"{learner.name}@{CHALLENGER}"
    test = state.test
    count = max(test.better.count, 1)
    figures = {
        "labels": state.taken,
        "tested": test.better.count,
        "champion": state.version,
        "champion_brier": round(test.champion / count, 6),
        "challenger_brier": round(test.challenger / count, 6),
        "recent_gain": {kind: round(each.recent, 6) for kind, each in test.classes.items()},
        "wealth": round(math.exp(min(test.better.log_wealth, 50.0)), 4),
        "authors": len(test.authors),
        "lacking": lacking(test, rules),
        "refused": state.refused,
        "spent": {group: round(spent, 4) for group, spent in state.spent.items()},
    }
    record = ModelWeights(
        **derive(cause, f"learning.challenger.{learner.name}", 0, now),
        name=key,
        version=f"{state.shipped}.{CHALLENGER}-{state.taken}",
        format=learner.format,
        shape=list(learner.shape(learner.unpack(state.challenger))),
        weights=state.challenger,
        metadata=_identity(learner, state.challenger) | {"figures": msgspec.json.encode(figures).decode()},
    )
    return Emit(MODELS, key, record)


def read_schedule(record: ModelWeights) -> tuple[Change, ...]:
    """Return the changes in a schedule, oldest first.

    Raises:
        ValueError: it is none, or not in order.
    """
    if record.format != SCHEDULE:
        raise ValueError(f"{record.name} has format {record.format!r}, not {SCHEDULE!r}")
    if record.metadata.get("layout") != _LAYOUT:
        raise ValueError(
            f"the schedule of {record.name} has layout {record.metadata.get('layout')}, this version reads {_LAYOUT}"
        )
    changes = msgspec.json.decode(record.metadata.get("schedule", ""), type=tuple[Change, ...])
    if not changes or any(change.effective_from.tzinfo is None for change in changes):
        raise ValueError(f"the schedule of {record.name} is empty or has an instant without a zone")
    if any(later.effective_from <= earlier.effective_from for earlier, later in pairwise(changes)):
        raise ValueError(f"the schedule of {record.name} is not in the order of time")
    if changes[-1].version != record.version:
        raise ValueError(f"the schedule of {record.name} ends with {changes[-1].version}, not with {record.version}")
    return changes


def read_weights(record: ModelWeights, learner: Learner[Any]) -> Any:
    """Return the weights in ``record``, validated from its name to the last number.

    Raises:
        ValueError: whatever does not fit; the message names it.
    """
    model, _, version = record.name.partition("@")
    wanted = {"format": learner.format, **_identity(learner, record.weights)}
    given = {"format": record.format, **{name: record.metadata.get(name, "") for name in wanted if name != "format"}}
    wrong = [f"{name} is {given[name]!r}, not {wanted[name]!r}" for name in wanted if given[name] != wanted[name]]
    if model != learner.name:
        wrong.insert(0, f"it is of {model}, not of {learner.name}")
    if version not in (record.version, CHALLENGER):
        wrong.append(f"its key names {version}, the record {record.version}")
    if wrong:
        raise ValueError(f"the weights {record.name} are refused: {'; '.join(wrong)}")
    weights = learner.unpack(record.weights)
    if list(record.shape) != list(learner.shape(weights)):
        raise ValueError(
            f"the weights {record.name} say shape {list(record.shape)}, they have {list(learner.shape(weights))}"
        )
    digest = version.rpartition("-")[2]
    if version != CHALLENGER and sha256(record.weights).hexdigest()[:12] != digest:
        raise ValueError(f"the weights {record.name} do not hash to their version")
    return weights


def _identity(learner: Learner[Any], packed: bytes) -> dict[str, str]:
    return {
        "layout": _LAYOUT,
        "shipped": learner.version,
        "features_version": learner.features_version,
        "sha256": sha256(packed).hexdigest(),
    }


def kept_versions(schedule: Sequence[Change]) -> list[str]:
    """Return each version of a schedule once, in order."""
    return list(dict.fromkeys(change.version for change in schedule))
