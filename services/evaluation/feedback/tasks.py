"""Annotation tasks and what annotators made of them so far. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.contracts.records import AnnotationTask, Feedback

from services.evaluation.feedback.log import Request, newest_of_raters
from services.evaluation.feedback.opinions import rater_of

__all__ = ["Standing", "next_for", "standings"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A task, and what stands of those who worked on it, by their names."""

    task: AnnotationTask
    done: Mapping[str, Feedback]

    @property
    def is_open(self) -> bool:
        """Whether more people should label it."""
        return len(self.done) < self.task.raters


def standings(tasks: Iterable[AnnotationTask], feedback: Mapping[Request, Sequence[Feedback]]) -> list[Standing]:
    """Return how every task stands: what to look at first comes first.

    Args:
        tasks: in any order.
        feedback: all of it, by request; what counts is given for the task's queue.
    """
    found = []
    for task in tasks:
        given = feedback.get((task.tenant_id, task.request_id), ())
        answers = newest_of_raters(each for each in given if each.queue == task.queue)
        found.append(Standing(task, {rater_of(each.user_id, each.event_id): each for each in answers}))
    return sorted(found, key=lambda each: (-each.task.priority, each.task.occurred_at, each.task.event_id))


def next_for(rater: str, found: Iterable[Standing], queue: str | None = None) -> Standing | None:
    """Return what a person should label next: the most important open task that they did not label yet."""
    return next(
        (each for each in found if each.is_open and rater not in each.done and queue in (None, each.task.queue)), None
    )
