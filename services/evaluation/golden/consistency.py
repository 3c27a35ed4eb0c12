"""How alike the answers of two variants to the same case are, and which demands flip between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from penstock.embedding.protocol import Vectors

from services.evaluation.golden.scoring import Scored

__all__ = ["CaseConsistency", "Consistency", "consistency", "similarities", "steadiness"]

Similarity = Callable[[str, str], float]
"""How alike two answers are in meaning, from 0 to 1."""


class CaseConsistency(msgspec.Struct, frozen=True, kw_only=True):
    """One case, answered by two variants.

    Attributes:
        same: share of the repeats whose answers are the same, white space aside.
        alike: mean similarity in meaning, from 0 to 1; 0 where one side has no answer.
        flips: demands that one side met and the other did not, with how they went.
        checks: demands compared.
    """

    case: str
    same: float
    alike: float
    flips: list[str]
    checks: int


class Consistency(msgspec.Struct, frozen=True, kw_only=True):
    """Two variants over all cases; the least consistent case first.

    Attributes:
        same: mean of the cases'.
        alike: mean of the cases'.
        flip_rate: flips over the demands compared.
        lost: demands that the baseline met and the candidate does not.
        gained: the other way round.
    """

    baseline: str
    candidate: str
    same: float
    alike: float
    flip_rate: float
    lost: int
    gained: int
    cases: list[CaseConsistency]


def similarities(embed: Callable[[Sequence[str]], Vectors], rows: Sequence[Scored]) -> Similarity:
    """Return the cosine similarity of answers, with every text embedded once; what is opposed counts as 0.

    Args:
        embed: vectors of unit length, shape (texts, dimension).
        rows: the answers that will be compared.
    """
    texts = list(dict.fromkeys(row.answer.content for row in rows if row.answer.content.strip()))
    vectors = embed(texts) if texts else np.zeros((0, 1), np.float32)
    places = {text: index for index, text in enumerate(texts)}

    def similarity(first: str, second: str) -> float:
        if first not in places or second not in places:
            return float(first.strip() == second.strip())
        return float(np.clip(vectors[places[first]] @ vectors[places[second]], 0.0, 1.0))

    return similarity


def consistency(rows: Sequence[Scored], baseline: str, candidate: str, similarity: Similarity) -> Consistency:
    """Compare the answers of two variants, the n-th repeat of a case with the n-th.

    A case that only one of them answers is left out; one that ended otherwise than by an answer on one side is not alike,
    on both sides in the same way it is.
    """
    first, second = _by_case(rows, baseline), _by_case(rows, candidate)
    cases, lost, gained = [], 0, 0
    for case in first:
        pairs = [(first[case][n], second[case][n]) for n in first[case] if n in second.get(case, {})]
        if not pairs:
            continue
        flips: list[str] = []
        checks = 0
        for a, b in pairs:
            known = {check.name: check.passed for check in a.checks}
            for check in b.checks:
                if check.name not in known:
                    continue
                checks += 1
                if check.passed != known[check.name]:
                    lost, gained = lost + (not check.passed), gained + check.passed
                    flips.append(f"{check.name}: {'met now' if check.passed else 'not met any more'}")
        cases.append(
            CaseConsistency(
                case=case,
                same=sum(_same(a, b) for a, b in pairs) / len(pairs),
                alike=sum(_alike(a, b, similarity) for a, b in pairs) / len(pairs),
                flips=flips,
                checks=checks,
            )
        )
    cases.sort(key=lambda one: (-len(one.flips), one.alike, one.same, one.case))
    count = max(1, len(cases))
    return Consistency(
        baseline=baseline,
        candidate=candidate,
        same=sum(one.same for one in cases) / count,
        alike=sum(one.alike for one in cases) / count,
        flip_rate=(lost + gained) / max(1, sum(one.checks for one in cases)),
        lost=lost,
        gained=gained,
        cases=cases,
    )


def steadiness(rows: Sequence[Scored], variant: str, similarity: Similarity) -> Consistency | None:
    """Compare the answers of one variant with those it gave when it was asked again; None where it was asked once."""
    again = f"{variant}, asked again"
    pairs = [row for row in rows if row.answer.variant == variant]
    later = [
        msgspec.structs.replace(
            row, answer=msgspec.structs.replace(row.answer, variant=again, repeat=row.answer.repeat - 1)
        )
        for row in pairs
        if row.answer.repeat > 0
    ]
    return consistency([*pairs, *later], variant, again, similarity) if later else None


def _by_case(rows: Sequence[Scored], variant: str) -> Mapping[str, Mapping[int, Scored]]:
    found: dict[str, dict[int, Scored]] = {}
    for row in rows:
        if row.answer.variant == variant:
            found.setdefault(row.answer.case, {})[row.answer.repeat] = row
    return found


def _same(a: Scored, b: Scored) -> bool:
    return a.answer.status == b.answer.status and a.answer.content.split() == b.answer.content.split()


def _alike(a: Scored, b: Scored, similarity: Similarity) -> float:
    if a.answer.status != b.answer.status:
        return 0.0
    return 1.0 if _same(a, b) else similarity(a.answer.content, b.answer.content)
