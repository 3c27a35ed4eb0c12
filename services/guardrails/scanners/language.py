"""Finds texts in a language that the policy does not let through, and answers in another language than the question's.

Stretch by stretch, with the model that penstock.text.language reads. What is no prose (code, addresses, markup,
identifiers, numbers) is taken out first, and where too little prose is left nothing is found.
"""

import re
from collections import Counter
from collections.abc import Iterable

from penstock.text.language import WORD, as_prose, group_of, identify, known_languages, tells, without_code

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.segments import sentences

_BLOCK = 400
"""Characters judged together: enough to be sure, and a foreign paragraph of a longer text is still seen."""
_MIN_SHARE = 0.3
"""Share of a text's judged letters at which a foreign language counts with its whole confidence: a quoted line in
another language does not make the text foreign."""
_SURE_OF_QUESTION = 0.6

_PARAGRAPH = re.compile(r"\n\s*\n")
_CODE = re.compile(r"[{}\[\]();=<>|\\$&^~*+]")
# As an English, and as their own speakers call them: a question may ask for an answer in another language.
_NAMED = {
    "ar": "arabic العربية", "bg": "bulgarian български", "cs": "czech česky češtiny", "da": "danish dansk",
    "de": "german deutsch deutsche deutschen", "el": "greek ελληνικά", "en": "english anglais englische englischen inglés "
    "inglese englisch inglês английский angielski 英語 英语 영어",
    "es": "spanish español castellano espagnol spanisch spagnolo",
    "et": "estonian eesti", "fa": "persian farsi فارسی", "fi": "finnish suomeksi suomi", "fr": "french français "
    "française francés französisch francese", "he": "hebrew עברית", "hi": "hindi हिन्दी हिंदी", "hr": "croatian serbian "
    "bosnian hrvatski srpski", "hu": "hungarian magyar magyarul", "id": "indonesian malay indonesia",
    "it": "italian italiano italien italienisch", "ja": "japanese 日本語", "ko": "korean 한국어", "lt": "lithuanian",
    "lv": "latvian", "nb": "norwegian norsk", "nl": "dutch nederlands", "pl": "polish polski polsku",
    "pt": "portuguese português portugais", "ro": "romanian română", "ru": "russian русский русском", "sk": "slovak",
    "sl": "slovenian slovene", "sv": "swedish svenska", "sw": "swahili", "th": "thai ไทย", "tr": "turkish türkçe",
    "uk": "ukrainian українська українською", "ur": "urdu", "vi": "vietnamese việt", "zh": "chinese mandarin 中文",
    "la": "latin", "ca": "catalan català", "cy": "welsh", "ga": "irish gaelic",
}  # fmt: skip
_LANGUAGE_OF_NAME = {name: code for code, names in _NAMED.items() for name in names.split()}
_SPACELESS = re.compile("日本語|中文|英語|英语|영어|한국어|ไทย")


class LanguageScanner:
    """One span per foreign language: its kind is the language's ISO 639-1 code (639-3 where it has none).

    The score is the model's confidence, lessened where the language holds less than three tenths of the text. Under
    `rule.languages` every language is foreign that the rule does not list; under `rule.same_language` every one that
    neither is the question's nor is named in it. Languages that the model confuses (Norwegian and Danish, Croatian and
    Serbian, ...) count as one.
    """

    name = "language"
    version = "1+lid.176.ftz"
    default_threshold = 0.65

    def check(self, rule: Rule) -> None:
        """Raise ValueError for a code that the model does not know, or where the model is not installed."""
        known = known_languages()
        if unknown := sorted(code for code in rule.languages if code.lower() not in known):
            raise ValueError(
                f"languages: {', '.join(unknown)} is no language that can be recognised: give ISO 639-1 codes, e.g. en, de"
            )

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        allowed = [frozenset(map(group_of, rule.languages))] if rule.languages else []
        if rule.same_language and reference.question:
            expected = _expected(reference.question)
            if expected:
                allowed.append(expected)
        if not allowed:
            return []
        blocks = []
        for start, end, prose in _blocks(text):
            reference.checkpoint()
            blocks.append((start, end, len(prose), *identify(prose)))
        total = sum(letters for _, _, letters, _, _ in blocks)
        found = []
        for language in dict.fromkeys(language for _, _, _, language, _ in blocks):
            if all(group_of(language) in group for group in allowed):
                continue
            own = [block for block in blocks if block[3] == language]
            letters = sum(block[2] for block in own)
            confidence = sum(block[2] * block[4] for block in own) / letters
            score = min(1.0, confidence * min(1.0, letters / total / _MIN_SHARE))
            found.append(Span(language, own[0][0], own[-1][1], score))
        return found


def _blocks(text: str) -> Iterable[tuple[int, int, str]]:
    """(start, end, prose) of stretches with enough prose to be judged."""
    blanked = without_code(text)
    pending: list[str] = []
    first = last = size = 0
    for start, end in sentences(blanked, _BLOCK):
        piece = blanked[start:end]
        words = WORD.findall(piece)
        if len(_CODE.findall(piece)) >= 2 + len(words) // 8:
            continue
        if pending and _PARAGRAPH.search(blanked, last, start) and tells(pending):
            yield first, last, as_prose(pending)
            pending, size = [], 0
        if not pending:
            first = start
        pending += words
        last, size = end, size + end - start
        if size >= _BLOCK // 2:
            if tells(pending):
                yield first, last, as_prose(pending)
                pending, size = [], 0
            elif size > 20 * _BLOCK:  # digits and signs: nothing to tell
                pending, size = [], 0
    if pending and tells(pending):
        yield first, last, as_prose(pending)


def _expected(question: str) -> frozenset[str]:
    """Languages that an answer to `question` may be in; empty where that cannot be told."""
    votes: Counter[str] = Counter()
    for _, _, prose in _blocks(question):
        language, confidence = identify(prose)
        if confidence < _SURE_OF_QUESTION:
            return frozenset()
        votes[group_of(language)] += len(prose)
    if not votes:
        return frozenset()
    names = [word.lower() for word in WORD.findall(question)] + _SPACELESS.findall(question)
    return frozenset(votes) | {group_of(_LANGUAGE_OF_NAME[name]) for name in names if name in _LANGUAGE_OF_NAME}
