"""How far judges agree with people: accuracy, Cohen's kappa and correlation, with intervals. Pure.

A judge's score and a person's are compared where both are about the same request. People say it on ``feedback``: by a
label ``answer.<rubric>`` that is one of the rubric's verdicts; of a comparison by ``chosen``; else by a rating, whose label
is only the better half or the worse one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from penstock.contracts.records import Evaluation, Feedback, Score

__all__ = ["Agreement", "Interval", "Pair", "agreement", "cohen_kappa", "pairs"]

_FEW = 3
"""A correlation of fewer pairs says nothing."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What a judge and people said of one request; scores from 0 to 1. ``consistent`` is None where one order was judged."""

    request_id: str
    model: str
    judge_label: str
    judge_score: float
    human_label: str
    human_score: float
    consistent: bool | None = None


class Interval(msgspec.Struct, frozen=True):
    """An estimate with its bounds; None where it cannot be had (too few pairs, or all alike)."""

    estimate: float | None
    low: float | None = None
    high: float | None = None


class Agreement(msgspec.Struct, frozen=True):
    """How a judge and people agree on ``pairs`` requests."""

    pairs: int
    accuracy: Interval
    """Share of equal labels."""
    kappa: Interval
    """Cohen's kappa of the labels: agreement beyond what chance gives."""
    pearson: Interval
    """Correlation of the scores."""
    spearman: Interval
    """Correlation of their ranks."""
    position_consistency: Interval
    """Share of comparisons whose two orders gave the same winner."""


def pairs(
    evaluations: Iterable[Evaluation], feedback: Iterable[Feedback], rubric: str, verdicts: Mapping[str, float]
) -> list[Pair]:
    """Return what judges and people said by ``rubric`` of the same requests, in the order of the requests' ids.

    Repeated events count once, and of each person the newest. Several people give one view: their mean score, and the label
    that most of them gave (of equally many the first by name); where anyone gave one of the rubric's verdicts, ratings
    alone do not count. Of several verdicts on a request each judge's newest counts.

    Args:
        verdicts: the rubric's verdicts with their scores. A label that is none of them says nothing here.
    """
    said: dict[tuple[str, str], dict[str, Feedback]] = {}
    for one in {each.event_id: each for each in feedback}.values():
        people = said.setdefault((one.tenant_id, one.request_id), {})
        author = f"{one.source}/{one.user_id}" if one.user_id else one.event_id
        if author not in people or people[author].occurred_at < one.occurred_at:
            people[author] = one
    newest: dict[tuple[str, str, str], tuple[Evaluation, Score]] = {}
    for evaluation in evaluations:
        for score in evaluation.scores:
            # What code scores is called by one version, what a judge scores by rubric, prompt and model.
            if score.name == rubric and score.version.count("+") >= 2:
                key = (evaluation.tenant_id, evaluation.request_id, _judge(score))
                if key not in newest or newest[key][0].occurred_at < evaluation.occurred_at:
                    newest[key] = evaluation, score
    found = []
    for (team, request_id, judge), (_, score) in sorted(newest.items()):
        persons = said.get((team, request_id), {}).values()
        known = [view for one in persons if (view := _verdict(one, rubric, verdicts)) is not None]
        coarse = not known
        if coarse:
            known = [
                (_half(one.rating), one.rating) for one in persons if one.rating is not None and 0 <= one.rating <= 1
            ]
        if not known:
            continue
        counts = Counter(label for label, _ in known)
        label = min(counts, key=lambda each: (-counts[each], each))
        found.append(
            Pair(
                request_id=request_id,
                model=judge,
                judge_label=_half(score.score) if coarse else score.label,
                judge_score=score.score,
                human_label=label,
                human_score=float(np.mean([value for _, value in known])),
                consistent=_consistent(score),
            )
        )
    return found


def agreement(found: Sequence[Pair], *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0) -> Agreement:
    """Return how judges and people agree in ``found``, with percentile bootstrap intervals over requests.

    Requests are drawn with replacement (Efron and Tibshirani 1993, chapter 13); where a statistic is not defined on most
    of the draws, it has no interval.
    """
    requests = list(dict.fromkeys(pair.request_id for pair in found))
    places = {request: place for place, request in enumerate(requests)}
    owner = np.array([places[pair.request_id] for pair in found], dtype=np.int64)
    names = sorted({pair.judge_label for pair in found} | {pair.human_label for pair in found})
    code = {name: place for place, name in enumerate(names)}
    judge = np.array([code[pair.judge_label] for pair in found], dtype=np.int64)
    human = np.array([code[pair.human_label] for pair in found], dtype=np.int64)
    scores = np.array([[pair.judge_score, pair.human_score] for pair in found], dtype=np.float64).reshape(-1, 2)
    consistent = np.array([np.nan if p.consistent is None else float(p.consistent) for p in found], dtype=np.float64)
    generator = np.random.default_rng(seed)
    draws = []
    members = [np.flatnonzero(owner == place) for place in range(len(requests))]
    for _ in range(resamples if len(requests) > 1 else 0):
        chosen = generator.integers(0, len(requests), len(requests))
        draws.append(chosen if len(requests) == len(found) else np.concatenate([members[place] for place in chosen]))

    def interval(statistic: Callable[[NDArray[np.int64]], float | None]) -> Interval:
        estimate = statistic(np.arange(len(found)))
        values = [value for draw in draws if (value := statistic(draw)) is not None]
        if estimate is None or len(values) <= len(draws) / 2:
            return Interval(estimate)
        tail = (1 - confidence) / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        return Interval(estimate, float(low), float(high))

    def share(draw: NDArray[np.int64]) -> float | None:
        known = consistent[draw][~np.isnan(consistent[draw])]
        return float(known.mean()) if known.size else None

    return Agreement(
        pairs=len(found),
        accuracy=interval(lambda draw: float((judge[draw] == human[draw]).mean()) if draw.size else None),
        kappa=interval(lambda draw: cohen_kappa(judge[draw], human[draw])),
        pearson=interval(lambda draw: _correlation(scores[draw, 0], scores[draw, 1])),
        spearman=interval(lambda draw: _correlation(_ranks(scores[draw, 0]), _ranks(scores[draw, 1]))),
        position_consistency=interval(share),
    )


def cohen_kappa(one: NDArray[np.int64], other: NDArray[np.int64]) -> float | None:
    """Return Cohen's kappa (1960) of two raters' labels, coded from 0; None where there are none, or where both gave
    one and the same label to all: then chance explains everything and nothing."""
    if not one.size:
        return None
    count = int(max(one.max(), other.max())) + 1
    expected = float(np.bincount(one, minlength=count) @ np.bincount(other, minlength=count)) / one.size**2
    if expected >= 1:
        return None
    return float(((one == other).mean() - expected) / (1 - expected))


def _half(score: float) -> str:
    return "better half" if score >= 0.5 else "worse half"


def _judge(score: Score) -> str:
    return score.version.split("+", 2)[2]


def _consistent(score: Score) -> bool | None:
    value = score.categories.get("position_consistency")
    return None if value is None else value >= 0.5


def _verdict(one: Feedback, rubric: str, verdicts: Mapping[str, float]) -> tuple[str, float] | None:
    """Return the verdict of one person, and what it counts; None where they gave none."""
    label = one.labels.get(f"answer.{rubric}", one.chosen)
    return None if label is None or label not in verdicts else (label, verdicts[label])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = (last - 1 + last - counts) / 2
    return mean[inverse]


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    if one.size < _FEW:
        return None
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / scale if scale > 1e-12 else None
