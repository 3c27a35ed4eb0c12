"""Requests for the vectors of texts: embedded where every text of Penstock is, and not searched with.

They have a consumer group of their own, since one may be seconds of work: no question waits behind it in its partition. They
are embedded a slice at a time, those of several requests in turn, so that they take one of the embedder's threads and leave
the others to questions and documents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from penstock.bus import Emit, Event, Hop, Outcome, by_priority, by_team
from penstock.clock import Clock
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import GroundedRequest, Purpose, ScreenedRequest, Status
from penstock.embedding import Embedded, EmbedderError, EmbedderUnavailable, pack_vector
from penstock.telemetry import get_logger, metrics

from services.retrieval.core import expired, refusal
from services.retrieval.serving import Engine, Serving

__all__ = ["LARGEST_VECTORS", "embedding_hop", "is_for_vectors", "slices_of"]

log = get_logger(__name__)

LARGEST_VECTORS = 6 * 1024 * 1024
"""Bytes of all vectors of a request: an event, which has the texts beside them, must stay below the log's 8 MiB."""
_SLICE_TEXTS, _SLICE_CHARACTERS = 32, 8_000
"""Texts, and characters of them, that are embedded in one go: about a fifth of a second of work."""
_AT_ONCE = 4
_WAITING = 256
_TRIES_AFTER_S = (0.2, 1.0)
"""Waits before an embedder that is away is asked again; a request that then has no vectors may be sent again."""


def is_for_vectors(request: ScreenedRequest) -> bool:
    """Return whether the vectors of its messages are wanted, rather than an answer."""
    return request.context.purpose == Purpose.EMBED


def embedding_hop(serving: Serving, clock: Clock) -> Hop:
    """Return the hop requests-screened -> requests-grounded, refusals of the requests for vectors; it passes over others."""
    turn = asyncio.Lock()

    async def handle(events: Sequence[Event[ScreenedRequest]]) -> Sequence[Outcome]:
        return [await embed(event.record) for event in events]

    async def embed(request: ScreenedRequest) -> list[Emit]:
        engine = serving.current.engine  # to the end of the request: its vectors are of one model
        texts = [message.content for message in request.messages]
        size = 4 * engine.embedder.dimension * len(texts)
        if size > LARGEST_VECTORS:
            reason = (
                f"the {len(texts):,} vectors are {size:,} bytes, more than the {LARGEST_VECTORS:,} that one event may hold; "
                "send the texts in several requests"
            )
            return end(request, Status.REJECTED, "too_many_inputs", reason)
        vectors: list[bytes] = []
        tokens = 0
        for texts_of_slice in slices_of(texts):
            if expired(request, clock.now()):
                if not vectors:
                    reason = "the deadline passed before anything was embedded"
                    return end(request, Status.EXPIRED, "expired", reason)
                break
            try:
                embedded = await tried(engine, texts_of_slice)
            except EmbedderError as error:
                log.warning("texts not embedded", request_id=request.request_id, reason=str(error))
                if not vectors:
                    away = isinstance(error, EmbedderUnavailable)
                    code = "model_unavailable" if away else "model_error"
                    return end(request, Status.FAILED, code, f"the embedder gives no vectors: {error}")
                break
            vectors += [pack_vector(vector) for vector in embedded.vectors]
            tokens += sum(embedded.tokens)
        # With fewer vectors than texts it goes on all the same: what was embedded is paid for, and inference ends it.
        metrics.GROUNDED.labels("off").inc()
        return [_embedded(request, vectors, engine.embedder.name, tokens, clock)]

    async def tried(engine: Engine, texts: Sequence[str]) -> Embedded:
        for wait_s in _TRIES_AFTER_S:
            try:
                async with turn:
                    return await engine.embed(texts)
            except EmbedderUnavailable as error:
                log.info("the embedder is asked again", reason=str(error))
                await clock.sleep(wait_s)
        async with turn:
            return await engine.embed(texts)

    def end(request: ScreenedRequest, status: Status, code: str, reason: str) -> list[Emit]:
        metrics.REFUSED.labels("retrieval", code).inc()
        return refusal(request, status, code, reason, clock.now())

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        reason = "retrieval could not embed the texts; the request is among the dead letters of retrieval"
        return end(event.record, Status.FAILED, "internal_error", reason)

    return Hop(
        service="retrieval",
        group="retrieval-embed",
        topics=("requests-screened",),
        handler=handle,
        concurrency=_AT_ONCE,
        waiting=_WAITING,
        urgency=by_priority,
        flow=by_team,
        failed=failed,
        concerns=lambda event: is_for_vectors(event.record),
    )


def slices_of(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ``texts`` in order, in slices of about the same work; a long text is one of its own."""
    begin = characters = 0
    for index, text in enumerate(texts):
        full = index - begin == _SLICE_TEXTS or characters + len(text) > _SLICE_CHARACTERS
        if full and index > begin:
            yield texts[begin:index]
            begin, characters = index, 0
        characters += len(text)
    if begin < len(texts):
        yield texts[begin:]


def _embedded(request: ScreenedRequest, vectors: list[bytes], embedder: str, tokens: int, clock: Clock) -> Emit:
    record = GroundedRequest(
        **derive(request, "retrieval.grounded", 0, clock.now()),
        context=request.context,
        messages=request.messages,
        sampling=request.sampling,
        embedder=embedder,
        embedding_tokens=tokens,
        embeddings=vectors,
    )
    return Emit("requests-grounded", request_key(request.context, request.request_id), record)
