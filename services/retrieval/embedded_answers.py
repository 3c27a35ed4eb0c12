"""Answers of the semantic cache beside the embedded store: in memory, and in its folder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from penstock.embedding.protocol import Vectors
from qdrant_client import models

from services.retrieval.answer_store import (
    Erasure,
    Lookup,
    ended,
    entry_of,
    erased,
    of_answers,
    payload_of,
    vectors_of,
)
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.semantic_cache import Candidate, Entry, Given, entry_id

__all__ = ["MOST_KEPT", "EmbeddedAnswers"]

_PAGE = 512
MOST_KEPT = 10_000
"""Questions that are held, those whose answers are awaited among them: of more, the first to end go."""


class EmbeddedAnswers:
    """Answers in memory, those that are complete on disk, too, in the folder of the chunks. For one process.

    Args:
        folder: of the embedded store.
        collection: what the answers are kept under.
        entries: with their vectors, as the folder has them.
        family: what the names of the installation's collections of answers begin with.
        most: entries that are held at once.
    """

    def __init__(
        self,
        folder: EmbeddedFolder,
        collection: str,
        entries: Mapping[str, tuple[Entry, Vectors]],
        family: str,
        most: int,
    ) -> None:
        self.folder = folder
        self._family = family
        self._collection = collection
        self._most = most
        self._entries: dict[str, tuple[Entry, Vectors]] = {}
        # The answers that may be given, by team and scope: what a look-up goes through, kept up to date by each change.
        self._scopes: dict[tuple[str, str], _Rows] = {}
        for key, (entry, vector) in entries.items():
            self._set(key, entry, vector)

    @classmethod
    async def open(
        cls, folder: EmbeddedFolder, collection: str, dimension: int, family: str = "answers", most: int = MOST_KEPT
    ) -> EmbeddedAnswers:
        """Return the answers under ``collection``, which is made where it is missing."""

        def load() -> dict[str, tuple[Entry, Vectors]]:
            if not folder.client.collection_exists(collection):
                folder.client.create_collection(collection, vectors_of(dimension))
            found: dict[str, tuple[Entry, Vectors]] = {}
            offset: Any = None
            while True:
                records, offset = folder.client.scroll(
                    collection, limit=_PAGE, offset=offset, with_payload=True, with_vectors=True
                )
                for each in records:
                    if (entry := entry_of(each.payload)) is not None:
                        found[str(each.id)] = entry, np.asarray(each.vector, np.float32)
                if offset is None:
                    return found

        return cls(folder, collection, await folder.run(load), family, most)

    def __len__(self) -> int:
        return len(self._entries)

    async def near(self, lookups: Sequence[Lookup], limit: int, now_s: float) -> list[list[Candidate]]:
        return [self._near(lookup, limit, now_s) for lookup in lookups]

    def _near(self, lookup: Lookup, limit: int, now_s: float) -> list[Candidate]:
        rows = self._scopes.get((lookup.asked.team, lookup.asked.scope))
        if rows is None:
            return []
        cosines = rows.vectors @ lookup.vector
        best = np.argsort(-cosines, kind="stable")
        entries = ((self._entries[rows.keys[row]][0], float(cosines[row])) for row in best)
        alive = (Candidate(entry, cosine) for entry, cosine in entries if entry.asked.expires_at > now_s)
        return list(itertools.islice(alive, limit))

    async def put(self, lookups: Sequence[Lookup]) -> None:
        for lookup in lookups:
            key = entry_id(lookup.asked.team, lookup.asked.request_id)
            if key not in self._entries or not self._may_be_given(key):  # else it is read again
                self._set(key, Entry(lookup.asked), lookup.vector)
        await self._make_room()

    async def get(self, team: str, request_id: str) -> Entry | None:
        entry, _ = self._entries.get(entry_id(team, request_id), (None, None))
        return entry

    async def answer(self, entry: Entry, given: Given) -> None:
        await self._amend(entry, given=given)

    async def release(self, entry: Entry, digest: str, expires_at: float) -> None:
        await self._amend(entry, released=digest, asked=replace(entry.asked, expires_at=expires_at))

    async def erase(self, erasure: Erasure) -> None:
        await self._remove([key for key, (entry, _) in self._entries.items() if erasure.concerns(entry.asked)])
        await self.folder.run(lambda: self._remove_from_others(erased(erasure)))

    async def sweep(self, now_s: float) -> None:
        await self._remove([key for key, (entry, _) in self._entries.items() if entry.asked.expires_at <= now_s])
        await self.folder.run(lambda: self._remove_from_others(ended(now_s)))

    def _remove_from_others(self, which: models.Filter) -> None:
        for name in of_answers(self.folder.client.get_collections(), self._family):
            if name != self._collection:
                self.folder.client.delete(name, models.FilterSelector(filter=which))

    async def _amend(self, entry: Entry, **changes: Any) -> None:
        key = entry_id(entry.asked.team, entry.asked.request_id)
        if key not in self._entries:
            return
        before, vector = self._entries[key]
        entry = replace(before, **changes)
        self._set(key, entry, vector)
        if self._may_be_given(key):
            point = models.PointStruct(id=key, vector=vector.tolist(), payload=payload_of(entry))
            await self.folder.run(lambda: self.folder.client.upsert(self._collection, [point]))

    async def _make_room(self) -> None:
        if len(self._entries) > self._most:
            # A tenth at once, so that the next ones do not sort all of them again.
            by_end = sorted(self._entries, key=lambda key: self._entries[key][0].asked.expires_at)
            await self._remove(by_end[: len(self._entries) - self._most + self._most // 10])

    def _set(self, key: str, entry: Entry, vector: Vectors) -> None:
        self._leave_scope(key)
        self._entries[key] = entry, vector
        if entry.is_complete:
            self._scopes.setdefault(_scope(entry), _Rows(len(vector))).add(key, vector)

    def _may_be_given(self, key: str) -> bool:
        rows = self._scopes.get(_scope(self._entries[key][0]))
        return rows is not None and key in rows

    def _leave_scope(self, key: str) -> None:
        if key in self._entries and self._may_be_given(key):
            scope = _scope(self._entries[key][0])
            self._scopes[scope].remove(key)
            if not self._scopes[scope].keys:
                del self._scopes[scope]

    async def _remove(self, keys: Sequence[str]) -> None:
        stored = [key for key in keys if self._may_be_given(key)]  # the others are in memory alone
        for key in keys:
            self._leave_scope(key)
            del self._entries[key]
        if stored:
            selector = models.PointIdsList(points=list(stored))
            await self.folder.run(lambda: self.folder.client.delete(self._collection, selector))


def _scope(entry: Entry) -> tuple[str, str]:
    return entry.asked.team, entry.asked.scope


class _Rows:
    """Vectors by key, as the rows of one array. A change takes the time of one row, however many there are."""

    def __init__(self, dimension: int) -> None:
        self.keys: list[str] = []
        self._places: dict[str, int] = {}
        self._rows: NDArray[np.float32] = np.empty((16, dimension), np.float32)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    @property
    def vectors(self) -> NDArray[np.float32]:
        return self._rows[: len(self.keys)]

    def add(self, key: str, vector: Vectors) -> None:
        place = len(self.keys)
        if place == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[place] = vector
        self._places[key] = place
        self.keys.append(key)

    def remove(self, key: str) -> None:
        """Remove a row; the last one takes its place."""
        place, last = self._places.pop(key), self.keys.pop()
        if last != key:
            self._rows[place] = self._rows[len(self.keys)]
            self._places[last] = place
            self.keys[place] = last
