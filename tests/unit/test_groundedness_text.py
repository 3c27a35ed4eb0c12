"""What supports an answer: each kind of evidence, and what holds whatever the texts are."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from penstock.text.groundedness import THRESHOLD, Support, support
from penstock.text.groundedness_evidence import FEATURES, Passages, evidence
from penstock.text.groundedness_words import sentence_spans, words_of

PASSAGES = [
    "The bridge was opened in 1931 by the mayor, Anna Kovač. It is 1,240 metres long and carries two railway tracks. "
    "It was not damaged in the war.",
    "The tower of Lindau was built by Otto Wagner after the fire of 1904. Visitors climb its 310 steps to a gallery.",
    "Ferries crossed the strait until 1930. About 12 % of the passengers brought a bicycle.",
]


def judged(answer: str, passages: list[str] | None = None) -> Support:
    found = support(answer, PASSAGES if passages is None else passages)
    assert found is not None
    return found


def shares(answer: str, passages: list[str]) -> dict[str, float]:
    [(start, end)] = sentence_spans(answer)
    [words] = words_of(answer, start, end)
    return dict(zip(FEATURES, evidence(words, answer, Passages.read(passages)).shares, strict=True))


def test_evidence_by_hand() -> None:
    # Of three content words, "chase" and "mice" stand in the passage, of which "mice" follows "chased" three words on.
    found = shares("Dogs chase the mice", ["The cat chased all the mice. A dozen ran."])
    assert found["content"] == pytest.approx(2 / 3)
    assert found["words"] == pytest.approx(3 / 4)
    assert found["pairs"] == pytest.approx(2 / 4)  # the mice
    assert found["triples"] == 0
    assert found["linked"] == pytest.approx(1 / 2)  # chase … mice, not dogs … chase
    assert found["runs"] == pytest.approx(2 * 2 / (4 * 4))


def test_numbers_are_compared_as_numbers() -> None:
    for same in ("It is 1240 metres long.", "It is 1,240 metres long."):
        assert shares(same, PASSAGES)["telling"] == 1
    assert shares("12 percent of the passengers brought a bicycle.", PASSAGES)["telling"] == 1
    assert shares("Twelve % of the passengers brought a bicycle.", PASSAGES)["content"] == 1
    assert shares("It is 1.240 metres long.", PASSAGES)["telling"] < 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("The bridge was opened in 1968 by the mayor.", "no passage has the number 1968"),
        ("The tower of Lindau was built by Maria Jensen.", "no passage has the names Maria, Jensen"),
        ("The bridge was never opened by the mayor.", "it denies what no passage denies"),
        ("It was damaged in the war.", "a passage denies it"),
        ("Would you like to hear more of the bridge?", "it asks back"),
        ("Elephants migrate across oceans.", "none of its words stands in a passage"),
    ],
)
def test_the_reason_names_what_is_wrong(answer: str, reason: str) -> None:
    [sentence] = judged(answer).sentences
    assert sentence.support < THRESHOLD
    assert sentence.reason == reason


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("The bridge was opened in 1931.", "The bridge was opened in 1904."),  # the number of another thing
        ("The tower was built by Otto Wagner.", "The bridge was built by Otto Wagner."),
        ("The bridge was not damaged in the war.", "The bridge was damaged in the war."),
        ("Ferries crossed the strait until 1930.", "Ferries crossed the strait of Lindau until 1930."),
        ("It carries two railway tracks.", "It carries two motorway lanes."),
        ("Anna Kovač opened the bridge.", "Otto Wagner opened the bridge."),
    ],
)
def test_what_is_exchanged_or_denied_costs_support(right: str, wrong: str) -> None:
    assert judged(right).score > judged(wrong).score


def test_sentences_have_their_place_and_their_passage() -> None:
    answer = "The tower was built by Otto Wagner [2].  Ferries crossed the strait until 1930. So it was."
    tower, ferries = judged(answer).sentences
    assert (answer[tower.start : tower.end], tower.passage) == ("The tower was built by Otto Wagner [2].", 1)
    assert (answer[ferries.start : ferries.end], ferries.passage) == ("Ferries crossed the strait until 1930.", 2)
    assert tower.reason == ferries.reason == ""


def test_initials_and_titles_end_no_sentence() -> None:
    text = "Mr. J. Smith of the U.S. Navy met Dr. Kovač. They talked."
    assert [text[a:b] for a, b in sentence_spans(text)] == [text[:44], "They talked."]


def test_marks_of_citations_are_no_numbers() -> None:
    assert (
        judged("Ferries crossed the strait until 1930 [3].").score
        == judged("Ferries crossed the strait until 1930.").score
    )


def test_what_claims_nothing_does_not_count() -> None:
    answer = "Ferries crossed the strait until 1930."
    more = f"{answer} The price is not stated."
    assert judged(more).score < judged(answer).score
    left_out = support(more, PASSAGES, no_claim=lambda sentence: "not stated" in sentence)
    assert left_out is not None
    assert left_out.score == judged(answer).score
    assert support("The price is not stated.", PASSAGES, no_claim=lambda sentence: True) is None
    assert support("So it is.", PASSAGES) is None


WORD = st.sampled_from(sorted({word.strip(".,") for passage in PASSAGES for word in passage.split()}))
MADE_UP = st.sampled_from("zorgle blimfax quibble frotz Wendigo 777 9.81 krayt snark".split())
SENTENCE = st.lists(WORD | MADE_UP, min_size=1, max_size=12).map(lambda words: " ".join(words) + ".")
ANSWER = st.lists(SENTENCE, min_size=1, max_size=4).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(ANSWER, st.lists(MADE_UP, min_size=1, max_size=8), st.booleans())
def test_an_unsupported_sentence_never_raises_the_score(answer: str, invented: list[str], in_front: bool) -> None:
    before = support(answer, PASSAGES)
    assume(before is not None)
    assert before is not None
    added = " ".join(invented).capitalize() + "."
    after = judged(f"{added} {answer}" if in_front else f"{answer} {added}")
    assert after.score <= before.score + 1e-9


@settings(max_examples=100, deadline=None)
@given(ANSWER, st.permutations(range(3)))
def test_the_order_of_the_passages_changes_nothing(answer: str, order: list[int]) -> None:
    first, second = support(answer, PASSAGES), support(answer, [PASSAGES[place] for place in order])
    assume(first is not None)
    assert first is not None
    assert second is not None
    assert second.score == first.score
    places = [None if one.passage is None else order[one.passage] for one in second.sentences]
    assert places == [one.passage for one in first.sentences]


@settings(max_examples=100, deadline=None)
@example("%. not %.", [])
@given(ANSWER, st.lists(ANSWER, max_size=3))
def test_a_copy_of_a_passage_is_grounded(passage: str, others: list[str]) -> None:
    found = support(passage, [*others, passage])
    assume(found is not None)
    assert found is not None
    assert found.score >= 0.9
    assert all(sentence.support >= THRESHOLD for sentence in found.sentences)


@settings(max_examples=100, deadline=None)
@given(st.integers(100, 9_999), st.integers(100, 9_999), st.sampled_from(["was sold for {} crowns", "has {} rooms"]))
def test_another_number_lowers_the_score(right: int, wrong: int, what: str) -> None:
    assume(right != wrong)
    passage = f"The house of Lindau {what.format(right)} in spring. It stands by the lake."
    grounded = judged(f"The house {what.format(right)}.", [passage])
    assert grounded.score >= THRESHOLD
    assert judged(f"The house {what.format(wrong)}.", [passage]).score < grounded.score
