"""Names from context and lists, without a model: what must be found, and what must not be taken for a person."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.pii import PiiScanner
from services.guardrails.scanners.pii.lexicon import fold, load_lexicon
from services.guardrails.scanners.pii.scanner import surest
from services.guardrails.scanners.pii.words import is_caseless, recased, split_words

RULE = Rule("mask", PiiScanner.default_threshold, fail_closed=True, kinds=frozenset({"PERSON"}))
SCANNER = PiiScanner()


def persons(text: str) -> list[str]:
    return [
        text[span.start : span.end] for span in SCANNER.scan(text, RULE, Reference()) if span.score >= RULE.threshold
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("My name is Rubija", ["Rubija"]),
        ("my name is jane doe, can you help?", ["jane doe"]),
        ("MY NAME IS JANE DOE AND I NEED HELP WITH MY ACCOUNT", ["JANE DOE"]),
        ("Dear Ms Papadakis, your parcel is here.", ["Papadakis"]),
        ("Dr. Kyle Kuefer will see you", ["Kyle Kuefer"]),
        ("Hi Freddy, I have a problem", ["Freddy"]),
        ("Contact: Zorblax Quirn, tel. 0171 946 0000", ["Zorblax Quirn"]),
        ("Please call back.\n\nKind regards,\nPriya Natarajan", ["Priya Natarajan"]),
        ("my wife Ingeborg is ill", ["Ingeborg"]),
        ("I'm Naomi Ryan, and I want to cancel", ["Naomi Ryan"]),
        ("It is under my partner's name Nicole Mahler", ["Nicole Mahler"]),
        ("the name is wrong, please change it to Bekbolat Musliyevich", ["Bekbolat Musliyevich"]),
        ("I spoke with Anne-Marie O'Connor yesterday", ["Anne-Marie O'Connor"]),
        ("Mr. Vincent van der Berg and I. Anna's sister said no", ["Vincent van der Berg", "Anna"]),
        ("I am Jožef Albin. Albin is my surname.", ["Jožef Albin", "Albin"]),
        ("Ich heiße Jörg Müller", ["Jörg Müller"]),
        ("Elizabeth: Who are you?\nAmanda: Remember me?", ["Elizabeth", "Amanda"]),
    ],
)
def test_names_in_context_are_found_in_place(text: str, names: list[str]) -> None:
    assert persons(text) == names


@pytest.mark.parametrize(
    "text",
    [
        "Dear Customer, dear Sir or Madam",
        "Hi there, hello team, thanks all",
        "My name is not important",
        "The name is wrong",
        "Is it called Python or JavaScript?",
        "I'm Sorry. I am German. This is London.",
        "May I ask Will to Mark the date in April?",
        "Call me tomorrow, call me on Monday",
        "He moved from Paris to Victoria Street in London",
        "Note: this is a test. Warning: do not run it. Mobile: yes",
        "Owens, Duran and Oneal\n\n12 Main Street",
        "the company Tesla announced that the Boston Group will buy it",
        "Marie Curie and Isaac Newton were scientists",  # people of history are listed below the threshold
        "def main(): Dear = Name(); return Customer.objects.all()",
    ],
)
def test_what_is_no_private_person_is_let_alone(text: str) -> None:
    assert persons(text) == []


def test_a_name_within_an_address_is_part_of_the_address() -> None:
    assert persons("my name is on the door, I live at 12 Kimberly Way") == []


def test_folding_unites_the_spellings_of_a_name() -> None:
    assert fold("Jožef") == fold("JOZEF") == "jozef"
    assert fold("Łukasz") == "lukasz"
    assert fold("Ørsted") == "orsted"


def test_the_lexicon_knows_names_from_words() -> None:
    lexicon = load_lexicon()
    assert {"anna", "john", "priya"} <= lexicon.given - lexicon.common
    assert {"smith", "muller"} <= lexicon.family
    assert {"the", "customer", "will"} <= lexicon.common
    assert {"france", "london"} <= lexicon.places


@given(st.text(max_size=120))
def test_words_stand_where_they_say(text: str) -> None:
    words = split_words(text, load_lexicon())
    assert all(text[word.start : word.end] == word.text for word in words)
    assert all(first.end <= second.start for first, second in itertools.pairwise(words))
    assert len(recased(text, words)) == len(text)


def test_a_text_in_one_case_is_told_from_prose() -> None:
    assert is_caseless("follow up with patricia desrosiers")
    assert is_caseless("FOLLOW UP WITH PATRICIA DESROSIERS")
    assert not is_caseless("Follow up with Patricia")
    assert not is_caseless("123")


def test_a_caseless_text_is_recased_where_names_may_stand() -> None:
    text = "follow up with patricia desrosiers in a couple of months"
    recase = recased(text, split_words(text, load_lexicon()))
    assert "Patricia Desrosiers" in recase
    assert "couple of months" in recase


def test_of_overlapping_finds_the_surest_then_the_longest_stays() -> None:
    from services.guardrails.findings import Span

    low, high, longer = Span("A", 0, 10, 0.5), Span("B", 4, 6, 0.9), Span("C", 20, 30, 0.5)
    inner = Span("D", 22, 24, 0.5)
    assert surest([low, inner, high, longer]) == [high, longer]
