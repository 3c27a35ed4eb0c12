"""From settings to what serves, start after start, on the embedded store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from penstock.clock import SystemClock
from penstock.embedding import EmbedderError
from pydantic import ValidationError

from services.retrieval.adapters import StoreMisfit, StoreUnavailable
from services.retrieval.app import embedded_points
from services.retrieval.core import ChunkRecord
from services.retrieval.opening import Opened, connected, open_collections, open_serving
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.qdrant_server import QdrantServer
from services.retrieval.settings import Settings

PACKAGED, REMOTE = "penstock-all-minilm-l6-v2-384", "penstock-remote-model-8"
NEXT = {
    "embedding_next_model": "remote/model",
    "embedding_next_base_url": "http://127.0.0.1:9/v1",  # nobody is there, which no start needs to know
    "embedding_next_dimension": "8",
}

CHUNK = ChunkRecord(
    id="6c7ad2f0-5b7b-5d5e-8f3c-1f2f3a4b5c6d", team="support", collection="default", document_id="guide", ordinal=0,
    start=0, end=4, tokens=1, title="", source="", heading=(), text="weir",
)  # fmt: skip


def settings(folder: Path, **fields: str) -> Settings:
    return Settings.model_validate({"qdrant_path": folder / "qdrant", **fields})


@asynccontextmanager
async def started(folder: Path, **fields: str) -> AsyncIterator[tuple[EmbeddedFolder | QdrantServer, Opened]]:
    """A start and a stop of the service."""
    chosen = settings(folder, **fields)
    collections = await open_collections(chosen, SystemClock())
    try:
        opened = await open_serving(chosen, collections, SystemClock())
        try:
            yield collections, opened
        finally:
            await opened.close()
    finally:
        await collections.close()


async def test_a_model_is_named_filled_answers_and_becomes_the_only_one(tmp_path: Path) -> None:
    async with started(tmp_path) as (collections, opened):
        assert opened.reembedding is None
        assert opened.serving.current.collection == PACKAGED
        assert await collections.answering() == PACKAGED
        points, _ = embedded_points([CHUNK], opened.serving.current.engine.embedder)
        await opened.serving.current.store.write(points, (), ())

    async with started(tmp_path, **NEXT) as (collections, opened):
        assert opened.reembedding is not None
        assert [index.collection for index in opened.serving.written] == [PACKAGED, REMOTE]
        assert opened.serving.current.collection == PACKAGED
        assert await collections.answering() == PACKAGED
        await collections.let_answer(REMOTE)

    async with started(tmp_path, **NEXT) as (_, opened):
        assert opened.reembedding is None
        assert [index.collection for index in opened.serving.written] == [REMOTE]
        embedder = opened.serving.current.engine.embedder
        assert (embedder.name, embedder.dimension) == ("remote/model", 8)

    remote = {name.replace("embedding_next_", "embedding_"): value for name, value in NEXT.items()}
    async with started(tmp_path, **remote) as (collections, opened):
        assert [index.collection for index in opened.serving.written] == [REMOTE]
        await collections.drop(PACKAGED)
        assert set(await collections.sizes()) == {REMOTE}


async def test_a_model_that_was_changed_without_a_copy_is_refused_while_there_are_chunks(tmp_path: Path) -> None:
    remote = {name.replace("embedding_next_", "embedding_"): value for name, value in NEXT.items()}
    async with started(tmp_path, **remote):
        pass
    async with started(tmp_path) as (collections, opened):  # nothing was there to be lost
        assert await collections.answering() == PACKAGED
        points, _ = embedded_points([CHUNK], opened.serving.current.engine.embedder)
        await opened.serving.current.store.write(points, (), ())
    with pytest.raises(StoreMisfit, match=f"{PACKAGED}.*{REMOTE}.*EMBEDDING_NEXT_"):
        async with started(tmp_path, **remote):
            pass


async def test_the_model_in_use_cannot_follow_itself(tmp_path: Path) -> None:
    with pytest.raises(EmbedderError, match=r"EMBEDDING_NEXT_.* in use"):
        async with started(tmp_path, embedding_next_model="all-MiniLM-L6-v2"):
            pass


async def test_installations_of_one_qdrant_are_apart_by_their_namespace(tmp_path: Path) -> None:
    async with started(tmp_path, qdrant_namespace="one") as (collections, _):
        assert set(await collections.sizes()) == {"one-all-minilm-l6-v2-384"}
    async with started(tmp_path, qdrant_namespace="two") as (collections, _):
        assert set(await collections.sizes()) == {"two-all-minilm-l6-v2-384"}
        assert await collections.answering() == "two-all-minilm-l6-v2-384"


async def test_a_server_that_is_away_is_waited_for_and_then_named(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9"
    chosen = settings(tmp_path, qdrant_url=url, qdrant_grpc="false", qdrant_timeout_s="1", start_timeout_s="0.01")
    with pytest.raises(StoreUnavailable, match=f"QDRANT_URL={url}"):
        await open_collections(chosen, SystemClock())


def test_what_needs_a_server_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreMisfit, match="QDRANT_URL"):
        connected(settings(tmp_path))


def test_no_write_could_be_confirmed_by_more_copies_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="QDRANT_WRITE_CONSISTENCY"):
        settings(tmp_path, qdrant_write_consistency="2")
    options = settings(
        tmp_path, qdrant_write_consistency="2", qdrant_replicas="3", qdrant_shards="6", qdrant_quantization="int8",
        qdrant_on_disk_vectors="true", qdrant_on_disk_payload="false",
    ).collection_options()  # fmt: skip
    assert (options.shards, options.replicas, options.write_consistency) == (6, 3, 2)
    assert (options.quantization, options.on_disk_vectors, options.on_disk_payload) == ("int8", True, False)


def test_no_namespace_is_the_beginning_of_another_ones_names(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="qdrant_namespace"):
        settings(tmp_path, qdrant_namespace="penstock-eu")
