"""What retrieval stands on: the store of chunks, and what holds several of them, each behind a protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.embedding import Embedder
from penstock.embedding.protocol import Vectors
from qdrant_client import models

from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.filters import Conditions
from services.retrieval.sparse import SparseVector

__all__ = [
    "DENSE", "SPARSE", "CollectionStore", "Collections", "PassageStore", "Point", "Query", "StoreMisfit",
    "StoreUnavailable", "alias_name", "checked_drop", "collection_name", "point_struct", "sparse_config",
    "stored_digests", "stored_payload", "vectors_config",
]  # fmt: skip

DENSE, SPARSE = "dense", "sparse"


class StoreUnavailable(Exception):
    """The store is away for now; the same call may succeed later."""


class StoreMisfit(Exception):
    """The store is there and cannot be used as it is; the message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the chunks that ``conditions`` allow."""

    conditions: Conditions
    dense: Vectors
    sparse: SparseVector


@dataclass(frozen=True, slots=True)
class Point:
    """A chunk with its vectors."""

    chunk: ChunkRecord
    dense: Vectors
    sparse: SparseVector


class PassageStore(Protocol):
    """Holds chunks and finds them. Writes are upserts by id, so that repeating one changes nothing."""

    async def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        """Return for each query at least the ``limit`` best hits by either vector, of those its conditions allow.

        Raises:
            StoreUnavailable: away for now.
        """
        ...

    async def digests(self, team: str, document_id: str) -> Mapping[str, str]:
        """Return the digest of every chunk stored of a document, by id."""
        ...

    async def write(self, put: Sequence[Point], rewrite: Sequence[ChunkRecord], remove: Sequence[str]) -> None:
        """Add or replace points, then replace stored fields, then remove points: nothing is missing in between."""
        ...

    async def close(self) -> None: ...


class CollectionStore(PassageStore, Protocol):
    """A store whose content can be gone through."""

    async def listed(self, start: str | None, limit: int) -> tuple[Mapping[str, str], str | None]:
        """Return the digests of up to ``limit`` chunks by id, in the order of ids, and the id at which to go on.

        Args:
            start: the first id that may be returned; None begins.
        """
        ...

    async def digests_of(self, ids: Sequence[str]) -> Mapping[str, str]:
        """Return the digests of those of the chunks ``ids`` that are there."""
        ...

    async def chunks(self, ids: Sequence[str]) -> Sequence[ChunkRecord]:
        """Return those of the chunks ``ids`` that are there."""
        ...

    async def count(self) -> int:
        """Return how many chunks there are."""
        ...


class Collections(Protocol):
    """The Qdrant that holds a collection for each embedder, and an alias on the one that answers."""

    async def store(self, name: str, dimension: int) -> CollectionStore:
        """Return the store on the collection ``name``, which is made where it is missing.

        Raises:
            StoreUnavailable: away for now.
            StoreMisfit: it cannot be used as it is.
        """
        ...

    async def sizes(self) -> Mapping[str, int]:
        """Return how many chunks each collection of this installation holds, by name."""
        ...

    async def answering(self) -> str | None:
        """Return the collection that the alias is on; None where there is no alias yet."""
        ...

    async def let_answer(self, name: str) -> None:
        """Put the alias on the collection ``name``, in one step."""
        ...

    async def drop(self, name: str) -> None:
        """Remove the collection ``name`` and all it holds.

        Raises:
            StoreMisfit: the alias is on it, or there is none of this name in this installation.
        """
        ...

    async def close(self) -> None: ...


def collection_name(embedder: Embedder, namespace: str = "penstock") -> str:
    """Return the Qdrant collection of an embedder: vectors of different models never meet in one.

    Args:
        namespace: what the names of an installation's collections begin with.
    """
    return f"{namespace}-{re.sub(r'[^a-z0-9]+', '-', embedder.name.lower()).strip('-')}-{embedder.dimension}"


def alias_name(namespace: str = "penstock") -> str:
    """Return the alias of the collection that answers."""
    return f"{namespace}-chunks"


def checked_drop(name: str, sizes: Mapping[str, int], answering: str | None) -> None:
    """Raise StoreMisfit where the collection ``name`` must not or cannot be dropped."""
    if name == answering:
        raise StoreMisfit(f"{name} answers the requests: switch to another collection before it is dropped")
    if name not in sizes:
        there = ", ".join(sorted(sizes)) or "none"
        raise StoreMisfit(f"there is no collection {name}; there are: {there}")


def vectors_config(dimension: int) -> dict[str, models.VectorParams]:
    """Return the dense part of the collection. Vectors have unit length, so a dot product is the cosine."""
    return {DENSE: models.VectorParams(size=dimension, distance=models.Distance.DOT)}


def sparse_config() -> dict[str, models.SparseVectorParams]:
    """Return the sparse part of the collection; Qdrant applies the inverse document frequency at the query."""
    return {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)}


def stored_payload(chunk: ChunkRecord) -> dict[str, Any]:
    """Return what is stored beside the vectors."""
    return {**chunk.payload(), "digest": chunk.digest}


def stored_digests(records: Sequence[models.Record]) -> dict[str, str]:
    """Return the digest of each record, by id."""
    return {str(record.id): str((record.payload or {}).get("digest", "")) for record in records}


def point_struct(point: Point) -> models.PointStruct:
    """Return ``point`` as Qdrant takes it."""
    sparse = models.SparseVector(indices=list(point.sparse.indices), values=list(point.sparse.values))
    return models.PointStruct(
        id=point.chunk.id,
        vector={DENSE: point.dense.tolist(), SPARSE: sparse},
        payload=stored_payload(point.chunk),
    )
