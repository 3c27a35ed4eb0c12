"""Evaluation scores by model: means with their uncertainty, and whether two models differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scipy import stats

from penstock.contracts.records import Cost, Evaluation, Feedback, Purpose
from penstock.ledger.requests import RequestNumbers
from penstock.ledger.savings import GENERATING

__all__ = [
    "CONFIDENCE",
    "FEW",
    "Difference",
    "Moments",
    "Scope",
    "ScoreBook",
    "better",
    "difference",
    "interval",
    "warning",
]

CONFIDENCE = 0.95
FEW = 30
"""Scores below which a mean says too little: Student's interval needs the mean to be about normal."""

_HIGHER_IS_BETTER: Mapping[str, bool] = {"groundedness": True, "feedback": True, "toxicity": False}
Scope = tuple[str | None, str | None, str]
"""Team, route and model; None for all of them."""


@dataclass(slots=True)
class Moments:
    """Number, mean and sum of squared deviations of a series, updated one value at a time (Welford, 1962)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """Add one value."""
        self.n += 1
        before = value - self.mean
        self.mean += before / self.n
        self.squares += before * (value - self.mean)

    @property
    def deviation(self) -> float:
        """Sample standard deviation; 0 below two values."""
        return math.sqrt(self.squares / (self.n - 1)) if self.n > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Difference:
    """The candidate's mean less the other's, its interval at :data:`CONFIDENCE`, and the two-sided p-value."""

    mean: float
    low: float
    high: float
    p: float


def interval(moments: Moments) -> tuple[float, float] | None:
    """Return Student's interval of a mean at :data:`CONFIDENCE`, within 0 to 1 as scores are.

    None below two values, and where all are equal: how much others would vary cannot be told from them.
    """
    if not moments.deviation:
        return None
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, moments.n - 1)) * moments.deviation / math.sqrt(moments.n)
    return max(0.0, moments.mean - half), min(1.0, moments.mean + half)


def difference(candidate: Moments, other: Moments) -> Difference | None:
    """Compare two means by Welch's t-test, which takes no equal variances for granted.

    None below two values of either, and where neither varies: there is nothing to test with.
    """
    variances = [m.deviation**2 / m.n if m.n else 0.0 for m in (candidate, other)]
    if min(candidate.n, other.n) < 2 or not (variance := sum(variances)):
        return None
    test = stats.ttest_ind_from_stats(
        candidate.mean, candidate.deviation, candidate.n, other.mean, other.deviation, other.n, equal_var=False
    )
    # Welch and Satterthwaite's degrees of freedom.
    freedom = variance**2 / sum(v**2 / (m.n - 1) for v, m in zip(variances, (candidate, other), strict=True))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    gap = candidate.mean - other.mean
    return Difference(gap, gap - half, gap + half, float(test.pvalue))


def better(name: str) -> str | None:
    """Return which way a score is better, ``higher`` or ``lower``; None where that is not known of it."""
    return None if name not in _HIGHER_IS_BETTER else "higher" if _HIGHER_IS_BETTER[name] else "lower"


def warning(name: str, candidate: Moments, other: Moments) -> str | None:
    """Return what to know before the candidate's score is relied on; None where nothing speaks against it."""
    if not candidate.n:
        return f"no {name} scores of the candidate"
    said = []
    if candidate.n < FEW:
        said.append(f"only {candidate.n} {name} scores of the candidate")
    if other.n < FEW:
        said.append(f"only {other.n} {name} scores of the model in use")
    gap = difference(candidate, other)
    mean = candidate.mean - other.mean
    worse = (mean > 0) == (better(name) == "lower")
    if gap is not None and gap.p < 1 - CONFIDENCE and better(name) and worse:
        said.append(f"{name} is significantly worse (p = {gap.p:.2g})")
    elif gap is None and other.n and not math.isclose(mean, 0.0, abs_tol=1e-9):
        said.append(f"{name} differs by {mean:+.3f}, and too few or equal scores allow no test")
    return ", ".join(said) or None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One score of the model in use and of a candidate; ``traffic`` says whose the candidate's are."""

    name: str
    model: Moments
    candidate: Moments
    traffic: str

    @property
    def better(self) -> str | None:
        """Which way it is better."""
        return better(self.name)

    @property
    def difference(self) -> Difference | None:
        """The candidate's mean less the model's."""
        return difference(self.candidate, self.model)

    @property
    def warning(self) -> str | None:
        """What to know before the candidate's score is relied on."""
        return warning(self.name, self.candidate, self.model)

    def document(self) -> dict[str, object]:
        """Return it as JSON takes it."""
        gap = self.difference
        return {
            "better": self.better,
            "model": _document(self.model),
            "candidate": {**_document(self.candidate), "traffic": self.traffic},
            "difference": None if gap is None else {"mean": gap.mean, "low": gap.low, "high": gap.high, "p": gap.p},
            "confidence": CONFIDENCE,
            "warning": self.warning,
        }


