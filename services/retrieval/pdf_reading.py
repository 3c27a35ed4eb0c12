"""The program that reads one PDF, in a process of its own: PDF on its standard input, one JSON object on its output.

Run by path and isolated (``python -I``), with bounds on itself that it sets before it looks at the file: whatever a file
does to the reader, it does to this process alone. What it prints is ``{"title": ..., "pages": [...], "outline": [...]}``,
or ``{"failure": ...}`` with the cause and the remedy.
"""

import contextlib
import json
import logging
import os
import resource
import sys
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict

__all__ = ["Read", "read_pdf"]


# Of an outline, and characters of a title or of an entry: a small file may name one text of megabytes thousands of times.
_MOST_ENTRIES, _MOST_NAME = 10_000, 500


class Read(TypedDict, total=False):
    """What became of a PDF: ``failure`` alone, or the three others."""

    title: str
    pages: list[str]
    outline: list[tuple[int, int, str]]
    failure: str


def read_pdf(data: bytes, most_pages: int, most_characters: int) -> Read:
    """Return the text of each page of ``data``, the title that the file gives itself, and its outline (the bookmarks beside
    the pages): page from 0, level from 1, title. Nothing is raised."""
    from pypdf import PdfReader, errors

    number = 0
    try:
        reader = PdfReader(BytesIO(data))
        # Many files are encrypted without a password, against changes: anybody may read them.
        if reader.is_encrypted and not reader.decrypt(""):
            return _failure(
                "the PDF is encrypted with a password: send it without one, e.g. what "
                "`qpdf --decrypt --password=PASSWORD in.pdf out.pdf` writes"
            )
        count = len(reader.pages)
        if count > most_pages:
            return _failure(
                f"the PDF has {count} pages, at most {most_pages} are read: split it, e.g. by "
                f"`qpdf --split-pages={most_pages} in.pdf out.pdf`, or raise RETRIEVAL_PDF_PAGES"
            )
        pages: list[str] = []
        size = 0
        for number in range(1, count + 1):
            pages.append(reader.pages[number - 1].extract_text())
            size += len(pages[-1])
            if size > most_characters:
                return _failure(
                    f"the first {number} of {count} pages have {size} characters already, at most {most_characters} are "
                    "indexed: split it, or raise RETRIEVAL_MAX_DOCUMENT_CHARACTERS"
                )
        if not any(page.strip() for page in pages):
            return _failure(
                f"no text was found on the PDF's {count} pages; where they are pictures of text, as scanners make them, "
                "add the text first, e.g. by `ocrmypdf in.pdf out.pdf`"
            )
        return Read(title=_title(reader), pages=pages, outline=_outline(reader))
    except (MemoryError, errors.LimitReachedError):
        return _failure(
            "reading the PDF takes more memory than it may: split it, write it anew with its pictures made smaller, or "
            "raise RETRIEVAL_PDF_MEMORY_MB"
        )
    except errors.DependencyError as error:
        return _failure(f"the PDF is encrypted in a way that is not read ({error}): send it decrypted")
    except (Exception, RecursionError) as error:
        where = f"page {number} of the PDF" if number else "the PDF"
        cause = f"{type(error).__name__}: {error}"[:300]
        return _failure(
            f"{where} cannot be read ({cause}): write it anew, e.g. by `qpdf in.pdf out.pdf`, or send its text"
        )


def _failure(reason: str) -> Read:
    return Read(failure=reason)


def _title(reader: Any) -> str:
    try:
        return str(reader.metadata.title or "")[:_MOST_NAME] if reader.metadata else ""
    except Exception:  # a title is no reason to leave a document out
        return ""


def _outline(reader: Any) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []

    def walk(entries: Any, level: int) -> None:
        for entry in entries:
            if isinstance(entry, list):
                walk(entry, level + 1)
            elif (page := reader.get_destination_page_number(entry)) is not None:
                found.append((page, level, str(entry.title or "")[:_MOST_NAME]))

    try:
        walk(reader.outline, 1)
    except Exception:  # nor is an outline
        return []
    return found[:_MOST_ENTRIES]


def main() -> None:
    """Read the PDF on the standard input; arguments: most pages, most characters, bytes of memory, seconds of CPU."""
    most_pages, most_characters, memory, seconds = map(int, sys.argv[1:])
    with contextlib.suppress(OSError):  # where memory runs out in spite of the bound, it is this process that ends
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    logging.disable(logging.CRITICAL)
    answer = read_pdf(sys.stdin.buffer.read(), most_pages, most_characters)
    # Escapes keep half a surrogate pair, which UTF-8 has no bytes for.
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
