"""Results and feedback to scores: what each text is like, how a team's traffic develops, what people corrected."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from penstock.alerts import log_range
from penstock.bus import Emit, Message
from penstock.config.kinds import Team
from penstock.contracts.envelope import derive
from penstock.contracts.records import Evaluation, Feedback, LlmResult, LogRange, Score
from penstock.stateful import Logic, Lookup
from penstock.text import groundedness

from services.evaluation.core.feedback import EARLY, Early, Remembered, early, evaluated, remembered
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
        remembered: results a partition keeps the features of, for feedback that comes later. One costs about 0.9 kB. For
            feedback that is read before its result a sixteenth of so many places is kept.
        watch: rules of the alerts.
    """

    grounded_from: float = 0.6
    remembered: int = 8_192
    watch: WatchRules = field(default_factory=WatchRules)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """An evaluation on its way out."""

    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Joined:
    """Feedback that was held is no longer needed: its result is there."""


State = Remembered | Learned | Watch | Early
Event = Remembered | Lesson | Observation | Evaluated | Early | Joined


def scoring(model: ToxicityModel, rules: ScoringRules, team_of: Callable[[str], Team | None]) -> Logic[State, Event]:
    """Return the processor of ``llm-results`` and ``feedback``.

    Keys, all within the partition of the request: ``model`` is what was learned, ``recent/<slot>`` the features of the last
    result that fell into the slot (so memory is bounded), ``early/<slot>`` the last feedback whose result was not known,
    ``watch/<team>`` the team's recent scores.
    """
    places = max(1, rules.remembered // 16)

    def route(record: Any, message: Message, lookup: Lookup) -> Iterable[tuple[str | None, Event]]:
        if isinstance(record, Feedback):
            return _feedback(record, lookup(_slot(record.request_id, rules.remembered)))
        waiting = lookup(_slot(record.request_id, places, "early"))
        return _results(record, message, lookup("model") or _NEVER_LEARNED, waiting)

    def _feedback(feedback: Feedback, result: Remembered | None) -> Iterable[tuple[str | None, Event]]:
        if result is not None and result.request_id == feedback.request_id:
            yield from _joined(feedback, result)
        elif (held := early(feedback)) is not None:
            # Both topics are read side by side: after an outage feedback may be ahead of its result.
            yield _slot(feedback.request_id, places, "early"), held

    def _results(
        result: LlmResult, message: Message, learned: Learned, waiting: Early | None
    ) -> Iterable[tuple[str | None, Event]]:
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
            kept_result = remembered(result, evaluation, kept)
            yield _slot(result.request_id, rules.remembered), kept_result
            yield f"watch/{result.tenant_id}", _observation(result, scored, log_range(message))
            if waiting is not None and waiting.request_id == result.request_id:
                if abs(result.occurred_at - waiting.occurred_at) <= EARLY:
                    yield from _joined(waiting.feedback, kept_result)
                yield _slot(result.request_id, places, "early"), Joined()

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
        if isinstance(event, Remembered | Early):
            return event, []
        if isinstance(event, Joined):
            return None, []
        if isinstance(event, Lesson):
            return learn(state if isinstance(state, Learned) else _NEVER_LEARNED, event, model, now), []
        return observe(state if isinstance(state, Watch) else Watch(), event, rules.watch, now)

    return Logic(step=step, route=route, state_type=State)


def _joined(feedback: Feedback, result: Remembered) -> Iterable[tuple[str | None, Event]]:
    """Return the scores of feedback on its result, and what it teaches of toxicity."""
    evaluation = evaluated(feedback, result)
    if evaluation is not None:
        yield None, Evaluated(evaluation)
    labelled = []
    for subject, packed in zip(_SUBJECTS, (result.prompt, result.answer), strict=True):
        label = feedback.labels.get(f"{subject}.toxicity")
        if packed and label in ("toxic", "clean"):
            labelled.append((unpack_buckets(packed), label == "toxic"))
    if labelled:
        yield "model", Lesson(feedback.source, tuple(labelled))


def _slot(request_id: str, slots: int, kind: str = "recent") -> str:
    return f"{kind}/{zlib.crc32(request_id.encode()) % slots}"


def pack_buckets(buckets: Sequence[int]) -> bytes:
    """Return ascending bucket numbers below 2 ** 24 as 3 bytes each."""
    return b"".join(bucket.to_bytes(3, "big") for bucket in buckets)


def unpack_buckets(packed: bytes) -> tuple[int, ...]:
    """Return the bucket numbers in ``packed``."""
    return tuple(int.from_bytes(packed[at : at + 3], "big") for at in range(0, len(packed), 3))
