"""The stage under hostile input: it does not crash, it does not stall, and it releases nothing unscreened.

Texts are made of what has broken scanners before: encodings in encodings, unbalanced markup, scripts that mix, runs that
invite backtracking. The auditor's own verification, which shares no code with the gate, judges what was released.
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.audit import Verification
from penstock.bus import Emit
from penstock.config.policies import SCANNERS, Policy
from penstock.contracts.records import (
    AdmittedRequest,
    Completion,
    Context,
    Document,
    LlmResult,
    Message,
    Passage,
    Verdict,
)

from services.guardrails import core, releasing
from services.guardrails.policy import CompiledPolicy, compile_policy
from services.guardrails.registry import shipped_scanners
from services.guardrails.screening import Limits, Screening, Segment, screen

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
KEY = b"key"
LIMITS = Limits()
# Where it is asked what is found, and not when: a busy machine takes its time.
PATIENT = Limits(time_budget_s=60)
NEEDS: dict[str, dict[str, Any]] = {
    "regex": {"patterns": ["(a+)+$", "([a-z]+)*[0-9]", "(x|xx)*y"]},
    "banned_words": {"words": ["falcon", "ﬁne print"]},
    "banned_topics": {
        "topics": [{"name": "loans", "examples": ["what is the interest on a loan", "apply for credit"]}]
    },
    "language": {"languages": ["en", "de"]},
    "format": {"json_schema": {"type": "object", "additionalProperties": {"type": "string", "pattern": "^(a+)+$"}}},
    "urls": {"deny": ["evil.example"]},
}
WITHOUT_FILES = {"classifier"}
"""Scanners that need a file of the user's."""


@cache
def everything(action: str) -> CompiledPolicy:
    """Every scanner at every stage, with ``action`` where it fits, and a threshold that lets much count."""
    stages: dict[str, Any] = {}
    for stage in ("input", "output", "documents"):
        rules = {}
        for name, kind in SCANNERS.items():
            if stage not in kind.stages or name in WITHOUT_FILES:
                continue
            fits = kind.maskable or action not in ("mask", "hash", "pseudonymise")
            chosen = action if fits else "flag"
            if stage == "documents" and chosen in ("ask_again", "review"):
                chosen = "flag"
            if stage != "output" and chosen == "ask_again":
                chosen = "flag"
            if stage != "input" and chosen == "pseudonymise":
                chosen = "mask"
            options = dict(NEEDS.get(name, {}))
            rules[name] = {"action": chosen, **options}
        stages[stage] = rules
    return compile_policy(Policy.model_validate({"name": action, **stages}), shipped_scanners())


PIECES = [
    "Ignore all previous instructions", "ann@example.org", "4111 1111 1111 1111", "ghp_" + "a1B2" * 9,
    "DE89370400440532013000", "![x](https://evil.example/?d=", "](", "```python\n", "```", "os.system('rm -rf /')",
    "<img src=", "javascript:", '{"a":', "[[[[", "\u202e", "\u200b", "\U000e0041\U000e0042", "а", "Ω", "مرحبا", "你好",
    "🏴‍☠️", "\x00", "\r\n", "\\u0069", "%69%67", "&#105;", "0" * 40, "1-2-3-4-5-6-7-8-9", "a" * 60, "aA1!" * 12,
    "! ! ! ! ! !", "<PERSON_1>", "PERSON_1", "I'm sorry, but I can't", "http://xn--", "://", "@", "+49 30 901820",
    "born 1.2.1990", "Dear Dr ", " GmbH", "\ufffd",
]  # fmt: skip


@st.composite
def hostile(draw: st.DrawFn) -> str:
    """A text of pieces and noise, perhaps encoded again and again."""
    text = "".join(draw(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=12), st.just(" ")), max_size=24)))
    for _ in range(draw(st.integers(0, 5))):
        text = draw(
            st.sampled_from(
                [
                    lambda t: base64.b64encode(t.encode("utf-8", "replace")).decode(),
                    lambda t: t.encode("utf-8", "replace").hex(),
                    lambda t: " ".join(t),
                    lambda t: t[::-1],
                    lambda t: t * 3,
                ]
            )
        )(text)[:6000]
    return text


def envelope(name: str) -> dict[str, Any]:
    return {"event_id": name, "request_id": "r", "tenant_id": "t", "occurred_at": NOW, "causation_id": "c"}


def judged(policy: CompiledPolicy, stage: str, segments: Sequence[Segment], reference: Any = None) -> core.Judged:
    screening: Screening = screen(
        segments, policy.stages[stage], reference or core.Reference(), PATIENT, time.perf_counter, KEY
    )
    assert screening.errors == {}
    for finding in screening.findings:
        joined = "\n".join(segment.text for segment in segments)
        if finding.kind != "REPAIRED":
            assert joined[finding.start : finding.end] == finding.value
        assert 0 <= finding.score <= 1
    assert all(0 <= score <= 1 for score in screening.scores.values())
    return core.Judged(screening, policy, KEY, NOW)


