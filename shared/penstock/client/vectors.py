"""The vectors of texts, as a caller of the client gets them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.contracts.records import LlmResult, Status

__all__ = ["Embeddings", "NotEmbedded", "embeddings_of"]


class NotEmbedded(Exception):
    """The texts have no vectors: the request was refused, blocked or failed; the message says why.

    Attributes:
        result: the request's.
    """

    def __init__(self, result: LlmResult) -> None:
        super().__init__(f"{result.status} ({result.code}): {result.reason}")
        self.result = result


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of texts.

    Attributes:
        request_id: of the request that they were asked with.
        model: that made them: vectors of different models must never be compared.
        vectors: one for each text, in their order, of unit length.
        input_tokens: that were embedded, and are paid for.
    """

    request_id: str
    model: str
    vectors: Sequence[tuple[float, ...]]
    input_tokens: int


def embeddings_of(result: LlmResult) -> Embeddings:
    """Return the vectors of the result of a request for these.

    Raises:
        NotEmbedded: it has none.
    """
    if result.status != Status.COMPLETED:
        raise NotEmbedded(result)
    vectors = [struct.unpack(f"<{len(vector) // 4}f", vector) for vector in result.embeddings]
    return Embeddings(result.request_id, result.model or "", vectors, result.usage.input_tokens)
