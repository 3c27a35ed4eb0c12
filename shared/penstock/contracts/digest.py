"""The digest by which a verdict says which text may be released."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from penstock.contracts.records import Alternative, LlmResult, ResultChunk, TokenLogprob

__all__ = ["extended_digest", "released_digest", "released_texts"]

# The largest prime of 128 bits: remainders of 32 hex digits.
_PRIME = 2**128 - 159


def released_texts(released: LlmResult | ResultChunk | Alternative) -> list[str]:
    """Return the texts of a released event that a verdict stands for: the answer, what it quotes with the titles, its
    alternatives, every token that is told with its probability, and the tools that are called.
    """
    texts = [released.content]
    if isinstance(released, LlmResult):
        texts += [text for passage in released.citations for text in (passage.text, passage.title)]
        texts += [text for alternative in released.alternatives for text in released_texts(alternative)]
    if isinstance(released, ResultChunk):
        return texts
    calls = [text for call in released.tool_calls for text in (call.id, call.name, call.arguments)]
    return [*texts, *_tokens(released.logprobs), *calls]


def _tokens(logprobs: Iterable[TokenLogprob]) -> list[str]:
    return [text for each in logprobs for text in (each.token, *sorted(each.top))]


def released_digest(request_id: str, texts: Iterable[str]) -> str:
    """Return the first 32 hex digits of SHA-256 over ``request_id`` and ``texts``, each in UTF-8 behind its length in
    bytes (8 bytes, big-endian), so that no two lists of texts read alike.

    The verdict carries it and the released event is held against it, so that a text other than the judged one is
    noticed. The request's identity in front keeps equal answers of two requests apart.
    """
    digest = hashlib.sha256()
    for part in (request_id, *texts):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()[:32]


def extended_digest(digest: str, text: str) -> str:
    """Return the digest of a text that is known by ``digest``, empty for the empty one, with ``text`` added to it.

    A Karp-Rabin fingerprint (1987) to the base 2^32: that of any prefix can be continued, wherever the text was cut. It
    tells whether an answer that is generated again has the same words; it guards against nobody.
    """
    value = int(digest or "1", 16) << 32 * len(text)
    return f"{(value + int.from_bytes(text.encode('utf-32-be', 'surrogatepass'))) % _PRIME:032x}"
