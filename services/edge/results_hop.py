"""The hop that brings results, pieces and conflicts from the log to where whoever waits for them looks."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.bus import Event, Hop, Message, Outcome
from penstock.contracts.records import LlmResult, RequestConflict, ResultChunk

from services.edge.identities import may_come_again, sent_event_id
from services.edge.redis_store import EdgeStore, KeptResult
from services.edge.waiters import RequestKey

__all__ = ["results_hop"]


def results_hop(store: EdgeStore) -> Hop:
    """Return the hop llm-results, result-chunks, request-conflicts -> Redis; it emits nothing."""

    async def handle(events: Sequence[Event[LlmResult | ResultChunk | RequestConflict]]) -> Sequence[Outcome]:
        results: list[KeptResult] = []
        pieces: list[tuple[RequestKey, Message]] = []
        for event in events:
            record = event.record
            key = (record.tenant_id, record.request_id)
            if isinstance(record, LlmResult):
                results.append(KeptResult(key, record.event_id, event.message, may_come_again(record)))
            elif isinstance(record, ResultChunk):
                pieces.append((key, event.message))
            else:
                await _turned_away(store, record)
        await store.keep(results, pieces)
        return [()] * len(events)

    return Hop(
        service="edge",
        group="edge",
        topics=("llm-results", "result-chunks", "request-conflicts"),
        handler=handle,
    )


async def _turned_away(store: EdgeStore, conflict: RequestConflict) -> None:
    """End the try that intake turned away, where it came through the edge."""
    key = (conflict.tenant_id, conflict.request_id)
    found = await store.find(key)
    if found is not None and conflict.causation_id == sent_event_id(key, found.number):
        await store.conflicted(key, found.number, conflict.reason)
