"""Topic drift, pure: it finds shifts, keeps quiet without one, and its state survives anything."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from services.drift.features import FEATURES, Array, fourier_features
from services.drift.reference import TopicState
from services.drift.shift import Shift
from services.drift.topic import TopicParameters, observe

PARAMETERS = TopicParameters()
DIMENSIONS = 64


def topics(seed: int, count: int, messages: int) -> Array:
    """Return messages of ``count`` topics: unit vectors around seeded centres, shape (messages, DIMENSIONS)."""
    centres = np.random.default_rng(count).standard_normal((count, DIMENSIONS))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(count, size=messages)] + rng.standard_normal((messages, DIMENSIONS))
    return np.asarray(vectors, np.float32)


def elsewhere(seed: int, messages: int) -> Array:
    """Return messages of topics that :func:`topics` has not."""
    centres = np.random.default_rng(99).standard_normal((4, DIMENSIONS))
    rng = np.random.default_rng(seed + 1000)
    return np.asarray(centres[rng.integers(4, size=messages)] + rng.standard_normal((messages, DIMENSIONS)), np.float32)


def run(
    vectors: Array, state: TopicState | None = None, start: int = 0
) -> tuple[TopicState, list[tuple[int, Shift]]]:
    state = state or TopicState()
    shifts = []
    for index, feature in enumerate(fourier_features(vectors), start):
        state, shift = observe(state, feature, index * 3, PARAMETERS, 2e-5)
        if shift is not None:
            shifts.append((index, shift))
    return state, shifts


def test_features_give_the_gaussian_kernel() -> None:
    vectors = topics(1, 5, 300)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    features = fourier_features(vectors)
    assert features.shape == (300, FEATURES)
    exact = np.exp(-0.25 * ((unit[:, None] - unit[None]) ** 2).sum(-1))
    assert np.abs(features @ features.T - exact).max() < 0.15
    assert np.abs(features @ features.T - exact).mean() < 0.03


def test_the_projection_is_the_same_on_every_machine() -> None:
    # A segment's state is worth nothing under another projection: a change of it must be meant.
    features = fourier_features(np.eye(4, 384, dtype=np.float32))
    pinned = [[0.1416, 0.144, 0.133], [0.1392, 0.1182, 0.1195]]
    assert np.allclose(features[:2, :3], pinned, atol=1e-4)


@pytest.mark.parametrize(
    "vector", [np.zeros((1, 8)), np.full((1, 8), np.nan), np.full((1, 8), np.inf), np.zeros((1, 0))]
)
def test_what_is_no_direction_is_refused(vector: Array) -> None:
    with pytest.raises(ValueError, match=r"zero or not finite|dimensions"):
        fourier_features(vector.astype(np.float32))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("before", [60, 400])
def test_a_full_shift_is_found_soon_once_and_at_its_place(seed: int, before: int) -> None:
    state, shifts = run(np.vstack([topics(seed, 6, before), elsewhere(seed, 120)]))
    assert len(shifts) == 1
    index, shift = shifts[0]
    assert before < index < before + 40
    assert shift.statistic > shift.threshold
    # The windows meet close to the true change; offsets are three times the index here.
    assert abs(shift.test_first_offset / 3 - before) <= 8
    assert shift.reference_first_offset == 0
    assert shift.after_count + shift.before_count == index + 1
    # What came after is the new reference: returning is a change again.
    _, back = run(topics(seed + 50, 6, 60), state, before + 120)
    assert len(back) == 1


@pytest.mark.parametrize("seed", range(4))
def test_half_a_shift_takes_longer(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mixed = np.where(rng.random(150)[:, None] < 0.5, elsewhere(seed, 150), topics(seed + 7, 6, 150))
    _, shifts = run(np.vstack([topics(seed, 6, 400), mixed]))
    assert len(shifts) == 1
    assert 400 < shifts[0][0] < 500


def test_no_shift_no_alarm() -> None:
    alarms = [shifts for seed in range(6) for _, shifts in [run(topics(seed, count=1 + seed, messages=1000))]]
    assert alarms == [[]] * 6


def test_a_burst_of_one_repeated_message_inside_known_topics_is_within_bounds() -> None:
    vectors = topics(3, 6, 500)
    vectors[300:304] = vectors[10]
    assert run(vectors)[1] == []


def test_a_shift_that_keeps_the_distance_to_the_centre_is_found() -> None:
    # The trap of distances to the centroid: two topics opposite each other, equally far from the mean, and one ends.
    rng = np.random.default_rng(8)
    centre = np.zeros(DIMENSIONS, np.float32)
    centre[0] = 3
    sign = np.concatenate([rng.choice([-1, 1], 300), np.ones(200)])
    vectors = (sign[:, None] * centre + rng.standard_normal((500, DIMENSIONS))).astype(np.float32)
    _, shifts = run(vectors)
    assert len(shifts) == 1
    assert 300 < shifts[0][0] < 400


def test_the_state_is_bounded() -> None:
    state = TopicState()
    sizes = []
    for index, feature in enumerate(fourier_features(topics(1, 3, 6000))):
        state, _ = observe(state, feature, 10**9 + index, PARAMETERS, 2e-5)
        if index % 500 == 499:
            sizes.append(len(msgspec.msgpack.encode(state)))
    assert max(sizes) < 50_000
    assert max(sizes[4:]) - min(sizes[4:]) < 15_000, "after the ramp it only breathes with the blocks"


def test_a_state_that_went_through_the_changelog_at_every_step_gives_the_same() -> None:
    vectors = np.vstack([topics(2, 4, 90), elsewhere(2, 60), topics(3, 4, 90)])
    direct, expected = run(vectors)
    state, found = TopicState(), []
    for index, feature in enumerate(fourier_features(vectors)):
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=TopicState)
        state, shift = observe(state, feature, index * 3, PARAMETERS, 2e-5)
        if shift is not None:
            found.append((index, shift))
    assert found == expected
    assert len(found) == 2
    assert state == direct
    assert msgspec.json.decode(msgspec.json.encode(state), type=TopicState) == state


def test_the_sums_of_suffixes_are_those_of_the_messages() -> None:
    # What is taken off the total must be what was added, over all merges: compare with the stream itself.
    from services.drift.topic import _suffixes

    features = fourier_features(topics(5, 3, 1000))
    state = TopicState()
    for index, feature in enumerate(features):
        state, _ = observe(state, feature, index, PARAMETERS, 2e-5)
    rounded = features.astype(np.float16).astype(np.float64)
    sizes, sums, firsts = _suffixes(state, PARAMETERS)
    assert max(sizes) > 500
    for size, total, first in zip(sizes, sums, firsts, strict=True):
        assert np.abs(total - rounded[-int(size) :].sum(0)).max() < 1e-2
        assert first == 1000 - size
    assert np.abs(np.frombuffer(state.total) - rounded.sum(0)).max() < 1e-6


def test_old_messages_fade_and_nothing_else_does() -> None:
    parameters = TopicParameters(memory=1000)
    state = TopicState()
    for index, feature in enumerate(fourier_features(topics(5, 3, 3000))):
        state, shift = observe(state, feature, index, parameters, 2e-5)
        assert shift is None
    assert 1000 <= state.weight < 1100
    mean = np.frombuffer(state.total) / state.weight
    assert np.abs(mean - fourier_features(topics(6, 3, 3000)).mean(0)).max() < 0.02
