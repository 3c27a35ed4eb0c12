"""An exact index in memory over the chunks of the embedded store. Pure, but for its own state.

qdrant-client's local mode evaluates filters and sparse vectors point by point in Python: 45 ms a query over 1,000 chunks,
230 ms over 5,000. Here every team's collection is a partition of its own, so a search never touches another team's chunks,
and scores are computed by numpy: the cosine of every chunk, and BM25 from inverted lists.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from penstock.embedding.protocol import Vectors

from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.sparse import MAX_TERM_WEIGHT, SparseVector

__all__ = ["ExactIndex"]


class ExactIndex:
    """Chunks with their vectors, searchable by team and collection.

    Args:
        dimension: length of the dense vectors, which must have unit length.
    """

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension
        self._partitions: dict[tuple[str, str], _Partition] = {}
        self._partition_of: dict[str, _Partition] = {}
        self._documents: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self._partition_of)

    def digests(self, team: str, document_id: str) -> Mapping[str, str]:
        """Return the digest of each chunk of a document, by id."""
        return dict(self._documents.get((team, document_id), {}))

    def put(self, chunk: ChunkRecord, dense: Vectors, sparse: SparseVector) -> None:
        """Add ``chunk``, or replace the one of the same id."""
        self.remove(chunk.id)
        key = (chunk.team, chunk.collection)
        partition = self._partitions.setdefault(key, _Partition(self._dimension))
        partition.put(chunk, dense, sparse)
        self._partition_of[chunk.id] = partition
        self._documents[chunk.team, chunk.document_id][chunk.id] = chunk.digest

    def rewrite(self, chunk: ChunkRecord) -> None:
        """Replace the stored fields of a chunk; its vectors stay. Unknown ids are ignored."""
        partition = self._partition_of.get(chunk.id)
        if partition is not None:
            partition.rewrite(chunk)
            self._documents[chunk.team, chunk.document_id][chunk.id] = chunk.digest

    def remove(self, chunk_id: str) -> None:
        """Remove a chunk; unknown ids are ignored."""
        partition = self._partition_of.pop(chunk_id, None)
        if partition is None:
            return
        chunk = partition.remove(chunk_id)
        document = (chunk.team, chunk.document_id)
        self._documents[document].pop(chunk_id, None)
        if not self._documents[document]:
            del self._documents[document]
        if not partition.slots:
            del self._partitions[chunk.team, chunk.collection]

    def search(self, team: str, collection: str, dense: Vectors, sparse: SparseVector, limit: int) -> list[Hit]:
        """Return the ``limit`` best chunks by cosine and the ``limit`` best by BM25, in no particular order."""
        partition = self._partitions.get((team, collection))
        return [] if partition is None else partition.search(dense, sparse, limit)


@dataclass(slots=True)
class _Postings:
    """The chunks that hold one term. ``arrays`` is the frozen form, made at the first search after a change."""

    weights: dict[int, float]
    arrays: tuple[NDArray[np.intp], NDArray[np.float32]] | None = None

    def frozen(self) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        if self.arrays is None:
            slots = np.fromiter(self.weights, np.intp, len(self.weights))
            self.arrays = slots, np.fromiter(self.weights.values(), np.float32, len(self.weights))
        return self.arrays


class _Partition:
    def __init__(self, dimension: int) -> None:
        self.slots: dict[str, int] = {}
        self._chunks: list[ChunkRecord | None] = []
        self._terms: list[tuple[int, ...]] = []
        self._free: list[int] = []
        # Rows of removed chunks are zero; they are told apart by _chunks.
        self._vectors: Vectors = np.zeros((16, dimension), np.float32)
        self._postings: dict[int, _Postings] = {}

    def put(self, chunk: ChunkRecord, dense: Vectors, sparse: SparseVector) -> None:
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self._chunks)
            self._chunks.append(None)
            self._terms.append(())
            if slot == len(self._vectors):
                self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
        self.slots[chunk.id] = slot
        self._chunks[slot] = chunk
        self._vectors[slot] = dense
        self._terms[slot] = sparse.indices
        for term, weight in zip(sparse.indices, sparse.values, strict=True):
            postings = self._postings.setdefault(term, _Postings({}))
            postings.weights[slot] = weight
            postings.arrays = None

    def rewrite(self, chunk: ChunkRecord) -> None:
        self._chunks[self.slots[chunk.id]] = chunk

    def remove(self, chunk_id: str) -> ChunkRecord:
        slot = self.slots.pop(chunk_id)
        chunk = self._chunks[slot]
        assert chunk is not None
        for term in self._terms[slot]:
            postings = self._postings[term]
            del postings.weights[slot]
            postings.arrays = None
            if not postings.weights:
                del self._postings[term]
        self._chunks[slot] = None
        self._terms[slot] = ()
        self._vectors[slot] = 0
        self._free.append(slot)
        return chunk

    def search(self, dense: Vectors, sparse: SparseVector, limit: int) -> list[Hit]:
        used = len(self._chunks)
        cosines = self._vectors[:used] @ dense
        for slot in self._free:
            cosines[slot] = -np.inf
        lexical, bound = np.zeros(used, np.float32), 0.0
        for term in sparse.indices:
            postings = self._postings.get(term)
            found = 0 if postings is None else len(postings.weights)
            idf = math.log1p((len(self.slots) - found + 0.5) / (found + 0.5))
            bound += idf * MAX_TERM_WEIGHT
            if postings is not None:
                slots, weights = postings.frozen()
                lexical[slots] += np.float32(idf) * weights
        if bound:
            lexical /= bound
        candidates = set(_best(cosines, limit)) | {slot for slot in _best(lexical, limit) if lexical[slot] > 0}
        return [
            Hit(chunk, float(cosines[slot]), float(lexical[slot]))
            for slot in candidates
            if (chunk := self._chunks[slot]) is not None
        ]


def _best(scores: NDArray[np.float32], limit: int) -> list[int]:
    """Return the positions of the ``limit`` highest scores, in no particular order."""
    if len(scores) <= limit:
        return list(range(len(scores)))
    return [int(slot) for slot in np.argpartition(scores, -limit)[-limit:]]
