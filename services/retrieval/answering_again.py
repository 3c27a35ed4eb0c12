"""The shell of the semantic cache: looks answers up for requests on their way, and keeps the answers that come.

It is an optimisation: what goes wrong with it harms no request. While its store is away models are called, and for a few
seconds nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from penstock.bus import Event, Hop, Outcome
from penstock.clock import Clock
from penstock.config.entry import Entry as ConfigEntry
from penstock.config.kinds import Cache, Route
from penstock.contracts.records import Completion, LlmResult, ScreenedRequest
from penstock.embedding import Embedder, EmbedderError, pack_vector, unpack_vector
from penstock.telemetry import get_logger, metrics

from services.retrieval.adapters import StoreMisfit, StoreUnavailable
from services.retrieval.answer_store import AnswerStore, Erasure, Lookup
from services.retrieval.core import Grounding, question_of
from services.retrieval.semantic_cache import (
    SHADOW_FLOOR,
    Asked,
    Candidate,
    Earlier,
    agree,
    asked_of,
    cached_answer,
    given_of,
    is_as_given,
    may_take_part,
    released_digest,
    same_question,
)
from services.retrieval.serving import Engine, Serving

__all__ = ["SemanticCache", "keep_hop"]

log = get_logger(__name__)
_AWAY = (StoreUnavailable, StoreMisfit, EmbedderError)
_CANDIDATES = 8
_LEFT_ALONE_S = 5.0
_SWEEP_S = 60.0
_GATHER_MS = 100
"""Nobody waits for an answer to be kept."""


class Configuration(Protocol):
    """The part of the config plane that the cache reads."""

    def route(self, name: str) -> Route | None: ...
    def entries(self, kind: str) -> Mapping[str, ConfigEntry]: ...


class SemanticCache:
    """Answers by the meaning of questions, for the routes that ask for it.

    Args:
        serving: whose vectors are compared; those of a model that is to follow are not kept beforehand.
        opened: opens the store of an embedder's vectors; called once for each.
    """

    def __init__(
        self,
        config: Configuration,
        serving: Serving,
        opened: Callable[[Embedder], Awaitable[AnswerStore]],
        clock: Clock,
    ) -> None:
        self._config = config
        self._serving = serving
        self._opened = opened
        self._clock = clock
        self._stores: dict[str, AnswerStore] = {}
        self._opening = asyncio.Lock()
        self._left_alone_until = 0.0
        self._swept_at = clock.monotonic()

    @property
    def is_wanted(self) -> bool:
        """Whether any route uses it."""
        routes = self._config.entries("routes").values()
        return any(isinstance(route, Route) and route.cache.semantic != "off" for route in routes)

    async def answered(self, requests: Sequence[ScreenedRequest], groundings: Sequence[Grounding]) -> list[Grounding]:
        """Return ``groundings``, those with an answer that was given to an earlier question that means the same with it.

        Questions of routes that attach no passages are embedded for it. What finds no answer is noted, so that its own is
        kept when it comes.
        """
        found = list(groundings)
        routes = {n: route for n, request in enumerate(requests) if (route := self._route_of(request)) is not None}
        if not routes or self._is_left_alone():
            return found
        started = self._clock.monotonic()
        engine = self._serving.current.engine
        try:
            without = [n for n in routes if found[n].state == "off"]
            for n, grounding in (await self._embedded(requests, found, without, engine)).items():
                found[n] = grounding
            now_s = self._clock.now().timestamp()
            lookups: dict[int, Lookup] = {}
            for n, route in routes.items():
                vector = found[n].embedding
                asked = asked_of(requests[n], route, found[n], now_s)
                if vector is not None and asked is not None and found[n].embedder == engine.embedder.name:
                    lookups[n] = Lookup(asked, unpack_vector(vector))
            if not lookups:
                return found
            store = await self._store(engine)
            near = await store.near(list(lookups.values()), _CANDIDATES, now_s)
            awaited = []
            for (n, lookup), candidates in zip(lookups.items(), near, strict=True):
                answer, to_await = _decided(lookup.asked, candidates, routes[n].cache, now_s)
                if answer is not None:
                    found[n] = replace(found[n], cached=cached_answer(answer, found[n].passages))
                if to_await is not None:
                    awaited.append(Lookup(to_await, lookup.vector))
            await store.put(awaited)
            metrics.CACHE_SECONDS.labels("semantic").observe(self._clock.monotonic() - started)
        except _AWAY as error:
            metrics.CACHE_LOOKUPS.labels("semantic", "unavailable").inc(len(routes))
            self._leave_alone(error)
        return found

    async def keep(self, record: Completion | LlmResult) -> None:
        """Take in what became of a request: the answer as the model gave it, or what was released of it."""
        route = self._route(record.context.route)
        if route is None or self._is_left_alone():
            return
        try:
            engine = self._serving.current.engine
            store = await self._store(engine)
            entry = await store.get(record.tenant_id, record.request_id)
            if entry is None:
                return
            if isinstance(record, Completion):
                given = given_of(record)
                if given is not None:
                    await store.answer(entry, given)
                return
            if is_as_given(record) and entry.asked.earlier is not None:
                await self._compare(entry.asked, entry.asked.earlier, record.content, engine, store)
            if is_as_given(record) and entry.asked.keep:
                ends = record.occurred_at.timestamp() + route.cache.ttl_s
                await store.release(entry, released_digest(record.content), ends)
            else:
                await store.erase(Erasure(record.tenant_id, request_id=record.request_id))
        except _AWAY as error:
            self._leave_alone(error)

    async def erase(self, erasure: Erasure) -> None:
        """Remove answers: of a person who asks for it, of a request, or those that stand on a document that has changed.

        Raises:
            StoreUnavailable: the store is away; nothing may be said to be gone.
        """
        await (await self._store(self._serving.current.engine)).erase(erasure)

    async def forget_document(self, team: str, document_id: str) -> None:
        """Remove the answers that stand on a document that has changed or is gone, as far as the store can be reached: a
        chunk that has changed has another id, so that what is left quotes what no request has attached any more.
        """
        if not self.is_wanted:
            return
        try:
            await self.erase(Erasure(team, document_id=document_id))
        except _AWAY as error:
            self._leave_alone(error)

    async def sweep(self) -> None:
        """Remove what has ended, at most once a minute."""
        now = self._clock.monotonic()
        if now - self._swept_at < _SWEEP_S or self._is_left_alone():
            return
        self._swept_at = now
        try:
            store = await self._store(self._serving.current.engine)
            await store.sweep(self._clock.now().timestamp())
        except _AWAY as error:
            self._leave_alone(error)

    async def _embedded(
        self,
        requests: Sequence[ScreenedRequest],
        groundings: Sequence[Grounding],
        which: Sequence[int],
        engine: Engine,
    ) -> dict[int, Grounding]:
        """Return the groundings of those ``which`` are of routes without passages, with the vectors of their questions."""
        questions = {n: question_of(requests[n].messages) for n in which}
        if not questions:
            return {}
        taken, embedded = await engine.embed_able(list(questions.values()))
        able = [list(questions)[row] for row in taken]
        return {
            n: replace(
                groundings[n],
                embedding=pack_vector(vector),
                embedder=engine.embedder.name,
                embedding_tokens=tokens,
            )
            for n, vector, tokens in zip(able, embedded.vectors, embedded.tokens, strict=True)
        }

    async def _compare(self, asked: Asked, earlier: Earlier, content: str, engine: Engine, store: AnswerStore) -> None:
        """Count whether the earlier answer, if it is still kept, would have been a wrong one. The model's own is taken for
        right."""
        kept = await store.get(asked.team, earlier.request_id)
        if kept is None or kept.given is None:
            return
        vectors = (await engine.embed([kept.given.content, content])).vectors
        same = agree(kept.given.content, content, float(vectors[0] @ vectors[1]))
        verdict = "same" if same else "different"
        metrics.SEMANTIC_CACHE_SIMILARITY.labels(asked.route, verdict).observe(earlier.similarity)
        if earlier.hit and not same:
            metrics.SEMANTIC_CACHE_FALSE_HITS.labels(asked.route, "shadow").inc()
            log.info(
                "an earlier answer would have been another one",
                route=asked.route,
                request_id=asked.request_id,
                earlier_request_id=earlier.request_id,
                similarity=round(earlier.similarity, 4),
            )

    def _route_of(self, request: ScreenedRequest) -> Route | None:
        # The route first: few have a cache, and to read a question takes longer.
        route = self._route(request.context.route)
        return route if route is not None and may_take_part(request) else None

    def _route(self, name: str) -> Route | None:
        route = self._config.route(name)
        return route if route is not None and route.cache.semantic != "off" else None

    async def _store(self, engine: Engine) -> AnswerStore:
        name = engine.embedder.name
        async with self._opening:  # by the first of the hops: two would not know what the other holds in memory
            if name not in self._stores:
                self._stores[name] = await self._opened(engine.embedder)
            return self._stores[name]

    def _is_left_alone(self) -> bool:
        return self._clock.monotonic() < self._left_alone_until

    def _leave_alone(self, error: Exception) -> None:
        log.warning("answers cannot be looked up or kept, models are called", reason=str(error))
        self._left_alone_until = self._clock.monotonic() + _LEFT_ALONE_S


def keep_hop(cache: SemanticCache, max_batch: int = 64) -> Hop:
    """Return the hop that keeps answers: it reads completions and llm-results while a route wants it, and writes nothing."""

    async def handle(events: Sequence[Event[Completion | LlmResult]]) -> Sequence[Outcome]:
        for event in events:
            await cache.keep(event.record)
        await cache.sweep()
        return [[] for _ in events]

    return Hop(
        service="retrieval",
        group="retrieval-cache",
        topics=("completions", "llm-results"),
        handler=handle,
        max_batch=max_batch,
        wanted=lambda: cache.is_wanted,
        gather_ms=_GATHER_MS,
    )


def _decided(
    asked: Asked, candidates: Sequence[Candidate], rules: Cache, now_s: float
) -> tuple[Candidate | None, Asked | None]:
    """Return what ``asked`` is answered with, and as what its own answer is awaited; counts what it comes to."""
    is_on = rules.semantic == "on"
    floor = rules.similarity if is_on else min(rules.similarity, SHADOW_FLOOR)
    same = same_question(asked, candidates, floor, now_s, _count_difference)
    hit = same is not None and same.cosine >= rules.similarity
    metrics.SEMANTIC_CACHE_LOOKUPS.labels(asked.route, rules.semantic).inc()
    metrics.CACHE_LOOKUPS.labels("semantic", "hit" if hit else "miss").inc()
    if hit:
        metrics.SEMANTIC_CACHE_HITS.labels(asked.route, rules.semantic).inc()
    if same is None or same.entry.given is None:
        return None, asked
    if is_on:
        return same, None
    earlier = Earlier(same.entry.asked.request_id, same.cosine, hit)
    return None, replace(asked, earlier=earlier, keep=not hit)


def _count_difference(reason: str) -> None:
    metrics.SEMANTIC_CACHE_DIFFERENCES.labels(reason).inc()
