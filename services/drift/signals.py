"""The signals: every number that is watched for drift, where it is taken from, and how large a change matters.

A new signal is one more entry here. Nothing else names signals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.contracts.records import Completion, Context, Cost, Evaluation, Record, ScreenedRequest

__all__ = [
    "EMBEDDING_SIGNAL", "SCORES", "SIGNALS", "SOURCES", "Definition", "Kind", "Scale", "definition", "embedding_of",
    "figures", "segment_of",
]  # fmt: skip

Kind = Literal["data", "model", "cost", "latency", "quality"]
Scale = Literal["rate", "score", "amount"]

EMBEDDING_SIGNAL = "prompt.topic"
"""Name of the change that the embeddings are watched for."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One signal.

    Attributes:
        name: what the number is, with its unit where it has one.
        source: topic it is taken from.
        kind: what changed when it changes.
        scale: ``rate`` is 0 or 1 for each event; ``score`` lies on a fixed scale; ``amount`` is positive without a
            bound and is watched as its logarithm, so that a doubling weighs the same everywhere.
        read: takes it from a record; ``None`` where the event has none.
        least: smallest change that alerts: a difference for rates and scores, a factor for amounts. Smaller confirmed
            changes are drift-events only.
    """

    name: str
    source: str
    kind: Kind
    scale: Scale
    read: Callable[[Any], float | None]
    least: float

    def transform(self, value: float) -> float | None:
        """Return the value on the scale on which the detector sees it; ``None`` where it has none (an amount of 0)."""
        if not math.isfinite(value):
            return None
        if self.scale != "amount":
            return value
        return math.log(value) if value > 0 else None

    def restore(self, value: float) -> float:
        """Return a level in the signal's unit; for amounts it is the geometric mean."""
        return math.exp(value) if self.scale == "amount" else value

    def matters(self, before: float, after: float) -> bool:
        """Tell whether a change of level, on the detector's scale, is large enough to alert."""
        least = math.log(self.least) if self.scale == "amount" else self.least
        return abs(after - before) >= least


def _rate(condition: bool) -> float:
    return 1.0 if condition else 0.0


def _prompt_tokens(record: Completion) -> float | None:
    # Of a call that was abandoned for another target they are an estimate, and the other's stand beside it.
    return float(record.usage.input_tokens) if record.kind != "abandoned" else None


def _answer_tokens(record: Completion) -> float | None:
    return float(record.usage.output_tokens) if record.error is None else None


def _retrieval_score(record: Completion) -> float | None:
    return max((passage.score for passage in record.passages), default=None)


def _retrieval_empty(record: Completion) -> float | None:
    return _rate(record.grounding == "empty") if record.grounding in {"grounded", "empty"} else None


def _latency_ms(record: Completion) -> float | None:
    return record.timings.model_us / 1000 if record.error is None else None


def _amount(record: Cost) -> float | None:
    return float(record.amount) if record.amount is not None and record.kind == "completion" else None


def _characters(record: ScreenedRequest) -> float:
    return float(sum(len(message.content) for message in record.messages if message.role == "user"))


def _found(scanner: str) -> Callable[[ScreenedRequest], float]:
    return lambda record: _rate(any(finding.scanner == scanner for finding in record.findings))


SIGNALS: Sequence[Definition] = (
    Definition("prompt.characters", "requests-screened", "data", "amount", _characters, 1.25),
    Definition("prompt.flagged", "requests-screened", "data", "rate", lambda r: _rate(r.action != "allow"), 0.05),
    Definition("prompt.pii", "requests-screened", "data", "rate", _found("pii"), 0.05),
    Definition("prompt.tokens", "completions", "data", "amount", _prompt_tokens, 1.25),
    Definition("answer.tokens", "completions", "model", "amount", _answer_tokens, 1.25),
    Definition("answer.truncated", "completions", "model", "rate", lambda r: _rate(r.finish_reason == "length"), 0.05),
    Definition("model.error", "completions", "model", "rate", lambda r: _rate(r.error is not None), 0.02),
    Definition("model.latency_ms", "completions", "latency", "amount", _latency_ms, 1.5),
    Definition("retrieval.score", "completions", "quality", "score", _retrieval_score, 0.05),
    Definition("retrieval.empty", "completions", "quality", "rate", _retrieval_empty, 0.05),
    Definition("cost.usd", "costs", "cost", "amount", _amount, 1.25),
    Definition("result.withheld", "evaluations", "quality", "rate", lambda r: _rate(r.status != "completed"), 0.05),
)

SCORES = Definition("score", "evaluations", "quality", "score", lambda r: None, 0.05)
"""How the scores of evaluations are watched, each under ``<subject>.<name>``, e.g. ``answer.toxicity``: evaluators
come and go without an entry here."""

SOURCES: Mapping[str, tuple[Definition, ...]] = {
    topic: tuple(each for each in SIGNALS if each.source == topic)
    for topic in ("requests-screened", "completions", "costs", "evaluations")
}
_BY_NAME = {each.name: each for each in SIGNALS}


def definition(name: str) -> Definition:
    """Return the definition behind a signal's name; a name that is not declared is a score."""
    return _BY_NAME.get(name, SCORES)


def figures(topic: str, record: Record) -> dict[str, float]:
    """Return the signals of one event, by name, in their own units."""
    found = {each.name: each.read(record) for each in SOURCES[topic]}
    if isinstance(record, Evaluation):
        found |= {f"{score.subject}.{score.name}": score.score for score in record.scores}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def embedding_of(record: Record) -> bytes | None:
    """Return the prompt's embedding, float32 little-endian, from the one event that carries it to the detectors."""
    return record.embedding if isinstance(record, Completion) else None


def segment_of(record: Record, context: Context) -> str:
    """Return ``team|model|prompt version|route``. ``*`` stands for a model that is not chosen yet, ``-`` for no
    registered prompt."""
    model = getattr(record, "model", None) or "*"
    parts = (record.tenant_id, model, context.prompt_version or "-", context.route)
    return "|".join(part.replace("|", "%7C") for part in parts)
