"""The embedded model: it quotes, it cites, and it says so when it found nothing."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.config.kinds import Target
from penstock.contracts.records import Context, GroundedRequest, Message, Passage, Sampling
from penstock.embedding.static import shared_static_embedding

from services.inference.adapters import BackendError, ExtractiveBackend
from services.inference.extractive import NOTHING_FOUND, answer, count_tokens
from services.inference.extractive.choice import LEARNED, chosen, probabilities
from services.inference.extractive.evidence import FEATURES, evidence
from services.inference.extractive.reading import Asked, question_of, sentences_of
from services.inference.extractive.spelling import one_error_apart, respelled
from services.inference.pieces import NoPieces
from services.inference.progress import Progress
from tests.bench.extractive_questions import cases, holds


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


TEAM = a_passage(
    "team",
    "The Harbour Owls were founded in 1921 by Dr. J. B. Maddox, a physician. They play in Northport. "
    "In 1954 the club sold its stadium because of its debts. The club has 412 members.",
    title="Harbour Owls",
)


def test_abbreviations_end_no_sentence() -> None:
    assert sentences_of([TEAM])[0].read.text == (
        "The Harbour Owls were founded in 1921 by Dr. J. B. Maddox, a physician."
    )


@pytest.mark.parametrize(
    "text",
    [
        "## Lubricating the millstone bearings\nThe millstone bearings are lubricated with tallow each Monday.",
        "## Lubricating the millstone bearings ##\n\nThe millstone bearings are lubricated with tallow each Monday.",
        "Lubricating the millstone bearings\n---\nThe millstone bearings are lubricated with tallow each Monday.",
        "====\nLubricating the millstone bearings\n====\n\nThe millstone bearings are lubricated with tallow each Monday.",
        "Tools.\n\nLubricating the millstone bearings\n~~~~~~~~~~\nThe millstone bearings are lubricated with tallow each "
        "Monday.\n### Replacing worn millstone bearings",
    ],
    ids=["hashes", "hashes-closed", "rule", "two-rules", "between"],
)
def test_a_heading_is_no_part_of_an_answer(text: str) -> None:
    found = answer("How are the millstone bearings lubricated?", [a_passage("p", text)])
    assert found.content == "The millstone bearings are lubricated with tallow each Monday."


def test_what_a_heading_promises_is_looked_for_under_it() -> None:
    text = (
        "## Charging\n\nPut the plug into the socket at the back.\n\n"
        "## Reset the device\n\nHold the red button for ten seconds."
    )
    found = answer("How do I reset the device?", [a_passage("p", text)])
    assert found.content.endswith("Hold the red button for ten seconds.")
    other = answer(
        "How do I reset the device?", [a_passage("p", text.replace("## Reset the device", "## Night lights"))]
    )
    assert other.score < found.score


def test_a_passage_of_headings_alone_answers_nothing() -> None:
    text = "## Lubricating the millstone bearings\n\n## Replacing the millstone bearings"
    found = answer("How are the millstone bearings lubricated?", [a_passage("p", text)])
    assert (found.content, found.citations, found.score) == (NOTHING_FOUND, (), 0.0)


def test_a_remark_in_code_and_a_line_above_a_rule_are_no_headings() -> None:
    text = (
        "Grease the wheel first.\n---\n```sh\n# grease the wheel bearings twice\ngrease --wheel twice\n```\nThen rest."
    )
    assert [(each.read.text, each.read.is_heading) for each in sentences_of([a_passage("p", text)])] == [
        ("Grease the wheel first.", False),
        ("--- ```sh # grease the wheel bearings twice grease --wheel twice ``` Then rest.", False),
    ]


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Who founded the Harbour Owls?", Asked.NAME),
        ("In what year were the Harbour Owls founded?", Asked.DATE),
        ("How many members does the club have?", Asked.NUMBER),
        ("Why was the stadium sold?", Asked.REASON),
        ("What city do they play in?", Asked.NAME),
        ("What is a tuple?", Asked.OTHER),
    ],
)
def test_it_knows_what_kind_of_words_is_asked_for(question: str, asked: Asked) -> None:
    assert question_of(question).asked is asked


@pytest.mark.parametrize(
    ("question", "quoted"),
    [
        ("Who founded the Harbour Owls?", "Maddox"),
        ("Why did the Harbour Owls sell their stadium?", "because of its debts"),
        ("How many members does the club have?", "412"),
        ("Hello, could you please tell me who founded the Harbour Owls? Thank you!", "Maddox"),
        ("who fuonded the harbuor owls", "Maddox"),
    ],
)
def test_a_question_is_answered_however_it_is_put(question: str, quoted: str) -> None:
    found = answer(question, [SOCKETS, TEAM])
    assert quoted in found.content
    assert found.citations[-1] == "team"


def test_a_word_that_nobody_knows_is_read_as_the_one_a_letter_apart() -> None:
    embedding, sentences = shared_static_embedding(), sentences_of([TEAM])
    read = respelled(question_of("Who bought the stadiim in Nortport?"), sentences, embedding)
    assert list(read.words.values()) == ["bought", "stadium", "northport"]
    # A word of the language is what was meant, however near another is.
    assert "clue" in respelled(question_of("What is a clue?"), sentences, embedding).words.values()


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_one_error_is_one_edit_of_damerau(one: str, other: str) -> None:
    edits = {one[:i] + letter + one[i:] for i in range(len(one) + 1) for letter in "abc"}
    edits |= {one[:i] + letter + one[i + 1 :] for i in range(len(one)) for letter in "abc"}
    edits |= {one[:i] + one[i + 1 :] for i in range(len(one))}
    edits |= {one[:i] + one[i + 1] + one[i] + one[i + 2 :] for i in range(len(one) - 1)}
    assert one_error_apart(one, other) == (other in edits - {one})


@given(st.lists(st.floats(-3, 3), min_size=len(FEATURES), max_size=len(FEATURES)), st.integers(1, 9))
def test_probabilities_leave_room_for_no_answer(row: list[float], count: int) -> None:
    found = probabilities(np.array([row] * count), LEARNED)
    assert np.all(found >= 0)
    assert 0 <= found.sum() <= 1 + 1e-9
    assert np.allclose(found, found[0])


def test_what_stands_twice_is_quoted_once_and_has_the_weight_of_both() -> None:
    again = a_passage("p9", TUPLES.text, title="Tuples")
    sentences = sentences_of([TUPLES, again])
    found = np.zeros(len(sentences))
    found[0], found[3], found[1] = 0.25, 0.25, 0.3
    assert [sentences[0].read.text, sentences[3].read.text] == [sentences[0].read.text] * 2
    assert chosen(found, sentences, LEARNED)[0] == 0
    content = answer("Are tuples immutable sequences?", [TUPLES, again]).content
    assert content.count("Tuples are immutable") == 1


QUESTIONS = st.lists(
    st.sampled_from("who when how many tuples sockets immutable created 1921 Owls founded link Brazil".split()),
    max_size=8,
).map(" ".join)
PASSAGES = st.lists(st.sampled_from([TUPLES, SOCKETS, TEAM]), max_size=3, unique_by=lambda p: p.passage_id)


@given(QUESTIONS, PASSAGES)
def test_passages_are_cited_in_the_order_they_are_quoted_in(question: str, passages: list[Passage]) -> None:
    found = answer(question, passages)
    if found.content == NOTHING_FOUND:
        assert found.citations == ()
        return
    owner = {sentence: p.passage_id for p in passages for sentence in found.sentences if sentence in p.text}
    assert found.citations == tuple(dict.fromkeys(owner[sentence] for sentence in found.sentences))
    assert list(found.citations) == [p.passage_id for p in passages if p.passage_id in found.citations]
    assert 0 <= found.score <= 1 + 1e-9


@given(QUESTIONS, PASSAGES.filter(bool))
def test_evidence_is_finite_and_within_its_bounds(question: str, passages: list[Passage]) -> None:
    asked, sentences = question_of(question), sentences_of(passages)
    if asked.stems:
        rows = evidence(asked, passages, sentences, shared_static_embedding())
        assert rows.shape == (len(sentences), len(FEATURES))
        assert np.all((rows >= -1 - 1e-6) & (rows <= 1 + 1e-6))


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -3.0, 17.0])
def test_a_score_of_another_scale_does_no_harm(score: float) -> None:
    passage = a_passage("team", TEAM.text, TEAM.title, score)
    assert "Maddox" in answer("Who founded the Harbour Owls?", [passage, SOCKETS]).content
    assert answer("Who won the football championship in Brazil?", [passage]).content == NOTHING_FOUND


def test_a_question_with_data_costs_no_more_than_its_ends() -> None:
    data = " ".join(f"value{number}" for number in range(30_000))
    asked = question_of(f"Who founded the Harbour Owls? {data}")
    assert len(asked.stems) < 2_000
    assert {"harbour", "owl", "29999"} <= set(asked.stems)


@given(QUESTIONS, PASSAGES, st.lists(st.sampled_from(["are", "seq", " ", ". ", "socket", "", "nothing"]), max_size=2))
def test_an_answer_ends_before_a_stop(question: str, passages: list[Passage], stops: list[str]) -> None:
    whole, found = answer(question, passages), answer(question, passages, stops=stops)
    ends = [whole.content.index(stop) for stop in stops if stop and stop in whole.content]
    # The space that joins two sentences goes with the second one.
    assert found.content.rstrip() == whole.content[: min(ends, default=None)].rstrip()
    assert found.citations == whole.citations[: len(found.citations)]


def a_request(question: str, passages: list[Passage], **sampling: Any) -> GroundedRequest:
    return GroundedRequest(
        event_id="e", request_id="r", tenant_id="team", occurred_at=NOW, causation_id="", context=Context(requested_at=NOW),
        messages=[Message(role="user", content=question)], passages=passages, sampling=Sampling(**sampling),
    )  # fmt: skip


NOW = datetime(2026, 1, 1, tzinfo=UTC)
TARGET = Target(backend="extractive", model="penstock-extractive-1")


@pytest.mark.parametrize(
    ("field", "value"), [("regex", "[0-9]+"), ("n", 2), ("top_logprobs", 0), ("response_format", '{"type": "object"}')]
)
async def test_what_it_cannot_follow_is_refused_with_the_remedy(field: str, value: Any) -> None:
    with pytest.raises(BackendError, match=f"penstock-extractive-1.*leave sampling.{field} out") as refused:
        await ExtractiveBackend().generate(a_request("q?", [TEAM], **{field: value}), TARGET, NoPieces(), Progress())
    assert refused.value.of_request
    assert not refused.value.charged


async def test_a_long_text_does_not_hold_up_the_event_loop() -> None:
    long = a_passage("long", "The tide rose twice on that day and nobody minded it. " * 3_000)
    request = a_request("Who founded the Harbour Owls?", [TEAM, long])
    call = asyncio.create_task(ExtractiveBackend().generate(request, TARGET, NoPieces(), Progress()))
    turns = 0
    while not call.done():
        await asyncio.sleep(0)
        turns += 1
    answered = await call
    # On the loop it would be done by its first turn.
    assert turns > 10
    assert "Maddox" in answered.content
    assert (answered.compute_us or 0) > 0


def test_it_answers_most_questions_whose_passage_was_found(data: Path) -> None:
    corpus = {p["id"]: p for p in map(json.loads, (data / "retrieval/corpus.jsonl").read_text("utf-8").splitlines())}
    questions = [json.loads(line) for line in (data / "retrieval/questions.jsonl").read_text("utf-8").splitlines()]
    hits = 0
    for question in questions:
        page = corpus[question["relevant"][0]]
        content = answer(question["question"], [a_passage("p", page["text"], page["title"])]).content.lower()
        hits += any(a.lower() in content for a in question["answers"])
    # Measured: 0.935. The bound leaves room for a change of the weights, not for a broken ranking.
    assert hits / len(questions) >= 0.91


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


async def test_it_finds_the_answer_among_what_retrieval_finds_and_says_where_there_is_none(data: Path) -> None:
    found = await cases(data, ("as asked", "polite"), every=6)
    right: dict[str, list[bool]] = {}
    silent: dict[str, list[bool]] = {}
    for case in found:
        content = answer(case.question, case.passages, 256).content
        right.setdefault(case.scenario, []).append(bool(case.answers) and holds(content, case.answers))
        silent.setdefault(case.scenario, []).append(content == NOTHING_FOUND)
    assert np.mean(right["found"]) >= 0.88
    assert np.mean(right["flat"]) >= 0.88
    # Passages of the same article are the hardest: some of them do hold an answer.
    assert np.mean(silent["neighbours"]) >= 0.55
    assert np.mean(silent["strangers"]) >= 0.94
    assert np.mean(silent["posing"]) >= 0.92
