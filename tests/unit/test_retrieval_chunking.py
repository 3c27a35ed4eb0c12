"""Chunks are bounded, cover the document, respect its structure and know where they were cut."""

from __future__ import annotations

import re

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
