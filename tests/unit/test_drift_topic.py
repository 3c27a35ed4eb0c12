"""Topic drift, pure: it finds shifts, keeps quiet without one, and its state survives anything."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.drift.detection.features import DIRECTIONS_FILE, FEATURES, Array, fourier_features
from services.drift.detection.reference import Reference, absorb, geometry, quantised, uniform, values
from services.drift.detection.shift import Shift
from services.drift.detection.topic import TopicParameters, TopicState, observe, rebased_now
from services.drift.detection.topic_patterns import is_ramp
from services.drift.detection.trials import BINS, Trial, evidence, judged
from services.drift.detection.windows import Block, merged, newest, offset_of

PARAMETERS = TopicParameters()
ALLOWANCE = 2.5e-5
DIMENSIONS = 64


def topics(seed: int, count: int, messages: int, dimensions: int = DIMENSIONS) -> Array:
    """Return messages of ``count`` topics: vectors around seeded centres, shape (messages, dimensions)."""
    centres = np.random.default_rng(count).standard_normal((count, dimensions))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(count, size=messages)] + rng.standard_normal((messages, dimensions))
    return np.asarray(vectors, np.float32)


def elsewhere(seed: int, messages: int, dimensions: int = DIMENSIONS) -> Array:
    """Return messages of topics that :func:`topics` has not."""
    centres = np.random.default_rng(99).standard_normal((4, dimensions))
    rng = np.random.default_rng(seed + 1000)
    return np.asarray(centres[rng.integers(4, size=messages)] + rng.standard_normal((messages, dimensions)), np.float32)


def run(
    vectors: Array, state: TopicState | None = None, start: int = 0, allowance: float = ALLOWANCE
) -> tuple[TopicState, list[tuple[int, Shift]]]:
    state = state or TopicState()
    shifts = []
    for index, feature in enumerate(fourier_features(vectors), start):
        state, shift = observe(state, feature, index * 3, PARAMETERS, allowance)
        if shift is not None:
            shifts.append((index, shift))
    return state, shifts


def test_features_are_bounded_and_keep_directions_apart() -> None:
    features = fourier_features(topics(1, 5, 300))
    assert features.shape == (300, FEATURES)
    assert np.abs(features).max() <= 1
    # Length does not matter, direction does.
    assert np.allclose(fourier_features(topics(1, 5, 300) * np.float32(1e3)), features, atol=1e-5)
    assert not np.allclose(fourier_features(-topics(1, 5, 300)), features, atol=0.1)


@pytest.mark.parametrize("dimensions", [1, 2, 8, 96, 384, 768, 1536])
def test_every_length_of_vector_has_a_projection(dimensions: int) -> None:
    features = fourier_features(topics(1, 3, 20, dimensions))
    assert features.shape == (20, FEATURES)
    assert np.all(np.isfinite(features))


def test_the_projection_is_the_same_on_every_machine() -> None:
    # A segment's state is worth nothing under another projection: a change of it must be meant.
    features = fourier_features(np.eye(4, 512, dtype=np.float32))
    pinned = [[-0.0514, -0.0164, 0.0984], [0.1203, 0.3897, 0.0617]]
    assert np.allclose(features[:2, :3], pinned, atol=1e-4)


def test_the_fitted_directions_are_orthonormal() -> None:
    directions = np.load(DIRECTIONS_FILE).astype(np.float64)
    assert directions.shape == (384, FEATURES)
    assert np.abs(directions.T @ directions - np.eye(FEATURES)).max() < 2e-3


@pytest.mark.parametrize(
    "vector", [np.zeros((1, 8)), np.full((1, 8), np.nan), np.full((1, 8), np.inf), np.zeros((1, 0))]
)
def test_what_is_no_direction_is_refused(vector: Array) -> None:
    with pytest.raises(ValueError, match=r"zero or not finite|dimensions"):
        fourier_features(vector.astype(np.float32))


def test_very_large_and_very_small_vectors_have_a_direction() -> None:
    vectors = topics(1, 5, 10)
    expected = fourier_features(vectors)
    for factor in (1e-25, 1e25):
        assert np.allclose(fourier_features(vectors * np.float32(factor)), expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("before", [100, 400])
def test_a_full_shift_is_found_soon_once_and_at_its_place(seed: int, before: int) -> None:
    state, shifts = run(np.vstack([topics(seed, 6, before), elsewhere(seed, 150)]))
    assert len(shifts) == 1
    index, shift = shifts[0]
    assert before < index < before + 45
    assert shift.what == "topic"
    assert shift.pattern in ("abrupt", "gradual")
    assert shift.statistic >= shift.threshold > 0
    assert not shift.returned
    # The windows meet close to the true change; offsets are three times the index here.
    assert abs(shift.test_first_offset / 3 - before) <= 20
    assert shift.reference_first_offset == 0
    assert shift.after_count + shift.before_count == index + 1
    assert shift.after["discrepancy"] > 0.05 * shift.before["spread"]
    # What came after is the new reference, and what was before is remembered.
    _, back = run(topics(seed + 50, 6, 80), state, before + 150)
    assert [(shift.pattern, shift.returned) for _, shift in back] == [("recurring", True)]


@pytest.mark.parametrize("dimensions", [8, 32, 384, 1536])
def test_a_shift_of_the_mean_of_random_vectors_is_found(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    vectors = rng.standard_normal((800, dimensions)).astype(np.float32)
    shift = rng.standard_normal(dimensions)
    vectors[600:] += (5 * shift / np.linalg.norm(shift)).astype(np.float32)
    found = [index for index, _ in run(vectors)[1]]
    assert len(found) == 1
    assert 600 < found[0] < 700


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("share", "within"), [(0.5, 60), (0.2, 200)])
def test_a_part_of_the_traffic_takes_longer(seed: int, share: float, within: int) -> None:
    rng = np.random.default_rng(seed)
    mixed = np.where(rng.random(within)[:, None] < share, elsewhere(seed, within), topics(seed + 7, 6, within))
    _, shifts = run(np.vstack([topics(seed, 6, 600), mixed]))
    assert len(shifts) == 1
    assert shifts[0][0] > 600


def test_no_shift_no_alarm() -> None:
    alarms = [shifts for seed in range(6) for _, shifts in [run(topics(seed, count=1 + seed, messages=1000))]]
    assert alarms == [[]] * 6


def test_without_an_allowance_nothing_is_ever_told() -> None:
    vectors = np.vstack([topics(1, 6, 200), elsewhere(1, 200)])
    assert run(vectors, allowance=0.0)[1] == []


def test_wealth_is_spent_on_candidates_and_never_more_than_accrued() -> None:
    state = TopicState()
    for index, feature in enumerate(fourier_features(topics(3, 4, 1500))):
        state, _ = observe(state, feature, index, PARAMETERS, ALLOWANCE)
        owned = state.wealth + sum(trial.alpha for trial in state.trials)
        assert state.wealth >= 0
        assert owned <= ALLOWANCE * max(index + 1, PARAMETERS.advance) * (1 + 1e-9)
    assert state.wealth < ALLOWANCE * 1500


def test_identical_messages_are_no_drift() -> None:
    # Half of the traffic is the same text, as of a health check or a cache warmer.
    rng = np.random.default_rng(5)
    vectors = topics(3, 6, 1500)
    vectors[rng.random(1500) < 0.5] = vectors[0]
    assert run(vectors)[1] == []
    assert run(np.repeat(vectors[:1], 600, axis=0))[1] == []


def test_messages_in_bursts_are_no_drift() -> None:
    # Conversations: 2 to 6 messages of one topic follow each other, all the time. A minute of them looks like a change
    # at first; what counts is that the detector learns.
    rng = np.random.default_rng(11)
    centres = np.random.default_rng(6).standard_normal((12, DIMENSIONS))
    which = np.repeat(rng.integers(12, size=2000), rng.integers(2, 7, size=2000))[:6000]
    vectors = (centres[which] + rng.standard_normal((6000, DIMENSIONS))).astype(np.float32)
    _, shifts = run(vectors)
    assert sum(index >= 1000 for index, _ in shifts) <= 1


def test_messages_that_are_sent_again_are_no_news() -> None:
    rng = np.random.default_rng(11)
    alarms = 0
    for seed in range(3):
        messages = topics(seed, 4, 1000)
        alarms += len(run(np.repeat(messages, rng.integers(1, 4, len(messages)), axis=0))[1])
    assert alarms <= 1


def test_a_loop_that_sends_one_message_is_still_a_change() -> None:
    for seed in range(3):
        loop = np.repeat(elsewhere(seed, 1), 200, axis=0)
        _, shifts = run(np.vstack([topics(seed, 4, 400), loop]))
        assert shifts, f"seed {seed}"
        assert 400 <= shifts[0][0] < 560


def test_a_handful_of_strange_messages_is_an_outlier_and_told_once() -> None:
    vectors = topics(3, 6, 700)
    vectors[500:509] = elsewhere(3, 9) * np.float32(3)
    state, shifts = run(vectors)
    assert [shift.pattern for _, shift in shifts] == ["outlier"]
    index, shift = shifts[0]
    assert 509 <= index < 530
    assert abs(shift.test_first_offset - 500 * 3) <= 5 * 3
    assert 9 <= shift.after_count <= 14
    assert shift.statistic >= shift.threshold
    # The reference stays: a change after it is still found.
    assert state.reference.absorbed > 0


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


def test_a_slow_shift_is_found_though_the_reference_grows_meanwhile() -> None:
    rng = np.random.default_rng(4)
    share = np.clip((np.arange(1400) - 600) / 600, 0, 1)
    vectors = np.where(rng.random(1400)[:, None] < share[:, None], elsewhere(4, 1400), topics(4, 6, 1400))
    _, shifts = run(vectors)
    assert 1 <= len(shifts) <= 4
    assert 600 < shifts[0][0] < 900


def test_what_regimes_were_there_is_forgotten_on_command() -> None:
    state, _ = run(np.vstack([topics(1, 6, 300), elsewhere(1, 150)]))
    assert state.regimes
    rebased = rebased_now(state)
    assert rebased.regimes == ()
    _, back = run(topics(51, 6, 80), rebased, 450)
    assert [(shift.pattern == "recurring", shift.returned) for _, shift in back] == [(False, False)]


def test_ramps_are_told_from_steps() -> None:
    rng = np.random.default_rng(1)
    for _ in range(10):
        noise = rng.standard_normal(200) * 0.5
        assert is_ramp(np.clip((np.arange(200) - 60) / 120, 0, 1) * 4 + noise)
        assert not is_ramp((np.arange(200) >= 120) * 4 + noise)
        assert not is_ramp(noise)


def test_the_state_is_bounded() -> None:
    state = TopicState()
    sizes = []
    for index, feature in enumerate(fourier_features(topics(1, 3, 6000))):
        state, _ = observe(state, feature, 10**9 + index, PARAMETERS, ALLOWANCE)
        if index % 500 == 499:
            sizes.append(len(msgspec.msgpack.encode(state)))
    assert max(sizes) < 56_000
    assert max(sizes[4:]) - min(sizes[4:]) < 8_000, "after the ramp it only breathes with trials and blocks"


def test_a_state_that_went_through_the_changelog_at_every_step_gives_the_same() -> None:
    vectors = np.vstack([topics(2, 4, 120), elsewhere(2, 80), topics(3, 4, 120)])
    direct, expected = run(vectors)
    state, found = TopicState(), []
    for index, feature in enumerate(fourier_features(vectors)):
        before = msgspec.msgpack.encode(state)
        state = msgspec.msgpack.decode(before, type=TopicState)
        following, shift = observe(state, feature, index * 3, PARAMETERS, ALLOWANCE)
        assert msgspec.msgpack.encode(state) == before, "the argument was changed"
        state = following
        if shift is not None:
            found.append((index, shift))
    assert found == expected
    assert len(found) == 2
    assert msgspec.msgpack.encode(state) == msgspec.msgpack.encode(direct)
    assert msgspec.json.decode(msgspec.json.encode(state), type=TopicState) == state


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 299), dimensions=st.sampled_from([3, 16, 384]))
def test_a_restart_anywhere_changes_nothing(seed: int, cut: int, dimensions: int) -> None:
    vectors = np.vstack([topics(seed, 3, 200, dimensions), elsewhere(seed, 100, dimensions)])
    features = fourier_features(vectors)
    states, expected = [TopicState()], []
    for index, feature in enumerate(features):
        state, shift = observe(states[-1], feature, index, PARAMETERS, ALLOWANCE)
        states.append(state)
        expected.append(shift)
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(states[cut]), type=TopicState)
    for index, feature in enumerate(features[cut:], cut):
        state, shift = observe(state, feature, index, PARAMETERS, ALLOWANCE)
        assert shift == expected[index]
    assert state == states[-1]


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=60), seed=st.integers(0, 1000))
def test_mean_and_scatter_are_those_of_all_messages(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    messages = rng.integers(-127, 128, size=(sum(sizes), FEATURES)).astype(np.int8)
    reference, first = Reference(), 0
    for size in sizes:
        reference = absorb(reference, messages[first : first + size], first, 32, 10**6)
        first += size
    features = messages.astype(np.float64) / 127
    assert np.allclose(np.frombuffer(reference.mean, np.float32), features.mean(0), atol=1e-5)
    deviations = features - features.mean(0)
    expected = (deviations.T @ deviations)[np.triu_indices(FEATURES)]
    assert np.allclose(np.frombuffer(reference.scatter, np.float32), expected, atol=1e-3 * max(len(features), 10))
    places = np.frombuffer(reference.places, np.int32)
    assert len(places) == min(len(messages), 32) == len(set(places.tolist()))
    assert np.array_equal(np.frombuffer(reference.sample, np.int8).reshape(-1, FEATURES), messages[places])


def test_the_sample_is_uniform_over_the_past() -> None:
    messages = np.zeros((16, FEATURES), np.int8)
    counts = np.zeros(10)
    for start in range(40):
        reference = Reference(absorbed=0)
        for block in range(0, 1600, 16):
            reference = absorb(reference, messages, start * 1600 + block, 64, 10**6)
        places = np.frombuffer(reference.places, np.int32) - start * 1600
        counts += np.histogram(places, bins=10, range=(0, 1600))[0]
        break
    assert counts.sum() == 64
    assert counts.max() <= 16


def test_a_message_left_out_is_as_if_it_had_never_been_in_the_reference() -> None:
    rng = np.random.default_rng(3)
    messages = np.rint(rng.standard_normal((120, FEATURES)) * 30).clip(-127, 127).astype(np.int8)
    known = geometry(absorb(Reference(), messages, 0, 120, 4096))
    for index in (0, 60, 119):
        others = np.delete(messages, index, axis=0)
        # The same ridge, so that only the message makes the difference.
        mean = others.mean(0) / 127
        deviations = others / 127 - mean
        whole = messages / 127 - messages.mean(0) / 127
        ridge = np.linalg.inv(known.inverse.astype(np.float64)) - whole.T @ whole / 120
        covariance = deviations.T @ deviations / 120 + ridge
        deviation = messages[index] / 127 - mean
        expected = deviation @ np.linalg.inv(covariance) @ deviation
        assert known.novelty[index] == pytest.approx(expected, rel=0.02)


def test_windows_are_those_of_the_messages() -> None:
    features = fourier_features(topics(5, 3, 1600))
    state = TopicState()
    # Without candidates every message enters the reference.
    parameters = TopicParameters(candidate=np.inf)
    for index, feature in enumerate(features):
        state, shift = observe(state, feature, index * 3, parameters, ALLOWANCE)
        assert shift is None
    messages = np.vstack([values(quantised(feature)) for feature in features]).astype(np.float64)
    known = geometry(state.reference)
    windows = newest(state.recent, state.blocks, known.mean, state.reference.weight)
    assert windows.sizes.max() > 900
    held = len(state.offsets) // 8
    for size, difference, before in zip(windows.sizes.astype(int), windows.differences, windows.before, strict=True):
        preceding = messages[: min(1600 - size, 1600 - held)].mean(0)
        assert np.abs(difference - (messages[-size:].mean(0) - preceding)).max() < 1e-4
        assert before == pytest.approx(min(1600 - size, 1600 - held))
        assert offset_of(size, state.offsets, state.blocks) == (1600 - size) * 3


def test_a_window_that_is_not_kept_has_no_offset() -> None:
    with pytest.raises(ValueError, match="only 0 are kept"):
        offset_of(1, b"", ())


@given(count=st.integers(1, 300))
def test_blocks_keep_every_message_of_the_last_thousand(count: int) -> None:
    blocks: tuple[Block, ...] = ()
    for index in range(count):
        total = np.full(FEATURES, index % 100, np.int16)
        blocks = merged((*blocks, Block(16, index * 16, total.tobytes(), 16)))
    covered = sum(block.count for block in blocks)
    assert covered >= min(count * 16, 800)
    assert len(blocks) <= 20
    ordered = [block.first_offset for block in blocks]
    assert ordered == sorted(ordered)
    assert ordered[-1] + blocks[-1].count == count * 16
    first = count - covered // 16
    expected = sum(index % 100 for index in range(first, count))
    assert sum(int(np.frombuffer(block.total, np.int16)[0]) for block in blocks) == expected


def test_the_trial_of_uniform_ranks_is_a_fair_game() -> None:
    # Ville: the evidence of ranks without a change reaches -log(alpha) with a chance of at most alpha.
    rng = np.random.default_rng(1)
    crossed, ends = 0, []
    for _ in range(400):
        sample = rng.random((2, 128))
        trial = Trial(0, 8, b"", 0.05, 2.0, 400.0)
        most = 0.0
        for value in rng.random((80, 2)):
            ranked = [(np.count_nonzero(sample[i] > value[i]) + rng.random()) / 129 for i in range(2)]
            trial = judged(trial, ranked, 128)
            most = max(most, evidence(trial))
        crossed += most >= -np.log(0.05)
        ends.append(np.exp(evidence(trial)))
    assert crossed <= 0.05 * 400 + 3 * np.sqrt(20)
    assert np.mean(ends) < 1.5
    assert sum(trial.counts[0]) == 80
    assert len(trial.counts[0]) == BINS


def test_the_trial_of_far_ranks_is_won() -> None:
    rng = np.random.default_rng(1)
    trial = Trial(0, 8, b"", 0.001, 2.0, 400.0)
    for _ in range(60):
        rank = rng.random() / 129 if rng.random() < 0.3 else rng.random()
        trial = judged(trial, [rank, rank], 128)
    assert evidence(trial) > -np.log(0.001)
    assert trial.peak >= evidence(trial)


def test_ties_are_broken_alike_everywhere() -> None:
    drawn = np.array([uniform(place, 2) for place in range(5000)])
    assert 0 <= drawn.min() < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.05
    assert uniform(12345, 2) == pytest.approx(uniform(12345, 2), abs=0)
    assert uniform(12345, 1) != uniform(12345, 2)
