"""Tools on the in-memory log of guardrails: what goes to the model, and what is released of what it wants called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from penstock.contracts.records import Alternative, LlmResult, Message, Sampling, Status, ToolCall

from tests.stream.test_guardrails_actions import PSEUDONYMS, admitted, completion, decision, gate
from tests.stream.test_guardrails_alternatives import faults
from tests.unit.test_guardrails_streaming import Stream, by, chunks_of, policy

EMAIL = "eve@example.org"
RULES: Mapping[str, Any] = {"pii": {"action": "mask"}, "banned_words": {"action": "block", "words": ["falcon"]}}
POLICY = {"name": "default", "input": RULES, "output": RULES}
TOOLS = '[{"type": "function", "function": {"name": "mail", "description": "Writes to eve\\u0040example.org."}}]'


def a_call(arguments: str, id: str = "call_1", name: str = "mail") -> ToolCall:
    return ToolCall(id=id, name=name, arguments=arguments)


def calling(*calls: ToolCall, finish_reason: str = "tool_calls", **changes: Any) -> dict[str, Any]:
    return {"tool_calls": list(calls), "finish_reason": finish_reason, **changes}


def conversation(*calls: ToolCall, result: str = "done") -> list[Message]:
    return [
        Message(role="user", content="Write to them."),
        Message(role="assistant", content="", tool_calls=list(calls)),
        Message(role="tool", content=result, tool_call_id=calls[0].id),
    ]


async def test_what_a_tool_was_called_with_and_what_it_said_is_screened_on_its_way_to_the_model() -> None:
    said = conversation(a_call('{"to": "eve\\u0040example.org", "sum": 1}'), a_call("{}", "call_2"), result=EMAIL)
    async with gate(POLICY) as own:
        request = admitted(own, "")
        sampling = Sampling(tools=TOOLS, tool_choice='"auto"')
        await own.publish("requests-admitted", msgspec.structs.replace(request, messages=said, sampling=sampling))
        screened = await own.one("requests-screened")
    assert EMAIL not in str(screened)
    _, called, result = screened.messages
    first, second = called.tool_calls
    assert json.loads(first.arguments) == {"to": "<EMAIL_ADDRESS_1>", "sum": 1}
    assert second == a_call("{}", "call_2")
    assert (result.content, result.tool_call_id) == ("<EMAIL_ADDRESS_1>", "call_1")
    (tool,) = json.loads(screened.sampling.tools)
    assert tool["function"] == {"name": "mail", "description": "Writes to <EMAIL_ADDRESS_1>."}
    assert screened.sampling.tool_choice == '"auto"'


async def test_a_call_in_the_conversation_blocks_as_its_words_would() -> None:
    async with gate(POLICY) as own:
        request = admitted(own, "")
        said = conversation(a_call('{"text": "the \\u0066alcon is late"}'))
        await own.publish("requests-admitted", msgspec.structs.replace(request, messages=said))
        refusal = await own.one("refusals")
    assert (refusal.status, refusal.code) == (Status.BLOCKED, "banned_words")


async def test_tools_that_do_not_stand_their_mask_end_the_request() -> None:
    rules = {"secrets": {"action": "mask"}}
    lines = "\\n".join(["-----BEGIN PRIVATE KEY-----", *["QUJD" * 16] * 4, "-----END PRIVATE KEY-----"])
    tools = '[{"type": "function", "function": {"name": "mail", "description": "' + lines + '"}}]'
    async with gate({"name": "default", "input": rules}) as own:
        request = admitted(own, "Hello")
        await own.publish("requests-admitted", msgspec.structs.replace(request, sampling=Sampling(tools=tools)))
        refusal = await own.one("refusals")
    assert (refusal.status, refusal.code) == (Status.BLOCKED, "secret")


@pytest.mark.parametrize("finish_reason", ["tool_calls", "stop"])
async def test_a_call_is_released_as_the_words_beside_it(finish_reason: str) -> None:
    calls = [a_call('{"to": "eve\\u0040example.org"}'), a_call('{"to": "nobody"}', "call_2")]
    async with gate(POLICY) as own:
        done = completion(own, "", **calling(*calls, finish_reason=finish_reason))
        await own.publish("completions", done)
        result = await own.one("llm-results")
        verdicts = await own.verdicts(1)
    assert (result.status, result.content, result.action) == (Status.COMPLETED, "", "mask")
    assert [json.loads(call.arguments) for call in result.tool_calls] == [{"to": "<EMAIL_ADDRESS_1>"}, {"to": "nobody"}]
    assert [call.id for call in result.tool_calls] == ["call_1", "call_2"]
    assert faults(result, verdicts) == []
    slipped = msgspec.structs.replace(result, tool_calls=calls)
    assert faults(slipped, verdicts) == ["other_text"]


async def test_nothing_of_a_call_that_is_not_acceptable_leaves() -> None:
    async with gate(POLICY) as own:
        done = completion(own, "All is well.", **calling(a_call('{"text": "the \\u0066alcon"}')))
        await own.publish("completions", done)
        result: LlmResult = await own.one("llm-results")
    assert (result.status, result.code, result.content, result.tool_calls) == (
        Status.BLOCKED, "banned_words", "", [],
    )  # fmt: skip


async def test_a_call_is_no_answer_yet_so_it_need_not_keep_its_format() -> None:
    rules = {"format": {"action": "block", "json_schema": {"type": "object"}}}
    async with gate({"name": "default", "output": rules}) as own:
        await own.publish("completions", completion(own, "", **calling(a_call('{"a": 1}'))))
        result = await own.one("llm-results")
    assert (result.status, result.tool_calls) == (Status.COMPLETED, [a_call('{"a": 1}')])


@pytest.mark.parametrize(("finish", "said", "ends"), [
    ("tool_calls", "", "tool_calls"), ("tool_calls", "I look that up.", "tool_calls"), ("stop", "I look.", "content_filter"),
])  # fmt: skip
def test_a_stream_that_ends_in_a_call_ends_as_the_model_said(finish: str, said: str, ends: str) -> None:
    rules = policy(format={"action": "block", "json_schema": {"type": "object"}})
    assert Stream(by(rules)).take(chunks_of([said], finish)).finish == ends


async def test_a_tool_is_called_with_the_reader_s_own_data() -> None:
    async with gate(PSEUDONYMS) as own:
        await own.publish("requests-admitted", admitted(own, f"Write to {EMAIL}."))
        screened = await own.one("requests-screened")
        other = Alternative(content="", tool_calls=[a_call('{"to": "<EMAIL_ADDRESS_1>", "copy": true}')])
        call = a_call('{"to": "\\u003cEMAIL_ADDRESS_1\\u003e"}')
        done = completion(own, "", **calling(call, messages=screened.messages, alternatives=[other]))
        await own.publish("completions", done)
        result = await own.one("llm-results")
        verdicts = await own.verdicts(3)
    (released,) = result.tool_calls
    assert json.loads(released.arguments) == {"to": EMAIL}
    ((beside,),) = [each.tool_calls for each in result.alternatives]
    assert json.loads(beside.arguments) == {"to": EMAIL, "copy": True}
    assert faults(result, verdicts) == []


async def test_an_alternative_with_a_call_that_is_not_acceptable_is_left_out() -> None:
    others = [
        Alternative(content="I ask.", tool_calls=[a_call('{"text": "the falcon"}')]),
        Alternative(content="I ask.", tool_calls=[a_call(json.dumps({"to": EMAIL}))]),
    ]
    async with gate(POLICY) as own:
        await own.publish("completions", completion(own, "all is well", alternatives=others))
        result = await own.one("llm-results")
        verdicts = await own.verdicts(3)
    assert [json.loads(call.arguments) for each in result.alternatives for call in each.tool_calls] == [
        {"to": "<EMAIL_ADDRESS_1>"}
    ]
    assert faults(result, verdicts) == []


@pytest.mark.parametrize("approved", [True, False])
async def test_a_person_sees_the_call_that_waits_for_them(approved: bool) -> None:
    policy = {"name": "default", "output": {"banned_words": {"action": "review", "words": ["falcon"]}}}
    call = a_call('{"text": "the \\u0066alcon"}')
    async with gate(policy) as own:
        await own.publish("completions", completion(own, "", **calling(call)))
        review = await own.one("reviews")
        await own.publish("review-decisions", decision(own, review, approved=approved))
        result = await own.one("llm-results")
    assert "falcon" in review.content
    assert result.tool_calls == ([call] if approved else [])


async def test_an_answer_that_is_asked_for_again_shows_what_was_called() -> None:
    policy = {"name": "default", "output": {"banned_words": {"action": "ask_again", "words": ["falcon"]}}}
    async with gate(policy) as own:
        await own.publish("completions", completion(own, "", **calling(a_call('{"text": "the falcon"}'))))
        repeated = await own.one("requests-repeated")
    _, said, again = repeated.messages
    assert (said.role, said.tool_calls, again.role) == ("assistant", [], "user")
    assert "mail" in said.content
