"""The store on a Qdrant server, shared by every replica of retrieval."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar, cast

import httpx
import numpy as np
from grpc import StatusCode  # type: ignore[import-untyped]
from grpc.aio import AioRpcError  # type: ignore[import-untyped]
from penstock.telemetry import get_logger
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from services.retrieval.adapters import (
    DENSE,
    SPARSE,
    Point,
    Query,
    StoreMisfit,
    StoreUnavailable,
    alias_name,
    checked_drop,
    point_struct,
    sparse_config,
    stored_digests,
    stored_payload,
)
from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.filters import KEYWORD_FIELDS, RANGE_FIELDS, qdrant_filter
from services.retrieval.qdrant_options import CollectionOptions
from services.retrieval.sparse import MAX_TERM_WEIGHT

__all__ = ["QdrantServer", "QdrantStore", "answered_by_server"]

log = get_logger(__name__)
_T = TypeVar("_T")
_PAGE = 256


class QdrantStore:
    """A :class:`CollectionStore` on a Qdrant server. The team is a condition of every query, and of its index.

    Args:
        client: connected on first use; closed with the store.
        options: how the collection is created where it is missing.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        dimension: int,
        options: CollectionOptions | None = None,
    ) -> None:
        self._client = client
        self._collection = collection
        self._dimension = dimension
        self._options = options or CollectionOptions()

    async def prepare(self) -> None:
        """Create the collection and its payload indexes where they are missing.

        Raises:
            StoreUnavailable: the server does not answer.
            StoreMisfit: the collection holds vectors of another length.
        """
        if not await answered_by_server(self._client.collection_exists(self._collection)):
            await self._create()
        info = await answered_by_server(self._client.get_collection(self._collection))
        vectors = cast("dict[str, models.VectorParams]", info.config.params.vectors)
        if DENSE not in vectors or vectors[DENSE].size != self._dimension:
            raise StoreMisfit(
                f"collection {self._collection} in Qdrant is not of {self._dimension} dimensions: it was not made by "
                "this embedder; remove it, or set EMBEDDING_MODEL and EMBEDDING_DIMENSION to what it holds"
            )
        if different := self._options.differences(info.config):
            log.warning(
                "a collection was created under other settings and goes on as it is",
                collection=self._collection,
                differences=different,
                remedy="change the collection in Qdrant, where that can be done",
            )
        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        await answered_by_server(self._client.create_payload_index(self._collection, "team", tenant))
        for field in KEYWORD_FIELDS:
            await answered_by_server(
                self._client.create_payload_index(self._collection, field, models.PayloadSchemaType.KEYWORD)
            )
        for field in RANGE_FIELDS:
            await answered_by_server(
                self._client.create_payload_index(self._collection, field, models.PayloadSchemaType.INTEGER)
            )

    async def _create(self) -> None:
        vectors = self._options.vectors(self._dimension)
        try:
            await answered_by_server(
                self._client.create_collection(self._collection, vectors, sparse_config(), **self._options.creation())
            )
        except StoreUnavailable:
            # Another replica may have been faster, which HTTP and gRPC tell in ways of their own.
            if not await answered_by_server(self._client.collection_exists(self._collection)):
                raise

    async def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        requests = [request for query in queries for request in _requests(query, limit, self._options.search_params())]
        if not requests:
            return []
        count = await answered_by_server(self._client.count(self._collection, exact=False))
        answers = await answered_by_server(self._client.query_batch_points(self._collection, requests))
        return [
            _hits(query, answers[2 * n].points, answers[2 * n + 1].points, count.count)
            for n, query in enumerate(queries)
        ]

    async def digests(self, team: str, document_id: str) -> Mapping[str, str]:
        condition = models.Filter(must=[_is("team", team), _is("document_id", document_id)])
        found: dict[str, str] = {}
        offset: Any = None
        while True:
            records, offset = await answered_by_server(
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
            await answered_by_server(self._client.upsert(self._collection, points, wait=True))
        for chunk in rewrite:
            payload = stored_payload(chunk)
            await answered_by_server(
                self._client.overwrite_payload(self._collection, payload, points=[chunk.id], wait=True)
            )
        if remove:
            selector = models.PointIdsList(points=list(remove))
            await answered_by_server(self._client.delete(self._collection, selector, wait=True))

    async def listed(self, start: str | None, limit: int) -> tuple[Mapping[str, str], str | None]:
        records, following = await answered_by_server(
            self._client.scroll(
                self._collection, limit=limit, offset=start, with_payload=["digest"], with_vectors=False
            )
        )
        return stored_digests(records), None if following is None else str(following)

    async def digests_of(self, ids: Sequence[str]) -> Mapping[str, str]:
        return stored_digests(
            await answered_by_server(self._client.retrieve(self._collection, list(ids), with_payload=["digest"]))
        )

    async def chunks(self, ids: Sequence[str]) -> Sequence[ChunkRecord]:
        records = await answered_by_server(self._client.retrieve(self._collection, list(ids)))
        return [ChunkRecord.from_payload(str(record.id), record.payload or {}) for record in records]

    async def count(self) -> int:
        return (await answered_by_server(self._client.count(self._collection, exact=True))).count

    async def close(self) -> None:
        await self._client.close()


class QdrantServer:
    """The :class:`Collections` on a Qdrant server.

    Args:
        client: connected on first use; closed with this.
        options: how collections are created.
        namespace: what the names of this installation's collections begin with.
    """

    def __init__(self, client: AsyncQdrantClient, options: CollectionOptions, namespace: str = "penstock") -> None:
        self.client = client
        self._options = options
        self._namespace = namespace

    async def store(self, name: str, dimension: int) -> QdrantStore:
        store = QdrantStore(self.client, name, dimension, self._options)
        await store.prepare()
        return store

    async def sizes(self) -> Mapping[str, int]:
        names = [each.name for each in (await answered_by_server(self.client.get_collections())).collections]
        return {
            name: (await answered_by_server(self.client.count(name, exact=True))).count
            for name in names
            if name.startswith(f"{self._namespace}-")
        }

    async def answering(self) -> str | None:
        answer = await answered_by_server(self.client.get_aliases())
        aliases = {each.alias_name: each.collection_name for each in answer.aliases}
        return aliases.get(alias_name(self._namespace))

    async def let_answer(self, name: str) -> None:
        alias = alias_name(self._namespace)
        operations: list[models.AliasOperations] = [
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias))
        ]
        if await self.answering() is not None:
            operations.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        await answered_by_server(self.client.update_collection_aliases(operations))

    async def drop(self, name: str) -> None:
        checked_drop(name, await self.sizes(), await self.answering())
        await answered_by_server(self.client.delete_collection(name))

    async def close(self) -> None:
        await self.client.close()


