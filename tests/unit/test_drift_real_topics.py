"""Topic drift on real texts through the real embedder: a small, seeded version of tests/bench/bench_drift.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from penstock.embedding.minilm import MiniLmEmbedder

from services.drift.features import Array, fourier_features
from services.drift.topic import TopicParameters, TopicState, observe

TEXTS = 110


@pytest.fixture(scope="module")
def domains(data: Path) -> dict[str, Array]:
    """Embeddings of some texts of each domain, shape (TEXTS, 384)."""
    rng = np.random.default_rng(0)
    rows = [json.loads(line) for line in (data / "topics" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    embedder = MiniLmEmbedder(threads=2)
    found = {}
    for domain in ("kitchen_and_dining", "credit_cards", "utility"):
        texts = [row["text"] for row in rows if row["domain"] == domain]
        found[domain] = embedder.embed([texts[index] for index in rng.choice(len(texts), TEXTS, replace=False)])
    return found


def detections(vectors: Array) -> list[int]:
    state, parameters, found = TopicState(), TopicParameters(), []
    for index, feature in enumerate(fourier_features(vectors)):
        state, shift = observe(state, feature, index, parameters, 2e-5)
        if shift is not None:
            found.append(index)
    return found


def draw(domains: dict[str, Array], domain: str, seed: int, count: int) -> Array:
    return domains[domain][np.random.default_rng(seed).integers(TEXTS, size=count)]


@pytest.mark.parametrize(("old", "new"), [("kitchen_and_dining", "credit_cards"), ("credit_cards", "utility")])
def test_a_full_shift_half_way_through_a_hundred_messages_is_found(
    domains: dict[str, Array], old: str, new: str
) -> None:
    for seed in range(4):
        stream = np.vstack([draw(domains, old, seed, 60), draw(domains, new, seed, 50)])
        found = detections(stream)
        assert len(found) == 1
        assert 60 <= found[0] < 60 + 35


def test_half_of_the_traffic_moving_is_found_against_a_longer_past(domains: dict[str, Array]) -> None:
    for seed in range(4):
        moves = np.random.default_rng(seed + 50).random(120)[:, None] < 0.5
        moved = np.where(moves, draw(domains, "utility", seed, 120), draw(domains, "kitchen_and_dining", seed + 9, 120))
        found = detections(np.vstack([draw(domains, "kitchen_and_dining", seed, 600), moved]))
        assert len(found) == 1
        assert 600 <= found[0] < 700


def test_no_shift_no_alarm(domains: dict[str, Array]) -> None:
    alarms = [detections(draw(domains, domain, 20 + seed, 700)) for seed in range(2) for domain in domains]
    assert alarms == [[]] * 6
