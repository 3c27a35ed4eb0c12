"""Tools of a request: what is admitted, what is refused and why, and what they may cost."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Budget, Policy, Price, Retrieval, Route, Target, Team
from penstock.config.plane import ConfigPlane
from penstock.contracts.records import LlmRequest, Message, Sampling, ToolCall

from services.intake.bounds import calls_of
from services.intake.core import Judgement, Limits, judge
from services.intake.tools import MAX_CALLS, MAX_TOOLS, MAX_TOOLS_BYTES, tools_problem

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MODEL = Target(backend="openai", model="m", base_url="http://127.0.0.1:1/v1")
ROUTE = Route(name="default", targets=(MODEL,), retrieval=Retrieval(enabled=False))
PLAIN = Policy(name="default")
PRICE = Price(model="m", input_cost_per_token=Decimal("1e-6"), output_cost_per_token=Decimal("1e-6"))
PLANE = ConfigPlane.of([Team(name="support", budgets=(Budget(name="daily", limit=Decimal(1)),)), ROUTE, PLAIN, PRICE])
QUESTION = Message(role="user", content="Is it warm in Köln?")
CALL = ToolCall(id="call_1", name="weather", arguments='{"city": "Köln"}')


def a_tool(name: str = "weather", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def tools(*listed: Any) -> Sampling:
    return Sampling(tools=json.dumps(listed))


def judged(*messages: Message, sampling: Sampling | None = None) -> Judgement:
    request = LlmRequest(
        event_id="e", request_id="r", tenant_id="support", occurred_at=NOW, causation_id="c",
        messages=list(messages), sampling=sampling or Sampling(),
    )  # fmt: skip
    return judge(request, PLANE, Limits(), NOW)


def test_a_conversation_with_tools_is_admitted_as_it_is() -> None:
    sampling = Sampling(
        tools=json.dumps([a_tool(description="Says it.", parameters={"type": "object"}, strict=True), a_tool("time")]),
        tool_choice='{"type": "function", "function": {"name": "time"}}',
        parallel_tool_calls=False,
    )
    said = [
        QUESTION,
        Message(role="assistant", content="", tool_calls=[CALL]),
        Message(role="tool", content="17 °C", tool_call_id="call_1"),
        # Older producers name no call.
        Message(role="tool", content="17 °C"),
    ]
    found = judged(*said, sampling=sampling)
    assert found.refused is None
    assert found.messages == said
    assert (found.sampling.tools, found.sampling.tool_choice) == (sampling.tools, sampling.tool_choice)


@pytest.mark.parametrize(
    ("sampling", "code", "words"),
    [
        (Sampling(tools="{"), "invalid_tools", "no JSON list"),
        (Sampling(tools='{"a": 1}'), "invalid_tools", "no JSON list"),
        (Sampling(tools="[]"), "invalid_tools", "0 tools"),
        (tools(*(a_tool(f"t{n}") for n in range(MAX_TOOLS + 1))), "invalid_tools", f"to {MAX_TOOLS}"),
        (tools(a_tool(), {"type": "custom", "custom": {"name": "x"}}), "invalid_tools", r"\[1\] is of type 'custom'"),
        (tools({"type": "function"}), "invalid_tools", r"\[0\]"),
        (tools(a_tool("no spaces")), "invalid_tools", "'no spaces'"),
        (tools(a_tool("x" * 65)), "invalid_tools", "1 to 64"),
        (tools(a_tool(), a_tool()), "invalid_tools", r"\[1\].* as that of a tool before it"),
        (tools(a_tool(parameters=[])), "invalid_tools", "object"),
        (tools(a_tool(description="x" * MAX_TOOLS_BYTES)), "tools_too_large", f"{MAX_TOOLS_BYTES:,}"),
        (Sampling(tools='[{"a":' * 40 + "1" + "}]" * 40), "invalid_tools", ""),
        (Sampling(tool_choice='"auto"'), "invalid_tool_choice", "no tools"),
        (Sampling(parallel_tool_calls=True), "invalid_parallel_tool_calls", "no tools"),
    ],
)
def test_tools_that_no_model_can_be_given_are_refused(sampling: Sampling, code: str, words: str) -> None:
    found = judged(QUESTION, sampling=sampling).refused
    assert found is not None
    assert found.code == code
    assert re.search(words, found.reason), found.reason


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("auto", "no JSON"),
        ('"sometimes"', "none, auto, required"),
        ('{"type": "function", "function": {"name": "time"}}', "none of sampling.tools"),
        ('{"type": "allowed_tools", "allowed_tools": {}}', "leave out the tools"),
        ('"' + "x" * 2_000 + '"', "bytes"),
    ],
)
def test_a_choice_is_one_of_the_tools_that_there_are(choice: str, words: str) -> None:
    code, reason = tools_problem([QUESTION], Sampling(tools=json.dumps([a_tool()]), tool_choice=choice)) or ("", "")
    assert (code, words in reason) == ("invalid_tool_choice", True), reason


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Message(role="user", content="x", tool_calls=[CALL]), "invalid_tool_calls"),
        (Message(role="assistant", content="", tool_calls=[CALL] * (MAX_CALLS + 1)), "invalid_tool_calls"),
        (Message(role="assistant", content="", tool_calls=[ToolCall(id="", name="a")]), "invalid_tool_calls"),
        (Message(role="assistant", content="", tool_calls=[ToolCall(id="1", name="a b")]), "invalid_tool_calls"),
        (Message(role="user", content="x", tool_call_id="call_1"), "invalid_tool_call_id"),
        (Message(role="tool", content="x", tool_call_id="x" * 257), "invalid_tool_call_id"),
    ],
)
def test_messages_that_contradict_their_role_are_refused_by_their_place(message: Message, code: str) -> None:
    found = judged(QUESTION, message).refused
    assert found is not None
    assert (found.code, "messages[1]" in found.reason) == (code, True)


def cost(messages: list[Message], tools: str | None = None) -> Decimal | int:
    (call,) = calls_of(messages, ROUTE, PLAIN, 0, PLANE, NOW, NOW + timedelta(hours=1), embedder="none", tools=tools)
    return call.all


def test_tools_and_calls_are_part_of_what_a_request_may_cost() -> None:
    """A micro-dollar a token: what a template writes at the most, a token to the byte."""
    offered = json.dumps([a_tool(description="ü" * 100, parameters={"a": [1] * 50})], ensure_ascii=False)
    indented = json.dumps(json.loads(offered), indent=4, ensure_ascii=False)
    assert cost([QUESTION], offered) - cost([QUESTION]) >= len(indented.encode()) * 1_000_000
    called = Message(role="assistant", content="", tool_calls=[CALL])
    silent = Message(role="assistant", content="")
    assert cost([QUESTION, called]) - cost([QUESTION, silent]) >= len(CALL.arguments.encode()) * 1_000_000
    held = judged(QUESTION, sampling=Sampling(tools=offered, max_completion_tokens=1)).reserve
    plain = judged(QUESTION, sampling=Sampling(max_completion_tokens=1)).reserve
    assert held is not None
    assert plain is not None
    assert held > plain


@given(st.text(max_size=40) | st.recursive(st.none() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "function", "name", "x"]), inner),
    max_leaves=10).map(json.dumps))  # fmt: skip
def test_whatever_tools_are_there_is_an_answer(text: str) -> None:
    if tools_problem([QUESTION], Sampling(tools=text)) is None:
        assert cost([QUESTION], text) > cost([QUESTION])
