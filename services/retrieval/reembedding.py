"""A new embedding model without a gap: its collection is filled beside the old one, verified, and then answers.

While it is filled, documents are written to both collections (see `index_hop`), and requests are answered from the old one.
The copy goes through the old collection in the order of ids and embeds each chunk's text that the new one lacks. What is
there needs no note of how far it came: after a crash, and beside other replicas, only what is still missing is embedded.

Two orders make the copy right while documents change. A write reaches the old collection first, so that a chunk of the new
one that the old one lacks is stale. And a copied chunk is looked up again in the old one once it is in the new: if it was
removed or changed meanwhile, the next pass, which must find nothing left to do, puts it right.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.clock import Clock
from penstock.embedding import EmbedderError
from penstock.embedding.protocol import Embedder
from penstock.telemetry import get_logger, metrics

from services.retrieval.adapters import Collections, CollectionStore, Point, StoreMisfit, StoreUnavailable
from services.retrieval.core import ChunkRecord
from services.retrieval.serving import Engine, Serving

__all__ = [
    "CollectionStatus", "Difference", "Pace", "Reembedding", "answering_collection", "copied", "differences", "statuses",
    "switched",
]  # fmt: skip

log = get_logger(__name__)

Points = Callable[[Sequence[ChunkRecord], Embedder], tuple[list[Point], int]]
"""Makes points, and says how many tokens were embedded for them: :func:`services.retrieval.app.embedded_points`."""

# Ids compared in one call to each collection.
_PAGE = 256
# Chunks embedded in one go: some tenths of a second of one core, for which a request may have to share it.
_SLICE = 8
# Longest wait of a copy for requests that are being embedded, and between tries of what fails, seconds.
_YIELD_S, _LONGEST_PAUSE_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of the machine a copy may take.

    Args:
        share: share of the time in which it embeds, over 0 and at most 1; it pauses for the rest.
        look_s: seconds between looks at the alias while there is nothing to copy, and before a failed call is tried again.
    """

    share: float = 0.5
    look_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Difference:
    """What one collection lacks of another.

    Args:
        lacking: ids of chunks that are missing, or are not as they are in the other.
        stale: ids of chunks that the other has no more.
    """

    lacking: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CollectionStatus:
    """A collection of the installation.

    Args:
        chunks: how many it holds.
        answering: whether requests are answered from it.
    """

    name: str
    chunks: int
    answering: bool


async def differences(
    source: CollectionStore, target: CollectionStore, begin: str | None = None
) -> AsyncIterator[Difference]:
    """Yield in what ``target`` differs from ``source``, page by page; nothing where both hold the same chunks.

    Args:
        begin: the id at which to begin; what comes before it is gone through last.
    """
    async for page in _pages(source, begin):
        there = await target.digests_of(list(page))
        differing = [each for each, digest in page.items() if there.get(each) != digest]
        if lacking := await _lacking(source, there, differing):
            yield Difference(lacking=lacking)
    async for page in _pages(target, begin):
        there = await source.digests_of(list(page))
        if stale := tuple(each for each in page if each not in there):
            yield Difference(stale=stale)


async def copied(
    source: CollectionStore,
    target: CollectionStore,
    difference: Difference,
    engine: Engine,
    points: Points,
) -> tuple[int, int]:
    """Put ``difference`` right in ``target`` and return how many chunks, and tokens of them, were embedded for it.

    Raises:
        EmbedderError: a chunk cannot be embedded, now (EmbedderUnavailable) or later; the message names its document.
        StoreUnavailable: away for now.
    """
    chunks, tokens = await source.chunks(difference.lacking), 0
    if chunks:
        try:
            made, tokens = await engine.run(points, chunks, engine.embedder)
        except EmbedderError as error:
            named = ", ".join(sorted({f"{chunk.team}/{chunk.document_id}" for chunk in chunks}))
            raise type(error)(f"chunks of {named} cannot be embedded: {error}") from error
        await target.write(made, (), ())
        # What was written to both meanwhile may have been overwritten here by what was read before.
        there = await source.digests_of([chunk.id for chunk in chunks])
        removed = [chunk.id for chunk in chunks if chunk.id not in there]
        changed = [chunk.id for chunk in chunks if there.get(chunk.id, chunk.digest) != chunk.digest]
        if removed or changed:
            await target.write((), await source.chunks(changed), removed)
    if difference.stale:
        await target.write((), (), difference.stale)
    return len(chunks), tokens


async def answering_collection(collections: Collections, own: str, following: str | None) -> str:
    """Return which collection is to answer at start, ``own`` or ``following``.

    Args:
        own: collection of EMBEDDING_MODEL.
        following: collection of EMBEDDING_NEXT_MODEL, where one is set.

    Raises:
        StoreUnavailable: away for now.
        StoreMisfit: the requests are answered from a collection of another model.
    """
    answering = await collections.answering()
    if answering is not None and answering in (own, following):
        return answering
    if answering is None or not (await collections.sizes()).get(answering):
        return own
    raise StoreMisfit(
        f"requests are answered from the collection {answering}, and the embedder's is {own}: to change the model, leave "
        f"EMBEDDING_* as it was and set EMBEDDING_NEXT_* to the new one; or put the alias on {own} in Qdrant"
    )


async def statuses(collections: Collections) -> list[CollectionStatus]:
    """Return the collections of the installation, by name."""
    answering = await collections.answering()
    return [
        CollectionStatus(name, chunks, name == answering)
        for name, chunks in sorted((await collections.sizes()).items())
    ]


async def switched(
    collections: Collections, source: CollectionStore, target: CollectionStore, name: str
) -> Difference | None:
    """Let the collection ``name`` answer if ``target``, which it is, holds what ``source`` does.

    Returns:
        None after the switch, else the first difference found; nothing is switched then.
    """
    async for difference in differences(source, target):
        return difference
    await collections.let_answer(name)
    return None


