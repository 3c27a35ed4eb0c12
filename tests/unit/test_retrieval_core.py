"""Chunk identities, index plans, questions and the events that follow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.records import Context, Message, Passage, ScreenedDocument, ScreenedRequest, Status

from services.retrieval.chunking import Chunk
from services.retrieval.core import (
    ChunkRecord,
    Grounding,
    chunk_records,
    expired,
    grounded,
    indexed,
    plan_index,
    question_of,
    refusal,
)

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def a_document(**changes: Any) -> ScreenedDocument:
    fields: dict[str, Any] = {
        "event_id": "e1", "request_id": "upload", "tenant_id": "support", "occurred_at": NOW, "causation_id": "c",
        "document_id": "guide", "title": "Guide", "source": "docs/guide.md", "content": "text",
    }  # fmt: skip
    return ScreenedDocument(**fields | changes)


def a_request(*messages: Message, **context: Any) -> ScreenedRequest:
    return ScreenedRequest(
        event_id="e1", request_id="r1", tenant_id="support", occurred_at=NOW, causation_id="c",
        context=Context(requested_at=NOW, **context),
        messages=list(messages) or [Message(role="user", content="what is a weir?")],
    )  # fmt: skip


def cut(*texts: str) -> list[Chunk]:
    chunks, at = [], 0
    for ordinal, text in enumerate(texts):
        chunks.append(Chunk(ordinal, at, at + len(text), text, ("Guide", "Part"), len(text.split())))
        at += len(text) + 1
    return chunks


def records(*texts: str, **changes: Any) -> list[ChunkRecord]:
    return chunk_records(a_document(**changes), "", cut(*texts))


def stored(chunks: Sequence[ChunkRecord]) -> dict[str, str]:
    return {chunk.id: chunk.digest for chunk in chunks}


def test_ids_are_the_same_again_and_differ_by_team_document_collection_and_text() -> None:
    first = records("alpha", "beta")
    assert [chunk.id for chunk in records("alpha", "beta")] == [chunk.id for chunk in first]
    others = [
        records("alpha", tenant_id="sales"), records("alpha", document_id="other"), records("alpha", title="Other"),
        records("alpha", tags={"collection": "faq"}), records("alphas"),
    ]  # fmt: skip
    ids = [chunk.id for chunk in first] + [chunk.id for (chunk,) in others]
    assert len(set(ids)) == len(ids)


def test_equal_chunks_of_one_document_have_ids_of_their_own() -> None:
    assert len({chunk.id for chunk in records("same", "same", "same")}) == 3


def test_the_title_and_headings_are_embedded_with_the_text_once() -> None:
    (chunk,) = records("body")
    assert chunk.embedded_text == "Guide > Part\nbody"
    assert chunk.collection == "default"
    assert records("body", tags={"collection": "faq"})[0].collection == "faq"


def test_the_title_a_document_gives_itself_stands_in() -> None:
    assert chunk_records(a_document(title=""), "Own title", cut("body"))[0].title == "Own title"


def test_a_record_survives_the_store() -> None:
    (chunk,) = records("body", tags={"lang": "en"})
    assert ChunkRecord.from_payload(chunk.id, {**chunk.payload(), "digest": chunk.digest}) == chunk


def test_a_first_version_is_embedded_whole_and_the_same_again_not_at_all() -> None:
    wanted = records("alpha", "beta")
    first = plan_index(wanted, {})
    assert [chunk.text for chunk in first.embed] == ["alpha", "beta"]
    assert plan_index(wanted, stored(wanted)).unchanged


def test_a_paragraph_in_front_embeds_only_itself() -> None:
    old, new = records("alpha", "beta"), records("intro", "alpha", "beta")
    plan = plan_index(new, stored(old))
    assert [chunk.text for chunk in plan.embed] == ["intro"]
    assert [chunk.text for chunk in plan.rewrite] == ["alpha", "beta"]  # they moved
    assert plan.remove == ()


def test_a_replaced_version_leaves_no_stale_chunk() -> None:
    old, new = records("alpha", "beta", "gamma"), records("alpha", "delta")
    plan = plan_index(new, stored(old))
    assert [chunk.text for chunk in plan.embed] == ["delta"]
    assert set(plan.remove) == {old[1].id, old[2].id}


def test_new_tags_are_written_without_embedding() -> None:
    plan = plan_index(records("alpha", tags={"lang": "en"}), stored(records("alpha")))
    assert (len(plan.embed), len(plan.rewrite), plan.remove) == (0, 1, ())


def test_a_deletion_removes_every_chunk() -> None:
    old = records("alpha", "beta")
    plan = plan_index([], stored(old))
    (emit,) = indexed(a_document(deleted=True), plan, "m", NOW)
    assert emit.topic == "documents-indexed"
    assert (emit.record.status, emit.record.chunks_removed, emit.record.chunks) == ("deleted", 2, 0)  # type: ignore[attr-defined]


@given(st.lists(st.sampled_from("abcd"), max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_carrying_out_a_plan_gives_exactly_the_wanted_chunks(before: list[str], after: list[str]) -> None:
    old, wanted = records(*before), records(*after)
    state = stored(old)
    plan = plan_index(wanted, state)
    state |= stored(plan.embed) | stored(plan.rewrite)
    for gone in plan.remove:
        del state[gone]
    assert state == stored(wanted)
    assert plan_index(wanted, state).unchanged


def test_the_question_is_the_last_one_of_the_user() -> None:
    messages = [
        Message(role="system", content="be brief"), Message(role="user", content="first"),
        Message(role="assistant", content="answer"), Message(role="user", content=" second "),
    ]  # fmt: skip
    assert question_of(messages) == "second"
    assert question_of([Message(role="system", content="be brief")]) == ""


def test_of_a_very_long_question_both_ends_are_kept() -> None:
    question = question_of([Message(role="user", content="start " + "x" * 1_000_000 + " end?")])
    assert question.startswith("start")
    assert question.endswith("end?")
    assert len(question) <= 8_001


@pytest.mark.parametrize(("deadline", "late"), [(None, False), (NOW, True), (NOW.replace(minute=1), False)])
def test_a_request_expires_at_its_deadline(deadline: datetime | None, late: bool) -> None:
    assert expired(a_request(deadline_at=deadline), NOW) is late


def test_a_grounded_request_carries_all_of_the_screened_one() -> None:
    request = a_request(conversation_id="talk", policy_version="p1")
    passages = [Passage(passage_id="c", document_id="guide", text="text", score=0.9)]
    (emit,) = grounded(request, Grounding("grounded", tuple(passages), b"\0" * 4, "m"), NOW)
    assert (emit.topic, emit.key) == ("requests-grounded", "talk")
    carried = msgspec.structs.asdict(emit.record)
    for field in ("context", "messages", "sampling", "stream", "request_id", "tenant_id"):
        assert carried[field] == getattr(request, field)
    assert carried["passages"] == passages
    assert (carried["grounding"], carried["embedding"], carried["embedder"]) == ("grounded", b"\0" * 4, "m")
    assert carried["causation_id"] == request.event_id


def test_steps_are_deterministic_and_refusals_say_where_they_come_from() -> None:
    request = a_request()
    assert grounded(request, Grounding("off"), NOW) == grounded(request, Grounding("off"), NOW)
    (emit,) = refusal(request, Status.EXPIRED, "expired", "too late", NOW)
    assert (emit.topic, emit.key) == ("refusals", "r1")
    assert (emit.record.stage, emit.record.status, emit.record.prompt) == ("retrieval", "expired", "what is a weir?")  # type: ignore[attr-defined]
