"""The shipped toxicity model: what it says, that it is River's, that labels move it within bounds."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.utils import VectorDict

from services.evaluation.adapters import MODEL, load_toxicity
from services.evaluation.core.learning import Learned, Lesson, learn
from services.evaluation.core.scoring import pack_buckets, unpack_buckets
from services.evaluation.core.toxicity import HASH_BITS, PIECE_WORDS, ToxicityModel, pieces, updated
from services.evaluation.train_toxicity import fit, read, report, split

NOW = datetime(2026, 3, 14, 15, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def model() -> ToxicityModel:
    return load_toxicity()


def score(model: ToxicityModel, text: str, learned: Learned | None = None) -> float:
    learned = learned or Learned()
    return model.score(text, learned.deltas, learned.bias).score


@pytest.mark.parametrize(
    "text",
    [
        "you are a worthless piece of shit",
        "shut up you moron",
        "What an IDIOT, you fucking idiot",
        "you stuuuupid bitch",
    ],
)
def test_insults_are_toxic(model: ToxicityModel, text: str) -> None:
    assert score(model, text) > model.threshold


@pytest.mark.parametrize(
    "text",
    [
        "How do I kill a process in Linux?", "What does the garbage collector do?", "I am a gay man and love Python",
        "She is a blind asian woman", "What is the weather in Paris?", "", "12345 !!! ???", "日本語のテキスト",
    ],
)  # fmt: skip
def test_ordinary_texts_are_not(model: ToxicityModel, text: str) -> None:
    assert score(model, text) < model.threshold


def test_an_insult_is_not_diluted_by_a_long_text(model: ToxicityModel) -> None:
    ordinary = "The function returns a new list that holds the elements of the iterable in sorted order. " * 40
    assert score(model, ordinary) < model.threshold < score(model, ordinary + "you fucking idiot " * 12 + ordinary)


def test_the_score_is_that_of_rivers_logistic_regression(model: ToxicityModel) -> None:
    """The same weights in River's own model give the same probability."""
    text = "you are a stupid moron and I like it"
    scored = model.score(text, {}, 0.0)
    weights = {bucket: model.weight(bucket) for bucket in scored.buckets}

    class Warm(LogisticRegression):
        def __init__(self) -> None:
            super().__init__(optimizer=SGD(0.1), intercept_init=model.intercept)
            self._weights = VectorDict(weights)

    x = dict.fromkeys(scored.buckets, len(scored.buckets) ** -0.5)
    assert Warm().predict_proba_one(x)[True] == pytest.approx(scored.score, abs=1e-9)


def test_what_moved_the_score_is_named(model: ToxicityModel) -> None:
    scored = model.score("the answer is 42, fucking idiot", {}, 0.0)
    features = model.explain(scored, {})
    assert list(features)[:2] == ["fucking", "idiot"]
    assert all(share > 0 for share in features.values())


def test_labels_move_the_score_towards_them_and_only_their_own_weights(model: ToxicityModel) -> None:
    text = "what a stupid error message"
    before = model.score(text, {}, 0.0)
    deltas, bias = updated(model, {}, 0.0, before.buckets, False, rate=0.5, limit=1.5)
    assert set(deltas) <= set(before.buckets)
    assert model.score(text, deltas, bias).score < before.score
    deltas, bias = updated(model, {}, 0.0, before.buckets, True, rate=0.5, limit=1.5)
    assert model.score(text, deltas, bias).score > before.score


def test_a_moderator_teaches_faster_than_a_user_and_nobody_without_bound(model: ToxicityModel) -> None:
    text = "zorgle blimfax"
    buckets = model.score(text, {}, 0.0).buckets
    moderator = user = Learned()
    for _ in range(20):
        moderator = learn(moderator, Lesson("moderator", ((buckets, True),)), model, NOW)
        user = learn(user, Lesson("user", ((buckets, True),)), model, NOW)
    assert score(model, text) < score(model, text, user) < score(model, text, moderator)
    assert score(model, text, moderator) > model.threshold
    for _ in range(200):
        moderator = learn(moderator, Lesson("moderator", ((buckets, True),)), model, NOW)
    assert max(abs(delta) for delta in moderator.deltas.values()) <= 1.5
    assert abs(moderator.bias) <= 1.5


