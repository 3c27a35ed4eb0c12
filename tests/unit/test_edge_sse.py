"""A streamed chat is what OpenAI's own client reads as one, however the answer was cut into pieces."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.contracts.records import Alternative, LlmResult, ResultChunk, TokenLogprob, ToolCall

from services.edge.openai_requests import chat_of
from services.edge.protocol import Standing
from services.edge.sse import DONE, HEADERS, KEEP_ALIVE, ChatStream, piece_event, result_event, resumed_after
from tests.unit.edge_results import TICKET, ended, pieces, result

QUESTION: Any = [{"role": "user", "content": "How long?"}]


def written(chunks: list[ResultChunk], told: LlmResult, *, usage: bool = False) -> bytes:
    """Return the body of a streamed answer, with a silence before each event."""
    options = {"stream_options": {"include_usage": usage}}
    stream = ChatStream(TICKET, chat_of(json.dumps({"model": "support", "stream": True} | options).encode()))
    body = b"".join(KEEP_ALIVE + stream.piece(chunk) for chunk in chunks)
    return body + KEEP_ALIVE + stream.result(told)


def read(body: bytes) -> list[Any]:
    """Return the chunks that OpenAI's client makes of ``body``."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=body, headers=dict(HEADERS)))
    client = openai.OpenAI(api_key="k", base_url="http://edge/v1", http_client=httpx2.Client(transport=transport))
    return list(client.chat.completions.create(model="support", messages=QUESTION, stream=True))


def text_of(chunks: list[Any], index: int = 0) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == index)


def finishes(chunks: list[Any]) -> list[tuple[int, str]]:
    return [
        (choice.index, choice.finish_reason) for chunk in chunks for choice in chunk.choices if choice.finish_reason
    ]


def test_a_streamed_answer_begins_with_the_role_and_ends_with_its_reason() -> None:
    body = written(pieces("Forty ", "days."), result())
    assert body.endswith(DONE)
    assert b"usage" not in body
    first, *_, last = chunks = read(body)
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Forty ", "days.", None]
    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {("chatcmpl-r-1", 1772366400, "support")}
    assert finishes(chunks) == [(0, "stop")]
    assert last.model_extra["penstock"]["model"] == "large-1"
    assert all("penstock" not in chunk.model_extra for chunk in chunks[:-1])


def test_usage_comes_in_a_chunk_of_its_own_before_the_end() -> None:
    body = written(pieces("Forty ", "days."), result(), usage=True)
    events = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    *_, last = read(body)
    assert (last.choices, last.usage.total_tokens) == ([], 16)


# Line ends of all kinds: of SSE, of JSON, of Unicode.
texts = st.text(
    alphabet=st.one_of(st.sampled_from('\r\n\u2028\u2029\x85\x0b:{"\\ '), st.characters(exclude_categories=["Cs"]))
)


@settings(max_examples=50)
@given(st.lists(texts, max_size=8), st.sampled_from(["stop", "length"]), st.integers(0, 9))
def test_pieces_however_they_are_cut_are_the_answer(parts: list[str], reason: str, lost: int) -> None:
    told = result(content="".join(parts), finish_reason=reason)
    chunks = pieces(*parts, finish_reason=reason)
    # Some may be lost: the result makes up for them.
    del chunks[lost : lost + 1]
    body = written(chunks, told)
    received = read(body)
    assert text_of(received) == told.content
    assert finishes(received) == [(0, reason)]
    # Readers that cut lines as Unicode does see the same events.
    assert body.decode().splitlines() == [line.decode() for line in body.split(b"\n")][:-1]


def test_what_was_streamed_to_its_end_stands_though_the_whole_answer_was_judged_otherwise() -> None:
    chunks = read(written(pieces("Ask Ann or ", "Ann Lee."), result(content="Ask [NAME] or [NAME].")))
    assert (text_of(chunks), finishes(chunks)) == ("Ask Ann or Ann Lee.", [(0, "stop")])


def test_an_answer_that_does_not_go_on_where_its_pieces_broke_off_is_an_error() -> None:
    with pytest.raises(openai.APIError, match="GET /v1/requests/r-1") as raised:
        read(written(pieces("Thirty ", finish_reason="error"), result()))
    assert raised.value.code == "stream_broken"


def test_an_answer_that_is_kept_back_ends_as_filtered() -> None:
    told = ended("blocked", "toxicity", model="large-1")
    chunks = read(written(pieces("Forty ", "", finish_reason="content_filter"), told))
    assert (text_of(chunks), finishes(chunks)) == ("Forty ", [(0, "content_filter")])
    assert [chunk.choices[0].delta.refusal for chunk in chunks][-2] == "because (toxicity)"


def test_a_request_that_ends_in_the_middle_is_an_error_in_the_stream() -> None:
    body = written(pieces("Forty ", finish_reason="error"), ended("failed", "model_unavailable"))
    assert DONE not in body
    with pytest.raises(openai.APIError, match="because") as raised:
        read(body)
    assert (raised.value.code, raised.value.type) == ("model_unavailable", "service_unavailable_error")


def test_tools_and_other_answers_come_whole_at_the_end() -> None:
    calls = [ToolCall(id=f"c{n}", name="weather", arguments='{"city": "Ulm"}') for n in range(2)]
    tokens = [TokenLogprob(token="ok", logprob=-0.5)]
    told = result(
        content="Wait.", finish_reason="tool_calls", tool_calls=calls,
        alternatives=[Alternative(content="No.", logprobs=tokens)],
    )  # fmt: skip
    chunks = read(written(pieces("Wait."), told))
    told_calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert [(call.index, call.id, call.function.name) for call in told_calls] == [
        (0, "c0", "weather"),
        (1, "c1", "weather"),
    ]
    assert told_calls[0].function.arguments == '{"city": "Ulm"}'
    assert (text_of(chunks, 0), text_of(chunks, 1)) == ("Wait.", "No.")
    assert finishes(chunks) == [(0, "tool_calls"), (1, "stop")]
    assert chunks[-1].choices[0].logprobs.content[0].token == "ok"


def test_nothing_is_started_before_the_first_event() -> None:
    stream = ChatStream(TICKET, chat_of(b'{"model": "support", "stream": true}'))
    assert not stream.started
    stream.piece(pieces("Forty ")[0])
    assert stream.started


def test_who_follows_a_request_gets_its_pieces_by_number_and_its_state_at_the_end() -> None:
    (piece,) = pieces("Forty\ndays.")
    assert piece_event(piece).splitlines()[:2] == [b"event: piece", b"id: 0"]
    assert piece_event(piece).endswith(b'data: {"sequence":0,"content":"Forty\\ndays.","finish_reason":"stop"}\n\n')
    name, data, *_ = result_event(Standing(TICKET, result())).splitlines()
    assert name == b"event: result"
    assert msgspec.json.decode(data[6:])["status"] == "completed"


@pytest.mark.parametrize(
    ("header", "after"), [(None, -1), ("", -1), ("3", 3), (" 12 ", 12), ("-4", -1), ("٣", -1), ("x", -1)]
)
def test_who_comes_back_names_the_last_piece(header: str | None, after: int) -> None:
    assert resumed_after(header) == after
