"""Several collections with an alias on the one that answers, and a copy from one to the other, on both kinds of Qdrant."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from penstock.bus import Event, Message
from penstock.clock import ManualClock, SystemClock
from penstock.contracts.records import ScreenedDocument
from penstock.embedding import Embedded, EmbedderError, EmbedderUnavailable
from penstock.embedding.protocol import Vectors
from qdrant_client import AsyncQdrantClient

from services.retrieval.adapters import Collections, CollectionStore, Point, StoreMisfit, alias_name, collection_name
from services.retrieval.app import IndexLimits, embedded_points, index_hop
from services.retrieval.core import ChunkRecord
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.qdrant_options import CollectionOptions
from services.retrieval.qdrant_server import QdrantServer
from services.retrieval.reembedding import (
    Difference,
    Pace,
    Reembedding,
    answering_collection,
    copied,
    differences,
    statuses,
    switched,
)
from services.retrieval.serving import Engine, Index, Serving

SPACE, CLOCK = "test", ManualClock()
TEXTS = [f"The weir number {n} raises the water by {n * 3} metres." for n in range(20)]


class Letters:
    """An embedder by the letters of a text, of any dimension; it notes its texts and fails on demand."""

    def __init__(self, name: str, dimension: int) -> None:
        self.name = name
        self.dimension = dimension
        self.texts: list[str] = []
        self.failures: list[EmbedderError] = []
        self.before: Callable[[], None] = lambda: None

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.ones((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for place, char in enumerate(text):
                row[(ord(char) * 31 + place) % self.dimension] += 1
        unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        self.before()
        if self.failures:
            raise self.failures.pop()
        self.texts.extend(texts)
        return Embedded(self.embed(texts), tuple(len(text) for text in texts))

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [(n, n + 1) for n in range(len(text))]


OLD, NEW = Letters("old", 16), Letters("new", 24)
OLD_NAME, NEW_NAME = (collection_name(each, SPACE) for each in (OLD, NEW))


def a_chunk(text: str, document_id: str = "guide", **changes: object) -> ChunkRecord:
    identity = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{document_id}/{text}"))
    record = ChunkRecord(
        id=identity, team="support", collection="default", document_id=document_id, ordinal=0, start=0, end=len(text),
        tokens=9, title="Guide", source="guide.md", heading=(), text=text, tags={"lang": "en"},
    )  # fmt: skip
    return replace(record, **changes)  # type: ignore[arg-type]


def points(chunks: Sequence[ChunkRecord], embedder: Letters) -> list[Point]:
    return embedded_points(chunks, embedder)[0]


async def in_folder(folder: Path) -> Collections:
    return await EmbeddedFolder.open(folder / "qdrant", SPACE)


async def in_memory(_: Path) -> Collections:
    return QdrantServer(AsyncQdrantClient(":memory:"), CollectionOptions(), SPACE)


async def on_server(_: Path) -> Collections:
    if "QDRANT_URL" not in os.environ:
        pytest.skip("QDRANT_URL is not set: no Qdrant server to test against")
    server = QdrantServer(
        AsyncQdrantClient(url=os.environ["QDRANT_URL"], prefer_grpc=True), CollectionOptions("int8"), SPACE
    )
    for name in await server.sizes():
        await server.client.delete_collection(name)
    return server


@pytest.fixture(params=[in_folder, in_memory, on_server])
async def collections(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Collections]:
    make: Callable[[Path], Awaitable[Collections]] = request.param
    made = await make(tmp_path)
    yield made
    await made.close()


class Both:
    """An old collection with chunks, a new one without, and what serves from them."""

    def __init__(self, collections: Collections, source: CollectionStore, target: CollectionStore) -> None:
        self.collections = collections
        self.source = source
        self.target = target
        self.old, self.new = Letters(OLD.name, OLD.dimension), Letters(NEW.name, NEW.dimension)
        self.serving = Serving(Index(Engine(self.old), source, OLD_NAME), Index(Engine(self.new), target, NEW_NAME))

    def reembedding(self, **settings: object) -> Reembedding:
        return Reembedding(
            self.serving, self.collections, self.source, self.target, embedded_points, SystemClock(), Pace(1.0, 0.02),
            **settings,  # type: ignore[arg-type]
        )  # fmt: skip

    async def held(self) -> dict[str, str]:
        page, following = await self.target.listed(None, 1000)
        assert following is None
        return dict(page)


@pytest.fixture
async def both(collections: Collections) -> AsyncIterator[Both]:
    source = await collections.store(OLD_NAME, OLD.dimension)
    await collections.let_answer(OLD_NAME)
    await source.write(points([a_chunk(text) for text in TEXTS], OLD), (), ())
    made = Both(collections, source, await collections.store(NEW_NAME, NEW.dimension))
    yield made
    for index in made.serving.written:
        await index.engine.close()


async def test_the_alias_is_on_one_collection_at_a_time(collections: Collections) -> None:
    assert await collections.answering() is None
    for name in ("test-a-4", "test-b-4", "test-a-4"):
        await collections.store(name, 4)
        await collections.let_answer(name)
        assert await collections.answering() == name
    assert dict(await collections.sizes()) == {"test-a-4": 0, "test-b-4": 0}
    with pytest.raises(StoreMisfit, match="switch to another"):
        await collections.drop("test-a-4")
    with pytest.raises(StoreMisfit, match=r"no collection nothing; there are: test-a-4, test-b-4"):
        await collections.drop("nothing")
    await collections.drop("test-b-4")
    assert dict(await collections.sizes()) == {"test-a-4": 0}


async def test_a_collection_is_gone_through_in_the_order_of_ids(both: Both) -> None:
    seen: list[str] = []
    start: str | None = None
    while True:
        page, start = await both.source.listed(start, 7)
        seen.extend(page)
        if start is None:
            break
    chunks = {chunk.id: chunk for chunk in map(a_chunk, TEXTS)}
    assert seen == sorted(chunks)
    some = [*seen[3:6], str(uuid.uuid4())]
    assert await both.source.digests_of(some) == {each: chunks[each].digest for each in some[:3]}
    assert {chunk.id: chunk for chunk in await both.source.chunks(some)} == {each: chunks[each] for each in some[:3]}
    assert await both.source.count() == len(TEXTS)


async def test_the_copy_embeds_all_chunks_anew_and_then_the_new_collection_answers(both: Both) -> None:
    await both.reembedding().run(asyncio.Event())
    assert both.serving.current.collection == NEW_NAME
    assert await both.collections.answering() == NEW_NAME
    assert await both.held() == {chunk.id: chunk.digest for chunk in map(a_chunk, TEXTS)}
    assert sorted(both.new.texts) == sorted(chunk.embedded_text for chunk in map(a_chunk, TEXTS))
    assert [(each.name, each.chunks, each.answering) for each in await statuses(both.collections)] == [
        (NEW_NAME, 20, True),
        (OLD_NAME, 20, False),
    ]


async def test_what_was_copied_before_a_crash_is_not_embedded_again(both: Both) -> None:
    stopping, calls = asyncio.Event(), 0
    loop = asyncio.get_running_loop()

    def stop_at_the_second() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            loop.call_soon_threadsafe(stopping.set)

    both.new.before = stop_at_the_second
    await both.reembedding().run(stopping)
    done = len(both.new.texts)
    assert 0 < done < len(TEXTS)
    assert both.serving.current.collection == OLD_NAME
    both.new.before = lambda: None
    await both.reembedding().run(asyncio.Event())
    assert len(both.new.texts) == len(TEXTS)
    assert await both.collections.answering() == NEW_NAME


async def test_chunks_that_change_under_the_copy_are_as_they_are_in_the_old_collection(both: Both) -> None:
    """While a slice is embedded, its first chunk is removed from both collections and its second changed in both, and a
    new one comes in, as the hop of documents does it: the old collection first."""
    gone, changed, new = a_chunk(TEXTS[0]), a_chunk(TEXTS[1], ordinal=5), a_chunk("A new chunk.")

    async def write() -> None:
        await both.source.write(points([new], OLD), [changed], [gone.id])
        await both.target.write(points([new], NEW), (), [gone.id])

    difference = Difference(lacking=tuple(a_chunk(text).id for text in TEXTS[:3]))
    loop = asyncio.get_running_loop()
    both.new.before = lambda: asyncio.run_coroutine_threadsafe(write(), loop).result(20)
    following = both.serving.following
    assert following is not None
    assert await copied(both.source, both.target, difference, following.engine, embedded_points) == (
        3,
        sum(len(a_chunk(text).embedded_text) for text in TEXTS[:3]),
    )
    both.new.before = lambda: None
    assert await both.held() == {chunk.id: chunk.digest for chunk in (changed, a_chunk(TEXTS[2]), new)}


async def test_what_the_old_collection_lost_goes_from_the_new_one(both: Both) -> None:
    stale, moved = a_chunk("Nobody has this any more."), a_chunk(TEXTS[4], ordinal=9)
    await both.target.write(points([stale, *map(a_chunk, TEXTS)], NEW), (), ())
    await both.source.write((), [moved], ())
    found = [each async for each in differences(both.source, both.target)]
    assert found == [Difference(lacking=(moved.id,)), Difference(stale=(stale.id,))]
    assert await switched(both.collections, both.source, both.target, NEW_NAME) == found[0]
    assert await both.collections.answering() == OLD_NAME
    await both.reembedding().run(asyncio.Event())
    assert await both.held() == {
        chunk.id: chunk.digest for chunk in (moved, *map(a_chunk, TEXTS)) if chunk.ordinal or chunk.id != moved.id
    }


async def test_replicas_that_begin_elsewhere_find_the_same_differences(both: Both) -> None:
    ids = sorted(a_chunk(text).id for text in TEXTS)
    await both.target.write(points([a_chunk(text) for text in TEXTS[:10]] + [a_chunk("Stale.")], NEW), (), ())
    behind = [str(uuid.UUID(int=uuid.UUID(ids[place]).int + 1)) for place in (0, 7, 19)]
    begins = [None, *ids[::6], *behind, str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1))]
    for begin in begins:
        lacking: list[str] = []
        stale: list[str] = []
        async for each in differences(both.source, both.target, begin):
            lacking.extend(each.lacking)
            stale.extend(each.stale)
        assert sorted(lacking) == sorted(a_chunk(text).id for text in TEXTS[10:]), begin
        assert stale == [a_chunk("Stale.").id], begin


async def test_another_replicas_switch_is_followed(both: Both) -> None:
    await both.collections.let_answer(NEW_NAME)
    await both.reembedding().run(asyncio.Event())
    assert both.serving.current.collection == NEW_NAME
    assert both.new.texts == []


async def test_a_switch_by_hand_is_waited_for(both: Both) -> None:
    stopping = asyncio.Event()
    task = asyncio.create_task(both.reembedding(switch="manual").run(stopping))
    async with asyncio.timeout(20):
        while [each async for each in differences(both.source, both.target)]:
            await asyncio.sleep(0.02)
        assert both.serving.current.collection == OLD_NAME
        both.new.failures = [EmbedderUnavailable("is away")]
        late = ScreenedDocument(
            event_id="late", request_id="upload", tenant_id="support", occurred_at=CLOCK.now(), causation_id="c",
            document_id="late", source="late.md", content="A late document, which the new model cannot embed yet.",
        )  # fmt: skip
        hop = index_hop(both.serving, CLOCK, IndexLimits())
        await hop.handler([Event(Message("documents-screened", 0, 0, 0, b"late", b""), late)])
        assert await both.source.count() == len(TEXTS) + 1
        while [each async for each in differences(both.source, both.target)]:
            await asyncio.sleep(0.02)
        assert await switched(both.collections, both.source, both.target, NEW_NAME) is None
        await task
    assert both.serving.current.collection == NEW_NAME


async def test_an_embedder_that_is_away_or_refuses_is_tried_again_and_named(both: Both) -> None:
    following = both.serving.following
    assert following is not None
    for failure in (EmbedderUnavailable("is away"), EmbedderError("refuses")):
        both.new.failures = [failure]
        with pytest.raises(type(failure), match="support/guide cannot be embedded"):
            await copied(
                both.source, both.target, Difference(lacking=(a_chunk(TEXTS[0]).id,)), following.engine, embedded_points
            )
    assert both.serving.current.collection == OLD_NAME


async def test_which_collection_answers_at_start(collections: Collections) -> None:
    assert await answering_collection(collections, "test-a-4", None) == "test-a-4"
    store = await collections.store("test-a-4", 4)
    await collections.let_answer("test-a-4")
    # An empty collection binds nobody to its model.
    assert await answering_collection(collections, "test-b-4", None) == "test-b-4"
    await store.write(points([a_chunk(TEXTS[0])], Letters("a", 4)), (), ())
    with pytest.raises(StoreMisfit, match=r"from the collection test-a-4.*EMBEDDING_NEXT_"):
        await answering_collection(collections, "test-b-4", "test-c-4")
    assert await answering_collection(collections, "test-b-4", "test-a-4") == "test-a-4"
    assert await answering_collection(collections, "test-a-4", "test-b-4") == "test-a-4"


async def test_chunks_of_an_earlier_release_are_copied_once_in_the_form_of_this_one() -> None:
    client = AsyncQdrantClient(":memory:")
    server = QdrantServer(client, CollectionOptions(), SPACE)
    source, target = await server.store(OLD_NAME, 16), await server.store(NEW_NAME, 24)
    chunk = a_chunk(TEXTS[0])
    await source.write(points([chunk], OLD), (), ())
    earlier = {name: value for name, value in chunk.payload().items() if name not in ("labels", "language")}
    await client.overwrite_payload(OLD_NAME, {**earlier, "digest": "of an earlier release"}, points=[chunk.id])
    engine = Engine(NEW)
    (difference,) = [each async for each in differences(source, target)]
    assert (await copied(source, target, difference, engine, embedded_points))[0] == 1
    assert [each async for each in differences(source, target)] == []
    assert await target.digests_of([chunk.id]) == {chunk.id: chunk.digest}
    await engine.close()
    await client.close()


def test_the_alias_is_no_collections_name() -> None:
    assert alias_name(SPACE) == "test-chunks"
    assert collection_name(Letters("sentence/Model v1.5", 8), SPACE) == "test-sentence-model-v1-5-8"
