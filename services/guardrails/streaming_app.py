"""The shell of streaming: the hop completion-chunks -> result-chunks, and verdicts.

It sends by itself, since its order is its own: the verdicts, then the pieces that stand on them, then the state, then
the offsets. After a crash the pieces that are read again meet the state of before and give the same events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.bus import READ_AHEAD, Emit, Event, Hop, Outcome, Producer, Transient, by_priority, by_team
from penstock.clock import Clock
from penstock.contracts.codec import Invalid
from penstock.contracts.records import CompletionChunk, ResultChunk, Verdict
from penstock.telemetry import get_logger, metrics
from penstock.telemetry.traces import Headers

from services.guardrails.held_texts import Vault
from services.guardrails.judge import Judge
from services.guardrails.masking import has_pseudonyms
from services.guardrails.screening import Limits
from services.guardrails.stream_state import StreamKey, Streams
from services.guardrails.streaming import PieceJudge, StreamState, cut, step

__all__ = ["stream_hop"]

log = get_logger(__name__)

# Texts above this go to a thread, so that one long text does not hold up the streams beside it.
_THREAD_ABOVE_CHARS = 20_000

Step = tuple[StreamState, list[Emit]]


def stream_hop(
    judge: Judge, streams: Streams, vault: Vault, producer: Producer, limits: Limits, clock: Clock, max_batch: int
) -> Hop:
    """Return the hop that releases streamed answers piece by piece."""

    async def handle(events: Sequence[Event[CompletionChunk]]) -> Sequence[Outcome]:
        keys = list(dict.fromkeys((event.record.tenant_id, event.record.request_id) for event in events))
        before = dict(zip(keys, await streams.load(keys), strict=True))
        states = dict(before)
        emits: list[tuple[Emit, Headers]] = []
        for event in events:
            key = (event.record.tenant_id, event.record.request_id)
            state, released = await one(key, states[key], event.record)
            states[key] = state
            emits += [(emit, event.headers) for emit in released]
            # The other hops of this process get their turn between two pieces.
            await asyncio.sleep(0)
        await _send([emit for emit in emits if isinstance(emit[0].record, Verdict)], producer)
        await _send([emit for emit in emits if isinstance(emit[0].record, ResultChunk)], producer)
        await streams.save({key: state for key, state in states.items() if state is not None and state != before[key]})
        return [[] for _ in events]

    async def one(key: StreamKey, state: StreamState | None, chunk: CompletionChunk) -> Step:
        by = PieceJudge(None, judge.key, limits, clock.monotonic)
        try:
            text = (state.held if state else "") + chunk.content
            pseudonyms = await vault.open(*key) if has_pseudonyms(text) else {}
            by = PieceJudge(judge.policy(chunk.context.policy_name), judge.key, limits, clock.monotonic, pseudonyms)
            if len(text) > _THREAD_ABOVE_CHARS:
                after, emits = await asyncio.to_thread(step, state, chunk, by, clock.now())
            else:
                after, emits = step(state, chunk, by, clock.now())
        except Transient:
            raise
        except Exception as error:  # Nothing goes out unjudged: the stream ends, the result is judged by itself.
            log.error("piece could not be judged", request_id=chunk.request_id, exc_info=error)
            reason = "guardrails could not judge the piece, so it is not released; see the log of guardrails"
            after, emits = cut(state or StreamState(sequence=chunk.sequence), chunk, by, reason, clock.now())
        _measure(chunk, emits, clock)
        return after, emits

    return Hop(
        service="guardrails",
        group="guardrails-stream",
        topics=("completion-chunks",),
        handler=handle,
        max_batch=max_batch,
        urgency=by_priority,
        flow=by_team,
        waiting=READ_AHEAD,
    )


def _measure(chunk: CompletionChunk, emits: Sequence[Emit], clock: Clock) -> None:
    for emit in emits:
        verdict = emit.record
        if isinstance(verdict, ResultChunk) and verdict.sequence == 0 and verdict.content:
            waited = clock.now() - chunk.context.requested_at
            metrics.FIRST_RELEASED_SECONDS.observe(max(0.0, waited.total_seconds()))
        if not isinstance(verdict, Verdict):
            continue
        metrics.SCREENED.labels("piece", verdict.action).inc()
        metrics.SCREEN_SECONDS.labels("piece").observe(verdict.latency_us / 1e6)
        for finding in verdict.findings:
            metrics.FINDINGS.labels("piece", finding.scanner, finding.action).inc()
        if reason := verdict.errors.get("stream"):
            log.info("stream cut", request_id=chunk.request_id, reason=reason)


async def _send(emits: Sequence[tuple[Emit, Headers]], producer: Producer) -> None:
    """Send all of them and wait until the broker has them.

    Raises:
        Transient: it has not; the pieces are taken again with the state of before.
    """
    try:
        for ack in [await producer.send(emit.topic, emit.key, emit.record, headers) for emit, headers in emits]:
            await ack
    except (Invalid, ValueError):
        raise
    except (OSError, RuntimeError) as error:
        raise Transient(f"Kafka did not take the pieces: {error}") from error
