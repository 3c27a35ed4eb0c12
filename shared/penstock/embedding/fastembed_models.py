"""Models of fastembed, by name, on onnxruntime: fetched from their hub once, or read from a folder.

The package `fastembed` is optional and imported only here. A model that wants another prefix for questions than for
passages is used without either, as the protocol knows one kind of text.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.embedding.protocol import Embedded, EmbedderError, Vectors, encodable
from penstock.embedding.windows import Windows, even_windows, unit_rows

__all__ = ["FastembedEmbedder"]

# Texts of one run, sorted by length so that little is padding: as many as keep its activations in tens of megabytes.
_BATCH = 16
# A window that has more tokens alone than as a part of its text is cut again, into windows this much smaller.
_SMALLER = 0.9


class FastembedEmbedder:
    """A text embedding model that fastembed knows, loaded at the first use.

    Args:
        model: its name there, e.g. ``BAAI/bge-small-en-v1.5``; case is ignored.
        folder: its files: ``tokenizer.json``, ``tokenizer_config.json``, ``config.json``, and the ONNX file under the name
            that its hub gives it. None: they are fetched from the hub at the first use, into FASTEMBED_CACHE_PATH.
        threads: threads of one call.

    Raises:
        EmbedderError: the package is missing, or it knows no such model.
    """

    def __init__(self, model: str, folder: Path | None = None, threads: int = 1) -> None:
        try:
            self._models: Any = importlib.import_module("fastembed").TextEmbedding
        except ImportError as error:
            raise EmbedderError(
                f"the package fastembed, which {model!r} is to be run by, is not installed ({error}): "
                "install it (pip install fastembed), or use the packaged model or an endpoint"
            ) from error
        known = {each["model"].lower(): each for each in self._models.list_supported_models()}
        if model.lower() not in known:
            near = [each["model"] for name, each in known.items() if model.lower().rsplit("/", 1)[-1] in name]
            hint = f"is {' or '.join(near[:3])} meant?" if near else f"it knows {len(known)}, such as {_example(known)}"
            raise EmbedderError(f"fastembed knows no text embedding model {model!r}: {hint}")
        described = known[model.lower()]
        self._name: str = described["model"]
        self._dimension: int = described["dim"]
        self._folder = folder
        self._threads = threads
        self._loading = threading.Lock()
        self._loaded_model: _Loaded | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of shape (len(texts), dimension); see :meth:`Embedder.embed`."""
        return self.embed_counted(texts).vectors

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        """Return the vectors, and the tokens of each text; the marks of beginning and end do not count."""
        if not texts:
            return Embedded(np.empty((0, self._dimension), np.float32), ())
        loaded = self._loaded()
        tokens: list[int] = []

        def cut(text: str) -> list[str]:
            parts, length = loaded.windows(text)
            tokens.append(length)
            return parts

        windows = Windows.of(texts, cut)
        order = sorted(range(len(windows.parts)), key=lambda n: len(windows.parts[n]))
        made = list(loaded.model.embed([windows.parts[n] for n in order], batch_size=_BATCH))
        vectors = np.empty((len(order), self._dimension), np.float32)
        vectors[order] = np.asarray(made, np.float32)
        return Embedded(windows.mean(unit_rows(vectors, self._name)), tuple(tokens))

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return the (start, end) character offsets of the tokens of ``text``."""
        return self._loaded().spans(encodable(text))

    def _loaded(self) -> _Loaded:
        if self._loaded_model is None:
            with self._loading:
                if self._loaded_model is None:
                    self._loaded_model = _Loaded(self._load())
        return self._loaded_model

    def _load(self) -> Any:
        folder = None if self._folder is None else str(self._folder)
        try:
            model = self._models(self._name, threads=self._threads, cuda=False, specific_model_path=folder)
        except Exception as error:  # what the hub's client, onnxruntime and the file system raise has no common base
            where = "its hub: is there a network?" if folder is None else f"{folder}:"
            raise EmbedderError(
                f"{self._name} cannot be loaded from {where} {error}; the folder of its files can be given as "
                "EMBEDDING_FOLDER (of a next model: EMBEDDING_NEXT_FOLDER)"
            ) from error
        return model


class _Loaded:
    """A model with a tokenizer of its own that cuts nothing off.

    Args:
        model: a ``fastembed.TextEmbedding``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        cutting = model.model.tokenizer
        tokenizer = type(cutting).from_str(cutting.to_str())
        self._most = int(cutting.truncation["max_length"]) - tokenizer.num_special_tokens_to_add(False)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def spans(self, text: str) -> list[tuple[int, int]]:
        offsets: list[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return offsets

    def windows(self, text: str) -> tuple[list[str], int]:
        """Return ``text`` in parts that the model reads whole, and its tokens."""
        spans = self.spans(text)
        size = float(self._most)
        while True:
            if len(spans) <= size:
                return [text], len(spans)
            bounds = even_windows(len(spans), max(1, int(size)))
            parts = [text[spans[first][0] : spans[last - 1][1]] for first, last in bounds]
            if int(size) <= 1 or all(len(self.spans(part)) <= self._most for part in parts):
                return parts, len(spans)
            size *= _SMALLER


def _example(known: dict[str, Any]) -> str:
    return "BAAI/bge-small-en-v1.5" if "baai/bge-small-en-v1.5" in known else next(iter(known))
