"""False alarms and delays of the category detector, beside a plain windowed chi-square test in the same run.

The plain test compares the newest 64 events with the first 500 by Pearson's statistic, and raises where it exceeds what it
reaches once in 50,000 events of the same kind without a change: as many false alarms as the detector is allowed.
``python -m tests.unit.test_drift_categories_figures`` prints the figures for 20 seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from services.drift.detection.categories import CategoryParameters, CategoryState, observe
from services.drift.detection.category_windows import Counts

PARAMETERS = CategoryParameters()
ALLOWANCE = 2e-5
WINDOW, REFERENCE = 64, 500


def zipf(count: int) -> Counts:
    shares = 1 / np.arange(1, count + 1)
    return shares / shares.sum()


STREAMS: dict[str, Counts] = {
    "two": np.array([0.9, 0.1]),
    "languages": np.array([0.9, 0.05, 0.02, 0.01, 0.01, 0.005, 0.005]),
    "five": np.array([0.4, 0.3, 0.15, 0.1, 0.05]),
    "uniform 50": np.ones(50) / 50,
    "Zipf 50": zipf(50),
    "Zipf 1000": zipf(1000),
}


def _moved(shares: Counts, cell: int, to: float) -> Counts:
    after = shares * (1 - to) / (1 - shares[cell])
    after[cell] = to
    return after


LANGUAGES, ZIPF = STREAMS["languages"], STREAMS["Zipf 50"]
CHANGES: dict[str, tuple[Counts, Counts]] = {
    "a language from 5 % to 20 %": (LANGUAGES, _moved(LANGUAGES, 1, 0.2)),
    "one of two from 10 % to 30 %": (STREAMS["two"], np.array([0.7, 0.3])),
    "never seen to 10 %, of 5": (np.append(STREAMS["five"], 0), np.append(0.9 * STREAMS["five"], 0.1)),
    "never seen to 20 %, of 50 (Zipf)": (np.append(ZIPF, 0), np.append(0.8 * ZIPF, 0.2)),
    "half of the events turned over (Zipf 50)": (ZIPF, (ZIPF + ZIPF[::-1]) / 2),
    "all turned over (Zipf 50)": (ZIPF, ZIPF[::-1]),
}


def stream(seed: Sequence[int], *parts: tuple[Counts, int]) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        f"c{cell}" for shares, count in parts for cell in rng.choice(len(shares), size=count, p=shares / shares.sum())
    ]


def detections(categories: Sequence[str]) -> list[int]:
    state, found = CategoryState(), []
    for number, category in enumerate(categories):
        state, shift = observe(state, category, number, PARAMETERS, ALLOWANCE)
        if shift is not None:
            found.append(number)
    return found


def plain_statistics(categories: Sequence[str]) -> Counts:
    """Pearson's chi-square of the newest events against the first, a category's share smoothed by half a count; by event,
    0 for those before there are enough."""
    reference = Counter(categories[:REFERENCE])
    names = list(reference)
    expected = np.array([reference[name] for name in names] + [0.0]) + 0.5
    expected *= WINDOW / expected.sum()
    cells = {name: cell for cell, name in enumerate(names)}
    numbers = [cells.get(category, len(names)) for category in categories]
    counts, found = np.zeros(len(names) + 1), np.zeros(len(categories))
    for number in range(REFERENCE, len(categories)):
        counts[numbers[number]] += 1
        if number >= REFERENCE + WINDOW:
            counts[numbers[number - WINDOW]] -= 1
            found[number] = ((counts - expected) ** 2 / expected).sum()
    return found


@pytest.mark.parametrize("name", list(STREAMS))
def test_false_alarms_keep_to_the_allowance(name: str) -> None:
    """0.2 in 10,000 are allowed. 20,000 events a kind: two would be 1 in 10,000."""
    events = found = 0
    for seed in range(10):
        length = 1_000 if seed % 2 else 3_000
        found += len(detections(stream([seed, len(name)], (STREAMS[name], length))))
        events += length
    assert events == 20_000
    assert found <= 1, f"{found} false alarms in {events} events"


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("a language from 5 % to 20 %", 110),
        ("one of two from 10 % to 30 %", 110),
        ("never seen to 10 %, of 5", 70),
        ("never seen to 20 %, of 50 (Zipf)", 100),
        ("all turned over (Zipf 50)", 35),
    ],
)
def test_delays(name: str, most: int) -> None:
    before, after = CHANGES[name]
    delays = []
    for seed in range(7):
        found = [
            number - 1500 for number in detections(stream([seed, 77], (before, 1500), (after, 600))) if number >= 1500
        ]
        delays.append(found[0] if found else 600)
    assert float(np.median(delays)) <= most
    assert max(delays) < 600, "missed"


def main() -> None:
    """Print the figures."""
    total = alarms = 0
    for name, shares in STREAMS.items():
        found = sum(len(detections(stream([seed, 5], (shares, 5_000)))) for seed in range(20))
        total, alarms = total + 100_000, alarms + found
        print(f"{name:45} false alarms in 10,000: {found / 10:.2f}", flush=True)
    if total:
        print(f"{'all':45} false alarms in 10,000: {alarms / total * 1e4:.2f}")
    for name, (before, after) in CHANGES.items():
        bound = max(float(plain_statistics(stream([seed, 6], (before, 5_000))).max()) for seed in range(10))
        for length in (600, 2_000):
            delays: list[list[int]] = [[], []]
            for seed in range(20):
                events = stream([seed, 9], (before, length), (after, 800))
                raised = np.flatnonzero(plain_statistics(events) > bound).tolist()
                for each, numbers in zip(delays, (detections(events), raised), strict=True):
                    each.append(next((number - length for number in numbers if number >= length), 800))
            print(f"{name:45} after {length:5}: " + "; plain: ".join(map(_summary, delays)), flush=True)


def _summary(delays: Sequence[int]) -> str:
    missed = sum(delay == 800 for delay in delays)
    return f"median {np.median(delays):.0f}, 90 % {np.percentile(delays, 90):.0f}, missed {missed}/{len(delays)}"


if __name__ == "__main__":
    main()
