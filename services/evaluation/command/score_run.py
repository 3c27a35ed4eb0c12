"""Scores batches of lines, and remembers how long that took and what it was worth."""

from __future__ import annotations

import time
from collections.abc import Sequence

from penstock.contracts.records import Score

from services.evaluation.command.score_baselines import Baseline, Skipped
from services.evaluation.command.score_report import Grouped, Report, Scorer
from services.evaluation.command.score_rows import Row
from services.evaluation.command.score_tally import Tally, groups_by, largest_gap
from services.evaluation.evaluators.protocol import Evaluator, Exchange
from services.evaluation.evaluators.runner import InvalidJudgement, evaluate

__all__ = ["Said", "ScoringRun"]

Said = Score | float | None
"""What an evaluator said of a line, the score that follows where it said nothing, or None."""

_NOTHING_SAID = {"toxicity": 0.0, "groundedness": 0.0}
"""Score of a line with nothing to judge, where it follows: no text is no toxic text, and no claim is borne out."""


class ScoringRun:
    """One evaluator and the baselines beside it, over lines in batches.

    Args:
        evaluator: what is measured.
        baselines: what runs beside it, over lines with a label.
        fields: groups to tell figures by; see :func:`groups_by`.
    """

    def __init__(self, evaluator: Evaluator, baselines: Sequence[Baseline], fields: Sequence[str]) -> None:
        self.failures = 0
        self.first_failure = ""
        self._evaluator = evaluator
        self._baselines = baselines
        self._groupings = {field: groups_by(field) for field in fields}
        self._tally = Tally()
        self._rows = 0
        self._nothing = 0
        self._load_s = 0.0
        self._seconds: dict[str, float] = dict.fromkeys((evaluator.name, *(one.name for one in baselines)), 0.0)
        self._timed: dict[str, int] = dict.fromkeys(self._seconds, 0)
        self._where: dict[int, str] = {}

    def warm_up(self, exchange: Exchange, made_s: float = 0.0) -> None:
        """Have models loaded, so that what is timed is scoring; ``made_s`` is what making the evaluator took, seconds."""
        started = time.perf_counter()
        evaluate([self._evaluator], [exchange], failed=lambda *_: None)
        self._load_s = made_s + time.perf_counter() - started
        for baseline in self._baselines:
            baseline.scores([exchange])

    def score(self, batch: Sequence[Row]) -> list[Said]:
        """Return what is said of each row; see :data:`Said`.

        Raises:
            penstock.embedding.EmbedderUnavailable: the embedder is away.
        """
        exchanges = [row.exchange for row in batch]
        self._where = {id(row.exchange): row.where for row in batch}
        failures = self.failures
        started = time.perf_counter()
        scores = evaluate([self._evaluator], exchanges, failed=self._failed)
        self._took(self._evaluator.name, started, len(batch))
        self._rows += len(batch)
        said: list[Said] = []
        for found in scores:
            if found:
                said.append(found[0])
            else:
                said.append(_NOTHING_SAID.get(self._evaluator.name) if self.failures == failures else None)
                self._nothing += 1
        self._tally_up(batch, said)
        return said

    def report(self, threshold: float | None, skipped: Sequence[Skipped], invalid: int) -> Report:
        """Return the figures so far.

        Args:
            threshold: from which the evaluator says yes; None: its own.
            skipped: baselines that were not run.
            invalid: lines that were left out.
        """
        own: float | None = getattr(self._evaluator, "threshold", None) if threshold is None else threshold
        labelled = len(self._tally.labels) > 0
        scorers = [
            Scorer(
                self._evaluator.name, self._rate(self._evaluator.name), self._tally.figures(own) if labelled else None
            )
        ]
        for one in self._baselines:
            measured = self._tally.baseline_figures(one.name, one.threshold) if labelled else None
            scorers.append(Scorer(one.name, self._rate(one.name), measured))
        grouped = []
        for field in self._groupings:
            groups = list(self._tally.by_group(field, own))
            grouped.append(Grouped(field, groups, largest_gap(groups)))
        return Report(
            evaluator=self._evaluator.name,
            version=self._evaluator.version,
            subject=self._evaluator.subject,
            threshold=own,
            lines=self._rows,
            labelled=len(self._tally.labels),
            nothing_to_judge=self._nothing - self.failures,
            failed=self.failures,
            invalid=invalid,
            load_s=self._load_s,
            scorers=scorers,
            skipped={one.name: one.reason for one in skipped},
            groups=grouped,
        )

    def _tally_up(self, batch: Sequence[Row], said: Sequence[Said]) -> None:
        """Remember labels and scores of the rows that have both, and let the baselines score them."""
        kept = [(row, _number(one)) for row, one in zip(batch, said, strict=True) if row.label is not None]
        pairs = [(row, number) for row, number in kept if number is not None]
        by_baseline = {}
        for baseline in self._baselines:
            started = time.perf_counter()
            by_baseline[baseline.name] = baseline.scores([row.exchange for row, _ in pairs]) if pairs else []
            self._took(baseline.name, started, len(pairs))
        for place, (row, number) in enumerate(pairs):
            groups = {field: grouping(row) for field, grouping in self._groupings.items()}
            baselines = {name: scores[place] for name, scores in by_baseline.items()}
            self._tally.add(bool(row.label), number, baselines, groups)

    def _failed(self, name: str, exchange: Exchange, error: Exception) -> None:
        where = self._where.get(id(exchange), "")
        cause = str(error) if isinstance(error, InvalidJudgement) else f"{type(error).__name__}: {error}"
        if not self.failures:
            self.first_failure = f"{where}: {' '.join(cause.split())}"
        self.failures += 1

    def _took(self, name: str, started: float, count: int) -> None:
        self._seconds[name] += time.perf_counter() - started
        self._timed[name] += count

    def _rate(self, name: str) -> float:
        return self._timed[name] / self._seconds[name] if self._seconds[name] else 0.0


def _number(said: Said) -> float | None:
    return said.score if isinstance(said, Score) else said
