"""Whose turn it is in the stages of the request flow: teams take turns within each class of priority."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from penstock.bus.types import Event
from penstock.bus.waiting import Urgency
from penstock.contracts.records import Context, Priority

__all__ = ["READ_AHEAD", "by_priority", "by_team", "urgency_of"]

READ_AHEAD = 4096
"""Messages that a stage reads ahead of what it is at. A flood waits here, where turns are taken, and not in a topic, where
whoever comes later stands behind all of it."""
_RANKS: dict[str, int] = {priority: rank for rank, priority in enumerate(Priority)}


def by_team(event: Event[Any]) -> str:
    """Return the flow of ``event``: its team."""
    team: str = event.record.tenant_id
    return team


def by_priority(event: Event[Any]) -> Urgency:
    """Return the urgency of ``event``, whose record carries what admission knows of its request."""
    context: Context = event.record.context
    return urgency_of(context.priority, context.deadline_at)


def urgency_of(priority: str, deadline_at: datetime | None) -> Urgency:
    """Return how soon a request is to be answered: by its priority, and within one the earliest deadline first."""
    rank = _RANKS.get(priority, _RANKS[Priority.STANDARD])
    return Urgency(rank) if deadline_at is None else Urgency(rank, deadline_at.timestamp())
