"""The embedded store: qdrant-client's local mode on a folder keeps the chunks, an exact index in memory finds them.

For one process on one machine. A second process on the folder is refused; share a Qdrant server (QDRANT_URL) instead.
"""

from __future__ import annotations

import asyncio
import bisect
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
    alias_name,
    checked_drop,
    point_struct,
    sparse_config,
    stored_payload,
    vectors_config,
)
from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.exact_index import ExactIndex
from services.retrieval.sparse import SparseVector

__all__ = ["EmbeddedFolder", "EmbeddedStore"]

log = get_logger(__name__)
_T = TypeVar("_T")
# Above this, local mode is slow to open and large in memory (its own documentation names the figure).
_ADVISED_POINTS = 20_000
_PAGE = 512


class EmbeddedFolder:
    """The :class:`Collections` in a folder. Every call runs on one thread of its own, off the event loop.

    Args:
        client: used on ``thread`` alone.
    """

    def __init__(self, client: QdrantClient, thread: ThreadPoolExecutor, namespace: str) -> None:
        self.client = client
        self._thread = thread
        self._namespace = namespace

    @classmethod
    async def open(cls, path: Path, namespace: str = "penstock") -> EmbeddedFolder:
        """Open or create the folder ``path``.

        Args:
            namespace: what the names of its collections begin with.

        Raises:
            StoreMisfit: another process has it open, the folder cannot be written, or it is damaged.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="qdrant-local")
        try:
            client = await asyncio.get_running_loop().run_in_executor(thread, _client, path)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(client, thread, namespace)

    async def run(self, call: Callable[[], _T]) -> _T:
        """Run ``call`` on the folder's thread.

        Raises:
            StoreUnavailable: the folder cannot be read or written for now.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except (OSError, sqlite3.Error) as error:  # a full disk, a folder that was taken away
            raise StoreUnavailable(f"the embedded store fails: {error}") from error

    async def store(self, name: str, dimension: int) -> EmbeddedStore:
        return await self.run(lambda: EmbeddedStore(self, name, *self._loaded(name, dimension)))

    async def sizes(self) -> Mapping[str, int]:
        return await self.run(self._sizes)

    async def answering(self) -> str | None:
        return await self.run(self._answering)

    async def let_answer(self, name: str) -> None:
        alias = models.CreateAlias(collection_name=name, alias_name=alias_name(self._namespace))
        await self.run(lambda: self.client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)]))

    async def drop(self, name: str) -> None:
        def drop() -> None:
            checked_drop(name, self._sizes(), self._answering())
            self.client.delete_collection(name)

        await self.run(drop)

    async def close(self) -> None:
        """Finish the call under way and close the folder."""
        await self.run(self.client.close)
        self._thread.shutdown(wait=True)

    def _loaded(self, name: str, dimension: int) -> tuple[ExactIndex, dict[str, str]]:
        if not self.client.collection_exists(name):
            self.client.create_collection(name, vectors_config(dimension), sparse_config())
        index, digests = ExactIndex(dimension), {}
        for chunk, dense, sparse in _points(self.client, name):
            index.put(chunk, dense, sparse)
            digests[chunk.id] = chunk.digest
        return index, digests

    def _sizes(self) -> dict[str, int]:
        names = [each.name for each in self.client.get_collections().collections]
        return {name: self.client.count(name).count for name in names if name.startswith(f"{self._namespace}-")}

    def _answering(self) -> str | None:
        aliases = {each.alias_name: each.collection_name for each in self.client.get_aliases().aliases}
        return aliases.get(alias_name(self._namespace))


def _client(path: Path) -> QdrantClient:
    try:
        path.mkdir(parents=True, exist_ok=True)
        return QdrantClient(path=str(path))
    except RuntimeError as error:
        if "already accessed" in str(error):
            raise StoreMisfit(
                f"{path} is open in another process: the embedded store has one writer; stop the other one, "
                "set another QDRANT_PATH, or share a server by QDRANT_URL"
            ) from error
        raise
    except (OSError, ValueError, sqlite3.DatabaseError) as error:
        raise StoreMisfit(f"the store in {path} cannot be opened: {error}; check QDRANT_PATH") from error


