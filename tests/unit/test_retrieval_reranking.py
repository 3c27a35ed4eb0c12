"""Rerankers: the registry, the one that is shipped, and what happens where one is away."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Retrieval
from penstock.embedding.static import shared_static_embedding
from penstock.telemetry import metrics

from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.ranking import Ranked
from services.retrieval.reranking import (
    ENTRY_POINTS,
    InstalledReranker,
    LateInteraction,
    Reranker,
    RerankerUnavailable,
    attached,
    reranked,
    rerankers,
)

SHIPPED = LateInteraction(shared_static_embedding())


def a_hit(name: str, text: str, cosine: float = 0.5) -> Hit:
    chunk = ChunkRecord(name, "support", "default", "guide", 0, 0, 4, 10, "", "docs/guide.md", (), text)
    return Hit(chunk, cosine, 0.5, np.array([1, 0], np.float32))


def candidates(*texts: str) -> list[Ranked]:
    return [Ranked(a_hit("abcdefgh"[n], text), 0.5) for n, text in enumerate(texts)]


def names(found: Sequence[Ranked]) -> str:
    return "".join(each.hit.chunk.id for each in found)


class Reversing:
    """Gives the first two candidates the scores of each other."""

    def scores(self, question: str, candidates: Sequence[Ranked]) -> Sequence[float]:
        return [each.score for each in reversed(candidates[:2])]


class Raising:
    """Raises an exception of its own, as code that nobody here wrote does."""

    def scores(self, question: str, candidates: Sequence[Ranked]) -> Sequence[float]:
        raise KeyError("logits")


class Muttering:
    """Returns what it is told to."""

    def __init__(self, said: object) -> None:
        self.said = said

    def scores(self, question: str, candidates: Sequence[Ranked]) -> Any:
        return self.said


class Narrow:
    """Returns what numpy's own sums are, on the scale of the candidates."""

    def scores(self, question: str, candidates: Sequence[Ranked]) -> Any:
        return np.linspace(0.2, 0.8, len(candidates), dtype=np.float32)


class Unloadable:
    def __init__(self) -> None:
        raise OSError("model.onnx is missing")


class Away:
    def scores(self, question: str, candidates: Sequence[Ranked]) -> Sequence[float]:
        raise RerankerUnavailable("the endpoint does not answer")


def test_the_shipped_one_prefers_the_sentence_whose_words_are_near_to_those_of_the_question() -> None:
    found = candidates(
        "The farmer sells wheat on the market. He has two horses.",
        "The doctor heals the sick. He has two horses.",
    )
    assert names(reranked(SHIPPED, "Which physician cures patients?", found)) == "ba"
    assert names(reranked(SHIPPED, "Which peasant trades grain?", found)) == "ab"


def test_words_that_stand_in_one_sentence_count_more_than_those_of_several() -> None:
    found = candidates("The doctor sells horses. The sick sleep.", "The doctor heals the sick. Horses sleep.")
    assert names(reranked(SHIPPED, "Who cures patients?", found)) == "ba"


def test_a_question_in_another_script_leaves_the_order_and_the_scores() -> None:
    found = candidates("The doctor heals.", "The farmer sells.")
    assert reranked(SHIPPED, "東京はどこですか", found) == found
    assert reranked(SHIPPED, "", found) == found


@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=5), st.floats(0, 1))
def test_scores_stay_between_0_and_1_whatever_is_read(question: str, texts: list[str], score: float) -> None:
    found = [Ranked(each.hit, score) for each in candidates(*texts)]
    judged = reranked(SHIPPED, question, found)
    assert sorted(names(judged)) == sorted(names(found))
    assert all(0 <= each.score <= 1 + 1e-6 for each in judged)


def test_what_a_reranker_does_not_look_at_stays_behind_as_it_was() -> None:
    found = [Ranked(a_hit(name, "text"), score) for name, score in (("a", 0.9), ("b", 0.8), ("c", 0.7))]
    assert [(each.hit.chunk.id, each.score) for each in reranked(Reversing(), "x", found)] == [
        ("b", 0.9), ("a", 0.8), ("c", 0.7),
    ]  # fmt: skip
    few = LateInteraction(shared_static_embedding(), looked_at=1).scores("Who heals?", found)
    assert len(few) == 1


