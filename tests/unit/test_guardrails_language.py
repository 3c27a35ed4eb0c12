"""The language scanner: what it finds, and what it leaves alone because it is no prose or too little of it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.guardrails.findings import Reference, Rule
from services.guardrails.scanners.language import LanguageScanner

SCANNER = LanguageScanner()
NOTHING = Reference()

GERMAN = "Wir haben die Rechnung gestern geprüft und leider einen Fehler gefunden, bitte schicken Sie uns eine neue."
FRENCH = "Nous avons vérifié la facture hier et nous avons malheureusement trouvé une erreur dans le montant total."
ENGLISH = "We checked the invoice yesterday and unfortunately found a mistake, please send us a corrected one."
RUSSIAN = "Вчера мы проверили счёт и, к сожалению, нашли в нём ошибку, пришлите нам новый."
JAPANESE = "昨日請求書を確認しましたが、残念ながら誤りがありました。"


def rule(*languages: str, same: bool = False) -> Rule:
    return Rule("block", 0.5, True, languages=frozenset(languages), same_language=same)


def kinds(text: str, given_rule: Rule, question: str = "") -> list[str]:
    found = SCANNER.scan(text, given_rule, Reference(question=question))
    return [span.kind for span in found if span.score >= SCANNER.default_threshold]


@pytest.mark.parametrize(
    ("text", "kind"), [(GERMAN, "de"), (FRENCH, "fr"), (RUSSIAN, "ru"), (JAPANESE, "ja"), (GERMAN.upper(), "de")]
)
def test_a_text_in_another_language_is_found(text: str, kind: str) -> None:
    assert kinds(text, rule("en")) == [kind]
    assert kinds(text, rule("en", kind)) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "Jean-Pierre Dupont, Karl Müller, Zoë Bäcker, François Lefèvre, Günther Weiß, Amélie Rousseau",
        "for (int i = 0; i < n; i++) { summe += werte[i]; } return summe;",
        "```\nfür jede zeile in der datei schreibe den wert in die tabelle und lies die nächste zeile\n```",
        "https://www.beispiel.de/die/rechnung/ist/falsch/und/wir/haben/es/gestern/gemerkt.html",
        "550e8400-e29b-41d4-a716-446655440000 deadbeef 0xCAFEBABE",
        "SELECT id, nombre FROM usuarios WHERE activo = 1 AND pais = 'ES';",
        "12.05.2026 13:37 +49 30 1234567 84,20 EUR",
    ],
)
def test_what_is_no_prose_or_too_little_of_it_is_left_alone(text: str) -> None:
    assert kinds(text, rule("en")) == []


def test_a_foreign_paragraph_has_its_place_and_a_quoted_line_does_not_count() -> None:
    text = f"{ENGLISH}\n\n{FRENCH} {FRENCH}\n"
    (span,) = [span for span in SCANNER.scan(text, rule("en"), NOTHING) if span.score >= 0.65]
    assert (span.kind, text[span.start : span.end]) == ("fr", f"{FRENCH} {FRENCH}")
    assert kinds(f"{ENGLISH} " * 6 + "\n\nC'est la vie, mon ami, on verra bien demain.", rule("en")) == []


def test_languages_that_cannot_be_told_apart_are_let_through_together() -> None:
    assert kinds("Vi har desværre fundet en fejl på den regning, som I sendte os i går.", rule("nb")) == []


def test_an_answer_keeps_to_the_language_of_the_question() -> None:
    same = rule(same=True)
    assert kinds(GERMAN, same, question=ENGLISH) == ["de"]
    assert kinds(ENGLISH, same, question=ENGLISH) == []
    assert kinds(ENGLISH, same, question=GERMAN) == ["en"]
    assert kinds(GERMAN, same, question="ok") == [], "nothing is known of the question's language"
    assert kinds(GERMAN, same) == []


def test_a_question_may_ask_for_another_language() -> None:
    same = rule(same=True)
    assert kinds(GERMAN, same, question="Please translate this letter to German: we found a mistake in it") == []
    assert kinds(ENGLISH, same, question="Bitte übersetzen Sie diesen Absatz ins Englische, so gut es eben geht") == []


def test_both_options_together_must_hold() -> None:
    both = rule("en", "de", same=True)
    assert kinds(GERMAN, both, question=ENGLISH) == ["de"]
    assert kinds(FRENCH, both, question=FRENCH) == ["fr"]


def test_an_unknown_code_is_refused_with_the_remedy() -> None:
    SCANNER.check(rule("en", "nb", "zh"))
    with pytest.raises(ValueError, match="klingon is no language that can be recognised: give ISO 639-1 codes"):
        SCANNER.check(rule("en", "klingon"))


@given(
    st.text(max_size=600) | st.lists(st.sampled_from([GERMAN, JAPANESE, "```", "\ud800", "<b>", "\n"])).map(" ".join)
)
@settings(deadline=None)
def test_any_text_is_judged_alike_twice_and_spans_lie_within_it(text: str) -> None:
    found = SCANNER.scan(text, rule("en", same=True), Reference(question=text))
    assert found == SCANNER.scan(text, rule("en", same=True), Reference(question=text))
    assert all(0 <= span.start < span.end <= len(text) and 0 <= span.score <= 1 for span in found)


@pytest.mark.parametrize("unit", [GERMAN + " ", "a.b", "```", "<a ", "`", "1 ", "x", "\n", "@", "aA/"])
def test_time_grows_with_the_length_alone(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * (length // len(unit) + 1))[:length]
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            SCANNER.scan(text, rule("en"), NOTHING)
            best = min(best, time.thread_time() - started)
        return best

    seconds(1000)
    assert seconds(32_000) <= 8 * seconds(8_000) + 0.02
