"""Whether what an answer cites supports it: numbers, names, what the backend quotes, and what cites nothing."""

from __future__ import annotations

import pytest
from penstock.contracts.records import Passage

from services.evaluation.evaluators.citations import CitationEvaluator, marks
from services.evaluation.evaluators.protocol import Exchange, Judged

PASSAGES = (
    Passage(
        passage_id="b0", document_id="bridges.md", title="Bridges", score=1.0,
        text="The bridge was opened in 1931 by the mayor, Anna Kovač. It carries two railway tracks.",
    ),
    Passage(
        passage_id="t0", document_id="towers.md", title="Towers", source="docs/towers.md", score=0.9,
        text="The tower was built by Otto Wagner after the fire of 1904. It has 310 steps.",
    ),
    Passage(
        passage_id="f0", document_id="ferries.md", title="Ferries", score=0.8,
        text="Ferries crossed the strait until 1930. Most passengers brought a bicycle.",
    ),
)  # fmt: skip


def judged(answer: str, *citations: str) -> Judged | None:
    [found] = CitationEvaluator().evaluate([Exchange(answer=answer, passages=PASSAGES, citations=citations)])
    return found


def verdict(answer: str, *citations: str) -> tuple[float, str]:
    found = judged(answer, *citations)
    assert found is not None
    return found.score, found.label


@pytest.mark.parametrize(
    "answer",
    [
        "The bridge was opened in 1931 [1].",
        "The bridge was opened in 1931. [1]",
        "The bridge was opened in 1931 [1, 3]. The tower was built by Otto Wagner [2].",
        "The bridge was opened in 1931. [1] The tower was built by Otto Wagner. [2]",
        "The bridge was opened in 1931 [1-3].",
        "The tower was built by Otto Wagner (Towers).",
        "The tower was built by Otto Wagner (source: docs/towers.md).",
        "The tower was built by Otto Wagner【2†source】.",
    ],
)
def test_what_the_cited_passage_says_is_cited_rightly(answer: str) -> None:
    assert verdict(answer) == (1.0, "correct")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("The bridge was opened in 1931 [2].", "[2] does not support it, [1] does"),
        ("The bridge was opened in 1968 [1].", "[1] does not support it: no passage has the number 1968"),
        ("The bridge was opened in 1931 [7].", "there is no passage 7"),
        ("The bridge was opened in 1931 [1, 7].", "there is no passage 7"),
        ("The bridge was opened in 1931 (Ferries).", "[3] does not support it, [1] does"),
    ],
)
def test_what_it_does_not_say_is_cited_wrongly(answer: str, reason: str) -> None:
    found = judged(answer)
    assert found is not None
    assert (found.score, found.label, found.reason) == (0.0, "incorrect", reason)
    assert [sentence.label for sentence in found.sentences] == ["incorrect"]


def test_a_claim_that_could_cite_and_does_not_is_missing_its_citation() -> None:
    answer = "The bridge was opened in 1931 [1]. The tower was built by Otto Wagner."
    found = judged(answer)
    assert found is not None
    assert (found.score, found.label) == (0.5, "missing")
    assert found.reason == "a claim cites nothing where [2] supports it"
    assert found.categories == {"missing": 0.5, "correct": 0.5}
    assert [(s.label, s.passage_id) for s in found.sentences] == [("correct", "b0"), ("missing", "t0")]


def test_a_wrong_citation_weighs_more_than_a_missing_one_in_the_label() -> None:
    answer = "The bridge was opened in 1931 [2]. The tower was built by Otto Wagner. Ferries crossed until 1930 [3]."
    assert verdict(answer) == (pytest.approx(1 / 3), "incorrect")


def test_what_the_backend_quotes_counts_where_the_answer_has_no_marks() -> None:
    answer = "The bridge was opened in 1931."
    assert verdict(answer, "b0") == (1.0, "correct")
    assert verdict(answer, "t0", "b0") == (1.0, "correct")
    assert verdict(answer, "t0") == (0.0, "incorrect")
    assert verdict(answer, "gone") == (0.0, "missing")
    assert verdict("The bridge was opened in 1931 [1].", "t0") == (1.0, "correct")


@pytest.mark.parametrize(
    "answer",
    ["", "So it is.", "Elephants migrate across oceans.", "Would you like to hear more?", "Do you like bridges [1]?"],
)
def test_nothing_is_said_where_no_claim_cites_or_could(answer: str) -> None:
    assert judged(answer) is None


def test_without_passages_nothing_is_said() -> None:
    assert CitationEvaluator().evaluate([Exchange(answer="It is so [1].")]) == [None]


def test_marks_are_read_in_order_and_no_other_brackets() -> None:
    answer = "See a[0] (really) [2;1] and (Towers), [4] or [1-2]."
    assert [(answer[m.start : m.end], m.passages, m.unknown) for m in marks(answer, PASSAGES)] == [
        ("[2;1]", (1, 0), ()),
        ("(Towers)", (1,), ()),
        ("[4]", (), (4,)),
        ("[1-2]", (0, 1), ()),
    ]
