"""Whether what an answer cites says what it is cited for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from penstock.contracts.records import Passage, ScoredSentence
from penstock.text.groundedness import THRESHOLD, VERSION, Sentence, support

from services.evaluation.evaluators.groundedness import evidence_of
from services.evaluation.evaluators.protocol import Exchange, Judged, Subject

__all__ = ["CitationEvaluator", "Mark", "marks"]

_NUMBERED = re.compile(r"\[(\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*)\]|【(\d{1,3})(?:†[^】]{0,20})?】")
_NAMED = re.compile(r"\((?:(?:source|sources|see|from|quelle|fuente)\s*:?\s*)?([^()\n]{2,120})\)", re.I)
_RANGE = re.compile(r"(\d+)\s*[–-]\s*(\d+)")
_LONGEST_RANGE = 20
_NO_CLAIM = ("it asks back", "it speaks of itself or of the reader")


@dataclass(frozen=True, slots=True)
class Mark:
    """Where an answer cites, and what: passages by their place, and numbers that no passage has."""

    start: int
    end: int
    passages: tuple[int, ...]
    unknown: tuple[int, ...] = ()


class CitationEvaluator:
    """Share of the claims that are cited rightly, among those that cite and those that could.

    A claim is a sentence that says something, and neither asks back nor speaks of itself. It cites the passages whose marks
    stand in it or right behind it: their numbers from 1 on ([1], [2, 3], [1-3]), or, in round brackets, their title, source,
    document or passage id. Where the answer holds no mark, all of it cites what the backend says that it quotes
    (``citations``). A cited claim is right where the cited passages support it; one that cites nothing is wrong where
    some passage supports it, and does not count where none does: that is for groundedness to say.

    ``incorrect`` where a cited claim is not supported by what it cites, else ``missing`` where one cites nothing, else
    ``correct``. Nothing is said where no claim cites anything or could.
    """

    name = "citation_correctness"
    subject: Subject = "answer"
    labels = ("incorrect", "correct")
    version = f"1+{VERSION}"

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        return [_judged(exchange) for exchange in exchanges]


@dataclass(frozen=True, slots=True)
class _Claim:
    sentence: Sentence
    verdict: str
    support: float
    passage: int | None
    reason: str


def _judged(exchange: Exchange) -> Judged | None:
    passages = exchange.passages
    texts = [evidence_of(passage) for passage in passages]
    if not exchange.answer.strip() or not any(passage.text.strip() for passage in passages):
        return None
    whole = support(exchange.answer, texts)
    if whole is None:
        return None
    found = list(marks(exchange.answer, passages))
    cited = _cited(whole.sentences, found, exchange.answer)
    if not found:
        known = {passage.passage_id: place for place, passage in enumerate(passages)}
        quoted = tuple(sorted({known[quote] for quote in exchange.citations if quote in known}))
        cited = dict.fromkeys(range(len(whole.sentences)), (quoted, ())) if quoted else {}
    claims = [
        claim
        for at, sentence in enumerate(whole.sentences)
        if (claim := _claim(sentence, cited.get(at), exchange.answer, texts)) is not None
    ]
    if not claims:
        return None
    counts = {
        verdict: sum(claim.verdict == verdict for claim in claims) for verdict in ("incorrect", "missing", "correct")
    }
    label = next(verdict for verdict, count in counts.items() if count)
    reasons = [claim.reason for claim in claims if claim.reason]
    return Judged(
        counts["correct"] / len(claims),
        label,
        "; ".join(dict.fromkeys(reasons[:3])),
        tuple(_scored(claim, passages) for claim in claims),
        {verdict: count / len(claims) for verdict, count in counts.items() if count},
    )


def marks(answer: str, passages: Sequence[Passage]) -> Iterator[Mark]:
    """Yield the citation marks of ``answer`` in order; numbers count ``passages`` from 1 on."""
    found = []
    for match in _NUMBERED.finditer(answer):
        numbers = [number for number in dict.fromkeys(_numbers(match.group(1) or match.group(2))) if number]
        if not numbers:  # an index such as [0]
            continue
        known = tuple(number - 1 for number in numbers if 1 <= number <= len(passages))
        unknown = tuple(number for number in numbers if not 1 <= number <= len(passages))
        found.append(Mark(match.start(), match.end(), known, unknown))
    names = _names(passages)
    for match in _NAMED.finditer(answer):
        named = match.group(1).strip().casefold()
        if named in names:
            found.append(Mark(match.start(), match.end(), names[named]))
    yield from sorted(found, key=lambda mark: mark.start)


def _numbers(written: str) -> Iterator[int]:
    for part in re.split(r"[,;]", written):
        between = _RANGE.fullmatch(part.strip())
        if between is None:
            yield from (int(number) for number in re.findall(r"\d+", part))
            continue
        first, last = int(between[1]), int(between[2])
        yield from range(first, last + 1) if 0 <= last - first < _LONGEST_RANGE else (first, last)


def _names(passages: Sequence[Passage]) -> Mapping[str, tuple[int, ...]]:
    names: dict[str, tuple[int, ...]] = {}
    for place, passage in enumerate(passages):
        for name in {passage.title, passage.source, passage.document_id, passage.passage_id}:
            if folded := name.strip().casefold():
                names[folded] = (*names.get(folded, ()), place)
    return names


def _cited(
    sentences: Sequence[Sentence], found: Iterable[Mark], answer: str
) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return which passages, and which numbers without one, each sentence cites. A mark that only space or other marks
    part from the end of a sentence before it belongs to that one."""
    cited: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    behind = 0
    for mark in found:
        before = [at for at, sentence in enumerate(sentences) if sentence.start <= mark.start]
        at = before[-1] if before else 0
        # "… in 1931. [1] It carries …": the sentence that begins with the mark is the next one.
        starts = sentences[at].start
        if at and answer[max(starts, behind if behind > starts else starts) : mark.start].strip() == "":
            at -= 1
        behind = mark.end
        passages, unknown = cited.get(at, ((), ()))
        cited[at] = (passages + mark.passages, unknown + mark.unknown)
    return cited


