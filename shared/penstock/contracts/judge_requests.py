"""Identities of the requests that evaluation asks judges with: by them these are told from what producers send. Pure."""

from __future__ import annotations

import re

from penstock.contracts.envelope import event_id
from penstock.contracts.records import LlmRequest, Purpose

__all__ = ["asks_judge", "judge_event_id", "judge_request_id", "judge_task_key", "judge_task_of"]

_REQUEST_ID = re.compile(r"judge-([0-9a-f-]{36})-(given|swapped)-([0-9]{1,6})")
_STAGE = "evaluation.judging"


def judge_task_key(task_event_id: str) -> str:
    """Return the key of a task, which its requests carry in their ids."""
    return event_id(task_event_id, _STAGE, 0)


def judge_request_id(task_event_id: str, order: str, attempt: int) -> str:
    """Return the request_id of an attempt at a task.

    Args:
        order: ``given`` or ``swapped``.
        attempt: from 1; each is a request of its own.
    """
    return f"judge-{judge_task_key(task_event_id)}-{order}-{attempt}"


def judge_event_id(task_event_id: str, order: str, attempt: int) -> str:
    """Return the event_id of an attempt at a task, with arguments as of :func:`judge_request_id`."""
    return event_id(task_event_id, f"{_STAGE}.{order}", attempt)


def judge_task_of(request_id: str) -> tuple[str, str, int] | None:
    """Return the task's key, the order and the attempt that a judge's request is of; None where it is no such request."""
    found = _REQUEST_ID.fullmatch(request_id)
    return None if found is None else (found[1], found[2], int(found[3]))


def asks_judge(request: LlmRequest) -> bool:
    """Return whether ``request`` is one that evaluation asks a judge with: its purpose says so, and its identities are those
    of an attempt at the task that caused it.
    """
    found = judge_task_of(request.request_id)
    if request.purpose != Purpose.JUDGE or found is None or not request.causation_id:
        return False
    _, order, attempt = found
    task = request.causation_id
    return (request.request_id, request.event_id) == (
        judge_request_id(task, order, attempt),
        judge_event_id(task, order, attempt),
    )
