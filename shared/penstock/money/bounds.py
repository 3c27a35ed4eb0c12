"""What bounds a cost before it is made, where two services have to agree on it."""

from __future__ import annotations

__all__ = ["BYTES_A_TOKEN"]

BYTES_A_TOKEN = 8
"""Most bytes of passages, titles included, for each token of a route's ``token_budget``.

The budget counts the embedder's word pieces: 4 to 5 bytes of English each, but one piece may be a word of any length that
the embedder does not know, and the model's tokenizer may make a token of each of its bytes. So retrieval bounds the bytes
too, and admission reserves for as many.
"""
