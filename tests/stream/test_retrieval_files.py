"""Files on the in-memory log: from `documents` through extraction, guardrails and the index to the passage that answers."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from penstock.bus import MemoryBus, run_hops
from penstock.clock import ManualClock, SystemClock
from penstock.config.kinds import Route, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.config.policies import Policy
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import Context, Document, Message, RetrievalFilter, ScreenedRequest
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.settings import ServiceSettings

from services.guardrails.app import document_hop
from services.guardrails.judge import Judge
from services.guardrails.screening import Limits
from services.retrieval.app import IndexLimits, ground_hop, index_hop
from services.retrieval.extracting import extract_hop
from services.retrieval.pdf import PdfLimits, read_pdf
from services.retrieval.qdrant_embedded import EmbeddedStore
from services.retrieval.serving import Engine, Serving
from tests.unit.pdf_files import encrypted, pdf_of

CLOCK = ManualClock()
PLANE = ConfigPlane.of(
    [
        Route(name="default", targets=(Target(backend="extractive", model="extractive"),)),
        Policy(name="default"),
        Team(name="support"),
    ]
)
MILL = pdf_of(
    ["The mill\nThe weir raises the water by two metres so that it can be led to the wheel.",
     "The sluice\nError E4012 means that the sluice gate is stuck. Clear the gra-\nting and turn the crank by hand.",
     "The flour\nWheat is ground between two stones of French burr."]
)  # fmt: skip


class Flow:
    """The way of documents, in one process."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus

    async def outcomes(self, *documents: Document) -> dict[str, Any]:
        """Send ``documents`` and return what became of each, by its id."""
        before = len(self.bus.messages("documents-indexed"))
        for document in documents:
            await self.bus.publish("documents", document.document_id, document)
        events = await self.bus.collect("documents-indexed", before + len(documents), 30)
        return {event.record.document_id: event.record for event in events[before:]}

    async def passages(self, *questions: str, languages: Sequence[str | None] | None = None) -> list[Any]:
        """Return the best passage for each question, of documents in its language where ``languages`` are given."""
        before = len(self.bus.messages("requests-grounded"))
        wanted = languages or [None] * len(questions)
        for number, (question, language) in enumerate(zip(questions, wanted, strict=True), before):
            request = ScreenedRequest(
                event_id=f"e{number}", request_id=f"r{number}", tenant_id="support", occurred_at=CLOCK.now(),
                causation_id="c", context=Context(requested_at=CLOCK.now()),
                messages=[Message(role="user", content=question)],
                retrieval=None if language is None else RetrievalFilter(language=language),
            )  # fmt: skip
            await self.bus.publish("requests-screened", "one-key", request)
        events = await self.bus.collect("requests-grounded", before + len(questions), 30)
        return [next(iter(event.record.passages), None) for event in events[before:]]


@pytest.fixture
async def flow(tmp_path: Path) -> AsyncIterator[Flow]:
    embedder = MiniLmEmbedder()
    engine = Engine(embedder)
    store = await EmbeddedStore.open(tmp_path, "chunks", embedder.dimension)
    serving, bus = Serving.of(engine, store), MemoryBus(Catalogue.load(), CLOCK)
    judge = Judge(PLANE, {"input": {}, "output": {}, "documents": {}}, b"key", CLOCK)
    hops = [
        extract_hop(partial(read_pdf, limits=PdfLimits(timeout_s=30)), CLOCK, processes=2),
        document_hop(judge, PLANE, Limits()),
        index_hop(serving, CLOCK, IndexLimits()),
        ground_hop(PLANE, serving, CLOCK, candidates=32, max_batch=64),
    ]
    async with _running(hops, bus):
        yield Flow(bus)
    await store.close()
    await engine.close()


@asynccontextmanager
async def _running(hops: Sequence[Any], bus: MemoryBus) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run_hops(hops, bus, bus.codec, SystemClock(), ServiceSettings(), stop))
    try:
        yield
    finally:
        stop.set()
        await task


def a_file(document_id: str, data: bytes | None, content_type: str = "text/plain", **changes: Any) -> Document:
    fields: dict[str, Any] = {
        "event_id": f"{document_id}-{changes.pop('version', 1)}", "request_id": f"upload-{document_id}",
        "tenant_id": "support", "occurred_at": CLOCK.now(), "causation_id": "", "document_id": document_id,
        "source": document_id, "content_type": content_type, "data": data,
    }  # fmt: skip
    return Document(**fields | changes)


async def test_a_pdf_becomes_the_passage_that_answers_with_its_page(flow: Flow) -> None:
    until = CLOCK.now() + timedelta(days=1)
    # The sender of the second one says nothing of its type.
    indexed = await flow.outcomes(a_file("mill.pdf", MILL, "application/pdf", valid_to=until), a_file("same", MILL))
    assert {name: each.status for name, each in indexed.items()} == {"mill.pdf": "indexed", "same": "indexed"}
    assert indexed["mill.pdf"].request_id == "upload-mill.pdf"
    both = await flow.bus.collect("documents-screened", 2)
    (screened,) = [event.record for event in both if event.record.document_id == "mill.pdf"]
    assert (screened.valid_to, screened.language) == (until, None)
    assert "grating" in screened.content
    (passage,) = await flow.passages("What does error E4012 mean?")
    assert "sluice gate is stuck" in passage.text
    assert passage.source in ("mill.pdf#page=1", "same#page=1"), "three short pages are one chunk, from the first on"
    long = pdf_of([f"Gate {n}\n" + f"Gate number {n} of the canal opens at {n} o'clock. " * 30 for n in range(1, 5)])
    await flow.outcomes(a_file("long.pdf", long, "application/pdf"))
    (passage,) = await flow.passages("When does gate number 3 of the canal open?")
    assert passage.source == "long.pdf#page=3"


