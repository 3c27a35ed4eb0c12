# ruff: noqa: E501 - tables of words
"""Summaries and claims made by rule, faithful and not, to learn and to measure groundedness by.

Errors are of the kinds that people find in machine-made summaries: names exchanged, numbers changed, what one did said of
another, denial, things that the article does not say. The faithful ones are shortened, joined and reworded in the same ways,
so that only what is said tells the two apart. Claims are questions that people asked of an article in words of their own,
with an answer put in: the right one, or that to another question.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.text.groundedness_words import sentence_spans

__all__ = ["CLAIM_ERRORS", "ERRORS", "Article", "Summary", "article", "claims", "summaries"]

ERRORS = (
    "name", "number", "subject", "splice", "roles", "negation", "predicate", "invented", "invented_part", "elsewhere",
)  # fmt: skip
CLAIM_ERRORS = ("own_answer", "other_answer")
"""The answer is that to another question on the same article, or on another one."""
_NAME = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][a-z]+(?:\s+(?:of\s+|the\s+)?[A-Z][a-z]+)*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_AUXILIARY = re.compile(r"\b(is|are|was|were|has|have|had|can|could|will|would|may|must|should)\b")
_VERB_END = re.compile(r"\b[a-z]{3,}(?:ed|ing)\b")
_ASKED = re.compile(
    r"\b(?:[Ii]n |[Oo]n |[Aa]t )?(?:[Ww]hat|[Ww]hich|[Hh]ow many|[Hh]ow much|[Ww]ho|[Ww]hose|[Ww]here|[Ww]hen)\b"
    r"(?: (?:year|type|kind|group|person|country|city|name)s?)?(?: (?:did|does|do|is|was|were|are)(?= (?:the|[A-Z])))?"
)
_LONGEST_ANSWER = 6
_SAYINGS = {
    "because of": "due to", "in order to": "to", "approximately": "about", "however": "but", "began": "started",
    "located": "situated", "many": "numerous", "large": "big", "during": "in", "received": "got", "became": "turned into",
    "used": "employed", "also": "", "first": "initially", "such as": "like", "including": "among them", "built": "constructed",
    "people": "persons", "major": "main", "several": "some", "therefore": "so", "known as": "called", "allowed": "let",
    "percent": "%", "created": "made", "important": "significant", "often": "frequently", "about": "around", "showed": "revealed",
    "help": "assist", "required": "needed", "killed": "left dead", "increase": "rise", "area": "region", "although": "though",
}  # fmt: skip


@dataclass(frozen=True)
class Article:
    """A text with its sentences, and sentences on its subject that it does not hold."""

    name: str
    text: str
    sentences: tuple[str, ...]
    withheld: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    article: Article
    text: str
    grounded: bool
    kind: str


def article(name: str, passages: Sequence[str], withheld: Sequence[str]) -> Article:
    def sentences(texts: Sequence[str]) -> tuple[str, ...]:
        found = (text[a:b] for text in texts for a, b in sentence_spans(text))
        return tuple(s for s in found if 6 <= len(s.split()) <= 60)

    return Article(name, " ".join(passages), sentences(passages), sentences(withheld))


def summaries(
    given: Article, others: Sequence[Article], count: int, chance: random.Random, errors: Sequence[str] = ERRORS
) -> list[Summary]:
    """Return ``count`` faithful summaries of an article and as many with one wrong sentence each, kinds in turn."""
    made: list[Summary] = []
    if len(given.sentences) < 4:
        return made
    for number in range(count):
        made.append(Summary(given, _styled(_faithful(given, chance), chance), True, "faithful"))
        kind = errors[number % len(errors)]
        for _ in range(20):
            sentences = _faithful(given, chance)
            at = chance.randrange(len(sentences))
            wrong = _WRONG[kind](sentences[at], given, others, chance)
            if wrong and wrong != sentences[at] and wrong not in given.text:
                sentences[at] = wrong
                made.append(Summary(given, _styled(sentences, chance), False, kind))
                break
    return made


def claims(
    given: Article, asked: Sequence[tuple[str, str]], elsewhere: Sequence[str], chance: random.Random
) -> list[Summary]:
    """Return, for each question that can be turned into a claim, one that is right and up to two that are wrong.

    Args:
        given: the article.
        asked: (question, answer) pairs that it answers.
        elsewhere: answers to questions on other articles.
        chance: decides which answers are exchanged.
    """
    made: list[Summary] = []
    for question, answer in asked:
        match = _ASKED.search(question)
        if match is None or len(answer.split()) > _LONGEST_ANSWER:
            continue
        own = [other for _, other in asked if other.casefold() != answer.casefold() and other not in question]
        for kind, pool in (("faithful", [answer]), ("own_answer", own), ("other_answer", elsewhere)):
            alike = [
                one for one in pool if len(one.split()) <= _LONGEST_ANSWER and _has_digit(one) == _has_digit(answer)
            ]
            if alike:
                text = f"{question[: match.start()]}{chance.choice(alike)}{question[match.end() :]}".strip().rstrip("?")
                made.append(Summary(given, f"{text.strip()}.", kind == "faithful", kind))
    return made


def _has_digit(text: str) -> bool:
    return any(char.isdigit() for char in text)


def _faithful(given: Article, chance: random.Random) -> list[str]:
    count = chance.choice((1, 1, 1, 2, 3))
    picked = sorted(chance.sample(range(len(given.sentences)), count))
    return [_reworded(_shorter(given.sentences[at], chance), chance) for at in picked]


def _shorter(sentence: str, chance: random.Random) -> str:
    if chance.random() < 0.25:
        return sentence
    short = sentence
    if chance.random() < 0.8:
        short = re.sub(r"\s*\([^)]*\)|\s*\[[^\]]*\]", "", short)
    if chance.random() < 0.6:
        short = re.sub(r",\s+(?:which|who|whose|where|including|such as|with)\b[^,.]*(?:,|(?=\.$))", "", short)
    if chance.random() < 0.5 and (
        lead := re.match(r"^((?:In|On|At|By|After|During|From|For|As|With)\b[^,]{3,40}), (.+)$", short)
    ):
        first, rest = lead.groups()
        rest = rest[0].upper() + rest[1:]
        short = rest if chance.random() < 0.5 else f"{rest.rstrip('.')} {first[0].lower() + first[1:]}."
    if chance.random() < 0.6:
        parts = re.split(r"(?:,|;| –| -) ", short)
        if len(parts) > 1 and len(parts[0].split()) >= 6:
            short = parts[0].rstrip(".") + "."
    words = short.split()
    if chance.random() < 0.5 and len(words) > 12:
        cuts = [
            at
            for at, word in enumerate(words)
            if at >= 7
            and word in ("in", "at", "for", "because", "after", "while", "when", "by", "on", "from", "and", "but")
        ]
        if cuts:
            short = " ".join(words[: chance.choice(cuts)]).rstrip(",;") + "."
    return short


def _reworded(sentence: str, chance: random.Random) -> str:
    if chance.random() < 0.4:
        return sentence
    for old, new in _SAYINGS.items():
        if chance.random() < 0.7:
            sentence = re.sub(rf"\b{old}\b", new, sentence)
    return re.sub(r"\s+", " ", sentence)


def _styled(sentences: Sequence[str], chance: random.Random) -> str:
    if len(sentences) > 1 and chance.random() < 0.3:
        joined = sentences[0].rstrip(".") + " and " + sentences[1][0].lower() + sentences[1][1:]
        sentences = [joined, *sentences[2:]]
    text = " ".join(sentences)
    if chance.random() < 0.3:
        text = re.sub(r"\s*([.,;:!?()])\s*", r" \1 ", text).strip()
        text = re.sub(r"(\d) ([.,]) (\d)", r"\1\2\3", text)
    return text.lower() if chance.random() < 0.3 else text


def _names(text: str) -> list[str]:
    return [match.group() for match in _NAME.finditer(text)]


def _name(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    own = _names(sentence)
    pool = [name for name in _names(given.text) if name not in sentence]
    if chance.random() < 0.4:
        pool = [name for name in _names(chance.choice(others).text) if name not in sentence]
    if not own or not pool:
        return None
    return sentence.replace(chance.choice(own), chance.choice(pool), 1)


def _number(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    own = list(_NUMBER.finditer(sentence))
    if not own:
        return None
    match = chance.choice(own)
    pool = [number for number in _NUMBER.findall(given.text) if number not in sentence]
    if pool and chance.random() < 0.5:
        new = chance.choice(pool)
    else:
        digits = list(match.group())
        at = chance.choice([place for place, digit in enumerate(digits) if digit.isdigit()])
        digits[at] = chance.choice([digit for digit in "123456789" if digit != digits[at]])
        new = "".join(digits)
    return f"{sentence[: match.start()]}{new}{sentence[match.end() :]}"


def _halves(sentence: str) -> tuple[str, str] | None:
    match = _AUXILIARY.search(sentence) or _VERB_END.search(sentence)
    if match is None or len(sentence[: match.start()].split()) < 1 or len(sentence[match.start() :].split()) < 4:
        return None
    return sentence[: match.start()], sentence[match.start() :]


def _subject(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    """Say of one what the article says of another."""
    other = _halves(_shorter(chance.choice(given.sentences), chance))
    own = _halves(sentence)
    return other[0] + own[1] if other and own and other[0].strip() != own[0].strip() else None


def _splice(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    """Go over from one sentence into another in its midst."""
    first, second = sentence.split(), _shorter(chance.choice(given.sentences), chance).split()
    if len(first) < 8 or len(second) < 8:
        return None
    return " ".join(first[: chance.randint(4, len(first) - 3)] + second[chance.randint(3, len(second) - 4) :])


def _roles(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    own = sorted(set(_names(sentence)))
    if len(own) < 2:
        return None
    first, second = chance.sample(own, 2)
    if first in second or second in first:
        return None
    return str(sentence.replace(first, "\0").replace(second, first).replace("\0", second))


def _negation(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    if re.search(r"\bnot\b", sentence):
        return re.sub(r"\bnot ", "", sentence, count=1)
    match = _AUXILIARY.search(sentence)
    return None if match is None else f"{sentence[: match.end()]} not{sentence[match.end() :]}"


def _predicate(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    own = list(_VERB_END.finditer(sentence))
    if not own:
        return None
    match = chance.choice(own)
    source = given.text if chance.random() < 0.5 else chance.choice(others).text
    pool = [verb for verb in _VERB_END.findall(source) if verb[-3:] == match.group()[-3:] and verb != match.group()]
    return sentence[: match.start()] + chance.choice(pool) + sentence[match.end() :] if pool else None


def _invented(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    return _reworded(_shorter(chance.choice(given.withheld), chance), chance) if given.withheld else None


def _invented_part(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    if not given.withheld:
        return None
    words = chance.choice(given.withheld).rstrip(".").split()
    cuts = [at for at, word in enumerate(words) if word in ("in", "at", "for", "by", "with", "to", "after", "because")]
    cuts = [at for at in cuts if at < len(words) - 2]
    if not cuts:
        return None
    at = chance.choice(cuts)
    return f"{sentence.rstrip('.')} {' '.join(words[at : at + 7])}."


def _elsewhere(sentence: str, given: Article, others: Sequence[Article], chance: random.Random) -> str | None:
    return _shorter(chance.choice(chance.choice(others).sentences), chance)


_WRONG: dict[str, Callable[[str, Article, Sequence[Article], random.Random], str | None]] = {
    "name": _name, "number": _number, "subject": _subject, "splice": _splice, "roles": _roles, "negation": _negation,
    "predicate": _predicate, "invented": _invented, "invented_part": _invented_part, "elsewhere": _elsewhere,
}  # fmt: skip
