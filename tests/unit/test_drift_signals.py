"""The signals: what each is taken from, which events say nothing of it, and which segment it belongs to."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.bus import Emit
from penstock.contracts.catalogue import Catalogue
from penstock.contracts.records import (
    Completion,
    Context,
    Cost,
    Evaluation,
    Finding,
    LlmResult,
    Message,
    Passage,
    Record,
    Score,
    ScreenedRequest,
    Signal,
    Timings,
    ToolCall,
    Usage,
    Verdict,
)

from services.drift.projection import project
from services.drift.signals import SIGNALS, SOURCES, definition, segment_of

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
CONTEXT = Context(route="fast", prompt_version="v1", policy_version="p1", requested_at=NOW - timedelta(seconds=2))
ENVELOPE = {"event_id": "e1", "request_id": "r1", "tenant_id": "support", "occurred_at": NOW, "causation_id": "c1"}
VECTOR = bytes.fromhex("0000803f") * 8

COMPLETION = Completion(
    **ENVELOPE, context=CONTEXT, messages=[], model="m-2026", request_model="m", backend="openai", content="yes",
    passages=[Passage(passage_id=f"p{s}", document_id=f"d{s}", text="t", score=s) for s in (0.4, 0.7)], citations=["p0.7"],
    usage=Usage(input_tokens=30, output_tokens=3, cached_input_tokens=15),
    timings=Timings(queue_us=500, first_token_us=900, model_us=1500), grounding="grounded", embedding=VECTOR,
    embedder="all-MiniLM-L6-v2",
)  # fmt: skip
COST = Cost(**ENVELOPE, context=CONTEXT, model="m", response_model="m-2026", priced=True, amount=Decimal("0.00000125"))
SCREENED = ScreenedRequest(
    **ENVELOPE, context=CONTEXT, action="mask",
    messages=[Message(role="system", content="be brief"), Message(role="user", content="hello")],
    findings=[Finding(scanner="pii", kind="EMAIL_ADDRESS", score=1.0, action="mask")],
)  # fmt: skip
VERDICT = Verdict(
    **ENVELOPE, stage="input", action="block", policy_name="default", policy_version="p1", latency_us=2500,
    findings=[
        Finding(scanner="pii", kind="EMAIL_ADDRESS", score=1.0, action="mask"),
        Finding(scanner="injection", kind="prompt_injection", score=0.9, action="block"),
    ],
    scanners={"pii": "1", "injection": "2"},
)  # fmt: skip
RESULT = LlmResult(**ENVELOPE, context=CONTEXT, status="completed", model="m-2026")
EVALUATION = Evaluation(
    **ENVELOPE, context=CONTEXT, model="m-2026",
    scores=[
        Score(name="toxicity", subject="prompt", score=0.02, version="tox-1+17"),
        Score(name="groundedness", subject="answer", score=0.9),
        Score(name="brevity", subject="answer", score=0.4),
    ],
)  # fmt: skip


def change(record: Record, **fields: object) -> Record:
    return msgspec.structs.replace(record, **fields)


def signals(topic: str, record: Record) -> list[Signal]:
    emits: list[Emit] = project(topic, 0, 0, record)
    records = [emit.record for emit in emits]
    assert all(isinstance(each, Signal) for each in records)
    return records  # type: ignore[return-value]


def everything(topic: str, record: Record) -> dict[str, object]:
    """All signals of an event by name, whichever segment they belong to."""
    found: dict[str, object] = {}
    for each in signals(topic, record):
        for part in (each.values, each.categories, each.vectors):
            assert not found.keys() & part.keys()
            found |= part
    return found


def test_every_signal_is_told_apart_and_is_either_read_or_made_of_a_text() -> None:
    assert len({each.name for each in SIGNALS}) == len(SIGNALS)
    assert {each.source for each in SIGNALS} == set(SOURCES)
    assert all(definition(each.name) is each for each in SIGNALS)
    for each in SIGNALS:
        assert (each.read is None) != (each.text is None), each.name
        assert each.text is None or each.scale in ("category", "vector"), each.name
        assert each.least >= (1.0 if each.scale == "amount" else 0.0), each.name


def test_every_source_is_a_topic_that_drift_reads() -> None:
    topics = Catalogue.load().topics
    assert all("drift" in topics[name].readers for name in SOURCES)


def test_what_the_issue_asks_for_is_watched() -> None:
    kinds = {each.kind for each in SIGNALS}
    assert kinds == {"data", "model", "concept", "retrieval", "quality", "guardrail", "cost", "latency"}
    names = {each.name for each in SIGNALS}
    assert {
        "prompt.topic", "answer.topic", "prompt.characters", "answer.tokens", "prompt.language", "answer.language",
        "input.pii", "output.pii", "input.blocked", "output.blocked", "answer.toxicity", "answer.groundedness",
        "result.withheld", "retrieval.score", "model.latency_ms", "model.first_token_ms", "model.queue_ms",
        "result.latency_ms", "prompt.tokens", "cost.usd", "cache.hit", "feedback.rating", "feedback.disagreement",
        "model.error",
    } <= names  # fmt: skip


def test_the_figures_of_a_completion() -> None:
    assert everything("completions", COMPLETION) == {
        "prompt.topic": VECTOR, "prompt.tokens": 30, "answer.tokens": 3, "answer.characters": 3,
        "answer.finish_reason": "stop",
        "answer.cited": 1,
        "model.error": 0, "model.latency_ms": 1.5, "model.first_token_ms": 0.9, "model.queue_ms": 0.5,
        "model.answered": "m-2026", "retrieval.score": 0.7, "retrieval.empty": 0, "retrieval.unavailable": 0,
        "retrieval.document": "d0.7", "retrieval.margin": pytest.approx(0.3), "retrieval.passages": 2,
        "cache.hit": 0, "cache.prefix": 0.5,
    }  # fmt: skip


def test_a_request_counts_once_however_many_calls_it_took() -> None:
    of_request = {"prompt.topic", "prompt.tokens", "retrieval.score", "cache.hit", "model.answered"}
    again = everything("completions", change(COMPLETION, attempt=1))
    assert not of_request & again.keys()
    assert again["model.latency_ms"] == 1.5
    abandoned = change(COMPLETION, kind="abandoned", error="http://m/v1: no answer within 30 s", embedding=None)
    assert everything("completions", abandoned) == {"model.error": 1, "model.error_kind": "timeout"}
    for kind in ("judge", "shadow"):
        assert everything("completions", change(COMPLETION, kind=kind)) == {}


def test_an_answer_from_a_cache_says_nothing_of_the_model() -> None:
    found = everything("completions", change(COMPLETION, kind="cached", cached_by="exact"))
    assert found["cache.hit"] == 1
    assert found["prompt.tokens"] == 30
    assert not {"answer.tokens", "model.latency_ms", "model.error", "answer.finish_reason"} & found.keys()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("http://m/v1: no answer within 30 s", "timeout"),
        ("http://m/v1: cannot connect: refused", "connection"),
        ("http://m/v1: 429: slow down", "http_429"),
        ("http://m/v1: broke off: {}", "interrupted"),
        ("the deadline passed while the answer was streamed", "deadline"),
        ("something else", "other"),
    ],
)
def test_errors_are_told_apart_by_kind(error: str, kind: str) -> None:
    found = everything("completions", change(COMPLETION, error=error, finish_reason="error"))
    assert (found["model.error"], found["model.error_kind"]) == (1, kind)
    assert "answer.tokens" not in found


def test_words_beside_calls_of_tools_are_no_answer() -> None:
    call = ToolCall(id="call_1", name="look_up", arguments="{}")
    found = everything("completions", change(COMPLETION, tool_calls=[call], finish_reason="tool_calls"))
    assert found["answer.finish_reason"] == "tool_calls"
    assert not found.keys() & {"answer.characters", "answer.cited", "answer.topic", "answer.language"}


def test_retrieval_is_told_by_what_was_attached() -> None:
    alone = change(COMPLETION, passages=COMPLETION.passages[:1])
    found = everything("completions", alone)
    assert (found["retrieval.passages"], found["retrieval.score"]) == (1, 0.4)
    assert "retrieval.margin" not in found, "there is no next passage"
    empty = everything("completions", change(COMPLETION, grounding="empty", passages=[], citations=[]))
    assert empty["retrieval.empty"] == 1
    assert not empty.keys() & {"retrieval.passages", "retrieval.score", "retrieval.margin", "answer.cited"}


def test_use_of_the_passages_is_watched_and_a_hit_counts_once() -> None:
    scores = [
        Score(name="context_use", subject="answer", score=0.25),
        Score(name="citation_correctness", subject="answer", score=1.0),
        Score(name="passages_found", subject="answer", score=1.0),
        Score(name="rating_empty", subject="feedback", score=0.5),
    ]
    assert everything("evaluations", change(EVALUATION, scores=scores)) == {
        "answer.context_use": 0.25, "answer.citation_correctness": 1.0, "feedback.rating_empty": 0.5
    }  # fmt: skip
    assert definition("answer.context_use").kind == "retrieval"


def test_retrieval_that_is_off_has_no_signals() -> None:
    found = everything("completions", change(COMPLETION, grounding="off", passages=[], citations=[]))
    assert not [name for name in found if name.startswith("retrieval")]
    assert "answer.cited" not in found


def test_costs_are_those_of_answers() -> None:
    assert everything("costs", COST) == {"cost.usd": 1.25e-6}
    assert everything("costs", change(COST, priced=False, amount=None)) == {}
    assert everything("costs", change(COST, kind="judge")) == {}


def test_verdicts_tell_what_was_stopped() -> None:
    assert everything("verdicts", VERDICT) == {
        "input.blocked": 1, "input.pii": 1, "input.finding": "injection", "input.scan_ms": 2.5
    }  # fmt: skip
    passed = change(VERDICT, action="allow", findings=[], scanners={"injection": "2"})
    assert everything("verdicts", passed) == {"input.blocked": 0, "input.finding": "nothing", "input.scan_ms": 2.5}
    output = everything(
        "verdicts", change(VERDICT, stage="output", action="allow", scanners={"refusal": "1"}, findings=[])
    )
    assert output["output.refusal"] == 0
    for skipped in (change(VERDICT, mode="shadow"), change(VERDICT, stage="piece"), change(VERDICT, stage="document")):
        assert everything("verdicts", skipped) == {}


def test_results_tell_how_requests_end() -> None:
    assert everything("llm-results", RESULT) == {
        "result.withheld": 0, "result.blocked": 0, "result.code": "completed", "result.latency_ms": 2000
    }  # fmt: skip
    refused = change(RESULT, status="blocked", code="prompt_injection", model=None)
    assert everything("llm-results", refused) == {
        "result.withheld": 1, "result.blocked": 1, "result.code": "prompt_injection"
    }  # fmt: skip


def test_scores_are_signals_whoever_gives_them() -> None:
    assert everything("evaluations", EVALUATION) == {
        "prompt.toxicity": 0.02, "answer.groundedness": 0.9, "answer.brevity": 0.4
    }  # fmt: skip
    assert definition("answer.brevity").kind == "quality"
    assert definition("prompt.brevity").kind == "data"
    assert definition("feedback.disagreement").kind == "concept"
    nothing = change(EVALUATION, scores=[Score(name="toxicity", subject="answer", score=math.nan)])
    assert signals("evaluations", nothing) == []


def test_a_signals_segment_sees_all_of_its_events() -> None:
    """A rate of refusals by model would be 1 where no model was asked and 0 elsewhere."""
    refused = change(RESULT, status="blocked", model=None)
    assert [each.segment for each in signals("llm-results", refused)] == ["support|*|v1|fast"]
    assert [each.segment for each in signals("llm-results", RESULT)] == ["support|*|v1|fast"]
    by_segment = {each.segment: set(each.values) for each in signals("evaluations", EVALUATION)}
    assert by_segment == {
        "support|m-2026|v1|fast": {"answer.groundedness", "answer.brevity"},
        "support|*|v1|fast": {"prompt.toxicity"},
    }
    assert [each.segment for each in signals("verdicts", VERDICT)] == ["support|*|*|*"]
    assert [each.segment for each in signals("costs", COST)] == ["support|m-2026|v1|fast"]
    assert [each.segment for each in signals("requests-screened", SCREENED)] == ["support|*|v1|fast"]


def test_the_segment_names_team_model_prompt_version_and_route() -> None:
    assert segment_of(COMPLETION, CONTEXT) == "support|m-2026|v1|fast"
    assert segment_of(SCREENED, change(CONTEXT, prompt_version=None)) == "support|*|-|fast"  # type: ignore[arg-type]
    assert segment_of(change(COMPLETION, tenant_id="a|b"), CONTEXT) == "a%7Cb|m-2026|v1|fast"


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(SIGNALS))
def test_what_a_detector_sees_is_finite_and_reads_back(value: float, defined: object) -> None:
    assert isinstance(defined, type(SIGNALS[0]))
    seen = defined.transform(value)
    if seen is None:
        assert not math.isfinite(value) or (defined.scale == "amount" and value <= 0)
    else:
        assert math.isfinite(seen)
        assert defined.restore(seen) == pytest.approx(value, rel=1e-9)


def test_a_change_matters_by_difference_or_by_factor() -> None:
    tokens, errors = definition("prompt.tokens"), definition("model.error")
    assert tokens.matters(math.log(100), math.log(130))
    assert not tokens.matters(math.log(100), math.log(120))
    assert errors.matters(0.01, 0.04)
    assert not errors.matters(0.01, 0.02)
