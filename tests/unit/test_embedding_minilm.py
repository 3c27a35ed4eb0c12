"""The packaged model equals sentence-transformers' vectors, windows long texts and stays within its bounds."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.embedding import EmbedderError, EmbeddingSettings, embedder_from_settings
from penstock.embedding.bert_graph import BertConfig
from penstock.embedding.minilm import MiniLmEmbedder

# Recorded by tests/bench/embedding_reference.py.
REFERENCE = json.loads((Path(__file__).parent / "data" / "minilm_reference.json").read_text(encoding="utf-8"))
TEXTS: list[str] = REFERENCE["texts"]
VECTORS = np.array(
    [np.frombuffer(base64.b64decode(row), "<f2") for row in REFERENCE["vectors_float16_base64"]], np.float32
)


@pytest.fixture(scope="module")
def embedder() -> MiniLmEmbedder:
    return MiniLmEmbedder(threads=1)


def test_equals_sentence_transformers_in_one_batch(embedder: MiniLmEmbedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    cosines = np.sum(vectors * VECTORS, axis=1) / np.linalg.norm(VECTORS, axis=1)
    worst = int(np.argmin(cosines))
    assert cosines[worst] >= 0.99999, f"{TEXTS[worst][:60]!r}: {cosines[worst]}"


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_a_text_alone_gives_the_vector_it_has_in_a_batch(embedder: MiniLmEmbedder, index: int) -> None:
    alone = embedder.embed([TEXTS[index]])[0]
    assert float(alone @ VECTORS[index]) / float(np.linalg.norm(VECTORS[index])) >= 0.99999


def test_nothing_of_a_long_text_is_cut(embedder: MiniLmEmbedder) -> None:
    assert REFERENCE["windows_of_last"] > 1
    filler = "The weather report for the northern valleys mentions light rain and mild winds. " * 60
    without, with_tail = embedder.embed([filler, filler + "Quantum chromodynamics binds quarks with gluons. " * 20])
    assert float(without @ with_tail) < 0.99


def test_vectors_have_unit_length_and_texts_keep_their_order(embedder: MiniLmEmbedder) -> None:
    texts = [f"{'word ' * (n % 37)}number {n}" for n in range(600)]  # more than one block
    vectors = embedder.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    some = [0, 36, 511, 512, 599]
    np.testing.assert_allclose(embedder.embed([texts[n] for n in some]), vectors[some], atol=1e-5)


def test_no_texts_give_an_empty_array(embedder: MiniLmEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=60))  # lone surrogates included
def test_any_string_embeds_and_its_spans_lie_within_it(embedder: MiniLmEmbedder, text: str) -> None:
    vector = embedder.embed([text])[0]
    assert np.isfinite(vector).all()
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-4
    spans = embedder.token_spans(text)
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert spans == sorted(spans)


def test_token_spans_cut_the_words_out_of_the_text(embedder: MiniLmEmbedder) -> None:
    text = "Hello wörld, naïve 😀"
    assert [text[start:end] for start, end in embedder.token_spans(text)] == ["Hello", "wörld", ",", "naïve", "😀"]


def test_several_threads_load_it_once_and_agree() -> None:
    embedder = MiniLmEmbedder(threads=1)
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(embedder.embed(["shared"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, results[0])


def test_an_unknown_model_without_an_endpoint_names_the_remedy() -> None:
    with pytest.raises(EmbedderError, match="EMBEDDING_BASE_URL"):
        embedder_from_settings(EmbeddingSettings(embedding_model="bge-large"))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    with pytest.raises(EmbedderError, match="roberta"):
        BertConfig.load(tmp_path / "config.json")


def test_the_tokens_of_a_text_are_its_word_pieces(embedder: MiniLmEmbedder) -> None:
    texts = ["Hello wörld", "", "word " * 700, "straße 한국어 你好"]
    found = embedder.embed_counted(texts)
    assert list(found.tokens) == [len(embedder.token_spans(text)) for text in texts]
    assert found.tokens[:3] == (2, 0, 700)
    np.testing.assert_allclose(found.vectors, embedder.embed(texts), atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60))
def test_a_text_has_no_more_tokens_than_bytes(embedder: MiniLmEmbedder, text: str) -> None:
    assert embedder.embed_counted([text]).tokens[0] <= len(text.encode("utf-8", "surrogatepass"))
