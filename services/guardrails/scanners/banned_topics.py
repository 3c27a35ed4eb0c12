"""Finds texts that speak of a subject which the policy bans, described by example sentences.

A sentence is as near to a topic as the mean cosine of its static vector (`penstock.embedding.static`) with the three nearest
examples. What is near depends on the topic, so the similarity is set against a background of ordinary sentences and
against how near the examples are to each other. Measured beside all-MiniLM-L6-v2 with the same examples (see the README
of the models): nearly as good at a thousandth of the cost.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from penstock.embedding.static import F32, StaticEmbedding, shared_static_embedding, words
from penstock.text.normalise import canonical

from services.guardrails.findings import Reference, Rule, Span, Topic
from services.guardrails.scanners.segments import sentences

BACKGROUND = Path(__file__).parent.parent / "models" / "topic_background.npz"
_PIECE = 300
"""Characters of the longest sentence that is judged as one."""
_NEAREST = 3
"""Examples that a sentence is compared with."""
_QUIET = 0.995
"""Share of the background that must stay below the operating point."""
_TOWARDS = 0.35
"""How far from there towards the examples' own similarity the operating point lies."""
_SLOPE = 4.0
"""Log-odds between the operating point and the examples' own similarity."""
_REMEMBERED = 256
"""Compiled rules that are kept; each is a few kilobytes."""
_FEWEST_WORDS = 3
"""A sentence of fewer words names a thing but does not speak of it."""


@dataclass(frozen=True, slots=True)
class CompiledTopic:
    """Unit vectors of the examples, shape (examples, dimension); a similarity of `point` scores 0.5, and every further
    `width` adds one to the log-odds.
    """

    kind: str
    examples: F32
    point: float
    width: float

    def scores(self, vectors: F32) -> F32:
        """Calibrated similarity of sentences given as unit vectors, from 0 to 1, shape (sentences,)."""
        odds = (nearness(vectors, self.examples) - self.point) / self.width
        return np.asarray(1.0 / (1.0 + np.exp(-odds.clip(-30, 30))), dtype=np.float32)


class BannedTopicsScanner:
    """One span for each topic: its surest sentence, or two that follow one another. The kind is `TOPIC:` and the topic's
    name.
    """

    name = "banned_topics"
    version = "1"
    default_threshold = 0.5

    def __init__(self, embedding: StaticEmbedding, background: F32) -> None:
        """`background` are unit vectors of ordinary sentences, shape (sentences, dimension)."""
        self._embedding = embedding
        self._background = background
        self._compiled: OrderedDict[tuple[Topic, ...], tuple[CompiledTopic, ...]] = OrderedDict()

    @classmethod
    def packaged(cls) -> "BannedTopicsScanner":
        return cls(shared_static_embedding(), load_background())

    def check(self, rule: Rule) -> None:
        """Raise ValueError for a topic whose examples hold no known words, or whose name is given twice."""
        names = [topic.name for topic in rule.topics]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"topics: {', '.join(repeated)} is given more than once: merge its examples")
        for topic in rule.topics:
            if not self._vectors(topic.examples).any():
                raise ValueError(f"topics: the examples of {topic.name} hold no known words: give sentences about it")

    def scan(self, text: str, rule: Rule, reference: Reference) -> list[Span]:
        topics = self._topics(rule.topics)
        if not topics:
            return []
        reference.checkpoint()
        places, sums = self._sentences(text)
        if not places:
            return []
        together = sums[:-1] + sums[1:]
        spans = places + [(before[0], after[1]) for before, after in pairwise(places)]
        vectors = _unit(np.concatenate([sums, together]))
        found = []
        for topic in topics:
            reference.checkpoint()
            scores = topic.scores(vectors)
            best = int(scores.argmax())
            found.append(Span(topic.kind, *spans[best], float(scores[best])))
        return found

    def _sentences(self, text: str) -> tuple[list[tuple[int, int]], F32]:
        """Places of the sentences that are long enough, and the unit vector of each."""
        places, vectors = [], []
        for start, end in sentences(text, _PIECE):
            found = words(canonical(text[start:end]))
            if sum(word[0].isalpha() for word in found) >= _FEWEST_WORDS:
                places.append((start, end))
                vectors.append(self._embedding.embed_rows(self._embedding.rows(found)))
        return places, np.stack(vectors) if vectors else np.zeros((0, self._embedding.dimension), np.float32)

    def _topics(self, topics: tuple[Topic, ...]) -> tuple[CompiledTopic, ...]:
        """Compiled once for each rule; the least recently used one is forgotten."""
        known = self._compiled.get(topics)
        if known is None:
            known = tuple(
                compiled(topic, vectors, self._background)
                for topic in topics
                if (vectors := self._vectors(topic.examples)).any()
            )
            self._compiled[topics] = known
            while len(self._compiled) > _REMEMBERED:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(topics)
        return known

    def _vectors(self, examples: Sequence[str]) -> F32:
        found = np.stack([self._embedding.embed(canonical(example)) for example in examples])
        return np.asarray(found[found.any(axis=1)], dtype=np.float32)


def compiled(topic: Topic, examples: F32, background: F32) -> CompiledTopic:
    """Calibrate a topic: its operating point lies above nearly all of the background, part of the way to how near each
    example is to the others.
    """
    quiet = float(np.quantile(nearness(background, examples), _QUIET))
    own = _own_nearness(examples)
    # Examples that have little to do with each other (or a single one) say nothing of the topic's width.
    near = max(own, quiet + 0.1)
    point = quiet + _TOWARDS * (near - quiet)
    return CompiledTopic(f"TOPIC:{topic.name}", examples, point, max(near - point, 0.05) / _SLOPE)


def nearness(vectors: F32, examples: F32) -> F32:
    """Mean cosine of each vector with its nearest examples, shape (vectors,)."""
    cosines = vectors @ examples.T
    count = min(_NEAREST, len(examples))
    return np.asarray(np.partition(cosines, len(examples) - count, axis=1)[:, -count:].mean(axis=1), dtype=np.float32)


def _own_nearness(examples: F32) -> float:
    """Median nearness of an example to the others; that of a paraphrase where there is but one."""
    if len(examples) < 2:
        return 0.8
    rest = [nearness(examples[i : i + 1], np.delete(examples, i, axis=0))[0] for i in range(min(len(examples), 64))]
    return float(np.median(rest))


def load_background(path: Path = BACKGROUND) -> F32:
    """Unit vectors of ordinary sentences, shape (sentences, dimension), stored in 8 bits."""
    with np.load(path, allow_pickle=False) as arrays:
        return _unit(arrays["codes"].astype(np.float32))


def _unit(vectors: F32) -> F32:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9), dtype=np.float32)
