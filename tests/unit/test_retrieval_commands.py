"""`penstock retrieval search`, `status`, `switch` and `drop` on a folder that no service has open."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result
from penstock.embedding import EmbeddingSettings, embedder_from_settings
from penstock.embedding.settings import EmbeddingChoice, embedder_of
from prometheus_client import REGISTRY

from services.retrieval.adapters import Point, collection_name
from services.retrieval.chunking import ChunkLimits
from services.retrieval.command import retrieval
from services.retrieval.qdrant_embedded import EmbeddedFolder, EmbeddedStore
from services.retrieval.quality.question_sets import Passage
from services.retrieval.quality.ranking import open_index
from services.retrieval.sparse import chunk_vector

CORPUS = (
    Passage("weir.md", "The mill", "The weir raises the water level by two metres so that it can be led to the wheel."),
    Passage("bees.md", "The garden", "The hives stand behind the orchard. Honey is taken in July."),
)
NEXT = EmbeddingChoice(provider="endpoint", base_url="http://127.0.0.1:1/v1", model="next", dimension=8)
ENVIRONMENT = {
    "EMBEDDING_NEXT_PROVIDER": "endpoint", "EMBEDDING_NEXT_BASE_URL": "http://127.0.0.1:1/v1",
    "EMBEDDING_NEXT_MODEL": "next", "EMBEDDING_NEXT_DIMENSION": "8",
}  # fmt: skip

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed")

    async def filled() -> None:
        embedder = embedder_from_settings(EmbeddingSettings())
        async with open_index(folder, CORPUS, embedder, ChunkLimits(), lambda done: None):
            pass

    asyncio.run(filled())
    return folder


@pytest.fixture
def folder(indexed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(indexed, tmp_path / "qdrant"))


@pytest.fixture
def run(folder: Path) -> Run:
    def ran(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(retrieval, arguments, env={"QDRANT_PATH": str(folder), **environment})

    return ran


def test_a_question_is_answered_with_what_would_be_attached_and_to_its_team_alone(run: Run) -> None:
    before = _passages("count"), _passages("sum")
    said = run("search", "When is honey taken?", "--team", "evaluation", "--json")
    assert said.exit_code == 0, said.output
    found = msgspec.json.decode(said.stdout)
    assert (_passages("count") - before[0], _passages("sum") - before[1]) == (1.0, 1.0), "the service's own hop counts"
    assert (found["grounding"], found["embedder"]) == ("grounded", "all-MiniLM-L6-v2")
    assert [each["document_id"] for each in found["passages"]] == ["bees.md"]
    table = run("search", "When is honey taken?", "--team", "evaluation", "--floor", "0", "--top", "2")
    assert "weir.md" in table.stdout
    assert table.stdout.index("bees.md") < table.stdout.index("weir.md")
    for other in (["--team", "another"], ["--team", "evaluation", "--collection", "faq"],
                  ["--team", "evaluation", "--tag", "product=x"]):  # fmt: skip
        for floor in (["--floor", "0"], []):
            nothing = run("search", "When is honey taken?", *other, *floor)
            assert "has no document in this collection that fulfils the conditions" in nothing.stdout
    above = run("search", "When is honey taken?", "--team", "evaluation", "--floor", "1")
    assert "no passage reaches the floor; --floor 0 shows" in above.stdout
    assert "of bees.md" in above.stdout


def _passages(what: str) -> float:
    return REGISTRY.get_sample_value(f"penstock_retrieved_passages_{what}", {"route": "evaluation"}) or 0.0


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--tag", "x"], {}, "--tag 'x' is not KEY=VALUE"),
        (["--config", "/none.yaml"], {}, "/none.yaml is no file"),
        ([], {"QDRANT_PATH": "/nonexistent"}, "/nonexistent does not exist: nothing was indexed there"),
        ([], {"QDRANT_NAMESPACE": "other"}, "nothing was indexed yet"),
    ],
)
def test_a_search_that_cannot_be_made_says_why(
    run: Run, arguments: list[str], environment: dict[str, str], message: str
) -> None:
    said = run("search", "When?", "--team", "evaluation", *arguments, **environment)
    assert said.exit_code != 0
    assert message in said.stderr


def test_the_next_model_answers_when_its_collection_holds_everything(run: Run, folder: Path) -> None:
    old = collection_name(embedder_from_settings(EmbeddingSettings()))
    new = collection_name(embedder_of(NEXT))

    async def copied(count: int) -> None:
        """Put the first chunks of the old collection into the new one, under vectors of another model."""
        collections = await EmbeddedFolder.open(folder)
        source, target = await collections.store(old, 384), await collections.store(new, 8)
        ids, _ = await source.listed(None, 10)
        chunks = await source.chunks(list(ids)[:count])
        vector = np.full(8, 8**-0.5, np.float32)
        await target.write([Point(each, vector, chunk_vector(each.text)) for each in chunks], (), ())
        if await collections.answering() is None:
            await collections.let_answer(old)
        await collections.close()

    asyncio.run(copied(1))
    short = run("switch", **ENVIRONMENT)
    assert short.exit_code == 1
    assert "not switched: the next collection lacks at least 1 of the chunks" in short.stderr
    asyncio.run(copied(2))
    assert run("switch", **ENVIRONMENT).stdout == f"requests are answered from {new}\n"
    listed = [msgspec.json.decode(line) for line in run("status", "--json").stdout.splitlines()]
    assert {each["name"]: (each["chunks"], each["answering"]) for each in listed} == {old: (2, False), new: (2, True)}
    kept = run("drop", new, "--yes")
    assert kept.exit_code == 1, "requests are answered from it"
    assert run("drop", old, input="n\n").exit_code == 1
    assert run("drop", old, "--yes").exit_code == 0
    assert old not in run("status").stdout
    unset = run("switch")
    assert "no model is to follow: set EMBEDDING_NEXT_MODEL" in unset.stderr


def test_a_folder_that_a_service_has_open_is_left_alone(run: Run, folder: Path) -> None:
    async def beside() -> Result:
        store = await EmbeddedStore.open(folder, collection_name(embedder_from_settings(EmbeddingSettings())), 384)
        try:
            return await asyncio.to_thread(run, "status")
        finally:
            await store.close()

    said = asyncio.run(beside())
    assert said.exit_code == 1
    assert "is open in another process" in said.stderr
