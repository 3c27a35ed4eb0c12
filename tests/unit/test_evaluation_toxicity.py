"""The toxicity classifier: features and weights travel exactly, one step is River's, the worst piece of a text counts."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.embedding.protocol import Embedded, Vectors

from services.evaluation.evaluators.protocol import Exchange
from services.evaluation.toxicity import (
    CATEGORIES,
    FEATURES_VERSION,
    Features,
    FeaturesError,
    ToxicityEvaluator,
    ToxicityModel,
    Weights,
    WeightsError,
    learn,
    pack,
    pack_weights,
    start,
    unpack,
    unpack_weights,
)
from services.evaluation.toxicity.features import DIMENSION, SLOTS, dequantised, quantised
from services.evaluation.toxicity.learner import regression, values
from services.evaluation.toxicity.weights import MOST_SLOTS

ABUSE = "you are a worthless idiot, shut the fuck up"
CHAT = "could you tell me how to bake bread with rye flour?"


@functools.cache
def model() -> ToxicityModel:
    return ToxicityModel.load()


class Embedder:
    """Vectors that depend on the text alone; counts what it is asked."""

    name = "all-MiniLM-L6-v2"
    dimension = DIMENSION

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        rows = np.stack([np.random.default_rng(sum(map(ord, text))).normal(size=DIMENSION) for text in texts])
        unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def embed_counted(self, texts: Sequence[str]) -> Embedded:
        return Embedded(self.embed(texts), tuple(map(len, texts)))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


@functools.cache
def features(text: str, embedded: bool = True) -> Features:
    return model().featurise([text], Embedder() if embedded else None, None, "embedded" if embedded else "hashed")[0]


def bare(found: Features) -> Features:
    return msgspec.structs.replace(found, surfaces=())


@pytest.mark.parametrize("embedded", [True, False])
def test_packed_features_score_as_before(embedded: bool) -> None:
    found = features(ABUSE, embedded)
    packed = pack(found)
    assert unpack(packed) == bare(found)
    assert model().margin(unpack(packed)) == model().margin(found)
    assert len(packed) < 1_000


def test_packed_features_of_the_longest_piece_are_about_two_kilobytes() -> None:
    words = " ".join(f"extraordinarily{chr(97 + n // 26)}{chr(97 + n % 26)} not" for n in range(24))
    assert len(pack(features(words))) < 2_600


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_read_packed_and_scored(text: str) -> None:
    found = model().featurise([text], mode="hashed")[0]
    assert unpack(pack(found)) == bare(found)
    scored = model().score(found)
    assert 0 <= scored.score <= 1
    assert set(scored.categories) == set(CATEGORIES)
    assert all(0 <= value <= round(scored.score, 6) for value in scored.categories.values())


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_features_are_refused_by_name(data: bytes) -> None:
    try:
        found = unpack(data)
    except FeaturesError:
        return
    assert all(slots.max(initial=0) < SLOTS for slots in found.slots())


def test_features_of_another_version_are_refused() -> None:
    packed = bytearray(pack(features(CHAT)))
    packed[0] = FEATURES_VERSION + 1
    with pytest.raises(FeaturesError, match="cannot be read by version"):
        unpack(bytes(packed))


def test_quantised_vectors_stay_near() -> None:
    vectors = Embedder().embed(["a", "b", "c"])
    assert (dequantised(quantised(vectors)) * vectors).sum(axis=1) == pytest.approx(1, abs=1e-3)


def test_a_text_scores_the_same_whatever_it_is_read_together_with() -> None:
    texts = [ABUSE, CHAT, "they said it was fine", "x", ""]
    together = model().featurise(texts, Embedder())
    assert together == [model().featurise([text], Embedder())[0] for text in texts]


def test_a_long_text_is_judged_by_its_worst_piece() -> None:
    calm = "The library opens at nine and closes at six. " * 30
    alone, hidden = (model().score(features(text, False)).score for text in (ABUSE + ".", calm + ABUSE + ". " + calm))
    assert model().score(features(calm, False)).label == "clean"
    assert hidden > 0.9 * alone


def test_only_the_worst_pieces_of_a_long_text_are_embedded() -> None:
    embedder = Embedder()
    model().featurise(["A sentence about the weather in spring. " * 200], embedder)
    assert len(embedder.asked) == 3


def test_a_cascade_embeds_what_the_words_leave_open() -> None:
    embedder = Embedder()
    sure = "fuck you, you stupid fucking bitch"
    assert not model().featurise([sure], embedder, None, "cascade")[0].embedding
    assert model().featurise(["what a clown show, unbelievable"], embedder, None, "cascade")[0].embedding
    assert len(embedder.asked) == 1


def test_another_embedder_is_refused() -> None:
    other = Embedder()
    other.name = "text-embedding-x"
    with pytest.raises(ValueError, match=r"reads embeddings of all-MiniLM-L6-v2.*text-embedding-x"):
        model().featurise([CHAT], other)


@pytest.mark.parametrize(
    "disguised", ["y0u st*pid b1tch", "y o u  s t u p i d  b i t c h", "you stuuuupid b!tch", "youstupidbitch"]
)
def test_disguises_score_as_what_they_stand_for(disguised: str) -> None:
    plain, read = (model().score(features(text, False)).score for text in ("you stupid bitch", disguised))
    assert read > 0.9
    assert read == pytest.approx(plain, abs=0.05)


def test_names_of_identities_score_alike() -> None:
    terms = ("jewish", "muslim", "gay", "black", "white", "deaf", "mexican", "lesbian")
    for phrase in ("My neighbour is {}.", "I hate {} people"):
        scores = {model().score(features(phrase.format(term), False)).score for term in terms}
        assert len(scores) == 1


def test_the_explanation_names_the_words_that_matter() -> None:
    scored = model().score(features(ABUSE, False))
    assert scored.label == "toxic"
    assert set(scored.features) & {"idiot", "fuck", "worthless"}
    assert list(scored.features.values()) == sorted(scored.features.values(), reverse=True)
    assert model().score(features(CHAT, False)).features == {}


def test_categories_tell_a_threat_from_an_attack_on_a_group() -> None:
    threat = model().score(features("i will find you and kill you", False)).categories
    attack = model().score(features("all immigrants are vermin", False)).categories
    assert threat["threat"] > attack["threat"]
    assert attack["identity_attack"] > threat["identity_attack"]


@pytest.mark.parametrize("embedded", [True, False])
def test_a_step_is_that_of_rivers_regression(embedded: bool) -> None:
    found, before = features(CHAT, embedded), start(model())
    expected = regression(model(), before, found, rate=0.3)
    assert expected.predict_proba_one(values(found))[True] == pytest.approx(model().score(found).score, rel=1e-6)
    expected.learn_one(values(found), True)
    after = learn(model(), before, found, True, rate=0.3)
    assert model().score(found, after).score == pytest.approx(expected.predict_proba_one(values(found))[True], rel=1e-5)
    assert before == start(model())
    assert after.updates == 1


def test_labels_turn_a_score_around_and_leave_others_alone() -> None:
    weights, found = start(model()), features(CHAT)
    for _ in range(12):
        weights = learn(model(), weights, found, True)
    assert model().score(found, weights).score > 0.5
    other = features("my train was late again this morning")
    assert abs(model().margin(other, weights) - model().margin(other)) < 1.5


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([ABUSE, CHAT, "hello there", "get lost"]), st.booleans()), max_size=12))
def test_learning_is_the_same_through_bytes(labels: list[tuple[str, bool]]) -> None:
    straight = packed = start(model())
    for text, toxic in labels:
        straight = learn(model(), straight, features(text), toxic)
        packed = unpack_weights(pack_weights(learn(model(), packed, unpack(pack(features(text))), toxic)))
    assert straight == packed
    assert model().margin(features(ABUSE), straight) == model().margin(features(ABUSE), packed)


def test_weights_stay_bounded() -> None:
    weights = start(model())
    rng = np.random.default_rng(5)
    for _ in range(60):
        slots = np.unique(rng.integers(0, 1 << 17, 600)).astype("<u4")
        weights = learn(model(), weights, Features(slots.tobytes(), b"", b""), True, rate=100.0, limit=2.0)
    kept, deltas = weights.sparse()
    assert len(kept) == MOST_SLOTS
    assert np.abs(deltas).max() <= 2
    assert abs(weights.bias) <= 2
    assert len(pack_weights(weights)) < 200_000
    assert unpack_weights(pack_weights(weights)) == weights


def test_a_rate_of_nothing_counts_the_label_only() -> None:
    weights = learn(model(), start(model()), features(ABUSE), False, rate=0.0)
    assert msgspec.structs.replace(weights, updates=0) == start(model())


def test_weights_of_another_model_are_refused() -> None:
    strange = Weights("1999.1", updates=1)
    with pytest.raises(WeightsError, match=r"1999\.1 do not fit"):
        model().score(features(CHAT), strange)
    with pytest.raises(WeightsError, match=r"1999\.1 do not fit"):
        learn(model(), strange, features(CHAT), True)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (Weights("v", slots=b"\1\0\0\0", deltas=b""), "do not fit together"),
        (Weights("v", slots=b"\2\0\0\0\1\0\0\0", deltas=b"\0" * 8), "do not fit together"),
        (Weights("v", slots=b"\xff" * 4, deltas=b"\0" * 4), "do not fit together"),
        (Weights("v", bias=float("nan")), "not finite"),
    ],
)
def test_damaged_weights_are_refused(weights: Weights, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        unpack_weights(pack_weights(weights))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03"])
def test_bytes_that_are_no_weights_are_refused(data: bytes) -> None:
    with pytest.raises(WeightsError, match="not packed toxicity weights"):
        unpack_weights(data)


def test_the_evaluator_judges_its_subject_under_the_weights_in_force() -> None:
    exchanges = [Exchange(question=ABUSE, answer=CHAT), Exchange(question=" ", answer="")]
    prompt = ToxicityEvaluator("prompt", model(), None, mode="hashed")
    answer = ToxicityEvaluator("answer", model(), None, mode="hashed")
    of_prompt, blank = prompt.evaluate(exchanges)
    of_answer, no_answer = answer.evaluate(exchanges)
    assert blank is None
    assert no_answer is None
    assert of_prompt is not None
    assert of_answer is not None
    assert of_prompt.label == "toxic"
    assert of_prompt.reason.startswith("moved most by: ")
    assert of_prompt.score > of_answer.score
    weights = start(model())
    for _ in range(12):
        weights = learn(model(), weights, features(CHAT, False), True)
    (under, kept), _ = answer.evaluate_with(exchanges, weights)
    assert under is not None
    assert under.score > of_answer.score
    assert kept is not None
    assert bare(kept) == bare(features(CHAT, False))
    assert ToxicityEvaluator("answer", model(), None, mode="hashed", weights=weights).version.endswith("+12")
