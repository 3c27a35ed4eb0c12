"""Streams with known changes, for bench_drift: drawn numbers, River's synthetic concepts, and topics of real embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from river import compose, linear_model, preprocessing
from river.datasets import synth

__all__ = ["NULLS", "NUMBERS", "SYNTHETIC", "Corpus", "Stream"]

Values = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Rng = np.random.Generator


class Stream(NamedTuple):
    """Values with the places at which they change, and what kind of change each is."""

    values: Values | Vectors
    changes: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()


def _step(before: Callable[[Rng, int], Values], after: Callable[[Rng, int], Values]) -> Callable[..., Stream]:
    def draw(seed: int, start: int, length: int) -> Stream:
        rng = np.random.default_rng(seed)
        values = np.concatenate([before(rng, start), after(rng, length)])
        return Stream(values, (start,), ("abrupt",))

    return draw


def _rate(share: float) -> Callable[[Rng, int], Values]:
    return lambda rng, count: (rng.random(count) < share).astype(float)


def _normal(mean: float, deviation: float) -> Callable[[Rng, int], Values]:
    return lambda rng, count: rng.normal(mean, deviation, count)


def _lognormal(median: float, sigma: float) -> Callable[[Rng, int], Values]:
    return lambda rng, count: median * rng.lognormal(0, sigma, count)


def _ramp(seed: int, start: int, length: int) -> Stream:
    """The mean rises by one deviation over 400 values."""
    rng = np.random.default_rng(seed)
    level = np.concatenate([np.zeros(start), np.minimum(np.arange(length) / 400, 1.0)])
    return Stream(level + rng.normal(0, 1, start + length), (start,), ("gradual",))


def _mixing(seed: int, start: int, length: int) -> Stream:
    """One state gives way to another, two deviations up, event by event over 400 values (River's ConceptDriftStream)."""
    rng = np.random.default_rng(seed)
    share = 1 / (1 + np.exp(-4 * (np.arange(start + length) - start - 200) / 400))
    new = rng.random(start + length) < np.where(np.arange(start + length) < start, 0.0, share)
    return Stream(rng.normal(0, 1, start + length) + 2 * new, (start,), ("gradual",))


def _recurring(seed: int, start: int, length: int) -> Stream:
    """Up by one and a half deviations, and back again, twice."""
    rng = np.random.default_rng(seed)
    period = max(length // 4, 1)
    level = np.concatenate(
        [np.zeros(start), *([1.5] * period if turn % 2 == 0 else [0.0] * period for turn in range(4))]
    )
    changes = tuple(start + period * turn for turn in range(4))
    return Stream(level + rng.normal(0, 1, len(level)), changes, ("abrupt", "recurring", "recurring", "recurring"))


def _burst(seed: int, start: int, length: int) -> Stream:
    """Twelve values six deviations up."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, start + length)
    values[start : start + 12] += 6
    return Stream(values, (start,), ("outlier",))


NUMBERS: Mapping[str, Callable[[int, int, int], Stream]] = {
    "rate 0.2 to 0.4": _step(_rate(0.2), _rate(0.4)),
    "rate 0.02 to 0.1": _step(_rate(0.02), _rate(0.1)),
    "mean +1 sigma": _step(_normal(0, 1), _normal(1, 1)),
    "variance x2": _step(_normal(0, 1), _normal(0, 2**0.5)),
    "latency x1.5 (lognormal)": _step(_lognormal(800, 0.5), _lognormal(1200, 0.5)),
    "cost 1e-5 x1.5 (lognormal)": _step(_lognormal(1e-5, 0.4), _lognormal(1.5e-5, 0.4)),
    "gradual: ramp to +1 sigma": _ramp,
    "gradual: mixing to +2 sigma": _mixing,
    "recurring +1.5 sigma": _recurring,
    "outlier burst": _burst,
}
"""Drawn streams by name; each takes a seed, the values before the (first) change, and those after it."""


def _null(draw: Callable[[Rng, int], Values]) -> Callable[[int, int], Stream]:
    return lambda seed, count: Stream(draw(np.random.default_rng(seed), count))


def _dependent(rng: Rng, count: int) -> Values:
    """An autoregression: each value depends on the one before it (0.3)."""
    values, last = rng.normal(0, 1, count), 0.0
    for index in range(count):
        last = values[index] = 0.3 * last + values[index]
    return values


NULLS: Mapping[str, Callable[[int, int], Stream]] = {
    "normal": _null(_normal(0, 1)),
    "rate 0.2": _null(_rate(0.2)),
    "rate 0.02": _null(_rate(0.02)),
    "lognormal": _null(_lognormal(800, 0.5)),
    "Student t, 3 degrees": _null(lambda rng, count: rng.standard_t(3, count)),
    "autoregression 0.3": _null(_dependent),
}
"""Streams without a change."""


# -- River's synthetic concepts: the errors of a classifier that learned the first concept -----------------------------


def _concepts(first: Any, second: Any, seed: int, start: int, width: int) -> Iterable[tuple[Any, Any]]:
    return synth.ConceptDriftStream(stream=first, drift_stream=second, position=start, width=width, seed=seed)


def _errors(concept: Iterable[tuple[Any, Any]], start: int, length: int, learned: int = 1000) -> Values:
    """Return the errors (1) of a classifier that learns from the first values and is then left as it is."""
    model = compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    errors: list[float] = []
    for index, (x, y) in enumerate(islice(concept, learned + start + length)):
        if index < learned:
            model.learn_one(x, y)
        else:
            errors.append(float(model.predict_one(x) != y))
    return np.array(errors)


def _sea(width: int, kind: str) -> Callable[[int, int, int], Stream]:
    def draw(seed: int, start: int, length: int) -> Stream:
        concept = _concepts(
            synth.SEA(variant=1, seed=seed, noise=0.05), synth.SEA(variant=2, seed=seed + 1, noise=0.05), seed,
            1000 + start + width // 2, width,
        )  # fmt: skip
        return Stream(_errors(concept, start, length), (start,), (kind,))

    return draw


def _hyperplanes(seed: int, start: int, length: int) -> Stream:
    concept = _concepts(
        synth.Hyperplane(seed=seed, n_features=5, noise_percentage=0.05),
        synth.Hyperplane(seed=seed + 100, n_features=5, noise_percentage=0.05), seed, 1000 + start + 30, 60,
    )  # fmt: skip
    return Stream(_errors(concept, start, length), (start,), ("abrupt",))


SYNTHETIC: Mapping[str, Callable[[int, int, int], Stream]] = {
    "SEA, errors, width 60": _sea(60, "abrupt"),
    "SEA, errors, width 600": _sea(600, "gradual"),
    "Hyperplane, errors, width 60": _hyperplanes,
}
"""Errors of a classifier whose concept drifts, by name."""


# -- topics ------------------------------------------------------------------------------------------------------------


class Corpus:
    """Embedded messages, by domain and by intent.

    Args:
        vectors: shape (n, dimensions), float32.
        domains: of each, its domain.
        intents: of each, its intent.
    """

    def __init__(self, vectors: Vectors, domains: Sequence[str], intents: Sequence[str]) -> None:
        self._vectors = vectors
        self._groups: dict[str, npt.NDArray[np.int64]] = {}
        for names in (domains, intents):
            labels = np.array(names)
            for name in sorted(set(names)):
                self._groups[name] = np.flatnonzero(labels == name)
        self.domains = sorted(set(domains))
        self.intents = sorted(set(intents))

    @staticmethod
    def texts(path: Path, of_a_domain: int) -> tuple[list[str], list[str], list[str]]:
        """Return texts, their domains and their intents, so many of each domain."""
        rng = np.random.default_rng(0)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        chosen: list[dict[str, str]] = []
        for domain in sorted({row["domain"] for row in rows}):
            mine = [row for row in rows if row["domain"] == domain]
            chosen += [mine[index] for index in rng.choice(len(mine), min(of_a_domain, len(mine)), replace=False)]
        return [row["text"] for row in chosen], [row["domain"] for row in chosen], [row["intent"] for row in chosen]

    def draw(self, rng: Rng, groups: Sequence[str], count: int) -> Vectors:
        """Return messages of some domains or intents in equal parts."""
        picked = rng.integers(len(groups), size=count)
        rows = [self._groups[groups[group]][rng.integers(len(self._groups[groups[group]]))] for group in picked]
        drawn: Vectors = self._vectors[np.array(rows, int)]
        return drawn

    def moved(self, seed: int, old: int, share: float, start: int, length: int, *, over: int = 0) -> Stream:
        """Return a stream of ``old`` domains, of which a share moves to another one, at once or ``over`` messages.

        ``old`` of 0 is one intent that moves to another of the same corpus.
        """
        rng = np.random.default_rng(seed)
        names = rng.permutation(self.intents if old == 0 else self.domains).tolist()
        before, new = names[: max(old, 1)], names[max(old, 1)]
        shares = np.full(length, share) if not over else share * np.minimum(np.arange(length) / over, 1.0)
        moves = rng.random(length)[:, None] < shares[:, None]
        after = np.where(moves, self.draw(rng, [new], length), self.draw(rng, before, length))
        return Stream(np.vstack([self.draw(rng, before, start), after]), (start,), ("gradual" if over else "abrupt",))

    def returning(self, seed: int, start: int, length: int) -> Stream:
        """Return a stream that goes to another domain and comes back."""
        rng = np.random.default_rng(seed)
        old, new = rng.permutation(self.domains)[:2].tolist()
        values = [self.draw(rng, [old], start), self.draw(rng, [new], length), self.draw(rng, [old], length)]
        return Stream(np.vstack(values), (start, start + length), ("abrupt", "recurring"))

    def unchanged(self, seed: int, domains: int, count: int) -> Stream:
        """Return a stream of some domains that stays as it is."""
        rng = np.random.default_rng(seed)
        return Stream(self.draw(rng, rng.permutation(self.domains)[:domains].tolist(), count))