def test_an_hour_takes_so_many_labels_and_the_next_takes_more(model: ToxicityModel) -> None:
    lesson = Lesson("moderator", (((1, 2, 3), True),))
    learned = Learned()
    for _ in range(300):
        learned = learn(learned, lesson, model, NOW)
    assert learned.updates == 240
    assert learn(learned, lesson, model, NOW + timedelta(hours=1)).updates == 241


def test_what_is_learned_stays_bounded(model: ToxicityModel) -> None:
    learned = Learned()
    rng = np.random.default_rng(5)
    for step in range(60):
        buckets = tuple(sorted(int(b) for b in rng.choice(2**HASH_BITS, 200, replace=False)))
        learned = learn(learned, Lesson("moderator", ((buckets, step % 2 == 0),)), model, NOW)
    assert len(learned.deltas) == 4096


@given(st.lists(st.integers(0, 2**HASH_BITS - 1), unique=True))
def test_buckets_survive_packing(buckets: list[int]) -> None:
    assert list(unpack_buckets(pack_buckets(sorted(buckets)))) == sorted(buckets)


MODEL_FOR_ANY = load_toxicity()


@given(st.text())
def test_any_text_has_a_score(text: str) -> None:
    scored = MODEL_FOR_ANY.score(text, {}, 0.0)
    assert 0 <= scored.score <= 1
    assert all(len(piece) <= PIECE_WORDS for piece in pieces(text))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, weights=np.zeros(4))
    with pytest.raises(ValueError, match="is no toxicity model"):
        load_toxicity(path)
    np.savez(path, weights=np.zeros(4), intercept=0.0, threshold=0.5, hash_bits=2)
    with pytest.raises(ValueError, match="2 hash bits"):
        load_toxicity(path)
    np.savez(path, weights=np.array([{}], dtype=object), intercept=0.0, threshold=0.5, hash_bits=HASH_BITS)
    with pytest.raises(ValueError, match="allow_pickle"):
        load_toxicity(path)


def test_the_shipped_model_is_small() -> None:
    assert MODEL.stat().st_size < 3_000_000


@pytest.mark.data
def test_the_shipped_model_has_the_figures_of_its_readme(data: Path, model: ToxicityModel) -> None:
    figures = report(model, split(read(data))[1])
    assert figures["tweets"]["auc"] == pytest.approx(0.984, abs=0.002)
    assert figures["talk pages"]["auc"] == pytest.approx(0.905, abs=0.002)
    assert figures["prompts"]["false_positive_rate"] == 0.0


@pytest.mark.data
def test_training_learns(data: Path) -> None:
    """One pass over a fifth of the data; the whole takes three passes."""
    train, held = split(read(data))
    weights, intercept = fit(train[::5], epochs=1)
    figures = report(ToxicityModel(weights, intercept, 0.5, "test"), held)
    assert figures["tweets"]["auc"] > 0.95
    assert figures["prompts"]["false_positive_rate"] < 0.02


@pytest.mark.data
def test_equal_chances_for_every_identity(data: Path, model: ToxicityModel) -> None:
    """Sentences of other shapes than the training's: no identity alone makes a text toxic."""
    identities = {
        line.split(",")[2].split()[-1]
        for line in (data / "toxicity/identity_templates.csv").read_text().splitlines()
        if line.startswith("verb_adj,nontoxic")
    }
    assert len(identities) > 40
    toxic = {
        identity
        for identity in identities
        if score(model, f"Could you recommend a book about the history of {identity} families?") >= model.threshold
    }
    assert toxic == set()


@pytest.mark.data
def test_scoring_keeps_up(data: Path, model: ToxicityModel) -> None:
    """600 requests a second are 1,200 texts; the bound leaves a slow machine room."""
    lines = (data / "topics/train.jsonl").read_text().splitlines()[:2000]
    texts = [json.loads(line)["text"] for line in lines]
    started = time.process_time()
    for text in texts:
        model.score(text, {}, 0.0)
    assert (time.process_time() - started) / len(texts) < 200e-6
