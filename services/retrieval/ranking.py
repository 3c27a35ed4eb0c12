"""Which of the chunks that were found a request gets, and in which order. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from penstock.config.kinds import Retrieval
from penstock.contracts.records import Passage
from penstock.money.bounds import BYTES_A_TOKEN

from services.retrieval.core import ChunkRecord, Hit
from services.retrieval.diversity import MarginalRelevance
from services.retrieval.sparse import terms

__all__ = ["Ranked", "passage_of", "ranked", "select", "sentences"]

# Share of the embedding's similarity in the score; the rest is the words'. See ranked.
_DENSE_SHARE = 0.45
# Shares of the words' part: BM25, the best sentence, the pairs.
_BM25, _SENTENCE, _PAIRS = 0.6, 0.25, 0.15
# Candidates that are read sentence by sentence, best first: about 0.1 ms each.
_READ = 10

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|[。！？]\s*|\n{2,}")


@dataclass(frozen=True, slots=True)
class Ranked:
    """A chunk that was found, and its score, 0 to 1."""

    hit: Hit
    score: float


def ranked(question: str, hits: Sequence[Hit], rules: Retrieval) -> list[Ranked]:
    """Return ``hits`` with their scores, best first. A score is the weighted mean of four figures from 0 to 1:

    - the cosine of the embeddings;
    - the share of the question's BM25 weight that the chunk reaches;
    - the greatest share of the question's words that one sentence holds;
    - the share of the question's pairs of neighbouring words that the chunk has as neighbours.

    The last two tell a chunk that says what is asked from one that only speaks of it (as term proximity does: Metzler and
    Croft 2005, "A Markov Random Field Model for Term Dependencies"). They are read from the text of the best by the first
    two, and count as 0 of the others. A convex combination of figures with known bounds orders better than ranks alone
    (Bruch, Gai and Ingber 2023, "An Analysis of Fusion Functions for Hybrid Retrieval") and, unlike a rank, can be held
    against a floor.
    """
    dense = _DENSE_SHARE if rules.dense_share is None else rules.dense_share
    words = 1 - dense
    first = [(dense * _share(hit.cosine) + words * _BM25 * _share(hit.lexical), hit) for hit in hits]
    first.sort(key=lambda each: (-each[0], each[1].chunk.id))
    asked = terms(question)
    read = max(_READ, rules.top_k) if words and asked else 0
    found = [Ranked(hit, score + words * _read(asked, hit.chunk)) for score, hit in first[:read]]
    found += [Ranked(hit, score) for score, hit in first[read:]]
    return sorted(found, key=lambda each: (-each.score, each.hit.chunk.id))


def select(candidates: Sequence[Ranked], rules: Retrieval) -> list[Passage]:
    """Return the passages to attach, best first: above the floor, within the token budget, ``top_k`` at most.

    Where the route asks for diversity, the next one is that of the greatest marginal relevance. A passage that would
    exceed the budget is passed over for a shorter one further down. So is one that would bring the passages over the
    bytes that admission reserves for: words that the embedder does not know have many in one token.

    Args:
        candidates: best first.
    """
    able = [each for each in candidates if each.score >= rules.score_floor]
    left, bytes_left = rules.token_budget, rules.token_budget * BYTES_A_TOKEN
    passages: list[Passage] = []
    if not able:
        return passages
    order = MarginalRelevance(
        [each.score for each in able], np.stack([each.hit.vector for each in able]), rules.diversity
    )
    while len(passages) < rules.top_k and (place := order.next()) is not None:
        chunk = able[place].hit.chunk
        passage = passage_of(chunk, able[place].score)
        size = len(f"{passage.title}{passage.text}".encode("utf-8", "surrogatepass"))
        if chunk.tokens <= left and size <= bytes_left:
            left, bytes_left = left - chunk.tokens, bytes_left - size
            passages.append(passage)
            order.take(place)
    return passages


def passage_of(chunk: ChunkRecord, score: float) -> Passage:
    """Return the evidence that travels with a request."""
    return Passage(
        passage_id=chunk.id,
        document_id=chunk.document_id,
        title=chunk.context,
        source=chunk.source,
        start=chunk.start,
        end=chunk.end,
        text=chunk.text,
        score=round(score, 6),
    )


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text``; lines that belong together count as one."""
    return [part for part in _SENTENCE_END.split(text) if part.strip()]


def _read(asked: Sequence[str], chunk: ChunkRecord) -> float:
    """Return what the sentences of ``chunk`` add to the words' part of its score."""
    words, pairs = frozenset(asked), frozenset(pairwise(asked))
    found = [terms(sentence) for sentence in sentences(chunk.text)]
    best = max((len(words.intersection(sentence)) for sentence in found), default=0) / len(words)
    if not pairs:
        return (_SENTENCE + _PAIRS) * best
    neighbours = set(pairwise([term for sentence in found for term in sentence]))
    return _SENTENCE * best + _PAIRS * len(pairs & neighbours) / len(pairs)


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)
