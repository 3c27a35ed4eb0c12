"""Events to signals, with what is read of their texts: identities, versions, determinism, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.bus import Event
from penstock.bus import Message as LogMessage
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.codec import Codec
from penstock.contracts.records import Record, Signal, Verdict
from penstock.embedding.protocol import Embedded, EmbedderError, Vectors, unpack_vector

from services.drift.projection import InvalidEmbedding, family_of, project, texts, vector_of
from services.drift.texts import TextReader, packaged_text_reader
from tests.unit.test_drift_signals import COMPLETION, COST, EVALUATION, RESULT, SCREENED, VECTOR, VERDICT

CODEC = Codec.offline(Catalogue.load())
EVENTS: list[tuple[str, Record]] = [
    ("completions", COMPLETION),
    ("costs", COST),
    ("evaluations", EVALUATION),
    ("verdicts", VERDICT),
    ("llm-results", RESULT),
    ("requests-screened", SCREENED),
]
GERMAN = "Wir haben die Rechnung gestern geprüft und leider einen Fehler gefunden, bitte schicken Sie uns eine neue."


@pytest.mark.parametrize(("topic", "record"), EVENTS, ids=[topic for topic, _ in EVENTS])
def test_each_record_says_where_it_is_from_and_again_the_same(topic: str, record: Record) -> None:
    of_texts = {"answer.language": "de", "answer.topic": VECTOR, "prompt.language": "en"}
    emits = project(topic, 3, 41, record, of_texts)
    assert emits
    assert project(topic, 3, 41, record, of_texts) == emits
    assert len({emit.record.event_id for emit in emits}) == len(emits)
    for emit in emits:
        signal = emit.record
        assert isinstance(signal, Signal)
        assert (emit.topic, emit.key) == ("signals", family_of(signal.segment))
        assert (signal.source, signal.source_partition, signal.source_offset) == (topic, 3, 41)
        assert (signal.causation_id, signal.occurred_at) == (record.event_id, record.occurred_at)
        assert CODEC.decode("signals", CODEC.encode("signals", signal)) == signal


@pytest.mark.parametrize("purpose", ["judge", "evaluation"])
@pytest.mark.parametrize(("topic", "record"), EVENTS, ids=[topic for topic, _ in EVENTS])
def test_what_is_no_traffic_has_no_signals(topic: str, record: Any, purpose: str) -> None:
    if isinstance(record, Verdict):
        other: Any = msgspec.structs.replace(record, purpose=purpose)
    else:
        other = msgspec.structs.replace(record, context=msgspec.structs.replace(record.context, purpose=purpose))
    assert texts(topic, other) == []
    assert project(topic, 0, 0, other, {"answer.language": "de"}) == []


def test_a_records_identity_does_not_depend_on_what_else_its_event_says() -> None:
    whole = {emit.record.segment: emit.record.event_id for emit in project("evaluations", 0, 0, EVALUATION)}  # type: ignore[attr-defined]
    part = msgspec.structs.replace(EVALUATION, scores=EVALUATION.scores[:1])
    (emit,) = project("evaluations", 0, 0, part)
    assert whole[emit.record.segment] == emit.record.event_id  # type: ignore[attr-defined]


def test_versions_name_what_was_in_force() -> None:
    (first, *_) = project("completions", 0, 0, COMPLETION)
    assert isinstance(first.record, Signal)
    assert first.record.versions == {
        "prompt": "v1", "policy": "p1", "model": "m-2026", "request_model": "m", "embedder": "all-MiniLM-L6-v2"
    }  # fmt: skip
    (verdict,) = project("verdicts", 0, 0, VERDICT)
    assert verdict.record.versions == {"policy": "p1"}  # type: ignore[attr-defined]
    scored = project("evaluations", 0, 0, EVALUATION)[0].record
    # What the evaluator learned since moves with every label and is no release.
    assert scored.versions["evaluator.toxicity"] == "tox-1"  # type: ignore[attr-defined]


@pytest.mark.parametrize("embedding", [b"", b"abc", np.zeros(8, "<f4").tobytes(), np.full(8, np.nan, "<f4").tobytes()])
def test_an_embedding_that_is_none_is_refused(embedding: bytes) -> None:
    with pytest.raises(InvalidEmbedding, match="embedder"):
        project("completions", 0, 0, msgspec.structs.replace(COMPLETION, embedding=embedding))


def test_an_embedding_is_a_row_of_float32() -> None:
    assert vector_of(VECTOR).shape == (1, 8)
    assert vector_of(VECTOR).dtype == np.float32


def test_the_texts_that_are_read() -> None:
    assert [(text.signal, text.content) for text in texts("requests-screened", SCREENED)] == [
        ("prompt.language", "hello")
    ]
    assert [text.signal for text in texts("completions", COMPLETION)] == ["answer.topic", "answer.language"]
    cached = msgspec.structs.replace(COMPLETION, kind="cached")
    assert texts("completions", cached) == []
    assert texts("completions", msgspec.structs.replace(COMPLETION, content=" \n")) == []
    assert texts("costs", COST) == []


class CountingEmbedder:
    """Embeds a text as its length and its first letter; says how many it was given at once."""

    name, dimension = "counting", 2

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[Sequence[str]] = []
        self.fails = fails

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(texts)
        if self.fails:
            raise EmbedderError("no direction")
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        return Embedded(self.embed(texts), tuple(len(text) for text in texts))

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [(0, len(text))]


def event(topic: str, record: Record, offset: int = 0) -> Event[Any]:
    return Event(LogMessage(topic, 0, offset, 0, b"k", b"v"), record)


def answers(number: int) -> list[Event[Any]]:
    return [
        event("completions", msgspec.structs.replace(COMPLETION, request_id=f"r{n}", content=f"{n} {GERMAN * 20}"), n)
        for n in range(number)
    ]


async def test_the_same_share_of_the_requests_is_read_however_they_come() -> None:
    embedder = CountingEmbedder()
    reader = TextReader(language=lambda text: "de", language_share=0.5, embedder=embedder, embedding_share=0.1)
    events = answers(2000)
    at_once = await reader.read(events)
    one_by_one = [(await reader.read([each]))[0] for each in reversed(events)][::-1]
    assert at_once == one_by_one
    embedded = sum("answer.topic" in each for each in at_once)
    told = sum("answer.language" in each for each in at_once)
    assert 0.08 < embedded / 2000 < 0.12
    assert 0.46 < told / 2000 < 0.54
    # Each by itself: beside others its last bits would differ.
    assert {len(call) for call in embedder.calls} == {1}
    assert max(len(call[0]) for call in embedder.calls) == 512


async def test_nothing_is_read_where_nothing_may_be() -> None:
    assert await TextReader().read(answers(3)) == [{}, {}, {}]
    assert await TextReader(language=lambda text: None).read(answers(2)) == [{}, {}]
    failing = TextReader(language=lambda text: "de", embedder=CountingEmbedder(fails=True), embedding_share=1.0)
    assert await failing.read(answers(1)) == [{"answer.language": "de"}]


async def test_the_packaged_models_read_prompts_and_answers() -> None:
    reader = packaged_text_reader(answer_embeddings=True, answer_share=1.0, language_share=1.0)
    answer = msgspec.structs.replace(COMPLETION, content=GERMAN)
    question = msgspec.structs.replace(
        SCREENED, messages=[msgspec.structs.replace(SCREENED.messages[1], content="Where can I find my last invoice?")]
    )
    first, second = await reader.read([event("completions", answer), event("requests-screened", question)])
    assert first["answer.language"] == "de"
    assert second == {"prompt.language": "en"}
    vector = first["answer.topic"]
    assert isinstance(vector, bytes)
    assert np.linalg.norm(unpack_vector(vector, 384)) == pytest.approx(1.0, abs=1e-5)
    assert await reader.read([event("completions", answer)]) == [first]
    quiet = packaged_text_reader(answer_embeddings=False, answer_share=1.0, language_share=0.0)
    assert await quiet.read([event("completions", answer)]) == [{}]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.text(min_size=1, max_size=20))
async def test_any_text_of_any_request_is_read_without_an_error(content: str, request_id: str) -> None:
    reader = packaged_text_reader(answer_embeddings=False, answer_share=0.0, language_share=1.0)
    completion = msgspec.structs.replace(COMPLETION, content=content, request_id=request_id)
    (read,) = await reader.read([event("completions", completion)])
    assert set(read) <= {"answer.language"}
