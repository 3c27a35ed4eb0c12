"""What keeps the answers of the semantic cache: one protocol, and how an entry stands in Qdrant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from penstock.embedding.protocol import Vectors
from qdrant_client import models

from services.retrieval.semantic_cache import Asked, Candidate, Entry, Given

__all__ = [
    "AnswerStore", "Erasure", "Lookup", "ended", "entry_of", "erased", "of_answers", "payload_of",
    "scope_filter", "vectors_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lookup:
    """A question and its vector, of unit length."""

    asked: Asked
    vector: Vectors


@dataclass(frozen=True, slots=True)
class Erasure:
    """Which entries of one team go: those of a request, of a user, or that stand on a document. One of the three is set."""

    team: str
    request_id: str | None = None
    user_id: str | None = None
    document_id: str | None = None

    def __post_init__(self) -> None:
        if [self.request_id, self.user_id, self.document_id].count(None) != 2:
            raise ValueError("name one of request_id, user_id and document_id: entries go by one of them")

    def concerns(self, asked: Asked) -> bool:
        """Return whether ``asked`` goes."""
        if asked.team != self.team:
            return False
        if self.request_id is not None:
            return asked.request_id == self.request_id
        return asked.user_id == self.user_id if self.user_id is not None else self.document_id in asked.documents


class AnswerStore(Protocol):
    """Entries with the vectors of their questions. Every method raises StoreUnavailable while it is away."""

    async def near(self, lookups: Sequence[Lookup], limit: int, now_s: float) -> list[list[Candidate]]:
        """Return for each question the ``limit`` nearest that have an answer, of its team and scope only, not yet ended."""
        ...

    async def put(self, lookups: Sequence[Lookup]) -> None:
        """Add questions whose answers are awaited; one that has its answer stays as it is."""
        ...

    async def get(self, team: str, request_id: str) -> Entry | None:
        """Return the entry of a request; None where there is none."""
        ...

    async def answer(self, entry: Entry, given: Given) -> None:
        """Note the answer of an entry; one that is gone stays so."""
        ...

    async def release(self, entry: Entry, digest: str, expires_at: float) -> None:
        """Note what was released for an entry, and when it ends; one that is gone stays so."""
        ...

    async def erase(self, erasure: Erasure) -> None:
        """Remove entries, with an answer or without."""
        ...

    async def sweep(self, now_s: float) -> None:
        """Remove what has ended."""
        ...


def scope_filter(asked: Asked, now_s: float) -> models.Filter:
    """Return the condition of every search for answers: what does not fulfil it is never scored."""
    return models.Filter(
        must=[
            _is("asked.team", asked.team),
            _is("asked.scope", asked.scope),
            models.FieldCondition(key="asked.keep", match=models.MatchValue(value=True)),
            models.FieldCondition(key="asked.expires_at", range=models.Range(gt=now_s)),
        ],
        must_not=[
            models.IsEmptyCondition(is_empty=models.PayloadField(key="given")),
            models.IsEmptyCondition(is_empty=models.PayloadField(key="released")),
        ],
    )


def of_answers(collections: models.CollectionsResponse, family: str) -> list[str]:
    """Return the collections whose names begin with ``family``: the answers of an installation, of the embedders of before,
    too. A person's erasure is for all of them.
    """
    return [each.name for each in collections.collections if each.name.startswith(family)]


def erased(erasure: Erasure) -> models.Filter:
    """Return the condition of the entries that ``erasure`` names."""
    named = {"request_id": erasure.request_id, "user_id": erasure.user_id, "documents": erasure.document_id}
    fields = [_is(f"asked.{key}", value) for key, value in named.items() if value is not None]
    return models.Filter(must=[_is("asked.team", erasure.team), *fields])


def ended(now_s: float) -> models.Filter:
    """Return the condition of the entries that have ended by ``now_s``, seconds since 1970."""
    return models.Filter(must=[models.FieldCondition(key="asked.expires_at", range=models.Range(lte=now_s))])


def vectors_of(dimension: int) -> models.VectorParams:
    """Return how vectors are kept. They have unit length, so a dot product is the cosine."""
    return models.VectorParams(size=dimension, distance=models.Distance.DOT)


def _is(key: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def payload_of(entry: Entry) -> dict[str, Any]:
    """Return ``entry`` as JSON; what is not known yet is left out, so that a search passes it over."""
    built: dict[str, Any] = msgspec.to_builtins(entry)
    return {key: value for key, value in built.items() if value is not None}


def entry_of(payload: Mapping[str, Any] | None) -> Entry | None:
    """Return the entry of a point; None where it is of another form: it is not found, and goes when it ends."""
    try:
        return msgspec.convert(payload, Entry)
    except msgspec.ValidationError:
        return None
