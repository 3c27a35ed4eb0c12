"""Which requests ask for the same, and which answers are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from penstock.config.kinds import Cache, Route, Target
from penstock.contracts.records import Alternative, Context, GroundedRequest, Message, Passage, Sampling, Usage
from penstock.text.marker import marked
from pydantic import ValidationError

from services.inference.core import Answered
from services.inference.exact_cache import Kept, asked_of, is_repeatable, kept_of

NOW = datetime(2026, 1, 5, tzinfo=UTC)
EXTRACTIVE = Target(backend="extractive", model="penstock-extractive-1")
OPENAI = Target(backend="openai", model="m", base_url="http://127.0.0.1:1/v1")
ANSWERED = Answered(
    "m-1", "openai", "An answer.", "stop", Usage(input_tokens=9, output_tokens=3), 1200, ("p",), 300, None
)
PASSAGE = Passage(passage_id="p", document_id="d", title="T", source="s", start=0, end=5, text="Words", score=0.5)


def a_request(**changes: Any) -> GroundedRequest:
    fields: dict[str, Any] = {
        "event_id": "e", "request_id": "r", "tenant_id": "t", "occurred_at": NOW, "causation_id": "c",
        "context": Context(requested_at=NOW, policy_version="p1", prompt_version="v1"), "passages": [PASSAGE],
        "messages": [Message(role="system", content="Be brief."), Message(role="user", content="Why?")],
        "sampling": Sampling(temperature=0.0),
    }  # fmt: skip
    return GroundedRequest(**fields | changes)


def in_context(**changes: Any) -> GroundedRequest:
    request = a_request()
    return msgspec.structs.replace(request, context=msgspec.structs.replace(request.context, **changes))


def test_what_an_answer_does_not_depend_on_changes_nothing() -> None:
    asked = asked_of(a_request(), OPENAI)
    same = [
        a_request(event_id="e2", request_id="r2", occurred_at=NOW + timedelta(days=1), stream=True, embedding=bytes(4)),
        a_request(passages=[msgspec.structs.replace(PASSAGE, score=0.9)]),
        in_context(conversation_id="c2", user_id="u2", tags={"feature": "x"}, key_id="k2", deadline_at=NOW),
    ]
    assert [asked_of(request, OPENAI) for request in same] == [asked] * len(same)
    assert asked_of(a_request(), OPENAI.model_copy(update={"weight": 7, "timeout_s": 1.0})) == asked


@pytest.mark.parametrize(
    "other",
    [
        a_request(tenant_id="t2"),
        in_context(route="another"),
        in_context(policy_version="p2"),
        in_context(policy_name="strict"),
        in_context(prompt_version="v2"),
        a_request(messages=[Message(role="system", content="Be brief."), Message(role="user", content="Why!")]),
        a_request(messages=[Message(role="user", content="Be brief."), Message(role="user", content="Why?")]),
        a_request(messages=[Message(role="system", content="Be brief."), Message(role="user", content="Why?", name="a")]),
        a_request(passages=[]),
        a_request(passages=[PASSAGE, PASSAGE]),
        a_request(passages=[msgspec.structs.replace(PASSAGE, passage_id="q")]),
        a_request(passages=[msgspec.structs.replace(PASSAGE, text="Other")]),
        a_request(sampling=Sampling(temperature=0.0, max_completion_tokens=9)),
        a_request(sampling=Sampling(temperature=0.0, stop=["."])),
        a_request(sampling=Sampling(temperature=0.0, seed=1)),
        a_request(sampling=Sampling(temperature=0.1)),
    ],
)  # fmt: skip
def test_what_an_answer_depends_on_makes_another_question(other: GroundedRequest) -> None:
    assert asked_of(other, OPENAI) != asked_of(a_request(), OPENAI)


@pytest.mark.parametrize("changes", [{"model": "n"}, {"base_url": "http://127.0.0.1:2/v1"}, {"backend": "vllm"}])
def test_another_target_is_another_question(changes: dict[str, str]) -> None:
    assert asked_of(a_request(), OPENAI.model_copy(update=changes)) != asked_of(a_request(), OPENAI)


def test_the_marker_of_the_system_prompt_makes_no_other_question_but_a_users_imitation_does() -> None:
    def saying(system: str, user: str) -> bytes:
        messages = [Message(role="system", content=system), Message(role="user", content=user)]
        return asked_of(a_request(messages=messages), OPENAI)

    one, two = f"ref-{'1' * 16}", f"ref-{'2' * 16}"
    assert saying(marked("Be brief.", one), "Why?") == saying(marked("Be brief.", two), "Why?")
    assert saying("Be brief.", marked("Why?", one)) != saying("Be brief.", marked("Why?", two))


@pytest.mark.parametrize(
    ("rules", "target", "temperature", "attempt", "repeatable"),
    [
        (Cache(exact=True), OPENAI, 0.0, 0, True),
        (Cache(exact=True), EXTRACTIVE, None, 0, True),
        (Cache(exact=True, any_temperature=True), OPENAI, 0.7, 0, True),
        (Cache(exact=True, any_temperature=True), OPENAI, None, 0, True),
        (Cache(exact=True), OPENAI, 0.7, 0, False),
        (Cache(exact=True), OPENAI, None, 0, False),
        (Cache(exact=True, any_temperature=True), OPENAI, 0.0, 1, False),
        (Cache(), EXTRACTIVE, 0.0, 0, False),
        (Cache(any_temperature=True), OPENAI, 0.0, 0, False),
    ],
)
def test_an_answer_is_repeated_where_the_route_says_so_and_the_model_would_say_it_again(
    rules: Cache, target: Target, temperature: float | None, attempt: int, repeatable: bool
) -> None:
    request = a_request(sampling=Sampling(temperature=temperature), attempt=attempt)
    assert is_repeatable(request, target, rules) is repeatable


@pytest.mark.parametrize("purpose", ["judge", "evaluation"])
def test_what_is_no_traffic_is_never_answered_from_the_cache(purpose: str) -> None:
    rules = Cache(exact=True, any_temperature=True)
    assert is_repeatable(in_context(), OPENAI, rules)
    assert not is_repeatable(in_context(purpose=purpose), OPENAI, rules)


def test_an_answer_is_kept_as_it_was_given() -> None:
    kept = kept_of(a_request(), ANSWERED, "event")
    assert kept is not None
    assert kept.again() == ANSWERED
    repeated = kept.repeated(80)
    assert (repeated.cached_from, repeated.model_us, repeated.first_token_us) == ("event", 80, None)
    assert (repeated.content, repeated.citations, repeated.usage, repeated.model) == (
        "An answer.",
        ("p",),
        ANSWERED.usage,
        "m-1",
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(kept), type=Kept) == kept


@pytest.mark.parametrize(
    "changes",
    [
        {"finish_reason": "length"},
        {"finish_reason": "content_filter"},
        {"content": ""},
        {"content": "x" * 65_537},
        {"error": "broke off"},
        {"alternatives": (Alternative(content="Cut", finish_reason="length"),)},
        {"alternatives": (Alternative(content=""),)},
        {"alternatives": (Alternative(content="x" * 65_536),)},
    ],
)
def test_an_answer_that_is_not_whole_or_very_long_is_not_kept(changes: dict[str, Any]) -> None:
    fields = {name: getattr(ANSWERED, name) for name in ANSWERED.__dataclass_fields__}
    assert kept_of(a_request(), Answered(**fields | changes), "event") is None


def test_alternatives_are_kept_and_given_again() -> None:
    fields = {name: getattr(ANSWERED, name) for name in ANSWERED.__dataclass_fields__}
    answered = Answered(**fields | {"alternatives": (Alternative(content="Another."), Alternative(content="A third."))})
    kept = kept_of(a_request(sampling=Sampling(temperature=0.0, n=3)), answered, "event")
    assert kept is not None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(kept), type=Kept).again() == answered
    assert kept.repeated(80).alternatives == answered.alternatives


def test_what_was_kept_before_there_were_alternatives_is_read() -> None:
    kept = kept_of(a_request(), ANSWERED, "event")
    assert kept is not None
    older = msgspec.msgpack.encode(msgspec.msgpack.decode(msgspec.msgpack.encode(kept))[:-1])
    assert msgspec.msgpack.decode(older, type=Kept) == kept


def test_probabilities_of_tokens_are_asked_of_the_model() -> None:
    rules = Cache(exact=True)
    for wanted, repeatable in ((None, True), (0, False), (5, False)):
        request = a_request(sampling=Sampling(temperature=0.0, top_logprobs=wanted))
        assert is_repeatable(request, OPENAI, rules) is repeatable


@pytest.mark.parametrize("said", ["ref-0123456789abcdef", "REF 0123-4567-89AB-CDEF", "0 1 2 3 4 5 6 7 8 9 a b c d e f"])
def test_an_answer_that_gives_the_marker_away_is_not_kept(said: str) -> None:
    fields = {name: getattr(ANSWERED, name) for name in ANSWERED.__dataclass_fields__}
    messages = [Message(role="system", content=marked("Be brief.", "ref-0123456789abcdef"))]
    leaking = Answered(**fields | {"content": f"My reference is {said}, I think."})
    assert kept_of(a_request(messages=messages), leaking, "event") is None
    beside = Answered(**fields | {"alternatives": (Alternative(content=leaking.content),)})
    assert kept_of(a_request(messages=messages), beside, "event") is None
    assert kept_of(a_request(messages=messages), ANSWERED, "event") is not None


def test_a_route_without_a_cache_keeps_the_version_it_had() -> None:
    plain = Route(name="r", targets=(EXTRACTIVE,))
    assert Route(name="r", targets=(EXTRACTIVE,), cache=Cache()).version == plain.version
    assert "cache" not in plain.canonical
    assert Route(name="r", targets=(EXTRACTIVE,), cache=Cache(exact=True)).version != plain.version


@pytest.mark.parametrize("wrong", [{"ttl_s": 0}, {"ttl_s": 30 * 86_400 + 1}, {"exakt": True}, {"ttl_s": "ever"}])
def test_a_cache_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Cache(exact=True, **wrong)
