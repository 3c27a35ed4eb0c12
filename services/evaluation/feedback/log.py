"""Reading feedback and all it is about from the log, for people: what was read is known by topic, partition and offset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from penstock.bus import history
from penstock.bus.types import Transport
from penstock.contracts.codec import Codec, Undecodable
from penstock.contracts.records import (
    AnnotationTask,
    Completion,
    Evaluation,
    Feedback,
    JudgeTask,
    LlmResult,
    LogRange,
    Purpose,
    Record,
    Score,
)

from services.evaluation.feedback.opinions import rater_of

__all__ = ["Case", "Log", "Request", "cases", "feedback_since", "newest_of_raters", "of_requests", "tasks_since"]

Request = tuple[str, str]
"""Team and request_id: ids are chosen by producers, so two teams may use the same."""


@dataclass
class Log:
    """The log, and what was read of it.

    Attributes:
        bounds: offsets to stay within, by topic and partition, for reading again what was read before; ``None`` reads all
            that stands there now.
        read: first and last offset that was read.
        undecodable: messages that could not be.
    """

    transport: Transport
    codec: Codec
    bounds: Mapping[tuple[str, int], tuple[int, int]] | None = None
    read: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    undecodable: int = 0

    async def records(
        self, topics: Sequence[str], since: datetime | None = None, *, of: str | None = None
    ) -> AsyncIterator[Record]:
        """Yield what stands on topics now, each event once, in the order of each partition.

        Args:
            topics: of the catalogue.
            since: first instant by the broker's clock.
            of: only what holds this request_id, without decoding the rest.
        """
        wanted = None if of is None else of.encode()
        seen: set[tuple[str, str]] = set()
        since_ms = None if since is None else int(since.timestamp() * 1000)
        async with history(self.transport, topics, since_ms=since_ms) as messages:
            async for message in messages:
                place = message.topic, message.partition
                if self.bounds is not None:
                    first, last = self.bounds.get(place, (0, -1))
                    if not first <= message.offset <= last:
                        continue
                first, last = self.read.get(place, (message.offset, message.offset))
                self.read[place] = min(first, message.offset), max(last, message.offset)
                # Avro writes strings as they are.
                if wanted is not None and wanted not in (message.value or b""):
                    continue
                try:
                    record = self.codec.decode(message.topic, message.value)
                except Undecodable:
                    self.undecodable += 1
                    continue
                if (message.topic, record.event_id) not in seen:
                    seen.add((message.topic, record.event_id))
                    yield record

    def ranges(self) -> list[LogRange]:
        """Return what was read, by topic and partition."""
        return [
            LogRange(topic=topic, partition=partition, first_offset=first, last_offset=last)
            for (topic, partition), (first, last) in sorted(self.read.items())
        ]


@dataclass
class Case:
    """A request with what people say of it.

    Attributes:
        feedback: what stands: the newest of each rater, oldest first.
        result: ``None`` where the log has none (any more).
        completion: of the first answer, with its whole conversation and all its passages; ``None`` as above.
        scores: of its texts, by ``subject.name``, the newest of each.
        pair: two answers of which one was to be chosen, where a judge's task has them.
    """

    team: str
    request_id: str
    feedback: list[Feedback]
    result: LlmResult | None = None
    completion: Completion | None = None
    scores: dict[str, Score] = field(default_factory=dict)
    pair: tuple[str, str, str] | None = None
    """Question, first answer, second answer."""


def newest_of_raters(feedback: Iterable[Feedback]) -> list[Feedback]:
    """Return the newest feedback of every rater on one request, oldest first."""
    standing: dict[str, Feedback] = {}
    for each in sorted(feedback, key=lambda each: (each.occurred_at, each.event_id)):
        standing[rater_of(each.user_id, each.event_id)] = each
    return sorted(standing.values(), key=lambda each: (each.occurred_at, each.event_id))


async def feedback_since(
    log: Log, since: datetime | None = None, *, team: str | None = None, request_id: str | None = None
) -> dict[Request, list[Feedback]]:
    """Return all feedback by request, oldest first."""
    found: dict[Request, list[Feedback]] = defaultdict(list)
    async for record in log.records(["feedback"], since, of=request_id):
        if (
            isinstance(record, Feedback)
            and team in (None, record.tenant_id)
            and request_id in (None, record.request_id)
        ):
            found[record.tenant_id, record.request_id].append(record)
    for those in found.values():
        those.sort(key=lambda each: (each.occurred_at, each.event_id))
    return dict(found)


async def tasks_since(log: Log, since: datetime | None = None, *, team: str | None = None) -> list[AnnotationTask]:
    """Return the annotation tasks, one a request and queue, the oldest of each."""
    found: dict[tuple[str, str, str], AnnotationTask] = {}
    async for record in log.records(["annotation-tasks"], since):
        if isinstance(record, AnnotationTask) and team in (None, record.tenant_id):
            name = record.tenant_id, record.request_id, record.queue
            if name not in found or record.occurred_at < found[name].occurred_at:
                found[name] = record
    return list(found.values())


async def of_requests(log: Log, request_id: str, *, team: str | None = None) -> list[LlmResult]:
    """Return the results with an id, one for each team that uses it."""
    found: dict[str, LlmResult] = {}
    async for record in log.records(["llm-results"], of=request_id):
        if isinstance(record, LlmResult) and record.request_id == request_id and team in (None, record.tenant_id):
            found.setdefault(record.tenant_id, record)
    return list(found.values())


async def cases(log: Log, given: Mapping[Request, Sequence[Feedback]], topics: Collection[str]) -> list[Case]:
    """Return every request that has feedback with what else the log has of it, in the order of their ids.

    Args:
        log: where it is read.
        given: feedback by request.
        topics: what is read of llm-results, completions, evaluations and judge-tasks.
    """
    found = {request: Case(*request, newest_of_raters(those)) for request, those in sorted(given.items())}
    newest: dict[tuple[Request, str], tuple[datetime, str]] = {}
    async for record in log.records(sorted(topics)):
        request = record.tenant_id, record.request_id
        case = found.get(request)
        if case is None:
            continue
        if isinstance(record, LlmResult):
            case.result = case.result or record
        elif isinstance(record, Completion) and record.kind in ("completion", "cached") and record.error is None:
            # An answer that was asked for again has the request to do better in its conversation: the first has not.
            place, first = (record.attempt, record.occurred_at, record.event_id), case.completion
            if first is None or place < (first.attempt, first.occurred_at, first.event_id):
                case.completion = record
        elif isinstance(record, JudgeTask) and len(record.answers) == 2:
            case.pair = record.question, record.answers[0], record.answers[1]
        elif isinstance(record, Evaluation) and record.context.purpose != Purpose.SHADOW:
            for score in record.scores:
                name, age = f"{score.subject}.{score.name}", (record.occurred_at, record.event_id)
                if score.subject != "feedback" and age >= newest.get((request, name), age):
                    newest[request, name] = age
                    case.scores[name] = score
    return list(found.values())
