"""Both stores of answers keep the same promises: the one in a folder, and the one on a Qdrant server.

The server's is run against qdrant-client's own in-memory engine, and against a real server where QDRANT_URL is set.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode  # type: ignore[import-untyped]
from grpc.aio import AioRpcError, Metadata  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.clock import ManualClock
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import Usage
from penstock.embedding import Embedder
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.embedding.protocol import Vectors
from qdrant_client import AsyncQdrantClient

from services.retrieval.adapters import StoreUnavailable
from services.retrieval.answer_store import AnswerStore, Erasure, Lookup, scope_filter
from services.retrieval.answering_again import SemanticCache
from services.retrieval.embedded_answers import EmbeddedAnswers
from services.retrieval.qdrant_embedded import EmbeddedFolder, EmbeddedStore
from services.retrieval.semantic_cache import Asked, Candidate, Earlier, Entry, Given, released_digest
from services.retrieval.server_answers import ServerAnswers
from services.retrieval.serving import Engine, Serving

SIZE = 8
NOW = 1_767_600_000.0
GIVEN = Given("completion", "Press it.", ("p1",), "m-1", "openai", "m", Usage(input_tokens=4, output_tokens=2))


def vector(seed: int) -> Vectors:
    drawn = np.random.default_rng(seed).normal(size=SIZE)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def an_asked(request_id: str, team: str = "support", scope: str = "s", **changes: object) -> Asked:
    base = Asked(team, request_id, scope, "How?", "default", "ada", ("p1", "p2"), ("d1",), NOW + 60)
    return replace(base, **changes)  # type: ignore[arg-type]


async def in_folder(path: Path) -> AnswerStore:
    return await EmbeddedAnswers.open(await EmbeddedFolder.open(path), "answers", SIZE)


async def on_memory_engine(_: Path) -> AnswerStore:
    return await ServerAnswers.open(AsyncQdrantClient(":memory:"), "answers", SIZE)


async def on_server(_: Path) -> AnswerStore:
    if "QDRANT_URL" not in os.environ:
        pytest.skip("QDRANT_URL is not set: no Qdrant server to test against")
    client = AsyncQdrantClient(url=os.environ["QDRANT_URL"], prefer_grpc=True)
    return await ServerAnswers.open(client, f"answers-test-{uuid.uuid4().hex[:8]}", SIZE)


@pytest.fixture(params=[in_folder, on_memory_engine, on_server])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnswerStore]:
    make: Callable[[Path], Awaitable[AnswerStore]] = request.param
    made = await make(tmp_path)
    yield made
    if isinstance(made, EmbeddedAnswers):
        await made.folder.close()
    elif isinstance(made, ServerAnswers):
        await made.client.delete_collection(made.collection)
        await made.client.close()


async def complete(store: AnswerStore, asked: Asked, seed: int, ends: float = NOW + 3600) -> None:
    await store.put([Lookup(asked, vector(seed))])
    entry = await store.get(asked.team, asked.request_id)
    assert entry is not None
    await store.release(entry, released_digest(GIVEN.content), ends)
    await store.answer(entry, GIVEN)


async def near(store: AnswerStore, asked: Asked, seed: int, now: float = NOW) -> list[Candidate]:
    (found,) = await store.near([Lookup(asked, vector(seed))], 8, now)
    return found


async def test_an_answer_is_found_once_it_is_there_and_released_in_whichever_order(store: AnswerStore) -> None:
    asked = an_asked("r1", earlier=Earlier("r0", 0.9, hit=False))
    await store.put([Lookup(asked, vector(1))])
    entry = await store.get("support", "r1")
    assert entry == Entry(asked)
    assert await near(store, an_asked("r2"), 1) == []
    await store.answer(entry, GIVEN)
    assert await near(store, an_asked("r2"), 1) == []
    await store.release(entry, released_digest(GIVEN.content), NOW + 3600)
    await store.put([Lookup(asked, vector(1))])  # read again after a crash: the answer stays
    (found,) = await near(store, an_asked("r2"), 1)
    assert found.entry.given == GIVEN
    assert found.entry.is_complete
    assert found.entry.asked.expires_at == NOW + 3600
    assert found.cosine == pytest.approx(1.0, abs=1e-5)


async def test_the_nearest_come_first_of_one_team_and_scope_until_they_end(store: AnswerStore) -> None:
    for number in range(4):
        await complete(store, an_asked(f"r{number}"), number)
    await complete(store, an_asked("other", team="sales"), 1)
    await complete(store, an_asked("else", scope="t"), 1)
    await complete(store, an_asked("shadow", keep=False), 1)
    found = await near(store, an_asked("now"), 1)
    assert found[0].entry.asked.request_id == "r1"
    assert {each.entry.asked.request_id for each in found} == {"r0", "r1", "r2", "r3"}
    assert [each.cosine for each in found] == sorted((each.cosine for each in found), reverse=True)
    assert await near(store, an_asked("now"), 1, NOW + 3600) == []
    assert [e.entry.asked.request_id for e in await near(store, an_asked("now", team="sales"), 1)] == ["other"]


async def test_answers_go_by_document_user_request_and_age(store: AnswerStore) -> None:
    await complete(store, an_asked("r1", documents=("d1", "d2")), 1)
    await complete(store, an_asked("r2", documents=("d2",), user_id=None), 2)
    await complete(store, an_asked("r3", user_id="eva", documents=()), 3)
    await complete(store, an_asked("r4", user_id="eva", documents=()), 4, ends=NOW + 1)
    await store.put([Lookup(an_asked("waits", documents=("d1",)), vector(5))])
    await complete(store, an_asked("r1", team="sales", documents=("d1",)), 1)

    async def left() -> set[str]:
        return {each.entry.asked.request_id for each in await near(store, an_asked("now"), 1)}

    await store.erase(Erasure("support", document_id="d1"))
    assert await left() == {"r2", "r3", "r4"}
    assert await store.get("support", "waits") is None
    await store.sweep(NOW + 2)
    assert await left() == {"r2", "r3"}
    await store.erase(Erasure("support", user_id="eva"))
    assert await left() == {"r2"}
    await store.erase(Erasure("support", request_id="r2"))
    assert await left() == set()
    assert len(await near(store, an_asked("now", team="sales"), 1)) == 1


async def test_what_is_gone_is_not_made_anew_by_its_answer(store: AnswerStore) -> None:
    await store.put([Lookup(an_asked("r1"), vector(1))])
    entry = await store.get("support", "r1")
    assert entry is not None
    await store.erase(Erasure("support", user_id="ada"))
    await store.answer(entry, GIVEN)
    await store.release(entry, released_digest(GIVEN.content), NOW + 3600)
    assert await store.get("support", "r1") is None
    assert await near(store, an_asked("r2"), 1) == []


async def test_a_folder_has_its_answers_after_a_restart_and_awaits_none(tmp_path: Path) -> None:
    folder = await EmbeddedFolder.open(tmp_path)
    store = await EmbeddedAnswers.open(folder, "answers", SIZE)
    await complete(store, an_asked("r1"), 1)
    await complete(store, an_asked("r2"), 2)
    await store.erase(Erasure("support", request_id="r2"))
    await store.put([Lookup(an_asked("r3"), vector(3))])
    await folder.close()
    folder = await EmbeddedFolder.open(tmp_path)
    again = await EmbeddedAnswers.open(folder, "answers", SIZE)
    (found,) = await near(again, an_asked("now"), 1)
    assert found.entry == replace(
        Entry(an_asked("r1", expires_at=NOW + 3600)), given=GIVEN, released=found.entry.released
    )
    assert found.cosine == pytest.approx(1.0, abs=1e-5)
    assert await again.get("support", "r3") is None
    await folder.close()


async def test_answers_of_the_embedder_before_are_erased_and_swept_too(tmp_path: Path) -> None:
    folder = await EmbeddedFolder.open(tmp_path)
    before = await EmbeddedAnswers.open(folder, "answers-before", SIZE + 1)
    for request_id, user_id, ends in (("r1", "ada", NOW + 9), ("r2", "eva", NOW + 9), ("r3", "eva", NOW + 1)):
        await before.put([Lookup(an_asked(request_id, user_id=user_id), np.ones(SIZE + 1, np.float32))])
        entry = await before.get("support", request_id)
        assert entry is not None
        await before.answer(entry, GIVEN)
        await before.release(entry, released_digest(GIVEN.content), ends)
    now = await EmbeddedAnswers.open(folder, "answers-now", SIZE)
    await now.erase(Erasure("support", user_id="ada"))
    await now.sweep(NOW + 2)
    left = await EmbeddedAnswers.open(folder, "answers-before", SIZE + 1)
    assert [await left.get("support", name) is not None for name in ("r1", "r2", "r3")] == [False, True, False]
    await folder.close()


async def test_a_folder_keeps_a_bounded_number_those_that_end_last(tmp_path: Path) -> None:
    folder = await EmbeddedFolder.open(tmp_path)
    store = await EmbeddedAnswers.open(folder, "answers", SIZE, most=20)
    for number in range(60):
        await store.put([Lookup(an_asked(f"r{number}", expires_at=NOW + number), vector(number))])
        assert len(store) <= 20
    assert await store.get("support", "r59") is not None
    assert await store.get("support", "r0") is None
    await folder.close()


@given(st.text(max_size=30), st.text(max_size=30))
def test_every_search_asks_for_team_and_scope(team: str, scope: str) -> None:
    condition = scope_filter(an_asked("r", team=team, scope=scope), NOW)
    told = {each.key: each.match.value for each in condition.must or [] if getattr(each, "match", None)}  # type: ignore[union-attr]
    assert (told["asked.team"], told["asked.scope"], told["asked.keep"]) == (team, scope, True)


def test_an_erasure_names_one_thing() -> None:
    with pytest.raises(ValueError, match="name one of"):
        Erasure("support")
    with pytest.raises(ValueError, match="name one of"):
        Erasure("support", request_id="r", user_id="u")


class Text(str):
    """An answer that counts how often it is read as a whole."""

    __slots__ = ()
    read = 0

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        Text.read += 1
        return super().encode(encoding, errors)


async def test_a_question_that_awaits_its_answer_does_not_have_all_others_read_again(tmp_path: Path) -> None:
    folder = await EmbeddedFolder.open(tmp_path)
    entries = {}
    for n in range(50):
        given_ = replace(GIVEN, content=Text("Press it."))
        entries[str(uuid.uuid4())] = Entry(an_asked(f"r{n}"), given_, released_digest(GIVEN.content)), vector(n)
    answers = EmbeddedAnswers(folder, "answers", entries, "answers", 100)
    Text.read = 0
    for n in range(5):
        await answers.put([Lookup(an_asked(f"new{n}"), vector(n))])
        (found,) = await answers.near([Lookup(an_asked("other"), vector(n))], 2, NOW)
        assert found[0].cosine == pytest.approx(1.0)
    assert Text.read == 0
    await folder.close()


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "complete", "erase"]), st.integers(0, 5), st.sampled_from("ab")), min_size=8
    )
)
async def test_a_search_in_the_folder_finds_what_is_complete_and_nothing_else(
    steps: list[tuple[str, int, str]],
) -> None:
    with tempfile.TemporaryDirectory() as path:
        folder = await EmbeddedFolder.open(Path(path))
        answers = await EmbeddedAnswers.open(folder, "answers", SIZE)
        kept: dict[int, str] = {}
        for step, n, scope in steps:
            if step == "put":
                await answers.put([Lookup(an_asked(f"r{n}", scope=scope), vector(n))])
            elif step == "complete" and n not in kept:
                await complete(answers, an_asked(f"r{n}", scope=scope), n)
                kept[n] = scope
            elif step == "erase":
                await answers.erase(Erasure("support", request_id=f"r{n}"))
                kept.pop(n, None)
            for each in "ab":
                (found,) = await answers.near([Lookup(an_asked("other", scope=each), vector(n))], 9, NOW)
                assert {one.entry.asked.request_id for one in found} == {f"r{k}" for k, s in kept.items() if s == each}
                for one in found:
                    seed = int(one.entry.asked.request_id[1:])
                    assert one.cosine == pytest.approx(float(vector(seed) @ vector(n)), abs=1e-5)
        await folder.close()


class OverGrpc(AsyncQdrantClient):
    """A server whose collection is not there before it is made, which fails with ``code``."""

    def __init__(self, code: StatusCode) -> None:
        super().__init__(":memory:")
        self.code = code

    async def create_collection(self, collection_name: str, *args: Any, **kwargs: Any) -> bool:
        if self.code == StatusCode.ALREADY_EXISTS:  # another replica has made it meanwhile
            await super().create_collection(collection_name, *args, **kwargs)
        raise AioRpcError(self.code, Metadata(), Metadata(), "no")


async def test_answers_that_another_replica_makes_first_or_a_server_that_goes_away_break_no_request() -> None:
    assert isinstance(await ServerAnswers.open(OverGrpc(StatusCode.ALREADY_EXISTS), "answers", SIZE), ServerAnswers)
    with pytest.raises(StoreUnavailable):
        await ServerAnswers.open(OverGrpc(StatusCode.UNAVAILABLE), "answers", SIZE)


async def test_the_hops_of_one_process_open_one_store_together(tmp_path: Path) -> None:
    opened: list[AnswerStore] = []

    async def make(embedder: Embedder) -> AnswerStore:
        opened.append(await in_folder(tmp_path / str(len(opened))))
        return opened[-1]

    embedder = MiniLmEmbedder()
    chunks = await EmbeddedStore.open(tmp_path / "chunks", "chunks", embedder.dimension)
    cache = SemanticCache(ConfigPlane.of([]), Serving.of(Engine(embedder), chunks), make, ManualClock())
    await asyncio.gather(*(cache.erase(Erasure("support", user_id="ada")) for _ in range(3)))
    assert len(opened) == 1
    await chunks.close()
    await opened[0].folder.close()  # type: ignore[attr-defined]
