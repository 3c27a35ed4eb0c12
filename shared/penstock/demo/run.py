"""One run of the demo from the first server to the report."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from penstock.client import Client
from penstock.contracts.records import Alert, AlertDelivery, DocumentIndexed, DriftEvent, Status, Verdict
from penstock.demo.corpus import Source
from penstock.demo.money import gather_money, money_problems, prove
from penstock.demo.observe import Observer
from penstock.demo.outcome import Drift, Ingest, Outcome, gather, latency, problems
from penstock.demo.platform import Platform, platform
from penstock.demo.progress import Progress
from penstock.demo.report import Report
from penstock.demo.traffic import LEAST_FOR_DRIFT, TEAM, Kind, Planned
from penstock.demo.webhook import Receiver
from penstock.stack import Stack

__all__ = ["Input", "run"]

_RESULT_TIMEOUT_S = 60.0
# Documents are given up when none has ended for so long; a long one has hundreds of chunks to embed, 30 ms each.
_DOCUMENT_TIMEOUT_S = 120.0
_SETTLE_TIMEOUT_S = 30.0
_ALERT_TIMEOUT_S = 30.0
_MOST_S = 300.0
"""Longest wait for what follows from the results, while some of it comes."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a run works on."""

    documents: Sequence[Source]
    plan: Sequence[Planned]
    shift_is_marked: bool
    """Whether the shift of topic is the demo's own, so that a drift alert must come."""
    rate: float
    """Requests a second, at most."""


async def run(given: Input, stack: Stack, console: Console, *, keep: bool) -> Report:
    """Run the demo on ``stack`` and return what was found out.

    Raises:
        StackError: a server or a service did not come up.
        TimeoutError: documents were not indexed in time.
    """
    with Progress(console) as progress, Receiver() as receiver:
        environ = {
            # Indexing is the longest part, and nothing else runs meanwhile.
            "EMBEDDING_THREADS": str(min(4, os.cpu_count() or 1)),
            **os.environ,
            **receiver.environment(),
        }
        async with platform(stack, environ, progress, keep=keep) as running:
            async with (
                Observer(running.bus, running.codec) as observer,
                Client(running.settings, tenant=TEAM) as client,
            ):
                report = await _work(given, running, client, observer, receiver, progress)
    return report


async def _work(
    given: Input, running: Platform, client: Client, observer: Observer, receiver: Receiver, progress: Progress
) -> Report:
    progress.step("Documents")
    ingest = await _ingest(given, client, observer, progress)
    progress.done(f"{ingest.indexed} indexed in {ingest.chunks} chunks, {len(ingest.quarantined)} kept out")
    progress.step("Requests")
    begun = time.monotonic()
    latencies, last = await _send(given, client, progress)
    progress.done(f"{len(latencies)} of {len(given.plan)} have their result")
    progress.step("Money, scores and alerts")
    demanded = given.shift_is_marked and _enough_for_drift(given.plan)
    ids = {one.request_id for one in given.plan}
    await observer.until(lambda: _settled(gather(given.plan, latencies, observer)), _SETTLE_TIMEOUT_S, _MOST_S)
    await observer.until(lambda: gather_money(given.plan, ingest.uploads, observer).told, _SETTLE_TIMEOUT_S, _MOST_S)
    if demanded:
        await observer.until(lambda: _delivered(_drift(observer, receiver, ids)), _ALERT_TIMEOUT_S, _MOST_S)
    outcomes = gather(given.plan, latencies, observer)
    drift = _drift(observer, receiver, ids)
    money = gather_money(given.plan, ingest.uploads, observer)
    progress.done(f"{len(money.costs)} costs, {len(money.alerts)} budget alerts, {len(drift.alerts)} drift alerts")
    progress.step("Ledger")
    proof = await prove(running.addresses)
    progress.done("verified" if not proof.failure else "differs")
    found = problems(outcomes, ingest, drift, drift_demanded=demanded) + money_problems(money, proof)
    found += [
        f"a dead letter of {letter.service}: {letter.code} at {letter.origin_topic}/{letter.origin_partition}/"
        f"{letter.origin_offset}: {letter.reason}"
        for letter in observer.dead_letters(ids | ingest.uploads)
    ]
    return Report(
        outcomes=outcomes,
        ingest=ingest,
        drift=drift,
        money=money,
        proof=proof,
        drift_events=[e for e in observer.records("drift-events", DriftEvent) if e.request_id in ids],
        drift_demanded=demanded,
        latency=latency(outcomes, last - begun),
        rate=given.rate,
        memory=running.supervisor.rss(),
        problems=found,
        elapsed_s=progress.elapsed_s,
        logs=str(next(iter(running.supervisor.members)).log.parent),
    )


