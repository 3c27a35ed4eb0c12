"""Any endpoint that answers POST <base>/embeddings as OpenAI's API does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np

from penstock.embedding.protocol import (
    Embedded,
    EmbedderError,
    EmbedderUnavailable,
    Vectors,
)
from penstock.embedding.windows import Windows, even_windows, unit_rows
from penstock.telemetry import metrics

__all__ = ["EndpointEmbedder"]

# Pieces of at most four characters: OpenAI's own rule of thumb for the length of a token in English prose. The
# endpoint's tokenizer is unknown; other scripts have shorter tokens, hence single characters beyond Latin.
_PIECE = re.compile(r"[0-9A-Za-z]{1,4}|[^\s0-9A-Za-z]")


class EndpointEmbedder:
    """An embedder behind HTTP.

    Args:
        base_url: address with its /v1, e.g. ``https://host/v1``.
        model: model as the endpoint names it.
        dimension: length of its vectors; an answer of another length is an error.
        api_key: bearer token, where the endpoint asks for one.
        timeout_s: longest wait for one call.
        max_tokens: longest text, in estimated tokens, sent at once; longer ones are windowed.
        batch: most texts of one call.
        transport: for tests; None is the network.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        dimension: int,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        max_tokens: int = 512,
        batch: int = 128,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._url = f"{base_url.rstrip('/')}/embeddings"
        self._client = httpx.Client(headers=headers, timeout=timeout_s, transport=transport)
        self._model = model
        self._dimension = dimension
        self._max_tokens = max_tokens
        self._batch = batch

    @property
    def name(self) -> str:
        return self._model

    @property
    def dimension(self) -> int:
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of shape (len(texts), dimension); see :meth:`Embedder.embed`."""
        return self.embed_counted(texts).vectors

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        """Return the vectors, and the tokens of each text.

        The endpoint counts the tokens of a call; its texts share them by their length, and the sum is exact. Where it
        says nothing, a text has as many as it has bytes in UTF-8: no byte-level tokenizer makes more.
        """
        windows = Windows.of(texts, self._windows)
        vectors = np.empty((len(windows.parts), self._dimension), np.float32)
        tokens: list[int] = []
        for start in range(0, len(windows.parts), self._batch):
            part = windows.parts[start : start + self._batch]
            vectors[start : start + len(part)], used = self._call(part)
            tokens += used
        return Embedded(windows.mean(vectors), windows.sums(tokens))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """Return the (start, end) character offsets of an estimate of the tokens of ``text``."""
        return [match.span() for match in _PIECE.finditer(text)]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _windows(self, text: str) -> list[str]:
        spans = self.token_spans(text)
        if len(spans) <= self._max_tokens:
            return [text or " "]  # endpoints refuse an empty string
        bounds = even_windows(len(spans), self._max_tokens)
        return [text[spans[first][0] : spans[last - 1][1]] for first, last in bounds]

    def _call(self, texts: Sequence[str]) -> tuple[Vectors, list[int]]:
        """Return the vectors of ``texts``, and the tokens of each."""
        try:
            response = self._client.post(self._url, json={"model": self._model, "input": list(texts)})
        except httpx.TransportError as error:
            raise EmbedderUnavailable(f"{self._url} does not answer: {error or type(error).__name__}") from error
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise EmbedderUnavailable(f"{self._url} answers {response.status_code}")
        if response.status_code != 200:
            raise EmbedderError(
                f"{self._url} answers {response.status_code}: {response.text[:200]}; check EMBEDDING_MODEL and its key"
            )
        try:
            answer = response.json()
            data = sorted(answer["data"], key=lambda item: item["index"])
            vectors = np.array([item["embedding"] for item in data], np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise EmbedderError(f"{self._url} gives no OpenAI-compatible answer: {error!r}") from error
        if vectors.shape != (len(texts), self._dimension):
            raise EmbedderError(
                f"{self._url} gives an array of shape {vectors.shape}, expected {(len(texts), self._dimension)}: "
                "set EMBEDDING_DIMENSION to what the model gives"
            )
        return unit_rows(vectors, self._url), _tokens(texts, answer.get("usage"), self._model)


def _tokens(texts: Sequence[str], usage: Any, model: str) -> list[int]:
    """Return the tokens of each text of one call, from what the endpoint says of all of them."""
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    total = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if not isinstance(total, int) or total <= 0:
        metrics.ESTIMATED_USAGE.labels("embedding", model).inc()
        return sizes
    # Each has what lies between two points of the whole: what is rounded away here is counted there.
    whole = max(1, sum(sizes))
    points = [0, *(total * size // whole for size in itertools.accumulate(sizes))]
    points[-1] = total
    return [last - first for first, last in itertools.pairwise(points)]
