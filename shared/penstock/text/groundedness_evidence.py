"""What in the passages bears out one sentence: shares of its words, from which its support is worked out."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from penstock.text.groundedness_words import NEGATIONS, PERSONAL, Words, sentence_spans, words_of

__all__ = ["FEATURES", "Evidence", "Passages", "evidence"]

_TELLING = 2.0
"""Weight of a number or a name among content words."""
_SAME_BEGINNING = 6
"""Letters that two words of one family share at the beginning: elect-ion, elect-oral."""
_FAMILY = 0.6
"""What a word of the same family counts."""
_PLACES = 48
"""Places of a word or of a pair of words that are looked at."""
_QUOTED = 0.8
"""Share of a question's words in runs of three from which it is quoted, not asked back."""
_STOP = ""
"""Stands behind the last word of each sentence of the passages, so that no run goes over it."""
_NEAR = 12
"""Words apart within which two words of a sentence belong together."""


@dataclass(slots=True)
class _Source:
    """One sentence of a passage; `start` is its first word's place among all words."""

    passage: int
    start: int
    span: tuple[int, int]
    negated: bool


@dataclass(slots=True)
class Passages:
    """The words of passages, by what they are looked up by. The order of the passages does not matter to any score.

    Attributes:
        texts: the passages as given; places count them in the order of their texts.
        stems: all words, one sentence after the other.
        sentence_of: the number of the sentence that each stands in.
        sources: the sentences.
        places, pairs: where each word stands, and each pair of words next to each other.
        families: beginnings of the longer words.
        names: words that are written like names only; common: words that are not always.
    """

    texts: list[str] = field(default_factory=list)
    stems: list[str] = field(default_factory=list)
    sentence_of: list[int] = field(default_factory=list)
    sources: list[_Source] = field(default_factory=list)
    places: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    pairs: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    families: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    common: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, texts: Iterable[str]) -> Passages:
        given = list(texts)
        found = cls()
        # One order for every order given: which of equals counts must not hang on it.
        found.texts = given
        for passage in sorted(range(len(given)), key=given.__getitem__):
            found._add(passage, given[passage])
        found.names -= found.common
        found.families = {stem[:_SAME_BEGINNING] for stem in found.places if len(stem) >= _SAME_BEGINNING}
        return found

    def _add(self, passage: int, text: str) -> None:
        stems, places, pairs = self.stems, self.places, self.pairs
        names, common = self.names, self.common
        for start, end in sentence_spans(text):
            for words in words_of(text, start, end):
                first = len(stems)
                number = len(self.sources)
                for at, stem in enumerate(words.stems, first):
                    places[stem].append(at)
                for at, pair in enumerate(itertools.pairwise(words.stems), first):
                    pairs[pair].append(at)
                stems += words.stems
                stems.append(_STOP)
                self.sentence_of += [number] * (len(words.stems) + 1)
                # How the first word is written tells nothing.
                for stem, capital in zip(words.stems[1:], words.capital[1:], strict=True):
                    (names if capital else common).add(stem)
                negated = not NEGATIONS.isdisjoint(words.stems)
                self.sources.append(_Source(passage, first, (words.spans[0][0], words.spans[-1][1]), negated))


FEATURES = (
    "content", "words", "pairs", "triples", "runs", "local", "local2", "linked", "telling", "telling_local",
    "neighbours", "invented", "numbers", "names", "denial", "remarks", "question",
)  # fmt: skip
"""What is looked at in one sentence, each a share from 0 to 1. Where one has nothing to go by, a plainer one stands in.

content: content words that stand anywhere in the passages, numbers and names counting double; of one family in part.
words: all its words that do.
pairs, triples: words in runs of two, of three or more that a passage has.
runs: mean length of those runs, 8 words or the sentence being all.
local: content that two neighbouring sentences of a passage hold together; local2: that any two more add to it.
linked: neighbouring content words that stand near each other in one sentence of a passage; in the other order, half.
telling: numbers and names that stand in the passages; telling_local: in the two sentences of local.
neighbours: linked, of the pairs with a number or name in them.
invented: numbers and names that stand nowhere, three being all; numbers, names: whether there is any such.
denial: it denies what no passage denies, or asserts what its sources deny.
remarks: words about speaker or reader that the passages lack, a quarter of the words being all.
question: it asks, in words that are not the passages'.
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What bears on one sentence. Shares are of its words, from 0 to 1.

    Attributes:
        shares: by FEATURES.
        words: number of its words.
        claims: whether it holds a content word.
        source: number of the passage's sentence that bears most on it, None where none does.
        missing_numbers: as written, numbers that no passage has.
        missing_names: likewise names.
        denies: whether the denial is the sentence's, not its sources'.
    """

    shares: tuple[float, ...]
    words: int
    claims: bool
    source: int | None
    missing_numbers: tuple[str, ...] = ()
    missing_names: tuple[str, ...] = ()
    denies: bool = False


