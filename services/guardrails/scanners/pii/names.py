"""Persons: runs of words that may be a name, judged by what stands around them, by lists of names, and, with a model,
by what it calls them. Places, organisations and groups come from the model alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.guardrails.findings import Span
from services.guardrails.scanners.pii import cues
from services.guardrails.scanners.pii.ner import Entity
from services.guardrails.scanners.pii.words import Word, is_caseless

STRONG = 0.85
"""A title, a salutation, "my name is": whatever stands there is a name."""
MODEL = 0.85
LIKELY = 0.6
"""Two kinds of evidence."""
ALONE = 0.5
"""A given name that nothing contradicts, with a model."""
LISTED = 0.35
"""A given and a family name that nothing else speaks of, without a model: below the default threshold, since questions
name people of history and fiction all the time."""
MAX_WORDS = 6
"""Of one name."""
CHECKPOINT_EVERY = 512
_ENTITY_KINDS = {"GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION", "ORG": "ORGANIZATION", "NORP": "NRP"}
_NAME_LIKE_LABELS = frozenset({"PERSON", "ORG", "GPE", "LOC", "FAC", "NORP", "PRODUCT", "WORK_OF_ART", "EVENT", "LAW"})
_ORGANISATION_WORDS = frozenset(
    "inc ltd llc corp corporation company gmbh group bank university college school hospital institute association foundation council "
    "committee department ministry force airlines airways times news press records studios motors systems technologies solutions services "
    "software industries holdings partners international club fc united museum church hotel restaurant street avenue road square lines "
    "society union league party court agency bureau office center centre store stores market".split()
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Words `first` to `last` (half-open) that may be a name; `title` is whether one stands before them."""

    first: int
    last: int
    title: bool


def find_names(
    text: str, entities: Sequence[Entity] | None, found: Sequence[Span], words: Sequence[Word], checkpoint: Callable[[], None]
) -> list[Span]:
    """Persons, and with `entities` places, organisations and groups. `found` are surer finds of other kinds: a name does
    not stand in an address.
    """
    judge = _Judge(text, words, entities, found)
    persons: list[tuple[Candidate, float]] = []
    for seen, candidate in enumerate(_candidates(text, words), start=1):
        if not seen % CHECKPOINT_EVERY:
            checkpoint()
        score = judge.score(candidate)
        if score > 0:
            persons.append((candidate, score))
    persons = judge.coordinated(persons)
    persons = _mentioned_again(words, persons)
    spans = [Span("PERSON", words[c.first].start, words[c.last - 1].end, score) for c, score in persons]
    return [*spans, *judge.other_entities(spans)]


def _candidates(text: str, words: Sequence[Word]) -> Iterator[Candidate]:
    """Maximal runs of words that may belong to a name: capitals, initials between them, particles before one."""
    at = 0
    while at < len(words):
        if not _may_start(words[at]):
            at += 1
            continue
        last = at + 1
        while last < len(words) and last - at < MAX_WORDS and _continues(text, words, last):
            last += 1
        while last - at > 1 and (words[last - 1].folded in cues.PARTICLES and not words[last - 1].capital):
            last -= 1
        first = at
        title = False
        while first < last and words[first].folded in cues.TITLES and (first + 1 < last or not words[first].given):
            title = True
            first += 1
        yield from _trimmed(words, first, last, title or (first > 0 and _is_title(text, words, first - 1)))
        at = last


def _is_title(text: str, words: Sequence[Word], at: int) -> bool:
    between = text[words[at].end : words[at + 1].start]
    return words[at].folded in cues.TITLES and between in (" ", ". ", ".") and words[at].folded not in ("don", "pan", "sir")


def _may_start(word: Word) -> bool:
    return word.capital or word.folded in cues.TITLES


def _continues(text: str, words: Sequence[Word], at: int) -> bool:
    """Whether the word goes on from the one before it."""
    before, word = words[at - 1], words[at]
    if before.possessive:
        return False
    between = text[before.end : word.start]
    after_dot = before.initial or before.folded in cues.TITLES or before.folded in ("st", "jr")
    if between not in (" ", "  ", "-") and not (after_dot and between in (". ", ".")):
        return False
    if word.capital:
        return True
    following = words[at + 1] if at + 1 < len(words) else None
    return word.folded in cues.PARTICLES and following is not None and (following.capital or following.folded in cues.PARTICLES)


def _trimmed(words: Sequence[Word], first: int, last: int, title: bool) -> Iterator[Candidate]:
    """The run without words at its ends, and cut at words within, that are English words and no names."""
    start = first
    for at in range(first, last + 1):
        if at < last and not _no_name(words, at, start, last, title):
            continue
        begin, end = start, at
        while end > begin and words[end - 1].folded in cues.PARTICLES and words[end - 1].common:
            end -= 1
        if end > begin and not all(word.initial for word in words[begin:end]):
            yield Candidate(begin, end, title and begin == first)
        start = at + 1