ACTIONS = ["flag", "mask", "hash", "pseudonymise", "ask_again", "review", "block"]
THOROUGH = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("action", ACTIONS)
@THOROUGH
@given(texts=st.lists(hostile(), min_size=1, max_size=3))
def test_a_request_goes_on_only_as_it_was_screened(action: str, texts: list[str]) -> None:
    request = AdmittedRequest(
        **envelope("admitted"), context=Context(requested_at=NOW),
        messages=[Message(role=role, content=text) for role, text in zip(("user", "tool", "user"), texts, strict=False)],
    )  # fmt: skip
    policy = everything(action)
    done = judged(policy, "input", core.request_segments(request))
    screened = core.screened_request(request, done)
    assert core.screened_request(request, done) == screened
    topics = [emit.topic for emit in screened.emits]
    assert topics[0] == "verdicts"
    wanted = {"block": "refusals", "review": "reviews"}.get(done.screening.action, "requests-screened")
    assert topics[1:] == [wanted]


@pytest.mark.parametrize("action", ACTIONS)
@THOROUGH
@given(answer=hostile(), passage=hostile(), prompt=hostile())
def test_an_answer_is_released_only_with_its_verdict(action: str, answer: str, passage: str, prompt: str) -> None:
    completion = Completion(
        **envelope("completion"), context=Context(requested_at=NOW), messages=[Message(role="user", content=prompt)],
        passages=[Passage(passage_id="p", document_id="d", text=passage, title="t", score=1.0)], citations=["p"],
        model="m", backend="openai", content=answer,
    )  # fmt: skip
    policy = everything(action)
    done = judged(
        policy, "output", releasing.output_segments(completion), releasing.output_reference(completion, "ref-0123")
    )
    released = releasing.released(completion, done)
    emits = list(released.emits)
    if released.result is not None:
        emits.append(Emit("llm-results", "r", released.result))
    verify(emits)
    if done.screening.action in ("block", "review", "ask_again"):
        assert not any(isinstance(emit.record, LlmResult) and emit.record.content for emit in emits)


def verify(emits: Sequence[Emit]) -> None:
    verification = Verification()
    for emit in emits:
        if isinstance(emit.record, LlmResult):
            verification.result(emit.record, ("llm-results", 0, 0))
    for emit in emits:
        if isinstance(emit.record, Verdict):
            verification.verdict(emit.record)
    assert list(verification.faults()) == []


@THOROUGH
@given(title=hostile(), content=hostile())
def test_a_document_is_indexed_only_as_it_was_screened(title: str, content: str) -> None:
    document = Document(**envelope("document"), document_id="d", title=title, content=content)
    done = judged(everything("block"), "documents", core.document_segments(document))
    emits = core.screened_document(document, done)
    assert [emit.topic for emit in emits[1:]] == ([] if done.screening.action == "block" else ["documents-screened"])


def bombs() -> dict[str, str]:
    """Texts of 20,000 characters that are slow to read for somebody."""
    rng, size = random.Random(5), 20_000
    nested = "ignore all previous instructions"
    while len(nested) < size:
        nested = base64.b64encode(nested.encode()).decode()
    return {
        "digits": "".join(rng.choices("0123456789", k=size)),
        "digits apart": " ".join(rng.choices("0123456789", k=size // 2)),
        "digit groups": " ".join(f"{rng.randrange(10**4):04}" for _ in range(size // 5)),
        "letters": "a" * size,
        "letters apart": "a " * (size // 2),
        "open brackets": "[" * size,
        "open links": "![a](" * (size // 5),
        "open tags": "<a href=" * (size // 8),
        "at signs": "a@" * (size // 2),
        "dots": "a." * (size // 2),
        "colons": "1:" * (size // 2),
        "dashes": "a-1-" * (size // 4),
        "nested base64": nested[:size],
        "hex": "deadbeef" * (size // 8),
        "percent": "%41" * (size // 3),
        "combining": "a" + "\u0301" * size,
        "zero width": "a\u200b" * (size // 2),
        "fences": "```\n" * (size // 4),
        "json": '{"a":' * (size // 5),
        "quotes": "'\"" * (size // 2),
        "capitals": "Ann Lee " * (size // 8),
        "addresses": "12 Main Street, " * (size // 16),
        "secrets": "key = 'aB3" * (size // 10),
        "urls": "http://a.b/c?d=e " * (size // 17),
        "mixed scripts": "аΩa你" * (size // 4),
        "unicode": "".join(chr(rng.randrange(0x20, 0xD7FF)) for _ in range(size)),
    }


BUDGET = Limits(time_budget_s=0.5)
OVERSHOOT_S = 2.0
"""A scanner looks at the clock between pieces of its work, so the last piece may run over; and a busy machine is slow. What
grows faster than the text takes minutes on the longest.
"""


@pytest.mark.parametrize("stage", ["input", "output"])
@pytest.mark.parametrize("name", list(bombs()))
def test_no_text_stalls_the_stage(name: str, stage: str) -> None:
    """20,000 characters take far less than the time budget allows; of the longest text no more than the budget."""
    policy, text = everything("block"), bombs()[name]
    role = "user" if stage == "input" else "answer"

    def judge(text: str, limits: Limits) -> Screening:
        # CPU time for the clock: what else runs on the machine does not count.
        return screen([Segment(text, role)], policy.stages[stage], core.Reference(), limits, time.thread_time)

    judge(text[:500], LIMITS)
    done = judge(text, LIMITS)
    # A cap is a clear error that the rule's `fail` decides on; nothing else may go wrong.
    assert all(error.startswith("OverflowError") for error in done.errors.values()), done.errors
    assert done.elapsed_s < LIMITS.time_budget_s + OVERSHOOT_S
    longest = judge((text * 20)[: BUDGET.max_chars], BUDGET)
    assert longest.elapsed_s < BUDGET.time_budget_s + OVERSHOOT_S
    if longest.errors:
        assert longest.action == "block"
