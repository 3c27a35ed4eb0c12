"""Both stores keep the same promises: the embedded one, and the one that speaks to a Qdrant server.

The server's is run against qdrant-client's own in-memory engine, and against a real server where QDRANT_URL is set.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from penstock.embedding.protocol import Vectors
from qdrant_client import AsyncQdrantClient

from services.retrieval.adapters import PassageStore, Point, Query, StoreMisfit, StoreUnavailable
from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.exact_index import ExactIndex
from services.retrieval.filters import Conditions
from services.retrieval.qdrant_embedded import EmbeddedStore
from services.retrieval.qdrant_server import QdrantStore
from services.retrieval.sparse import chunk_vector, query_vector

SIZE = 8
TEXTS = [
    "The weir raises the water for the mill.",
    "A turbine turns falling water into electricity.",
    "The miller grinds wheat between two stones.",
    "Error E4012 means that the sluice gate is stuck.",
    "Bread is baked from flour, water and salt.",
]


def direction(text: str) -> Vectors:
    """Return a unit vector that follows from the text's words: texts that share words are near each other."""
    total = np.zeros(SIZE)
    for index in chunk_vector(text).indices:
        total += np.random.default_rng(index).normal(size=SIZE)
    return (total / np.linalg.norm(total)).astype(np.float32)


def a_point(text: str, team: str = "support", document_id: str = "guide", **changes: Any) -> Point:
    identity = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{team}/{document_id}/{text}"))
    fields: dict[str, Any] = {
        "id": identity, "team": team, "collection": "default", "document_id": document_id, "ordinal": 0, "start": 0,
        "end": len(text), "tokens": len(text.split()), "title": "Guide", "source": "guide.md", "heading": ("A", "B"),
        "text": text, "tags": {"lang": "en"},
    }  # fmt: skip
    return Point(ChunkRecord(**fields | changes), direction(text), chunk_vector(text))


def a_query(text: str, team: str = "support", collection: str = "default") -> Query:
    return Query(Conditions(team, collection), direction(text), query_vector(text))


async def embedded(folder: Path) -> PassageStore:
    return await EmbeddedStore.open(folder / "qdrant", "chunks", SIZE)


async def on_memory_engine(_: Path) -> PassageStore:
    store = QdrantStore(AsyncQdrantClient(":memory:"), "chunks", SIZE)
    await store.prepare()
    return store


async def on_server(_: Path) -> PassageStore:
    if "QDRANT_URL" not in os.environ:
        pytest.skip("QDRANT_URL is not set: no Qdrant server to test against")
    client = AsyncQdrantClient(url=os.environ["QDRANT_URL"], prefer_grpc=True)
    store = QdrantStore(client, f"penstock-test-{uuid.uuid4().hex[:8]}", SIZE)
    await store.prepare()
    return store


@pytest.fixture(params=[embedded, on_memory_engine, on_server])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PassageStore]:
    make: Callable[[Path], Awaitable[PassageStore]] = request.param
    made = await make(tmp_path)
    yield made
    await made.close()


async def find(store: PassageStore, query: Query, limit: int = 10) -> list[Hit]:
    (hits,) = await store.search([query], limit)
    return sorted(hits, key=lambda hit: -(hit.cosine + hit.lexical))


async def test_what_was_written_is_found_as_it_was(store: PassageStore) -> None:
    points = [a_point(text) for text in TEXTS]
    await store.write(points, (), ())
    best = (await find(store, a_query("sluice gate error E4012")))[0]
    assert best.chunk == points[3].chunk
    assert best.cosine == pytest.approx(float(points[3].dense @ direction("sluice gate error E4012")), abs=1e-5)


async def test_no_query_sees_another_teams_or_collections_chunk(store: PassageStore) -> None:
    mine = [a_point(text) for text in TEXTS]
    theirs = [a_point(text, team="sales") for text in TEXTS]
    elsewhere = [a_point(f"{text} Elsewhere.", collection="faq") for text in TEXTS]
    await store.write([*mine, *theirs, *elsewhere], (), ())
    for text in TEXTS:
        for team, collection in (("support", "default"), ("sales", "default"), ("support", "faq")):
            found = await find(store, a_query(text, team, collection), 50)
            assert len(found) == len(TEXTS)
            assert {(hit.chunk.team, hit.chunk.collection) for hit in found} == {(team, collection)}
    assert await find(store, a_query(TEXTS[0], "strangers")) == []
    assert await find(store, a_query(TEXTS[0], "support", "nothing")) == []


async def test_queries_of_one_batch_get_their_own_hits(store: PassageStore) -> None:
    await store.write([a_point(text) for text in TEXTS], (), ())
    found = await store.search([a_query(text) for text in TEXTS], 10)
    best = [max(hits, key=lambda hit: hit.cosine + hit.lexical).chunk.text for hits in found]
    assert best == TEXTS
    assert await store.search([], 10) == []


async def test_scores_are_on_their_scale_and_words_decide_the_lexical_one(store: PassageStore) -> None:
    await store.write([a_point(text) for text in TEXTS], (), ())
    hits = {hit.chunk.text: hit for hit in await find(store, a_query("weir mill unheard"))}
    assert 0 < hits[TEXTS[0]].lexical < 1
    assert hits[TEXTS[4]].lexical == pytest.approx(0, abs=1e-6)
    assert all(-1.0001 <= hit.cosine <= 1.0001 for hit in hits.values())
    alone = {hit.chunk.text: hit for hit in await find(store, a_query("weir mill"))}
    assert alone[TEXTS[0]].lexical > hits[TEXTS[0]].lexical, "a word that no chunk has lowers the share"