def _is(field: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))


def _requests(
    query: Query, limit: int, params: models.SearchParams | None
) -> tuple[models.QueryRequest, models.QueryRequest]:
    """Return the dense and the sparse search; each gives the vectors: what the other's score is computed from."""
    condition = qdrant_filter(query.conditions)
    words = models.SparseVector(indices=list(query.sparse.indices), values=list(query.sparse.values))
    return (
        models.QueryRequest(
            query=query.dense.tolist(),
            using=DENSE,
            filter=condition,
            params=params,
            limit=limit,
            with_payload=True,
            with_vector=[DENSE, SPARSE],
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
    vectors = {
        name: np.asarray(cast("dict[str, Any]", point.vector)[DENSE], np.float32) for name, point in found.items()
    }
    cosines = {str(point.id): point.score for point in dense}
    for name, vector in vectors.items():
        cosines.setdefault(name, float(vector @ query.dense))
    idf = _inverse_document_frequencies(column, sparse, stored)
    bound = float(idf.sum()) * MAX_TERM_WEIGHT or 1.0
    return [
        Hit(
            ChunkRecord.from_payload(point_id, point.payload or {}),
            cosines[point_id],
            float(_weights(point, column) @ idf) / bound,
            vectors[point_id],
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


async def answered_by_server(request: Awaitable[_T]) -> _T:
    """Return what the server answers to ``request``.

    Raises:
        StoreUnavailable: it does not answer, or fails.
        StoreMisfit: it refuses access.
    """
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
