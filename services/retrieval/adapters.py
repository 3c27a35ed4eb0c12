"""What retrieval stands on: the store of chunks, behind one protocol, and the choice between its two forms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.embedding import Embedder
from penstock.embedding.protocol import Vectors
from qdrant_client import models

from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.sparse import SparseVector

__all__ = [
    "DENSE", "SPARSE", "PassageStore", "Point", "Query", "StoreMisfit", "StoreUnavailable", "collection_name",
    "point_struct", "sparse_config", "stored_payload", "vectors_config",
]  # fmt: skip

DENSE, SPARSE = "dense", "sparse"


class StoreUnavailable(Exception):
    """The store is away for now; the same call may succeed later."""


class StoreMisfit(Exception):
    """The store is there and cannot be used as it is; the message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the chunks of one team's collection."""

    team: str
    collection: str
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
        """Return for each query at least the ``limit`` best hits by either vector, of its team and collection only.

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


def collection_name(embedder: Embedder) -> str:
    """Return the Qdrant collection of an embedder: vectors of different models never meet in one."""
    return f"penstock-{re.sub(r'[^a-z0-9]+', '-', embedder.name.lower()).strip('-')}-{embedder.dimension}"


def vectors_config(dimension: int) -> dict[str, models.VectorParams]:
    """Return the dense part of the collection. Vectors have unit length, so a dot product is the cosine."""
    return {DENSE: models.VectorParams(size=dimension, distance=models.Distance.DOT)}


def sparse_config() -> dict[str, models.SparseVectorParams]:
    """Return the sparse part of the collection; Qdrant applies the inverse document frequency at the query."""
    return {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)}


def stored_payload(chunk: ChunkRecord) -> dict[str, Any]:
    """Return what is stored beside the vectors."""
    return {**chunk.payload(), "digest": chunk.digest}


def point_struct(point: Point) -> models.PointStruct:
    """Return ``point`` as Qdrant takes it."""
    sparse = models.SparseVector(indices=list(point.sparse.indices), values=list(point.sparse.values))
    return models.PointStruct(
        id=point.chunk.id,
        vector={DENSE: point.dense.tolist(), SPARSE: sparse},
        payload=stored_payload(point.chunk),
    )
