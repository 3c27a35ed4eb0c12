"""The pii scanner: one pass of a compiled RE2 set over the text tells which anchors occur (a clean text costs
microseconds), each anchor's spans are found in linear time, and only those are confirmed by check digits, numbering
plans, Presidio's recognizers and the words around them. Names are judged on the words of the text; with `ner`, together
with what a spaCy model says.
"""

from collections.abc import Iterable, Iterator, Sequence

from penstock.text.patterns import PatternSet, encodable

from services.guardrails.findings import Reference, Rule, Span
from services.guardrails.scanners.pii import addresses, dates, identifiers, labelled, numbers, organisations
from services.guardrails.scanners.pii.anchors import Anchor, Nearness
from services.guardrails.scanners.pii.contact import NetworkAddresses
from services.guardrails.scanners.pii.lexicon import load_lexicon
from services.guardrails.scanners.pii.names import find_names
from services.guardrails.scanners.pii.ner import NamedEntities
from services.guardrails.scanners.pii.words import may_name, recased, split_words

MAX_CONFIRMATIONS = 1_000
"""Costly recognizers run on one text, and one more for every CHARS_PER_CONFIRMATION characters."""
CHARS_PER_CONFIRMATION = 400
UNCONFIRMED = 0.4
"""Score of a candidate above that number: it has the shape, and in a text of a thousand such numbers that is reason
enough to mask it.
"""
CHECKPOINT_EVERY = 64

_SAMPLE = """Dear Ms Jane Doe, born on 3 May 1981, 42 years old: order 12345678 goes to 12 Main Street,
Springfield, IL 62704. Call (202) 555-0143, +44 20 7946 0958, +49 30 901820, 06 12 34 56 78 or 555 0199,
or write to jane.doe@example.org, https://example.org/a?b=1.
Card 4111 1111 1111 1111, IBAN DE89 3704 0044 0532 0130 00, SSN 536-90-4399,
passport C01X00T47, from 192.168.12.34 and 2001:db8::1. The quick brown fox jumps over the lazy dog, and
Acme Widgets Ltd. pays $1,234.56 on 2024-05-17 at 10:30. Kind regards, John Smith"""


class PiiScanner:
    """Finds what README.md lists. Pure but for a spaCy model, which is loaded when a rule first asks for it."""

    name = "pii"
    version = "2"
    default_threshold = 0.4

    def __init__(self) -> None:
        families = (
            NetworkAddresses().anchors(),
            numbers.anchors(),
            identifiers.anchors(),
            labelled.anchors(),
            dates.anchors(),
            addresses.shapes(),
            addresses.triggers(),
            organisations.anchors(),
        )
        # A set for each family, and one for the words that name identifiers: the automaton of all of them together
        # would have more states than texts ever warm up.
        self._families = [_Family([anchor for anchor in family if anchor.context is None]) for family in families]
        self._named = [anchor for family in families for anchor in family if anchor.context is not None]
        self._contexts = sorted({anchor.context for anchor in self._named if anchor.context is not None})
        self._context_patterns = PatternSet(self._contexts, max_matches=None)
        self._named_patterns = [PatternSet([anchor.expression], True, max_matches=None) for anchor in self._named]
        self._lexicon = load_lexicon()
        self._entities = NamedEntities()
        # Automata and numbering plans are built as texts need them: a first one now, not at the first message.
        self.scan(_SAMPLE, Rule("flag", self.default_threshold, fail_closed=True), Reference())

    def check(self, rule: Rule) -> None:
        """Raise ValueError, with the remedy, where the rule asks for a model that is not installed."""
        if rule.ner is not None:
            self._entities.check(rule.ner)

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        text = encodable(text)
        found = list(self._confirmed(text, reference))
        words = split_words(text, self._lexicon, reference.checkpoint)
        entities = None
        if rule.ner is not None:
            named = may_name(words)
            entities = self._entities.find(rule.ner, recased(text, words), reference.checkpoint) if named else []
        before = [word for person in reference.persons for word in split_words(person, self._lexicon)]
        found.extend(find_names(text, words, self._lexicon, entities, found, reference.checkpoint, before))
        kinds = rule.kinds
        return surest(span for span in found if kinds is None or span.kind in kinds)

    def _confirmed(self, text: str, reference: Reference) -> Iterator[Span]:
        allowed = MAX_CONFIRMATIONS + len(text) // CHARS_PER_CONFIRMATION
        for seen, (anchor, start, end) in enumerate(self._candidates(text), start=1):
            if not seen % CHECKPOINT_EVERY:
                reference.checkpoint()
            if anchor.plausible is not None and not anchor.plausible(text, start, end):
                continue
            if anchor.costly is not None:
                allowed -= 1
                if allowed < 0:
                    yield Span(anchor.costly, start, end, UNCONFIRMED)
                    continue
            yield from anchor.confirm(text, start, end)

    def _candidates(self, text: str) -> Iterator[tuple[Anchor, int, int]]:
        for family in self._families:
            for index, start, end in family.patterns.matches(text):
                yield family.anchors[index], start, end
        occurring = {self._contexts[index]: index for index in self._context_patterns.occurring(text)}
        if not occurring:
            return
        near = {context: Nearness(self._context_patterns.spans(index, text)) for context, index in occurring.items()}
        for anchor, patterns in zip(self._named, self._named_patterns, strict=True):
            if anchor.context in near:
                is_near = near[anchor.context]
                for start, end in patterns.spans(0, text):
                    if is_near(start, end):
                        yield anchor, start, end


class _Family:
    """Anchors that are looked for together."""

    def __init__(self, anchors: Sequence[Anchor]) -> None:
        self.anchors = anchors
        self.patterns = PatternSet((anchor.expression for anchor in anchors), first_group=True, max_matches=None)


def surest(spans: Iterable[Span]) -> list[Span]:
    """The spans in order of place; of those that overlap, the surest stays, then the longest, then the first by place
    and kind.
    """
    chosen = _Intervals()
    best_first = sorted(set(spans), key=lambda span: (-span.score, span.start - span.end, span.start, span.kind))
    return sorted((span for span in best_first if chosen.add(span.start, span.end)), key=lambda span: span.start)


class _Intervals:
    """Half-open intervals that do not overlap, kept so that asking costs a few steps: each covers its buckets of 64."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[tuple[int, int]]] = {}

    def add(self, start: int, end: int) -> bool:
        """Keep the interval where it overlaps none; whether it was kept."""
        buckets = range(start >> 6, (end - 1 >> 6) + 1)
        for bucket in buckets:
            if any(start < other_end and other_start < end for other_start, other_end in self._buckets.get(bucket, ())):
                return False
        for bucket in buckets:
            self._buckets.setdefault(bucket, []).append((start, end))
        return True
