"""Passages that answer none of the development questions, made of what is in ../shared/data.

Two in three are texts that are there: documents of the groundedness set, messages, comments and requests of twenty words
and more. The others, and what is wanted beyond those, are put together from sentences of the question set's own articles
that hold no answer to a question, and of those documents; every name and number in them is exchanged for one of another
text. They speak of the same things in the same words, under the same titles, and say something else.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["distractors", "lines"]

_LEAST_WORDS = 20
_SENTENCES = (3, 6)
_LEAST_IN_SENTENCE = 6  # words
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
# A word that begins with a capital inside a sentence, or holds a digit.
_NAME = re.compile(r"(?<=[a-z,;(] )[A-Z][\w'-]+")
_NUMBER = re.compile(r"\b[\w.,]*\d[\w.,]*\b")


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:  # not splitlines: a text may hold other ends of lines
        return [json.loads(line) for line in file]


def distractors(data: Path, count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Return (title, text) of ``count`` passages; the same ones for the same ``seed``, fewer being the first of more."""
    rng = random.Random(seed)
    articles = [(row["title"].replace("_", " "), text) for row, text in _unasked(data / "retrieval")]
    documents = sorted({row["context"] for row in lines(data / "groundedness" / "train.jsonl")})
    messages = [row["text"] for name in ("toxicity", "injection") for row in lines(data / name / "train.jsonl")]
    found = [text for text in dict.fromkeys((*documents, *messages)) if len(text.split()) >= _LEAST_WORDS]
    rng.shuffle(found)
    parts = [*articles, *(("", part) for text in documents for part in _SENTENCE.split(text))]
    natural, made = (
        iter(found),
        _recombined([part for part in parts if len(part[1].split()) >= _LEAST_IN_SENTENCE], rng),
    )
    passages: list[tuple[str, str]] = []
    while len(passages) < count:
        text = next(natural, None) if len(passages) % 3 else None
        passages.append(next(made) if text is None else ("", text))
    return passages


def _unasked(folder: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (passage, sentence) of each sentence that holds no answer to a question about its passage."""
    answers: dict[str, list[str]] = {}
    for question in lines(folder / "questions.jsonl"):
        for identity in question["relevant"]:
            answers.setdefault(identity, []).extend(answer.casefold() for answer in question["answers"])
    for row in lines(folder / "corpus.jsonl"):
        for part in _SENTENCE.split(row["text"]):
            if not any(answer in part.casefold() for answer in answers.get(row["id"], ())):
                yield row, part


def _recombined(sentences: Sequence[tuple[str, str]], rng: random.Random) -> Iterator[tuple[str, str]]:
    names = [name for _, text in sentences for name in _NAME.findall(text)]
    numbers = [number for _, text in sentences for number in _NUMBER.findall(text)]
    while True:
        chosen = rng.sample(sentences, rng.randint(*_SENTENCES))
        text = " ".join(part for _, part in chosen)
        text = _NAME.sub(lambda _: rng.choice(names), text)
        text = _NUMBER.sub(lambda _: rng.choice(numbers), text)
        yield chosen[0][0], text
