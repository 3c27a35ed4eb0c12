"""A request of production as a case of a golden set. Pure, but for the file it is appended to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.contracts.records import (
    Completion,
    Feedback,
    LlmRequest,
    LlmResult,
    Message,
    Record,
    ScreenedRequest,
)
from pydantic import ValidationError

from services.evaluation.golden.dataset import Case, read_dataset

__all__ = ["TOPICS", "Found", "NotPromoted", "Place", "append_case", "case_of"]

TOPICS = ("llm-results", "llm-requests", "requests-screened", "completions", "feedback")
"""Where a request's question, answer and corrections stand."""

Place = tuple[str, int, int]
"""Topic, partition and offset."""

_ANSWER, _CORRECTION = "answer", "correction"
_MODERATOR = "moderator"


class NotPromoted(Exception):
    """A request cannot become a case; the message names the cause and the remedy."""


@dataclass(slots=True)
class Found:
    """What the log holds of one request."""

    places: dict[str, Place] = field(default_factory=dict)
    result: LlmResult | None = None
    request: LlmRequest | None = None
    screened: ScreenedRequest | None = None
    completion: Completion | None = None
    feedback: list[Feedback] = field(default_factory=list)

    def take(self, record: Record, place: Place) -> None:
        """Add an event of the request. What stands there twice counts once; of several completions the last counts."""
        match record:
            case LlmResult():
                self.result = record
            case LlmRequest():
                # What is sent again under the same id is not answered again: the first send was.
                if self.request is not None:
                    return
                self.request = record
            case ScreenedRequest():
                self.screened = record
            case Completion() if record.kind in ("abandoned", "shadow") or record.error is not None:
                return
            case Completion():
                if self.completion is not None and self.completion.attempt > record.attempt:
                    return
                self.completion = record
            case Feedback():
                if all(one.event_id != record.event_id for one in self.feedback):
                    self.feedback.append(record)
            case _:
                return
        self.places[place[0]] = place


def case_of(
    request_id: str, found: Found, *, reference: str | None, tags: Sequence[str], now: datetime
) -> tuple[Case, list[str]]:
    """Return a request as a case, and what to look at before it is shared.

    The question is taken as guardrails left it, personal data masked. A prompt stays a prompt with its variables, so that
    other versions of it can be tried, where nothing of them was masked; else the case holds the rendered messages. A
    request that was blocked becomes a case that expects that.

    Args:
        request_id: identity of the request.
        found: what the log holds of it.
        reference: ``answer`` (the released answer is right), ``correction`` (the newest of a person, a moderator's first),
            or the right answer itself; None: a correction where there is one, else the answer.
        tags: labels of the case.
        now: when it is promoted, UTC.

    Raises:
        NotPromoted: the request has no result, nothing of it may be kept, or there is no such reference.
    """
    result = found.result
    if result is None:
        raise NotPromoted(
            f"request {request_id} has no result on the log: check the id, or retention has passed over it"
        )
    row, notes = _question(found, result)
    if result.status != "completed":
        row |= {"status": result.status} | ({"code": result.code} if result.code else {})
    text = _reference(found, result, reference)
    if text is not None:
        row["references"] = [text]
        if text == result.content and found.screened is not None and _masked(found.screened):
            notes.append("something was masked in the question, and the answer may name it: look at the reference")
    context = result.context
    source = {
        "request_id": request_id,
        "team": result.tenant_id,
        "route": context.route,
        "model": result.model or "",
        "prompt": f"{context.prompt_name}@{context.prompt_version}" if context.prompt_name else "",
        "policy": f"{context.policy_name}@{context.policy_version}" if context.policy_version else "",
        "answered_at": _instant(result.occurred_at),
        "promoted_at": _instant(now),
        **{topic: f"{partition}/{offset}" for topic, partition, offset in found.places.values()},
    }
    row |= {"id": request_id, "tags": list(tags), "source": {name: value for name, value in source.items() if value}}
    try:
        return Case.model_validate(row), notes
    except ValidationError as error:
        raise NotPromoted(f"request {request_id} makes no case: {error.errors()[0]['msg']}") from error


def _question(found: Found, result: LlmResult) -> tuple[dict[str, Any], list[str]]:
    screened, request = found.screened, found.request
    if screened is None:
        # Ended before or at the guardrails: the result has the question as far as they saw it.
        if not result.prompt:
            raise NotPromoted(
                f"request {result.request_id} ended as {result.code or result.status} before its text was screened, and "
                "nothing unscreened is kept: write the case by hand"
            )
        return {"question": result.prompt}, []
    if request is None or request.prompt_name is None:
        rendered = screened.context.prompt_name is not None
        notes = ["its route's prompt is part of the messages: versions of it cannot be compared"] if rendered else []
        return _messages(screened.messages), notes
    tail = screened.messages[len(screened.messages) - len(request.messages) :] if request.messages else []
    texts = "\n".join(message.content for message in screened.messages)
    if tail == request.messages and all(value in texts for value in request.prompt_variables.values()):
        asked = _messages(request.messages) if request.messages else {}
        return {"prompt": request.prompt_name, "variables": dict(request.prompt_variables), **asked}, []
    return _messages(screened.messages), [
        f"something of prompt {request.prompt_name!r} was masked: the case holds its rendered messages, and versions of it "
        "cannot be compared"
    ]


def _messages(messages: Sequence[Message]) -> dict[str, Any]:
    if len(messages) == 1 and messages[0].role == "user":
        return {"question": messages[0].content}
    return {"messages": [{"role": message.role, "content": message.content} for message in messages]}


def _reference(found: Found, result: LlmResult, wanted: str | None) -> str | None:
    given = [one for one in found.feedback if one.correction and one.tenant_id == result.tenant_id]
    best = max(given, key=lambda one: (one.source == _MODERATOR, one.occurred_at), default=None)
    if wanted == _CORRECTION and best is None:
        raise NotPromoted(f"nobody corrected request {result.request_id}: write the right answer with --reference TEXT")
    if wanted == _ANSWER and not result.content:
        raise NotPromoted(
            f"request {result.request_id} has no answer, it ended as {result.status}: leave out --reference"
        )
    if wanted in (None, _CORRECTION) and best is not None:
        return best.correction
    if wanted in (None, _ANSWER):
        return result.content or None
    return wanted


def _masked(screened: ScreenedRequest) -> bool:
    return any(finding.enforced and finding.action in ("mask", "hash", "pseudonymise") for finding in screened.findings)


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def append_case(path: Path, case: Case) -> None:
    """Append a case to a golden set; a file that is not there is made.

    Raises:
        NotPromoted: the set has the request, the same question or the id already, or the file cannot be written.
        DatasetError: the file is no golden set.
    """
    existing: Iterable[Case] = read_dataset(path).cases if path.exists() and path.stat().st_size else ()
    for other in existing:
        again = other.source.get("request_id") == case.source.get("request_id") and case.source.get("request_id")
        if again or other.id == case.id:
            raise NotPromoted(f"{path} has request {case.id} already, as case {other.id}")
        if other.question_version == case.question_version:
            raise NotPromoted(f"{path} asks the same already, in case {other.id}: change that one instead")
    row = {"id": case.id, **case.model_dump(mode="json", exclude_defaults=True, exclude={"id"})}
    if len(case.references) == 1:
        row["reference"] = row.pop("references")[0]
    line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    try:
        with path.open("ab+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
    except OSError as error:
        raise NotPromoted(f"cannot write {path}: {error.strerror}") from error
