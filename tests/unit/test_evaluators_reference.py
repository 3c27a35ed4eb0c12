"""Answers against a reference: the figures of the libraries and of hand, and what must hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.evaluation.evaluators.own import FunctionEvaluator
from services.evaluation.evaluators.protocol import Exchange, Judged
from services.evaluation.evaluators.reference import bleu, exact_match, normalised, rouge, token_f1

LEXICAL = (exact_match, token_f1, bleu, rouge)
SENTENCES = st.lists(st.sampled_from("the cat sat on a mat with its dog in Paris 42".split()), min_size=1, max_size=12)


def judged(one: FunctionEvaluator, answer: str, reference: str | None) -> Judged | None:
    return one.evaluate([Exchange(answer=answer, reference=reference)])[0]


def score(one: FunctionEvaluator, answer: str, reference: str) -> float:
    said = judged(one, answer, reference)
    assert said is not None
    return said.score


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("The Eiffel Tower.", "eiffel tower", True),
        ("An apple", "apple", True),
        ("  308 ", "308", True),
        ("Paris, France", "Paris", False),
        ("309", "308", False),
        ("...", "...", True),
        ("...", "???", False),
    ],
)
def test_exact_match_is_that_of_squad(answer: str, reference: str, same: bool) -> None:
    assert score(exact_match, answer, reference) == same


def test_normalisation_takes_articles_and_punctuation_only() -> None:
    assert normalised("The  U.S.A., a Country!") == "usa country"
    assert normalised("theatre and another") == "theatre and another"


def test_token_f1_is_counted_by_hand() -> None:
    # 2 of 3 words of the answer, 2 of 4 of the reference: 2 * 2 / 7.
    assert score(token_f1, "cat sat here", "cat sat on mats") == pytest.approx(4 / 7)
    assert score(token_f1, "cat cat cat", "cat") == pytest.approx(2 / 4)


def test_bleu_is_that_of_a_worked_example() -> None:
    # 1-grams 4/5, 2-grams 2/4, 3-grams 1/3, 4-grams 1/4 by smoothing (half a match of 2); no brevity penalty.
    expected = (4 / 5 * 2 / 4 * 1 / 3 * 0.5 / 2) ** 0.25
    assert score(bleu, "the cat sat on it", "the cat sat by it") == pytest.approx(expected, abs=0.02)


def test_rouge_counts_the_longest_common_subsequence() -> None:
    said = judged(rouge, "the cat lay on mat", "the cat sat on the mat")
    assert said is not None
    assert said.score == pytest.approx(2 * 4 / 11, abs=1e-6)  # the cat on mat, of 5 and of 6 words
    assert said.features["rouge1"] == pytest.approx(8 / 11, abs=1e-6)
    assert said.features["rouge2"] == pytest.approx(2 / 9, abs=1e-6)  # the cat, of 4 and of 5 pairs


def test_rouge_reads_other_scripts_and_stems_english() -> None:
    assert score(rouge, "Кошка сидит на ковре", "Кошка сидит на ковре") == 1
    assert score(rouge, "猫はマットの上", "猫はマットの下") > 0.5
    assert score(rouge, "running dogs", "run dog") == 1


def test_scripts_without_spaces_count_by_the_character() -> None:
    assert 0.5 < score(token_f1, "巴黎是法国首都", "巴黎是法国的首都") < 1
    assert 0 < score(bleu, "巴黎是法国首都", "巴黎是法国的首都") < 1


@pytest.mark.parametrize("one", LEXICAL)
def test_nothing_is_said_without_a_reference(one: FunctionEvaluator) -> None:
    assert judged(one, "Paris", None) is None


@pytest.mark.parametrize("one", LEXICAL)
def test_the_right_answer_scores_above_a_wrong_one(one: FunctionEvaluator) -> None:
    right = score(one, "The tower was built in 1889.", "the tower was built in 1889")
    assert right > score(one, "Bananas are rich in potassium.", "the tower was built in 1889") + 0.4


@pytest.mark.parametrize("one", LEXICAL)
@given(said=SENTENCES, wanted=SENTENCES)
def test_scores_are_shares_and_the_same_text_has_the_most(
    one: FunctionEvaluator, said: list[str], wanted: list[str]
) -> None:
    answer, reference = " ".join(said), " ".join(wanted)
    assert 0 <= score(one, answer, reference) <= score(one, reference, reference) + 1e-9
    assert score(one, reference, reference) == pytest.approx(1)


@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_any_text_is_compared(answer: str, reference: str) -> None:
    for one in LEXICAL:
        said = judged(one, answer, reference)
        assert said is None or 0 <= said.score <= 1
