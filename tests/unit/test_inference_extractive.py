"""The embedded model: it quotes, it cites, and it says so when it found nothing."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.records import Passage

from services.inference.extractive import NOTHING_FOUND, answer, count_tokens


def a_passage(identity: str, text: str, title: str = "", score: float = 0.8) -> Passage:
    return Passage(passage_id=identity, document_id="d", title=title, text=text, score=score)


TUPLES = a_passage(
    "p1",
    "Tuples are immutable sequences, typically used to store collections of heterogeneous data. "
    "Tuples may be constructed in a number of ways. Lists are mutable sequences.",
    title="Tuples",
)
SOCKETS = a_passage("p2", "A socket is one endpoint of a two-way link. Sockets are created with socket.socket().")


def test_the_sentence_that_answers_is_quoted_and_cited() -> None:
    found = answer("Are tuples immutable sequences?", [TUPLES, SOCKETS])
    assert found.content.startswith("Tuples are immutable sequences")
    assert found.citations == ("p1",)


def test_a_later_passage_wins_where_it_holds_the_answer() -> None:
    found = answer("How are sockets created?", [TUPLES, SOCKETS])
    assert "created with socket.socket()" in found.content
    assert found.citations == ("p2",)


def test_what_the_passages_do_not_hold_is_not_guessed() -> None:
    found = answer("Who won the football championship in Brazil?", [TUPLES, SOCKETS])
    assert (found.content, found.citations) == (NOTHING_FOUND, ())


def test_no_passages_no_answer() -> None:
    assert answer("What is a tuple?", []).content == NOTHING_FOUND


def test_the_length_is_bounded_by_whole_sentences() -> None:
    text = "Gears turn the big wheel slowly. Gears turn the small wheel slowly. Gears turn the third wheel slowly."
    assert (
        count_tokens(answer("How do gears turn the wheel slowly?", [a_passage("p", text)], max_tokens=8).content) <= 8
    )


TEXTS = st.text(max_size=300) | st.text("abcdefg .,!é漢\x1f\u0301", max_size=300)


@given(TEXTS, st.lists(TEXTS, max_size=4), st.integers(1, 40))
def test_an_answer_keeps_the_length_that_was_asked_for(question: str, texts: list[str], most: int) -> None:
    passages = [a_passage(str(i), text) for i, text in enumerate(texts)]
    found, whole = answer(question, passages, most), answer(question, passages)
    assert count_tokens(found.content) <= most
    assert found.content
    if count_tokens(whole.content) <= most:
        assert found == whole
    if found.cut:
        assert count_tokens(found.content) == most


def test_a_sentence_longer_than_was_asked_for_ends_in_the_middle() -> None:
    found = answer("Are tuples immutable sequences?", [TUPLES], max_tokens=4)
    assert (found.content, found.citations, found.cut) == ("Tuples are immutable sequences", ("p1",), True)
    assert answer("What is a tuple?", [], max_tokens=3).content == "I found nothing"


@given(TEXTS)
def test_a_text_has_no_more_tokens_than_bytes(text: str) -> None:
    assert count_tokens(text) <= len(text.encode("utf-8", "surrogatepass"))


@given(st.text(max_size=200), st.lists(st.text(max_size=300), max_size=4))
def test_every_sentence_of_an_answer_stands_in_a_passage(question: str, texts: list[str]) -> None:
    passages = [a_passage(str(i), text) for i, text in enumerate(texts)]
    found = answer(question, passages)
    if found.content != NOTHING_FOUND:
        cited = " ".join(" ".join(p.text.split()) for p in passages if p.passage_id in found.citations)
        assert set(found.content.split()) <= set(cited.split())
    else:
        assert found.citations == ()


def test_it_answers_most_questions_whose_passage_was_found(data: Path) -> None:
    corpus = {p["id"]: p for p in map(json.loads, (data / "retrieval/corpus.jsonl").read_text("utf-8").splitlines())}
    questions = [json.loads(line) for line in (data / "retrieval/questions.jsonl").read_text("utf-8").splitlines()]
    hits = 0
    for question in questions:
        page = corpus[question["relevant"][0]]
        content = answer(question["question"], [a_passage("p", page["text"], page["title"])]).content.lower()
        hits += any(a.lower() in content for a in question["answers"])
    # Measured: 0.858. The bound leaves room for a change of the weights, not for a broken ranking.
    assert hits / len(questions) >= 0.84


def test_it_says_nothing_was_found_when_shown_another_subjects_passage(data: Path) -> None:
    corpus = list(map(json.loads, (data / "retrieval/corpus.jsonl").read_text("utf-8").splitlines()))
    title = {p["id"]: p["title"] for p in corpus}
    questions = [json.loads(line) for line in (data / "retrieval/questions.jsonl").read_text("utf-8").splitlines()]
    silent = 0
    for number, question in enumerate(questions):
        others = [p for p in corpus if p["title"] != title[question["relevant"][0]]]
        page = others[(number * 37) % len(others)]
        silent += answer(question["question"], [a_passage("p", page["text"], page["title"])]).content == NOTHING_FOUND
    assert silent / len(questions) >= 0.97