def _no_name(words: Sequence[Word], at: int, start: int, last: int, title: bool) -> bool:
    """Whether the word cannot be part of the name that it stands in."""
    word = words[at]
    if word.initial or (word.folded in cues.PARTICLES and at > start):
        return False
    if word.folded in cues.SUFFIXES and at > start:
        return False
    following = words[at + 1] if at + 1 < last else None
    preceding = words[at - 1] if at > start else None
    if word.folded in cues.NOT_NAMES:
        return not (word.given and following is not None and following.family and not following.common)
    if not word.common:
        return False
    if word.given and following is not None and (following.unknown or (following.family and not following.common)):
        return word.opening and not following.family  # "Will Smith", but "Will Ubul"
    after_name = preceding is not None and (preceding.given or preceding.unknown) and not preceding.common
    return not ((word.family or word.given) and (after_name or title))


class _Judge:
    def __init__(
        self, text: str, words: Sequence[Word], entities: Sequence[Entity] | None, found: Sequence[Span]
    ) -> None:
        self._text = text
        self._words = words
        self._entities = entities
        self._caseless = is_caseless(text)
        self._taken = _Cover((span.start, span.end) for span in found if span.score >= LIKELY and span.kind != "ORGANIZATION")
        self._named_firms = _Cover((span.start, span.end) for span in found if span.kind == "ORGANIZATION")
        self._labels = {}
        for entity in entities or ():
            for position in range(entity.start, entity.end):
                self._labels[position] = entity.label

    def score(self, candidate: Candidate) -> float:
        """How sure it is that the candidate is a person; 0 where it is not one."""
        words = self._words[candidate.first : candidate.last]
        if self._taken.touches(words[0].start, words[-1].end):
            return 0.0
        if words[-1].folded in _ORGANISATION_WORDS or self._named_firms.touches(words[0].start, words[-1].end):
            return 0.0
        content = [word for word in words if not word.initial and word.folded not in cues.PARTICLES]
        if not content:
            return 0.0
        listed = any(word.given for word in content[:1])
        sure = content[0].sure_given
        family = len(content) > 1 and any((word.family or word.given or word.unknown) for word in content[1:])
        place = self._is_place(content)
        strong, medium, personal = self._cues(candidate)
        nameable = not place or sure
        if candidate.title and not all(word.common and not word.family for word in content):
            return STRONG
        if strong and (nameable or content[0].given) and not all(word.common and not word.given for word in content):
            return STRONG
        if personal and nameable and (listed or family or any(word.family or word.unknown for word in content)):
            return LIKELY if self._entities is not None or sure or family else LISTED
        if self._entities is None:
            if sure and family and (medium or self._is_line(candidate)):
                return LIKELY if self._is_line(candidate) else LISTED
            return LISTED if sure and family else 0.0
        return self._with_model(candidate, content, sure, listed, family, place, medium)

    def _with_model(
        self, candidate: Candidate, content: Sequence[Word], sure: bool, listed: bool, family: bool, place: bool, medium: bool
    ) -> float:
        label = self._label(candidate)
        known = any(word.given or word.family for word in content)
        if label == "PERSON":
            if all(word.common for word in content) or (place and not listed and not medium):
                return 0.0
            if len(content) == 1 and not known and content[0].text.isupper() and not self._caseless:
                return 0.0  # an abbreviation
            return MODEL if known or medium or len(content) > 1 else LIKELY
        if label in ("GPE", "LOC", "NORP") and place:
            return 0.0
        if len(content) > 1:
            if sure and family:
                return LIKELY
            return ALONE if listed and any(word.family for word in content[1:]) and not place else 0.0
        word = content[0]
        if sure and not (word.opening and word.family and not medium and label == ""):
            return ALONE
        if medium and not place and (word.family or word.unknown) and label in ("ORG", "GPE", "FAC", "LOC", "PRODUCT"):
            return ALONE if word.family else 0.0
        return 0.0

    def _cues(self, candidate: Candidate) -> tuple[bool, bool, bool]:
        """(strong, medium, personal) evidence around the candidate."""
        text, words = self._text, self._words
        first, last = words[candidate.first], words[candidate.last - 1]
        lead = text[max(0, first.start - 40) : first.start]
        strong = self._salutation(candidate, lead) or self._named_before(candidate, lead) or self._signature(candidate)
        medium = personal = False
        if candidate.first:
            before = words[candidate.first - 1]
            gap = text[before.end : first.start].replace("the ", "")
            if gap.strip(" :,\"“'") == "" and len(gap) <= 3 and "\n" not in gap:
                folded = before.folded.rsplit("-", 1)[-1]
                medium = folded in cues.MEDIUM_BEFORE
                personal = folded in cues.PERSONAL_BEFORE
        tail = text[last.end : last.end + 12]
        if candidate.last < len(words):
            after = words[candidate.last]
            gap = text[last.end : after.start]
            if last.possessive:
                personal = personal or after.folded in cues.KINSHIP_AFTER
                medium = True
            elif gap == " ":
                personal = personal or (after.folded in cues.PERSONAL_AFTER and not after.capital)
                medium = medium or after.folded in ("is", "was", "has", "had", "will", "can", "and", "would", "of")
            elif gap == ", " and first.opening and after.folded in ("can", "could", "would", "will", "please", "i", "you", "are", "what", "how", "do", "did", "have", "thanks"):
                personal = True
        if tail.startswith(":") and self._starts_line(first.start) and not tail.startswith("://"):
            personal = personal or (len(tail) > 1 and tail[1:2] in " \"“")
        return strong, medium, personal

    def _salutation(self, candidate: Candidate, lead: str) -> bool:
        """"Dear Ann", "Hi Bob,": the word before the name opens a sentence and greets."""
        at = candidate.first - 1
        while at >= 0 and (self._words[at].folded in cues.TITLES or self._words[at].folded in ("there", "good")):
            at -= 1
        if at < 0 or candidate.first - at > 3:
            return False
        before = self._words[at]
        gap = self._text[before.end : self._words[candidate.first].start]
        if before.folded not in cues.GREETINGS or len(gap) > 14 or "\n" in gap or any(char in gap for char in ".!?;"):
            return False
        opens = before.opening or (at > 0 and self._words[at - 1].folded in ("good", "sehr", "very", "my", "and", "oh"))
        first = self._words[candidate.first]
        return (opens or self._caseless) and (first.given or first.family or first.unknown)

    def _named_before(self, candidate: Candidate, lead: str) -> bool:
        """"my name is", "contact:", "my wife": the one to three words before the name."""
        text, words = self._text, self._words
        first = words[candidate.first]
        at = candidate.first
        phrase = ""
        for back in range(1, 4):
            if at - back < 0:
                break
            before = words[at - back]
            if before.possessive:
                before_text = before.folded + "'s"
            else:
                before_text = before.folded
            phrase = f"{before_text} {phrase}".strip()
            gap = text[words[at - 1].end : first.start]
            if len(gap) > 4 or gap.strip(" :=-\"“'(*_") not in ("", "'s", "’s") or "\n\n" in gap:
                return False
            if phrase in cues.STRONG_BEFORE:
                return True
        joined = text[max(0, first.start - 14) : first.start].lower()
        if joined.rstrip(" ").endswith(("contact:", "attn:", "attn.", "name:", "from:", "to:", "cc:", "author:", "by:", "manager:", "signed:", "customer:", "client:")):
            return first.given or first.family or first.unknown
        previous = words[at - 1].folded if at else ""
        introduces = previous in ("i'm", "i’m") or (at > 1 and (words[at - 2].folded, previous) in (("i", "am"), ("this", "is"), ("it", "is"), ("am", "called"), ("is", "called"), ("was", "called"), ("named", "him"), ("named", "her"), ("me", "as")))
        if introduces and text[words[at - 1].end : first.start] == " ":
            return (first.sure_given or (first.family and not first.place and not first.common)) and first.folded not in cues.NOT_NAMES
        return False

    def _signature(self, candidate: Candidate) -> bool:
        """A name of its own line under "Best regards,"."""
        first = self._words[candidate.first]
        lead = self._text[max(0, first.start - 40) : first.start].rstrip(" ")
        if not lead.endswith(("\n", ",")):
            return False
        closing = lead.rstrip(" \n,.!–-").lower()
        opening = closing.rpartition("\n")[2].rpartition(". ")[2].rpartition("! ")[2].strip()
        if opening.replace("ü", "u").replace("ä", "a") not in cues.CLOSINGS and opening not in cues.CLOSINGS:
            return False
        rest = self._text[self._words[candidate.last - 1].end :][:2].strip(" .")
        return (rest == "" or rest[0] in "\n,(") and (first.given or first.family or first.unknown)

    def _starts_line(self, start: int) -> bool:
        return start == 0 or self._text[start - 1] == "\n" or self._text[max(0, start - 2) : start] == "\n "

    def _is_line(self, candidate: Candidate) -> bool:
        """Whether the name is all that its line has, in a text of several."""
        start, end = self._words[candidate.first].start, self._words[candidate.last - 1].end
        alone = self._starts_line(start) and self._text[end : end + 2].lstrip(" .,")[:1] in ("", "\n")
        return alone and "\n" in self._text

    def _is_place(self, content: Sequence[Word]) -> bool:
        return all(word.place or word.folded in cues.NOT_NAMES for word in content)

    def _label(self, candidate: Candidate) -> str:
        """The label that covers at least half of the candidate, "" without one."""
        start, end = self._words[candidate.first].start, self._words[candidate.last - 1].end
        counts: dict[str, int] = {}
        for position in range(start, end):
            label = self._labels.get(position, "")
            counts[label] = counts.get(label, 0) + 1
        label, count = max(counts.items(), key=lambda item: item[1])
        return label if count * 2 >= end - start and label in _NAME_LIKE_LABELS else ""

    def coordinated(self, persons: list[tuple[Candidate, float]]) -> list[tuple[Candidate, float]]:
        """With those that a list joins to a person: "our founders: Kónya, Becker and Vasquez"."""
        if self._entities is None or not persons:
            return persons
        known = {candidate.first: score for candidate, score in persons}
        ends = {candidate.last: score for candidate, score in persons}
        added = []
        for candidate in _candidates(self._text, self._words):
            if candidate.first in known or candidate.last - candidate.first > 3:
                continue
            words = self._words[candidate.first : candidate.last]
            if self._is_place(words) or not any(word.given or word.family or word.unknown for word in words):
                continue
            if self._taken.touches(words[0].start, words[-1].end) or self._named_firms.touches(words[0].start, words[-1].end):
                continue
            if self._label(candidate) in ("NORP", "") and not words[0].given:
                continue
            score = self._joined(candidate, known, ends)
            if score:
                added.append((candidate, min(score, LIKELY)))
        return persons + added

    def _joined(self, candidate: Candidate, known: dict[int, float], ends: dict[int, float]) -> float:
        text, words = self._text, self._words
        for first, last in ((candidate.last, candidate.last), (candidate.first, candidate.first)):
            for skip in (0, 1):
                if first == candidate.last:
                    other = last + skip
                    if other in known and text[words[candidate.last - 1].end : words[other].start] in (", ", " and ", ", and ", " & "):
                        return known[other]
                else:
                    other = first - skip
                    if other in ends and text[words[other - 1].end : words[candidate.first].start] in (", ", " and ", ", and ", " & "):
                        return ends[other]
        return 0.0

    def other_entities(self, persons: Sequence[Span]) -> Iterator[Span]:
        """Places, organisations and groups as the model has them, where no person stands."""
        people = _Cover((span.start, span.end) for span in persons if span.score >= ALONE)
        for entity in self._entities or ():
            kind = _ENTITY_KINDS.get(entity.label)
            start, end = _stripped(self._text, entity.start, entity.end)
            if kind is None or start >= end or people.touches(start, end) or self._taken.touches(start, end):
                continue
            value = self._text[start:end]
            folded = value.lower()
            if folded in cues.NOT_NAMES or (kind == "ORGANIZATION" and (len(value) < 3 or value.islower())):
                continue
            yield Span(kind, start, end, MODEL if kind != "ORGANIZATION" else LIKELY)


