"""Questions put to the extractive model, with the passages that the service's own retrieval finds for them."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from penstock.config.kinds import Retrieval
from penstock.contracts.records import Passage
from penstock.embedding import EmbeddingSettings, embedder_from_settings

from services.retrieval.adapters import Point, Query
from services.retrieval.chunking import ChunkLimits, chunk_document
from services.retrieval.cleaning import clean_document
from services.retrieval.core import chunk_records
from services.retrieval.filters import Conditions
from services.retrieval.qdrant_embedded import EmbeddedStore
from services.retrieval.ranking import passage_of, ranked
from services.retrieval.sparse import chunk_vector, query_vector
from tests.bench.bench_retrieval import document
from tests.bench.retrieval_distractors import lines

TOP_K, FLOOR = 4, 0.25
"""As the default route has them."""
_FOUND = 60
_SEED = 5


@dataclass(frozen=True)
class Case:
    """A question and the passages attached to it.

    Attributes:
        subject: article that the question is about: cases of one subject stay in one fold.
        phrasing: how it is asked; see PHRASINGS.
        scenario: ``found``: the passage that answers is among the first four; ``neighbours``: only other passages of
            retrieval are, most of them of the same article; ``strangers``: the four best of other articles, whatever
            their score. The two ``flat`` ones have the passages of ``found`` and ``strangers``, at one score; ``posing``
            are strangers that score as the passages of ``found`` do.
        answers: what an answer may contain; empty where the passages have none.
        relevant: ids of the passages that answer.
    """

    subject: str
    phrasing: str
    scenario: str
    question: str
    passages: tuple[Passage, ...]
    answers: tuple[str, ...] = ()
    relevant: frozenset[str] = frozenset()


def holds(text: str, answers: Sequence[str]) -> bool:
    """Return whether ``text`` contains one of ``answers``, without regard to case and space."""
    folded = " ".join(text.lower().split())
    return any(" ".join(one.lower().split()) in folded for one in answers)


def _plain(question: str, _: random.Random) -> str:
    return question


def _polite(question: str, _: random.Random) -> str:
    return f"Hi! Could you please tell me: {question[0].lower()}{question[1:]} Thanks a lot."


def _lower(question: str, _: random.Random) -> str:
    return question.lower().rstrip("?")


_OPENING = re.compile(
    r"^(?:what|who|when|where|which|how|why)\b(?: (?:is|was|were|are|did|does|do|many|much))?(?: (?:the|a|an))?",
    re.IGNORECASE,
)


def _keywords(question: str, _: random.Random) -> str:
    return _OPENING.sub("", question.rstrip("?")).strip() or question


def _typo(question: str, rng: random.Random) -> str:
    """Two letters of a long word change places."""
    words = question.split()
    long = [index for index, word in enumerate(words) if len(word) > 5 and index > 0]
    if long:
        index = rng.choice(long)
        word = words[index]
        at = rng.randrange(1, len(word) - 2)
        words[index] = f"{word[:at]}{word[at + 1]}{word[at]}{word[at + 2 :]}"
    return " ".join(words)


def _shortened(question: str, rng: random.Random) -> str:
    """One long word is left out, where more than two are there."""
    words = question.split()
    long = [index for index, word in enumerate(words) if len(word) > 4 and index > 0]
    if len(long) > 2:
        del words[rng.choice(long)]
    return " ".join(words)


_SYNONYMS = dict(
    pair.split(":")
    for pair in """name:title many:numerous begin:start began:started start:begin build:construct built:constructed
    create:make created:made win:gain won:gained killed:slain get:receive group:body people:persons
    type:kind kind:type called:termed used:employed large:big largest:biggest happen:occur
    happened:occurred country:nation city:town year:date think:believe help:assist wrote:authored
    show:demonstrate part:portion old:aged study:research important:significant number:count area:region
    region:area live:reside lived:resided leader:head fight:battle make:produce made:produced
    found:discovered home:residence""".split()
)


def _synonyms(question: str, _: random.Random) -> str:
    return " ".join(_SYNONYMS.get(word.lower(), word) for word in question.split())


PHRASINGS: Mapping[str, Callable[[str, random.Random], str]] = {
    "as asked": _plain,
    "polite": _polite,
    "lower case": _lower,
    "keywords": _keywords,
    "typing error": _typo,
    "a word less": _shortened,
    "synonyms": _synonyms,
}
"""Ways to ask the same, made by rule."""


async def cases(data: Path, phrasings: Collection[str] = tuple(PHRASINGS), every: int = 1) -> list[Case]:
    """Return every case of the development questions: each is asked in each phrasing, and searched for anew.

    Args:
        every: only one question in so many.
    """
    questions = lines(data / "retrieval" / "questions.jsonl")[::every]
    embedder = embedder_from_settings(EmbeddingSettings())
    records = []
    for page in lines(data / "retrieval" / "corpus.jsonl"):
        item = document(page["id"], page["title"], page["text"])
        clean = clean_document(item.content, item.content_type)
        records += chunk_records(item, clean.title, chunk_document(clean, embedder.token_spans, ChunkLimits()))
    texts = [record.embedded_text for record in records]
    points = [
        Point(record, vector, chunk_vector(text))
        for record, vector, text in zip(records, embedder.embed(texts), texts, strict=True)
    ]
    found: list[Case] = []
    with tempfile.TemporaryDirectory() as folder:
        store = await EmbeddedStore.open(Path(folder), "bench", embedder.dimension)
        await store.write(points, (), ())
        for phrasing in phrasings:
            rng = random.Random(_SEED)
            asked = [PHRASINGS[phrasing](question["question"], rng) for question in questions]
            queries = [
                Query(Conditions("bench", "default"), vector, query_vector(text))
                for text, vector in zip(asked, embedder.embed(asked), strict=True)
            ]
            for row, text, hits in zip(questions, asked, await store.search(queries, _FOUND), strict=True):
                passages = [passage_of(each.hit.chunk, each.score) for each in ranked(text, hits, Retrieval())]
                found += _scenarios(phrasing, text, passages, row["answers"], frozenset(row["relevant"]), rng)
        await store.close()
    return found


def _scenarios(
    phrasing: str,
    question: str,
    passages: Sequence[Passage],
    answers: Sequence[str],
    relevant: frozenset[str],
    rng: random.Random,
) -> Iterator[Case]:
    subject = next(iter(relevant)).split("-")[0]
    case = Case(subject, phrasing, "", question, ())
    near = [p for p in passages if p.document_id not in relevant and p.score >= FLOOR][:TOP_K]
    far = [p for p in passages if not p.document_id.startswith(f"{subject}-")][:TOP_K]
    found = [p for p in passages[:TOP_K] if p.score >= FLOOR]
    if near:
        yield replace(case, scenario="neighbours", passages=tuple(near))
    if far:
        yield replace(case, scenario="strangers", passages=tuple(far))
    if not any(p.document_id in relevant for p in found):
        return
    right = replace(case, answers=tuple(answers), relevant=relevant)
    yield replace(right, scenario="found", passages=tuple(found))
    score = rng.uniform(0.3, 0.8)
    yield replace(right, scenario="flat", passages=tuple(_scored(p, score) for p in found))
    if far:
        yield replace(case, scenario="flat strangers", passages=tuple(_scored(p, score) for p in far))
        lift = found[0].score - far[0].score
        yield replace(case, scenario="posing", passages=tuple(_scored(p, p.score + lift) for p in far))


def _scored(passage: Passage, score: float) -> Passage:
    return msgspec.structs.replace(passage, score=score)


def table(outcomes: Sequence[tuple[Case, bool, str]]) -> list[str]:
    """Return a line for each phrasing: the share of questions that are answered rightly, and of those told that nothing was
    found.

    Args:
        outcomes: each case, whether an answer was given, and the answer.
    """
    printed = [
        f"{'phrasing':14} {'found: right':>13} {'nothing':>8} {'words':>6} | {'flat: right':>12} | nothing said of: "
        f"{'neighbours':>10} {'strangers':>10} {'flat':>6} {'posing':>7}"
    ]
    for phrasing in dict.fromkeys(case.phrasing for case, _, _ in outcomes):
        of: dict[str, list[tuple[Case, bool, str]]] = {}
        for one in outcomes:
            if one[0].phrasing == phrasing:
                of.setdefault(one[0].scenario, []).append(one)
        right = {
            scenario: sum(holds(text, case.answers) for case, _, text in of[scenario]) / len(of[scenario])
            for scenario in ("found", "flat")
        }
        silent = {scenario: sum(not said for _, said, _ in some) / len(some) for scenario, some in of.items()}
        words = [len(text.split()) for _, said, text in of["found"] if said]
        printed.append(
            f"{phrasing:14} {right['found']:13.3f} {silent['found']:8.3f} {sum(words) / len(words):6.0f} | "
            f"{right['flat']:12.3f} | {'':16} {silent['neighbours']:10.3f} {silent['strangers']:10.3f} "
            f"{silent['flat strangers']:6.3f} {silent['posing']:7.3f}"
        )
    return printed
