"""Which passages a request gets: scores, floor, budget, diversity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Retrieval

from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.ranking import Ranked, ranked, select

QUESTION = "who repairs the broken sluice gate?"


def a_chunk(name: str, text: str = "text", tokens: int = 10) -> ChunkRecord:
    return ChunkRecord(name, "support", "default", "guide", 0, 0, 4, tokens, "Guide", "docs/guide.md", (), text)


def a_hit(name: str, text: str = "text", cosine: float = 0.5, lexical: float = 0.5) -> Hit:
    return Hit(a_chunk(name, text), cosine, lexical, direction(0))


def direction(degrees: float) -> Any:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def candidates(*scores: float, tokens: Sequence[int] = (), degrees: Sequence[float] = ()) -> list[Ranked]:
    """Candidates a, b, c, ... of these scores, best first."""
    made = []
    for n, score in enumerate(scores):
        vector = direction(degrees[n] if degrees else 0)
        made.append(Ranked(Hit(a_chunk("abcdefgh"[n], tokens=tokens[n] if tokens else 10), 0, 0, vector), score))
    return made


def names(found: Sequence[Ranked]) -> str:
    return "".join(each.hit.chunk.id for each in found)


def attached(found: Sequence[Ranked], **rules: Any) -> str:
    return "".join(passage.passage_id for passage in select(found, Retrieval(**rules)))


@given(st.floats(-1, 1), st.floats(0, 1), st.text(max_size=40), st.text(max_size=80), st.none() | st.floats(0, 1))
def test_a_score_lies_between_0_and_1_and_grows_with_either_search(
    cosine: float, lexical: float, question: str, text: str, dense_share: float | None
) -> None:
    rules = Retrieval(dense_share=dense_share)
    (base,) = ranked(question, [a_hit("a", text, cosine, lexical)], rules)
    (nearer,) = ranked(question, [a_hit("a", text, min(cosine + 0.1, 1), lexical)], rules)
    (wordier,) = ranked(question, [a_hit("a", text, cosine, min(lexical + 0.1, 1))], rules)
    assert 0 <= base.score <= 1 + 1e-9
    assert nearer.score >= base.score
    assert wordier.score >= base.score


def test_of_two_chunks_that_hold_the_same_words_the_one_that_says_it_in_a_sentence_comes_first() -> None:
    said = a_hit("b", "The smith repairs a broken sluice gate. Flour is white.")
    scattered = a_hit("a", "The sluice is old. The miller repairs shoes. A gate leads out. His leg is broken.")
    assert names(ranked(QUESTION, [scattered, said], Retrieval())) == "ba"


def test_of_two_sentences_that_hold_the_same_words_the_one_that_holds_them_together_comes_first() -> None:
    together = a_hit("b", "One repairs a broken sluice gate.")
    apart = a_hit("a", "At the gate one repairs the sluice, the broken one.")
    assert names(ranked(QUESTION, [apart, together], Retrieval())) == "ba"


def test_a_route_may_search_by_one_of_the_two_alone() -> None:
    near = a_hit("a", "no word", cosine=0.9, lexical=0.0)
    wordy = a_hit("b", "The smith repairs the broken sluice gate.", cosine=0.2, lexical=0.9)
    by_meaning = ranked(QUESTION, [near, wordy], Retrieval(dense_share=1))
    assert (names(by_meaning), by_meaning[0].score) == ("ab", 0.9)
    by_words = ranked(QUESTION, [near, wordy], Retrieval(dense_share=0))
    assert (names(by_words), by_words[1].score) == ("ba", 0)


def test_what_the_searches_rank_low_is_not_read_unless_it_may_be_attached() -> None:
    low = a_hit("z", "The smith repairs the broken sluice gate.", cosine=0.1, lexical=0.1)
    others = [a_hit(f"{n:02}") for n in range(30)]
    assert ranked(QUESTION, [low], Retrieval())[0].score > ranked(QUESTION, [*others, low], Retrieval())[-1].score
    wide = {each.hit.chunk.id: each.score for each in ranked(QUESTION, [*others, low], Retrieval(top_k=31))}
    assert wide["z"] == ranked(QUESTION, [low], Retrieval())[0].score


@given(st.permutations([a_hit("a"), a_hit("b"), a_hit("c", cosine=0.7)]))
def test_the_order_of_the_store_does_not_matter(hits: list[Hit]) -> None:
    assert names(ranked(QUESTION, hits, Retrieval())) == "cab"


def test_passages_come_best_first_above_the_floor_and_at_most_top_k() -> None:
    found = candidates(0.9, 0.6, 0.5, 0.3, 0.1)
    assert [p.score for p in select(found, Retrieval(top_k=3, score_floor=0.25))] == [0.9, 0.6, 0.5]
    assert attached(found, top_k=9, score_floor=0.25) == "abcd"
    assert attached(found, score_floor=0.95) == ""
    assert attached([]) == ""


def test_the_token_budget_holds_and_a_shorter_passage_takes_the_place_of_one_too_long() -> None:
    assert attached(candidates(0.9, 0.8, 0.7, tokens=(60, 60, 30)), token_budget=100) == "ac"


def test_a_passage_of_words_that_the_embedder_does_not_know_is_no_way_around_the_bytes_that_admission_reserves() -> (
    None
):
    first, second = candidates(0.9, 0.8, tokens=(5, 90))
    unknown = replace(first.hit, chunk=replace(first.hit.chunk, text="\N{SNOWMAN}" * 400))
    assert attached([replace(first, hit=unknown), second], token_budget=100) == "b"


@pytest.mark.parametrize(("diversity", "order"), [(0.0, "abcd"), (0.3, "acbd"), (1.0, "adcb")])
def test_with_diversity_what_repeats_a_passage_gives_way_to_what_adds_something(diversity: float, order: str) -> None:
    found = candidates(0.9, 0.88, 0.8, 0.5, degrees=(0, 5, 60, 100))
    assert attached(found, diversity=diversity, top_k=4) == order
    assert attached(found, diversity=diversity, top_k=2) == order[:2]


def test_a_passage_that_does_not_fit_the_budget_makes_none_redundant() -> None:
    found = candidates(0.9, 0.8, 0.7, tokens=(200, 50, 50), degrees=(0, 0, 90))
    assert attached(found, diversity=0.5, token_budget=100) == "bc"


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 360)), min_size=1, max_size=8), st.floats(0, 1), st.integers(1, 8)
)
def test_diversity_changes_the_order_and_the_choice_but_neither_floor_nor_number(
    drawn: list[tuple[float, float]], diversity: float, top_k: int
) -> None:
    drawn.sort(reverse=True)
    found = candidates(*(score for score, _ in drawn), degrees=[degrees for _, degrees in drawn])
    rules = Retrieval(diversity=diversity, top_k=top_k, score_floor=0.4)
    passages = select(found, rules)
    able = [score for score, _ in drawn if score >= 0.4]
    assert len(passages) == min(top_k, len(able))
    assert len({passage.passage_id for passage in passages}) == len(passages)
    assert all(passage.score >= 0.4 for passage in passages)
    if passages and diversity < 1:
        assert passages[0].score == pytest.approx(max(able), abs=1e-6)
