"""Words as BM25 sees them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.retrieval.sparse import MAX_TERM_WEIGHT, chunk_vector, query_vector, terms


def test_inflections_case_and_accents_meet() -> None:
    assert terms("Connections")[0] == terms("connection")[0]
    assert terms("indexing")[0] == terms("indexed")[0] == terms("INDEX")[0]
    assert terms("queries")[0] == terms("query")[0]
    assert terms("Café")[0] == terms("cafe")[0]
    assert terms("class") == ["class"]


def test_stop_words_go_and_identifiers_are_found_by_their_parts() -> None:
    assert terms("what is the of and") == []
    assert set(terms("parse_header")) >= {"parse_header", "pars", "header"}


def test_scripts_without_spaces_are_indexed_in_pairs() -> None:
    assert terms("東京都") == ["東京", "京都"]
    assert set(terms("京都")) <= set(terms("東京都"))
    assert terms("Python入門") == ["入門", "python"]


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