def _mentioned_again(words: Sequence[Word], persons: list[tuple[Candidate, float]]) -> list[tuple[Candidate, float]]:
    """With every other place where a part of a name that was found stands alone with a capital."""
    parts: dict[str, float] = {}
    for candidate, score in persons:
        if score >= ALONE:
            for word in words[candidate.first : candidate.last]:
                if not word.initial and word.end - word.start > 2 and not word.common and word.folded not in cues.PARTICLES:
                    parts[word.folded] = max(parts.get(word.folded, 0.0), min(score, LIKELY))
    covered = {at for candidate, score in persons if score >= ALONE for at in range(candidate.first, candidate.last)}
    again = []
    at = 0
    while at < len(words):
        last = at
        while last < len(words) and last not in covered and words[last].capital and words[last].folded in parts and last - at < MAX_WORDS:
            last += 1
        if last > at:
            again.append((Candidate(at, last, False), min(parts[word.folded] for word in words[at:last])))
        at = max(last, at + 1)
    return persons + again


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """Without articles, possessives, quotation marks and line breaks."""
    value = text[start:end].partition("\n")[0].rstrip(" ,.;:\"“”()[]")
    end = start + len(value.removesuffix("'s").removesuffix("’s").rstrip())
    if value.lower().startswith("the "):
        start += 4
    return start, end


class _Cover:
    """Characters that some spans cover."""

    def __init__(self, spans: Iterator[tuple[int, int]]) -> None:
        self._covered: set[int] = set()
        for start, end in spans:
            self._covered.update(range(start, end))

    def touches(self, start: int, end: int) -> bool:
        return bool(self._covered) and any(position in self._covered for position in range(start, end))


