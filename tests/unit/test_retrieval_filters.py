"""Conditions of a search mean the same to the predicate, to the embedded index and to Qdrant; a team sees its own only."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.config.kinds import Retrieval
from penstock.contracts.records import RetrievalFilter
from qdrant_client import AsyncQdrantClient

from services.retrieval.adapters import Point, Query
from services.retrieval.core import ChunkRecord
from services.retrieval.exact_index import ExactIndex
from services.retrieval.filters import Conditions, admits, conditions_of, instant, labels_of, microseconds
from services.retrieval.qdrant_server import QdrantStore
from services.retrieval.sparse import chunk_vector, query_vector

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
DENSE = np.array([1, 0, 0], np.float32)
# Names that could be taken for a path, a pattern, a quotation or another name.
ODD = [
    "a",
    "A",
    "a ",
    "a.b",
    "a[0]",
    "a[]",
    '"a"',
    'a", "b',
    "*",
    "a*",
    "",
    "team",
    "né",
    "ne\u0301",
    "日本",
    "\u202ea",
    "a\\",
]
names = st.sampled_from(ODD) | st.text(max_size=4)
moments = st.sampled_from([NOW + timedelta(microseconds=n) for n in (-1, 0, 1, 10**12)])
tags = st.dictionaries(names, names, max_size=2)
languages = st.sampled_from([None, "en", "de"])


@st.composite
def chunks(draw: st.DrawFn) -> ChunkRecord:
    return ChunkRecord(
        id=str(uuid.UUID(int=draw(st.integers(0, 2**128 - 1)))),
        team=draw(names), collection=draw(names), document_id=draw(names), ordinal=0, start=0, end=4, tokens=1,
        title=draw(names), source=draw(names), heading=(), text="weir", tags=draw(tags), language=draw(languages),
        valid_from=draw(st.none() | moments), valid_to=draw(st.none() | moments),
    )  # fmt: skip


@st.composite
def conditions(draw: st.DrawFn, among: Sequence[ChunkRecord]) -> Conditions:
    """Conditions that often hold for one of the chunks: what chance makes up holds for none."""
    near = draw(st.sampled_from(among))
    return Conditions(
        team=draw(st.just(near.team) | names),
        collection=draw(st.just(near.collection) | names),
        tags=frozenset(draw(st.just({}) | st.just(dict(near.tags)) | tags).items()),
        languages=frozenset(draw(st.lists(st.sampled_from(["en", "de"]), max_size=2))),
        as_of=draw(st.none() | moments),
    )


async def found_in_qdrant(held: Sequence[ChunkRecord], query: Query, document_id: str) -> tuple[set[str], set[str]]:
    """Return the chunks that ``query`` finds, and those of the document of its team."""
    store = QdrantStore(AsyncQdrantClient(":memory:"), "chunks", 3)
    await store.prepare()
    await store.write([Point(chunk, DENSE, chunk_vector(chunk.text)) for chunk in held], (), ())
    (hits,) = await store.search([query], 100)
    digests = await store.digests(query.conditions.team, document_id)
    await store.close()
    return {hit.chunk.id for hit in hits}, set(digests)


@given(st.data())
@settings(max_examples=80, deadline=None)
async def test_both_stores_find_exactly_what_the_conditions_allow_and_never_another_teams(data: st.DataObject) -> None:
    held = data.draw(st.lists(chunks(), min_size=1, max_size=8, unique_by=lambda chunk: chunk.id))
    asked = data.draw(conditions(held))
    allowed = {chunk.id for chunk in held if admits(asked, chunk.payload())}
    assert {chunk.team for chunk in held if chunk.id in allowed} <= {asked.team}
    index = ExactIndex(3)
    for chunk in held:
        index.put(chunk, DENSE, chunk_vector(chunk.text))
    words = query_vector("weir")
    assert {hit.chunk.id for hit in index.search(asked, DENSE, words, 100)} == allowed
    document_id = data.draw(st.sampled_from(held)).document_id
    parts = {chunk.id for chunk in held if (chunk.team, chunk.document_id) == (asked.team, document_id)}
    assert set(index.digests(asked.team, document_id)) == parts
    assert await found_in_qdrant(held, Query(asked, DENSE, words), document_id) == (allowed, parts)


@given(
    team=names, collection=names.filter(bool), route_tags=tags, language=languages,
    wanted=st.none() | st.builds(
        RetrievalFilter, collection=st.none() | names, tags=tags, language=languages, as_of=st.none() | moments
    ),
)  # fmt: skip
def test_whatever_a_request_asks_for_it_searches_its_own_team_and_what_its_route_allows(
    team: str, collection: str, route_tags: dict[str, str], language: str | None, wanted: RetrievalFilter | None
) -> None:
    rules = Retrieval.model_construct(collection=collection, tags=route_tags, language=language)
    asked = conditions_of(team, rules, wanted, NOW)
    assert asked.team == team
    assert set(route_tags.items()) <= asked.tags
    assert language is None or language in asked.languages
    if wanted is None:
        assert (asked.collection, asked.as_of) == (collection, NOW)
    else:
        assert set(wanted.tags.items()) <= asked.tags
        assert asked.collection == (wanted.collection or collection)
        assert asked.as_of == (wanted.as_of or NOW)


def test_route_and_request_that_contradict_each_other_find_nothing() -> None:
    rules = Retrieval(language="en", tags={"product": "mill"})
    payload = {"team": "t", "collection": "default", "labels": labels_of([("product", "mill")]), "language": "en"}
    for wanted, seen in [
        (None, True),
        (RetrievalFilter(language="en", tags={"product": "mill"}), True),
        (RetrievalFilter(language="de"), False),
        (RetrievalFilter(tags={"product": "weir"}), False),
    ]:
        assert admits(conditions_of("t", rules, wanted, NOW), payload) is seen


def test_a_document_is_valid_from_its_first_instant_up_to_before_its_last() -> None:
    payload: dict[str, Any] = {"team": "t", "collection": "c", "valid_from": microseconds(NOW)}
    payload["valid_to"] = microseconds(NOW + timedelta(seconds=1))
    seen = [
        admits(Conditions("t", "c", as_of=NOW + timedelta(microseconds=n)), payload) for n in (-1, 0, 999_999, 10**6)
    ]
    assert seen == [False, True, True, False]
    assert instant(payload["valid_from"]) == NOW


def test_a_chunk_stored_before_there_were_conditions_is_found_without_them() -> None:
    payload = {"team": "t", "collection": "c"}
    assert admits(Conditions("t", "c", as_of=NOW), payload)
    assert not admits(Conditions("t", "c", languages=frozenset({"en"})), payload)
    assert not admits(Conditions("t", "c", tags=frozenset({("a", "b")})), payload)
