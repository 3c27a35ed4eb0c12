"""The scanner of banned topics: near its examples, quiet elsewhere, and its compiled state bounded."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.embedding.static import shared_static_embedding

from services.guardrails.findings import Reference, Rule, Topic
from services.guardrails.scanners.banned_topics import BannedTopicsScanner, compiled, load_background

SCANNER = BannedTopicsScanner.packaged()
NOTHING = Reference()
GAMBLING = Topic(
    "gambling",
    (
        "how do i place a bet on tonight's football match",
        "what are the odds in roulette",
        "which online casino pays the highest bonus",
        "teach me to count cards in blackjack",
        "what is the best strategy for slot machines",
        "where can i bet on horse races",
        "how much can i win in the lottery",
        "is there a poker table with a low stake",
        "sign me up for sports betting",
        "how does a bookmaker set the odds",
        "i want to play baccarat for real money",
        "give me tips for winning at the casino",
    ),
)
MEDICINE = Topic(
    "medicine",
    (
        "which dose of ibuprofen should i take",
        "what are the symptoms of diabetes",
        "can i mix antibiotics with alcohol",
        "how do doctors treat a broken arm",
        "what is a normal blood pressure",
        "which pills help against migraine",
        "my child has a fever and a rash",
        "what are the side effects of this vaccine",
        "how long does a flu last",
        "is surgery needed for a hernia",
    ),
)


def rule(*topics: Topic) -> Rule:
    return Rule("block", 0.5, True, topics=topics)


def kinds(text: str, *topics: Topic) -> list[str]:
    return [span.kind for span in SCANNER.scan(text, rule(*topics), NOTHING) if span.score >= 0.5]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Which casino has the best odds for poker players?", "TOPIC:gambling"),
        ("How can I bet money on the next horse race?", "TOPIC:gambling"),
        ("What pills should I take for a fever?", "TOPIC:medicine"),
    ],
)
def test_a_text_on_a_banned_topic_is_found(text: str, kind: str) -> None:
    assert kinds(text, GAMBLING, MEDICINE) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Write a Python function that sorts a list of dictionaries by date.",
        "What is the weather like in Lisbon in May?",
        "Please translate this letter to French and keep the tone polite.",
        "casino",
    ],
)
def test_other_texts_are_left_alone(text: str) -> None:
    assert kinds(text, GAMBLING, MEDICINE) == []


def test_one_sentence_of_a_long_text_is_found_where_it_stands() -> None:
    filler = (
        "The meeting begins at nine and ends before noon. We will talk about the new office and its furniture. " * 8
    )
    sentence = "Which online casino has the best roulette odds?"
    text = f"{filler}{sentence} {filler}"
    (span,) = SCANNER.scan(text, rule(GAMBLING), NOTHING)
    assert span.score >= 0.5
    assert sentence in text[span.start : span.end]
    assert span.end - span.start < 3 * len(sentence)


def test_no_topic_no_find() -> None:
    assert SCANNER.scan("How do I bet on horses?", rule(), NOTHING) == []


def test_a_topic_whose_examples_say_nothing_is_refused() -> None:
    SCANNER.check(rule(GAMBLING, MEDICINE))
    with pytest.raises(ValueError, match="the examples of void hold no known words: give sentences about it"):
        SCANNER.check(rule(Topic("void", ("", " "))))
    with pytest.raises(ValueError, match="gambling is given more than once: merge its examples"):
        SCANNER.check(rule(GAMBLING, GAMBLING))


def test_the_operating_point_lies_above_the_background() -> None:
    background = load_background()
    embedding = shared_static_embedding()
    topic = compiled(GAMBLING, np.stack([embedding.embed(text) for text in GAMBLING.examples]), background)
    assert float((topic.scores(background) >= 0.5).mean()) <= 0.005
    assert float((topic.scores(topic.examples) >= 0.5).mean()) >= 0.9


def test_compiled_topics_are_bounded() -> None:
    scanner = BannedTopicsScanner(shared_static_embedding(), load_background()[:50])
    for number in range(300):
        scanner.scan("a text of four words", rule(Topic(f"t{number}", ("one example sentence",))), NOTHING)
    assert len(scanner._compiled) == 256


@given(st.text(max_size=500), st.lists(st.text(max_size=40), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_any_text_and_examples_are_judged_alike_twice(text: str, examples: list[str]) -> None:
    given_rule = rule(Topic("any", tuple(examples)))
    found = SCANNER.scan(text, given_rule, NOTHING)
    assert found == SCANNER.scan(text, given_rule, NOTHING)
    assert all(0 <= span.start < span.end <= len(text) and 0 <= span.score <= 1 for span in found)


@pytest.mark.parametrize("unit", ["word one two three. ", "a", ".", "\n", "é́", "x y "])
def test_time_grows_with_the_length_alone(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            SCANNER.scan(text, rule(GAMBLING), NOTHING)
            best = min(best, time.thread_time() - started)
        return best

    seconds(1000)
    assert seconds(32_000) <= 8 * seconds(8_000) + 0.02
