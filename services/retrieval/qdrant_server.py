"""The store on a Qdrant server, shared by every replica of retrieval."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar, cast

import httpx
import numpy as np
from grpc import StatusCode  # type: ignore[import-untyped]
from grpc.aio import AioRpcError  # type: ignore[import-untyped]
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from services.retrieval.adapters import (
    DENSE,
    SPARSE,
    Point,
    Query,
    StoreMisfit,
    StoreUnavailable,
    point_struct,
    sparse_config,
    stored_payload,
    vectors_config,
)
from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.sparse import MAX_TERM_WEIGHT

__all__ = ["QdrantStore"]

_T = TypeVar("_T")
_PAGE = 256


class QdrantStore:
    """A :class:`PassageStore` on a Qdrant server. The team is a condition of every query, and of its index.

    Args:
        client: connected on first use; closed with the store.
    """

    def __init__(self, client: AsyncQdrantClient, collection: str, dimension: int) -> None:
        self._client = client
        self._collection = collection
        self._dimension = dimension

    async def prepare(self) -> None:
        """Create the collection and its payload indexes where they are missing.

        Raises:
            StoreUnavailable: the server does not answer.
            StoreMisfit: the collection holds vectors of another length.
        """
        if not await _call(self._client.collection_exists(self._collection)):
            try:
                await self._client.create_collection(self._collection, vectors_config(self._dimension), sparse_config())
            except UnexpectedResponse as error:
                if error.status_code != 409:  # another replica was faster
                    raise StoreUnavailable(f"Qdrant cannot create {self._collection}: {error}") from error
        info = await _call(self._client.get_collection(self._collection))
        vectors = cast("dict[str, models.VectorParams]", info.config.params.vectors)
        if DENSE not in vectors or vectors[DENSE].size != self._dimension:
            raise StoreMisfit(
                f"collection {self._collection} in Qdrant is not of {self._dimension} dimensions: it was not made by "
                "this embedder; remove it, or set EMBEDDING_MODEL and EMBEDDING_DIMENSION to what it holds"
            )
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await _call(self._client.create_payload_index(self._collection, "team", tenant))
        for field in ("collection", "document_id"):
            await _call(self._client.create_payload_index(self._collection, field, models.PayloadSchemaType.KEYWORD))

    async def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        requests = [request for query in queries for request in _requests(query, limit)]
        if not requests:
            return []
        count = await _call(self._client.count(self._collection, exact=False))
        answers = await _call(self._client.query_batch_points(self._collection, requests))
        return [
            _hits(query, answers[2 * n].points, answers[2 * n + 1].points, count.count)
            for n, query in enumerate(queries)
        ]

    async def digests(self, team: str, document_id: str) -> Mapping[str, str]:
        condition = models.Filter(must=[_is("team", team), _is("document_id", document_id)])
        found: dict[str, str] = {}
        offset: Any = None
        while True:
            records, offset = await _call(
                self._client.scroll(
                    self._collection, condition, limit=_PAGE, offset=offset, with_payload=["digest"], with_vectors=False
                )
            )
            found.update({str(record.id): str((record.payload or {}).get("digest", "")) for record in records})
            if offset is None:
                return found

    async def write(self, put: Sequence[Point], rewrite: Sequence[ChunkRecord], remove: Sequence[str]) -> None:
        for start in range(0, len(put), _PAGE):
            points = [point_struct(point) for point in put[start : start + _PAGE]]
            await _call(self._client.upsert(self._collection, points, wait=True))
        for chunk in rewrite:
            payload = stored_payload(chunk)
            await _call(self._client.overwrite_payload(self._collection, payload, points=[chunk.id], wait=True))
        if remove:
            selector = models.PointIdsList(points=list(remove))
            await _call(self._client.delete(self._collection, selector, wait=True))

    async def close(self) -> None:
        await self._client.close()


def _is(field: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))


def _requests(query: Query, limit: int) -> tuple[models.QueryRequest, models.QueryRequest]:
    """Return the dense and the sparse search; each gives the vectors that the other's score is computed from."""
    condition = models.Filter(must=[_is("team", query.team), _is("collection", query.collection)])
    words = models.SparseVector(indices=list(query.sparse.indices), values=list(query.sparse.values))
    return (
        models.QueryRequest(
            query=query.dense.tolist(),
            using=DENSE,
            filter=condition,
            limit=limit,
            with_payload=True,
            with_vector=[SPARSE],
        ),
        models.QueryRequest(
            query=words, using=SPARSE, filter=condition, limit=limit, with_payload=True, with_vector=[DENSE, SPARSE]
        ),
    )


def _hits(
    query: Query, dense: Sequence[models.ScoredPoint], sparse: Sequence[models.ScoredPoint], stored: int
) -> list[Hit]:
    """Return the union of both searches, every hit with both scores."""
    column = {term: n for n, term in enumerate(query.sparse.indices)}
    found = {str(point.id): point for point in (*dense, *sparse)}
    cosines = {str(point.id): point.score for point in dense}
    for point in sparse:
        vector = cast("dict[str, Any]", point.vector)[DENSE]
        cosines.setdefault(str(point.id), float(np.asarray(vector, np.float32) @ query.dense))
    idf = _inverse_document_frequencies(column, sparse, stored)
    bound = float(idf.sum()) * MAX_TERM_WEIGHT or 1.0
    return [
        Hit(
            ChunkRecord.from_payload(point_id, point.payload or {}),
            cosines[point_id],
            float(_weights(point, column) @ idf) / bound,
        )
        for point_id, point in found.items()
    ]


def _weights(point: models.ScoredPoint, column: Mapping[int, int]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the weight in ``point`` of each term of the question."""
    row = np.zeros(len(column))
    vector: models.SparseVector | None = cast("dict[str, Any]", point.vector or {}).get(SPARSE)
    if vector is not None:
        for index, value in zip(vector.indices, vector.values, strict=True):
            if index in column:
                row[column[index]] = value
    return row


def _inverse_document_frequencies(
    column: Mapping[int, int], hits: Sequence[models.ScoredPoint], stored: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the idf of each term of the question, which Qdrant applies and does not tell.

    A hit's score is the sum of idf times weight over its terms: with the weights known, the idfs are the solution of a
    linear system (of least norm where the hits do not determine it). A term of no hit is as rare as can be: its idf is
    ln(1 + (N + 0.5) / 0.5), with N the points stored.
    """
    idf = np.full(len(column), math.log1p((stored + 0.5) / 0.5))
    if not hits:
        return idf
    weights = np.array([_weights(point, column) for point in hits])
    seen = weights.any(axis=0)
    if seen.any():
        solved = np.linalg.lstsq(weights[:, seen], np.array([point.score for point in hits]), rcond=None)[0]
        idf[seen] = np.maximum(solved, 0.0)
    return idf


async def _call(request: Awaitable[_T]) -> _T:
    try:
        return await request
    except AioRpcError as error:
        if error.code() in (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED):
            raise StoreMisfit("Qdrant refuses access: set QDRANT_API_KEY") from error
        raise StoreUnavailable(f"Qdrant does not answer: {error.code().name}: {error.details()}") from error
    except (ResponseHandlingException, httpx.TransportError, OSError) as error:
        raise StoreUnavailable(f"Qdrant does not answer: {error}") from error
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise StoreMisfit(f"Qdrant refuses access ({error.status_code}): set QDRANT_API_KEY") from error
        raise StoreUnavailable(f"Qdrant answers {error.status_code}: {error.content[:200]!r}") from error
    except ApiException as error:
        raise StoreUnavailable(f"Qdrant fails: {error}") from error
