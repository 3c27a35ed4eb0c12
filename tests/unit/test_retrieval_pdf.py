"""PDFs: what is read, what is not and why, and what of a page is left out."""

from __future__ import annotations

import asyncio
import contextlib

import psutil
import pytest

from services.retrieval.cleaning import PAGED_TEXT, clean_document
from services.retrieval.paged_text import tidy_pages, tidy_title, with_headings
from services.retrieval.pdf import PdfLimits, PdfUnreadable, read_pdf
from services.retrieval.pdf_reading import read_pdf as read_here
from tests.unit.pdf_files import encrypted, outlined, pdf_of


def readers() -> list[psutil.Process]:
    """Return the processes of this one that read a PDF."""
    found = []
    for each in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a child of another test that ends now
            if "pdf_reading" in " ".join(each.cmdline()):
                found.append(each)
    return found


async def test_pages_and_the_title_are_read_in_a_process_of_its_own() -> None:
    said = ["The mill\nThe weir raises the water.", "Gate 3 opens at noon: 東京, Łódź."]
    read = await read_pdf(pdf_of(said, "Guide"), PdfLimits())
    assert (read.title, list(read.pages)) == ("Guide", said)
    assert not readers()


@pytest.mark.parametrize(
    ("data", "cause", "remedy"),
    [
        (encrypted(pdf_of(["secret"]), "word"), "encrypted with a password", "qpdf --decrypt"),
        (pdf_of(["", ""]), "no text was found on the PDF's 2 pages", "ocrmypdf"),
        (b"%PDF-1.4 and nothing else", "cannot be read", "qpdf in.pdf out.pdf"),
        (pdf_of(["a page"] * 3)[:-900], "cannot be read", "qpdf in.pdf out.pdf"),
        (b"", "cannot be read", "qpdf in.pdf out.pdf"),
        (pdf_of(["a page"] * 5), "has 5 pages, at most 4", "RETRIEVAL_PDF_PAGES"),
        (pdf_of(["x" * 400] * 3), "800 characters already, at most 500", "RETRIEVAL_MAX_DOCUMENT_CHARACTERS"),
        (pdf_of(["x"], drawn=b" " * 80_000_000), "more memory than it may", "RETRIEVAL_PDF_MEMORY_MB"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_why_and_what_to_do(data: bytes, cause: str, remedy: str) -> None:
    reason = read_here(data, most_pages=4, most_characters=500).get("failure", "")
    assert cause in reason
    assert remedy in reason


def test_a_pdf_that_is_encrypted_against_changes_alone_is_read() -> None:
    assert read_here(encrypted(pdf_of(["anybody may read it"]), ""), 4, 500).get("pages") == ["anybody may read it"]


async def test_a_pdf_that_takes_too_long_is_given_up_and_its_process_ended() -> None:
    slow = pdf_of(["x"], drawn=b"BT /F 9 Tf <0001> Tj ET " * 1_000_000)
    with pytest.raises(PdfUnreadable, match=r"more than 0\.8 s.*RETRIEVAL_PDF_TIMEOUT_S"):
        await read_pdf(slow, PdfLimits(timeout_s=0.8))
    assert not readers()


async def test_a_pdf_that_takes_too_much_memory_ends_its_process_alone() -> None:
    bomb = pdf_of(["x"], drawn=b" " * 70_000_000)
    with pytest.raises(PdfUnreadable, match="RETRIEVAL_PDF_MEMORY_MB"):
        await read_pdf(bomb, PdfLimits(memory_mb=128))


async def test_whoever_stops_waiting_ends_the_process() -> None:
    slow = pdf_of(["x"], drawn=b"BT /F 9 Tf <0001> Tj ET " * 1_000_000)
    reading = asyncio.create_task(read_pdf(slow, PdfLimits()))
    async with asyncio.timeout(10):
        while not readers():
            await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not readers()


def test_an_outline_makes_headings_of_the_lines_it_names() -> None:
    pages = [
        "The mill\nBy nobody",
        "1.2  The weir and\nits gates\nWater.\nThe weir and its gates are old.\nThe sluice\nOak.",
    ]
    outline = [
        (0, 1, "The mill"),
        (1, 2, "The weir and its gates"),
        (1, 3, "The sluice"),
        (1, 3, "Not there"),
        (7, 1, "Gone"),
    ]
    read = read_here(outlined(pdf_of(pages), outline[:-1]), 4, 500)
    assert read.get("outline") == outline[:-1]
    first, second = with_headings(pages, outline)
    assert first == "\nThe mill\n========\n\nBy nobody"
    assert second == (
        "\n1.2 The weir and its gates\n--------------------------\n\nWater.\nThe weir and its gates are old.\n"
        "\nThe sluice\n~~~~~~~~~~\n\nOak."
    )
    document = clean_document("\f".join([first, second]), PAGED_TEXT)
    paths = {document.text[block.start : block.end]: block.path for block in document.blocks}
    assert paths["Oak."] == ("The mill", "1.2 The weir and its gates", "The sluice")
    assert document.title == ""
    assert with_headings(pages, []) == pages


def test_words_that_a_line_cuts_are_whole_again() -> None:
    (page,) = tidy_pages(
        ["A water-\nwheel turns. The mil-\n  ler knows the water-wheel. Hydro\u00ad\npower; North-\nEast; a 3-\n4"]
    )
    assert page == "A water-wheel turns. The miller knows the water-wheel. Hydropower; North-East; a 3-\n4"


def test_the_dots_of_a_table_of_contents_are_one_sign() -> None:
    assert tidy_pages(["1 Weir . . . . . . . 7\n2 Gate........9\nWait... what?"]) == [
        "1 Weir … 7\n2 Gate …9\nWait... what?"
    ]


def test_running_heads_and_page_numbers_are_left_out_and_what_differs_stays() -> None:
    pages = [f"Manual of the mill\nExercise {n}\nTurn the crank {n} times.\nPage {n} of 5" for n in range(1, 6)]
    assert tidy_pages(pages) == [f"Exercise {n}\nTurn the crank {n} times." for n in range(1, 6)]
    assert tidy_pages(pages[:3]) == pages[:3], "three pages tell nothing"


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("Guide to  the mill", "Guide to the mill"), ("Microsoft Word - guide.docx", ""), ("guide_v2.indd", ""),
        ("untitled", ""), ("Word and image", "Word and image"), ("Words of the miller", "Words of the miller"),
    ],
)  # fmt: skip
def test_a_title_that_a_program_gave_is_none(title: str, kept: str) -> None:
    assert tidy_title(title) == kept


def test_of_a_title_and_of_what_an_outline_names_the_beginning_is_read() -> None:
    read = read_here(outlined(pdf_of(["A mill."], title="t" * 10_000), [(0, 1, "x" * 10_000)]), 4, 500)
    assert read.get("title") == "t" * 500
    assert read.get("outline") == [(0, 1, "x" * 500)]
