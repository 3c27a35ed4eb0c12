"""Chunks are bounded, cover the document, respect its structure and know where they were cut."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieval.chunking import Chunk, ChunkLimits, chunk_document
from services.retrieval.cleaning import clean_document

LIMITS = ChunkLimits(max_tokens=20, overlap_tokens=5, min_tokens=4)


def words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\S+", text)]


def chunks(text: str, content_type: str = "text/markdown", limits: ChunkLimits = LIMITS) -> list[Chunk]:
    return chunk_document(clean_document(text, content_type), words, limits)


def test_a_short_document_is_one_chunk() -> None:
    (chunk,) = chunks("Just one sentence.")
    assert (chunk.text, chunk.start, chunk.end, chunk.tokens, chunk.ordinal) == ("Just one sentence.", 0, 18, 3, 0)


def test_a_document_without_text_has_no_chunks() -> None:
    assert chunks("  \n\n ") == []


def test_cuts_fall_between_sentences_and_chunks_overlap_by_whole_ones() -> None:
    sentences = [f"Sentence {n} has five words." for n in range(8)]
    cut = chunks(" ".join(sentences))
    assert cut[0].text == " ".join(sentences[:4])
    assert cut[1].text == " ".join(sentences[3:7])  # the last sentence of the first, repeated
    assert all(chunk.text.endswith(".") for chunk in cut)


def test_a_section_starts_a_chunk_of_its_own() -> None:
    cut = chunks("# A\n\nAlpha one two three.\n\n# B\n\nBeta one two three.")
    assert [chunk.heading for chunk in cut] == [("A",), ("B",)]
    assert cut[1].text.startswith("# B")
    assert "Alpha" not in cut[1].text


def test_short_sections_are_joined_under_what_they_share() -> None:
    cut = chunks("# Top\n\n## A\n\nOne.\n\n## B\n\nTwo.", limits=ChunkLimits(20, 0, 15))
    assert len(cut) == 1
    assert cut[0].heading == ("Top",)


def test_code_is_cut_between_lines() -> None:
    code = "\n".join(f"value_{n} = compute({n}) + offset" for n in range(12))
    cut = chunks(f"```\n{code}\n```", limits=ChunkLimits(20, 0, 0))
    lines = [line for chunk in cut for line in chunk.text.split("\n")]
    assert lines == ["```", *code.split("\n"), "```"]


def test_one_endless_sentence_is_cut_at_the_limit() -> None:
    cut = chunks(" ".join(f"w{n}" for n in range(50)))
    assert [chunk.tokens for chunk in cut] == [20, 20, 10]


def test_cjk_sentences_end_without_a_space() -> None:
    text = "これは文です。次の文です。最後の文です。"
    spans = chunk_document(
        clean_document(text, "text/plain"), lambda t: [(n, n + 1) for n in range(len(t))], ChunkLimits(14, 0, 0)
    )
    assert [chunk.text for chunk in spans] == ["これは文です。次の文です。", "最後の文です。"]


def test_a_document_of_many_slices_is_counted_whole() -> None:
    text = "\n\n".join(f"Paragraph number {n} of the long document." for n in range(8000))  # over 300,000 characters
    cut = chunks(text, limits=ChunkLimits(200, 0, 0))
    assert sum(chunk.tokens for chunk in cut) == len(words(text))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["# A\n", "## B\n", "word ", "End. ", "\n\n", "```\n", "- item\n", "日本語。", "x" * 30]),
        max_size=80,
    ),
    st.sampled_from(["text/plain", "text/markdown", "text/html"]),
    st.integers(2, 30),
    st.integers(0, 10),
)
def test_chunks_are_bounded_slices_that_cover_every_token(parts: list[str], kind: str, most: int, overlap: int) -> None:
    document = clean_document("".join(parts), kind)
    limits = ChunkLimits(most, min(overlap, most - 1), most // 3)
    cut = chunk_document(document, words, limits)
    assert [chunk.ordinal for chunk in cut] == list(range(len(cut)))
    assert all(chunk.text == document.text[chunk.start : chunk.end] for chunk in cut)
    assert all(chunk.tokens <= most for chunk in cut)
    covered = {n for chunk in cut for n in range(chunk.start, chunk.end)}
    assert all(n in covered for start, end in words(document.text) for n in range(start, end))
    assert [chunk.end for chunk in cut] == sorted({chunk.end for chunk in cut}), "a chunk lies within another"
    assert cut == chunk_document(document, words, limits)


def test_limits_that_cannot_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="below the maximum"):
        ChunkLimits(max_tokens=10, overlap_tokens=10)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("هل تدور العجلة؟ نعم تدور العجلة.", ["هل تدور العجلة؟", "نعم تدور العجلة."]),
        ("水車は回る。「小麦を挽く。」門は開く！", ["水車は回る。", "「小麦を挽く。」", "門は開く！"]),
        ("चक्की घूमती है। द्वार खुलता है।", ["चक्की घूमती है।", "द्वार खुलता है।"]),
        ("The gate opens at 3.5 p.m. daily. It closes.", ["The gate opens at 3.5 p.m. daily.", "It closes."]),
        ("Il dit « oui. » Puis il part.", ["Il dit « oui. »", "Puis il part."]),
    ],
)
def test_sentences_end_as_their_script_has_it(text: str, sentences: list[str]) -> None:
    def letters(text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S", text)]

    size = max(len("".join(sentence.split())) for sentence in sentences)
    cut = chunk_document(clean_document(text, "text/plain"), letters, ChunkLimits(size, 0, 0))
    assert [chunk.text for chunk in cut] == sentences


def test_a_word_that_is_a_page_long_is_cut_and_no_letter_loses_its_marks() -> None:
    page = "โรงสีตั้งอยู่ริมแม่น้ำและโม่ข้าวสาลีทุกเช้า" * 20
    cut = chunks(page, "text/plain", ChunkLimits(20, 0, 0))
    assert "".join(chunk.text for chunk in cut) == page
    # A token for 8 bytes, as admission takes one: each of these letters has 3.
    assert all(chunk.tokens <= 20 and len(chunk.text.encode()) <= 20 * 8 + 12 for chunk in cut)
    assert not any(unicodedata.category(chunk.text[0]).startswith("M") for chunk in cut)


def test_a_long_sentence_is_cut_between_words_where_one_ends_near() -> None:
    def letters(text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S", text)]

    text = " ".join(["abcdefg"] * 12)
    cut = chunk_document(clean_document(text, "text/plain"), letters, ChunkLimits(16, 0, 0))
    assert {chunk.text.strip() for chunk in cut} == {"abcdefg abcdefg"}


@given(st.text(alphabet="aé漢字かな한คำहिन्दी\u0301\u200d .。\n", max_size=300), st.integers(2, 12))
@settings(max_examples=50)
def test_text_of_any_script_is_covered_in_bounds(text: str, most: int) -> None:
    document = clean_document(text, "text/plain")
    spans = re.compile(r"[a-zé]+|[^\sa-zé]")

    def tokens(text: str) -> list[tuple[int, int]]:
        return [match.span() for match in spans.finditer(text)]

    cut = chunk_document(document, tokens, ChunkLimits(most, 0, 0))
    assert "".join("".join(chunk.text.split()) for chunk in cut) == "".join(document.text.split())
    assert all(chunk.tokens <= most for chunk in cut)


def test_a_chunk_knows_the_page_it_begins_on() -> None:
    pages = [f"Page {n}. " + "One two three four five. " * 3 + "End." for n in range(1, 4)]
    document = clean_document("\f".join([*pages[:2], "", pages[2]]), "text/plain; format=paged")
    cut = chunk_document(document, words, ChunkLimits(18, 0, 0))
    assert [(chunk.page, chunk.text[:7]) for chunk in cut] == [(1, "Page 1."), (2, "Page 2."), (4, "Page 3.")]
    assert {chunk.page for chunk in chunks("No pages.")} == {None}
