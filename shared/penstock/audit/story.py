"""The story of one request: every event about it, in order, each in a line a person can read. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from penstock.contracts.records import (
    AdmittedRequest,
    Alert,
    Cancellation,
    Completion,
    CompletionChunk,
    Cost,
    DeadLetter,
    DriftEvent,
    Evaluation,
    Feedback,
    Finding,
    GroundedRequest,
    LlmRequest,
    LlmResult,
    Record,
    Refusal,
    ResultChunk,
    Review,
    ReviewDecision,
    ScreenedRequest,
    Signal,
    Verdict,
)

__all__ = ["Chapter", "concerns", "story"]

SHOWN_CHARS = 160
"""Characters shown of a text."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """One event of the story. ``details`` are further lines; ``record`` is the event itself."""

    at: datetime
    topic: str
    partition: int
    offset: int
    headline: str
    details: tuple[str, ...]
    record: Record
    repeats: int = 0
    """How often the same event stands on the topic again."""


def concerns(record: Record, request_id: str) -> bool:
    """Return whether a record is about the request: its own, or evidence that names it."""
    if record.request_id == request_id:
        return True
    if isinstance(record, Alert):
        return request_id in record.sample_requests
    if isinstance(record, DriftEvent):
        return request_id in record.sample_before or request_id in record.sample_after
    return isinstance(record, DeadLetter) and request_id.encode() in (record.origin_value or b"")


def story(events: Iterable[tuple[str, int, int, Record]], *, texts: bool = False) -> list[Chapter]:
    """Return the chapters of ``events`` (topic, partition, offset, record), oldest first.

    ``texts`` shows what people and models wrote as well; without it no text appears that the verdicts keep out.
    """
    chapters: dict[str, Chapter] = {}
    for topic, partition, offset, record in events:
        told = chapters.get(f"{topic}/{record.event_id}")
        if told is not None:
            chapters[f"{topic}/{record.event_id}"] = replace(told, repeats=told.repeats + 1)
            continue
        tell = _TELLERS.get(type(record), _plain)
        headline, details = tell(record, texts)
        chapters[f"{topic}/{record.event_id}"] = Chapter(
            record.occurred_at, topic, partition, offset, headline, tuple(details), record
        )
    order = {kind: position for position, kind in enumerate(_TELLERS)}
    return sorted(chapters.values(), key=lambda c: (c.at, order.get(type(c.record), len(order)), c.topic, c.offset))


Told = tuple[str, list[str]]


def _request(r: LlmRequest, texts: bool) -> Told:
    prompt = f", prompt {r.prompt_name}@{r.prompt_label}" if r.prompt_name else ""
    count = f"{len(r.messages)} message{'s' if len(r.messages) != 1 else ''}"
    headline = f"team {r.tenant_id} asks route {r.route}{prompt}: {count}"
    return headline, _messages(r.messages, texts)


def _admitted(r: AdmittedRequest, texts: bool) -> Told:
    c = r.context
    reserved = "nothing reserved" if r.reserved_cost is None else f"{r.reserved_cost} USD reserved"
    label = f" ({c.prompt_label})" if c.prompt_label not in (None, c.prompt_version) else ""
    prompt = f", prompt {c.prompt_name}@{c.prompt_version}{label}" if c.prompt_name else ""
    return f"admitted to route {c.route}, policy {c.policy_name}{prompt}; {reserved}", _messages(r.messages, texts)


def _verdict(r: Verdict, texts: bool) -> Told:
    who = f"{r.reviewer} decides" if r.reviewer else f"policy {r.policy_name}@{r.policy_version}"
    if r.mode == "shadow":
        headline = f"tried in shadow: {who} would {r.would_action} the {_subject(r)}, which was: {r.action}"
    else:
        would = f" (with its rules in shadow: {r.would_action})" if r.would_action not in (None, r.action) else ""
        headline = f"verdict on the {_subject(r)}: {r.action}{would}; {who}"
    details = [_finding(finding) for finding in r.findings]
    details += [f"{name} failed: {reason}" for name, reason in r.errors.items()]
    if r.scanners:
        details.append("scanners: " + ", ".join(f"{name} {version}" for name, version in sorted(r.scanners.items())))
    if not r.reviewer:
        details.append(f"took {r.latency_us / 1000:.1f} ms")
    return headline, details


def _subject(r: Verdict) -> str:
    names = {"input": "request", "output": "answer", "document": "document", "review": "held text"}
    return f"{r.stage} {r.sequence}" if r.sequence is not None else names.get(r.stage, r.stage)


def _finding(f: Finding) -> str:
    name = f"{f.rule} ({f.scanner})" if f.rule else f.scanner
    shadow = "" if f.enforced else ", in shadow"
    mark = f", fingerprint {f.fingerprint}" if f.fingerprint else ""
    return f"{name}: {f.kind} at {f.start}-{f.end}, score {f.score:.2f} -> {f.action}{shadow}{mark}"


def _review(r: Review, texts: bool) -> Told:
    what = "request" if r.stage == "input" else "answer"
    return f"the {what} is held for a person until {r.due_at:%Y-%m-%d %H:%M:%S}Z", [_finding(f) for f in r.findings]


def _decision(r: ReviewDecision, texts: bool) -> Told:
    return f"{r.reviewer} {'approves' if r.approved else 'does not approve'}: {r.reason or 'no reason given'}", []


def _screened(r: ScreenedRequest, texts: bool) -> Told:
    return f"goes on as screened: {r.action}", _messages(r.messages, texts)


def _grounded(r: GroundedRequest, texts: bool) -> Told:
    again = f", attempt {r.attempt + 1}" if r.attempt else ""
    passages = [f"{p.score:.2f}  {p.title or p.document_id} [{p.start}-{p.end}]  {p.source}" for p in r.passages]
    return f"grounding {r.grounding}: {len(r.passages)} passages{again}", passages


def _cancellation(r: Cancellation, texts: bool) -> Told:
    return f"team {r.tenant_id} cancels it: {r.reason or 'no reason given'}", []


def _piece(r: CompletionChunk, texts: bool) -> Told:
    return f"the model streams piece {r.sequence}, {len(r.content)} characters{_end(r.finish_reason)}", []


def _completion(r: Completion, texts: bool) -> Told:
    if r.error is not None:
        what = "is given up" if r.finish_reason == "cancelled" else "fails"
        tokens = f"{r.usage.input_tokens} + {r.usage.output_tokens} tokens are paid for"
        return f"{r.model} ({r.backend}) {what}{_beside(r)}: {r.error}", [tokens]
    again = f", attempt {r.attempt + 1}" if r.attempt else ""
    if r.cached_by is not None:
        alike = "" if r.cache_similarity is None else f" (cosine {r.cache_similarity:.3f} to {r.cached_request_id})"
        told = f"the {r.cached_by} cache answers with the event {r.cached_from}{alike}: no model is called"
        return told, _text("answer", r.content, texts)
    took = f"{r.timings.model_us / 1000:.0f} ms"
    tokens = f"{r.usage.input_tokens} + {r.usage.output_tokens} tokens"
    others = f", {len(r.alternatives)} alternatives" if r.alternatives else ""
    details = _text("answer", r.content, texts)
    details += [line for each in r.alternatives for line in _text("alternative", each.content, texts)]
    details += [f"{each.target} gave no answer: {each.reason}" for each in r.failures]
    if r.energy is not None:
        grams = "" if r.energy.co2e_grams is None else f", {r.energy.co2e_grams:.3g} g CO2e"
        details.append(f"took about {r.energy.joules:.3g} J{grams} (an estimate by {r.energy.basis})")
    details += [line for call in r.tool_calls for line in _text(f"calls {call.name}", call.arguments, texts)]
    return f"{r.model} ({r.backend}) answers in {took}, {tokens}, {r.finish_reason}{again}{others}{_beside(r)}", details


def _beside(r: Completion) -> str:
    return ", in shadow: it is not released" if r.kind == "shadow" else ""


def _refusal(r: Refusal, texts: bool) -> Told:
    return f"{r.stage} ends it as {r.status}: {r.code}", [r.reason]


def _released_piece(r: ResultChunk, texts: bool) -> Told:
    return f"piece {r.sequence} is released, {len(r.content)} characters{_end(r.finish_reason)}", []


def _end(finish_reason: str | None) -> str:
    return "" if finish_reason is None else f", the last: {finish_reason}"


def _result(r: LlmResult, texts: bool) -> Told:
    if r.code is not None:
        return f"result: {r.status} by {r.stage}, {r.code}", [r.reason or ""]
    others = f", {len(r.alternatives)} alternatives" if r.alternatives else ""
    details = _text("answer", r.content, texts)
    details += [line for each in r.alternatives for line in _text("alternative", each.content, texts)]
    details += [line for call in r.tool_calls for line in _text(f"calls {call.name}", call.arguments, texts)]
    called = f", calls {', '.join(call.name for call in r.tool_calls)}" if r.tool_calls else ""
    return f"result: {r.status}, {len(r.content)} characters, {len(r.citations)} sources{called}{others}", details


def _cost(r: Cost, texts: bool) -> Told:
    named = f"cost of {r.model} ({r.kind})"
    counted = f"counts at {r.accounted_at or r.occurred_at:%Y-%m-%d %H:%M:%S}Z"
    if r.amount is None:
        return f"{named}: no price is known", [counted]
    shares = {"prompt": r.input_amount, "answer": r.output_amount, "time and call": r.compute_amount}
    details = [f"{name} {amount:f} USD" for name, amount in shares.items() if amount]
    details += [f"saved {amount:f} USD: {cause.replace('_', ' ')}" for cause, amount in sorted(r.saved.items())]
    return f"{named}: {r.amount:f} USD, price {r.price_version}", [*details, counted]


def _evaluation(r: Evaluation, texts: bool) -> Told:
    scores = [f"{s.subject} {s.name} {s.score:.3f} {s.label} ({s.version})" for s in r.scores]
    return f"evaluated: {len(scores)} scores", scores


def _feedback(r: Feedback, texts: bool) -> Told:
    rating = "" if r.rating is None else f" rates it {r.rating:g}"
    labels = "".join(f", {name} = {value}" for name, value in sorted(r.labels.items()))
    return f"feedback: {r.source}{rating}{labels}", []


def _alert(r: Alert, texts: bool) -> Told:
    return f"{r.severity} alert {r.kind}/{r.name} ({r.status}): {r.title}", [r.description]


def _dead_letter(r: DeadLetter, texts: bool) -> Told:
    origin = f"{r.origin_topic}/{r.origin_partition}/{r.origin_offset}"
    return f"dead letter of {r.service}: {r.code}, from {origin}", [r.reason]


def _signal(r: Signal, texts: bool) -> Told:
    values = ", ".join(f"{name} {value:g}" for name, value in sorted(r.values.items()))
    return f"signals for drift: {values or 'an embedding'}", []


def _plain(record: Record, texts: bool) -> Told:
    return type(record).__name__, []


def _messages(messages: Iterable[Any], texts: bool) -> list[str]:
    return [line for message in messages for line in _text(message.role, message.content, texts)]


def _text(label: str, text: str, texts: bool) -> list[str]:
    if not texts:
        return []
    line = " ".join(text.split())
    return [f"{label}: {line[:SHOWN_CHARS]}{'…' if len(line) > SHOWN_CHARS else ''}"]


_TELLERS: Mapping[type[Record], Callable[[Any, bool], Told]] = {
    LlmRequest: _request,
    AdmittedRequest: _admitted,
    Verdict: _verdict,
    Review: _review,
    ReviewDecision: _decision,
    ScreenedRequest: _screened,
    GroundedRequest: _grounded,
    Cancellation: _cancellation,
    CompletionChunk: _piece,
    Completion: _completion,
    Refusal: _refusal,
    ResultChunk: _released_piece,
    LlmResult: _result,
    Cost: _cost,
    Signal: _signal,
    Evaluation: _evaluation,
    Feedback: _feedback,
    Alert: _alert,
    DeadLetter: _dead_letter,
}
"""How each record is told; of events of one instant the earlier in this table comes first."""
