"""Rated conversations as a dataset: whole, with their evidence and offsets, and without personal data that was put back."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import pyarrow.parquet as pq
from penstock.contracts.records import LogRange, Message, ToolCall

from services.evaluation.feedback.conversations import LOG_METADATA, parquet_of
from tests.unit.feedback_partition import feedback, passage, result
from tests.unit.test_feedback_commands import World, completion


async def test_rated_conversations_go_out_with_evidence_and_rating_as_json_and_parquet(catalogue: Any) -> None:
    world = World(catalogue)
    said = [
        Message(role="user", content="one"),
        Message(role="assistant", content="two"),
        Message(role="user", content="q"),
    ]
    await world.put(
        result(0), completion(0, *said, passages=[passage("evidence")]), feedback(0, "ada", rating=0.5),
        feedback(0, "bob", repeat=1, rating=1.0),
        result(1), completion(1, said[0]), feedback(1, "ada", rating=0.0, correction="Better."),
        result(2), completion(2, said[0]), feedback(2, "ada", rating=1.0, labels={"answer.toxicity": "toxic"}),
        result(3), completion(3, said[0]), feedback(3, "ada", labels={"prompt.topic": "x"}),
        result(4), feedback(4, "ada", rating=0.1),
    )  # fmt: skip
    dataset, manifest = await world.exported("conversations")
    rows = [json.loads(line) for line in dataset.lines]
    assert [(row["request_id"], row["answer"], row["rating"], row["corrected"]) for row in rows] == [
        ("r0", "answer 0", 0.75, False), ("r1", "Better.", 0.0, True), ("r4", "answer 4", 0.1, False),
    ]  # fmt: skip
    assert [each["content"] for each in rows[0]["messages"]] == ["one", "two", "q"]
    assert [each["text"] for each in rows[0]["passages"]] == ["evidence"]
    assert [row["conversation_id"] for row in rows] == ["c0", "c1", "c4"]
    assert manifest.skipped == {"labelled toxic or ungrounded": 1, "neither corrected nor rated": 1}
    table = pq.read_table(io.BytesIO(parquet_of(dataset.lines, manifest.log)))
    as_json = [json.loads(msgspec.json.encode(row)) for row in table.to_pylist()]
    assert as_json == rows
    offsets = msgspec.json.decode(table.schema.metadata[LOG_METADATA], type=list[LogRange])
    assert {each.topic for each in offsets} == {"feedback", "llm-results", "completions"}
    assert parquet_of(dataset.lines, manifest.log) == parquet_of(dataset.lines, manifest.log)
    assert pq.read_table(io.BytesIO(parquet_of([], manifest.log))).num_rows == 0


async def test_a_conversation_with_tools_does_not_go_out_without_its_calls(catalogue: Any) -> None:
    world = World(catalogue)
    call = ToolCall(id="call_1", name="look_up", arguments="{}")
    asked = Message(role="user", content="Is it warm?")
    called = Message(role="assistant", content="", tool_calls=[call])
    said = Message(role="tool", content="17", tool_call_id="call_1")
    for number, (messages, calls) in enumerate([((asked,), [call]), ((asked, called, said), []), ((asked,), [])]):
        answered = msgspec.structs.replace(completion(number, *messages), content="I see.", tool_calls=calls)
        released = result(number, content="I see.", prompt=asked.content)
        released = msgspec.structs.replace(released, tool_calls=calls)
        await world.put(released, answered, feedback(number, rating=1.0))
    dataset, manifest = await world.exported("sft")
    assert len(dataset.lines) == 1
    assert manifest.skipped == {"tools were called": 2}


async def test_personal_data_that_was_put_back_into_an_answer_does_not_go_out(catalogue: Any) -> None:
    world = World(catalogue)
    asked = Message(role="user", content="Write to <PERSON_1> (<EMAIL_1>).")
    texts = {
        0: ("Dear <PERSON_1>,\n<EMAIL_1> it is.", "Dear Ada,\nada@example.org it is."),
        1: ("Dear <PERSON_1>!", "Dear Ada! <PHONE_NUMBER_1>"),  # masked on the way out as well
        2: ("No names here (really).", "No names here (really)."),
    }
    for number, (before, after) in texts.items():
        answered = msgspec.structs.replace(completion(number, asked), content=before)
        await world.put(result(number, content=after, prompt=asked.content), answered, feedback(number, rating=1.0))
    await world.put(result(3, content="Dear Ada", prompt=asked.content), feedback(3, rating=1.0))
    for name in ("conversations", "sft"):
        dataset, manifest = await world.exported(name)
        rows = [json.loads(line) for line in dataset.lines]
        answers = [row["answer"] if name == "conversations" else row["messages"][-1]["content"] for row in rows]
        assert answers == [texts[0][0], texts[2][0]]
        assert manifest.skipped == {"personal data was put back into the answer": 2}
        assert b"ada@" not in dataset.content
