"""Topic drift on real texts through the real embedder: a small, seeded version of tests/bench/bench_drift.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from penstock.embedding.minilm import MiniLmEmbedder

from services.drift.detection.features import Array, fourier_features
from services.drift.detection.shift import Shift
from services.drift.detection.topic import TopicParameters, TopicState, observe

TEXTS = 450
DOMAINS = ("auto_and_commute", "credit_cards", "kitchen_and_dining", "utility")


@pytest.fixture(scope="module")
def domains(data: Path) -> dict[str, Array]:
    """Features of some texts of each domain, shape (TEXTS, FEATURES)."""
    rng = np.random.default_rng(0)
    rows = [json.loads(line) for line in (data / "topics" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    embedder = MiniLmEmbedder(threads=2)
    found = {}
    for domain in DOMAINS:
        texts = [row["text"] for row in rows if row["domain"] == domain]
        chosen = embedder.embed([texts[index] for index in rng.choice(len(texts), TEXTS, replace=False)])
        found[domain] = fourier_features(chosen)
    return found


def detections(features: Array) -> list[tuple[int, Shift]]:
    state, parameters, found = TopicState(), TopicParameters(), []
    for index, feature in enumerate(features):
        state, shift = observe(state, feature, index, parameters, 2.5e-5)
        if shift is not None:
            found.append((index, shift))
    return found


def moved(old: Array, new: Array, seed: int, before: int, after: int, share: float) -> Array:
    """Return messages of which a share moves; every text occurs once."""
    rng = np.random.default_rng(seed)
    kept, arrived = rng.permutation(old)[: before + after], rng.permutation(new)[:after]
    moves = rng.random(after)[:, None] < share
    return np.vstack([kept[:before], np.where(moves, arrived, kept[before : before + after])])


@pytest.mark.parametrize(("old", "new"), [("kitchen_and_dining", "credit_cards"), ("credit_cards", "utility")])
@pytest.mark.parametrize(
    ("before", "share", "after", "within"), [(100, 1.0, 100, 35), (300, 0.5, 150, 60), (300, 1.0, 100, 35)]
)
def test_traffic_that_moves_to_another_domain_is_found(
    domains: dict[str, Array], old: str, new: str, before: int, share: float, after: int, within: int
) -> None:
    delays = []
    for seed in range(3):
        found = detections(moved(domains[old], domains[new], seed, before, after, share))
        assert [shift.what for _, shift in found][:1] == ["topic"]
        assert found[0][0] >= before
        delays.append(found[0][0] - before + 1)
    assert np.median(delays) <= within
    assert max(delays) <= after


def test_a_fifth_of_a_mixture_moving_is_found(domains: dict[str, Array]) -> None:
    mixture = np.vstack([domains[domain] for domain in DOMAINS[:3]])
    delays = []
    for seed in range(5):
        found = detections(moved(mixture, domains["utility"], seed, 850, 450, 0.2))
        # An alarm before the change is the business of the test without one.
        delays.append(min(index for index, _ in found if index >= 850) - 850 + 1)
    assert np.median(delays) <= 200


def test_traffic_that_returns_is_recognised(domains: dict[str, Array]) -> None:
    first, other = domains["credit_cards"], domains["kitchen_and_dining"]
    found = detections(np.vstack([first[:250], other[:150], first[250:350]]))
    assert [(shift.pattern, shift.returned) for _, shift in found] == [("abrupt", False), ("recurring", True)]


def test_no_shift_no_alarm(domains: dict[str, Array]) -> None:
    rng = np.random.default_rng(1)
    streams = [rng.permutation(domains[domain]) for domain in DOMAINS]
    streams += [rng.permutation(np.vstack(list(domains.values()))) for _ in range(2)]
    assert [detections(stream) for stream in streams] == [[]] * 6
