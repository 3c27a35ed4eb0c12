"""Which language a text is in, as drift counts it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.text.language import available, group_of, identify, known_languages, language_of, without_code


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where can I find the invoice of last month?", "en"),
        ("WIR HABEN DIE RECHNUNG GESTERN GEPRÜFT UND EINEN FEHLER GEFUNDEN", "de"),
        ("Nous avons vérifié la facture hier et trouvé une erreur.", "fr"),
        ("昨日請求書を確認しましたが、残念ながら誤りがありました。", "ja"),
        ("Вчера мы проверили счёт и нашли в нём ошибку.", "ru"),
        ("Vi har kontrollert fakturaen og funnet en feil i den.", "nb"),
        ("ok", None),
        ("", None),
        ("https://www.beispiel.de/die/rechnung/ist/falsch/und/wir/haben/es/gemerkt.html", None),
        ("```\nfür jede zeile in der datei schreibe den wert in die tabelle\n```", None),
    ],
)
def test_the_language_of_a_text(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_languages_that_are_confused_count_as_one() -> None:
    assert {group_of(code) for code in ("no", "nn", "da", "nb")} == {"nb"}
    assert group_of("DE") == "de"


def test_the_first_characters_tell_and_the_rest_costs_nothing() -> None:
    english, german = "Please send us a corrected invoice. ", "Bitte schicken Sie uns eine neue Rechnung. "
    assert language_of(english * 20 + german * 5_000) == "en"


def test_the_model_is_here_and_names_its_languages() -> None:
    assert available()
    assert {"en", "de", "nb", "zh"} <= known_languages()
    code, confidence = identify("we checked the invoice yesterday and found a mistake")
    assert code == "en"
    assert 0.5 < confidence <= 1.0


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_has_a_known_language_or_none(text: str) -> None:
    assert len(without_code(text)) == len(text)
    found = language_of(text)
    assert found is None or found == group_of(found)
