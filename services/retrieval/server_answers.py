"""Answers of the semantic cache on a Qdrant server, shared by every replica of retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from qdrant_client import AsyncQdrantClient, models

from services.retrieval.adapters import StoreUnavailable
from services.retrieval.answer_store import (
    Erasure,
    Lookup,
    ended,
    entry_of,
    erased,
    of_answers,
    payload_of,
    scope_filter,
    vectors_of,
)
from services.retrieval.qdrant_server import answered_by_server
from services.retrieval.semantic_cache import Candidate, Entry, Given, entry_id

__all__ = ["ServerAnswers"]


class ServerAnswers:
    """Answers in a collection of a Qdrant server, shared by every replica of retrieval.

    Args:
        family: what the names of the installation's collections of answers begin with.
    """

    def __init__(self, client: AsyncQdrantClient, collection: str, family: str = "answers") -> None:
        self.client = client
        self._family = family
        self.collection = collection

    @classmethod
    async def open(
        cls, client: AsyncQdrantClient, collection: str, dimension: int, family: str = "answers"
    ) -> ServerAnswers:
        """Return the answers under ``collection``, which is made where it is missing, with the indexes of its conditions."""
        if not await answered_by_server(client.collection_exists(collection)):
            try:
                await answered_by_server(client.create_collection(collection, vectors_of(dimension)))
            except StoreUnavailable:
                # Another replica may have been faster, which HTTP and gRPC tell in ways of their own.
                if not await answered_by_server(client.collection_exists(collection)):
                    raise
        kind = models.KeywordIndexType.KEYWORD
        for key in ("team", "scope", "request_id", "user_id", "documents"):
            index = models.KeywordIndexParams(type=kind, is_tenant=key == "team")
            await answered_by_server(client.create_payload_index(collection, f"asked.{key}", index))
        ends = models.PayloadSchemaType.FLOAT
        await answered_by_server(client.create_payload_index(collection, "asked.expires_at", ends))
        return cls(client, collection, family)

    async def near(self, lookups: Sequence[Lookup], limit: int, now_s: float) -> list[list[Candidate]]:
        if not lookups:
            return []
        queries = [
            models.QueryRequest(
                query=lookup.vector.tolist(),
                filter=scope_filter(lookup.asked, now_s),
                limit=limit,
                with_payload=True,
            )
            for lookup in lookups
        ]
        answers = await answered_by_server(self.client.query_batch_points(self.collection, queries))
        return [
            [Candidate(entry, point.score) for point in answer.points if (entry := entry_of(point.payload)) is not None]
            for answer in answers
        ]

    async def put(self, lookups: Sequence[Lookup]) -> None:
        wanted = {entry_id(each.asked.team, each.asked.request_id): each for each in lookups}
        if not wanted:
            return
        there = await answered_by_server(self.client.retrieve(self.collection, list(wanted)))
        for record in there:  # read again
            if (entry := entry_of(record.payload)) is not None and entry.is_complete:
                del wanted[str(record.id)]
        points = [
            models.PointStruct(id=key, vector=each.vector.tolist(), payload=payload_of(Entry(each.asked)))
            for key, each in wanted.items()
        ]
        if points:
            await answered_by_server(self.client.upsert(self.collection, points, wait=True))

    async def get(self, team: str, request_id: str) -> Entry | None:
        found = await answered_by_server(self.client.retrieve(self.collection, [entry_id(team, request_id)]))
        return entry_of(found[0].payload) if found else None

    async def answer(self, entry: Entry, given: Given) -> None:
        await self._amend(entry, {"given": msgspec.to_builtins(given)})

    async def release(self, entry: Entry, digest: str, expires_at: float) -> None:
        asked = msgspec.to_builtins(replace(entry.asked, expires_at=expires_at))
        await self._amend(entry, {"released": digest, "asked": asked})

    async def erase(self, erasure: Erasure) -> None:
        await self._delete(erased(erasure))

    async def sweep(self, now_s: float) -> None:
        await self._delete(ended(now_s))

    async def _amend(self, entry: Entry, payload: dict[str, Any]) -> None:
        # By a filter: a point that is gone by now is no error, and is not made anew.
        own: Any = models.HasIdCondition(has_id=[entry_id(entry.asked.team, entry.asked.request_id)])
        selected = models.Filter(must=[own])
        await answered_by_server(self.client.set_payload(self.collection, payload, points=selected, wait=True))

    async def _delete(self, which: models.Filter) -> None:
        for name in of_answers(await answered_by_server(self.client.get_collections()), self._family):
            selector = models.FilterSelector(filter=which)
            await answered_by_server(self.client.delete(name, selector, wait=True))
