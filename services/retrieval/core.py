"""What retrieval decides: which chunks a document has, what is searched for, which events follow. Pure."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from penstock.bus import Emit
from penstock.contracts.envelope import derive, request_key
from penstock.contracts.records import (
    CachedAnswer,
    DocumentIndexed,
    GroundedRequest,
    Message,
    Passage,
    Refusal,
    ScreenedDocument,
    ScreenedRequest,
    Status,
)
from penstock.embedding.protocol import Vectors

from services.retrieval.chunking import Chunk
from services.retrieval.filters import instant, labels_of, microseconds
from services.retrieval.sparse import TERMS_VERSION

__all__ = [
    "DEFAULT_COLLECTION", "ChunkRecord", "Grounding", "Hit", "IndexPlan", "chunk_records", "collection_of", "expired",
    "grounded", "indexed", "indexing_failed", "plan_index", "question_of", "refusal",
]  # fmt: skip

DEFAULT_COLLECTION = "default"
_NAMESPACE = uuid.UUID("5d0c7a54-4b0f-5b8e-9d43-0f1f0c6a7a11")
# A question is embedded whole up to this many characters (about 2,000 tokens); of a longer one, which carries data rather
# than a question, its first and last halves are: each further megabyte would hold up the partition by half a minute.
_QUESTION_CHARACTERS = 8_000


# Fields of a chunk that are stored as they are.
_PLAIN_FIELDS = (
    "team", "collection", "document_id", "ordinal", "start", "end", "tokens", "title", "source", "text", "tags",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChunkRecord:
    """A chunk as it is stored. ``id`` follows from the team, the document and what is embedded, not from its position."""

    id: str
    team: str
    collection: str
    document_id: str
    ordinal: int
    start: int
    end: int
    tokens: int
    title: str
    source: str
    heading: tuple[str, ...]
    text: str
    tags: Mapping[str, str] = field(default_factory=dict)
    language: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None

    @property
    def context(self) -> str:
        """The title and the headings that the chunk stands under."""
        return _context(self.title, self.heading)

    @property
    def embedded_text(self) -> str:
        """What is embedded and indexed: the chunk under its title and headings, which a chunk alone often lacks."""
        return _under(self.context, self.text)

    @property
    def digest(self) -> str:
        """A hash of everything that is stored: equal for chunks that need no write."""
        stored = json.dumps(self.payload(), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(stored.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

    def payload(self) -> dict[str, Any]:
        """Return what is stored beside the vectors, as JSON."""
        return {
            "team": self.team,
            "collection": self.collection,
            "document_id": self.document_id,
            "ordinal": self.ordinal,
            "start": self.start,
            "end": self.end,
            "tokens": self.tokens,
            "title": self.title,
            "source": self.source,
            "heading": list(self.heading),
            "text": self.text,
            "tags": dict(self.tags),
            "labels": labels_of(sorted(self.tags.items())),
            "language": self.language,
            "valid_from": None if self.valid_from is None else microseconds(self.valid_from),
            "valid_to": None if self.valid_to is None else microseconds(self.valid_to),
        }

    @classmethod
    def from_payload(cls, point_id: str, payload: Mapping[str, Any]) -> ChunkRecord:
        """Return the record that :meth:`payload` was made of.

        A payload of an earlier release lacks the conditions but the team's and the collection's: its digest differs, so
        that the next ingestion of its document writes it anew.
        """
        return cls(
            id=point_id,
            heading=tuple(payload["heading"]),
            language=payload.get("language"),
            valid_from=instant(payload.get("valid_from")),
            valid_to=instant(payload.get("valid_to")),
            **{name: payload[name] for name in _PLAIN_FIELDS},
        )


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found.

    Args:
        cosine: similarity of the embeddings, -1 to 1.
        lexical: share of the question's BM25 weight that the chunk reaches, 0 to 1.
        vector: the chunk's embedding.
    """

    chunk: ChunkRecord
    cosine: float
    lexical: float
    vector: Vectors = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """What has to be done so that the store holds exactly a document's chunks."""

    embed: tuple[ChunkRecord, ...]
    """New or changed: to embed and write."""
    rewrite: tuple[ChunkRecord, ...]
    """Same text elsewhere in the document: only the stored fields change."""
    remove: tuple[str, ...]
    """Ids of chunks that the document no longer has."""
    chunks: int

    @property
    def unchanged(self) -> bool:
        return not (self.embed or self.rewrite or self.remove)


@dataclass(frozen=True, slots=True)
class Grounding:
    """What retrieval found for one request; ``state`` is GroundedRequest.grounding."""

    state: str
    passages: tuple[Passage, ...] = ()
    embedding: bytes | None = None
    embedder: str | None = None
    embedding_tokens: int = 0
    cached: CachedAnswer | None = None
    """An answer to an earlier question that means the same."""


def collection_of(document: ScreenedDocument) -> str:
    """Return the collection that routes name to search the document: its tag ``collection``."""
    return document.tags.get("collection") or DEFAULT_COLLECTION