def _claim(
    sentence: Sentence, cited: tuple[tuple[int, ...], tuple[int, ...]] | None, answer: str, texts: Sequence[str]
) -> _Claim | None:
    if cited is None:
        if sentence.support < THRESHOLD:
            return None
        reason = f"a claim cites nothing where [{_number(sentence.passage)}] supports it"
        return _Claim(sentence, "missing", 0.0, sentence.passage, reason)
    if sentence.reason in _NO_CLAIM:
        return None
    passages, unknown = tuple(sorted(set(cited[0]))), tuple(sorted(set(cited[1])))
    if unknown and not passages:
        return _Claim(sentence, "incorrect", 0.0, None, f"there is no passage {_list(unknown)}")
    alone = support(answer[sentence.start : sentence.end], [texts[place] for place in passages])
    score = 0.0 if alone is None else alone.score
    nearest = None if alone is None else alone.sentences[0].passage
    best = passages[0 if nearest is None else nearest]
    if score >= THRESHOLD and not unknown:
        return _Claim(sentence, "correct", score, best, "")
    shown = _list(place + 1 for place in passages)
    if unknown:
        reason = f"there is no passage {_list(unknown)}"
    elif sentence.support >= THRESHOLD and sentence.passage is not None and sentence.passage not in passages:
        reason = f"[{shown}] does not support it, [{_number(sentence.passage)}] does"
    else:
        reason = f"[{shown}] does not support it: {sentence.reason or 'its support lies elsewhere'}"
    return _Claim(sentence, "incorrect", score, best, reason)


def _number(place: int | None) -> str:
    return "" if place is None else str(place + 1)


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _scored(claim: _Claim, passages: Sequence[Passage]) -> ScoredSentence:
    return ScoredSentence(
        start=claim.sentence.start,
        end=claim.sentence.end,
        score=claim.support,
        label=claim.verdict,
        passage_id=None if claim.passage is None else passages[claim.passage].passage_id,
        reason=claim.reason,
    )
