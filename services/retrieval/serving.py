"""Which embedder and store answer now, and which are being made ready beside them.

An embedder and the store of its vectors change together or not at all: who works with them takes the pair once (`current`)
and keeps it to the end of the step, so that no vector is ever compared with one of another model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from penstock.embedding import Embedded, Embedder, EmbedderError, EmbedderUnavailable
from penstock.telemetry import get_logger

from services.retrieval.adapters import PassageStore

__all__ = ["Engine", "Index", "Serving"]

log = get_logger(__name__)
_T = TypeVar("_T")


class Engine:
    """The embedder on threads of its own, so that the event loop stays free while it computes.

    Args:
        workers: threads; one for each hop lets requests pass while a long document is embedded.
    """

    def __init__(self, embedder: Embedder, workers: int = 2) -> None:
        self.embedder = embedder
        self.calls = 0
        """Calls that are under way or wait for a thread."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="embedder")

    async def run(self, call: Callable[..., _T], *args: Any) -> _T:
        """Run ``call`` on one of the threads."""
        self.calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
        finally:
            self.calls -= 1

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Return the vectors and the tokens of ``texts``; see :meth:`Embedder.embed_counted`."""
        return await self.run(self.embedder.embed_counted, texts)

    async def embed_able(self, texts: Sequence[str]) -> tuple[list[int], Embedded]:
        """Return the positions of the texts that the embedder takes, in order, and what :meth:`embed` gives for them.

        One that it refuses, as an endpoint does a text that is longer than it reads, is left out: no wait would help, and
        the others that it came with are no worse than alone.

        Raises:
            EmbedderUnavailable: away for now.
            EmbedderError: it refuses a plain word, too: what is wrong are not the texts.
        """
        try:
            return list(range(len(texts))), await self.embed(texts)
        except EmbedderUnavailable:
            raise
        except EmbedderError:
            await self.embed(["word"])
        found: dict[int, Embedded] = {}
        for place, text in enumerate(texts):
            try:
                found[place] = await self.embed([text])
            except EmbedderUnavailable:
                raise
            except EmbedderError as error:
                log.warning("the embedder refuses a text", characters=len(text), reason=str(error))
        vectors = [np.empty((0, self.embedder.dimension), np.float32), *(each.vectors for each in found.values())]
        return list(found), Embedded(np.concatenate(vectors), tuple(each.tokens[0] for each in found.values()))

    async def close(self) -> None:
        """Let the call under way finish, and end the threads."""
        await asyncio.get_running_loop().run_in_executor(None, self._threads.shutdown)


@dataclass(frozen=True, slots=True)
class Index:
    """An embedder and the store that holds its vectors, and those of no other.

    Attributes:
        collection: name of the store's collection.
    """

    engine: Engine
    store: PassageStore
    collection: str = ""


class Serving:
    """The index that answers, and at times the one that will follow it.

    Args:
        current: answers requests, and is written.
        following: is written too, so that it misses nothing while the chunks of before are copied into it.
    """

    def __init__(self, current: Index, following: Index | None = None) -> None:
        self.current = current
        self.following = following
        self.written = (current,) if following is None else (current, following)
        """The indexes that documents are written to, in this order, before and after the switch: what another replica still
        answers from, or copies from, is as new as the rest."""
        self.is_behind = False
        """Whether a document could not be written to the following index: what it lacks is to be copied."""
        self.indexing = asyncio.Lock()
        """Held while a document is written, and while the switch is made: no document is then in one index only."""

    @classmethod
    def of(cls, engine: Engine, store: PassageStore) -> Serving:
        """Return what serves from one index for good."""
        return cls(Index(engine, store))

    def switch(self) -> None:
        """Let the following index answer from the next step on."""
        if self.following is not None:
            self.current, self.following = self.following, None
