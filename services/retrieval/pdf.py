"""PDF to text, out of reach of what a poisoned file does to its reader."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
from penstock.bus import Transient

__all__ = ["PdfLimits", "PdfText", "PdfUnreadable", "read_pdf"]

_PROGRAM = Path(__file__).with_name("pdf_reading.py")


class PdfUnreadable(Exception):
    """No text can be had from the file; the message names the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class PdfLimits:
    """What reading one PDF may take: wall-clock seconds, mebibytes of address space, pages, characters of text."""

    timeout_s: float = 60.0
    memory_mb: int = 1024
    pages: int = 2000
    characters: int = 2_000_000


@dataclass(frozen=True, slots=True)
class PdfText:
    """The text of each page, in order, and the title that the file gives itself (empty where it gives none).

    ``outline`` holds its headings in their order: page from 0, level from 1, title.
    """

    title: str
    pages: tuple[str, ...]
    outline: tuple[tuple[int, int, str], ...] = ()


class _Answer(msgspec.Struct):
    title: str = ""
    pages: tuple[str, ...] = ()
    outline: tuple[tuple[int, int, str], ...] = ()
    failure: str | None = None


async def read_pdf(data: bytes, limits: PdfLimits) -> PdfText:
    """Return the text of a PDF, read by a process of its own that lives for this file alone.

    The process gets nothing of this one's environment, in which keys stand.

    Raises:
        PdfUnreadable: encrypted, broken, without text, or beyond a limit.
        Transient: the process could not be started.
    """
    # Its processor time is bounded for the case that this process ends before it.
    bounds = (limits.pages, limits.characters, limits.memory_mb * 2**20, int(limits.timeout_s) + 1)
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", str(_PROGRAM), *map(str, bounds), env={},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise Transient(f"a PDF waits: no process to read it could be started: {error}") from error
    try:
        async with asyncio.timeout(limits.timeout_s):
            said, _ = await child.communicate(data)
    except TimeoutError:
        raise _too_slow(limits) from None
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return _text(said, child.returncode, limits)


def _text(said: bytes, status: int | None, limits: PdfLimits) -> PdfText:
    if status == -signal.SIGKILL and not said:  # as a container's bound on memory ends a process
        raise PdfUnreadable("reading the PDF takes more memory than there is: split it, or give the service more")
    try:
        answer = msgspec.json.decode(said, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise PdfUnreadable(
            f"the PDF ended the process that read it (status {status}, within {limits.memory_mb} MiB of memory): write it "
            "anew, e.g. by `qpdf in.pdf out.pdf`, split it, or raise RETRIEVAL_PDF_MEMORY_MB"
        ) from None
    if answer.failure is not None:
        raise PdfUnreadable(answer.failure)
    return PdfText(answer.title, answer.pages, answer.outline)


def _too_slow(limits: PdfLimits) -> PdfUnreadable:
    return PdfUnreadable(
        f"reading the PDF takes more than {limits.timeout_s:g} s: split it, e.g. by `qpdf --split-pages=100 in.pdf "
        "out.pdf`, or raise RETRIEVAL_PDF_TIMEOUT_S"
    )
