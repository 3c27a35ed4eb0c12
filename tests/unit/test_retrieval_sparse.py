"""Words as BM25 sees them."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieval.sparse import MAX_TERM_WEIGHT, chunk_vector, query_vector, terms


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Connections", "connected"), ("indexing", "INDEX"), ("queries", "query"), ("running", "runs"),
        ("Café", "cafe"), ("naïveté", "naivete"), ("e\u0301tude", "étude"), ("STRASSE", "Straße"), ("\uff21\uff22", "ab"),
        ("книгами", "книга"), ("किताबें", "किताब"), ("المدرسة", "مدرسة"), ("βιβλία", "ΒΙΒΛΊΑ"),
    ],
)  # fmt: skip
def test_forms_of_a_word_case_accents_and_widths_meet(one: str, other: str) -> None:
    assert terms(one) == terms(other) != []


def test_a_word_keeps_its_vowel_signs_and_words_that_differ_stay_apart() -> None:
    assert len(terms("किताबें पढ़ना")) == 2
    assert terms("class") == ["class"]


def test_stop_words_go_and_identifiers_are_found_by_their_parts() -> None:
    assert terms("what is the of and") == []
    assert terms("parse_header") == ["parse_header", *terms("parse header")]


def test_scripts_without_spaces_are_indexed_in_pairs() -> None:
    assert terms("東京都") == ["東京", "京都"]
    assert set(terms("京都")) <= set(terms("東京都"))
    assert terms("Python入門") == ["入門", "python"]
    assert set(terms("한국어")) <= set(terms("한국어의")), "a particle hides no word"


def test_stems_are_the_same_on_every_thread() -> None:
    words = [
        f"{stem}{ending}" for stem in ("connect", "index", "книг", "relat") for ending in ("ing", "ами", "ional", "")
    ]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(terms, [" ".join(words)] * 32))
    assert found == [terms(" ".join(words))] * 32


def test_a_repeated_word_weighs_more_but_never_above_the_bound() -> None:
    once, often = chunk_vector("weir mill"), chunk_vector("weir " * 50 + "mill")
    index = query_vector("weir").indices[0]
    weight = {vector: dict(zip(vector.indices, vector.values, strict=True))[index] for vector in (once, often)}
    assert weight[once] < weight[often] < MAX_TERM_WEIGHT


def test_a_word_in_a_long_chunk_weighs_less() -> None:
    index = query_vector("weir").indices[0]
    short, long = chunk_vector("weir gate"), chunk_vector("weir " + " ".join(f"w{n}" for n in range(300)))
    assert (
        dict(zip(long.indices, long.values, strict=True))[index]
        < dict(zip(short.indices, short.values, strict=True))[index]
    )


@given(st.text(alphabet=st.characters()))
def test_any_text_gives_ascending_indices_and_positive_weights(text: str) -> None:
    vector = chunk_vector(text)
    assert list(vector.indices) == sorted(set(vector.indices))
    assert all(0 <= index < 2**32 for index in vector.indices)
    assert all(0 < value < MAX_TERM_WEIGHT for value in vector.values)
    assert query_vector(text).indices == vector.indices


def test_words_that_are_made_up_to_be_long_are_not_kept() -> None:
    tracemalloc.start()
    for n in range(100):
        query_vector(f"made{n}{'y' * 8_000}")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 200_000
