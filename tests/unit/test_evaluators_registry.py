"""Which evaluators there are, and how a team adds its own."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from penstock.embedding.protocol import Embedded, Vectors
from penstock.embedding.recent import RecentVectors

from services.evaluation.evaluators.protocol import Exchange, Judged
from services.evaluation.evaluators.registry import (
    GROUP,
    NAMES,
    EvaluatorError,
    added,
    all_evaluators,
    named,
    shipped,
)

POLITENESS = '''
from services.evaluation.evaluators.own import evaluator
from services.evaluation.evaluators.protocol import Exchange

WORDS = ("please", "thank", "welcome")


@evaluator("politeness", version="1", threshold=0.5, labels=("curt", "polite"))
def politeness(exchange: Exchange) -> float:
    """1 where the answer is polite."""
    return float(any(word in exchange.answer.lower() for word in WORDS))
'''


class Counting:
    """An embedder that counts what it embeds: each text is a direction of its own."""

    name, dimension = "counting", 8

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += texts
        rng = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=self.dimension) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rng], np.float32).reshape(len(texts), self.dimension)

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        return Embedded(self.embed(texts), tuple(len(text.split()) for text in texts))

    def token_spans(self, text: str) -> Sequence[tuple[int, int]]:
        return [(0, len(text))]


class Quiet:
    """An evaluator without a decorator."""

    name, subject, version = "toxicity", "prompt", "9"

    def evaluate(self, exchanges: Sequence[Exchange]) -> Sequence[Judged | None]:
        return [None] * len(exchanges)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", None) and str(tmp_path) in str(sys.modules[module].__file__):
            del sys.modules[module]


def test_names_are_those_of_the_evaluators_made() -> None:
    made = shipped(Counting())
    assert tuple(dict.fromkeys(one.name for one in made)) == NAMES
    assert all(one.version for one in made)
    assert len({(one.name, one.subject) for one in made}) == len(made)


def test_every_evaluator_names_its_verdicts() -> None:
    labels = {one.name: getattr(one, "labels", ("low", "high")) for one in shipped(Counting())}
    assert [name for name, names in labels.items() if names == ("low", "high")] == []


def test_one_name_makes_its_evaluators_only() -> None:
    def none() -> Counting:
        return Counting()

    assert [one.name for one in named("readability", none)] == ["readability"]
    assert [one.subject for one in named("toxicity", none)] == ["prompt", "answer"]
    with pytest.raises(EvaluatorError, match="did you mean readability"):
        named("readabilty", none)


def test_a_learning_classifier_takes_the_place_of_the_shipped_one() -> None:
    made = shipped(Counting(), instead={"toxicity": [Quiet()]})  # type: ignore[list-item]
    assert [one.version for one in made if one.name == "toxicity"] == ["9"]


def test_ten_lines_add_an_evaluator(folder: Path) -> None:
    (folder / "our_evaluators.py").write_text(POLITENESS)
    assert len([line for line in POLITENESS.splitlines() if line.strip()]) <= 10
    own = added(["our_evaluators"])[0]
    assert [one.score for one in own.evaluate([Exchange(answer="Thank you!"), Exchange(answer="No.")]) if one] == [1, 0]
    assert own.name in [one.name for one in all_evaluators(Counting(), ["our_evaluators", " "])]


def test_entry_points_are_found(folder: Path) -> None:
    (folder / "packaged_evaluators.py").write_text(POLITENESS)
    one = EntryPoint("ours", "packaged_evaluators:politeness", GROUP)
    whole = EntryPoint("ours", "packaged_evaluators", GROUP)
    assert [each.name for each in added(points=[one])] == ["politeness"]
    assert [each.name for each in added(points=[whole])] == ["politeness"]


def test_an_imported_evaluator_is_not_added_again(folder: Path) -> None:
    source = "from services.evaluation.evaluators.readability import readability\n" + POLITENESS
    (folder / "building_on.py").write_text(source)
    assert [one.name for one in added(["building_on"])] == ["politeness"]


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (None, "cannot be imported: ModuleNotFoundError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("x = 1", "holds no evaluator"),
        (POLITENESS.replace('"politeness"', '"readability"'), "two evaluators named 'readability'"),
    ],
)
def test_what_cannot_be_added_says_why(folder: Path, source: str | None, cause: str) -> None:
    if source is not None:
        (folder / "broken_evaluators.py").write_text(source)
    with pytest.raises(EvaluatorError, match=cause):
        all_evaluators(Counting(), ["broken_evaluators"])


def test_texts_are_embedded_once_and_forgotten_in_order() -> None:
    counting = Counting()
    recent = RecentVectors(counting, capacity=2)
    first = recent.embed(["a", "b", "a"])
    assert counting.embedded == ["a", "b"]
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(recent.embed(["a"])[0], first[0])
    recent.embed(["c"])  # forgets b, which was used longest ago
    recent.embed(["a", "b"])
    assert counting.embedded == ["a", "b", "c", "b"]
    assert recent.embed([]).shape == (0, 8)


def test_a_vector_does_not_depend_on_what_is_embedded_beside_it() -> None:
    class Padding(Counting):
        """As embedders are: padding to the longest text of a call moves the last bits of all its vectors."""

        def embed(self, texts: Sequence[str]) -> Vectors:
            return super().embed(texts) + np.float32(1e-7) * max(map(len, texts))

    alone = RecentVectors(Padding()).embed(["short"])[0]
    together = RecentVectors(Padding()).embed(["one that is longer", "short"])[1]
    assert alone.tobytes() == together.tobytes()


def test_long_texts_are_not_kept() -> None:
    counting = Counting()
    recent = RecentVectors(counting, longest=3)
    recent.embed(["long text"])
    recent.embed(["long text"])
    assert counting.embedded == ["long text"] * 2


def test_a_text_is_read_to_its_end_where_no_most_is_set() -> None:
    text = "word " * 2_000
    whole, beginning = Counting(), Counting()
    RecentVectors(whole, most_pieces=None).embed([text])
    RecentVectors(beginning, most_pieces=10).embed([text])
    assert whole.embedded == [text]
    assert text.startswith(beginning.embedded[0])
    assert len(beginning.embedded[0]) < 200


def test_the_evaluators_of_a_batch_share_their_vectors() -> None:
    counting = Counting()
    exchange = Exchange(question="Why is the sky blue?", answer="Light is scattered. Blue is scattered most of all.")
    wanted = {"answer_relevance", "completeness", "coherence"}
    for one in shipped(counting):
        if one.name in wanted:
            one.evaluate([exchange])
    assert len(counting.embedded) == len(set(counting.embedded))
