"""Groundedness and hallucination as evaluators: labels, sentences, reasons, and what is not judged."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from penstock.contracts.records import Passage
from penstock.embedding.protocol import Embedded, Vectors
from penstock.text.groundedness import THRESHOLD

from services.evaluation.evaluators.groundedness import (
    GroundednessEvaluator,
    HallucinationEvaluator,
    groundedness_evaluators,
)
from services.evaluation.evaluators.protocol import Exchange, Judged

BRIDGE = "The bridge was opened in 1931 by the mayor, Anna Kovač. It carries two railway tracks."
TOWER = "The tower was built by Otto Wagner after the fire of 1904. It has 310 steps."


def exchange(answer: str, *texts: str) -> Exchange:
    passages = tuple(
        Passage(passage_id=f"p{number}", document_id="d", text=text, score=1.0)
        for number, text in enumerate(texts or (BRIDGE, TOWER))
    )
    return Exchange(question="When?", answer=answer, passages=passages)


def only(evaluator: GroundednessEvaluator | HallucinationEvaluator, given: Exchange) -> Judged:
    [judged] = evaluator.evaluate([given])
    assert judged is not None
    return judged


def test_each_sentence_has_its_score_its_passage_and_its_reason() -> None:
    answer = "The bridge was opened in 1931. The tower has 320 steps."
    judged = only(GroundednessEvaluator(), exchange(answer))
    bridge, tower = judged.sentences
    assert (answer[bridge.start : bridge.end], bridge.label, bridge.passage_id) == (
        "The bridge was opened in 1931.",
        "grounded",
        "p0",
    )
    assert (tower.label, tower.reason) == ("ungrounded", "no passage has the number 320")
    assert judged.reason == "1 of 2 sentences unsupported: no passage has the number 320"
    assert tower.score < THRESHOLD < bridge.score
    assert judged.label == ("grounded" if judged.score >= THRESHOLD else "ungrounded")


def test_hallucination_is_the_share_of_unsupported_sentences() -> None:
    right = "The bridge was opened in 1931."
    groundedness, hallucination, _ = groundedness_evaluators()
    assert (groundedness.version, groundedness.name) == (hallucination.version, "groundedness")
    for answer, share, label in (
        (right, 0.0, "supported"),
        (f"{right} Elephants migrate across oceans.", 0.5, "hallucinated"),
        ("Elephants migrate across oceans.", 1.0, "hallucinated"),
    ):
        judged = only(hallucination, exchange(answer))
        assert (judged.score, judged.label) == (share, label)
        assert [sentence.label for sentence in judged.sentences] == ["ungrounded"] * (share > 0)


@pytest.mark.parametrize(
    "given",
    [
        exchange(""),
        exchange("So it is."),
        exchange("I do not know."),
        exchange("The passages do not mention the price."),
        exchange("Sorry, I can't help with that."),
        exchange("Hello there! You're welcome. Let me know if you need anything else."),
        exchange("The bridge was opened in 1931.", "", " "),
        msgspec.structs.replace(exchange("The bridge was opened in 1931."), passages=()),
    ],
)
def test_where_nothing_is_claimed_or_shown_nothing_is_said(given: Exchange) -> None:
    assert [list(one.evaluate([given])) for one in groundedness_evaluators()[:2]] == [[None], [None]]


@pytest.mark.parametrize(
    "courtesy",
    ["I hope this helps!", "Is there anything else I can do for you?", "Thanks for asking.", "Feel free to ask."],
)
def test_courtesy_does_not_count(courtesy: str) -> None:
    plain, polite = (
        only(GroundednessEvaluator(), exchange(f"The bridge was opened in 1931. {more}")) for more in ("", courtesy)
    )
    assert (polite.score, polite.label) == (plain.score, "grounded")


def test_a_claim_does_not_pass_as_courtesy() -> None:
    judged = only(
        GroundednessEvaluator(),
        exchange("Sure, the tunnel of Grado collapsed. Thanks to Otto Wagner it has 99 arches and lifts."),
    )
    assert len(judged.sentences) == 2


def test_not_knowing_one_thing_does_not_count_against_the_others() -> None:
    known = "The bridge was opened in 1931."
    alone, with_gap = (
        only(GroundednessEvaluator(), exchange(answer))
        for answer in (known, f"{known} The price is not mentioned in the text.")
    )
    assert with_gap.score == alone.score


def test_titles_are_evidence_and_empty_passages_shift_nothing() -> None:
    given = Exchange(
        answer="The Golden Gate Bridge was opened in 1937.",
        passages=(
            Passage(passage_id="empty", document_id="d", text="", score=1.0),
            Passage(
                passage_id="gate", document_id="d", title="Golden Gate Bridge", text="It was opened in 1937.", score=1.0
            ),
        ),
    )
    judged = only(GroundednessEvaluator(), given)
    untitled = (given.passages[0], msgspec.structs.replace(given.passages[1], title=""))
    assert judged.score > only(GroundednessEvaluator(), msgspec.structs.replace(given, passages=untitled)).score
    assert [sentence.passage_id for sentence in judged.sentences] == ["gate"]


def test_a_batch_is_judged_as_its_parts_are() -> None:
    batch = [exchange("The bridge was opened in 1931."), exchange("So."), exchange("The tower has 99 steps.")]
    evaluator = GroundednessEvaluator()
    assert evaluator.evaluate(batch) == [GroundednessEvaluator().evaluate([one])[0] for one in batch]


class Directions:
    """An embedder for which texts that share their first letter mean the same."""

    name, dimension = "directions", 26

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            vectors[row, ord(text[0].lower()) - ord("a")] = 1.0
        return vectors

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        return Embedded(self.embed(texts), (1,) * len(texts))

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [(0, len(text))]


def test_meaning_raises_what_words_do_not_and_finds_its_passage() -> None:
    passages = ("Cats sleep.", "Dogs bark.")
    evaluator = GroundednessEvaluator(Directions())
    same, other = (
        only(evaluator, exchange("Doggies woof.", *passages)),
        only(evaluator, exchange("Zebras woof.", *passages)),
    )
    assert same.score > other.score == 0
    assert [sentence.passage_id for sentence in same.sentences] == ["p1"]
    assert evaluator.version.endswith("+directions") != GroundednessEvaluator().version.endswith("+directions")
