"""The prompt of a generating model: every character of the evidence, and none of it twice."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from penstock.contracts.records import Context, GroundedRequest, Message, Passage

from services.inference.prompt import prompt_of, text_bytes

NOW = datetime(2026, 1, 5, tzinfo=UTC)
PAGE = "".join(f"Sentence {number} of the page says {number * 7}. " for number in range(40))


def cut(start: int, end: int, document: str = PAGE, name: str = "page", title: str = "Page") -> Passage:
    text = document[start:end]
    return Passage(
        passage_id=f"{name}-{start}-{end}", document_id=name, title=title, start=start, end=start + len(text), text=text,
        score=0.5,
    )  # fmt: skip


def prompt(*passages: Passage, question: str = "Why?") -> str:
    return prompt_of(a_request(*passages, question=question)).messages[-1].content


def a_request(*passages: Passage, question: str = "Why?") -> GroundedRequest:
    return GroundedRequest(
        event_id="e", request_id="r", tenant_id="t", occurred_at=NOW, causation_id="c",
        context=Context(requested_at=NOW), passages=list(passages),
        messages=[Message(role="system", content="Be brief."), Message(role="user", content=question)],
    )  # fmt: skip


def test_passages_that_overlap_are_one_stretch_under_both_numbers() -> None:
    shown = prompt(cut(100, 400), cut(900, 1000), cut(300, 600))
    assert f"\n\n[1] [3] Page\n{PAGE[100:600]}\n\n[2] Page\n{PAGE[900:1000]}\n\nQuestion: Why?" in shown
    assert shown.count(PAGE[300:400]) == 1


def test_numbers_stay_those_of_the_passages_wherever_they_stand_in_the_text() -> None:
    shown = prompt(cut(300, 600, title="Page > B"), cut(100, 400, title="Page > A"), cut(350, 380, title="Page > A"))
    assert f"\n\n[2] [3] Page > A\n[1] Page > B\n{PAGE[100:600]}\n\n" in shown


def test_passages_that_touch_are_joined_within_a_section_only() -> None:
    assert f"[1] [2] Page\n{PAGE[0:200]}\n\nQ" in prompt(cut(0, 100), cut(100, 200))
    apart = prompt(cut(0, 100), cut(100, 200, title="Page > B"))
    assert f"[1] Page\n{PAGE[0:100]}\n\n[2] Page > B\n{PAGE[100:200]}\n\n" in apart


def test_passages_of_other_documents_or_of_a_version_with_other_words_stay_apart() -> None:
    changed = cut(300, 600, document=PAGE.replace("says", "told"))
    for other in (cut(300, 600, name="another"), changed, cut(500, 600)):
        shown = prompt_of(a_request(cut(100, 400), other))
        assert f"[1] Page\n{PAGE[100:400]}\n\n[2] Page\n{other.text}\n\n" in shown.messages[-1].content
        assert shown.repeated == 0


def test_offsets_that_are_not_those_of_the_text_join_nothing() -> None:
    unknown = Passage(passage_id="p", document_id="page", title="Page", text=PAGE[300:600], score=0.1)
    assert prompt_of(a_request(unknown, cut(0, 400))).repeated == 0


def test_what_was_left_out_is_counted_and_its_tokens_estimated_by_those_of_the_rest() -> None:
    whole = prompt_of(a_request(cut(100, 400), cut(300, 600)))
    plain = prompt(cut(100, 400)).replace("\n\nQuestion", f"\n\n[2] Page\n{PAGE[300:600]}\n\nQuestion")
    assert whole.repeated == len(plain) - len(whole.messages[-1].content) >= 100
    assert whole.size == sum(len(message.content) for message in whole.messages)
    assert whole.reduced_tokens(whole.size) == whole.repeated
    assert prompt_of(a_request()).reduced_tokens(50) == 0


WORDS = st.text("ab c.\n漢é", max_size=60)


@st.composite
def evidence(draw: st.DrawFn) -> list[Passage]:
    """Passages of up to three documents, some of which changed between the cutting of one passage and the next."""
    texts = draw(st.lists(WORDS, min_size=1, max_size=3))
    passages = []
    for _ in range(draw(st.integers(0, 6))):
        index = draw(st.integers(0, len(texts) - 1))
        text = draw(WORDS) if draw(st.integers(0, 9)) == 0 else texts[index]
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, len(text)))
        passages.append(cut(start, end, text, f"d{index}", draw(st.sampled_from(["", "T", "T > U"]))))
    return passages


@given(evidence(), WORDS)
def test_no_character_of_the_evidence_is_lost_and_every_number_leads_to_its_passage(
    passages: list[Passage], question: str
) -> None:
    made = prompt_of(a_request(*passages, question=question))
    shown = made.messages[-1].content
    assert made.messages[0].content == "Be brief."
    assert made.repeated >= 0
    assert made.size == sum(text_bytes(message.content) for message in made.messages)
    if not passages:
        assert shown == question
        return
    assert shown.endswith(f"Question: {question}")
    for number, passage in enumerate(passages, start=1):
        # Its number stands once, in a header whose text holds the passage as a whole.
        heads = list(re.finditer(rf"^(?:\[\d+\] )*\[{number}\](?: \[\d+\])* {re.escape(passage.title)}$", shown, re.M))
        assert len(heads) == 1
        assert passage.text in shown[heads[0].end() :]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(20, 200)), min_size=1, max_size=6))
def test_no_character_of_one_document_is_sent_twice(spans: list[tuple[int, int]]) -> None:
    # Characters that all differ: where each stands in the prompt says how often it was sent.
    document = "".join(chr(0x4E00 + number) for number in range(600))
    passages = [cut(start, start + length, document) for start, length in spans]
    shown = prompt(*passages)
    wanted = {character for passage in passages for character in passage.text}
    sent = [character for character in shown if character >= "\u4e00"]
    assert sorted(sent) == sorted(wanted)
