"""Documents from files: which to send, as what, in how many parts, and what became of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.contracts.records import DeadLetter, DocumentIndexed, Record, Verdict
from penstock.text.charset import NotText, decode_text
from penstock.text.splitting import split_text

__all__ = [
    "CONTENT_TYPES", "MOST_BYTES", "OUTCOME_TOPICS", "PDF", "FileDocument", "Outcome", "Part", "Unreadable",
    "find_documents", "outcome_of", "part_id",
]  # fmt: skip

PDF = "application/pdf"
CONTENT_TYPES = {
    ".txt": "text/plain",
    ".text": "text/plain",
    ".rst": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".pdf": PDF,
}
"""Content type by file suffix."""

OUTCOME_TOPICS = ("documents-indexed", "verdicts", "dlq-guardrails", "dlq-retrieval")
"""Where the outcome of a document is read: see :func:`outcome_of`."""

MOST_BYTES = 8 * 1024 * 1024 - 64 * 1024
"""Most bytes of a text in UTF-8 or of a file: max.message.bytes of the topic, less room for identity and labels."""
_MOST_FINDINGS = 3
_PART_CHARACTERS = 200_000
_LARGEST_FILE = 256 * 1024 * 1024
_SPLITTABLE = ("text/plain", "text/markdown")


class Unreadable(Exception):
    """A file cannot be sent as a document; the message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one event carries: a text (``content``), or a file as it is (``data``)."""

    document_id: str
    content: str = ""
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class FileDocument:
    """A file to send, or to remove; how it is named says :func:`find_documents`."""

    path: Path
    document_id: str
    content_type: str

    @property
    def splittable(self) -> bool:
        """Whether it can be sent in parts."""
        return self.content_type in _SPLITTABLE

    def read(self, split: bool = False) -> list[Part]:
        """Return what to send: one event under ``document_id``, or parts ``document_id#1`` and on.

        Text is decoded here (see :func:`penstock.text.charset.decode_text`); a PDF is sent as it is.

        Args:
            split: a text that is longer than 200,000 characters is cut into parts, at headings where there are some.

        Raises:
            Unreadable: too large for an event, binary, or not to be opened.
        """
        try:
            size = self.path.stat().st_size
            if size > _LARGEST_FILE:
                raise Unreadable(f"{_megabytes(size)}, at most {_megabytes(_LARGEST_FILE)} are read: split it")
            # Twice, since a text in UTF-16 takes half of that in an event.
            if size > MOST_BYTES * (1 if self.content_type == PDF else 2) and not (split and self.splittable):
                raise self._too_large(size)
            data = self.path.read_bytes()
        except OSError as error:
            raise Unreadable(f"cannot be opened: {error.strerror}") from error
        if self.content_type == PDF:
            return [Part(self.document_id, data=data)]
        try:
            text = decode_text(data, self.content_type)
        except NotText as error:
            raise Unreadable(f"{error}, with the suffix of a text: send text") from error
        if split and self.splittable and len(text) > _PART_CHARACTERS:
            parts = split_text(text, _PART_CHARACTERS, markdown=self.content_type == "text/markdown")
            return [Part(part_id(self.document_id, number), part) for number, part in enumerate(parts, 1)]
        size = len(text.encode("utf-8", "replace"))
        if size > MOST_BYTES:
            raise self._too_large(size)
        return [Part(self.document_id, text)]

    def _too_large(self, size: int) -> Unreadable:
        if self.splittable:
            remedy = "send it with --split"
        elif self.content_type == PDF:
            remedy = "split it, e.g. by `qpdf --split-pages=50 in.pdf out.pdf`, or make its pictures smaller"
        else:
            remedy = "split it, or make Markdown of it and send that with --split"
        return Unreadable(
            f"{_megabytes(size)}, at most {_megabytes(MOST_BYTES)} fit an event (max.message.bytes of the topic documents): "
            f"{remedy}"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one document: indexed, unchanged, deleted, quarantined or failed.

    Dead letters know the document but not the upload: one of ``upload`` and ``document_id`` is set, or both.
    """

    status: str
    upload: str = ""
    document_id: str = ""
    chunks: int = 0
    reason: str = ""
    removed: int = 0
    """Chunks that were removed."""

    @property
    def good(self) -> bool:
        """Whether the store now holds what was sent."""
        return self.status in ("indexed", "unchanged", "deleted")


def part_id(document_id: str, number: int) -> str:
    """Return the identity of a part of a document, from 1."""
    return f"{document_id}#{number}"


def find_documents(path: Path, below: Path) -> tuple[list[FileDocument], list[Path]]:
    """Return the documents at ``path``, a file or a folder with all below it, and the files of other types.

    A document is named by its path below the folder ``below``, whichever way it is reached; of what lies elsewhere, by the
    path below the folder at ``path``, or around the file there, that folder included. A ``path`` where nothing is counts as
    a file. Hidden files and folders are left out.
    """
    root = path.resolve()
    around = root.parent if root.is_dir() else root.parent.parent
    start = below.resolve() if root.is_relative_to(below.resolve()) else around
    documents, others = [], []
    for file in _files(root) if root.is_dir() else [root]:
        content_type = CONTENT_TYPES.get(file.suffix.lower())
        if content_type is None:
            others.append(file)
        else:
            documents.append(FileDocument(file, file.relative_to(start).as_posix(), content_type))
    return documents, others


def outcome_of(record: Record) -> Outcome | None:
    """Return what ``record``, of one of :data:`OUTCOME_TOPICS`, says became of a document; None where it says nothing."""
    if isinstance(record, DocumentIndexed):
        return Outcome(
            record.status, record.request_id, record.document_id, record.chunks, record.reason or "", record.chunks_removed
        )  # fmt: skip
    if isinstance(record, Verdict) and record.stage == "document" and record.action == "block":
        found = sorted({(one.start, one.end, one.kind) for one in record.findings if one.action == "block"})
        places = ", ".join(f"{kind} (characters {start}-{end})" for start, end, kind in found[:_MOST_FINDINGS])
        more = f" and {len(found) - _MOST_FINDINGS} more" if len(found) > _MOST_FINDINGS else ""
        reason = f"guardrails found {places or 'what the policy blocks'}{more}"
        return Outcome("quarantined", record.request_id, reason=reason)
    if isinstance(record, DeadLetter) and record.origin_topic in (
        "documents",
        "documents-extracted",
        "documents-screened",
    ):
        document_id = (record.origin_key or b"").decode("utf-8", "replace")
        return Outcome("failed", document_id=document_id, reason=f"{record.code}: {record.reason}")
    return None


def _megabytes(size: int) -> str:
    return f"{size / 1048576:.1f} MB"


def _files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():  # a link may lead round in a circle
            yield from _files(entry)
        elif entry.is_file():
            yield entry
