"""The embedded store: qdrant-client's local mode on a folder keeps the chunks, an exact index in memory finds them.

For one process on one machine. A second process on the folder is refused; share a Qdrant server (QDRANT_URL) instead.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from penstock.telemetry import get_logger
from qdrant_client import QdrantClient, models

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
from services.retrieval.exact_index import ExactIndex
from services.retrieval.sparse import SparseVector

__all__ = ["EmbeddedStore"]

log = get_logger(__name__)
_T = TypeVar("_T")
# Above this, local mode is slow to open and large in memory (its own documentation names the figure).
_ADVISED_POINTS = 20_000
_PAGE = 512


class EmbeddedStore:
    """A :class:`PassageStore` on a folder. Every call runs on one thread of its own, off the event loop."""

    def __init__(self, client: QdrantClient, collection: str, index: ExactIndex, thread: ThreadPoolExecutor) -> None:
        self._client = client
        self._collection = collection
        self._index = index
        self._thread = thread
        self._warned = False

    @classmethod
    async def open(cls, path: Path, collection: str, dimension: int) -> EmbeddedStore:
        """Open or create the store in the folder ``path``.

        Raises:
            StoreMisfit: another process has it open, the folder cannot be written, or it is damaged.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="qdrant-local")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                thread, cls._open, path, collection, dimension, thread
            )
        except BaseException:
            thread.shutdown(wait=False)
            raise

    @classmethod
    def _open(cls, path: Path, collection: str, dimension: int, thread: ThreadPoolExecutor) -> EmbeddedStore:
        try:
            path.mkdir(parents=True, exist_ok=True)
            client = QdrantClient(path=str(path))
        except RuntimeError as error:
            if "already accessed" in str(error):
                raise StoreMisfit(
                    f"{path} is open in another process: the embedded store has one writer; stop the other one, "
                    "set another QDRANT_PATH, or share a server by QDRANT_URL"
                ) from error
            raise
        except (OSError, ValueError, sqlite3.DatabaseError) as error:
            raise StoreMisfit(f"the store in {path} cannot be opened: {error}; check QDRANT_PATH") from error
        if not client.collection_exists(collection):
            client.create_collection(collection, vectors_config(dimension), sparse_config())
        index = ExactIndex(dimension)
        for chunk, dense, sparse in _points(client, collection):
            index.put(chunk, dense, sparse)
        store = cls(client, collection, index, thread)
        store._warn_of_size()
        return store

    async def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        index = self._index
        return await self._run(lambda: [index.search(q.team, q.collection, q.dense, q.sparse, limit) for q in queries])

    async def digests(self, team: str, document_id: str) -> Mapping[str, str]:
        return await self._run(lambda: self._index.digests(team, document_id))

    async def write(self, put: Sequence[Point], rewrite: Sequence[ChunkRecord], remove: Sequence[str]) -> None:
        await self._run(lambda: self._write(put, rewrite, remove))

    async def close(self) -> None:
        """Finish the call under way and close the folder."""
        await self._run(self._client.close)
        self._thread.shutdown(wait=True)

    def _write(self, put: Sequence[Point], rewrite: Sequence[ChunkRecord], remove: Sequence[str]) -> None:
        # Each step reaches the disk before the index, so that nothing is found that a restart would not find.
        for start in range(0, len(put), _PAGE):
            page = put[start : start + _PAGE]
            self._client.upsert(self._collection, [point_struct(point) for point in page])
            for point in page:
                self._index.put(point.chunk, point.dense, point.sparse)
        for chunk in rewrite:
            self._client.overwrite_payload(self._collection, stored_payload(chunk), points=[chunk.id])
            self._index.rewrite(chunk)
        if remove:
            self._client.delete(self._collection, models.PointIdsList(points=list(remove)))
            for chunk_id in remove:
                self._index.remove(chunk_id)
        self._warn_of_size()

    def _warn_of_size(self) -> None:
        if not self._warned and len(self._index) > _ADVISED_POINTS * 0.9:
            self._warned = True
            log.warning(
                "the embedded store is near its limit",
                chunks=len(self._index),
                advised=_ADVISED_POINTS,
                remedy="run a Qdrant server and set QDRANT_URL",
            )

    async def _run(self, call: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except (OSError, sqlite3.Error) as error:  # a full disk, a folder that was taken away
            raise StoreUnavailable(f"the embedded store fails: {error}") from error


def _points(client: QdrantClient, collection: str) -> Any:
    """Yield (chunk, dense, sparse) of every stored point."""
    offset: Any = None
    while True:
        records, offset = client.scroll(
            collection, limit=_PAGE, offset=offset, with_payload=True, with_vectors=[DENSE, SPARSE]
        )
        for record in records:
            vectors = cast("dict[str, Any]", record.vector)
            sparse: models.SparseVector = vectors[SPARSE]
            yield (
                ChunkRecord.from_payload(str(record.id), record.payload or {}),
                np.asarray(vectors[DENSE], np.float32),
                SparseVector(tuple(sparse.indices), tuple(sparse.values)),
            )
        if offset is None:
            return
