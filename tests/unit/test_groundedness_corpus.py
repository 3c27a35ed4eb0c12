"""Summaries and claims made by rule, and the weights that are learned from them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from penstock.text import groundedness
from penstock.text.groundedness_evidence import FEATURES

from services.evaluation.models.groundedness_corpus import ERRORS, Article, article, claims, summaries

FIRST = (
    "The bridge was opened in 1931 by the mayor, Anna Kovač, after twelve years of work on both banks. "
    "It is 1,240 metres long and carries two railway tracks, which were renewed by the company in 1988. "
    "Engineers from Lindau had planned a tunnel under the strait, because ships of the Northern Fleet passed there daily. "
    "The parliament was not willing to pay for the towers that Otto Wagner had designed for the old town."
)
WITHHELD = (
    "Ferries crossed the strait with carriages until the winter of 1930, when the last captain retired to Sweden. "
    "Most passengers had brought their bicycles for the steep road to the market of Grado."
)
OTHER = (
    "Volcanoes are measured by the height of their plumes since the eruption of Krakatoa in 1883. "
    "Ash was carried around the world by winds, and red sunsets were painted as far away as Oslo. "
    "A second eruption was recorded by the observatory at Batavia in August with 36 instruments. "
    "The tide gauges in South Africa had risen within 14 hours of the last explosion."
)


@pytest.fixture
def bridge() -> Article:
    return article("bridge", [FIRST], [WITHHELD])


@pytest.fixture
def volcano() -> Article:
    return article("volcano", [OTHER], [])


def test_the_same_seed_makes_the_same_summaries(bridge: Article, volcano: Article) -> None:
    first, second = (summaries(bridge, [volcano], 20, random.Random(3)) for _ in range(2))
    assert first == second
    assert first != summaries(bridge, [volcano], 20, random.Random(4))


@pytest.mark.parametrize("kind", ERRORS)
def test_a_wrong_summary_says_what_the_article_does_not(kind: str, bridge: Article, volcano: Article) -> None:
    made = [one for one in summaries(bridge, [volcano], 30, random.Random(5), [kind]) if not one.grounded]
    assert made
    assert {one.kind for one in made} == {kind}
    assert all(one.text not in bridge.text for one in made)


def test_faithful_summaries_are_supported_better_than_those_of_another_article(
    bridge: Article, volcano: Article
) -> None:
    scores: dict[bool, list[float]] = {True: [], False: []}
    for one in summaries(bridge, [volcano], 20, random.Random(6), ["elsewhere"]):
        support = groundedness.support(one.text, [one.article.text])
        assert support is not None
        scores[one.grounded].append(support.score)
    assert min(scores[True]) > max(scores[False])


def test_claims_put_answers_into_questions(bridge: Article) -> None:
    asked = [("In what year did Anna Kovač open the bridge?", "1931"), ("When were the tracks renewed?", "1988")]
    right, own, other, *rest = claims(bridge, asked, ["1883", "Krakatoa"], random.Random(7))
    assert (right.text, right.grounded) == ("1931 Anna Kovač open the bridge.", True)
    assert (own.text, own.kind) == ("1988 Anna Kovač open the bridge.", "own_answer")
    assert (other.text, other.kind) == ("1883 Anna Kovač open the bridge.", "other_answer")  # a number for a number
    assert [one.grounded for one in rest] == [True, False, False]


def test_each_weight_points_the_way_its_evidence_does() -> None:
    against = {"invented", "numbers", "names", "denial", "remarks", "question"}
    stored = json.loads(Path(groundedness.__file__).with_name("groundedness.json").read_text("utf-8"))
    for kind in ("lexical", "embedded"):
        weights = stored[kind]["features"]
        assert set(weights) == set(FEATURES)
        assert all(weight <= 0 if name in against else weight >= 0 for name, weight in weights.items())
        assert stored[kind]["slope"] > 0
    assert stored["lexical"]["similarity"] == 0 < stored["embedded"]["similarity"]
