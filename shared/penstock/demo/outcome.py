"""What became of every request of a run, gathered from the topics, and whether that is what had to be. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from penstock.audit import Verification
from penstock.contracts.records import (
    Alert,
    AlertDelivery,
    Completion,
    Cost,
    Evaluation,
    LlmResult,
    Record,
    Score,
    ScreenedRequest,
    Status,
    Verdict,
)
from penstock.demo.observe import Observer
from penstock.demo.traffic import Kind, Planned

__all__ = ["Drift", "Ingest", "Latency", "Outcome", "gather", "latency", "problems"]

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Ingest:
    """What became of the documents."""

    documents: int
    indexed: int
    chunks: int
    quarantined: tuple[str, ...] = ()
    """Documents that guardrails kept out."""
    failed: tuple[str, ...] = ()
    """Documents that could not be indexed, with the reason."""
    missing: tuple[str, ...] = ()
    """Documents that nothing was heard of."""
    uploads: frozenset[str] = frozenset()
    """request_id of each document's event."""
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request and what became of it."""

    planned: Planned
    latency_s: float | None
    """From the call of submit() to the result's arrival at the client; None where none arrived."""
    results: tuple[LlmResult, ...]
    """Distinct results by event_id: exactly one in a correct run."""
    verdicts: tuple[Verdict, ...] = ()
    screened: ScreenedRequest | None = None
    completion: Completion | None = None
    costs: tuple[Cost, ...] = ()
    scores: tuple[Score, ...] = ()
    last_seen: str = ""

    @property
    def result(self) -> LlmResult | None:
        """The one result."""
        return self.results[0] if self.results else None

    @property
    def cost(self) -> Cost | None:
        """What the model's call cost."""
        return next((cost for cost in self.costs if cost.kind != "embedding"), None)

    @property
    def priced(self) -> bool:
        """Whether every call that was made for the request has its cost."""
        if self.completion is None:
            return True
        return len(self.costs) >= 1 + (self.completion.embedding_tokens > 0)

    @property
    def unproven(self) -> tuple[str, ...]:
        """What an auditor objects to: a release that does not stand on its verdict."""
        verification = Verification()
        for result in self.results:
            verification.result(result, ("llm-results", 0, 0))
        for verdict in self.verdicts:
            verification.verdict(verdict)
        return tuple(fault.description for fault in verification.faults())

    @property
    def toxicity(self) -> Score | None:
        """How toxic evaluation found the question."""
        return next((s for s in self.scores if s.name == "toxicity" and s.subject == "prompt"), None)

    @property
    def as_expected(self) -> bool | None:
        """Whether the answer holds the expected phrase; None where none is known or nothing was answered."""
        if self.planned.expected is None or self.result is None or self.result.status != Status.COMPLETED:
            return None
        return self.planned.expected.lower() in " ".join(self.result.content.lower().split())


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of the requests of a run in seconds, by nearest rank, and its throughput in results a second."""

    count: int
    p50: float
    p95: float
    p99: float
    slowest: float
    throughput: float


@dataclass(frozen=True, slots=True)
class Drift:
    """Alerts about drift and what was delivered of them."""

    alerts: tuple[Alert, ...] = ()
    deliveries: tuple[AlertDelivery, ...] = ()
    received: Mapping[str, bool] = field(default_factory=dict)
    """Fingerprint of each alert that reached the webhook: whether its signature was right."""


def gather(plan: Sequence[Planned], latencies: Mapping[str, float], observer: Observer) -> list[Outcome]:
    """Return the outcome of each planned request, in the order of ``plan``."""
    results = _by_request(observer.records("llm-results", LlmResult))
    verdicts = _by_request(observer.records("verdicts", Verdict))
    screened = _by_request(observer.records("requests-screened", ScreenedRequest))
    completions = _by_request(observer.records("completions", Completion))
    costs = _by_request(observer.records("costs", Cost))
    evaluations = _by_request(observer.records("evaluations", Evaluation))
    return [
        Outcome(
            planned=one,
            latency_s=latencies.get(one.request_id),
            results=tuple(results[one.request_id]),
            verdicts=tuple(verdicts[one.request_id]),
            screened=next(iter(screened[one.request_id]), None),
            completion=next(iter(completions[one.request_id]), None),
            costs=tuple(costs[one.request_id]),
            scores=tuple(score for each in evaluations[one.request_id] for score in each.scores),
            last_seen="" if results[one.request_id] else observer.last_seen(one.request_id),
        )
        for one in plan
    ]


def latency(outcomes: Sequence[Outcome], elapsed_s: float) -> Latency | None:
    """Return the latency of those that have a result; None where none has. ``elapsed_s``: first submit to last result."""
    times = sorted(outcome.latency_s for outcome in outcomes if outcome.latency_s is not None)
    if not times:
        return None

    def rank(share: float) -> float:
        return times[max(0, math.ceil(share * len(times)) - 1)]

    return Latency(len(times), rank(0.5), rank(0.95), rank(0.99), times[-1], len(times) / elapsed_s)


def problems(outcomes: Sequence[Outcome], ingest: Ingest, drift: Drift, *, drift_demanded: bool) -> list[str]:
    """Return what is not as it had to be, each in a line that says where to look; empty after a correct run."""
    found = [f"document {document}: nothing was heard of it on documents-indexed" for document in ingest.missing[:3]]
    if more := len(ingest.missing) - len(found):
        found.append(
            f"nor of {more} more of the {ingest.documents} documents: see retrieval's log, or try again where the machine "
            "was busy; questions about them find nothing"
        )
    found += [f"document {document}" for document in ingest.failed]
    for outcome in outcomes:
        found += [f"{_name(outcome.planned)}: {problem}" for problem in _problems(outcome)]
    abusive = [o.toxicity.score for o in outcomes if o.planned.kind is Kind.ABUSE and o.toxicity]
    ordinary = [o.toxicity.score for o in outcomes if o.planned.kind is Kind.QUESTION and o.toxicity]
    if abusive and ordinary and statistics.median(abusive) <= statistics.median(ordinary):
        found.append(
            f"abuse scores no more toxic (median {statistics.median(abusive):.2f}) than questions "
            f"({statistics.median(ordinary):.2f})"
        )
    shifts = [alert for alert in drift.alerts if alert.name == "topic_shift"]
    delivered = {d.fingerprint for d in drift.deliveries if d.outcome == "delivered"}
    found += [
        f"the webhook got alert {name} with a wrong signature" for name, right in drift.received.items() if not right
    ]
    if drift_demanded and not shifts:
        found.append("the shift of topic raised no drift alert; see the log of drift")
    elif drift_demanded and not any(alert.fingerprint in drift.received for alert in shifts):
        found.append(
            "a drift alert was raised, but none reached the webhook; see alert-deliveries and the log of alerting"
        )
    elif drift_demanded and not any(alert.fingerprint in delivered for alert in shifts):
        found.append("a drift alert reached the webhook, but alert-deliveries does not say so")
    return found


def _problems(outcome: Outcome) -> list[str]:
    planned, result = outcome.planned, outcome.result
    if result is None:
        return [f"no result; {outcome.last_seen}"]
    found = []
    if len(outcome.results) > 1:
        found.append(f"{len(outcome.results)} different results: {Counter(r.status for r in outcome.results)}")
    if result.status != planned.status:
        why = f" ({result.code}: {result.reason})" if result.code else ""
        found.append(f"is {result.status}{why}, not {planned.status}")
    shown = [result.prompt, result.content]
    for record in (outcome.screened, outcome.completion):
        shown += [message.content for message in record.messages] if record is not None else []
    found += [f"{_hidden(value)} was not masked" for value in planned.private if any(value in text for text in shown)]
    if result.status == Status.COMPLETED:
        if planned.kind is Kind.PII and not any(v.stage == "input" and v.action == "mask" for v in outcome.verdicts):
            found.append("no verdict on verdicts says that it was masked")
        if outcome.toxicity is None:
            found.append("no toxicity score on evaluations")
    found += outcome.unproven
    if not outcome.priced:
        found.append("a model was called for it, but nothing on costs says what that cost")
    return found


def _name(planned: Planned) -> str:
    return f"request {planned.request_id} ({planned.kind}, team {planned.tenant})"


def _hidden(value: str) -> str:
    return f"{value[:2]}{'*' * max(1, len(value) - 2)}"


def _by_request(records: Iterable[R]) -> defaultdict[str, list[R]]:
    found: defaultdict[str, list[R]] = defaultdict(list)
    for record in records:
        found[record.request_id].append(record)
    return found
