"""Personal data found beside personal data labelled: entity by entity, in the data's own types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.measures import Counts

from services.guardrails.command.labelled import Entity
from services.guardrails.findings import Span
from services.guardrails.masking import Stretch, mask_texts, restore

__all__ = ["KINDS_OF", "MIN_OVERLAP", "Comparison", "compare", "is_lossless", "is_structured", "kinds_of"]

MIN_OVERLAP = 0.5
"""Intersection over union, in characters, from which a find is that of a labelled entity."""

KINDS_OF: Mapping[str, tuple[str, ...]] = {
    "STREET_ADDRESS": ("STREET_ADDRESS", "ADDRESS", "LOCATION"),
    "ADDRESS": ("STREET_ADDRESS", "ADDRESS", "LOCATION"),
    "GPE": ("LOCATION", "GPE"),
    "LOCATION": ("LOCATION", "GPE", "STREET_ADDRESS"),
    "ZIP_CODE": ("ZIP_CODE", "POSTAL_CODE", "LOCATION"),
    "DOMAIN_NAME": ("URL", "DOMAIN_NAME"),
    "URL": ("URL", "DOMAIN_NAME"),
    "ORGANIZATION": ("ORGANIZATION", "ORG"),
    "ORG": ("ORGANIZATION", "ORG"),
    "DATE_TIME": ("DATE_TIME", "DATE_OF_BIRTH"),
    "DATE_OF_BIRTH": ("DATE_OF_BIRTH", "DATE_TIME"),
    "SSN": ("US_SSN",),
    "IBAN": ("IBAN_CODE",),
    "EMAIL": ("EMAIL_ADDRESS",),
    "PHONE": ("PHONE_NUMBER",),
}
"""Kinds of finds that count as a data set's type: Presidio's names, and ours for what it has none for."""

_FREE_TEXT = frozenset({
    "PERSON", "STREET_ADDRESS", "ADDRESS", "LOCATION", "GPE", "ORGANIZATION", "ORG", "DATE_TIME", "DATE_OF_BIRTH", "AGE",
    "ZIP_CODE", "POSTAL_CODE", "TITLE", "NRP",
})  # fmt: skip


def kinds_of(type_: str) -> tuple[str, ...]:
    """Kinds of finds that count as ``type_``, the usual one first."""
    return KINDS_OF.get(type_, (type_,))


def is_structured(type_: str) -> bool:
    """Whether values of ``type_`` have a form of their own (numbers, addresses on networks) rather than being words."""
    return type_ not in _FREE_TEXT


@dataclass(slots=True)
class Comparison:
    """Counts by the data's type; a find that matches nothing is a false positive of the type it would have been."""

    by_type: dict[str, Counts] = field(default_factory=dict)

    def add(self, types: Iterable[str], what: Counts) -> None:
        for type_ in types:
            self.by_type[type_] = self.by_type.get(type_, Counts(0, 0, 0)) + what

    def total(self, types: Iterable[str]) -> Counts:
        """All of ``types`` together (micro average)."""
        return sum((self.by_type[type_] for type_ in types if type_ in self.by_type), Counts(0, 0, 0))


def compare(
    labelled: Sequence[Entity], found: Sequence[Span], types: Iterable[str], into: Comparison
) -> tuple[list[Entity], list[Span]]:
    """Match finds with entities, add the counts to ``into``, and return what was missed and what was found in excess.

    An entity is found by the find with the largest overlap, of at least :data:`MIN_OVERLAP`, among those of its kinds
    that match no other. ``types`` are all that the data set labels.
    """
    left = list(found)
    missed = []
    for entity in sorted(labelled, key=lambda one: (one.start, one.end)):
        fitting = [span for span in left if span.kind in kinds_of(entity.type)]
        best = max(fitting, key=lambda span: _overlap(entity, span), default=None)
        if best is not None and _overlap(entity, best) >= MIN_OVERLAP:
            left.remove(best)
            into.add([entity.type], Counts(1, 0, 0))
        else:
            missed.append(entity)
            into.add([entity.type], Counts(0, 0, 1))
    known = sorted(types)
    for span in left:
        into.add([_type_of(span.kind, known)], Counts(0, 1, 0))
    return missed, left


def _type_of(kind: str, types: Sequence[str]) -> str:
    usual = [type_ for type_ in types if kinds_of(type_)[0] == kind]
    possible = [type_ for type_ in types if kind in kinds_of(type_)]
    return next(iter([*usual, *possible]), kind)


def _overlap(entity: Entity, span: Span) -> float:
    shared = min(entity.end, span.end) - max(entity.start, span.start)
    if shared <= 0:
        return 0.0
    return shared / (max(entity.end, span.end) - min(entity.start, span.start))


def is_lossless(text: str, found: Sequence[Span]) -> bool:
    """Whether ``text``, with all that was found replaced by pseudonyms and these taken back, is ``text`` again."""
    stretches = [Stretch(0, span.start, span.end, span.kind, span.score, "pseudonymise") for span in found]
    masked = mask_texts([text], stretches, "", b"")
    return restore(masked.texts[0], masked.pseudonyms) == text