def evidence(words: Words, text: str, passages: Passages) -> Evidence:
    """Return what ``passages`` have on the sentence ``words`` of ``text``."""
    stems, count = words.stems, len(words.stems)
    places, sentence_of = passages.places, passages.sentence_of
    weights: list[float] = [0.0] * count
    support: list[float] = [0.0] * count
    known = 0
    remarks = 0
    telling = 0.0
    telling_known = 0.0
    numbers: list[str] = []
    names: list[str] = []
    capitals = sum(words.capital) <= 0.6 * sum(words.content)  # else a title: capitals say nothing
    tells: list[int] = []
    masks: dict[int, int] = {}
    for at, stem in enumerate(stems):
        where = places.get(stem)
        known += where is not None
        if not words.content[at]:
            remarks += where is None and stem in PERSONAL
            continue
        name = (capitals and words.capital[at]) or stem in passages.names
        weight = _TELLING if name or words.number[at] else 1.0
        weights[at] = weight
        if where is not None:
            support[at] = 1.0
            for sentence in {sentence_of[place] for place in where[:_PLACES]}:
                masks[sentence] = masks.get(sentence, 0) | 1 << at
        elif stem[:_SAME_BEGINNING] in passages.families and not words.number[at]:
            support[at] = _FAMILY
        if weight == _TELLING:
            tells.append(at)
            telling += 1
            telling_known += where is not None
            if where is None:
                (numbers if words.number[at] else names).append(text[slice(*words.spans[at])])
    total = sum(weights)
    if not total:
        return Evidence((0.0,) * len(FEATURES), count, False, None)
    best, first_share, second_share, window = _windows(masks, weights, passages)
    in_pairs, in_triples, run, copied = _runs(stems, passages)
    linked, links, neighbour_share = _links(words, tells, passages)
    asks = "?" in text[words.spans[0][0] : words.spans[-1][1] + 3] and in_triples < _QUOTED * count
    # What is copied in one run is neither denied nor denies, whatever stands beside its source.
    denies, denied = (False, False) if copied else _negation(words, window, passages)
    content = sum(w * s for w, s in zip(weights, support, strict=True)) / total
    link_share = linked / links if links else content
    shares = (
        content,
        known / count,
        in_pairs / count,
        in_triples / count,
        run,
        first_share / total,
        second_share / total,
        link_share,
        telling_known / telling if telling else content,
        sum(1 for at in tells if _within(masks, window, at)) / telling if telling else first_share / total,
        link_share if neighbour_share is None else neighbour_share,
        min(1.0, (telling - telling_known) / 3),
        float(bool(numbers)),
        float(bool(names)),
        float(denies or denied),
        min(1.0, 4 * remarks / count),
        float(asks),
    )
    return Evidence(shares, count, True, best, tuple(numbers), tuple(names), denies)


def _negation(words: Words, window: Sequence[int], passages: Passages) -> tuple[bool, bool]:
    """Return whether the sentence denies what no passage denies, and whether it asserts what its window denies. What is
    denied is the content word after the negation. A first word (No, that is so) answers and denies nothing."""
    stems = words.stems
    denied = stems[0] in NEGATIONS
    for at in range(1, len(stems)):
        if stems[at] in NEGATIONS:
            denied = True
            following = next((n for n in range(at + 1, len(stems)) if words.content[n]), None)
            if following is None:
                continue
            where = passages.places.get(stems[following], ())
            if not any(passages.sources[passages.sentence_of[place]].negated for place in where[:_PLACES]):
                return True, False
    if denied:
        return False, False
    said = [stem for stem, content in zip(stems, words.content, strict=True) if content]
    own = set(itertools.pairwise((_STOP, *said)))
    return False, any(_denied_in(number, own, passages) for number in window)


def _denied_in(number: int, own: set[tuple[str, str]], passages: Passages) -> bool:
    """Return whether a sentence of the passages has a negation between the words of one of the pairs ``own``."""
    source = passages.sources[number]
    if not source.negated:
        return False
    end = passages.sources[number + 1].start if number + 1 < len(passages.sources) else len(passages.stems)
    stems = passages.stems[source.start : end]
    return any(
        (left, right) in own
        for at, stem in enumerate(stems)
        if stem in NEGATIONS
        for left in (*stems[max(0, at - 3) : at], *([_STOP] if at < 3 else []))
        for right in stems[at + 1 : at + 3]
    )


