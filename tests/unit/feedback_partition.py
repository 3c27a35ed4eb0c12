"""One partition of the agent ``feedback``, its table as bytes, and records to feed it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from penstock.bus import Emit, Message
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import (
    AnnotationTask,
    Context,
    DeadLetter,
    Evaluation,
    Feedback,
    Label,
    LlmResult,
    Passage,
    Record,
    Score,
)
from penstock.stateful import Logic

from services.evaluation.feedback.core import FeedbackRules, feedback_logic

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CODEC = Codec.offline(Catalogue.load())
TOPICS: Mapping[type[Record], str] = {LlmResult: "llm-results", Evaluation: "evaluations", Feedback: "feedback"}


class Lengths:
    """Features that a test can read: how long the text is, and how it begins."""

    version = "lengths-1"

    def features(self, text: str) -> bytes:
        return f"{len(text)}:{text[:8]}".encode()


def logic(rules: FeedbackRules | None = None, thresholds: Mapping[str, float] | None = None) -> Logic[Any, Any]:
    """Return the agent's logic with one classifier, toxicity."""
    return feedback_logic(rules or FeedbackRules(), {"toxicity": Lengths()}, (thresholds or {}).get)


@dataclass
class Partition:
    """Takes records one after another, as the shell does; states survive as bytes alone."""

    logic: Logic[Any, Any] = field(default_factory=logic)
    states: dict[str, bytes] = field(default_factory=dict)
    emits: list[Emit] = field(default_factory=list)
    offsets: dict[str, int] = field(default_factory=dict)

    def read(self, key: str) -> Any:
        found = self.states.get(key)
        return None if found is None else msgspec.msgpack.decode(found, type=self.logic.state_type)

    def take(self, record: Record, now: datetime = NOW) -> list[Emit]:
        """Return what follows from a record that the log took in at ``now``."""
        topic = TOPICS[type(record)]
        offset = self.offsets.get(topic, 0)
        self.offsets[topic] = offset + 1
        value = CODEC.encode(topic, record)
        message = Message(topic, 0, offset, int(now.timestamp() * 1000), b"key", value)
        out: list[Emit] = []
        for key, event in list(self.logic.route(record, message, self.read)):
            assert key is not None
            state, emits = self.logic.step(self.read(key), event, now)
            out += emits
            if state is None:
                self.states.pop(key, None)
            else:
                self.states[key] = msgspec.msgpack.encode(state)
        for emit in out:
            assert CODEC.decode(emit.topic, CODEC.encode(emit.topic, emit.record)) == emit.record
        self.emits += out
        return out

    def sink(self, *kinds: type[Record]) -> dict[str, tuple[str, str, Record]]:
        """Return topic, key and record by identity; one that comes again must be the same."""
        found: dict[str, tuple[str, str, Record]] = {}
        for emit in self.emits:
            if isinstance(emit.record, kinds):
                one = (emit.topic, emit.key, emit.record)
                assert found.setdefault(emit.record.event_id, one) == one
        return found


def result(number: int = 0, *, team: str = "team", purpose: str = "serve", **fields: Any) -> LlmResult:
    """Return the result of request ``r<number>``."""
    at = NOW + timedelta(seconds=number)
    context = Context(
        requested_at=at, route="chat", prompt_name="p", prompt_version="v1", purpose=purpose,
        conversation_id=f"c{number}", experiments={"short": "concise"},
    )  # fmt: skip
    given: dict[str, Any] = {"status": "completed", "prompt": f"question {number}", "content": f"answer {number}"}
    return LlmResult(
        event_id=f"result-{team}-{number}", request_id=f"r{number}", tenant_id=team, occurred_at=at, causation_id="",
        context=context, model="m", **(given | fields),
    )  # fmt: skip


def evaluation(number: int = 0, scores: Iterable[tuple[str, float, str]] = (), *, part: str = "a") -> Evaluation:
    """Return scores as ``("answer.toxicity", 0.9, "toxic")`` of request ``r<number>``."""
    origin = result(number)
    return Evaluation(
        event_id=f"evaluation-{number}-{part}", request_id=origin.request_id, tenant_id=origin.tenant_id,
        occurred_at=origin.occurred_at, causation_id=origin.event_id, context=origin.context, model="m",
        scores=[
            Score(name=name.partition(".")[2], subject=name.partition(".")[0], score=score, label=label, version="v7")
            for name, score, label in scores
        ],
    )  # fmt: skip


def feedback(
    number: int = 0, by: str | None = "ada", *, repeat: int = 0, team: str = "team", **fields: Any
) -> Feedback:
    """Return feedback on request ``r<number>``."""
    at = NOW + timedelta(minutes=1 + repeat)
    return Feedback(
        event_id=f"feedback-{team}-{number}-{by}-{repeat}", request_id=f"r{number}", tenant_id=team, occurred_at=at,
        causation_id="", conversation_id=f"c{number}", user_id=by, **fields,
    )  # fmt: skip


def scores_of(emits: Iterable[Emit]) -> dict[str, tuple[float, str]]:
    """Return the scores of feedback among outputs, by name."""
    return {
        score.name: (score.score, score.label)
        for emit in emits
        if isinstance(emit.record, Evaluation)
        for score in emit.record.scores
    }


def of(kind: type[Record], emits: Iterable[Emit]) -> list[Any]:
    """Return the records of one kind."""
    return [emit.record for emit in emits if isinstance(emit.record, kind)]


def passage(text: str) -> Passage:
    """Return a passage that an answer quotes."""
    return Passage(passage_id="p1", document_id="d1", text=text, score=0.9)


__all__ = [
    "CODEC", "NOW", "AnnotationTask", "DeadLetter", "Label", "Lengths", "Partition", "evaluation", "feedback", "logic", "of",
    "passage", "result", "scores_of",
]  # fmt: skip
