"""Persons: runs of words that may be a name, judged by what stands around them, by lists of names, and, with a model,
by what it calls them. Places, organisations and groups come from the model alone.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from services.guardrails.findings import Span
from services.guardrails.scanners.pii import cues
from services.guardrails.scanners.pii.candidates import MAX_WORDS, Candidate, candidates
from services.guardrails.scanners.pii.evidence import Evidence, gather, in_firm_line, is_line
from services.guardrails.scanners.pii.lexicon import Lexicon
from services.guardrails.scanners.pii.ner import Entity
from services.guardrails.scanners.pii.words import Word

STRONG = 0.85
"""A title, a salutation, "my name is": whatever stands there is a name."""
MODEL = 0.85
MODEL_ORGANISATION = 0.35
"""Below the default threshold: more than half of what small models call organisations are none."""
LIKELY = 0.6
"""Two kinds of evidence."""
ALONE = 0.5
"""A given name that nothing contradicts, with a model."""
LISTED = 0.35
"""A given and a family name that nothing else speaks of, without a model: below the default threshold, since questions
name people of history and fiction all the time.
"""
IN_COMPANY = 0.45
"""The same in a text that holds other personal data: it speaks of private people."""
_IMPERSONAL = frozenset(
    {"URL", "IP_ADDRESS", "MAC_ADDRESS", "ORGANIZATION", "DATE_TIME", "AGE", "CRYPTO", "EU_VAT_NUMBER", "SWIFT_BIC"}
)
CHECKPOINT_EVERY = 256
_ENTITY_KINDS = {"GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION", "NORP": "NRP"}
_JOINTS = frozenset({", ", " and ", ", and ", " & "})

Person = tuple[Candidate, float]


def find_names(
    text: str,
    words: Sequence[Word],
    lexicon: Lexicon,
    entities: Sequence[Entity] | None,
    found: Iterable[Span],
    checkpoint: Callable[[], None],
    before: Sequence[Word] = (),
) -> list[Span]:
    """Persons, and with `entities` places, organisations and groups. `found` are surer finds of other kinds: a name does
    not stand in an address. `before` are the words of persons found in front of `text`. Raises whatever `checkpoint`
    raises.
    """
    judge = _Judge(text, words, lexicon, entities, found)
    runs = list(candidates(text, words))
    persons: list[Person] = []
    for seen, candidate in enumerate(runs, start=1):
        if not seen % CHECKPOINT_EVERY:
            checkpoint()
        score = judge.score(candidate)
        if score > 0:
            persons.append((candidate, score))
    if entities is not None:
        persons += judge.joined(runs, persons)
    persons += _mentioned_again(words, persons, before)
    spans = [Span("PERSON", words[c.first].start, words[c.last - 1].end, score) for c, score in persons]
    return [*spans, *judge.other_entities(spans)]


class _Judge:
    """How sure it is that a candidate is a person."""

    def __init__(
        self,
        text: str,
        words: Sequence[Word],
        lexicon: Lexicon,
        entities: Sequence[Entity] | None,
        found: Iterable[Span],
    ) -> None:
        self._places = lexicon.places
        self._common = lexicon.common
        self._text = text
        self._words = words
        self._entities = entities
        sure = [span for span in found if span.score >= ALONE]
        self._taken = _Cover((span.start, span.end) for span in sure)
        personal = any(span.score >= LIKELY and span.kind not in _IMPERSONAL for span in sure)
        self._listed = IN_COMPANY if personal else LISTED
        self._labels = {
            position: entity.label for entity in entities or () for position in range(entity.start, entity.end)
        }

    def score(self, candidate: Candidate) -> float:
        """From 0, no person, to 1."""
        words = self._words[candidate.first : candidate.last]
        content = [word for word in words if not word.initial and word.folded not in cues.PARTICLES]
        if not content or not self._possible(candidate):
            return 0.0
        evidence = gather(self._text, self._words, candidate)
        shouted = (
            len(content) == 1 and len(content[0].text) > 1 and content[0].text.isupper() and not content[0].caseless
        )
        if evidence.elsewhere or (shouted and not candidate.title):
            return 0.0
        common = all(word.common for word in content)
        named = content[0].given or not _is_place(content, self._places)
        if evidence.strong and named and (candidate.title or not common or content[0].given):
            return STRONG
        known = any(word.given or word.family for word in content)
        if evidence.personal and named and (known or (not common and any(word.unknown for word in content))):
            if self._entities is not None or (content[0].sure_given and not common):
                return LIKELY
            return self._listed
        if self._entities is not None:
            return self._with_model(candidate, content, evidence)
        listed = content[0].sure_given and _has_surname(content)
        if listed and self._is_line(candidate) and not common:
            return LIKELY
        return self._listed if listed else 0.0

    def _with_model(self, candidate: Candidate, content: Sequence[Word], evidence: Evidence) -> float:
        label = self._label(candidate)
        known = any(word.given or word.family for word in content)
        common = all(word.common for word in content)
        place = _is_place(content, self._places)
        if label == "PERSON":
            if common:
                return LIKELY if known and not content[0].opening else 0.0
            if place and not content[0].given and not evidence.medium:
                return 0.0
            return MODEL if known or evidence.medium or len(content) > 1 else LIKELY
        if common or (label in ("GPE", "LOC", "NORP") and place):
            return 0.0
        if evidence.corporate and label != "ORG" and known:
            return LIKELY
        if len(content) > 1:
            if content[0].given and _has_surname(content) and not place:
                return LIKELY if content[0].sure_given else ALONE
            line = self._is_line(candidate) and content[0].start == 0 and len(content) <= 3
            return ALONE if line and known and not place else 0.0
        word = content[0]
        if word.sure_given and (evidence.medium or label or not (word.opening and word.family)):
            return ALONE
        return ALONE if evidence.medium and word.family and not place and label else 0.0

    def _possible(self, candidate: Candidate) -> bool:
        """Whether nothing surer stands there, and it is called no organisation."""
        words = self._words[candidate.first : candidate.last]
        start, end = words[0].start, words[-1].end
        if self._taken.touches(start, end) or words[-1].folded in cues.ORGANISATION_WORDS:
            return False
        return not in_firm_line(self._text, start, end)

    def _is_line(self, candidate: Candidate) -> bool:
        return is_line(self._text, self._words[candidate.first].start, self._words[candidate.last - 1].end)

    def _label(self, candidate: Candidate) -> str:
        """The label that covers at least half of the candidate, "" without one."""
        start, end = self._words[candidate.first].start, self._words[candidate.last - 1].end
        counts: dict[str, int] = {}
        for position in range(start, end):
            label = self._labels.get(position, "")
            counts[label] = counts.get(label, 0) + 1
        label, count = max(counts.items(), key=lambda item: item[1])
        return label if count * 2 >= end - start else ""

    def joined(self, runs: Sequence[Candidate], persons: Sequence[Person]) -> list[Person]:
        """Those that a list joins to a person: "our founders: Kónya, Becker and Vasquez"."""
        scores = {candidate: score for candidate, score in persons if score >= ALONE}
        added: dict[Candidate, float] = {}
        for known, other in (*pairwise(runs), *pairwise(reversed(runs))):
            score = scores.get(known, 0.0)
            if not score or other in scores or not self._joins(known, other) or not self._joinable(other):
                continue
            scores[other] = added[other] = min(score, LIKELY)
        return list(added.items())

    def _joins(self, one: Candidate, other: Candidate) -> bool:
        left, right = (one, other) if one.first < other.first else (other, one)
        return self._text[self._words[left.last - 1].end : self._words[right.first].start] in _JOINTS

    def _joinable(self, candidate: Candidate) -> bool:
        words = self._words[candidate.first : candidate.last]
        if len(words) > 3 or _is_place(words, self._places) or not self._possible(candidate):
            return False
        named = any(word.given or word.family or word.unknown for word in words)
        return named and (self._label(candidate) not in ("NORP", "") or words[0].given)

    def other_entities(self, persons: Iterable[Span]) -> Iterator[Span]:
        """Places, organisations and groups as the model has them, where no person stands."""
        people = _Cover((span.start, span.end) for span in persons if span.score >= ALONE)
        for entity in self._entities or ():
            kind = _ENTITY_KINDS.get(entity.label)
            start, end = _stripped(self._text, entity.start, entity.end)
            if kind is None or start >= end or people.touches(start, end) or self._taken.touches(start, end):
                continue
            value = self._text[start:end].lower()
            word_only = kind == "LOCATION" and value in self._common and value not in self._places
            if value in cues.NOT_NAMES - cues.GROUPS or word_only or (kind == "ORGANIZATION" and len(value) < 3):
                continue
            yield Span(kind, start, end, MODEL_ORGANISATION if kind == "ORGANIZATION" else LIKELY)


def _is_place(content: Sequence[Word], places: frozenset[str]) -> bool:
    if len(content) > 1 and " ".join(word.folded for word in content) in places:
        return True
    return all(word.place or word.folded in cues.NOT_NAMES for word in content)


def _has_surname(content: Sequence[Word]) -> bool:
    return any(word.family or word.given or word.unknown for word in content[1:])


def _mentioned_again(words: Sequence[Word], persons: Sequence[Person], before: Sequence[Word]) -> list[Person]:
    """Every other place where parts of a name that was found stand with a capital."""
    parts = {word.folded: LIKELY for word in before if _names_alone(word)}
    covered: set[int] = set()
    for candidate, score in persons:
        if score < ALONE:
            continue
        covered.update(range(candidate.first, candidate.last))
        for word in words[candidate.first : candidate.last]:
            if _names_alone(word):
                parts[word.folded] = max(parts.get(word.folded, 0.0), min(score, LIKELY))
    again = []
    at = 0
    while parts and at < len(words):
        last = at
        while last < len(words) and last - at < MAX_WORDS and _is_part(words[last], last, parts, covered):
            last += 1
        if last > at:
            again.append((Candidate(at, last, False), min(parts[word.folded] for word in words[at:last])))
        at = max(last, at + 1)
    return again


def _names_alone(word: Word) -> bool:
    """Whether a part of a name stands for the person where it stands alone."""
    return (
        word.end - word.start > 2
        and not word.common
        and not word.place
        and word.folded not in cues.PARTICLES | cues.SUFFIXES
    )


def _is_part(word: Word, at: int, parts: dict[str, float], covered: set[int]) -> bool:
    shouted = word.text.isupper() and not word.caseless
    return at not in covered and word.capital and not shouted and word.folded in parts


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """Without articles, possessives, quotation marks and what stands on another line."""
    value = text[start:end].partition("\n")[0].rstrip(' ,.;:"“”()[]')
    end = start + len(value.removesuffix("'s").removesuffix("’s").rstrip())
    if value.lower().startswith("the "):
        start += 4
    return start, end


class _Cover:
    """Characters that some spans cover."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._covered: set[int] = set()
        for start, end in spans:
            self._covered.update(range(start, end))

    def touches(self, start: int, end: int) -> bool:
        return bool(self._covered) and any(position in self._covered for position in range(start, end))