def test_a_route_names_its_reranker_and_floor_and_number_hold_for_its_scores() -> None:
    hits = [a_hit("a", "x", 0.9), a_hit("b", "x", 0.5)]
    known = {"reversing": Reversing()}
    assert [p.passage_id for p in attached("q", hits, Retrieval(score_floor=0), known)] == ["a", "b"]
    rules = Retrieval(reranker="reversing", score_floor=0)
    assert [p.passage_id for p in attached("q", hits, rules, known)] == ["b", "a"]
    one = attached("q", hits, rules.model_copy(update={"top_k": 1}), known)
    assert [p.passage_id for p in one] == ["b"]
    floor = rules.model_copy(update={"score_floor": one[0].score})
    assert [p.passage_id for p in attached("q", hits, floor, known)] == ["b"]
    assert attached("q", [], rules, known) == []


@pytest.mark.parametrize("name", ["away", "unheard-of"])
def test_without_its_reranker_a_route_gets_the_order_of_the_searches(name: str) -> None:
    hits = [a_hit("a", "x", 0.9), a_hit("b", "x", 0.5)]
    plain = attached("q", hits, Retrieval(score_floor=0), {})
    assert attached("q", hits, Retrieval(score_floor=0, reranker=name), {"away": Away()}) == plain


def installed(kind: type[object]) -> dict[str, Reranker]:
    """The registry with a reranker of an installed package, named ``own``."""
    return rerankers([EntryPoint("own", f"{__name__}:{kind.__name__}", ENTRY_POINTS)])


def outcomes(outcome: str) -> float:
    return float(metrics.RERANKINGS.labels("own", outcome)._value.get())


def test_an_installed_reranker_that_raises_leaves_the_order_of_the_searches_and_is_counted() -> None:
    hits = [a_hit("a", "x", 0.9), a_hit("b", "x", 0.5)]
    rules, before = Retrieval(score_floor=0, reranker="own"), outcomes("unavailable")
    plain = attached("q", hits, Retrieval(score_floor=0), {})
    assert attached("q", hits, rules, installed(Raising)) == plain
    assert outcomes("unavailable") == before + 1
    with pytest.raises(RerankerUnavailable, match=r"KeyError.*logits"):
        installed(Raising)["own"].scores("q", candidates("x"))


@pytest.mark.parametrize(
    "said",
    [None, 0.5, [float("nan"), 0.5], ["much", "little"], [0.5, float("inf")], [[0.5], [0.4]], [0.5, 0.5, 0.5], [1.5], [-1]],
    ids=["none", "number", "nan", "words", "infinite", "nested", "too-many", "above-1", "below-0"],
)  # fmt: skip
def test_what_is_no_score_leaves_the_order_of_the_searches(said: object) -> None:
    hits = [a_hit("a", "x", 0.9), a_hit("b", "x", 0.5)]
    known = {"own": InstalledReranker("own", Muttering(said))}
    plain = attached("q", hits, Retrieval(score_floor=0), {})
    assert attached("q", hits, Retrieval(score_floor=0, reranker="own"), known) == plain
    with pytest.raises(RerankerUnavailable, match="own"):
        known["own"].scores("q", candidates("x", "y"))


def test_scores_that_are_numbers_of_a_library_become_plain_ones() -> None:
    hits, before = [a_hit("a", "x", 0.9), a_hit("b", "x", 0.5)], outcomes("reranked")
    found = attached("q", hits, Retrieval(score_floor=0, reranker="own"), installed(Narrow))
    assert [(p.passage_id, type(p.score)) for p in found] == [("b", float), ("a", float)]
    assert outcomes("reranked") == before + 1


def test_a_reranker_that_cannot_be_loaded_is_left_out() -> None:
    assert set(installed(Unloadable)) == {"late-interaction"}
    missing = EntryPoint("own", "no_such_package_at_all:Reranker", ENTRY_POINTS)
    assert set(rerankers([missing])) == {"late-interaction"}


def test_the_registry_holds_the_shipped_one_by_the_name_that_routes_use() -> None:
    assert isinstance(rerankers()["late-interaction"], LateInteraction)


def test_an_installed_package_adds_its_own() -> None:
    entry = EntryPoint("reversing", f"{__name__}:Reversing", ENTRY_POINTS)
    known = rerankers([entry])
    assert set(known) == {"late-interaction", "reversing"}
    assert [each.score for each in reranked(known["reversing"], "q", [Ranked(a_hit("a", "x"), 0.2)])] == [0.2]