def _document(moments: Moments) -> dict[str, object]:
    low, high = interval(moments) or (None, None)
    return {"n": moments.n, "mean": moments.mean if moments.n else None, "low": low, "high": high}


@dataclass(slots=True)
class ScoreBook:
    """Scores of answers, joined with the calls they are about by team and request id.

    First every cost (:meth:`call`), then the evaluations and feedback of the same requests. A request's scores belong to
    the model of its last generating call; of a request's ratings the last counts. A score of the prompt says nothing of
    a model and is passed over.
    """

    _groups: dict[tuple[str, str, str], int] = field(default_factory=dict)
    _names: list[tuple[str, str, str]] = field(default_factory=list)
    _calls: RequestNumbers = field(default_factory=RequestNumbers)
    _seen: bytearray = field(default_factory=bytearray)
    _scores: dict[tuple[int, str], Moments] = field(default_factory=dict)
    _ratings: dict[int, float] = field(default_factory=dict)
    _rated: dict[int, Moments] | None = None

    def call(self, cost: Cost) -> None:
        """Note whose call a request was."""
        if cost.kind not in GENERATING:
            return
        group = (cost.tenant_id, cost.context.route, cost.model)
        number = self._groups.setdefault(group, len(self._names))
        if number == len(self._names):
            self._names.append(group)
        self._calls.put(cost.tenant_id, cost.request_id, number)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Take the scores of one released answer; a second event of the same request is passed over, and so are those of
        targets in shadow."""
        if evaluation.context.purpose == Purpose.SHADOW:
            return
        position = self._calls.position(evaluation.tenant_id, evaluation.request_id)
        if position is None or evaluation.status != "completed":
            return
        if len(self._seen) < len(self._calls):
            self._seen = bytearray(len(self._calls))
        if self._seen[position]:
            return
        self._seen[position] = 1
        group = self._calls.at(position)
        for score in evaluation.scores:
            if score.subject == "answer":
                self._scores.setdefault((group, score.name), Moments()).add(score.score)

    def feedback(self, feedback: Feedback) -> None:
        """Take the rating of one answer."""
        position = self._calls.position(feedback.tenant_id, feedback.request_id)
        if position is not None and feedback.rating is not None:
            self._ratings[position] = feedback.rating
            self._rated = None

    def of(self, scope: Scope) -> dict[str, Moments]:
        """Return the scores of a scope by name, sorted; ``feedback`` are the ratings."""
        team, route, model = scope
        wanted = {
            number
            for (one_team, one_route, one_model), number in self._groups.items()
            if one_model == model and team in (None, one_team) and route in (None, one_route)
        }
        found: dict[str, Moments] = {}
        for (group, name), moments in self._scores.items():
            if group in wanted:
                found[name] = _merged(found.get(name), moments)
        if self._rated is None:
            self._rated = {}
            for position, rating in self._ratings.items():
                self._rated.setdefault(self._calls.at(position), Moments()).add(rating)
        for group, moments in self._rated.items():
            if group in wanted:
                found["feedback"] = _merged(found.get("feedback"), moments)
        return dict(sorted(found.items()))

    def compare(self, team: str, route: str, model: str, candidate: str) -> dict[str, Comparison]:
        """Compare the scores of two models, by name.

        The model's are those of the team and route. The candidate's are too where it answered there, else those of the
        route in any team, else all there are. A name that the candidate has no score of is compared with nothing; where
        neither has any, ``groundedness`` is.
        """
        own = self.of((team, route, model))
        theirs: dict[str, Moments] = {}
        traffic = "none"
        for scope, said in (
            ((team, route, candidate), "this team and route"),
            ((None, route, candidate), "this route, every team"),
            ((None, None, candidate), "every route and team"),
        ):
            if theirs := self.of(scope):
                traffic = said
                break
        names = sorted({*own, *theirs}) or ["groundedness"]
        none = Moments()
        return {name: Comparison(name, own.get(name, none), theirs.get(name, none), traffic) for name in names}


def _merged(first: Moments | None, second: Moments) -> Moments:
    """Return the moments of two series together (Chan, Golub and LeVeque, 1979)."""
    if first is None:
        return Moments(second.n, second.mean, second.squares)
    n = first.n + second.n
    gap = second.mean - first.mean
    return Moments(
        n, first.mean + gap * second.n / n, first.squares + second.squares + gap * gap * first.n * second.n / n
    )