async def test_files_that_cannot_be_read_end_with_the_reason_and_stop_nothing(flow: Flow) -> None:
    indexed = await flow.outcomes(
        a_file("poison.pdf", b"%PDF-1.7\n" + b"<<" * 5000, "application/pdf"),
        a_file("locked.pdf", encrypted(MILL, "word"), "application/pdf"),
        a_file("scan.pdf", pdf_of(["", ""]), "application/pdf"),
        a_file("picture", b"\x89PNG", "image/png"),
        a_file("binary.txt", b"\x00\x01\x02\x03\x04"),
        a_file("large.txt", b"\xe9" * 8_000_000, "text/plain; charset=latin-1"),
        a_file("good.txt", b"The lock opens at noon."),
    )
    reasons = {name: each.reason for name, each in indexed.items() if each.status == "failed"}
    assert set(reasons) == set(indexed) - {"good.txt"}
    for name, remedy in (
        ("poison.pdf", "qpdf"), ("locked.pdf", "password"), ("scan.pdf", "ocrmypdf"), ("picture", "application/pdf"),
        ("binary.txt", "binary"), ("large.txt", "split it"),
    ):  # fmt: skip
        assert remedy in reasons[name], reasons[name]
    assert indexed["good.txt"].status == "indexed"
    assert flow.bus.messages("dlq-retrieval") == []


async def test_a_removal_that_overtakes_its_file_leaves_nothing(flow: Flow) -> None:
    for document in (
        a_file("mill.pdf", MILL, "application/pdf"),
        a_file("mill.pdf", None, deleted=True, version=2),
    ):
        await flow.bus.publish("documents", document.document_id, document)
    # The removal comes at once, and again behind the file.
    events = [event.record.status for event in await flow.bus.collect("documents-indexed", 3, 30)]
    assert sorted(events) == ["deleted", "deleted", "indexed"]
    assert events[-1] == "deleted"
    assert await flow.passages("What does error E4012 mean?") == [None]


TEXTS = {
    "pl": (
        "iso8859_2",
        "Młyn stoi nad rzeką i codziennie rano miele pszenicę. Źródło żółtej łąki.",
        "Gdzie stoi młyn?",
    ),
    "fr": ("cp1252", "Le moulin se trouve près de la rivière, où l’été est très chaud.", "Où se trouve le moulin ?"),
    "ru": ("koi8_r", "Мельница стоит на берегу реки и каждое утро мелет пшеницу.", "Где стоит мельница?"),
    "ar": ("cp1256", "تقع الطاحونة على ضفة النهر وتطحن القمح كل صباح.", "أين تقع الطاحونة؟"),
    "he": ("cp1255", "הטחנה עומדת על גדת הנהר וטוחנת חיטה בכל בוקר.", "איפה עומדת הטחנה?"),
    "ja": ("shift_jis", "水車は川の水で回り、毎朝小麦を挽きます。", "水車は何で回りますか"),
    "zh": ("gb18030", "闸门在中午打开，每天早晨研磨玉米。", "闸门什么时候打开？"),
    "ko": ("euc_kr", "물레방아는 강물로 돌아가며 매일 아침 밀을 빻습니다.", "물레방아는 무엇으로 돌아갑니까?"),
    "hi": ("utf-16", "चक्की नदी के किनारे खड़ी है और हर सुबह गेहूँ पीसती है।", "चक्की कहाँ खड़ी है?"),
    # Its marks stand by themselves (NFD), as some editors and file systems write them.
    "vi": ("utf-8", "Cối xay nước đứng bên bờ sông và xay lúa mì mỗi buổi sáng.", "Cối xay nước đứng ở đâu?"),
}


async def test_texts_in_any_encoding_and_script_are_found_and_their_language_is_told(flow: Flow) -> None:
    files = [
        a_file(language, (unicodedata.normalize("NFD", text) if language == "vi" else text).encode(encoding))
        for language, (encoding, text, _) in TEXTS.items()
    ]
    indexed = await flow.outcomes(*files)
    assert {each.status for each in indexed.values()} == {"indexed"}
    questions = {language: question for language, (_, _, question) in TEXTS.items()}
    found = await flow.passages(*questions.values())
    assert [passage.document_id for passage in found] == list(TEXTS)
    assert [passage.text for passage in found] == [text for _, text, _ in TEXTS.values()]
    inside = await flow.passages(*questions.values(), languages=list(questions))
    assert [passage and passage.document_id for passage in inside] == list(questions)
    assert await flow.passages(*questions.values(), languages=["en"] * len(questions)) == [None] * len(questions)
