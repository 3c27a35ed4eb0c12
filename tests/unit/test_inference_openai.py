"""What OpenAI-compatible endpoints are asked, and how what they answer is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Target
from penstock.contracts.records import Alternative, Message, Sampling, TokenLogprob

from services.inference.adapters import BackendError
from services.inference.openai_body import body_of, refused_parameter
from services.inference.openai_endpoint import retry_after_s
from services.inference.openai_reply import LARGEST_ANSWER, Reply
from services.inference.prompt import Prompt

TARGET = Target(backend="openai", model="m", base_url="http://127.0.0.1/v1")
PROMPT = Prompt((Message(role="user", content="Hi", name="ann"),), 5)
NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
SCHEMA = '{"z": {"b": 1.0, "a": 1e0}, "a" : [ ], "z2":"\\u00e9"}'
LOGPROBS = {
    "content": [{"token": "hi", "logprob": -0.5, "bytes": [1], "top_logprobs": [{"token": "ho", "logprob": -1}]}]
}
PROBABLE = [TokenLogprob(token="hi", logprob=-0.5, top={"ho": -1.0})]


def body(sampling: Sampling, *, stream: bool = False) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body_of(sampling, PROMPT, TARGET, stream=stream))
    return found


def test_a_plain_request_asks_for_nothing_an_endpoint_may_not_know() -> None:
    assert body(Sampling()) == {"model": "m", "messages": [{"role": "user", "content": "Hi", "name": "ann"}]}
    assert body(Sampling(), stream=True).keys() - body(Sampling()).keys() == {"stream", "stream_options"}


def test_every_parameter_has_the_name_that_endpoints_give_it() -> None:
    sampling = Sampling(
        temperature=0.5, top_p=0.9, max_completion_tokens=7, stop=["x"], seed=3, n=2, top_logprobs=0, regex="[ab]+",
        frequency_penalty=-1.0, presence_penalty=0.5, top_k=40, min_p=0.1,
    )  # fmt: skip
    asked = body(sampling)
    assert {name: asked[name] for name in asked.keys() - {"model", "messages"}} == {
        "temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 7, "stop": ["x"], "seed": 3, "n": 2, "logprobs": True,
        "top_logprobs": 0, "frequency_penalty": -1.0, "presence_penalty": 0.5, "top_k": 40, "min_p": 0.1,
        "structured_outputs": {"regex": "[ab]+"},
    }  # fmt: skip


def test_a_schema_goes_out_to_the_byte() -> None:
    assert SCHEMA.encode() in body_of(Sampling(response_format=SCHEMA), PROMPT, TARGET, stream=False)


@pytest.mark.parametrize(
    ("error", "field"),
    [
        ({"error": {"message": "no", "param": "top_k", "code": "unknown_parameter"}}, "top_k"),
        ({"error": {"message": "Unknown field structured_outputs", "param": None}}, "regex"),
        ({"error": {"message": "This model does not return logprobs"}}, "top_logprobs"),
        ({"error": {"message": "'n' must be 1"}}, "n"),
        ({"error": {"message": "n must be 1 when using greedy sampling, got 2.", "param": None}}, "n"),
        ({"error": {"message": "context too long"}}, None),
        ({"detail": [{"loc": ["body", "min_p"], "msg": "Extra inputs are not permitted"}]}, "min_p"),
        ([1], None),
    ],
)
def test_a_parameter_that_is_refused_is_named(error: Any, field: str | None) -> None:
    sampling = Sampling(top_k=3, min_p=0.1, regex="a", top_logprobs=None, n=2)
    if field == "top_logprobs":
        sampling = Sampling(top_logprobs=1)
    assert refused_parameter(sampling, json.dumps(error).encode()) == field
    assert refused_parameter(Sampling(), json.dumps(error).encode()) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "-2"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Mon, 05 Jan 2026 09:01:00 GMT"}, 60.0),
        ({"retry-after": "Mon, 05 Jan 2026 08:01:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 05 Jan 2026 08:01:00 -0000"}, None),
        ({"retry-after": "1", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "1", "retry-after-ms": "x"}, 1.0),
    ],
)
def test_how_long_to_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


def choice(index: int, text: str | None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "delta": {"content": text}, "finish_reason": finish} | fields


def chunk(*choices: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"model": "m1", "choices": choices} | fields).encode()


def test_answers_of_a_stream_are_told_apart() -> None:
    reply = Reply("e", n=3, wants_logprobs=True)
    events = [
        chunk(choice(1, "b"), choice(0, "a", logprobs=LOGPROBS)),
        chunk(choice(2, "c"), choice(1, "B", "length", logprobs=LOGPROBS)),
        chunk(choice(0, "A", "stop"), choice(3, "nobody asked", "stop"), choice(-1, "nor this", "stop")),
        chunk(usage={"prompt_tokens": 3, "completion_tokens": 5}),
    ]
    assert [reply.take_chunk(event) for event in events] == ["a", "", "A", ""]
    assert reply.answer() == Alternative(content="aA", logprobs=PROBABLE)
    # The third one was never finished: half an answer is none.
    assert reply.alternatives() == [Alternative(content="bB", finish_reason="length", logprobs=PROBABLE)]
    assert (reply.size, reply.model) == (5, "m1")
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 5


def whole(*choices: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"model": "m1", "choices": choices} | fields).encode()


def test_answers_that_come_at_once_have_their_order_and_their_probabilities() -> None:
    reply = Reply("e", n=2, wants_logprobs=True)
    other = {"index": 1, "message": {"content": None, "refusal": "no"}, "finish_reason": "length"}
    first = {"index": 0, "message": {"content": "hi"}, "finish_reason": None, "logprobs": LOGPROBS}
    assert reply.take_completion(whole(other, first)) == "hi"
    assert reply.answer() == Alternative(content="hi", logprobs=PROBABLE)
    assert reply.alternatives() == [Alternative(content="no", finish_reason="length")]


@pytest.mark.parametrize("logprobs", [{"tokens": ["hi"]}, {"content": [{"token": "hi"}]}, None, [1], {"content": None}])
def test_probabilities_that_cannot_be_read_do_not_cost_the_answer(logprobs: Any) -> None:
    reply = Reply("e", wants_logprobs=True)
    reply.take_completion(whole({"message": {"content": "hi"}, "logprobs": logprobs}))
    assert reply.answer() == Alternative(content="hi")


def test_probabilities_that_nobody_asked_for_are_not_read() -> None:
    reply = Reply("e")
    reply.take_completion(whole({"message": {"content": "hi"}, "logprobs": LOGPROBS}))
    assert reply.answer() == Alternative(content="hi")


CALLS = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}


def test_an_answer_of_tool_calls_alone_is_none_and_is_paid_for() -> None:
    at_once, streamed, beside = Reply("e"), Reply("e"), Reply("e")
    at_once.take_completion(whole({"message": {"content": None} | CALLS, "finish_reason": "tool_calls"}))
    streamed.take_chunk(chunk({"index": 0, "delta": CALLS, "finish_reason": "tool_calls"}))
    for reply in (at_once, streamed):
        with pytest.raises(BackendError, match="only calls of tools") as raised:
            reply.answer()
        assert raised.value.charged
    beside.take_completion(whole({"message": {"content": "hi"} | CALLS, "finish_reason": "stop"}))
    assert beside.answer() == Alternative(content="hi")


@pytest.mark.parametrize(
    ("payload", "words", "charged"),
    [
        (b"{", "no chat completion", False),
        (b'{"error": {"message": "overloaded"}}', "broke off: .*overloaded", False),
        (whole({"message": {"content": "hal"}}, error={"code": 502}), "broke off: .*502", True),
        (whole(usage={"prompt_tokens": 1}), "no choices", True),
        (whole({"message": {"content": "x" * (LARGEST_ANSWER + 1)}}), "is over", True),
    ],
)
def test_what_is_no_answer_says_why_and_whether_it_costs(payload: bytes, words: str, charged: bool) -> None:
    with pytest.raises(BackendError, match=words) as raised:
        Reply("e").take_completion(payload)
    assert raised.value.charged == charged


def test_a_stream_that_never_ends_is_cut() -> None:
    reply = Reply("e", n=2)
    text = "x" * (LARGEST_ANSWER // 2)
    reply.take_chunk(chunk(choice(0, text), choice(1, text)))
    with pytest.raises(BackendError, match="is over") as raised:
        reply.take_chunk(chunk(choice(1, "é")))
    assert raised.value.charged


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=3),
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "message", "content", "index", "usage", "error", "logprobs"]), each
        )
    ),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=4), st.integers(1, 3))
def test_whatever_an_endpoint_says_it_is_read_or_refused(said: list[Any], n: int) -> None:
    streamed = Reply("e", n=n, wants_logprobs=True)
    try:
        text = "".join(streamed.take_chunk(json.dumps(event).encode()) for event in said)
        assert streamed.answer().content == text
    except BackendError as error:
        assert error.charged <= streamed.begun
    assert len(streamed.alternatives()) < n
    for event in said:
        try:
            Reply("e", n=n).take_completion(json.dumps(event).encode())
        except BackendError as error:
            assert str(error).startswith("e: ")
