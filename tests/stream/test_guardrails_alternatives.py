"""What leaves beside an answer, on the in-memory log: alternatives that were judged, and tokens that give nothing away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from penstock.audit import Verification
from penstock.contracts.digest import released_digest, released_texts
from penstock.contracts.records import Alternative, LlmResult, Sampling, Status, TokenLogprob, Verdict

from tests.stream.test_guardrails_actions import PSEUDONYMS, admitted, completion, decision, gate

RULES: Mapping[str, Any] = {"pii": {"action": "mask"}, "banned_words": {"action": "block", "words": ["falcon"]}}
BLOCKING = {"name": "default", "output": RULES}


def others(*contents: str) -> list[Alternative]:
    return [Alternative(content=content) for content in contents]


def tokens(*texts: str, top: Mapping[str, float] | None = None) -> list[TokenLogprob]:
    return [TokenLogprob(token=text, logprob=-0.5, top={text: -0.5, **(top or {})}) for text in texts]


def faults(result: LlmResult, verdicts: Sequence[Verdict]) -> list[str]:
    verification = Verification()
    verification.result(result, ("llm-results", 0, 0))
    for verdict in verdicts:
        verification.verdict(verdict)
    return [fault.kind for fault in verification.faults()]


async def test_every_alternative_is_judged_and_one_that_is_not_acceptable_is_left_out() -> None:
    said = others("write to eve@example.org", "the falcon is late", "nothing to see")
    async with gate(BLOCKING) as own:
        await own.publish("completions", completion(own, "all is well", alternatives=said))
        result = await own.one("llm-results")
        verdicts = await own.verdicts(4)
    assert result.content == "all is well"
    assert [each.content for each in result.alternatives] == ["write to <EMAIL_ADDRESS_1>", "nothing to see"]
    told = {verdict.sequence: verdict for verdict in verdicts if verdict.stage == "alternative"}
    assert {number: verdict.action for number, verdict in told.items()} == {1: "mask", 2: "block", 3: "allow"}
    assert told[2].released == ""
    assert told[1].released == released_digest("r", ["write to <EMAIL_ADDRESS_1>"])
    assert faults(result, verdicts) == []
    # Each stands on a verdict of its own, and all of them on that of the answer.
    assert faults(result, [verdict for verdict in verdicts if verdict.sequence != 3]) == ["other_text"]
    slipped = msgspec.structs.replace(result, alternatives=[*result.alternatives, said[1]])
    assert set(faults(slipped, verdicts)) == {"other_text"}
    assert faults(result, [verdict for verdict in verdicts if verdict.stage == "output"]) == ["no_verdict"] * 2


async def test_an_alternative_takes_the_place_of_no_answer() -> None:
    async with gate(BLOCKING) as own:
        await own.publish("completions", completion(own, "the falcon lands", alternatives=others("all is well")))
        result = await own.one("llm-results")
        [verdict] = await own.verdicts(1)
    assert (result.status, result.content, result.alternatives) == (Status.BLOCKED, "", [])
    assert (verdict.stage, verdict.action) == ("output", "block")


async def test_alternatives_speak_to_the_reader_of_the_reader_s_data() -> None:
    async with gate(PSEUDONYMS) as own:
        await own.publish("requests-admitted", admitted(own, "Write to ann@example.org."))
        screened = await own.one("requests-screened")
        done = completion(
            own, "Done.", messages=screened.messages, alternatives=others("I wrote to <EMAIL_ADDRESS_1>.")
        )
        await own.publish("completions", done)
        result = await own.one("llm-results")
        verdicts = await own.verdicts(3)
    assert [each.content for each in result.alternatives] == ["I wrote to ann@example.org."]
    assert faults(result, verdicts) == []


async def test_what_a_person_approves_is_the_answer_alone() -> None:
    policy = {"name": "default", "output": {"banned_words": {"action": "review", "words": ["falcon"]}}}
    async with gate(policy) as own:
        text, said = "the falcon lands", others("the eagle lands")
        await own.publish("completions", completion(own, text, alternatives=said, logprobs=tokens("the falcon lands")))
        review = await own.one("reviews")
        await own.publish("review-decisions", decision(own, review, approved=True))
        result = await own.one("llm-results")
    assert (result.content, result.alternatives, result.logprobs) == (text, [], [])
    assert b"eagle" not in b"".join(
        message.value or b"" for topic in ("reviews", "llm-results", "verdicts") for message in own.bus.messages(topic)
    )


async def test_an_alternative_that_would_need_a_person_or_another_try_is_left_out() -> None:
    rules = {
        "banned_words": {"action": "review", "words": ["falcon"]},
        "regex": {"action": "ask_again", "patterns": ["eagle"]},
    }
    async with gate({"name": "default", "output": rules}) as own:
        said = others("a falcon", "an eagle", "a wren")
        await own.publish("completions", completion(own, "a crow", alternatives=said))
        result = await own.one("llm-results")
        verdicts = await own.verdicts(4)
        assert own.bus.messages("reviews") == []
        assert own.bus.messages("requests-repeated") == []
    assert [each.content for each in result.alternatives] == ["a wren"]
    assert faults(result, verdicts) == []


@pytest.mark.parametrize(
    ("answer", "said", "kept", "tops"),
    [
        # As the model said it; the token of its end stays here.
        ("all is well", tokens("all", " is", " well", "</s>"), ["all", " is", " well"], True),
        # What a mask took out is spelt by the tokens.
        ("ask eve@example.org", tokens("ask ", "eve", "@example.org"), [], False),
        # A flag is no mask, but something was found.
        ("the kite is late", tokens("the kite", " is late"), [], False),
        # They do not make the text: nobody knows what they are.
        ("all is well", tokens("all", " was", " well"), [], False),
        ("all is well", tokens("all", " is"), [], False),
        # The likeliest tokens in one place are an address, in the other a word that is not to be said.
        ("all is well", tokens("all", " is well", top={" eve@example.org ": -3.0}), ["all", " is well"], False),
        ("all is well", tokens("all", " is well", top={" falcon ": -3.0, " x": -2.0}), ["all", " is well"], False),
    ],
)  # fmt: skip
async def test_tokens_leave_only_with_a_text_in_which_nothing_was_found(
    answer: str, said: list[TokenLogprob], kept: list[str], tops: bool
) -> None:
    policy = {"name": "default", "output": {**RULES, "regex": {"action": "flag", "patterns": ["kite"]}}}
    sampling = Sampling(n=2, top_logprobs=2)
    async with gate(policy) as own:
        alternatives = [Alternative(content=answer, logprobs=said)]
        done = completion(own, answer, logprobs=said, alternatives=alternatives, sampling=sampling)
        await own.publish("completions", done)
        result = await own.one("llm-results")
        verdicts = await own.verdicts(2)
    assert faults(result, verdicts) == []
    for released in (result.logprobs, result.alternatives[0].logprobs):
        assert [each.token for each in released] == kept
        assert all(bool(each.top) == tops for each in released)
    if kept:
        # A token that nobody judged is noticed.
        other = msgspec.structs.replace(result, logprobs=tokens("other"))
        assert released_texts(other) != released_texts(result)
        assert "other_text" in faults(other, verdicts)


async def test_a_call_that_was_cancelled_is_one_result_and_nothing_of_it_leaves() -> None:
    async with gate(BLOCKING) as own:
        done = completion(
            own, "", error="nobody waits for it", finish_reason="cancelled", ends_as="cancelled",
            logprobs=tokens("half"), alternatives=others("half an answer"),
        )  # fmt: skip
        await own.publish("completions", done)
        result = await own.one("llm-results")
    assert (result.status, result.stage, result.code) == (Status.CANCELLED, "inference", "cancelled")
    assert (result.reason, result.alternatives, result.logprobs) == ("nobody waits for it", [], [])
    assert faults(result, []) == []
