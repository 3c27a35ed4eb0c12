"""What a run of `penstock evaluate score` remembers of the rows: numbers only, a few bytes a row."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from services.evaluation.command.score_figures import Figures, figures
from services.evaluation.command.score_rows import Row

__all__ = ["Gap", "Group", "Tally", "groups_by", "largest_gap"]

_MOST_GROUPS = 2_000
_OTHERS = "(others)"
_FEWEST_NEGATIVES = 20
"""Negatives a group must have for its false-positive rate to be compared."""
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of the rows of one group."""

    name: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Gap:
    """The groups with the lowest and the highest false-positive rate."""

    lowest: str
    highest: str
    low: float
    high: float


@dataclass
class Tally:
    """Labels and scores of the rows that have both, and the groups they belong to."""

    labels: array[int] = field(default_factory=lambda: array("b"))
    scores: array[float] = field(default_factory=lambda: array("d"))
    baselines: dict[str, array[float]] = field(default_factory=dict)
    groups: dict[str, dict[str, array[int]]] = field(default_factory=dict)

    def add(
        self, label: bool, score: float, baselines: Mapping[str, float], groups: Mapping[str, Sequence[str]]
    ) -> None:
        """Take in one row: the score of each baseline, and its groups by the field that tells them."""
        row = len(self.labels)
        self.labels.append(label)
        self.scores.append(score)
        for name, value in baselines.items():
            self.baselines.setdefault(name, array("d")).append(value)
        for by, names in groups.items():
            known = self.groups.setdefault(by, {})
            for name in names:
                kept = name if name in known or len(known) < _MOST_GROUPS else _OTHERS
                known.setdefault(kept, array("I")).append(row)

    def figures(self, threshold: float | None) -> Figures:
        """Return those of the evaluator."""
        return figures(self._labels(), np.array(self.scores), threshold)

    def baseline_figures(self, name: str, threshold: float | None) -> Figures:
        """Return those of a baseline over the same rows."""
        return figures(self._labels(), np.array(self.baselines[name]), threshold)

    def by_group(self, by: str, threshold: float | None) -> Iterator[Group]:
        """Yield the figures of each group of one field, the largest first."""
        labels, scores = self._labels(), np.array(self.scores)
        for name, rows in sorted(self.groups.get(by, {}).items(), key=lambda item: (-len(item[1]), item[0])):
            place = np.array(rows, dtype=np.intp)
            yield Group(name, figures(labels[place], scores[place], threshold))

    def _labels(self) -> NDArray[np.bool_]:
        return np.array(self.labels, dtype=np.bool_)


def largest_gap(groups: list[Group]) -> Gap | None:
    """Return the largest difference in false-positive rates among groups of 20 negatives and more; None below two."""
    rates = []
    for group in groups:
        at = group.figures.at_threshold
        negatives = group.figures.rows - group.figures.positives
        if at is not None and at.false_positive_rate is not None and negatives >= _FEWEST_NEGATIVES:
            rates.append((at.false_positive_rate, group.name))
    if len(rates) < 2:
        return None
    (low, lowest), (high, highest) = min(rates), max(rates)
    return Gap(lowest, highest, low, high)


def groups_by(name: str) -> Callable[[Row], tuple[str, ...]]:
    """Return what tells the groups of a row: the value of a field; for ``identity`` without such a field, the names of
    identities in the text, several or none."""

    def of(row: Row) -> tuple[str, ...]:
        value = row.fields.get(name)
        if value is not None:
            return tuple(str(one) for one in value) if isinstance(value, list) else (str(value),)
        if name == "identity":
            text = f"{row.exchange.question} {row.exchange.answer}".lower()
            return tuple(sorted(set(_WORD.findall(text)) & _identities())) or ("(none named)",)
        return ("(without)",)

    return of


@lru_cache(maxsize=1)
def _identities() -> frozenset[str]:
    from services.evaluation.toxicity.lexicon import MODELS

    classes = json.loads((MODELS / "toxicity_lexicon.json").read_text("utf-8"))["classes"]
    return frozenset((*classes["identity_one"], *classes["identity_many"]))