class Reembedding:
    """Fills the following index of ``serving`` and switches to it.

    Args:
        serving: its current index is copied from; its following one becomes the current.
        collections: holds both, and the alias.
        source: the store of the current index.
        target: the store of the following index.
        points: embeds chunks.
        switch: ``auto`` switches when the copy is complete; ``manual`` leaves that to who puts the alias on the new one.
    """

    def __init__(
        self,
        serving: Serving,
        collections: Collections,
        source: CollectionStore,
        target: CollectionStore,
        points: Points,
        clock: Clock,
        pace: Pace,
        switch: Literal["auto", "manual"] = "auto",
    ) -> None:
        assert serving.following is not None
        self._serving = serving
        self._following = serving.following
        self._collections = collections
        self._source = source
        self._target = target
        self._points = points
        self._clock = clock
        self._pace = pace
        self._switch = switch
        self._waits_for_switch = False
        self._chunks = self._tokens = 0  # embedded by this process
        # Replicas that copy at the same time begin at different places, and skip what another one has copied.
        self._begin = str(uuid.uuid4())

    async def run(self, stopping: asyncio.Event) -> None:
        """Copy, verify and switch; return when that is done, or soon after ``stopping`` is set."""
        name, pause = self._following.collection, self._pace.look_s
        log.info("chunks are copied into the next collection", collection=name, chunks=await self._left())
        while not stopping.is_set():
            try:
                if await self._answers_after_a_step(stopping):
                    log.info(
                        "requests are answered from the next collection",
                        collection=name,
                        chunks_embedded=self._chunks,
                        tokens_embedded=self._tokens,
                    )
                    return
                pause = self._pace.look_s
            except (StoreUnavailable, StoreMisfit, EmbedderError) as error:
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                log.warning("the copy waits", collection=name, reason=str(error), seconds=pause)
            await self._sleep(pause, stopping)

    async def _answers_after_a_step(self, stopping: asyncio.Event) -> bool:
        """Copy until nothing is left, switch where that is ours, and return whether the following index answers."""
        if self._serving.is_behind:
            self._serving.is_behind = self._waits_for_switch = False
        if not self._waits_for_switch and not await self._is_answering():
            await self._copy_all(stopping)
            if stopping.is_set():
                return False
        if await self._is_answering():
            async with self._serving.indexing:
                self._serving.switch()
            return True
        if self._switch == "manual":
            if not self._waits_for_switch:
                log.info(
                    "the next collection is complete and waits for the switch", collection=self._following.collection
                )
            self._waits_for_switch = True
            return False
        # Documents wait for the seconds of this last comparison, so that none is in one collection only.
        async with self._serving.indexing:
            name = self._following.collection
            if await switched(self._collections, self._source, self._target, name) is not None:
                return False
            self._serving.switch()
        return True

    async def _copy_all(self, stopping: asyncio.Event) -> None:
        """Return when a pass has found nothing to copy, when another replica was done first, or at a stop."""
        found = True
        while found:
            found = False
            async for difference in differences(self._source, self._target, self._begin):
                found = True
                for part in _slices(difference):
                    await self._copy(part, stopping)
                    if stopping.is_set():
                        return
                if await self._is_answering():
                    return

    async def _copy(self, part: Difference, stopping: asyncio.Event) -> None:
        waited = 0.0
        while self._serving.current.engine.calls and waited < _YIELD_S:  # a request's embedding goes first
            await self._clock.sleep(0.02)
            waited += 0.02
        began = self._clock.monotonic()
        chunks, tokens = await copied(self._source, self._target, part, self._following.engine, self._points)
        metrics.INDEXED_CHUNKS.labels("copied").inc(chunks)
        self._chunks, self._tokens = self._chunks + chunks, self._tokens + tokens
        took = self._clock.monotonic() - began
        await self._sleep(took * (1 - self._pace.share) / self._pace.share, stopping)

    async def _is_answering(self) -> bool:
        return await self._collections.answering() == self._following.collection

    async def _left(self) -> int | None:
        try:
            return await self._source.count() - await self._target.count()
        except StoreUnavailable:
            return None

    async def _sleep(self, seconds: float, stopping: asyncio.Event) -> None:
        """Return after ``seconds``, or when ``stopping`` is set."""
        if seconds <= 0:
            return
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(stopping.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()


async def _pages(store: CollectionStore, begin: str | None) -> AsyncIterator[Mapping[str, str]]:
    """Yield the digests of all chunks by id, a page at a time, from ``begin`` to the end and from the start to ``begin``."""
    start = begin
    while True:
        page, start = await store.listed(start, _PAGE)
        yield page
        if start is None:
            break
    while begin is not None:
        page, start = await store.listed(start, _PAGE)
        yield {each: digest for each, digest in page.items() if each < begin}
        if start is None or start >= begin:
            return


async def _lacking(source: CollectionStore, there: Mapping[str, str], ids: Sequence[str]) -> tuple[str, ...]:
    """Return those of ``ids`` that must be copied. Chunks of an earlier release are stored anew in the form of this one, so
    that their digests differ although nothing else does."""
    changed = [each for each in ids if each in there]
    same = {chunk.id for chunk in await source.chunks(changed) if chunk.digest == there[chunk.id]} if changed else set()
    return tuple(each for each in ids if each not in same)


def _slices(difference: Difference) -> list[Difference]:
    parts = [Difference(lacking=difference.lacking[n : n + _SLICE]) for n in range(0, len(difference.lacking), _SLICE)]
    return [*parts, Difference(stale=difference.stale)] if difference.stale else parts
