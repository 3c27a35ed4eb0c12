"""A new model takes over while requests are grounded and documents change, on the in-memory log and the embedded store."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from penstock.bus import MemoryBus, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Route, Target
from penstock.config.plane import ConfigPlane
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Context, Message, ScreenedDocument, ScreenedRequest
from penstock.embedding import Embedded, EmbedderUnavailable, unpack_vector
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.embedding.protocol import Vectors
from penstock.settings import ServiceSettings

from services.retrieval.adapters import collection_name
from services.retrieval.app import IndexLimits, embedded_points, ground_hop, index_hop
from services.retrieval.chunking import Chunk
from services.retrieval.core import chunk_records
from services.retrieval.qdrant_embedded import EmbeddedFolder
from services.retrieval.reembedding import Pace, Reembedding, differences
from services.retrieval.serving import Engine, Index, Serving
from tests.stream.copying_process import NEW, OLD

CLOCK = ManualClock()
PLANE = ConfigPlane.of([Route(name="default", targets=(Target(backend="extractive", model="extractive"),))])
PROJECT = Path(__file__).parents[2]
LOCKS = 12


class Turned(MiniLmEmbedder):
    """Another model of the same size: the packaged one with the halves of its vectors exchanged, so that its vectors make
    no sense beside the other's, and are as good among themselves."""

    away = False

    @property
    def name(self) -> str:
        return "turned"

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        if self.away:
            raise EmbedderUnavailable("the next model is away")
        made = super().embed_counted(texts)
        turned: Vectors = made.vectors.copy()
        half = self.dimension // 2
        turned[:, :half], turned[:, half:] = made.vectors[:, half:], -made.vectors[:, :half]
        return Embedded(turned, made.tokens)


def a_document(number: int, boats: int, version: int = 1, deleted: bool = False) -> ScreenedDocument:
    text = "" if deleted else f"# Lock {number}\n\nLock number {number} holds {boats} boats."
    return ScreenedDocument(
        event_id=f"lock-{number}-{version}", request_id="upload", tenant_id="support", occurred_at=CLOCK.now(),
        causation_id="c", document_id=f"lock-{number}", source=f"{number}.md", content_type="text/markdown",
        content=text, deleted=deleted,
    )  # fmt: skip


def a_request(name: str, number: int) -> ScreenedRequest:
    return ScreenedRequest(
        event_id=f"e-{name}", request_id=name, tenant_id="support", occurred_at=CLOCK.now(), causation_id="c",
        context=Context(requested_at=CLOCK.now()),
        messages=[Message(role="user", content=f"How many boats does lock {number} hold?")],
    )  # fmt: skip


class Log:
    """The log in memory, and who reads from it."""

    def __init__(self) -> None:
        self.bus = MemoryBus(Catalogue.load(), CLOCK)

    @asynccontextmanager
    async def served(self, serving: Serving) -> AsyncIterator[None]:
        hops = [ground_hop(PLANE, serving, CLOCK, candidates=32, max_batch=8), index_hop(serving, CLOCK, IndexLimits())]
        stop, settings = asyncio.Event(), ServiceSettings(retry_timeout_s=20)
        flow = asyncio.create_task(run_hops(hops, self.bus, self.bus.codec, SystemClock(), settings, stop))
        try:
            yield
        finally:
            stop.set()
            await flow

    async def indexed(self, *documents: ScreenedDocument) -> None:
        for document in documents:
            await self.bus.publish("documents-screened", document.document_id, document)
        await self.bus.collect("documents-indexed", len(self.bus.messages("documents-screened")), 30)

    async def grounded(self, name: str, number: int) -> Any:
        await self.bus.publish("requests-screened", name, a_request(name, number))
        events = await self.bus.collect("requests-grounded", len(self.bus.messages("requests-screened")), 30)
        return next(event.record for event in events if event.record.request_id == name)


