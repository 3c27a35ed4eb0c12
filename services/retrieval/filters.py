"""Which chunks a request may see at all: one set of conditions, as a filter of Qdrant and as a predicate. Pure.

The conditions are part of every query, so that what they exclude is never scored, let alone returned. A route and a
request may both restrict: what both allow is searched. Only the team always holds, and no request can change it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.config.kinds import Retrieval
from penstock.contracts.records import RetrievalFilter
from qdrant_client import models

__all__ = [
    "KEYWORD_FIELDS", "LARGEST_LABELS", "RANGE_FIELDS", "Conditions", "admits", "bytes_of", "can_be_met", "conditions_of",
    "instant", "labels_of", "microseconds", "qdrant_filter",
]  # fmt: skip

KEYWORD_FIELDS = ("collection", "document_id", "labels", "language")
"""Fields of a chunk's payload that are compared for equality, beside ``team``; each needs a keyword index."""
RANGE_FIELDS = ("valid_from", "valid_to")
"""Fields that are compared by order: microseconds since 1970; each needs an integer index."""

LARGEST_LABELS = 64 * 1024
"""Bytes of a document's id, source and tags, which are stored with each of its chunks."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a chunk must fulfil to be searched.

    Args:
        team: the owner of the chunk.
        collection: the collection of its document.
        tags: (name, value) of each label that its document must carry.
        languages: the document must be in each of them, so that of two that differ none is: route and request may
            both name one.
        as_of: instant at which the document must be valid, UTC; None does not ask.
    """

    team: str
    collection: str
    tags: frozenset[tuple[str, str]] = frozenset()
    languages: frozenset[str] = frozenset()
    as_of: datetime | None = None


def conditions_of(team: str, rules: Retrieval, wanted: RetrievalFilter | None, now: datetime) -> Conditions:
    """Return the conditions of a request of ``team`` whose route says ``rules``.

    The request may name another collection of its team than the route does; tags and languages of both hold.

    Args:
        now: the instant of the search, at which documents must be valid unless the request names another one.
    """
    if wanted is None:
        wanted = RetrievalFilter()
    languages = (rules.language, wanted.language)
    return Conditions(
        team=team,
        collection=wanted.collection or rules.collection,
        tags=frozenset((*rules.tags.items(), *wanted.tags.items())),
        languages=frozenset(language for language in languages if language is not None),
        as_of=wanted.as_of or now,
    )


def can_be_met(wanted: RetrievalFilter | None) -> bool:
    """Return whether any document may fulfil what a request wants: none carries labels of more than LARGEST_LABELS."""
    if wanted is None:
        return True
    words = [*wanted.tags, *wanted.tags.values(), wanted.collection or "", wanted.language or ""]
    return bytes_of(words) <= LARGEST_LABELS


def bytes_of(texts: Iterable[str]) -> int:
    """Return the bytes of all ``texts`` in UTF-8."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def qdrant_filter(conditions: Conditions) -> models.Filter:
    """Return ``conditions`` for a search in Qdrant. A chunk without a bound of its validity is always within it."""
    must: list[models.Condition] = [_is("team", conditions.team), _is("collection", conditions.collection)]
    must += [_is("labels", label) for label in labels_of(sorted(conditions.tags))]
    must += [_is("language", language) for language in sorted(conditions.languages)]
    if conditions.as_of is None:
        return models.Filter(must=must)
    # As what must not be: a range never matches a field that is missing.
    at = microseconds(conditions.as_of)
    outside: list[models.Condition] = [
        models.FieldCondition(key="valid_from", range=models.Range(gt=at)),
        models.FieldCondition(key="valid_to", range=models.Range(lte=at)),
    ]
    return models.Filter(must=must, must_not=outside)


def admits(conditions: Conditions, payload: Mapping[str, Any]) -> bool:
    """Return whether ``conditions`` hold for a chunk of ``payload``: what :func:`qdrant_filter` says, without Qdrant."""
    if payload["team"] != conditions.team or payload["collection"] != conditions.collection:
        return False
    if not set(labels_of(conditions.tags)) <= set(payload.get("labels", ())):
        return False
    if any(payload.get("language") != language for language in conditions.languages):
        return False
    if conditions.as_of is None:
        return True
    at, start, end = microseconds(conditions.as_of), payload.get("valid_from"), payload.get("valid_to")
    return (start is None or start <= at) and (end is None or at < end)


def labels_of(tags: Iterable[tuple[str, str]]) -> list[str]:
    """Return one keyword for each tag: a name of any characters can be no path in a payload, a keyword it can."""
    return [json.dumps(tag) for tag in tags]


def microseconds(moment: datetime) -> int:
    """Return ``moment`` as microseconds since 1970, UTC: a number that a filter can compare."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def instant(value: int | None) -> datetime | None:
    """Return the moment of ``value`` microseconds since 1970, UTC."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def _is(field: str, value: str) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))
