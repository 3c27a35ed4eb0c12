"""Documents from files: which to send, as what, and what became of each."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock.contracts.records import DeadLetter, DocumentIndexed, Record, Verdict

__all__ = ["CONTENT_TYPES", "OUTCOME_TOPICS", "FileDocument", "Outcome", "Unreadable", "find_documents", "outcome_of"]

CONTENT_TYPES = {
    ".txt": "text/plain",
    ".text": "text/plain",
    ".rst": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
}
"""Content type by file suffix."""

OUTCOME_TOPICS = ("documents-indexed", "verdicts", "dlq-guardrails", "dlq-retrieval")
"""Where the outcome of a document is read: see :func:`outcome_of`."""

# Below the topic's largest message, with room for the envelope; characters may take four bytes once re-encoded.
_LARGEST_FILE = 6 * 1024 * 1024
_META_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)


class Unreadable(Exception):
    """A file cannot be sent as a document; the message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class FileDocument:
    """A file to send. ``document_id`` is its path below the folder that was named, that folder included."""

    path: Path
    document_id: str
    content_type: str

    def read(self) -> str:
        """Return the text.

        UTF-8 and UTF-16 are recognised, HTML's declared charset is kept to; anything else is read as Windows-1252.

        Raises:
            Unreadable: too large, binary, or not to be opened.
        """
        try:
            size = self.path.stat().st_size
            if size > _LARGEST_FILE:
                raise Unreadable(f"{size / 1048576:.1f} MB, at most {_LARGEST_FILE // 1048576} fit an event: split it")
            return _decoded(self.path.read_bytes(), self.content_type)
        except OSError as error:
            raise Unreadable(f"cannot be opened: {error.strerror}") from error


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

    @property
    def good(self) -> bool:
        """Whether the store now holds what was sent."""
        return self.status in ("indexed", "unchanged", "deleted")


def find_documents(path: Path) -> tuple[list[FileDocument], list[Path]]:
    """Return the documents at ``path``, a file or a folder with all below it, and the files of other types.

    Hidden files and folders are left out of both.
    """
    root = path.resolve()
    documents, others = [], []
    for file in [root] if root.is_file() else _files(root):
        content_type = CONTENT_TYPES.get(file.suffix.lower())
        if content_type is None:
            others.append(file)
        else:
            documents.append(FileDocument(file, file.relative_to(root.parent).as_posix(), content_type))
    return documents, others


def outcome_of(record: Record) -> Outcome | None:
    """Return what ``record``, of one of :data:`OUTCOME_TOPICS`, says became of a document; None where it says nothing."""
    if isinstance(record, DocumentIndexed):
        return Outcome(record.status, record.request_id, record.document_id, record.chunks, record.reason or "")
    if isinstance(record, Verdict) and record.stage == "document" and record.action == "block":
        kinds = ", ".join(sorted({finding.kind for finding in record.findings if finding.action == "block"}))
        reason = f"guardrails found {kinds or 'what the policy blocks'}"
        return Outcome("quarantined", record.request_id, reason=reason)
    if isinstance(record, DeadLetter) and record.origin_topic in ("documents", "documents-screened"):
        document_id = (record.origin_key or b"").decode("utf-8", "replace")
        return Outcome("failed", document_id=document_id, reason=f"{record.code}: {record.reason}")
    return None


def _files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():  # a link may lead round in a circle
            yield from _files(entry)
        elif entry.is_file():
            yield entry


def _decoded(data: bytes, content_type: str) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    if b"\0" in data[:65_536]:
        raise Unreadable("a binary file with the suffix of a text: send text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    declared = _META_CHARSET.search(data[:4096]) if content_type == "text/html" else None
    try:
        return data.decode(declared[1].decode("ascii") if declared else "cp1252", "replace")
    except LookupError:  # a charset that does not exist
        return data.decode("cp1252", "replace")
