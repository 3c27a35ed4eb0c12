"""A copy into a next collection, as a process that can be killed: python -m tests.stream.copying_process FOLDER SHARE"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from penstock.clock import SystemClock
from penstock.embedding import Embedded
from penstock.embedding.protocol import Vectors

from services.retrieval.adapters import collection_name
from services.retrieval.app import embedded_points
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.reembedding import Pace, Reembedding
from services.retrieval.serving import Engine, Index, Serving


class Lengths:
    """A model that tells texts by their length, and says on standard output what it embeds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dimension = 4

    def embed(self, texts: Sequence[str]) -> Vectors:
        angles = np.array([len(text) for text in texts], np.float32)
        zeros = np.zeros_like(angles)
        made: Vectors = np.stack([np.cos(angles), np.sin(angles), zeros, zeros], axis=1)
        return made

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        print("embedded", len(texts), flush=True)
        return Embedded(self.embed(texts), tuple(len(text) for text in texts))

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [(n, n + 1) for n in range(len(text))]


OLD, NEW = Lengths("old"), Lengths("new")


async def main(path: Path, share: float) -> None:
    """Copy all chunks of the old model's collection and switch to the new one's.

    Args:
        share: see :class:`Pace`; a small one leaves time to kill it in the middle.
    """
    folder = await EmbeddedFolder.open(path)
    source, target = [await folder.store(collection_name(each), each.dimension) for each in (OLD, NEW)]
    serving = Serving(
        Index(Engine(OLD), source, collection_name(OLD)), Index(Engine(NEW), target, collection_name(NEW))
    )
    pace = Pace(share, 0.02)
    await Reembedding(serving, folder, source, target, embedded_points, SystemClock(), pace).run(asyncio.Event())
    for index in serving.written:
        await index.engine.close()
    await folder.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
