"""How soon drift is found, how often it is seen where there is none, and whether its kind is told.

    python -m tests.bench.bench_drift [--seeds 20] [--quick] [--only numbers|synthetic|topics|budget] [--json FILE]

Every stream goes through the service's detector as `penstock drift replay` runs it, through River's detectors as they
are, and through windowed two-sample tests, in the same run. Topics are drawn from the intent corpus in
../shared/data through the real embedder (all-MiniLM-L6-v2).
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import statistics
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from penstock.embedding.minilm import MiniLmEmbedder

from services.drift.lookback.replay_detectors import FALSE_ALARMS, factory
from tests.bench.drift_streams import NULLS, NUMBERS, SYNTHETIC, Corpus, Stream

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "topics" / "train.jsonl"
_PER = 10_000

OF_NUMBERS = ("penstock", "adwin", "kswin", "page-hinkley", "ks")
OF_ERRORS = ("penstock", "adwin", "ddm", "eddm", "fhddm", "hddm-a", "hddm-w")
OF_VECTORS = ("penstock", "mmd", "centroid")
SLOW = {"kswin": 4}
"""Detectors that take the first seeds only in a quick run."""


class Task(NamedTuple):
    """One stream through one detector."""

    group: str
    stream: str
    detector: str
    seed: int
    before: int
    after: int
    false_alarms: float = FALSE_ALARMS
    corpus: str = ""
    """Folder of the embedded messages, for topics."""


class Run(NamedTuple):
    """What came of a task: detections as index and kind."""

    task: Task
    values: int
    changes: tuple[int, ...]
    kinds: tuple[str, ...]
    found: tuple[tuple[int, str | None], ...]
    seconds: float

    def delays(self) -> list[int | None]:
        """Return for each change the values to its first detection, ``None`` where it was missed."""
        return [
            next((index - change + 1 for index, _ in self.found if change <= index < end), None)
            for change, end in self._spans()
        ]

    def told(self) -> list[tuple[str, str]]:
        """Return for each change its kind and what it was told as; ``missed`` where it was not."""
        return [
            (kind, next((told or "-" for index, told in self.found if change <= index < end), "missed"))
            for kind, (change, end) in zip(self.kinds, self._spans(), strict=True)
        ]

    def _spans(self) -> list[tuple[int, int]]:
        """Return for each change where it begins and where the next one does."""
        return list(zip(self.changes, (*self.changes[1:], self.values), strict=False))

    @property
    def early(self) -> int:
        """Detections before anything changed."""
        return sum(index < (self.changes[0] if self.changes else self.values) for index, _ in self.found)

    @property
    def quiet(self) -> int:
        """Values before anything changed."""
        return self.changes[0] if self.changes else self.values


TOPICS: Mapping[str, Callable[[Corpus, int, int, int], Stream]] = {
    "all move, domain to domain": lambda c, seed, n, m: c.moved(seed, 1, 1.0, n, m),
    "half moves, domain to domain": lambda c, seed, n, m: c.moved(seed, 1, 0.5, n, m),
    "a fifth moves, domain to domain": lambda c, seed, n, m: c.moved(seed, 1, 0.2, n, m),
    "all move, 4 domains to a 5th": lambda c, seed, n, m: c.moved(seed, 4, 1.0, n, m),
    "half moves, 4 domains to a 5th": lambda c, seed, n, m: c.moved(seed, 4, 0.5, n, m),
    "a fifth moves, 4 domains to a 5th": lambda c, seed, n, m: c.moved(seed, 4, 0.2, n, m),
    "a fifth moves, intent to intent": lambda c, seed, n, m: c.moved(seed, 0, 0.2, n, m),
    "gradual: all move over 300": lambda c, seed, n, m: c.moved(seed, 1, 1.0, n, m, over=300),
    "recurring: there and back": lambda c, seed, n, m: c.returning(seed, n, m),
    "none: 1 domain": lambda c, seed, n, m: c.unchanged(seed, 1, n),
    "none: 5 domains": lambda c, seed, n, m: c.unchanged(seed, 5, n),
}


@lru_cache(maxsize=1)
def corpus_at(folder: str) -> Corpus:
    """Read embedded messages once in each process."""
    names = json.loads((Path(folder) / "names.json").read_text(encoding="utf-8"))
    return Corpus(np.load(Path(folder) / "vectors.npy"), names["domains"], names["intents"])


def embed(folder: Path, of_a_domain: int) -> None:
    """Embed messages of every domain into a folder."""
    texts, domains, intents = Corpus.texts(DATA, of_a_domain)
    np.save(folder / "vectors.npy", MiniLmEmbedder(threads=2).embed(texts))
    (folder / "names.json").write_text(json.dumps({"domains": domains, "intents": intents}), encoding="utf-8")


@lru_cache(maxsize=8)
def stream_of(group: str, name: str, seed: int, before: int, after: int, folder: str) -> Stream:
    """Return a stream; those of several detectors are made once."""
    # No two lines of the report are about the same numbers.
    seed += zlib.crc32(name.encode()) % 100_000 * 100
    if group == "topics":
        stream: Stream = TOPICS[name](corpus_at(folder), seed, before, after)
        return stream
    if name in NULLS:
        return NULLS[name](seed, before)
    return {**NUMBERS, **SYNTHETIC}[name](seed, before, after)


def measure(task: Task) -> Run:
    """Run a detector over a stream."""
    stream = stream_of(task.group, task.stream, task.seed, task.before, task.after, task.corpus)
    _, make = factory(task.detector, task.false_alarms)
    detector, found = make("value"), []
    values = list(stream.values) if stream.values.ndim == 2 else stream.values.tolist()
    started = time.perf_counter()
    for index, value in enumerate(values):
        finding = detector.update(value, index)
        if finding is not None:
            found.append((index, finding.kind))
    seconds = time.perf_counter() - started
    return Run(task, len(values), stream.changes, stream.kinds, tuple(found), seconds)


def tasks(only: str | None, seeds: int, quick: bool, folder: str, chosen: Sequence[str]) -> Iterator[Task]:
    """Yield what is run, all (or the chosen) detectors of a stream after one another."""
    befores = (1000,) if quick else (300, 1000, 5000)
    nulls, length = (3, 5000) if quick else (20, 10_000)

    def each(group: str, stream: str, detectors: Sequence[str], before: int, after: int, runs: int) -> Iterator[Task]:
        for seed in range(runs):
            for detector in detectors:
                if (not chosen or detector in chosen) and not (quick and seed >= SLOW.get(detector, runs)):
                    yield Task(group, stream, detector, seed, before, after, corpus=folder)

    if only in (None, "numbers"):
        for before in befores:
            for stream in NUMBERS:
                yield from each("numbers", stream, OF_NUMBERS, before, 2000, seeds)
        for stream in NULLS:
            yield from each("no change", stream, OF_NUMBERS, length, 0, nulls)
    if only in (None, "synthetic"):
        for stream in SYNTHETIC:
            yield from each("synthetic", stream, OF_ERRORS, 1000, 2000, seeds)
    if only in (None, "budget"):
        for allowed in (0.05, 0.2, 1.0):
            for stream in ("normal", "rate 0.2", "lognormal"):
                for seed in range(4 if quick else 30):
                    yield Task("budget", stream, "penstock", 500 + seed, 10_000, 0, allowed)
    if folder:
        for before in befores:
            for stream in TOPICS:
                if not stream.startswith("none"):
                    yield from each("topics", stream, OF_VECTORS, before, 600, seeds)
        for stream in TOPICS:
            if stream.startswith("none"):
                yield from each("topics", stream, OF_VECTORS, 4000, 0, 4 if quick else 20)


def row(name: str, runs: Sequence[Run]) -> str:
    """Return one line: found, delay, early alarms, kinds."""
    delays = [delay for run in runs for delay in run.delays()]
    hits = sorted(delay for delay in delays if delay is not None)
    early, quiet = sum(run.early for run in runs), sum(run.quiet for run in runs)
    told = f"{statistics.median(hits):7.0f} {np.quantile(hits, 0.9):6.0f}" if hits else f"{'-':>7s} {'-':>6s}"
    found = f"{len(hits)}/{len(delays)}" if delays else "-"
    return f"    {name:14s} {found:>7s} {told} {early * _PER / quiet:10.2f}"


def tables(runs: Sequence[Run]) -> Iterator[str]:
    """Yield every line of the report."""
    by_stream: dict[tuple[str, str, int], dict[str, list[Run]]] = {}
    for run in runs:
        if run.task.group != "budget":
            key = (run.task.group, run.task.stream, run.task.before)
            by_stream.setdefault(key, {}).setdefault(run.task.detector, []).append(run)
    group = ""
    for (each, stream, before), detectors in by_stream.items():
        if each != group:
            group = each
            yield f"\n{group}: found, delay (median, 90th percentile), false alarms in 10,000 before the change"
        changes = next(iter(detectors.values()))[0].changes
        yield f"  {stream}, after {before:,}" if changes else f"  {stream}, {before:,} values"
        yield from (row(detector, those) for detector, those in detectors.items())
    yield from _totals(runs)
    yield from _kinds(runs)
    yield from _budget(runs)


def _totals(runs: Sequence[Run]) -> Iterator[str]:
    yield "\nfalse alarms in 10,000 values without change, and microseconds a value"
    for vectors in (False, True):
        by_detector: dict[str, list[Run]] = {}
        for run in runs:
            if run.task.group != "budget" and (run.task.group == "topics") == vectors:
                by_detector.setdefault(run.task.detector, []).append(run)
        for detector, those in by_detector.items():
            early, quiet = sum(run.early for run in those), sum(run.quiet for run in those)
            pace = sum(run.seconds for run in those) / sum(run.values for run in those) * 1e6
            kind = "vectors" if vectors else "numbers"
            yield f"    {detector:14s} {kind}  {early * _PER / quiet:6.2f}  ({early} in {quiet:,})  {pace:8.1f} us"


def _kinds(runs: Sequence[Run]) -> Iterator[str]:
    counted = Counter(pair for run in runs if run.task.detector == "penstock" for pair in run.told())
    if not counted:
        return
    columns = ("abrupt", "gradual", "recurring", "outlier", "missed")
    yield "\nkinds: what a change was (rows), what it was told as"
    yield f"    {'':10s}" + "".join(f"{column:>10s}" for column in columns)
    for kind in columns[:-1]:
        yield f"    {kind:10s}" + "".join(f"{counted[(kind, column)]:10d}" for column in columns)


def _budget(runs: Sequence[Run]) -> Iterator[str]:
    by_allowed: dict[float, list[Run]] = {}
    for run in runs:
        if run.task.group == "budget":
            by_allowed.setdefault(run.task.false_alarms, []).append(run)
    if by_allowed:
        yield "\nthe budget: false alarms in 10,000 values that are allowed, and that there were"
    for allowed, those in by_allowed.items():
        early, quiet = sum(run.early for run in those), sum(run.quiet for run in those)
        yield f"    {allowed:5.2f}  {early * _PER / quiet:6.3f}  ({early} in {quiet:,})"


def figures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return every run as plain data."""
    return [run.task._asdict() | run._asdict() | {"task": None, "delays": run.delays()} for run in runs]


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="streams a line (default: 20)")
    parser.add_argument("--quick", action="store_true", help="changes after 1,000 values only, less without change")
    parser.add_argument("--only", choices=["numbers", "synthetic", "topics", "budget"], help="a part of it")
    parser.add_argument("--detectors", help="these only, e.g. penstock,adwin")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--json", type=Path, help="file for every run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(arguments.jobs) as pool:
        folder = ""
        if arguments.only in (None, "topics"):
            if DATA.is_file():
                folder = scratch
                embed(Path(folder), 500 if arguments.quick else 1500)
            else:
                print(f"topics are left out: there is no {DATA}", file=sys.stderr)
        chosen = arguments.detectors.split(",") if arguments.detectors else []
        planned = list(tasks(arguments.only, arguments.seeds, arguments.quick, folder, chosen))
        # In chunks of one seed's detectors or more, so that a process makes a stream once.
        runs = list(pool.map(measure, planned, chunksize=15))
    for line in tables(runs):
        print(line)
    if arguments.json is not None:
        arguments.json.write_text("\n".join(json.dumps(each) for each in figures(runs)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