def chunk_records(
    document: ScreenedDocument, title: str, chunks: Sequence[Chunk], language: str | None = None
) -> list[ChunkRecord]:
    """Return the records of a document's chunks.

    The id is uuid5 over team, collection, document, the hash of what is embedded, the chunk's number among equals and
    how its words are indexed: a paragraph put in front shifts the chunks behind it without giving them new ids, and
    other vectors of the same text take the place of the old ones.

    Args:
        title: the title the document gives itself, used where the event has none.
        language: the language its text was found to be in, ISO 639-1, used where the event names none.
    """
    seen: Counter[str] = Counter()
    records = []
    name = " ".join((document.title or title).split())[:300]
    collection = collection_of(document)
    for chunk in chunks:
        content = _under(_context(name, chunk.heading), chunk.text).encode("utf-8", "surrogatepass")
        content_hash = hashlib.sha256(content).hexdigest()
        identity = [
            document.tenant_id, collection, document.document_id, content_hash, seen[content_hash], TERMS_VERSION,
        ]  # fmt: skip
        seen[content_hash] += 1
        records.append(
            ChunkRecord(
                id=str(uuid.uuid5(_NAMESPACE, json.dumps(identity))),
                team=document.tenant_id,
                collection=collection,
                document_id=document.document_id,
                ordinal=chunk.ordinal,
                start=chunk.start,
                end=chunk.end,
                tokens=chunk.tokens,
                title=name,
                source=_place(document.source, chunk.page),
                heading=chunk.heading,
                text=chunk.text,
                tags=dict(document.tags),
                language=document.language or language,
                valid_from=document.valid_from,
                valid_to=document.valid_to,
            )
        )
    return records


def _place(source: str, page: int | None) -> str:
    """Return ``source`` with the page as PDF viewers take it in an address (RFC 8118, section 3)."""
    return source if page is None else f"{source}#page={page}"


def _context(title: str, heading: Sequence[str]) -> str:
    """Return the title and the headings below it, without repetition."""
    parts = [title] if title else []
    parts += [part for part in heading if part != title]
    return " > ".join(parts)[:400]


def _under(context: str, text: str) -> str:
    return f"{context}\n{text}" if context else text


def plan_index(wanted: Sequence[ChunkRecord], stored: Mapping[str, str]) -> IndexPlan:
    """Return how to get from ``stored`` (digest by id, of all chunks the document has in the store) to ``wanted``."""
    ids = {record.id for record in wanted}
    return IndexPlan(
        embed=tuple(record for record in wanted if record.id not in stored),
        rewrite=tuple(record for record in wanted if stored.get(record.id, record.digest) != record.digest),
        remove=tuple(sorted(set(stored) - ids)),
        chunks=len(wanted),
    )


def question_of(messages: Sequence[Message]) -> str:
    """Return what to search for: the last message of the user; of one over 8,000 characters its two ends."""
    text = next((message.content for message in reversed(messages) if message.role == "user"), "").strip()
    if len(text) <= _QUESTION_CHARACTERS:
        return text
    half = _QUESTION_CHARACTERS // 2
    return f"{text[:half]}\n{text[-half:]}"


def expired(request: ScreenedRequest, now: datetime) -> bool:
    """Return whether an answer would come after the deadline."""
    deadline = request.context.deadline_at
    return deadline is not None and deadline <= now


def grounded(request: ScreenedRequest, grounding: Grounding, now: datetime) -> list[Emit]:
    """Return the event that carries ``request`` and its evidence on."""
    record = GroundedRequest(
        **derive(request, "retrieval.grounded", 0, now),
        context=request.context,
        messages=request.messages,
        sampling=request.sampling,
        stream=request.stream,
        grounding=grounding.state,
        passages=list(grounding.passages),
        embedding=grounding.embedding,
        embedder=grounding.embedder,
        embedding_tokens=grounding.embedding_tokens,
        cached=grounding.cached,
    )
    return [Emit("requests-grounded", request_key(request.context, request.request_id), record)]


def refusal(request: ScreenedRequest, status: Status, code: str, reason: str, now: datetime) -> list[Emit]:
    """Return the event that ends ``request`` without an answer."""
    record = Refusal(
        **derive(request, "retrieval.refusal", 0, now),
        context=request.context,
        stage="retrieval",
        status=status,
        code=code,
        reason=reason,
        prompt=next((message.content for message in reversed(request.messages) if message.role == "user"), ""),
    )
    return [Emit("refusals", request_key(request.context, request.request_id), record)]


def indexed(
    document: ScreenedDocument, plan: IndexPlan, embedder: str, now: datetime, embedded_tokens: int = 0
) -> list[Emit]:
    """Return the event that says what became of ``document``, and how many tokens were embedded for it."""
    status = "deleted" if document.deleted else "unchanged" if plan.unchanged else "indexed"
    record = DocumentIndexed(
        **derive(document, "retrieval.indexed", 0, now),
        document_id=document.document_id,
        source=document.source,
        status=status,
        chunks=plan.chunks,
        chunks_embedded=len(plan.embed),
        chunks_removed=len(plan.remove),
        embedder=embedder,
        embedded_tokens=embedded_tokens,
    )
    return [Emit("documents-indexed", document.document_id, record)]


def indexing_failed(
    document: ScreenedDocument, reason: str, embedder: str, now: datetime, embedded_tokens: int = 0
) -> list[Emit]:
    """Return the event that says why ``document`` was not indexed; what was indexed of it before stays."""
    record = DocumentIndexed(
        **derive(document, "retrieval.indexed", 0, now),
        document_id=document.document_id,
        source=document.source,
        status="failed",
        embedder=embedder,
        reason=reason,
        embedded_tokens=embedded_tokens,
    )
    return [Emit("documents-indexed", document.document_id, record)]
