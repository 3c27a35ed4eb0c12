"""Which results people should look at: a rule for each reason, a random sample beside them, and a budget. Pure.

What is picked because a score is uncertain or bad is no fair sample: agreement and error rates over all traffic are
estimated from those of reason ``sample``, which depend on nothing but the request's id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Literal

import msgspec
from penstock.bus import Emit
from penstock.contracts.envelope import event_id, request_key
from penstock.contracts.records import AnnotationTask, Record
from penstock.text import groundedness

from services.evaluation.feedback.memory import Entry, Heard, unpacked
from services.evaluation.feedback.opinions import VOCABULARY, Opinion, newest

__all__ = ["Budget", "Pick", "PickRules", "Reason", "annotation_task", "pick", "room", "share_of", "spent"]

Reason = Literal["risk", "disagreement", "uncertain", "sample"]
THRESHOLDS = {"toxicity": 0.5, "groundedness": groundedness.THRESHOLD, "refusal": 0.5}
"""Score at which an evaluator's label changes, where the configuration sets none."""

COUNTERPARTS = {"answer.groundedness": "faithfulness", "answer.relevance": "helpfulness"}
"""Rubric by which judges say of an answer what an evaluator says of it, 1 being good for both."""

_REASONS: tuple[Reason, ...] = ("risk", "disagreement", "uncertain", "sample")
_SAMPLE_PRIORITY = 0.2
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class PickRules:
    """When a result is worth a person's time.

    Attributes:
        sample: share of the results that is picked at random, whatever is said of them.
        doubly: share of the picked ones that two people label, so that their agreement can be measured.
        margin: distance from an evaluator's threshold within which its score is uncertain.
        severe_from: toxicity of an answer that is a risk.
        ungrounded_to: groundedness of an answer that is a risk, from 0 to this.
        differ_by: distance at which two judgements of one thing contradict each other.
        hourly: most tasks of one reason, team, hour and partition. Each reason has its own: none uses up another's.
    """

    sample: float = 0.01
    doubly: float = 0.2
    margin: float = 0.1
    severe_from: float = 0.9
    ungrounded_to: float = 0.2
    differ_by: float = 0.5
    hourly: int = 5


