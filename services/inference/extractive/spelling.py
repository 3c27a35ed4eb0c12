"""Typing errors in a question, by the words of the passages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from penstock.embedding.static import StaticEmbedding

from services.inference.extractive.reading import Question, Sentence

__all__ = ["one_error_apart", "respelled"]

# A shorter word is one error away from too many others.
_SHORTEST = 5
# Words that are looked for: a question with more that nobody knows is no question with typing errors.
_MOST = 16


def respelled(question: Question, sentences: Sequence[Sentence], embedding: StaticEmbedding) -> Question:
    """Return ``question`` with each word that neither the passages nor the embedding knows as a passage has it, where a
    word of one begins alike and is one error apart.
    """
    known = {stem for sentence in sentences for stem in sentence.read.stems}
    unknown = {
        stem: word
        for stem, word in question.words.items()
        if stem not in known and len(word) >= _SHORTEST and word.isalpha() and len(embedding.word_rows(word)) != 1
    }
    if not unknown:
        return question
    initials = {word[0] for word in unknown.values()}
    written: dict[str, dict[str, str]] = {initial: {} for initial in initials}
    for sentence in sentences:
        for word, stem in zip(sentence.read.words, sentence.read.stems, strict=True):
            if word[:1] in initials and word.isalpha():
                written[word[0]].setdefault(word, stem)
    meant: dict[str, tuple[str, str]] = {}
    for stem, word in islice(unknown.items(), _MOST):
        for other, its in written[word[0]].items():
            if one_error_apart(word, other):
                meant[stem] = (its, other)
                break
    if not meant:
        return question
    words: dict[str, str] = {}
    for stem, word in question.words.items():
        new, form = meant.get(stem, (stem, word))
        words.setdefault(new, form)
    return replace(
        question,
        stems=tuple(meant[stem][0] if stem in meant else stem for stem in question.stems),
        words=words,
        particular=frozenset(meant[stem][0] if stem in meant else stem for stem in question.particular),
    )


def one_error_apart(one: str, other: str) -> bool:
    """Return whether the words differ by one letter added, left out or exchanged, or by two neighbours that changed places
    (Damerau 1964).
    """
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    if len(one) == len(other):
        swapped = one[start + 1 : start + 2] + one[start : start + 1] + one[start + 2 :]
        return one[start + 1 :] == other[start + 1 :] or (len(one) - start > 1 and swapped == other[start:])
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return longer[start + 1 :] == shorter[start:]