async def test_requests_are_grounded_all_through_a_change_of_the_model(tmp_path: Path) -> None:
    log, folder = Log(), await EmbeddedFolder.open(tmp_path)
    old, new = MiniLmEmbedder(), Turned()
    source, target = [await folder.store(collection_name(each), each.dimension) for each in (old, new)]
    await folder.let_answer(collection_name(old))
    engines = Engine(old), Engine(new)
    current = Index(engines[0], source, collection_name(old))
    async with log.served(Serving(current)):
        await log.indexed(*(a_document(number, number + 100) for number in range(LOCKS)))

    serving = Serving(current, Index(engines[1], target, collection_name(new)))
    reembedding = Reembedding(serving, folder, source, target, embedded_points, SystemClock(), Pace(0.3, 0.02))
    answers: list[Any] = []
    numbers = [0]
    async with log.served(serving):
        answers.append(await log.grounded("before", 0))
        copying = asyncio.create_task(reembedding.run(asyncio.Event()))
        while not copying.done():
            numbers.append(2 + len(answers) % (LOCKS - 2))
            answers.append(await log.grounded(f"during-{len(answers)}", numbers[-1]))
            if len(answers) == 2:
                await log.indexed(a_document(0, 777, version=2), a_document(20, 120), a_document(1, 0, 2, deleted=True))
        await copying
        after = [await log.grounded(f"after-{number}", number) for number in (0, 20, 5)]
        gone = await log.grounded("gone", 1)

    assert await folder.answering() == collection_name(new)
    assert [each async for each in differences(source, target)] == []
    for number, record in zip(numbers, answers, strict=True):
        assert record.grounding == "grounded", record.request_id
        assert record.passages[0].document_id == f"lock-{number}", record.request_id
    for record in (*answers, *after):
        # The vector that travels with a request is of the model that it names.
        model = {old.name: old, new.name: new}[record.embedder]
        question = record.messages[-1].content
        assert float(unpack_vector(record.embedding) @ model.embed([question])[0]) > 0.99
    models = [record.embedder for record in answers]
    assert models == sorted(models, key=[old.name, new.name].index), "a request went back to the old model"
    assert models[0] == old.name
    assert {record.embedder for record in after} == {new.name}
    assert [record.passages[0].document_id for record in after] == ["lock-0", "lock-20", "lock-5"]
    assert "777" in after[0].passages[0].text
    assert "lock-1" not in {passage.document_id for passage in gone.passages}
    for engine in engines:
        await engine.close()
    await folder.close()


async def test_a_next_model_that_is_away_holds_up_no_document_and_gets_it_later(tmp_path: Path) -> None:
    log, folder = Log(), await EmbeddedFolder.open(tmp_path)
    old, new = MiniLmEmbedder(), Turned()
    source, target = [await folder.store(collection_name(each), each.dimension) for each in (old, new)]
    await folder.let_answer(collection_name(old))
    serving = Serving(
        Index(Engine(old), source, collection_name(old)), Index(Engine(new), target, collection_name(new))
    )
    async with log.served(serving):
        await log.indexed(a_document(1, 101), a_document(2, 102))
        new.away = True
        await log.indexed(a_document(2, 202, version=2), a_document(3, 103), a_document(1, 0, 2, deleted=True))
        new.away = False
        assert (await log.grounded("before", 3)).passages[0].document_id == "lock-3"
        copy = Reembedding(serving, folder, source, target, embedded_points, SystemClock(), Pace(1.0, 0.02))
        await copy.run(asyncio.Event())
        after = [await log.grounded(f"after-{number}", number) for number in (2, 3)]
    assert {record.embedder for record in after} == {new.name}
    assert ["202" in record.passages[0].text or "103" in record.passages[0].text for record in after] == [True, True]
    assert await target.count() == 2
    # An event's tokens are those of the model that it names, whose price they have.
    reported = [event.record for event in await log.bus.collect("documents-indexed", 5, 10)]
    assert [record.status for record in reported] == ["indexed", "indexed", "indexed", "indexed", "deleted"]
    assert {record.embedder for record in reported} == {old.name}
    assert len({record.embedded_tokens for record in reported[:4]}) == 1
    for index in serving.written:
        await index.engine.close()
    await folder.close()


async def test_a_copy_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = await EmbeddedFolder.open(tmp_path)
    source = await folder.store(collection_name(OLD), OLD.dimension)
    document = ScreenedDocument(
        event_id="e", request_id="u", tenant_id="support", occurred_at=CLOCK.now(), causation_id="c", document_id="locks",
        source="locks.md", content_type="text/plain", content="",
    )  # fmt: skip
    chunks = [
        Chunk(ordinal=n, start=n, end=n + 1, tokens=5, heading=(), text=f"Lock number {n} holds {n + 100} boats.")
        for n in range(32)
    ]
    points, _ = embedded_points(chunk_records(document, "", chunks), OLD)
    await source.write(points, (), ())
    await folder.let_answer(collection_name(OLD))
    await folder.close()

    async def copying(share: float) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.stream.copying_process", str(tmp_path), str(share), cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": f"{PROJECT / 'shared'}{os.pathsep}{PROJECT}"}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def embedded(process: asyncio.subprocess.Process, most: int) -> list[int]:
        assert process.stdout is not None
        found: list[int] = []
        async with asyncio.timeout(60):
            while len(found) < most and (line := await process.stdout.readline()):
                if line.startswith(b"embedded"):
                    found.append(int(line.split()[1]))
        return found

    first = await copying(0.2)
    before = await embedded(first, 2)  # so that the first eight are written
    first.send_signal(signal.SIGKILL)
    before += await embedded(first, 1000)
    assert await first.wait() == -signal.SIGKILL, "it was done before it was killed"
    second = await copying(1.0)
    after = await embedded(second, 1000)
    assert await second.wait() == 0
    # What was embedded and not yet written, eight at most, is embedded twice.
    assert sum(before) < 32 <= sum(before) + sum(after) <= 32 + 8
    folder = await EmbeddedFolder.open(tmp_path)
    assert await folder.answering() == collection_name(NEW)
    assert dict(await folder.sizes()) == {collection_name(OLD): 32, collection_name(NEW): 32}
    await folder.close()