class EmbeddedStore:
    """A :class:`CollectionStore` in a folder.

    Args:
        index: what the collection holds, searchable.
        digests: the digest of each chunk in it, by id.
        owned: the folder is closed with the store.
    """

    def __init__(
        self,
        folder: EmbeddedFolder,
        collection: str,
        index: ExactIndex,
        digests: dict[str, str],
        owned: bool = False,
    ) -> None:
        self._folder = folder
        self._client = folder.client
        self._collection = collection
        self._index = index
        self._digests = digests
        self._owned = owned
        self._warned = False
        self._warn_of_size()

    @classmethod
    async def open(cls, path: Path, collection: str, dimension: int) -> EmbeddedStore:
        """Open or create one collection of the folder ``path``, which is closed with it.

        Raises:
            StoreMisfit: another process has it open, the folder cannot be written, or it is damaged.
        """
        folder = await EmbeddedFolder.open(path)
        try:
            store = await folder.store(collection, dimension)
        except BaseException:
            await folder.close()
            raise
        store._owned = True
        return store

    async def search(self, queries: Sequence[Query], limit: int) -> list[list[Hit]]:
        index = self._index
        return await self._folder.run(lambda: [index.search(q.conditions, q.dense, q.sparse, limit) for q in queries])

    async def digests(self, team: str, document_id: str) -> Mapping[str, str]:
        return await self._folder.run(lambda: self._index.digests(team, document_id))

    async def documents(self, team: str) -> Sequence[str]:
        """Return the ids of the team's documents that have chunks here."""
        return await self._folder.run(lambda: self._index.documents(team))

    async def write(self, put: Sequence[Point], rewrite: Sequence[ChunkRecord], remove: Sequence[str]) -> None:
        await self._folder.run(lambda: self._write(put, rewrite, remove))

    async def listed(self, start: str | None, limit: int) -> tuple[Mapping[str, str], str | None]:
        return await self._folder.run(lambda: self._listed(start, limit))

    async def digests_of(self, ids: Sequence[str]) -> Mapping[str, str]:
        return await self._folder.run(lambda: {each: self._digests[each] for each in ids if each in self._digests})

    async def chunks(self, ids: Sequence[str]) -> Sequence[ChunkRecord]:
        records = await self._folder.run(lambda: self._client.retrieve(self._collection, list(ids)))
        return [ChunkRecord.from_payload(str(record.id), record.payload or {}) for record in records]

    async def count(self) -> int:
        return await self._folder.run(lambda: len(self._digests))

    async def close(self) -> None:
        """Close the folder, where it was opened for this store alone."""
        if self._owned:
            await self._folder.close()

    def _listed(self, start: str | None, limit: int) -> tuple[dict[str, str], str | None]:
        # Not local mode's own listing: that reads every point for each page.
        ids = sorted(self._digests)
        first = 0 if start is None else bisect.bisect_left(ids, start)
        page = {each: self._digests[each] for each in ids[first : first + limit]}
        return page, ids[first + limit] if first + limit < len(ids) else None

    def _write(self, put: Sequence[Point], rewrite: Sequence[ChunkRecord], remove: Sequence[str]) -> None:
        # Each step reaches the disk before the index, so that nothing is found that a restart would not find.
        for start in range(0, len(put), _PAGE):
            page = put[start : start + _PAGE]
            self._client.upsert(self._collection, [point_struct(point) for point in page])
            for point in page:
                self._index.put(point.chunk, point.dense, point.sparse)
                self._digests[point.chunk.id] = point.chunk.digest
        for chunk in rewrite:
            self._client.overwrite_payload(self._collection, stored_payload(chunk), points=[chunk.id])
            self._index.rewrite(chunk)
            self._digests[chunk.id] = chunk.digest
        if remove:
            self._client.delete(self._collection, models.PointIdsList(points=list(remove)))
            for chunk_id in remove:
                self._index.remove(chunk_id)
                self._digests.pop(chunk_id, None)
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
