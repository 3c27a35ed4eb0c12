"""Results and feedback to scores: what each text is like, how a team's traffic develops, what people corrected."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from penstock.alerts import log_range
from penstock.bus import Emit, Message
from penstock.config.kinds import Team
from penstock.contracts.envelope import derive
from penstock.contracts.records import Evaluation, Feedback, LlmResult, LogRange, Score
from penstock.stateful import Logic, Lookup
from penstock.text import groundedness

from services.evaluation.core.learning import Learned, Lesson, learn
from services.evaluation.core.toxicity import Scored, ToxicityModel
from services.evaluation.core.watch import Observation, Watch, WatchRules, observe

__all__ = ["Remembered", "ScoringRules", "scoring"]

_NEVER_LEARNED = Learned()
_SUBJECTS = ("prompt", "answer")


@dataclass(frozen=True, slots=True)
class ScoringRules:
    """Parameters of the evaluators.

    Attributes:
        grounded_from: support by the passages from which an answer counts as grounded.
        remembered: results a partition keeps the features of, for feedback that comes later. One costs about 0.7 kB.
        watch: rules of the alerts.
    """

    grounded_from: float = 0.6
    remembered: int = 8_192
    watch: WatchRules = field(default_factory=WatchRules)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation on its way out."""

    evaluation: Evaluation


class Remembered(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The features of one result, by subject, for feedback that joins it: buckets of the scored piece, 3 bytes each."""

    request_id: str
    prompt: bytes = b""
    answer: bytes = b""


State = Remembered | Learned | Watch
Event = Remembered | Lesson | Observation | Evaluated


def scoring(model: ToxicityModel, rules: ScoringRules, team_of: Callable[[str], Team | None]) -> Logic[State, Event]:
    """Return the processor of ``llm-results`` and ``feedback``.

    Keys, all within the partition of the request: ``model`` is what was learned, ``recent/<slot>`` the features of the last
    result that fell into the slot (so memory is bounded), ``watch/<team>`` the team's recent scores.
    """

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Event]]:
        if isinstance(record, Feedback):
            return _lessons(record, lookup(_slot(record.request_id, rules.remembered)))
        return _results(record, message, lookup("model") or _NEVER_LEARNED)

    def _results(result: LlmResult, message: Message, learned: Learned) -> Iterable[tuple[str | None, Event]]:
        scored = {
            subject: model.score(text, learned.deltas, learned.bias)
            for subject, text in zip(_SUBJECTS, (result.prompt, result.content), strict=True)
            if text
        }
        evaluation = _evaluation(result, scored, learned)
        if evaluation.scores:
            yield None, Evaluated(evaluation)
        if scored:
            kept = {subject: pack_buckets(s.buckets) for subject, s in scored.items()}
            yield _slot(result.request_id, rules.remembered), Remembered(result.request_id, **kept)
            yield f"watch/{result.tenant_id}", _observation(result, scored, log_range(message))

    def _evaluation(result: LlmResult, scored: dict[str, Scored], learned: Learned) -> Evaluation:
        scores = [
            Score(
                name="toxicity",
                subject=subject,
                score=round(s.score, 6),
                label="toxic" if s.score >= model.threshold else "clean",
                version=f"{model.version}+{learned.updates}",
                features=model.explain(s, learned.deltas) if s.score >= model.threshold else {},
            )
            for subject, s in scored.items()
        ]
        if result.citations and result.content:
            support = groundedness.support(result.content, (passage.text for passage in result.citations))
            if support is not None:
                label = "grounded" if support.score >= rules.grounded_from else "ungrounded"
                scores.append(
                    Score(
                        name="groundedness",
                        subject="answer",
                        score=round(support.score, 6),
                        label=label,
                        version=groundedness.VERSION,
                    )
                )
        return Evaluation(
            **derive(result, "evaluation.scores", 0, result.occurred_at),
            context=result.context,
            model=result.model,
            status=result.status,
            scores=scores,
        )

    def _observation(result: LlmResult, scored: dict[str, Scored], origin: LogRange) -> Observation:
        team = team_of(result.tenant_id)
        severe_from = team.toxicity_alert if team and team.toxicity_alert is not None else rules.watch.severe_from
        return Observation(
            result=result,
            scores={subject: s.score for subject, s in scored.items()},
            toxic_from=model.threshold,
            severe_from=severe_from,
            origin=origin,
        )

    def step(state: State | None, event: Event, now: datetime) -> tuple[State | None, Sequence[Emit]]:
        if isinstance(event, Evaluated):
            return state, [Emit("evaluations", event.evaluation.request_id, event.evaluation)]
        if isinstance(event, Remembered):
            return event, []
        if isinstance(event, Lesson):
            return learn(state if isinstance(state, Learned) else _NEVER_LEARNED, event, model, now), []
        return observe(state if isinstance(state, Watch) else Watch(), event, rules.watch, now)

    return Logic(step=step, route=route, state_type=State)


def _lessons(feedback: Feedback, remembered: Remembered | None) -> Iterable[tuple[str, Lesson]]:
    """Return what the feedback teaches; nothing where it says nothing of toxicity or its request is forgotten."""
    if remembered is None or remembered.request_id != feedback.request_id:
        return []
    labelled = []
    for subject, packed in zip(_SUBJECTS, (remembered.prompt, remembered.answer), strict=True):
        label = feedback.labels.get(f"{subject}.toxicity")
        if packed and label in ("toxic", "clean"):
            labelled.append((unpack_buckets(packed), label == "toxic"))
    return [("model", Lesson(feedback.source, tuple(labelled)))] if labelled else []


def _slot(request_id: str, slots: int) -> str:
    return f"recent/{zlib.crc32(request_id.encode()) % slots}"


def pack_buckets(buckets: Sequence[int]) -> bytes:
    """Return ascending bucket numbers below 2 ** 24 as 3 bytes each."""
    return b"".join(bucket.to_bytes(3, "big") for bucket in buckets)


def unpack_buckets(packed: bytes) -> tuple[int, ...]:
    """Return the bucket numbers in ``packed``."""
    return tuple(int.from_bytes(packed[at : at + 3], "big") for at in range(0, len(packed), 3))
