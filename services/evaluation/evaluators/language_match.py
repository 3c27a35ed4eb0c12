"""Whether the answer is in the language of the question."""

from __future__ import annotations

import re

from penstock.text.language import WORD, as_prose, group_of, identify, tells, without_code

from services.evaluation.evaluators.own import evaluator
from services.evaluation.evaluators.protocol import Exchange, Judged

__all__ = ["language_match"]

_MOST = 2_000
"""Characters of a text that its language is told by."""


@evaluator("language_match", version="lid176-1", threshold=0.5, labels=("mismatch", "match"))
def language_match(exchange: Exchange) -> Judged | None:
    """1 where the answer is in the question's language; else how sure it is not another, down to 0.

    Nothing is said where either is too short to tell or is code alone, or where the languages differ and the question or
    the instructions name one or ask for a translation: what is wanted is then not the question's own. Nor where a question
    that brings a text along ("Summarise this: ...") begins or ends in the answer's language.
    """
    asked, answered = _language(exchange.question), _language(exchange.answer)
    if asked is None or answered is None:
        return None
    (wanted, sure), (given, confidence) = asked, answered
    if wanted == given:
        return Judged(1.0)
    instructions = (each.content for each in exchange.messages if each.role in ("system", "developer"))
    if any(map(_names_a_language, (exchange.question, *instructions))):
        return None
    if _is_told_in(given, exchange.question):
        return None
    return Judged(round(1 - min(sure, confidence), 4), reason=f"asked in {wanted}, answered in {given}")


def _language(text: str) -> tuple[str, float] | None:
    words = WORD.findall(without_code(text[:_MOST]))
    if not tells(words):
        return None
    code, confidence = identify(as_prose(words))
    return (group_of(code), confidence) if confidence >= 0.5 else None


_NAMES = frozenset(
    """translate translation translated traduire traduis traduction traducir traduce traducción übersetze übersetzen
    übersetzung tradurre traduci traduzir traduza english englisch anglais inglés inglese inglês french französisch
    français francés francese francês german deutsch allemand alemán tedesco alemão spanish spanisch espagnol español
    spagnolo espanhol italian italienisch italien italiano portuguese portugiesisch portugais portugués português dutch
    polish russian ukrainian turkish arabic hebrew hindi chinese mandarin japanese korean swedish danish norwegian
    finnish greek czech latin language sprache langue idioma lingua vietnamese thai indonesian romanian
    hungarian englische englischen deutsche deutschen französische französischen spanische spanischen italienische
    italienischen vertaal vertalen vertaling engels duits frans spaans italiaans nederlands przetłumacz angielski
    angielsku niemiecki niemiecku polski polsku ingilizce türkçe almanca çevir""".split()
)
# In scripts without spaces a name is part of a longer word; in Russian it has endings.
_NAMES_WITHIN = re.compile(
    "翻译|翻譯|翻訳|英文|英语|英語|中文|汉语|漢語|中国語|法语|法語|德语|德語|日语|日文|日本語|韩语|韓語|번역|영어|한국어|일본어"
    "|перевед|перевод|перевест|английск|русск|немецк|французск|испанск"
)
_TEXT_FOLLOWS = re.compile(r"[:：\n]")


def _names_a_language(question: str) -> bool:
    words = [word.lower() for word in WORD.findall(question)]
    return not _NAMES.isdisjoint(words) or any(map(_NAMES_WITHIN.search, words))


def _is_told_in(language: str, question: str) -> bool:
    """Whether what stands before or behind a text that is brought along is in ``language``."""
    pieces = [words for part in _TEXT_FOLLOWS.split(question[:_MOST]) if len(words := WORD.findall(part)) > 1]
    if len(pieces) < 2:
        return False
    told = (identify(as_prose(words)) for words in (pieces[0], pieces[-1]))
    return any(group_of(code) == language and confidence >= 0.5 for code, confidence in told)