async def _ingest(given: Input, client: Client, observer: Observer, progress: Progress) -> Ingest:
    """Send the documents and wait until each is indexed or kept out. A team gets those that it asks about."""
    begun = time.monotonic()
    wanted: dict[str, set[str]] = {}
    for one in given.plan:
        if one.tenant != TEAM and one.document_id is not None:
            wanted.setdefault(one.document_id, set()).add(one.tenant)
    uploads: dict[str, str] = {}
    for document in given.documents:
        for team in (TEAM, *sorted(wanted.get(document.document_id, ()))):
            upload = await client.document(
                document.document_id, document.content, tenant=team, title=document.title,
                source=document.source, content_type=document.content_type,
            )  # fmt: skip
            uploads[upload] = f"{document.document_id} of team {team}"
    ended: dict[str, DocumentIndexed | None] = {}

    def more_than(before: int) -> bool:
        ended.update({r.request_id: r for r in observer.records("documents-indexed", DocumentIndexed)})
        for verdict in observer.records("verdicts", Verdict):
            if verdict.stage == "document" and verdict.action == "block":
                ended.setdefault(verdict.request_id, None)
        done = sum(upload in ended for upload in uploads)
        progress.note(f"{done} of {len(uploads)} documents")
        return done > before

    while (before := len(ended.keys() & uploads.keys())) < len(uploads):
        if not await observer.until(lambda before=before: more_than(before), _DOCUMENT_TIMEOUT_S):  # type: ignore[misc]
            break
    mine = {name: ended.get(upload) for upload, name in uploads.items() if upload in ended}
    indexed = [r for r in mine.values() if r is not None and r.status in ("indexed", "unchanged")]
    return Ingest(
        documents=len(uploads),
        indexed=len(indexed),
        chunks=sum(r.chunks for r in indexed),
        quarantined=tuple(name for name, r in mine.items() if r is None),
        failed=tuple(f"{name}: {r.status}: {r.reason}" for name, r in mine.items() if r and r not in indexed),
        uploads=frozenset(uploads),
        missing=tuple(name for upload, name in uploads.items() if upload not in ended),
        elapsed_s=time.monotonic() - begun,
    )


async def _send(given: Input, client: Client, progress: Progress) -> tuple[dict[str, float], float]:
    """Send the requests in order at the given rate, with a moderator's feedback on abuse as its results come in.

    Returns the latency of each that got a result, and when the last one came.
    """
    latencies: dict[str, float] = {}
    begun = last = time.monotonic()

    async def one(planned: Planned) -> None:
        nonlocal last
        submitted = time.monotonic()
        await client.submit(
            planned.text, tenant=planned.tenant, request_id=planned.request_id, user_id=planned.user_id,
            route=planned.route, conversation_id=planned.conversation_id, tags={"kind": planned.kind.name.lower()},
        )  # fmt: skip
        try:
            await client.result(planned.request_id, timeout_s=_RESULT_TIMEOUT_S, tenant=planned.tenant)
        except TimeoutError:
            return
        last = time.monotonic()
        latencies[planned.request_id] = last - submitted
        progress.note(f"{len(latencies)} of {len(given.plan)} answered")
        if planned.kind is Kind.ABUSE:
            await client.feedback(
                planned.request_id, conversation_id=planned.conversation_id, source="moderator",
                labels={"prompt.toxicity": "toxic"},
            )  # fmt: skip

    async with asyncio.TaskGroup() as group:
        for number, planned in enumerate(given.plan):
            await asyncio.sleep(max(0.0, begun + number / given.rate - time.monotonic()))
            group.create_task(one(planned))
    return latencies, last


def _enough_for_drift(plan: Sequence[Planned]) -> bool:
    asked = [one for one in plan if one.tenant == TEAM and one.status == Status.COMPLETED]
    return all(sum(one.phase == phase for one in asked) >= LEAST_FOR_DRIFT for phase in ("A", "B"))


def _settled(outcomes: Sequence[Outcome]) -> bool:
    """Whether everything that follows from the results stands in the log."""
    for outcome in outcomes:
        if outcome.result is None:  # the sender may have seen it before this reader of the log did
            return False
        answered = outcome.result.status == Status.COMPLETED
        if (answered and outcome.toxicity is None) or not outcome.priced:
            return False
    return True


def _drift(observer: Observer, receiver: Receiver, ids: set[str]) -> Drift:
    alerts = [a for a in observer.records("alerts", Alert) if a.kind == "drift" and a.request_id in ids]
    prints = {alert.fingerprint for alert in alerts}
    return Drift(
        alerts=tuple(alerts),
        deliveries=tuple(d for d in observer.records("alert-deliveries", AlertDelivery) if d.fingerprint in prints),
        received={name: right for name, right in receiver.received().items() if name in prints},
    )


def _delivered(drift: Drift) -> bool:
    shifts = {alert.fingerprint for alert in drift.alerts if alert.name == "topic_shift"}
    told = {d.fingerprint for d in drift.deliveries if d.outcome == "delivered"}
    return bool(shifts & told & drift.received.keys())
