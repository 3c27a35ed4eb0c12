"""How soon drift is found, how often it is seen where there is none, and what it costs.

    python -m tests.bench.bench_drift [--seeds 20] [--quick]

Topics: streams drawn from the intent corpus in ../shared/data through the real embedder (all-MiniLM-L6-v2), where
    all, half or a fifth of the messages move to another domain, or one of two domains ends; beside them ADWIN on the
    distance to the centroid.
Numbers: drawn streams, beside River's detectors alone. The thresholds in services/drift were chosen by these figures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import msgspec
import numpy as np
import numpy.typing as npt
from penstock.embedding.minilm import MiniLmEmbedder
from river import drift as river

from services.drift import scalar, topic
from services.drift.features import Array, fourier_features

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "topics" / "train.jsonl"
Values = npt.NDArray[np.float64]
Detections = list[int]


class Corpus:
    """Embedded messages by domain."""

    def __init__(self, texts_per_domain: int) -> None:
        rng = np.random.default_rng(0)
        rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
        self.domains = sorted({row["domain"] for row in rows})
        self.vectors: dict[str, Array] = {}
        embedder = MiniLmEmbedder(threads=2)
        for domain in self.domains:
            texts = [row["text"] for row in rows if row["domain"] == domain]
            chosen = rng.choice(len(texts), min(texts_per_domain, len(texts)), replace=False)
            self.vectors[domain] = embedder.embed([texts[index] for index in chosen])

    def draw(self, rng: np.random.Generator, domain: str, count: int) -> Array:
        """Return messages of a domain."""
        vectors = self.vectors[domain]
        return vectors[rng.integers(len(vectors), size=count)]

    def moved(self, seed: int, before: int, after: int, share: float) -> Array:
        """Return a stream of one domain of which a share moves to another."""
        rng = np.random.default_rng(seed)
        old, new = rng.choice(self.domains, 2, replace=False)
        moves = rng.random(after)[:, None] < share
        return np.vstack(
            [self.draw(rng, old, before), np.where(moves, self.draw(rng, new, after), self.draw(rng, old, after))]
        )

    def ended(self, seed: int, before: int, after: int, share: float) -> Array:
        """Return a stream of two domains in equal parts, of which one ends."""
        rng = np.random.default_rng(seed)
        one, two = rng.choice(self.domains, 2, replace=False)
        mixed = rng.random(before)[:, None] < 0.5
        start = np.where(mixed, self.draw(rng, one, before), self.draw(rng, two, before))
        return np.vstack([start, self.draw(rng, one, after)])


def topic_shifts(vectors: Array) -> Detections:
    """Run the service's detector; return the indices of its alarms."""
    state, parameters, found = topic.TopicState(), topic.TopicParameters(), []
    for index, feature in enumerate(fourier_features(vectors)):
        state, shift = topic.observe(state, feature, index, parameters)
        if shift is not None:
            found.append(index)
    return found


def centroid_distance(vectors: Array) -> Detections:
    """Run ADWIN on each message's distance to the mean of the first 40: the trap."""
    centre = vectors[:40].mean(0)
    return _river(river.ADWIN(), np.linalg.norm(vectors - centre, axis=1)[40:], 40)


def numbers(values: Values) -> Detections:
    """Run the service's detector for numbers."""
    state, parameters, found = scalar.ScalarState(), scalar.ScalarParameters(), []
    watch_spread = not set(np.unique(values)) <= {0.0, 1.0}
    for index, value in enumerate(values):
        state, shift = scalar.observe(state, float(value), index, parameters, watch_spread=watch_spread)
        if shift is not None:
            found.append(index)
    return found


def _river(detector: Any, values: Values, start: int = 0) -> Detections:
    found = []
    for index, value in enumerate(values, start):
        detector.update(float(value))
        if detector.drift_detected:
            found.append(index)
    return found


DETECTORS: dict[str, Callable[[Values], Detections]] = {
    "Penstock": numbers,
    "ADWIN": lambda values: _river(river.ADWIN(), values),
    "KSWIN": lambda values: _river(river.KSWIN(seed=1), values),
    "Page-Hinkley": lambda values: _river(river.PageHinkley(), values),
}


def numeric(change: str, seed: int, before: int, after: int) -> Values:
    """Return a drawn stream with one change."""
    rng = np.random.default_rng(seed)
    if change == "rate 0.2 to 0.4":
        return np.concatenate([rng.random(before) < 0.2, rng.random(after) < 0.4]).astype(float)
    if change == "rate 0 to 0.1":
        return np.concatenate([np.zeros(before), rng.random(after) < 0.1])
    mean, deviation = {"mean by one sigma": (1.0, 1.0), "variance doubled": (0.0, 2**0.5), "none": (0.0, 1.0)}[change]
    return np.concatenate([rng.normal(0, 1, before), rng.normal(mean, deviation, after)])