def _within(masks: dict[int, int], window: Sequence[int], at: int) -> bool:
    return any(masks.get(number, 0) >> at & 1 for number in window)


def _weight(mask: int, weights: Sequence[float]) -> float:
    total = 0.0
    while mask:
        low = mask & -mask
        total += weights[low.bit_length() - 1]
        mask ^= low
    return total


def _windows(
    masks: dict[int, int], weights: Sequence[float], passages: Passages
) -> tuple[int | None, float, float, tuple[int, ...]]:
    """Return the sentence that bears most, the weight that the best two neighbouring sentences hold, that which they and
    the best two beside them hold, and the sentences of the best window."""
    if not masks:
        return None, 0.0, 0.0, ()
    sources = passages.sources
    windows: list[tuple[int, int]] = []
    for number, mask in masks.items():
        following = number + 1
        joined = following < len(sources) and sources[following].passage == sources[number].passage
        windows.append((mask | masks.get(following, 0) if joined else mask, number))
    memo: dict[int, float] = {}

    def weight(mask: int) -> float:
        if mask not in memo:
            memo[mask] = _weight(mask, weights)
        return memo[mask]

    best_mask, best_number = max(windows, key=lambda window: (weight(window[0]), -window[1]))
    first = weight(best_mask)
    second = max(weight(mask | best_mask) for mask, _ in windows)
    window = (
        (best_number, best_number + 1)
        if best_number + 1 < len(sources) and (sources[best_number + 1].passage == sources[best_number].passage)
        else (best_number,)
    )
    one = max(window, key=lambda number: (weight(masks.get(number, 0)), -number))
    return one, first, second, window


def _runs(stems: Sequence[str], passages: Passages) -> tuple[int, int, float, bool]:
    """Return how many words stand in runs of two or more that a passage has, of three or more, and the mean over all
    words of the length of their run, of 8 at most, as a share of 8 or of the sentence where it is shorter; and whether one
    run is all."""
    pairs, source = passages.pairs, passages.stems
    count = len(stems)
    two = three = 0
    depth = 0.0
    copied = False
    longest = min(8, count)
    at = 0
    while at < count:
        length = 0
        if at + 1 < count and (found := pairs.get((stems[at], stems[at + 1]))):
            length = 2
            live = found[:_PLACES]
            while at + length < count:
                word = stems[at + length]
                live = [place for place in live if source[place + length] == word]
                if not live:
                    break
                length += 1
        copied = copied or length == count
        if length:
            two += length
            three += length if length > 2 else 0
            depth += length * min(longest, length)
            at += length
        else:
            at += 1
    if count == 1:
        known = int(stems[0] in passages.places)
        return known, known, float(known), bool(known)
    return two, max(three, two if count == 2 else 0), depth / (count * longest), copied


def _links(words: Words, tells: Sequence[int], passages: Passages) -> tuple[float, int, float | None]:
    """Return how many neighbouring content words stand near each other in a sentence of the passages, in their order (1)
    or not (a half), how many neighbours there are, and the share of those about numbers and names that do."""
    content = [at for at, is_content in enumerate(words.content) if is_content]
    held = 0.0
    told = set(tells)
    held_told = 0.0
    of_told = 0
    for left, right in itertools.pairwise(content):
        value = _near(words.stems[left], words.stems[right], passages)
        held += value
        if left in told or right in told:
            of_told += 1
            held_told += value
    links = max(0, len(content) - 1)
    return held, links, held_told / of_told if of_told else None


def _near(left: str, right: str, passages: Passages) -> float:
    """Return 1 where ``right`` follows ``left`` closely in a sentence, a half where one sentence has both, else 0."""
    lefts, rights = passages.places.get(left), passages.places.get(right)
    if lefts is None or rights is None:
        return 0.0
    if (left, right) in passages.pairs:
        return 1.0
    found = 0.0
    sentence_of = passages.sentence_of
    for place in lefts[:_PLACES]:
        following = bisect_right(rights, place)
        if following < len(rights) and sentence_of[rights[following]] == sentence_of[place]:
            if rights[following] - place <= _NEAR:
                return 1.0
            found = 0.5
        elif following and sentence_of[rights[following - 1]] == sentence_of[place] and rights[following - 1] != place:
            found = 0.5
    return found
