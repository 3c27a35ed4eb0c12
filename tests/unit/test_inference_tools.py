"""Tools on their way to an endpoint and calls on their way back: what is asked, what is read, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Cache, Target
from penstock.contracts.records import Alternative, Context, GroundedRequest, Message, Sampling, ToolCall, Usage

from services.inference.adapters import BackendError, ExtractiveBackend
from services.inference.core import Answered, completion, fitted
from services.inference.exact_cache import asked_of, is_repeatable, kept_of
from services.inference.openai_body import body_of
from services.inference.openai_reply import LARGEST_ANSWER, Reply
from services.inference.pieces import NoPieces
from services.inference.progress import Progress
from services.inference.prompt import Prompt, prompt_of

TARGET = Target(backend="openai", model="m", base_url="http://127.0.0.1/v1")
TOOLS = '[ {"type":"function", "function":{"name":"weather","parameters":{"b":1.0,"a":{}}}} ]'
CALL = ToolCall(id="call_1", name="weather", arguments='{"city": "Köln"}')
CONVERSATION = [
    Message(role="user", content="Is it warm in Köln?"),
    Message(role="assistant", content="", tool_calls=[CALL]),
    Message(role="tool", content="17 °C", tool_call_id="call_1"),
]
ANSWERED = Answered("m", "openai", "", "tool_calls", Usage(input_tokens=1, output_tokens=1), 1, tool_calls=(CALL,))


NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)


def a_request(messages: list[Message], sampling: Sampling) -> GroundedRequest:
    return GroundedRequest(
        event_id="e1", request_id="r1", tenant_id="support", occurred_at=NOW, causation_id="c",
        context=Context(requested_at=NOW), messages=messages, sampling=sampling,
    )  # fmt: skip


def test_tools_and_calls_have_the_shapes_of_openai() -> None:
    sampling = Sampling(tools=TOOLS, tool_choice='{"type":"function","function":{"name":"weather"}}')
    said = body_of(
        msgspec.structs.replace(sampling, parallel_tool_calls=False),
        Prompt(tuple(CONVERSATION), 0),
        TARGET,
        stream=False,
    )
    assert TOOLS.encode() in said
    body = json.loads(said)
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False
    function = {"name": "weather", "arguments": '{"city": "Köln"}'}
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "17 °C", "tool_call_id": "call_1"},
    ]


def a_part(index: int | None, id: str | None = None, name: str | None = None, arguments: Any = None) -> dict[str, Any]:
    part = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in part.items() if value is not None}


def a_chunk(
    *parts: dict[str, Any], index: int = 0, finish_reason: str | None = None, content: str | None = None
) -> bytes:
    delta = {"content": content, "tool_calls": list(parts) or None}
    return json.dumps({"choices": [{"index": index, "delta": delta, "finish_reason": finish_reason}]}).encode()


def a_reply(**given: Any) -> Reply:
    return Reply("e", takes_calls=True, event_id="e1", **given)


def test_a_call_is_put_together_from_its_parts() -> None:
    reply = a_reply(n=2)
    for event in (
        a_chunk(content="Let me see. "),
        a_chunk(a_part(0, "call_1", "weather", "")),
        a_chunk(a_part(0, arguments='{"city":'), a_part(1, "call_2", "time", "{}")),
        a_chunk(a_part(0, "call_9", "other", "[]"), index=1, finish_reason="tool_calls"),
        a_chunk(a_part(0, arguments=' "Köln"}'), finish_reason="tool_calls"),
    ):
        reply.take_chunk(event)
    second = ToolCall(id="call_2", name="time", arguments="{}")
    assert reply.answer() == Alternative(content="Let me see. ", finish_reason="tool_calls", tool_calls=[CALL, second])
    (other,) = reply.alternatives()
    assert [call.name for call in other.tool_calls] == ["other"]


@given(cuts=st.lists(st.integers(0, 80), max_size=8), numbered=st.booleans())
def test_however_arguments_are_cut_they_come_whole(cuts: list[int], numbered: bool) -> None:
    arguments = json.dumps({"city": "Köln", "days": [1, 2, 3], "note": 'a "b"\n' * 3})
    reply = a_reply()
    reply.take_chunk(a_chunk(a_part(0 if numbered else None, "call_1", "weather", "")))
    at = [0, *sorted(cuts), len(arguments)]
    for start, end in pairwise(at):
        # Some endpoints give neither number nor id, and some the name again with every part.
        reply.take_chunk(
            a_chunk(
                a_part(0, name="weather", arguments=arguments[start:end])
                if numbered
                else a_part(None, arguments=arguments[start:end])
            )
        )
    reply.take_chunk(a_chunk(finish_reason="tool_calls"))
    assert reply.answer().tool_calls == [ToolCall(id="call_1", name="weather", arguments=arguments)]


def test_calls_without_numbers_or_ids_are_told_apart_and_named_alike_on_a_replay() -> None:
    def said() -> list[ToolCall]:
        reply = a_reply()
        calls = [a_part(None, "", "weather", {"city": "Bonn"}), a_part(None, None, "weather", {"city": "Köln"})]
        message = {"content": "", "tool_calls": calls}
        reply.take_completion(json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode())
        return reply.answer().tool_calls

    first, second = said()
    assert (first.arguments, second.arguments) == ('{"city":"Bonn"}', '{"city":"Köln"}')
    assert first.id != second.id
    assert first.id.startswith("call_")
    assert said() == [first, second]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_too_deep_is_none(stream: bool) -> None:
    deep = "[" * 5000 + "]" * 5000
    words = '{"tool_calls": [{"index": 0, "id": "c", "function": {"name": "weather", "arguments": ' + deep + "}}]}"
    payload = '{"choices": [{"index": 0, "' + ("delta" if stream else "message") + '": ' + words + "}]}"
    reply = a_reply()
    with pytest.raises(BackendError, match="no chat completion"):
        (reply.take_chunk if stream else reply.take_completion)(payload.encode())


def test_calls_that_were_not_offered_are_no_part_of_an_answer() -> None:
    reply = Reply("e")
    reply.take_chunk(a_chunk(a_part(0, "call_1", "weather", "{}"), content="Warm.", finish_reason="stop"))
    assert reply.answer() == Alternative(content="Warm.")


def test_arguments_without_end_break_off() -> None:
    reply = a_reply()
    part = "x" * (LARGEST_ANSWER // 4)
    for _ in range(3):
        reply.take_chunk(a_chunk(a_part(0, "call_1", "weather", part)))
    with pytest.raises(BackendError, match="over") as raised:
        reply.take_chunk(a_chunk(a_part(0, arguments=part)))
    assert raised.value.charged


def a_tool_request(**sampling: Any) -> GroundedRequest:
    return a_request(messages=CONVERSATION[:1], sampling=Sampling(temperature=0, tools=TOOLS, **sampling))


def test_the_completion_carries_the_calls_and_the_size_counts_them() -> None:
    request = a_tool_request()
    (emit,) = completion(request, ANSWERED, request.occurred_at, request.occurred_at, target=TARGET)
    assert emit.record.tool_calls == [CALL]  # type: ignore[attr-defined]
    many = replace(ANSWERED, tool_calls=(msgspec.structs.replace(CALL, arguments="x" * (8 * 1024 * 1024)),))
    cut = fitted(request, many)
    assert (cut.tool_calls, cut.finish_reason) == ((), "error")
    assert prompt_of(request).size == len("Is it warm in Köln?".encode()) + len(TOOLS)


def test_an_answer_is_repeated_for_the_same_tools_alone_and_a_call_never_is() -> None:
    request = a_tool_request()
    assert is_repeatable(request, TARGET, Cache(exact=True))
    answered = a_request(messages=CONVERSATION, sampling=request.sampling)
    elsewhere = msgspec.structs.replace(CALL, arguments='{"city": "Bonn"}')
    others = [
        a_request(messages=request.messages, sampling=Sampling(temperature=0)),
        a_tool_request(tool_choice='"none"'),
        answered,
        a_request(
            messages=[
                CONVERSATION[0],
                msgspec.structs.replace(CONVERSATION[1], tool_calls=[elsewhere]),
                CONVERSATION[2],
            ],
            sampling=request.sampling,
        ),
        a_request(
            messages=[*CONVERSATION[:2], msgspec.structs.replace(CONVERSATION[2], tool_call_id="call_2")],
            sampling=request.sampling,
        ),
    ]
    keys = [asked_of(each, TARGET) for each in (request, *others)]
    assert len(set(keys)) == len(keys)
    # Some endpoints say stop of an answer that calls a tool.
    said = replace(ANSWERED, content="I look.", finish_reason="stop")
    assert kept_of(request, said, "e1") is None
    beside = Alternative(content="I look.", tool_calls=[CALL])
    assert kept_of(request, replace(said, tool_calls=(), alternatives=(beside,)), "e1") is None
    assert kept_of(request, replace(said, tool_calls=()), "e1") is not None


@pytest.mark.parametrize(("choice", "answers"), [(None, True), ('"auto"', True), ('"none"', True), ('"required"', False),
    ('{"type":"function","function":{"name":"weather"}}', False)])  # fmt: skip
async def test_the_extractive_model_answers_in_words_unless_a_tool_must_be_called(
    choice: str | None, answers: bool
) -> None:
    target = Target(backend="extractive", model="extractive")
    asked = ExtractiveBackend().generate(a_tool_request(tool_choice=choice), target, NoPieces(), Progress())
    if answers:
        assert (await asked).tool_calls == ()
    else:
        with pytest.raises(BackendError, match=r"leave sampling\.tool_choice out") as raised:
            await asked
        assert raised.value.of_request