def row(name: str, runs: Sequence[Detections], before: int) -> str:
    """Return delays over the seeds: median, 90th percentile, missed, and alarms before the change."""
    first = [next((index - before + 1 for index in found if index >= before), None) for found in runs]
    delays = sorted(delay for delay in first if delay is not None)
    early = sum(index < before for found in runs for index in found)
    told = (
        f"median {statistics.median(delays):5.0f}  p90 {np.quantile(delays, 0.9):5.0f}"
        if delays
        else "median     -  p90     -"
    )
    return f"  {name:44s} {told}  missed {len(runs) - len(delays):2d}/{len(runs)}  early {early}"


def measure_topics(corpus: Corpus, seeds: int, null_messages: int) -> Iterator[str]:
    """Yield the lines about topics."""
    yield "topic shifts, delay in messages"
    for before in (60, 300, 1500):
        for share, after in ((1.0, 100), (0.5, 200), (0.2, 400)):
            runs = [topic_shifts(corpus.moved(seed, before, after, share)) for seed in range(seeds)]
            yield row(f"{share:.0%} of the traffic moves, after {before}", runs, before)
        runs = [topic_shifts(corpus.ended(seed, before, 200, 1.0)) for seed in range(seeds)]
        yield row(f"one of two domains ends, after {before}", runs, before)
    runs = [centroid_distance(corpus.moved(seed, 1500, 400, 1.0)) for seed in range(seeds)]
    yield row("ADWIN on centroid distance: 100%, after 1500", runs, 1500)
    yield "topics, no shift: false alarms in 10,000 messages"
    for length in (200, 2000):
        streams = null_messages // length
        started = time.perf_counter()
        alarms = sum(len(topic_shifts(corpus.moved(5000 + seed, length, 0, 0.0))) for seed in range(streams))
        total = streams * length
        spent = (time.perf_counter() - started) / total
        rate = alarms * 10_000 / total
        yield f"  streams of {length:5d}: {rate:.2f} ({alarms} in {total}), {spent * 1e6:.0f} us a message"


def measure_numbers(seeds: int, null_values: int) -> Iterator[str]:
    """Yield the lines about numbers."""
    for change in ("rate 0.2 to 0.4", "rate 0 to 0.1", "mean by one sigma", "variance doubled"):
        yield f"{change}, after 1000 values: delay in values"
        for name, detect in DETECTORS.items():
            yield row(name, [detect(numeric(change, seed, 1000, 1000)) for seed in range(seeds)], 1000)
    yield "numbers, no change: false alarms in 10,000 values"
    for name, detect in DETECTORS.items():
        count = null_values if name != "KSWIN" else max(null_values // 5, 5000)
        started = time.perf_counter()
        alarms = sum(len(detect(numeric("none", 900 + seed, 5000, 0))) for seed in range(count // 5000))
        spent = (time.perf_counter() - started) / count
        yield f"  {name:44s} {alarms * 10_000 / count:.2f} ({alarms} in {count}), {spent * 1e6:.1f} us a value"


def measure_state() -> Iterator[str]:
    """Yield the size of states as they stand in the changelog."""
    rng = np.random.default_rng(1)
    topics, numbers_ = topic.TopicState(), scalar.ScalarState()
    for index, feature in enumerate(fourier_features(rng.standard_normal((2000, 384)).astype(np.float32))):
        topics, _ = topic.observe(topics, feature, 10**9 + index, topic.TopicParameters())
        numbers_, _ = scalar.observe(numbers_, float(rng.random()), 10**9 + index, scalar.ScalarParameters())
        if index in (10, 100, 1999):
            sizes = len(msgspec.msgpack.encode(topics)), len(msgspec.msgpack.encode(numbers_))
            yield f"  after {index + 1:5d} messages: topic {sizes[0]:6d} bytes, a number {sizes[1]:5d} bytes"


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="streams a line (default: 20)")
    parser.add_argument("--quick", action="store_true", help="5 seeds, short streams without change")
    arguments = parser.parse_args()
    seeds = 5 if arguments.quick else arguments.seeds
    for line in measure_numbers(seeds, 10_000 if arguments.quick else 100_000):
        print(line, flush=True)
    print("state of a segment")
    for line in measure_state():
        print(line, flush=True)
    if not DATA.is_file():
        print(f"topics are left out: there is no {DATA}")
        return
    corpus = Corpus(150 if arguments.quick else 600)
    for line in measure_topics(corpus, seeds, 10_000 if arguments.quick else 100_000):
        print(line, flush=True)


if __name__ == "__main__":
    main()
