"""From the file that a document came as to its text: the hop in front of guardrails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from penstock.bus import Emit, Event, Hop, Outcome
from penstock.clock import Clock
from penstock.contracts.envelope import derive
from penstock.contracts.records import Document, DocumentIndexed
from penstock.telemetry import get_logger
from penstock.text.charset import NotText, decode_text

from services.retrieval.cleaning import PAGE_BREAK, PAGED_TEXT, TEXT_TYPES
from services.retrieval.paged_text import tidy_pages, tidy_title, with_headings
from services.retrieval.pdf import PdfText, PdfUnreadable

__all__ = ["ReadPdf", "extract_hop", "extracted", "extraction_failed", "is_pdf", "passed_on"]

log = get_logger(__name__)

ReadPdf = Callable[[bytes], Awaitable[PdfText]]
"""Reads a PDF, or raises :class:`PdfUnreadable`."""

# Where a file may begin with something else first (PDF 1.7, appendix H, note 13).
_PDF_HEAD_BYTES = 1024
# What the log takes, less room for the envelope: the text of a file may take more bytes than the file.
_MOST_BYTES = 8 * 1024 * 1024 - 64 * 1024


def is_pdf(data: bytes, content_type: str) -> bool:
    """Return whether a file is a PDF: by what it says it is, or by how it begins, since some senders say nothing."""
    return content_type.partition(";")[0].strip().lower() == "application/pdf" or b"%PDF-" in data[:_PDF_HEAD_BYTES]


def extracted(document: Document, text: str, content_type: str, title: str, now: datetime) -> list[Emit]:
    """Return ``document`` with the text of its file in place of the file.

    Args:
        title: what the file calls itself; what the owner calls it stands above that.
    """
    record = msgspec.structs.replace(
        document,
        **derive(document, "retrieval.extracted", 0, now),
        title=document.title or title,
        content_type=content_type,
        content=text,
        data=None,
    )
    return [Emit("documents-extracted", document.document_id, record)]


def passed_on(document: Document, now: datetime) -> list[Emit]:
    """Return what follows of a document that is no file: a removal goes the way of files, too.

    The same removal reaches guardrails straight from ``documents``, before a file that was sent ahead of it and is still
    being read. This one comes behind that file, so that nothing of it stays.
    """
    if not document.deleted:
        return []
    return extracted(document, "", document.content_type, "", now)


def extraction_failed(document: Document, reason: str, now: datetime) -> list[Emit]:
    """Return the event that says why there is no text of ``document``; what was indexed of it before stays."""
    record = DocumentIndexed(
        **derive(document, "retrieval.indexed", 0, now),
        document_id=document.document_id,
        source=document.source,
        status="failed",
        reason=reason,
    )
    return [Emit("documents-indexed", document.document_id, record)]


def _text_of_pages(read: PdfText) -> str:
    return PAGE_BREAK.join(with_headings(tidy_pages(read.pages), read.outline))


def extract_hop(read_pdf: ReadPdf, clock: Clock, processes: int) -> Hop:
    """Return the hop documents -> documents-extracted, documents-indexed. Documents that come as text are left to others.

    Args:
        processes: files that are read at once.
    """

    async def handle(events: Sequence[Event[Document]]) -> Sequence[Outcome]:
        return [await one(event.record) for event in events]

    async def one(document: Document) -> Outcome:
        if document.deleted or document.data is None:
            return passed_on(document, clock.now())
        try:
            text, content_type, title = await text_of(document.data, document.content_type)
        except (PdfUnreadable, NotText) as error:
            return failure(document, str(error))
        if len(text.encode("utf-8", "replace")) > _MOST_BYTES:
            return failure(
                document,
                f"its text has more than the {_MOST_BYTES:,} bytes that fit the topic documents-extracted: split it",
            )
        return extracted(document, text, content_type, title, clock.now())

    async def text_of(data: bytes, content_type: str) -> tuple[str, str, str]:
        """Return the text, its type, and the title that the file gives itself."""
        if is_pdf(data, content_type):
            read = await read_pdf(data)
            return await asyncio.to_thread(_text_of_pages, read), PAGED_TEXT, tidy_title(read.title)
        kind = content_type.partition(";")[0].strip().lower() or "text/plain"
        if kind not in TEXT_TYPES:
            raise NotText(
                f"a file of content_type {content_type!r} cannot be read; send application/pdf, {', '.join(TEXT_TYPES)}"
            )
        return await asyncio.to_thread(decode_text, data, content_type), kind, ""

    def failure(document: Document, reason: str) -> list[Emit]:
        log.warning("no text of a document", document_id=document.document_id, reason=reason)
        return extraction_failed(document, reason, clock.now())

    def failed(event: Event[Any], error: Exception) -> Sequence[Emit]:
        return failure(event.record, "its file could not be read; it is among the dead letters of retrieval")

    return Hop(
        service="retrieval",
        group="retrieval-extract",
        topics=("documents",),
        handler=handle,
        concurrency=processes,
        flow=lambda event: str(event.record.tenant_id),
        waiting=8 * processes,
        failed=failed,
    )
