"""The distilled table of word-piece vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.embedding.static import StaticEmbedding, shared_static_embedding, words
from penstock.text.normalise import canonical

MODEL = shared_static_embedding()


def test_a_text_is_nearer_to_its_paraphrase_than_to_another_subject() -> None:
    anchor = MODEL.embed("how do i cook rice for dinner")
    near = MODEL.embed("what is the recipe for boiled noodles and vegetables")
    far = MODEL.embed("the bank refused to raise the limit of my credit card")
    assert anchor @ near > anchor @ far + 0.2


def test_words_are_cut_into_the_longest_pieces() -> None:
    table = np.eye(4, dtype=np.float32)
    model = StaticEmbedding(["play", "##ing", "##i", "pla"], table)
    assert model.word_rows("playing") == (0, 1)
    assert model.word_rows("playix") == ()
    np.testing.assert_allclose(model.embed("playing play"), np.array([2, 1, 0, 0]) / np.sqrt(5), rtol=1e-6)


def test_a_table_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="2 word pieces do not fit a table of 3 rows"):
        StaticEmbedding(["a", "b"], np.zeros((3, 2), np.float32))


@given(st.text(max_size=300))
@settings(deadline=None)
def test_vectors_have_unit_length_or_are_zero(text: str) -> None:
    folded = canonical(text)
    vector = MODEL.embed(folded)
    known = bool(MODEL.rows(words(folded)))
    assert vector.shape == (MODEL.dimension,)
    assert float(vector @ vector) == pytest.approx(1.0 if known else 0.0, abs=1e-3)