class Budget(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Tasks of a team in one hour, by reason."""

    hour: int = 0
    picked: dict[str, int] = {}


class Pick(msgspec.Struct, frozen=True):
    """That a request is given to annotators, and why."""

    reason: Reason
    queue: str
    priority: float
    labels: tuple[str, ...] = ()


def room(budget: Budget | None, now: datetime, rules: PickRules) -> frozenset[Reason]:
    """Return the reasons for which the team may still pick in this hour."""
    if budget is None or budget.hour != _hour(now):
        return frozenset(_REASONS) if rules.hourly > 0 else frozenset()
    return frozenset(reason for reason in _REASONS if budget.picked.get(reason, 0) < rules.hourly)


def spent(budget: Budget | None, reason: Reason, now: datetime) -> Budget:
    """Return the budget with one more task."""
    picked = budget.picked if budget is not None and budget.hour == _hour(now) else {}
    return Budget(_hour(now), {**picked, reason: picked.get(reason, 0) + 1})


def share_of(purpose: str, team: str, request_id: str) -> float:
    """Return a number from 0 up to 1 that a request always has, evenly spread over requests."""
    digest = blake2b(f"{purpose}/{team}/{request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def pick(
    entry: Entry,
    before: Entry | None,
    allowed: frozenset[Reason],
    rules: PickRules,
    threshold_of: Callable[[str], float | None],
) -> Pick | None:
    """Return why a request is picked now, ``None`` where it is not, was before, or the budget is used up.

    Args:
        entry: the request as it stands now.
        before: as it stood before the event that is handled; the sample is drawn when the result comes.
        allowed: reasons for which there is room.
        threshold_of: threshold of an evaluator by its name, where the configuration sets one.
    """
    if not entry.result or entry.picked or not allowed:
        return None
    just_known = before is None or not before.result
    if just_known and share_of("sample", entry.team, entry.request_id) < rules.sample:
        # Also where it is a risk besides: a sample without the risky ones would be none.
        return _sampled() if "sample" in allowed else None
    found = [
        each
        for each in (*_risks(entry, rules), *_disagreements(entry, rules), *_uncertain(entry, rules, threshold_of))
        if each.reason in allowed
    ]
    return max(found, key=lambda each: (each.priority, -_REASONS.index(each.reason), each.queue), default=None)


def annotation_task(entry: Entry, chosen: Pick, cause: Record, rules: PickRules) -> Emit:
    """Return the task for annotators. Its identity follows from its cause and its content, so that no two tasks of one
    identity differ, in whatever order scores came before a crash and after it."""
    kept = unpacked(entry.result)
    scores = {name: said.score for heard in entry.scores for name, said in heard.said.items()}
    told = msgspec.json.encode([chosen.reason, chosen.queue, chosen.priority, sorted(scores.items())])
    stage = f"evaluation.annotation.{blake2b(told, digest_size=8).hexdigest()}"
    double = share_of("raters", entry.team, entry.request_id) < rules.doubly
    task = AnnotationTask(
        event_id=event_id(cause.event_id, stage, 0),
        request_id=entry.request_id,
        tenant_id=entry.team,
        occurred_at=cause.occurred_at,
        causation_id=cause.event_id,
        context=kept.context,
        queue=chosen.queue,
        reason=chosen.reason,
        priority=chosen.priority,
        prompt=kept.prompt,
        content=kept.content,
        citations=kept.citations,
        model=kept.model,
        scores=scores,
        labels=[name for name in chosen.labels if _text_of(name, kept.prompt, kept.content)]
        if chosen.reason != "sample"
        else _wanted(kept.prompt, kept.content, bool(kept.citations)),
        raters=2 if double else 1,
    )
    return Emit("annotation-tasks", request_key(kept.context, entry.request_id), task)


def _hour(now: datetime) -> int:
    return int(now.timestamp() // _HOUR_S)


def _sampled() -> Pick:
    return Pick("sample", "sample", _SAMPLE_PRIORITY)


def _wanted(prompt: str, content: str, cites: bool) -> list[str]:
    names = [f"{subject}.toxicity" for subject in ("prompt", "answer") if _text_of(f"{subject}.", prompt, content)]
    return [*names, "answer.groundedness"] if cites and content else names


def _text_of(name: str, prompt: str, content: str) -> str:
    return prompt if name.startswith("prompt.") else content


def _picked(reason: Reason, full_name: str, priority: float) -> Pick:
    return Pick(reason, full_name.partition(".")[2], round(min(1.0, max(0.0, priority)), 4), (full_name,))


def _risks(entry: Entry, rules: PickRules) -> Iterator[Pick]:
    for heard in entry.scores:
        toxic = heard.said.get("answer.toxicity")
        if toxic is not None and toxic.score >= rules.severe_from:
            yield _picked("risk", "answer.toxicity", toxic.score)
        grounded = heard.said.get("answer.groundedness")
        if grounded is not None and grounded.score <= rules.ungrounded_to:
            yield _picked("risk", "answer.groundedness", 1.0 - grounded.score)
    unhappy = [each for each in _volunteered(entry.opinions) if each.corrected or _is_bad(each.rating)]
    if unhappy:
        yield Pick("risk", "quality", 0.8 if any(each.corrected for each in unhappy) else 0.7)


def _disagreements(entry: Entry, rules: PickRules) -> Iterator[Pick]:
    """Yield where an evaluator, another version of it, a judge or a person says otherwise."""
    said = _by_name(entry.scores)
    for full_name, (labels, scores) in said.items():
        name = full_name.partition(".")[2]
        apart = max(scores) - min(scores)
        if apart >= rules.differ_by or (name in VOCABULARY and len(labels) > 1):
            yield _picked("disagreement", full_name, 0.6 + 0.4 * apart)
        judge = said.get(f"answer.{COUNTERPARTS[full_name]}") if full_name in COUNTERPARTS else None
        if judge is not None and abs(judge[1][-1] - scores[-1]) >= rules.differ_by:
            yield _picked("disagreement", full_name, 0.6 + 0.4 * abs(judge[1][-1] - scores[-1]))
        people = {each.labels[full_name] for each in newest(entry.opinions) if full_name in each.labels}
        if len(people) > 1 or (people and labels and people != labels):
            yield _picked("disagreement", full_name, 0.75)
    ratings = [each.rating for each in newest(entry.opinions) if each.rating is not None]
    if ratings and max(ratings) - min(ratings) >= rules.differ_by:
        yield Pick("disagreement", "quality", round(0.5 + 0.4 * (max(ratings) - min(ratings)), 4))


def _uncertain(entry: Entry, rules: PickRules, threshold_of: Callable[[str], float | None]) -> Iterator[Pick]:
    for full_name, (_, scores) in _by_name(entry.scores).items():
        name = full_name.partition(".")[2]
        threshold = threshold_of(name)
        threshold = THRESHOLDS.get(name) if threshold is None else threshold
        if threshold is None:
            continue
        away = min(abs(score - threshold) for score in scores)
        if away < rules.margin:
            yield _picked("uncertain", full_name, 0.7 * (1.0 - away / rules.margin))


def _by_name(heard: Sequence[Heard]) -> dict[str, tuple[set[str], list[float]]]:
    """Return labels and scores by ``subject.name`` over all evaluation events, in the order in which they came."""
    found: dict[str, tuple[set[str], list[float]]] = {}
    for each in heard:
        for full_name, said in each.said.items():
            labels, scores = found.setdefault(full_name, (set(), []))
            scores.append(said.score)
            if said.label:
                labels.add(said.label)
    return found


def _volunteered(opinions: Sequence[Opinion]) -> list[Opinion]:
    """Return what stands of those that no queue asked for: what annotators say calls for no more annotators."""
    return [each for each in newest(opinions) if not each.asked]


def _is_bad(rating: float | None) -> bool:
    return rating is not None and rating < 0.5
