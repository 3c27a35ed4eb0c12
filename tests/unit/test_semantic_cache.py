"""The semantic cache's decisions: which questions are one, whose answers are shared, what is kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Cache, Retrieval, Route, Target
from penstock.contracts.records import (
    Alternative,
    Completion,
    Context,
    LlmResult,
    Message,
    Passage,
    RetrievalFilter,
    Sampling,
    ScreenedRequest,
    Timings,
    ToolCall,
    Usage,
)
from penstock.text.marker import marked

from services.retrieval.core import Grounding
from services.retrieval.question_form import difference, is_of_the_moment
from services.retrieval.semantic_cache import (
    Asked,
    Candidate,
    Entry,
    Given,
    agree,
    asked_of,
    cached_answer,
    given_of,
    is_as_given,
    released_digest,
    same_question,
)

AT = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
NOW = AT.timestamp()
TARGET = Target(backend="openai", model="m", base_url="http://localhost:1/v1")
ROUTE = Route(name="default", targets=(TARGET,), cache=Cache(semantic="on"))
PASSAGES = tuple(
    Passage(passage_id=f"p{n}", document_id=f"d{n // 2}", text=f"Text {n}.", score=0.9 - n / 10) for n in range(4)
)
GROUNDING = Grounding("grounded", PASSAGES, b"\0" * 4, "embedder", 3)


def a_request(**changes: Any) -> ScreenedRequest:
    fields: dict[str, Any] = {
        "event_id": "e", "request_id": "r", "tenant_id": "team", "occurred_at": AT, "causation_id": "c",
        "context": Context(requested_at=AT, prompt_name="faq", prompt_version="1", policy_version="1", user_id="ada"),
        "messages": [Message(role="system", content="Be brief."), Message(role="user", content="How do I reset it?")],
        "sampling": Sampling(temperature=0.0),
    }  # fmt: skip
    return ScreenedRequest(**fields | changes)


def asked(request: ScreenedRequest, route: Route = ROUTE, grounding: Grounding = GROUNDING) -> Asked:
    found = asked_of(request, route, grounding, NOW)
    assert found is not None
    return found


def complete(of: Asked, content: str = "Press the button.", citations: tuple[str, ...] = ()) -> Entry:
    return Entry(of, Given("completion", content, citations, "m-1", "openai", "m"), released_digest(content))


SAME = [
    ("How do I reset my password?", "How can I reset my password?"),
    ("How do I reset my password?", "what is the way to reset the PASSWORD"),
    ("What is the capital of the province?", "Can you tell me the capital of the province, please?"),
    ("What is the city's oldest bridge?", "What's the oldest bridge of the city?"),
    ("How much does the annual plan cost?", "What is the price of the annual plan?"),
    ("How do I delete my account?", "How can I remove my account?"),
    ("When does the archive open on Monday?", "What time does the archive open on Monday?"),
    ("Can I cancel my order?", "Is it possible to cancel an order?"),
    ("Could you please tell me how to sign in to the portal?", "How do I log in to the portal?"),
    ("How do I charge the battery?", "how to charge batteries?"),
    ("What is the boiling point of water in Fahrenheit?", "What is water's boiling point in Fahrenheit?"),
    ("How many days of leave do I get?", "How many leave days do I get?"),
    ("Which train goes to the coast?", "What trains go to the coast?"),
    ("Where do I park?", "Where can I park?"),
    ("Who won 1,000 marks?", "Who won 1000 marks?"),
    ("Which rooms have two windows?", "What rooms have 2 windows?"),
    ("Wie hoch ist die Gebühr?", "wie hoch ist die gebühr"),
    ("返品の方法は？", "返品の方法は?"),
]  # fmt: skip
OTHER = [
    ("Is smoking allowed on the terrace?", "Is smoking not allowed on the terrace?", "negation"),
    ("Can I cancel?", "Can't I cancel?", "negation"),
    ("Who may enter with a ticket?", "Who may enter without a ticket?", "negation"),
    ("What is the maximum upload size?", "What is the minimum upload size?", "words"),
    ("How do I turn on the heater?", "How do I turn off the heater?", "words"),
    ("How do I log in?", "How do I log out?", "words"),
    ("Who hosts the cup?", "Who hosted the cup?", "words"),
    ("Can I invite a guest?", "Can I be invited as a guest?", "words"),
    ("What is my name?", "What is your name?", "words"),
    ("When was the Ada Bridge built?", "When was the Eva Bridge built?", "words"),
    ("Who is the chair?", "Who was the chair?", "tense"),
    ("What happens on 3 May 2019?", "What happens on 3 May 2018?", "numbers"),
    ("Is it closed on Monday?", "Is it closed on Tuesday?", "words"),
    ("What happens at 5 degrees?", "What happens at -5 degrees?", "numbers"),
    ("How many of 3.5 fit?", "How many of 35 fit?", "numbers"),
    ("Is a > b?", "Is a < b?", "words"),
    ("What does C++ do?", "What does C do?", "words"),
    ("Convert dollars to crowns", "Convert crowns to dollars", "order"),
    ("Which club did Rovers beat?", "Which club beat Rovers?", "order"),
    ("What did Ada say to Bob?", "What did Bob say to Ada?", "order"),
    ("Can I call you?", "Can you call me?", "words"),
    ("How do I cancel my order?", "Can I cancel my order?", "kind"),
    ("Why was the bridge closed?", "When was the bridge closed?", "kind"),
    ("What is the?", "What is a?", "words"),
    ("What is the price of gold in silver?", "What is the price of silver in gold?", "order"),
    ("What can I cancel?", "What do I cancel?", "tense"),
    ("Wie hoch ist die Gebühr?", "Wie hoch ist die Gebühr nicht?", "words"),
    ("Kann ich an das Konto zahlen?", "Kann ich das Konto zahlen?", "words"),
    ("What is the US minimum wage?", "What is the minimum wage?", "words"),
    ("what is the us minimum wage", "what is the minimum wage", "words"),
    ("How many people were hired in May 2023?", "How many people were hired in 2023?", "words"),
    ("how many people were hired in may 2023", "how many people were hired in 2023", "words"),
    ("How did Theresa May vote?", "How did Theresa vote?", "words"),
    ("Is plan A included in the price?", "Is a plan included in the price?", "words"),
    ("When did World War I end?", "When did the World War end?", "words"),
    ("Is the shop open at 5 a.m.?", "Is the shop open at 5?", "numbers"),
    ("What happens at \u20135 degrees?", "What happens at 5 degrees?", "numbers"),
    ("Who is paying me?", "Who am I paying?", "words"),
    ("How do I search the archive?", "How do I search for the archive?", "words"),
    ("How do I apply to the bank?", "How do I apply for the bank?", "words"),
    ("Do I have to report to HR?", "Do I have to report HR?", "words"),
    ("What are the contract terms?", "What is the contract term?", "words"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_questions_that_differ_in_nothing_that_matters_are_one(one: str, other: str) -> None:
    assert difference(one, other) is None
    assert difference(other, one) is None


@pytest.mark.parametrize(("one", "other", "what"), OTHER)
def test_a_word_that_turns_a_question_around_makes_another_one(one: str, other: str, what: str) -> None:
    assert difference(one, other) == difference(other, one) == what


@given(st.text(max_size=200), st.text(max_size=200))
def test_difference_is_symmetric_and_nothing_differs_from_itself(one: str, other: str) -> None:
    assert difference(one, one) is None
    assert difference(one, other) == difference(other, one)


WORDS = st.lists(
    st.sampled_from("bridge council ticket museum harbour letter painter garden".split()), min_size=2, max_size=6
)
ADDED = st.one_of(
    st.sampled_from(["not", "never", "without", "before", "only", "you", "his", "off", "unless", "yesterday", "kein"]),
    st.integers(0, 10**6).map(str),
    st.text("bcdfghklmnprtvw", min_size=4, max_size=9).filter(lambda word: not word.endswith("s")),
)


@given(WORDS, ADDED, st.data())
def test_a_word_more_is_another_question_whatever_and_wherever_it_is(
    words: list[str], word: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(words)))
    question = f"What is the {' '.join(words)}?"
    assert difference(question, f"What is the {' '.join([*words[:at], word, *words[at:]])}?") is not None


@given(WORDS, st.data())
def test_words_that_change_places_make_another_question(words: list[str], data: st.DataObject) -> None:
    swapped = data.draw(st.permutations(words))
    question, other = (f"How does the {' '.join(each)} work?" for each in (words, swapped))
    assert (difference(question, other) is None) == (swapped == words)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is on the menu TODAY?", True),
        ("Who is the current chair?", True),
        ("When does the next summer term begin?", True),
        ("What changed in the last two weeks?", True),
        ("Ist das Büro heute offen?", True),
        ("Quel est l’horaire d’aujourd’hui ?", True),
        ("What is known of the snow line?", False),
        ("Who is last in the queue?", False),
        ("What is the next step after the interview?", False),
    ],
)
def test_a_question_of_the_moment_is_told(question: str, expected: bool) -> None:
    assert is_of_the_moment(question) is expected


def test_a_question_is_scoped_by_all_that_its_answer_depends_on() -> None:
    base = asked(a_request())
    context = a_request().context
    again = a_request(
        request_id="r2", event_id="e2",
        messages=[
            Message(role="system", content=marked("Be brief.", "ref-0123456789abcdef")),
            Message(role="user", content="How can I reset it?"),
        ],
    )  # fmt: skip
    assert asked(again).scope == base.scope
    others = [
        a_request(tenant_id="another"),
        a_request(context=msgspec.structs.replace(context, policy_version="2")),
        a_request(context=msgspec.structs.replace(context, policy_name="strict")),
        a_request(context=msgspec.structs.replace(context, prompt_version="2")),
        a_request(retrieval=RetrievalFilter(tags={"audience": "public"})),
        a_request(retrieval=RetrievalFilter(as_of=AT)),
        a_request(sampling=Sampling(temperature=0.0, max_completion_tokens=5)),
        a_request(messages=[Message(role="system", content="Be long."), a_request().messages[1]]),
        a_request(messages=[Message(role="assistant", content="Which one?"), *a_request().messages]),
    ]
    routes = [
        Route(name="default", targets=(TARGET.model_copy(update={"model": "n"}),), cache=ROUTE.cache),
        Route(name="default", targets=(TARGET,), cache=ROUTE.cache, retrieval=Retrieval(top_k=1)),
        Route(name="other", targets=(TARGET,), cache=ROUTE.cache),
    ]
    scopes = [asked(each).scope for each in others] + [asked(a_request(), route).scope for route in routes]
    scopes.append(asked(a_request(), grounding=replace(GROUNDING, embedder="another")).scope)
    assert len({base.scope, *scopes}) == len(scopes) + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": Sampling(n=2)},
        {"sampling": Sampling(top_logprobs=1)},
        {"sampling": Sampling(tools="[]")},
        {"context": Context(requested_at=AT, purpose="evaluation")},
        {"messages": [Message(role="assistant", content="Hello.")]},
        {"messages": [Message(role="user", content=" ")]},
        {"messages": [Message(role="user", content="x" * 1001)]},
        {"messages": [Message(role="user", content="Which rooms are free today?")]},
    ],
)
def test_what_asks_for_the_models_own_word_has_no_part_in_it(changes: dict[str, Any]) -> None:
    assert asked_of(a_request(**changes), ROUTE, GROUNDING, NOW) is None


def test_without_a_search_nothing_is_compared() -> None:
    assert asked_of(a_request(), ROUTE, replace(GROUNDING, state="unavailable"), NOW) is None
    assert asked_of(a_request(), ROUTE, Grounding("off"), NOW) is None


def same(now: Asked, entry: Entry, cosine: float = 0.97, at: float = NOW) -> tuple[bool, list[str]]:
    told: list[str] = []
    return same_question(now, [Candidate(entry, cosine)], 0.95, at, told.append) is not None, told


def test_an_answer_is_given_to_a_question_that_means_the_same_on_the_same_evidence() -> None:
    earlier = asked(a_request(request_id="r0"))
    now = asked(a_request())
    assert same(now, complete(earlier, citations=("p1", "p0"))) == (True, [])
    assert same(now, complete(earlier), cosine=0.94) == (False, [])
    assert same(now, complete(earlier), at=earlier.expires_at) == (False, [])
    assert same(earlier, complete(earlier)) == (False, [])  # its own, read again
    assert same(replace(now, question="How do I never reset it?"), complete(earlier)) == (False, ["negation"])
    assert same(replace(now, passages=("p1", "p0", "p2", "p3")), complete(earlier)) == (False, ["evidence"])
    assert same(replace(now, passages=("p0",)), complete(earlier, citations=("p1",))) == (False, ["evidence"])
    moved = replace(now, passages=("p0", "p2", "p1", "p3"))
    assert same(moved, complete(earlier, "See [1].")) == (True, [])
    assert same(moved, complete(earlier, "See [1] and [2].")) == (False, ["evidence"])
    assert same(now, Entry(earlier)) == (False, [])
    assert same(now, replace(complete(earlier), released=released_digest("other"))) == (False, [])


@given(st.text(max_size=20), st.text(max_size=20), st.floats(0.95, 1.0))
def test_no_team_is_ever_given_anothers_answer(team: str, other: str, cosine: float) -> None:
    earlier = asked(a_request(tenant_id=other, request_id="r0"))
    now = asked(a_request(tenant_id=team))
    assert same(now, complete(earlier), cosine)[0] == (team == other)
    # A store that mixes up scopes does not change that.
    assert same(now, complete(replace(earlier, scope=now.scope)), cosine)[0] == (team == other)


def test_the_nearest_of_several_is_given() -> None:
    now = asked(a_request())
    candidates = [
        Candidate(complete(asked(a_request(request_id=f"r{n}")), f"Answer {n}."), cosine)
        for n, cosine in enumerate((0.955, 0.99, 0.97))
    ]
    found = same_question(now, candidates, 0.95, NOW, lambda _: None)
    assert found is not None
    given_again = cached_answer(found, PASSAGES)
    assert (given_again.request_id, given_again.content, given_again.similarity) == ("r1", "Answer 1.", 0.99)


def test_only_an_answer_that_ended_by_itself_and_left_as_it_was_is_kept() -> None:
    context = Context(requested_at=AT)
    completion = Completion(
        event_id="completion", request_id="r", tenant_id="team", occurred_at=AT, causation_id="c", context=context,
        messages=[], model="m-1", backend="openai", content="Press it.", request_model="m",
        usage=Usage(input_tokens=4, output_tokens=2), timings=Timings(),
    )  # fmt: skip
    kept = given_of(completion)
    assert kept == Given("completion", "Press it.", (), "m-1", "openai", "m", Usage(input_tokens=4, output_tokens=2))
    for changes in (
        {"error": "broken"}, {"finish_reason": "length"}, {"attempt": 1}, {"cached_by": "exact"}, {"kind": "judge"},
        {"content": ""}, {"content": "x" * 40_000}, {"tool_calls": [ToolCall(id="1", name="f")]},
        {"alternatives": [Alternative(content="b")]},
    ):  # fmt: skip
        assert given_of(msgspec.structs.replace(completion, **changes)) is None, changes
    result = LlmResult(
        event_id="result", request_id="r", tenant_id="team", occurred_at=AT, causation_id="completion", context=context,
        status="completed", content="Press it.", finish_reason="stop", action="allow",
    )  # fmt: skip
    assert is_as_given(result)
    for change in ({"action": "mask"}, {"status": "blocked"}, {"cached_by": "semantic"}, {"finish_reason": "length"}):
        assert not is_as_given(msgspec.structs.replace(result, **change)), change


@pytest.mark.parametrize(
    ("earlier", "now", "cosine", "expected"),
    [
        ("It opens at 9.", "It opens at 9", 0.2, True),
        ("The desk opens at 9.", "At 9 the desk opens.", 0.97, True),
        ("The desk opens at 9.", "The desk opens at 10.", 0.99, False),
        ("It is allowed.", "It is not allowed.", 0.98, False),
        ("It was built by Ada Moll.", "It was built by Eva Moll.", 0.96, False),
        ("It is in the hall.", "Ask at the desk.", 0.4, False),
        ("See [1]: 1,000 marks.", "As [2] says, 1000 marks.", 0.9, True),
    ],
)
def test_two_answers_agree_where_they_say_the_same_with_the_same_facts(
    earlier: str, now: str, cosine: float, expected: bool
) -> None:
    assert agree(earlier, now, cosine) is expected