async def test_writing_again_changes_nothing_and_a_rewrite_keeps_the_vectors(store: PassageStore) -> None:
    point = a_point(TEXTS[0])
    await store.write([point], (), ())
    await store.write([point], (), ())
    (before,) = await find(store, a_query(TEXTS[0]))
    moved = a_point(TEXTS[0], start=7, end=46, ordinal=3).chunk
    await store.write((), [moved], ())
    (after,) = await find(store, a_query(TEXTS[0]))
    assert after.chunk == moved
    assert (after.cosine, after.lexical) == (before.cosine, before.lexical)
    assert await store.digests("support", "guide") == {moved.id: moved.digest}


async def test_digests_are_those_of_one_document_of_one_team(store: PassageStore) -> None:
    mine = [a_point(text) for text in TEXTS]
    await store.write([*mine, a_point(TEXTS[0], document_id="other"), a_point(TEXTS[0], team="sales")], (), ())
    assert await store.digests("support", "guide") == {point.chunk.id: point.chunk.digest for point in mine}
    assert await store.digests("support", "missing") == {}


async def test_removed_chunks_are_gone_and_unknown_ids_do_no_harm(store: PassageStore) -> None:
    points = [a_point(text) for text in TEXTS]
    await store.write(points, (), ())
    await store.write((), (), [points[0].chunk.id, str(uuid.uuid4())])
    assert points[0].chunk.id not in await store.digests("support", "guide")
    found = await find(store, a_query(TEXTS[0]))
    assert {hit.chunk.text for hit in found} == set(TEXTS[1:])


async def test_both_kinds_of_store_give_the_same_scores(tmp_path: Path) -> None:
    texts = [f"{TEXTS[n % 5]} Note {n} names {'weir ' * (n % 4)} and gate {n * 7 % 11}." for n in range(40)]
    points = [a_point(text, document_id=f"d{n}") for n, text in enumerate(texts)]
    stores = [await embedded(tmp_path), await on_memory_engine(tmp_path)]
    for store in stores:
        await store.write(points, (), ())
    for question in ["weir gate 3", "miller stones", "electricity from water"]:
        one, other = [{h.chunk.id: h for h in await find(store, a_query(question), 40)} for store in stores]
        assert one.keys() == other.keys()
        for identity, hit in one.items():
            assert hit.cosine == pytest.approx(other[identity].cosine, abs=1e-4)
            assert hit.lexical == pytest.approx(other[identity].lexical, abs=1e-3)
    for store in stores:
        await store.close()


async def test_the_embedded_store_is_there_after_a_restart(tmp_path: Path) -> None:
    first = await embedded(tmp_path)
    points = [a_point(text) for text in TEXTS]
    await first.write(points, (), ())
    moved = a_point(TEXTS[1], start=9).chunk
    await first.write((), [moved], [points[0].chunk.id])
    before = await find(first, a_query("falling water"))
    await first.close()
    second = await embedded(tmp_path)
    after = await find(second, a_query("falling water"))
    assert [hit.chunk for hit in after] == [hit.chunk for hit in before]
    np.testing.assert_allclose([hit.lexical for hit in after], [hit.lexical for hit in before], rtol=1e-6)
    assert moved in [hit.chunk for hit in after]
    assert points[0].chunk.id not in await second.digests("support", "guide")
    await second.close()


async def test_a_second_writer_on_the_folder_is_told_what_to_do(tmp_path: Path) -> None:
    first = await embedded(tmp_path)
    with pytest.raises(StoreMisfit, match=r"another process.*QDRANT_URL"):
        await embedded(tmp_path)
    await first.close()
    await (await embedded(tmp_path)).close()


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "qdrant").write_text("a file")
    with pytest.raises(StoreMisfit, match="QDRANT_PATH"):
        await embedded(tmp_path)


async def test_a_server_that_is_away_is_unavailable(free_port: int) -> None:
    client = AsyncQdrantClient(url=f"http://127.0.0.1:{free_port}", timeout=2, check_compatibility=False)
    store = QdrantStore(client, "chunks", SIZE)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        await store.prepare()
    with pytest.raises(StoreUnavailable):
        await store.search([a_query("anything")], 5)
    await store.close()


async def test_a_collection_of_another_embedder_is_a_misfit() -> None:
    client = AsyncQdrantClient(":memory:")
    await QdrantStore(client, "chunks", SIZE).prepare()
    with pytest.raises(StoreMisfit, match="EMBEDDING_DIMENSION"):
        await QdrantStore(client, "chunks", SIZE + 1).prepare()
    await client.close()


def test_the_index_keeps_working_through_many_changes() -> None:
    index, rng = ExactIndex(SIZE), np.random.default_rng(7)
    alive: dict[str, Point] = {}
    for step in range(600):
        point = a_point(f"{TEXTS[step % 5]} number {rng.integers(120)}", document_id=f"d{step % 9}")
        if rng.random() < 0.6:
            index.put(point.chunk, point.dense, point.sparse)
            alive[point.chunk.id] = point
        else:
            index.remove(point.chunk.id)
            alive.pop(point.chunk.id, None)
    assert len(index) == len(alive)
    query = a_query("weir number 17")
    found = {hit.chunk.id: hit for hit in index.search(query.conditions, query.dense, query.sparse, 1000)}
    assert found.keys() == alive.keys()
    for identity, hit in found.items():
        assert hit.cosine == pytest.approx(float(alive[identity].dense @ query.dense), abs=1e-5)
    nearest = index.search(query.conditions, query.dense, query.sparse, 5)
    assert max(found.values(), key=lambda hit: hit.cosine).chunk.id in {hit.chunk.id for hit in nearest}
    assert max(found.values(), key=lambda hit: hit.lexical).chunk.id in {hit.chunk.id for hit in nearest}
    for point in alive.values():
        index.remove(point.chunk.id)
    assert index.search(query.conditions, query.dense, query.sparse, 5) == []


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
