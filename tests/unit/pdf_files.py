"""PDFs written by hand: what a page says, in any script, and nothing that a program would add."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from pypdf import PdfReader, PdfWriter


def pdf_of(pages: Sequence[str], title: str | None = None, drawn: bytes | None = None) -> bytes:
    """Return a PDF whose pages say ``pages``, line by line; an empty one has no text operator at all.

    Text that runs from right to left is to be given in the order of its glyphs from the left, as it is drawn. The one
    font maps character codes of two bytes to what stands in the pages (ToUnicode), as programs write any script.

    Args:
        title: what the file calls itself.
        drawn: operators that stand in the place of those of every page.
    """
    signs = sorted({sign for page in pages for sign in page if sign != "\n"})
    code = {sign: number for number, sign in enumerate(signs, 1)}
    mapped = "".join(f"<{code[sign]:04x}> <{sign.encode('utf-16-be').hex()}>\n" for sign in signs)
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /Made def /CMapType 2 def\n"
        "1 begincodespacerange <0000> <ffff> endcodespacerange\n"
        f"{len(signs)} beginbfchar\n{mapped}endbfchar endcmap end end"
    )
    kids = " ".join(f"{6 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Made /Encoding /Identity-H /DescendantFonts [4 0 R] /ToUnicode 5 0 R >>",
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Made /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) "
        b"/Supplement 0 >> /DW 600 >>",
        _stream(cmap.encode()),
    ]
    for number, page in enumerate(pages):
        content = 7 + 2 * number
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {content} 0 R /Resources "
            "<< /Font << /F 3 0 R >> >> >>".encode()
        )
        objects.append(_stream(_shown(page, code) if drawn is None else drawn))
    info = ""
    if title is not None:
        objects.append(f"<< /Title ({title}) >>".encode("latin-1"))
        info = f" /Info {len(objects)} 0 R"
    out = BytesIO(b"%PDF-1.7\n")
    out.seek(0, 2)
    places = []
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(f"{number} 0 obj\n".encode() + body + b"\nendobj\n")
    table = out.tell()
    rows = "".join(f"{place:010d} 00000 n \n" for place in places)
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{rows}".encode())
    out.write(f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R{info} >>\nstartxref\n{table}\n%%EOF".encode())
    return out.getvalue()


def outlined(data: bytes, outline: Sequence[tuple[int, int, str]]) -> bytes:
    """Return ``data`` with an outline: page from 0, level from 1, title."""
    writer = PdfWriter(clone_from=PdfReader(BytesIO(data)))
    above: list[Any] = []
    for page, level, title in outline:
        del above[level - 1 :]
        above.append(writer.add_outline_item(title=title, page_number=page, parent=above[-1] if above else None))
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def encrypted(data: bytes, password: str) -> bytes:
    """Return ``data`` encrypted so that it opens with ``password``; with an empty one anybody may read it."""
    writer = PdfWriter(clone_from=PdfReader(BytesIO(data)))
    writer.encrypt(user_password=password, owner_password="of the owner", algorithm="AES-256")
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def _stream(data: bytes) -> bytes:
    packed = zlib.compress(data)
    return f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n".encode() + packed + b"\nendstream"


def _shown(page: str, code: dict[str, int]) -> bytes:
    if not page:
        return b"0 0 10 10 re f"
    lines = " T* ".join(f"<{''.join(f'{code[sign]:04x}' for sign in line)}> Tj" for line in page.split("\n"))
    return f"BT /F 10 Tf 12 TL 72 720 Td {lines} ET".encode()
