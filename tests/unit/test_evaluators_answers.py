"""Relevance, completeness, coherence and similarity on small labelled cases, with the packaged embedder."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from penstock.embedding import pack_vector
from penstock.embedding.minilm import MiniLmEmbedder
from penstock.embedding.protocol import Embedded, Vectors
from penstock.embedding.recent import RecentVectors

from services.evaluation.evaluators.coherence import Coherence, repetition
from services.evaluation.evaluators.completeness import Completeness, parts, wanted_items
from services.evaluation.evaluators.protocol import Evaluator, Exchange, Judged
from services.evaluation.evaluators.relevance import AnswerRelevance
from services.evaluation.evaluators.similarity import SemanticSimilarity

EMBEDDER = RecentVectors(MiniLmEmbedder())
RELEVANCE, COMPLETENESS = AnswerRelevance(EMBEDDER), Completeness(EMBEDDER)
COHERENCE, SIMILARITY = Coherence(EMBEDDER), SemanticSimilarity(EMBEDDER)

CAPITAL = "What is the capital of France and how many people live there?"
ANSWERED = {
    "How do I reset my password?": "Open Settings, choose Security, and click on Reset password. You get a link by mail.",
    "Who wrote Pride and Prejudice?": "Jane Austen",
    "When was the bridge opened?": "The bridge was opened to traffic in May 1937.",
    "How many moons does Mars have?": "Mars has two moons, Phobos and Deimos.",
    "Is the office open on Sunday?": "No.",
    "Why do leaves turn red in autumn?": "In autumn trees stop making chlorophyll, and red pigments in their leaves show.",
    "What does the invoice include?": "The invoice lists every subscription, the tax, and the date of payment.",
    CAPITAL: "The capital of France is Paris. About 2.1 million people live in the city.",
}
BESIDE = (
    "Bananas are rich in potassium, and ripen faster beside apples.",
    "The stock market fell by two per cent on Tuesday.",
    "My bicycle has a flat tyre again, so the ride must wait.",
)


def judge(one: Evaluator, question: str, answer: str, **rest: str) -> Judged:
    said = one.evaluate([Exchange(question=question, answer=answer, **rest)])[0]  # type: ignore[arg-type]
    assert said is not None
    return said


@pytest.mark.parametrize("question", ANSWERED)
def test_an_answer_is_more_relevant_than_what_is_beside_the_question(question: str) -> None:
    right = judge(RELEVANCE, question, ANSWERED[question]).score
    assert right >= RELEVANCE.threshold
    for beside in BESIDE:
        assert judge(RELEVANCE, question, beside).score < min(RELEVANCE.threshold, right - 0.3), beside


@pytest.mark.parametrize("question", ANSWERED)
@pytest.mark.parametrize("answer", ["I'm sorry, but I can't help with that.", "I don't know."])
def test_who_does_not_answer_is_not_relevant(question: str, answer: str) -> None:
    assert judge(RELEVANCE, question, answer).score < 0.15


def test_repeating_the_question_answers_nothing() -> None:
    said = judge(RELEVANCE, CAPITAL, "The capital of France? How many people live there?")
    assert (said.score, said.reason) == (0, "it only repeats the question")
    assert judge(COMPLETENESS, CAPITAL, CAPITAL).score == 0


def test_the_vector_that_an_event_carried_is_used_where_it_is_of_the_same_model() -> None:
    question, answer = "Who wrote Pride and Prejudice?", "Jane Austen was an English novelist."
    vector = EMBEDDER.embed([question])[0]

    def asked(carried: bytes | None, embedder: str = EMBEDDER.name) -> Exchange:
        return Exchange(
            question=question, answer=answer, question_embedding=carried, question_embedder=embedder
        )  # fmt: skip

    exchanges = [asked(None), asked(pack_vector(vector)), asked(pack_vector(-vector)), asked(b"\0" * 16)]
    exchanges += [asked(pack_vector(-vector), "of-as-many-dimensions"), asked(pack_vector(-vector), "")]
    own, same, other, short, *foreign = (said.score if said else -1 for said in RELEVANCE.evaluate(exchanges))
    assert own == same == short == foreign[0] == foreign[1] > other


def test_scores_do_not_depend_on_the_batch() -> None:
    exchanges = [Exchange(question=question, answer=answer) for question, answer in ANSWERED.items()]
    for one in (RELEVANCE, COMPLETENESS, COHERENCE):
        together = one.evaluate(exchanges)
        assert list(together) == [one.evaluate([exchange])[0] for exchange in exchanges]


@pytest.mark.parametrize("unit", ["All of it is told in words. ", "(", "one two"])
def test_an_endless_answer_is_read_from_its_beginning(unit: str) -> None:
    """What a judgement costs has a bound: a loop of 100,000 characters reads like one of 20,000."""
    embedder = Counting(MiniLmEmbedder())
    vectors = RecentVectors(embedder)
    long, longer = ((unit * count)[:count] for count in (20_000, 100_000))
    assert (vectors.embed([long])[0] == vectors.embed([longer])[0]).all()
    assert 0 < embedder.pieces <= 1_100


class Counting:
    """An embedder that counts the word pieces it embeds."""

    def __init__(self, embedder: MiniLmEmbedder) -> None:
        self._embedder = embedder
        self.name, self.dimension, self.pieces = embedder.name, embedder.dimension, 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        counted = self.embed_counted(texts)
        self.pieces += sum(counted.tokens)
        return counted.vectors

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        return self._embedder.embed_counted(texts)

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return self._embedder.token_spans(text)


def test_each_part_of_a_question_counts() -> None:
    both = judge(COMPLETENESS, CAPITAL, ANSWERED[CAPITAL])
    first = judge(COMPLETENESS, CAPITAL, "The capital of France is Paris.")
    second = judge(COMPLETENESS, CAPITAL, "About 2.1 million people live there.")
    assert both.score >= COMPLETENESS.threshold > max(first.score, second.score)
    assert (both.reason, first.reason) == ("", "part 2 of 2 is not addressed")
    assert second.reason == "part 1 of 2 is not addressed"


@pytest.mark.parametrize(
    ("question", "complete", "incomplete"),
    [
        (
            "Who built the tower? When was it finished? Explain why it was built.",
            "The tower was built by Gustave Eiffel's company. It was finished in 1889. It was built as the entrance to the "
            "World's Fair.",
            "The tower was built by Gustave Eiffel's company.",
        ),
        (
            "Answer:\n1. How long does delivery take?\n2. Can I return an opened box?",
            "Delivery takes three days. Yes, an opened box can be returned within a month.",
            "Delivery takes three days.",
        ),
        (
            "Wie lange dauert die Lieferung und was kostet der Versand?",
            "Die Lieferung dauert drei Tage. Der Versand kostet fünf Euro.",
            "Die Lieferung dauert drei Tage.",
        ),
    ],
)
def test_what_leaves_parts_out_is_less_complete(question: str, complete: str, incomplete: str) -> None:
    assert judge(COMPLETENESS, question, complete).score > judge(COMPLETENESS, question, incomplete).score + 0.2


def test_fewer_things_than_were_asked_for_are_less_complete() -> None:
    question = "List three reasons to drink water."
    lines = [
        "1. Water keeps your joints healthy",
        "2. Drinking water gives energy",
        "3. Water cools your body in summer",
    ]
    scores = [judge(COMPLETENESS, question, "\n".join(lines[:count])).score for count in (1, 2, 3)]
    assert scores == sorted(scores)
    assert scores[0] < 0.5 < scores[2]


def test_an_answer_that_was_cut_off_is_less_complete() -> None:
    answer = ANSWERED[CAPITAL]
    cut = judge(COMPLETENESS, CAPITAL, answer, finish_reason="length")
    assert cut.score < judge(COMPLETENESS, CAPITAL, answer).score
    assert "token limit" in cut.reason


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is X12 and how does it work?", ["What is X12", "how does it work?"]),
        ("Tell me about rock and roll.", ["Tell me about rock and roll."]),
        ("Hello. I am new here. Where is the canteen?", ["Where is the canteen?"]),
        ("the weather in Paris", ["the weather in Paris"]),
        ("Wer war Goethe und wann lebte er?", ["Wer war Goethe", "wann lebte er?"]),
        ("- the price\n- the colour of the car", ["the price", "the colour of the car"]),
        ("", []),
    ],
)
def test_questions_are_taken_apart(question: str, expected: list[str]) -> None:
    assert parts(question) == expected


@pytest.mark.parametrize(
    ("part", "number"), [("Name 5 rivers.", 5), ("give me three good examples", 3), ("What happened in 1889?", 0)]
)
def test_numbers_of_wanted_things(part: str, number: int) -> None:
    assert wanted_items(part) == number


PARAGRAPH = (
    "Coffee plants grow best in the shade of taller trees. Their fruit is picked by hand when it turns red. The beans "
    "inside are washed, dried and roasted. Roasting gives coffee its colour and most of its aroma."
)


def test_sentences_from_elsewhere_make_a_text_less_coherent() -> None:
    question = "How is coffee made?"
    whole = judge(COHERENCE, question, PARAGRAPH).score
    first, *rest = PARAGRAPH.split(". ")
    one = judge(COHERENCE, question, ". ".join([first, BESIDE[1].rstrip("."), *rest])).score
    none = judge(COHERENCE, question, " ".join(BESIDE)).score
    assert whole >= COHERENCE.threshold > none
    assert whole > one > none


def test_a_loop_is_not_coherent() -> None:
    loop = "The beans are roasted until they are brown. " * 12
    said = judge(COHERENCE, "How is coffee made?", loop)
    assert said.score < 0.2
    assert said.features["repetition"] > 0.8
    assert repetition("a b c d e f g h".split()) == 0


def test_short_answers_have_no_coherence() -> None:
    assert COHERENCE.evaluate([Exchange(question="Who?", answer="Jane Austen")]) == [None]


def test_other_words_for_the_same_are_similar() -> None:
    reference = "The doctor prescribed rest for a week."
    alike = judge(SIMILARITY, "", "The physician told her to rest for seven days.", reference=reference)
    other = judge(SIMILARITY, "", BESIDE[1], reference=reference)
    same = judge(SIMILARITY, "", reference, reference=reference)
    assert same.score == 1 > alike.score > 0.6 > 0.3 > other.score
    assert SIMILARITY.evaluate([Exchange(answer="a"), Exchange(reference="a")]) == [None, None]
