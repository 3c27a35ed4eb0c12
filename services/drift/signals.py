"""The signals: everything that is watched for drift, where it is taken from, and how large a change matters.

A new signal is one more entry here. Nothing else names signals.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from penstock.contracts.records import (
    Completion,
    Context,
    Cost,
    Evaluation,
    Finding,
    LlmResult,
    Record,
    ScreenedRequest,
    Verdict,
)

__all__ = [
    "EMBEDDING_SIGNAL", "REPEATED", "SIGNALS", "SOURCES", "Definition", "Kind", "Level", "Scale", "definition", "segment_of",
    "segment_parts",
]  # fmt: skip

Kind = Literal["data", "model", "concept", "retrieval", "quality", "guardrail", "cost", "latency"]
Scale = Literal["rate", "score", "amount", "category", "vector"]
Level = Literal["model", "route", "team"]

EMBEDDING_SIGNAL = "prompt.topic"
"""The signal that is the embedding of the question."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One signal.

    Attributes:
        name: what it is, with its unit where it has one.
        source: topic it is taken from.
        level: the segment it belongs to: ``model`` is team, model, prompt version and route; ``route`` the same of all
            models, for what is known before a model is chosen or where none may be; ``team`` for what knows its team
            only. A signal has one level, so that its segment sees all of its events.
        kind: what changed when it changes.
        scale: ``rate`` is 0 or 1 for each event; ``score`` lies on a fixed scale; ``amount`` is positive without a
            bound and is watched as its logarithm, so that a doubling weighs the same everywhere; ``category`` is one of
            a set of names; ``vector`` is an embedding.
        least: smallest change that alerts: a difference for rates and scores, a factor for amounts, the share of the
            events that moved for categories; 0 for vectors. Smaller confirmed changes are drift-events only.
        read: takes it from a record; ``None`` where the event has none.
        text: takes from a record the text that the signal is made of: its language for a category, its embedding for a
            vector. A definition has ``read`` or ``text``.
        river: detectors of River's that raise candidates of a number beside the scan, by their names in river_stage.py.
    """

    name: str
    source: str
    level: Level
    kind: Kind
    scale: Scale
    least: float
    read: Callable[[Any], float | str | bytes | None] | None = None
    text: Callable[[Any], str | None] | None = None
    river: tuple[str, ...] = ()

    def transform(self, value: float) -> float | None:
        """Return a number on the scale on which the detector sees it; ``None`` where it has none (an amount of 0)."""
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


# -- prompts, as they passed the guardrails ----------------------------------------------------------------------------


def _question(record: ScreenedRequest) -> str | None:
    return next((message.content for message in reversed(record.messages) if message.role == "user"), None)


def _characters(record: ScreenedRequest) -> float:
    return float(sum(len(message.content) for message in record.messages if message.role == "user"))


def _turns(record: ScreenedRequest) -> float:
    return float(sum(message.role == "user" for message in record.messages))


def _rate(condition: bool) -> float:
    return 1.0 if condition else 0.0


# -- calls of models ---------------------------------------------------------------------------------------------------
# A request may have several completions: targets that broke off (abandoned), an answer that is asked for again (attempt
# 1), calls for an evaluator or beside the real one (judge, shadow). What tells of the request counts once.


def _of_request(take: Callable[[Completion], Any]) -> Callable[[Completion], Any]:
    """Take from the completion that stands for its request."""
    return lambda record: take(record) if record.kind in ("completion", "cached") and record.attempt == 0 else None


def _of_answer(take: Callable[[Completion], Any]) -> Callable[[Completion], Any]:
    """Take from what a model answered: not a repetition from a cache, which says nothing of the model now."""
    return lambda record: take(record) if record.kind == "completion" and record.error is None else None


def _of_words(take: Callable[[Completion], Any]) -> Callable[[Completion], Any]:
    """Take from an answer in words: what stands beside calls of tools is none yet."""
    return _of_answer(lambda record: None if record.tool_calls else take(record))


def _of_call(take: Callable[[Completion], Any]) -> Callable[[Completion], Any]:
    """Take from every call that a model was to answer the request with."""
    return lambda record: take(record) if record.kind in ("completion", "abandoned") else None


def _prompt_tokens(record: Completion) -> float:
    return float(record.usage.input_tokens)


def _first_token_ms(record: Completion) -> float | None:
    first = record.timings.first_token_us
    return None if first is None else first / 1000


def _prefix_share(record: Completion) -> float | None:
    usage = record.usage
    return min(1.0, usage.cached_input_tokens / usage.input_tokens) if usage.input_tokens > 0 else None


def _retrieval_score(record: Completion) -> float | None:
    return max((passage.score for passage in record.passages), default=None)


def _retrieval_margin(record: Completion) -> float | None:
    """By how much the best passage fits better than the next: small where retrieval cannot tell which it is."""
    best = sorted((passage.score for passage in record.passages), reverse=True)[:2]
    return best[0] - best[1] if len(best) == 2 else None


def _retrieval_passages(record: Completion) -> float | None:
    return float(len(record.passages)) if record.passages else None


def _retrieval_empty(record: Completion) -> float | None:
    return _rate(record.grounding == "empty") if record.grounding in {"grounded", "empty"} else None


def _retrieval_unavailable(record: Completion) -> float | None:
    return _rate(record.grounding == "unavailable") if record.grounding != "off" else None


def _top_document(record: Completion) -> str | None:
    return max(record.passages, key=lambda passage: passage.score).document_id if record.passages else None


def _cited(record: Completion) -> float | None:
    return _rate(bool(record.citations)) if record.passages else None


_ERRORS = (
    ("timeout", re.compile(r"no answer within|timed? ?out", re.I)),
    ("connection", re.compile(r"cannot connect|ClientOSError|ServerDisconnected|ConnectionReset", re.I)),
    ("deadline", re.compile(r"deadline", re.I)),
    ("interrupted", re.compile(r"broke off|PayloadError", re.I)),
    ("malformed", re.compile(r"is no chat completion|too long|is over", re.I)),
)
_STATUS = re.compile(r"\b([45]\d\d)\b")


def _error_kind(record: Completion) -> str | None:
    if record.error is None:
        return None
    status = _STATUS.search(record.error)
    if status:
        return f"http_{status.group(1)}"
    return next((name for name, pattern in _ERRORS if pattern.search(record.error)), "other")


def _cost(record: Cost) -> float | None:
    return float(record.amount) if record.amount is not None and record.kind == "completion" else None


# -- verdicts of the guardrails, results, scores -----------------------------------------------------------------------


def _of_stage(stage: str, take: Callable[[Verdict], Any]) -> Callable[[Verdict], Any]:
    """Take from the verdicts of a stage under the policy in force."""
    return lambda record: take(record) if record.stage == stage and record.mode == "enforce" else None


def _blocked(record: Verdict) -> float:
    return _rate(record.action == "block")


def _found(scanner: str) -> Callable[[Verdict | ScreenedRequest], float | None]:
    """Return whether a scanner found something, where it ran."""

    def take(record: Verdict | ScreenedRequest) -> float | None:
        found = any(finding.scanner == scanner for finding in record.findings)
        ran = found or not isinstance(record, Verdict) or scanner in record.scanners
        return _rate(found) if ran else None

    return take


def _weightiest(record: Verdict) -> str:
    enforced: Sequence[Finding] = [finding for finding in record.findings if finding.enforced]
    blocking = next((finding for finding in enforced if finding.action == "block"), None)
    worst = blocking or max(enforced, key=lambda finding: finding.score, default=None)
    return "nothing" if worst is None else worst.rule or worst.scanner


def _end_to_end_ms(record: LlmResult) -> float | None:
    if record.status != "completed":
        return None
    return (record.occurred_at - record.context.requested_at).total_seconds() * 1000


def _score(subject: str, name: str) -> Callable[[Evaluation], float | None]:
    return lambda record: next((s.score for s in record.scores if (s.subject, s.name) == (subject, name)), None)


SIGNALS: Sequence[Definition] = (
    Definition("prompt.characters", "requests-screened", "route", "data", "amount", 1.25, _characters),
    Definition("prompt.turns", "requests-screened", "route", "data", "amount", 1.25, _turns),
    Definition("prompt.pii", "requests-screened", "route", "data", "rate", 0.05, _found("pii")),
    Definition("prompt.language", "requests-screened", "route", "data", "category", 0.05, text=_question),
    Definition("prompt.topic", "completions", "model", "data", "vector", 0.0, _of_request(lambda r: r.embedding)),
    Definition("prompt.tokens", "completions", "model", "data", "amount", 1.25, _of_request(_prompt_tokens)),
    Definition("answer.topic", "completions", "model", "model", "vector", 0.0, text=_of_words(lambda r: r.content)),
    Definition("answer.tokens", "completions", "model", "model", "amount", 1.25,
               _of_answer(lambda r: float(r.usage.output_tokens))),
    Definition("answer.characters", "completions", "model", "model", "amount", 1.25,
               _of_words(lambda r: float(len(r.content)))),
    Definition("answer.language", "completions", "model", "model", "category", 0.05,
               text=_of_words(lambda r: r.content)),
    Definition("answer.finish_reason", "completions", "model", "model", "category", 0.05,
               _of_answer(lambda r: r.finish_reason)),
    Definition("answer.cited", "completions", "model", "quality", "rate", 0.05, _of_words(_cited)),
    Definition("model.error", "completions", "model", "model", "rate", 0.02, _of_call(lambda r: _rate(r.error is not None))),
    Definition("model.error_kind", "completions", "model", "model", "category", 0.2, _of_call(_error_kind)),
    Definition("model.latency_ms", "completions", "model", "latency", "amount", 1.5,
               _of_answer(lambda r: r.timings.model_us / 1000)),
    Definition("model.first_token_ms", "completions", "model", "latency", "amount", 1.5, _of_answer(_first_token_ms)),
    Definition("model.queue_ms", "completions", "model", "latency", "amount", 1.5,
               _of_answer(lambda r: r.timings.queue_us / 1000)),
    Definition("model.answered", "completions", "route", "model", "category", 0.1, _of_request(lambda r: r.model)),
    Definition("retrieval.score", "completions", "model", "retrieval", "score", 0.05, _of_request(_retrieval_score)),
    Definition("retrieval.margin", "completions", "model", "retrieval", "score", 0.05, _of_request(_retrieval_margin)),
    Definition("retrieval.passages", "completions", "model", "retrieval", "amount", 1.25,
               _of_request(_retrieval_passages)),
    Definition("retrieval.empty", "completions", "model", "retrieval", "rate", 0.05, _of_request(_retrieval_empty)),
    Definition("retrieval.unavailable", "completions", "model", "retrieval", "rate", 0.02,
               _of_request(_retrieval_unavailable)),
    Definition("retrieval.document", "completions", "model", "retrieval", "category", 0.1, _of_request(_top_document)),
    Definition("cache.hit", "completions", "model", "cost", "rate", 0.05,
               _of_request(lambda r: _rate(r.kind == "cached"))),
    Definition("cache.prefix", "completions", "model", "cost", "score", 0.05, _of_answer(_prefix_share)),
    Definition("cost.usd", "costs", "model", "cost", "amount", 1.25, _cost),
    Definition("input.blocked", "verdicts", "team", "guardrail", "rate", 0.02, _of_stage("input", _blocked)),
    Definition("input.pii", "verdicts", "team", "guardrail", "rate", 0.05, _of_stage("input", _found("pii"))),
    Definition("input.finding", "verdicts", "team", "guardrail", "category", 0.05, _of_stage("input", _weightiest)),
    Definition("input.scan_ms", "verdicts", "team", "latency", "amount", 1.5,
               _of_stage("input", lambda r: r.latency_us / 1000)),
    Definition("output.blocked", "verdicts", "team", "guardrail", "rate", 0.02, _of_stage("output", _blocked)),
    Definition("output.pii", "verdicts", "team", "guardrail", "rate", 0.05, _of_stage("output", _found("pii"))),
    Definition("output.refusal", "verdicts", "team", "model", "rate", 0.05, _of_stage("output", _found("refusal"))),
    Definition("output.finding", "verdicts", "team", "guardrail", "category", 0.05, _of_stage("output", _weightiest)),
    Definition("output.scan_ms", "verdicts", "team", "latency", "amount", 1.5,
               _of_stage("output", lambda r: r.latency_us / 1000)),
    Definition("result.withheld", "llm-results", "route", "quality", "rate", 0.05, lambda r: _rate(r.status != "completed")),
    Definition("result.blocked", "llm-results", "route", "guardrail", "rate", 0.02, lambda r: _rate(r.status == "blocked")),
    Definition("result.code", "llm-results", "route", "quality", "category", 0.05,
               lambda r: "completed" if r.status == "completed" else r.code or r.status),
    Definition("result.latency_ms", "llm-results", "route", "latency", "amount", 1.5, _end_to_end_ms),
    Definition("prompt.toxicity", "evaluations", "route", "data", "score", 0.05, _score("prompt", "toxicity")),
    Definition("answer.toxicity", "evaluations", "model", "quality", "score", 0.05, _score("answer", "toxicity")),
    Definition("answer.groundedness", "evaluations", "model", "quality", "score", 0.05, _score("answer", "groundedness")),
    Definition("answer.context_use", "evaluations", "model", "retrieval", "score", 0.05, _score("answer", "context_use")),
    Definition("answer.citation_correctness", "evaluations", "model", "quality", "score", 0.05,
               _score("answer", "citation_correctness")),
    Definition("feedback.rating", "evaluations", "model", "quality", "score", 0.1, _score("feedback", "rating")),
    Definition("feedback.rating_grounded", "evaluations", "model", "quality", "score", 0.1,
               _score("feedback", "rating_grounded")),
    Definition("feedback.rating_empty", "evaluations", "model", "retrieval", "score", 0.1,
               _score("feedback", "rating_empty")),
    Definition("feedback.rating_cached", "evaluations", "model", "quality", "score", 0.1,
               _score("feedback", "rating_cached")),
    Definition("feedback.disagreement", "evaluations", "model", "concept", "rate", 0.1, _score("feedback", "disagreement"),
               river=("hddm-w",)),
    Definition("feedback.rating_gap", "evaluations", "model", "concept", "score", 0.1, _score("feedback", "rating_gap")),
)  # fmt: skip

_PROMPT_SCORES = Definition("prompt.*", "evaluations", "route", "data", "score", 0.05)
_SCORES = Definition("*", "evaluations", "model", "quality", "score", 0.05)
"""How the scores of other evaluators are watched, each under ``<subject>.<name>``: they come and go without an entry."""

REPEATED = frozenset({"answer.passages_found"})
"""Scores that another signal sees earlier and of every request: retrieval.empty."""

SOURCES: Mapping[str, tuple[Definition, ...]] = {
    topic: tuple(each for each in SIGNALS if each.source == topic)
    for topic in ("requests-screened", "completions", "costs", "evaluations", "verdicts", "llm-results")
}
_BY_NAME = {each.name: each for each in SIGNALS}


def definition(name: str) -> Definition:
    """Return the definition behind a signal's name; a name that is not declared is a score."""
    return _BY_NAME.get(name) or (_PROMPT_SCORES if name.startswith("prompt.") else _SCORES)


def segment_of(record: Record, context: Context | None, level: Level = "model") -> str:
    """Return ``team|model|prompt version|route``. ``*`` stands for all there are, or one that is not known; ``-`` for no
    registered prompt."""
    if context is None or level == "team":
        return segment_parts(record.tenant_id, "*", "*", "*")
    # A cost names the model that was asked for; its segment is that of the model that answered.
    model = getattr(record, "response_model", None) or getattr(record, "model", None) or "*"
    return segment_parts(
        record.tenant_id, model if level == "model" else "*", context.prompt_version or "-", context.route
    )


def segment_parts(team: str, model: str, prompt_version: str, route: str) -> str:
    """Return the name of a segment; a ``|`` in a part is written ``%7C``."""
    return "|".join(part.replace("|", "%7C") for part in (team, model, prompt_version, route))
