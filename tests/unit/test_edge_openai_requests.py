"""Chat requests of OpenAI's API become events that the log takes; what does not fit is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Target
from penstock.contracts.codec import Codec
from penstock.contracts.records import LlmRequest, Message, RetrievalFilter, Sampling, ToolCall

from services.edge.errors import ApiError
from services.edge.openai_requests import ANY_OBJECT, chat_of, request_id_of, request_of, submitted_of
from services.edge.protocol import Caller
from services.inference.openai_body import body_of
from services.inference.prompt import Prompt
from tests.unit.edge_results import AT

CALLER = Caller("shop", "k-1")
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"id": "c-1", "function": {"name": "weather", "arguments": "{}"}}


def asked(**body: Any) -> LlmRequest:
    """Return the event of a body, with a model and a question where it names none."""
    full = {"model": "support", "messages": [{"role": "user", "content": "How long?"}]} | body
    return request_of(chat_of(json.dumps(full).encode()), CALLER, "r-1", AT)


def refused(body: object) -> ApiError:
    with pytest.raises(ApiError) as raised:
        request_of(chat_of(body if isinstance(body, bytes) else json.dumps(body).encode()), CALLER, "r-1", AT)
    return raised.value


def test_a_plain_question_is_the_callers_request_of_its_route(codec: Codec) -> None:
    request = asked()
    assert request == LlmRequest(
        event_id="", request_id="r-1", tenant_id="shop", occurred_at=AT, causation_id="", route="support", key_id="k-1",
        messages=[Message(role="user", content="How long?")],
    )  # fmt: skip
    assert codec.decode("llm-requests", codec.encode("llm-requests", request)) == request


def test_a_conversation_keeps_roles_parts_names_and_calls(codec: Codec) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
    request = asked(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]},
            {"role": "user", "content": "Weather?", "name": "ann"},
            # As the answer came: clients send it back with all its fields.
            {
                "role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None,
                "function_call": None, "tool_calls": [call],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "12 °C"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "I would rather not."}]},
        ]
    )  # fmt: skip
    assert request.messages == [
        Message(role="system", content="Be brief."),
        Message(role="system", content="Be\nkind."),
        Message(role="user", content="Weather?", name="ann"),
        Message(
            role="assistant", content="", tool_calls=[ToolCall(id="c1", name="weather", arguments='{"city": "Ulm"}')]
        ),
        Message(role="tool", content="12 °C", tool_call_id="c1"),
        Message(role="assistant", content="I would rather not."),
    ]
    assert codec.decode("llm-requests", codec.encode("llm-requests", request)) == request


def test_tools_and_formats_reach_the_model_as_they_were_asked_for() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "number"}, "a": {"enum": [1, 1.5, None]}}}
    sampling = asked(
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}},
    ).sampling
    assert json.loads(sampling.tools or "") == [WEATHER]
    assert json.loads(sampling.tool_choice or "") == {"type": "function", "function": {"name": "weather"}}
    assert sampling.parallel_tool_calls is False
    # To the order of the keys: it is the order in which a model writes them.
    assert sampling.response_format == json.dumps(schema, separators=(",", ":"))
    assert asked(tool_choice="none", tools=[WEATHER]).sampling.tool_choice == '"none"'
    assert asked(response_format={"type": "json_object"}).sampling.response_format == ANY_OBJECT
    assert asked(response_format={"type": "text"}).sampling.response_format is None


def test_who_it_is_for_and_how_soon() -> None:
    request = asked(
        user="u-1",
        safety_identifier="hashed",
        service_tier="flex",
        metadata={"feature": "search", "team": "a"},
        stream=True,
        stream_options={"include_usage": True},
        penstock={
            "prompt": "answer",
            "prompt_label": "staging",
            "variables": {"days": 3, "strict": True, "share": 0.5, "names": ["a", "b"], "tone": "warm"},
            "conversation_id": "conv-1",
            "deadline_s": 2.5,
            "tags": {"team": "b"},
            "policy": "strict",
            "purpose": "evaluation",
            "retrieval": {
                "collection": "faq",
                "tags": {"product": "mill"},
                "language": "de",
                "as_of": "2026-03-01T14:00:00+02:00",
            },
        },
    )
    assert request.retrieval == RetrievalFilter(
        collection="faq", tags={"product": "mill"}, language="de", as_of=datetime(2026, 3, 1, 12, tzinfo=UTC)
    )
    assert (request.user_id, request.conversation_id, request.priority) == ("u-1", "conv-1", "batch")
    assert request.tags == {"feature": "search", "team": "b"}
    assert (request.prompt_name, request.prompt_label, request.policy_name) == ("answer", "staging", "strict")
    assert request.prompt_variables == {
        "days": "3", "strict": "true", "share": "0.5", "names": '["a","b"]', "tone": "warm",
    }  # fmt: skip
    assert request.deadline_at == AT + timedelta(seconds=2.5)
    assert (request.stream, request.purpose) == (True, "evaluation")
    assert asked(service_tier="priority").priority == "interactive"
    assert asked(service_tier="priority", penstock={"priority": "batch"}).priority == "batch"
    assert asked(safety_identifier="hashed").user_id == "hashed"


numbers = st.floats(0.01, 1)
samplings = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | numbers,
    max_completion_tokens=st.none() | st.integers(1, 100_000),
    stop=st.lists(st.text(min_size=1), max_size=4),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    response_format=st.none()
    | st.sampled_from([ANY_OBJECT, '{"type":"object","properties":{"a":{"type":"integer"}}}']),
    n=st.integers(1, 8),
    top_logprobs=st.none() | st.integers(0, 20),
    regex=st.none() | st.text(min_size=1),
    frequency_penalty=st.none() | st.floats(-2, 2),
    presence_penalty=st.none() | st.floats(-2, 2),
    top_k=st.none() | st.integers(1, 1000),
    min_p=st.none() | st.floats(0, 1),
    tools=st.none() | st.just(json.dumps([WEATHER], separators=(",", ":"))),
    tool_choice=st.none() | st.sampled_from(['"auto"', '{"type":"function","function":{"name":"weather"}}']),
    parallel_tool_calls=st.none() | st.booleans(),
)


@given(samplings, st.booleans())
def test_what_penstock_asks_of_an_endpoint_it_reads_as_one(sampling: Sampling, stream: bool) -> None:
    """An edge may stand behind the route of another."""
    prompt = Prompt((Message(role="user", content="How long?"),), size=9)
    body = body_of(sampling, prompt, Target(backend="openai", model="support"), stream=stream)
    request = request_of(chat_of(body), CALLER, "r-1", AT)
    assert request.sampling == sampling
    assert (request.route, request.messages, request.stream) == ("support", [*prompt.messages], stream)


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"temperature": 3}, "temperature", "<= 2.0"),
        ({"n": "2"}, "n", "got `str`"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role", "function"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "is missing"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content", "neither content nor tool_calls"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "messages[0].content[0] is not of text",
        ),
        ({"temprature": 1}, "temprature", "leave it out, or correct its name"),
        ({"penstock": {"promt": "x"}}, "penstock.promt", "leave it out, or correct its name"),
        ({"penstock": {"retrieval": {"as_of": "2026-03-01T14:00:00"}}}, "penstock.retrieval.as_of", "timezone"),
        ({"penstock": {"retrieval": {"as_of": "0001-01-01T00:00:00+14:00"}}}, "penstock.retrieval.as_of", "years 1"),
        (
            {"penstock": {"retrieval": {"as_of": "yesterday"}}},
            "penstock.retrieval.as_of",
            "such as 2026-01-05T09:00:00Z",
        ),
        ({"penstock": {"retrieval": {"language": "german"}}}, "penstock.retrieval.language", "such as en or de"),
        ({"functions": []}, "functions", "send tools"),
        ({"logit_bias": {"50256": -100}}, "logit_bias", "not supported"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "leave it out"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream: true"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs: true"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "custom"),
        ({"tools": [WEATHER | {"function": {"name": "two words"}}]}, "tools[0].function.name", "matching regex"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "length <= 16"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "is missing"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], param: str, said: str) -> None:
    error = refused({"model": "support", "messages": [{"role": "user", "content": "x"}]} | change)
    assert (error.status, error.type, error.param) == (400, "invalid_request_error", param)
    assert said in error.message


DEEP = b'{"model": "x", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": %b'


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", DEEP % (b"[" * 100_000), b'{"model": "\xff"}', b'{"model": NaN}', b'{"model": "\\ud800-"}'],
)
def test_what_is_no_json_is_said_to_be_none(body: bytes) -> None:
    error = refused(body)
    assert (error.status, error.code) == (400, "invalid_json")


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["model", "messages", "role", "content", "tools", "type", "penstock", "n", "stop"]), inner,
        max_size=4,
    ),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_body_is_a_request_or_an_error_of_the_client(body: bytes) -> None:
    try:
        request_of(chat_of(body), CALLER, "r-1", AT)
    except ApiError as error:
        assert error.status == 400
        assert error.message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": ""}] * 10_001}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL] * 9_000}] * 2}, "messages"),
        ({"stop": [""] * 10_001}, "stop"),
        ({"penstock": {"variables": {str(number): 0 for number in range(10_001)}}}, "penstock.variables"),
        ({"penstock": {"tags": {str(number): "" for number in range(10_001)}}}, "penstock.tags"),
    ],
)
def test_more_parts_than_are_gone_through_at_once_are_refused(body: dict[str, object], param: str) -> None:
    error = refused({"model": "support"} | body)
    assert (error.status, error.code, error.param) == (413, "request_too_large", param)


@pytest.mark.parametrize(
    "body", [{"x" * 9_999: 1}, {"service_tier": "x" * 9_999}, {"messages": [{"role": "x" * 9_999}]}]
)
def test_an_error_repeats_little_of_what_was_sent(body: dict[str, object]) -> None:
    assert len(refused({"model": "support"} | body).body()) < 1_000


def test_a_submitted_request_may_name_itself() -> None:
    submitted = submitted_of(b'{"model": "support", "request_id": "order-1", "stream": true}')
    assert submitted.request_id == request_id_of("order-1") == "order-1"
    assert request_id_of(None) is None
    assert request_of(submitted, CALLER, "order-1", AT).stream
    with pytest.raises(ApiError) as raised:
        submitted_of(b'{"model": "support", "request_id": "a/b"}')
    assert raised.value.param == "request_id"


@pytest.mark.parametrize("key", ["", "a b", "a/b", "ü", "x" * 201, "a\n"])
def test_a_key_that_cannot_be_an_identity_is_refused(key: str) -> None:
    with pytest.raises(ApiError) as raised:
        request_id_of(key)
    assert (raised.value.status, raised.value.param) == (400, "Idempotency-Key")


def test_the_published_schema_is_what_is_decoded() -> None:
    (_,), components = msgspec.json.schema_components([type(submitted_of(b'{"model": "x"}'))])
    schema = components["SubmittedRequest"]
    assert schema["required"] == ["model"]
    assert schema["additionalProperties"] is False
