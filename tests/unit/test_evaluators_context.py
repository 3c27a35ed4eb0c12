"""Which passages an answer used, whether there were any, and what people thought of either."""

from __future__ import annotations

import pytest
from penstock.contracts.records import Completion, Context, Message, Passage

from services.evaluation.evaluators.groundedness import ContextUseEvaluator
from services.evaluation.evaluators.passages_found import passages_found
from services.evaluation.evaluators.protocol import Exchange, Judged
from services.evaluation.exchanges import judged_completion
from services.evaluation.golden.answers import Answer
from services.evaluation.golden.dataset import parse_dataset
from services.evaluation.golden.scoring import exchanges_of
from tests.unit.feedback_partition import NOW, Partition, evaluation, feedback, result, scores_of

BRIDGE = "The bridge was opened in 1931 by the mayor, Anna Kovač. It carries two railway tracks."
TOWER = "The tower was built by Otto Wagner after the fire of 1904. It has 310 steps."
FERRY = "Ferries crossed the strait until 1930. Most passengers brought a bicycle."


def exchange(answer: str, *texts: str, citations: tuple[str, ...] = ()) -> Exchange:
    passages = [
        Passage(passage_id=f"p{n}", document_id="d", text=text, score=1.0) for n, text in enumerate(texts, start=1)
    ]
    return Exchange(question="When?", answer=answer, passages=tuple(passages), citations=citations)


def judged(given: Exchange) -> Judged | None:
    [found] = ContextUseEvaluator().evaluate([given])
    return found


@pytest.mark.parametrize(
    ("answer", "texts", "citations", "score", "reason"),
    [
        ("The bridge was opened in 1931.", (BRIDGE, TOWER), (), 0.5, "not used: [2]"),
        ("The bridge was opened in 1931. The tower has 310 steps.", (FERRY, BRIDGE, TOWER), (), 2 / 3, "not used: [1]"),
        ("The tower has 310 steps.", (TOWER,), (), 1.0, ""),
        # The same text twice: one of them is not needed.
        ("The tower has 310 steps.", (TOWER, TOWER), (), 0.5, None),
        # Cited in words, and not borne out by what it cites.
        ("Elephants migrate across oceans [1].", (BRIDGE, TOWER), (), 0.0, "not used: [1, 2]"),
        # What the backend quotes is used, whatever the words.
        ("Yes.", (BRIDGE, TOWER), ("p2",), 0.5, "not used: [1]"),
        ("I do not know.", (BRIDGE,), (), 0.0, "not used: [1]"),
        # A passage without text is none: places are those of the request.
        ("The tower has 310 steps.", (" ", BRIDGE, TOWER), (), 0.5, "not used: [2]"),
    ],
)
def test_the_share_of_passages_that_an_answer_used(
    answer: str, texts: tuple[str, ...], citations: tuple[str, ...], score: float, reason: str | None
) -> None:
    found = judged(exchange(answer, *texts, citations=citations))
    assert found is not None
    assert found.score == pytest.approx(score)
    assert found.label == ("used" if score else "unused")
    assert reason is None or found.reason == reason
    assert found.features["used"] == pytest.approx(score * found.features["attached"])


@pytest.mark.parametrize(("answer", "texts"), [("", (BRIDGE,)), ("The tower has 310 steps.", ()), ("Yes.", (" ",))])
def test_nothing_is_said_without_an_answer_or_a_passage(answer: str, texts: tuple[str, ...]) -> None:
    assert judged(exchange(answer, *texts)) is None


@pytest.mark.parametrize(
    ("grounding", "score"), [("grounded", 1.0), ("empty", 0.0), ("unavailable", None), ("off", None)]
)
def test_whether_passages_were_found_is_what_retrieval_says(grounding: str, score: float | None) -> None:
    completion = Completion(
        event_id="c", request_id="r", tenant_id="t", occurred_at=NOW, causation_id="g", context=Context(requested_at=NOW),
        messages=[Message(role="user", content="When?")], model="m", backend="openai", content="In 1931.",
        grounding=grounding,
    )  # fmt: skip
    seen = judged_completion(completion)
    assert seen is not None
    [found] = passages_found.evaluate([seen])
    assert (None if found is None else found.score) == score


def test_golden_sets_have_the_hit_rate_of_their_answers() -> None:
    case = parse_dataset(['{"question": "When?"}'], "set", "set").cases[0]
    answer = Answer(case=case.id, case_version=case.version, variant="a", request_id="r", status="completed",
                    content="In 1931.", grounding="empty")  # fmt: skip
    [seen] = exchanges_of(case, answer)
    [found] = passages_found.evaluate([seen])
    assert found is not None
    assert found.score == 0.0


@pytest.mark.parametrize(("found", "name"), [(1.0, "rating_grounded"), (0.0, "rating_empty")])
def test_ratings_are_told_apart_by_whether_passages_were_found(found: float, name: str) -> None:
    events = [result(), feedback(rating=0.25), evaluation(scores=[("answer.passages_found", found, "")])]
    for order in (events, events[::-1]):
        partition = Partition()
        out = [emit for event in order for emit in partition.take(event)]
        assert scores_of(out) == {"rating": (0.25, "bad"), "correction": (0.0, "left as it is"), name: (0.25, "bad")}


@pytest.mark.parametrize("cached_by", ["exact", "semantic", None])
def test_ratings_of_answers_that_a_cache_gave_are_told_apart(cached_by: str | None) -> None:
    events = [result(cached_by=cached_by), feedback(rating=1.0)]
    for order in (events, events[::-1]):
        partition = Partition()
        said = scores_of([emit for event in order for emit in partition.take(event)])
        assert said["rating"] == (1.0, "good")
        assert said.get("rating_cached") == (None if cached_by is None else (1.0, cached_by))
