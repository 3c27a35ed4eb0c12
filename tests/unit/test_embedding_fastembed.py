"""Models of fastembed: its real classes, on a small model that is made here and read from a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from penstock.embedding import EmbedderError, EmbeddingSettings, embedder_from_settings
from penstock.embedding.protocol import Vectors
from penstock.embedding.settings import NextEmbeddingSettings, embedder_of

pytest.importorskip("fastembed", reason="fastembed is not installed: it is optional")

NAME = "sentence-transformers/all-MiniLM-L6-v2"
SHARED = Path(__file__).parents[2] / "shared"
DIMENSION, MOST = 384, 12
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *"the weir raises water a mill grinds flour of stones wheel turns".split())


@pytest.fixture(scope="module")
def table() -> Vectors:
    return np.random.default_rng(3).normal(size=(len(WORDS), DIMENSION)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, table: Vectors) -> Path:
    """A model whose hidden states are rows of ``table``, so that a text's vector is the mean of its words' rows."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = tmp_path_factory.mktemp("model")
    names = ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "rows",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in names],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", DIMENSION])],
        [numpy_helper.from_array(table, "table")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), made / "model.onnx")
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(made / "tokenizer.json"))
    (made / "tokenizer_config.json").write_text(json.dumps({"model_max_length": MOST, "pad_token": "[PAD]"}))
    (made / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    return made


def expected(table: Vectors, *words: str) -> Vectors:
    rows = [WORDS.index(word) for word in ("[CLS]", *words, "[SEP]")]
    mean = table[rows].mean(axis=0)
    unit: Vectors = mean / np.linalg.norm(mean)
    return unit


def settings(folder: Path | None) -> EmbeddingSettings:
    return EmbeddingSettings(embedding_provider="fastembed", embedding_model=NAME.upper(), embedding_folder=folder)


def test_texts_are_embedded_by_the_named_model_in_the_order_given(folder: Path, table: Vectors) -> None:
    embedder = embedder_from_settings(settings(folder))
    assert (embedder.name, embedder.dimension) == (NAME, DIMENSION)
    texts = [("the", "mill", "grinds", "flour"), ("weir",), (), ("a", "wheel", "of", "stones", "turns")]
    found = embedder.embed_counted([" ".join(words) for words in texts])
    assert found.tokens == (4, 1, 0, 5)
    np.testing.assert_allclose(found.vectors, [expected(table, *words) for words in texts], atol=1e-5)
    assert embedder.token_spans("the  weir") == [(0, 3), (5, 9)]
    assert embedder.embed([]).shape == (0, DIMENSION)
    assert embedder.embed(["lone \ud800 surrogate"]).shape == (1, DIMENSION)


def test_a_long_text_is_read_in_windows_and_none_of_it_is_cut_off(folder: Path, table: Vectors) -> None:
    embedder = embedder_from_settings(settings(folder))
    words = list(WORDS[4:]) + ["flour"] * 8  # twenty: two windows of ten, which is what fits beside two marks
    found = embedder.embed_counted([" ".join(words)])
    assert found.tokens == (20,)
    mean = expected(table, *words[:10]) + expected(table, *words[10:])
    np.testing.assert_allclose(found.vectors[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_an_unknown_model_is_told_with_what_is_near() -> None:
    with pytest.raises(EmbedderError, match="sentence-transformers/all-MiniLM-L6-v2 meant"):
        embedder_from_settings(EmbeddingSettings(embedding_provider="fastembed", embedding_model="all-MiniLM-L6-v2"))


def test_a_folder_without_the_model_is_named(tmp_path: Path) -> None:
    embedder = embedder_from_settings(settings(tmp_path))
    with pytest.raises(EmbedderError, match=f"(?s){tmp_path}.*EMBEDDING_FOLDER"):
        embedder.embed(["a mill"])


def test_a_missing_package_is_told_with_the_remedy() -> None:
    # A process of its own, in which Python cannot import it.
    program = (
        "import sys; sys.modules['fastembed'] = None\n"
        "from penstock.embedding.fastembed_models import FastembedEmbedder\n"
        f"FastembedEmbedder({NAME!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(SHARED)}, capture_output=True, text=True
    )
    assert "EmbedderError" in done.stderr
    assert "pip install fastembed" in done.stderr


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"embedding_provider": "endpoint"}, "set EMBEDDING_BASE_URL"),
        ({"embedding_provider": "packaged", "embedding_base_url": "http://localhost/v1"}, "unset one of them"),
        ({"embedding_provider": "packaged", "embedding_model": "other"}, "EMBEDDING_PROVIDER to fastembed"),
    ],
)
def test_fields_that_do_not_fit_each_other_are_told(fields: dict[str, str], cause: str) -> None:
    with pytest.raises(EmbedderError, match=cause):
        embedder_from_settings(EmbeddingSettings(**fields))  # type: ignore[arg-type]


def test_the_next_model_has_fields_of_its_own() -> None:
    assert NextEmbeddingSettings().embedding_next_choice() is None
    choice = NextEmbeddingSettings(
        embedding_next_model="text-embedding-3-small",
        embedding_next_base_url="https://host/v1",
        embedding_next_dimension=1536,
    ).embedding_next_choice()
    assert choice is not None
    embedder = embedder_of(choice)
    assert (embedder.name, embedder.dimension) == ("text-embedding-3-small", 1536)
    wrong = NextEmbeddingSettings(embedding_next_model="other").embedding_next_choice()
    assert wrong is not None
    with pytest.raises(EmbedderError, match="EMBEDDING_NEXT_BASE_URL"):
        embedder_of(wrong)
