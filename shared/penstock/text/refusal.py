"""Answers that decline what was asked."""

from __future__ import annotations

import re
from dataclasses import dataclass

import re2

from penstock.text.patterns import PatternSet
from penstock.text.refusal_phrases import ANY_VERB, DECLINES, NOT_DECLINED, OFFERS, TURNS

__all__ = ["Decline", "DeclineFinder"]

HEAD, TAIL = 1500, 600
"""Characters at the beginning and at the end of an answer that are read: nobody declines in the middle of a long one."""
SHORT, SHORT_LEAD = 280, 120
"""Characters of an answer, and of what comes before, for which any "I can't ..." that opens it is a decline."""
OF_COMPANY, OF_SHORT_COMPANY = 0.5, 0.75
"""What "we" leaves of a score: a drafted text speaks for a company more often than an assistant does, if it is not short."""
GIVEN = 0.5
"""What is left of the score of a sentence that stands behind a colon, or among the lines of speakers."""
_APOSTROPHES = str.maketrans("’‘ʼ´\u00a0\u202f", "''''  ")
_SENTENCE_END = re.compile(r"[.!?。！？؟।\n]")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.S)
_CONDITION = re.compile(
    r"(?:\b(?:if|when|whenever|where|what|why|how|whether|unless|because|things|who|until|once)|[\"'“«„‹「『])\s*$",
    re.I,
)
# What is given as an example, a translation or a line of a dialogue.
_GIVEN = re.compile(r"([^\s:][^:\n]{2,60}):(?:\s[^.!?:\n]{0,40})?$")
_SPEAKER = re.compile(r"(?m)^\W{0,3}[A-Z][\w .]{0,20}:\s")
_OWN_LEAD = re.compile(
    r"(?i)(?:answer|assistant|response|reply|note|ai|bot|a|sorry|apologies|update|important|.*\b(?:clear|honest|straight|frank|blunt|plain|direct))\W{0,3}$"
)
_IDIOM = re.compile(
    r"\W*(?:but (?:notice|wonder|think|feel|smile|laugh|admire|be )|(?:it|him|her|them|this) enough|enough\b|feeling"
    r"|thinking|noticing|wondering|falling|the fact|if\b|whether)|.{0,40}\benough\b",
    re.I,
)  # fmt: skip
_NOT_DECLINED = re.compile(NOT_DECLINED, re.I)
_LETTER = re.compile(
    r"(?im)^\W{0,4}(?:subject:|dear\b|hi \w+,|hello \w+,)|\b(?:best|kind|warm)? ?regards\b|\bsincerely\b"
    r"|\byours (?:truly|faithfully)"
)
_STEPS = re.compile(r"(?m)^\s*(?:\d+[.)]|[-*•]|#+)\s+\S|```")


@dataclass(frozen=True, slots=True)
class Decline:
    """Code points `start` to `end` of an answer, the sentence that declines, and how surely it does, from 0 to 1."""

    start: int
    end: int
    score: float


class DeclineFinder:
    """Finds the sentence by which an answer declines, in some twenty languages. Its expressions are compiled once.

    The score is that of the wording, 0.4 to 0.9, raised where another decline or an offer of other help goes with it;
    lowered where the answer takes up the task after all (partial refusals: about 0.5), where the decline stands late in a
    long answer, inside quotation marks or in a letter that the answer drafts.
    """

    def __init__(self) -> None:
        self._declines = PatternSet(
            [f"(?i){expression}" for expression in (*(wording for wording, _ in DECLINES), ANY_VERB)]
        )
        options = re2.Options()
        options.case_sensitive = False
        self._turns = re2.compile(TURNS, options=options)
        self._offers = re2.compile(OFFERS, options=options)

    def find(self, text: str) -> Decline | None:
        """Return the surest decline of ``text``, an answer; None where there is none."""
        if len(text) <= HEAD + TAIL:
            return self._judge(text, 0, len(text))
        head = self._judge(text[:HEAD], 0, len(text))
        tail = self._judge(text[-TAIL:], len(text) - TAIL, len(text))
        return max((head, tail), key=lambda found: found.score if found else 0.0)

    def _judge(self, piece: str, offset: int, length: int) -> Decline | None:
        folded = piece.translate(_APOSTROPHES)
        # What stands in a code block is not said by the answer.
        prose = _FENCED.sub(lambda match: " " * (match.end() - match.start()), folded)
        best: tuple[float, int, int] | None = None
        sentences = set()
        speakers = len(_SPEAKER.findall(prose)) >= 2
        for index, start, end in self._declines.matches(prose):
            if not _is_said(prose, start, end):
                continue
            place = _sentence(prose, start, end)
            sentences.add(place[0])
            if index < len(DECLINES):
                score = DECLINES[index][1]
            elif _NOT_DECLINED.search(prose[start : end + 20]):
                continue
            else:
                score = 0.6 if offset + start < SHORT_LEAD and length < SHORT else 0.3
            if prose[start : start + 3].lower() in ("we ", "we'"):
                score *= OF_COMPANY if length >= SHORT else OF_SHORT_COMPANY
            if speakers or _is_given(prose, start):
                score *= GIVEN
            score *= _early(offset + place[0], length)
            if best is None or score > best[0]:
                best = (score, *place)
        if best is None:
            return None
        score, start, end = best
        rest = prose[end:]
        turned = self._turns.search(prose[start:]) is not None
        offered = self._offers.search(rest) is not None
        if len(sentences) > 1:
            score += 0.05
        if turned and length - offset - end > 150:
            score *= 0.6
        elif _STEPS.search(rest) and length - offset - end > 600:
            score *= 0.75
        elif offered:
            score += 0.05
        if _LETTER.search(prose):
            score *= 0.5
        return Decline(offset + start, offset + end, min(1.0, round(score, 4)))


def _is_said(text: str, start: int, end: int) -> bool:
    """Whether the answer itself says so: not under a condition, in quotation marks, or as a figure of speech."""
    if _CONDITION.search(text[max(0, start - 16) : start]) or _IDIOM.match(text[end : end + 60]):
        return False
    line = text[text.rfind("\n", 0, start) + 1 : start]
    closing = text[end : end + 200].partition("\n")[0]
    straight = line.count('"') % 2 == 1 and '"' in closing
    return not (straight or (line.rfind("“") > line.rfind("”") and "”" in closing))


def _is_given(text: str, start: int) -> bool:
    """Whether what begins here is quoted by line, or announced by a colon."""
    line = text[text.rfind("\n", 0, start) + 1 : start]
    if line.lstrip().startswith(">"):
        return True
    announced = _GIVEN.search(line or text[:start].rstrip()[-64:] + " ")
    return announced is not None and _OWN_LEAD.match(announced.group(1)) is None


def _early(place: int, length: int) -> float:
    """1 for a decline that an answer opens with, 0.5 for one behind most of a long answer."""
    if place <= 300:
        return 1.0
    return 1.0 - 0.5 * min(1.0, (place - 300) / 600) if place > length // 3 else 0.9


def _sentence(text: str, start: int, end: int) -> tuple[int, int]:
    """The sentence around a find, trimmed."""
    first = max(
        (match.end() for match in _SENTENCE_END.finditer(text, max(0, start - 300), start)), default=max(0, start - 300)
    )
    after = _SENTENCE_END.search(text, max(start, end - 1))
    last = after.end() if after else len(text)
    while first < start and text[first].isspace():
        first += 1
    while last > end and text[last - 1].isspace():
        last -= 1
    return first, last
