"""Bytes to text: what is declared, what the bytes show, and what is told by the words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.text.charset import NotText, declared_charset, decode_text

SENTENCES = [
    ("cp1252", "Zürich – café. Die Mühle steht am Fluß und mahlt jeden Morgen Weizen für die ganze Stadt."),
    ("cp1252", "Le moulin se trouve près de la rivière, où l’été est très chaud. À côté, une église."),
    ("cp1252", "Zürich – café"),
    ("cp1250", "Młyn stoi nad rzeką i codziennie rano miele pszenicę. Źródło żółtej łąki."),
    ("iso8859_2", "Mlýn stojí u řeky a každé ráno mele pšenici. Příliš žluťoučký kůň úpěl ďábelské ódy."),
    ("cp1254", "Değirmen nehrin kıyısında duruyor ve her sabah buğday öğütüyor. Şehir için çok önemli."),
    ("cp1251", "Мельница стоит на берегу реки и каждое утро мелет пшеницу для города."),
    ("cp1251", "Мельница мелет зерно, а плотина поднимает воду. Сторож открывает ворота в полдень. " * 5),
    ("koi8_r", "Мельница стоит на берегу реки и каждое утро мелет пшеницу для города."),
    ("cp1253", "Ο μύλος βρίσκεται στην όχθη του ποταμού και αλέθει σιτάρι κάθε πρωί."),
    ("cp1256", "تقع الطاحونة على ضفة النهر وتطحن القمح كل صباح."),
    ("cp1255", "הטחנה עומדת על גדת הנהר וטוחנת חיטה בכל בוקר."),
    ("cp874", "โรงสีตั้งอยู่ริมแม่น้ำและโม่ข้าวสาลีทุกเช้า"),
    ("shift_jis", "水車は川の水で回り、毎朝小麦を挽きます。ゲートは正午に開きます。"),
    ("euc_jp", "水車は川の水で回り、毎朝小麦を挽きます。ゲートは正午に開きます。"),
    ("euc_jp", "A水車は小麦を挽き、堰は水を上げる。" * 5),
    ("iso2022_jp", "水車は川の水で回り、毎朝小麦を挽きます。"),
    ("gb18030", "水车由河水推动，每天早晨研磨小麦。闸门在中午打开。"),
    ("big5", "水車由河水推動，每天早晨研磨小麥。閘門在中午打開。"),
    ("euc_kr", "물레방아는 강물로 돌아가며 매일 아침 밀을 빻습니다."),
    ("utf-16", "Wheat is ground. Zürich"),
    ("utf-16-le", "Wheat is ground. Zürich"),
    ("utf-16-be", "Wheat is ground. Zürich"),
    ("utf-32", "Wheat is ground. 水車"),
    ("utf-8-sig", "Zürich"),
]  # fmt: skip


@pytest.mark.parametrize(("encoding", "text"), SENTENCES)
def test_an_encoding_that_nothing_names_is_found(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("content_type", "data", "text"),
    [
        ("text/plain; charset=iso-8859-2", "Łódź".encode("iso-8859-2"), "Łódź"),
        ('text/markdown; Charset="Shift_JIS"', "水車".encode("shift_jis"), "水車"),
        ("text/plain; charset=no-such", "Łódź".encode(), "Łódź"),
        ("text/plain; charset=ascii", "Łódź".encode(), "Łódź"),
        ("text/plain; charset=hex", b"abcd", "abcd"),
        ("text/html", '<meta charset="koi8-r"><p>мир'.encode("koi8-r"), '<meta charset="koi8-r"><p>мир'),
        ("text/plain", b'<meta charset="koi8-r">caf\xe9', '<meta charset="koi8-r">café'),
    ],
)
def test_a_declared_charset_counts_where_the_bytes_keep_to_it(content_type: str, data: bytes, text: str) -> None:
    assert decode_text(data, content_type) == text


GERMAN = "Die Mühle steht am Fluß und mahlt für die ganze Stadt.\n"
RUSSIAN = "Мельница мелет зерно, а плотина поднимает воду.\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ((GERMAN * 9).encode() + b"\xff\n" + GERMAN.encode(), f"{GERMAN * 9}\ufffd\n{GERMAN}"),
        ((RUSSIAN * 9).encode() + RUSSIAN.strip("\n.").encode()[:-1], f"{RUSSIAN * 9}{RUSSIAN[:-3]}\ufffd"),
        ((GERMAN * 9).encode() + GERMAN.encode("cp1252") + GERMAN.encode(), GERMAN * 11),
        ((GERMAN * 9).encode("cp1252") + "für alle".encode(), GERMAN * 9 + "fÃ¼r alle"),
        ("水車は小麦を挽く。".encode()[:-1], "水車は小麦を挽く\ufffd"),
    ],
    ids=["one-byte", "cut-off", "one-line-of-another", "mostly-another", "short-and-cut-off"],
)
def test_utf8_with_a_few_other_bytes_is_utf8(data: bytes, text: str) -> None:
    assert decode_text(data) == text


def test_what_is_far_down_tells_too() -> None:
    text = "Only ASCII in this line.\n" * 4000 + "Мельница стоит на берегу реки и каждое утро мелет пшеницу.\n" * 900
    assert decode_text(text.encode("cp1251")) == text


@pytest.mark.parametrize("data", [b"\x00\x01\x02", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00"])
def test_a_binary_file_is_none(data: bytes) -> None:
    with pytest.raises(NotText, match="binary"):
        decode_text(data)


@given(st.text(alphabet=st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"])))
def test_utf8_is_read_as_it_is(text: str) -> None:
    if "\x1b$" not in text:  # an escape of ISO 2022
        assert decode_text(text.encode()) == text


@given(st.binary(max_size=200))
def test_any_bytes_become_text_or_are_none(data: bytes) -> None:
    try:
        decode_text(data).encode("utf-8")
    except NotText:
        assert b"\0" in data


def test_the_parameter_of_a_content_type() -> None:
    assert declared_charset('text/html; level=1; charset="utf-8"') == "utf-8"
    assert declared_charset("text/html") is None
