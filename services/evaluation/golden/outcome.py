"""From the answers of a run to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from penstock.embedding.protocol import Embedder

from services.evaluation.evaluators.protocol import Evaluator
from services.evaluation.golden.answers import Answer, Run
from services.evaluation.golden.comparison import compare, demands
from services.evaluation.golden.consistency import consistency, similarities, steadiness
from services.evaluation.golden.dataset import Case
from services.evaluation.golden.judged import Judgement, pairwise_tables, pointwise
from services.evaluation.golden.metrics import DEFAULT_RULES, Bound, Requirement
from services.evaluation.golden.report import Report, make_report
from services.evaluation.golden.scoring import scored, table_of
from services.evaluation.golden.variants import Variant

__all__ = ["Earlier", "Judging", "comparable", "outcome"]


class Earlier(msgspec.Struct, frozen=True):
    """The answers of an earlier run, which this one is compared with.

    Attributes:
        variant: what they were answers of, under a name of its own.
        run: identity of that run.
        answers: under the variant's name.
    """

    variant: Variant
    run: str
    answers: list[Answer]


class Judging(msgspec.Struct, frozen=True):
    """What judges said in a run, and by which pairwise rubrics."""

    judgements: list[Judgement] = []
    pairwise: list[str] = []
    notes: list[str] = []


def comparable(earlier: Earlier, cases: Mapping[str, Case]) -> list[Answer]:
    """Return the answers of an earlier run to cases that ask and demand the same now."""
    return [a for a in earlier.answers if a.case in cases and a.case_version == cases[a.case].version]


def outcome(
    run: Run,
    cases: Sequence[Case],
    answers: Sequence[Answer],
    evaluators: Sequence[Evaluator],
    embedder: Embedder,
    *,
    rules: Mapping[str, Bound],
    requirements: Sequence[Requirement],
    made_at: datetime,
    earlier: Earlier | None = None,
    judging: Judging | None = None,
    strict: bool = False,
) -> Report:
    """Score the answers, compare each variant with the first, and return the report.

    With an earlier run, its variant is the baseline. Only cases that ask and demand the same now as then are compared;
    its answers are scored again, so that both sides are measured by the same evaluators.
    """
    judging = judging or Judging()
    by_id = {case.id: case for case in cases}
    variants, notes, stored = list(run.variants), list(judging.notes), list(answers)
    if earlier is not None:
        same = comparable(earlier, by_id)
        changed = {a.case for a in earlier.answers} - {a.case for a in same}
        new = by_id.keys() - {a.case for a in same}
        if changed or new:
            notes.append(
                f"of the earlier run {len({a.case for a in same})} cases are compared: {len(changed)} of its cases are "
                f"different now or gone, {len(new)} are new or were different then"
            )
        variants, stored = [earlier.variant, *variants], [*same, *stored]
    # Answers stand in the order they came in; reports of two runs should differ in what differs.
    places = {case.id: place for place, case in enumerate(cases)}
    names = {variant.name: place for place, variant in enumerate(variants)}
    stored.sort(key=lambda one: (names[one.variant], places.get(one.case, len(places)), one.repeat))
    rows = scored(by_id, stored, evaluators, pointwise(judging.judgements))
    weights = {case.id: case.weight for case in cases}
    tables = {variant.name: table_of(rows, variant.name) for variant in variants}
    similarity = similarities(embedder.embed, rows)
    baseline = variants[0].name
    comparisons, consistencies = [], []
    for variant in variants[1:]:
        won, lost = pairwise_tables(judging.judgements, judging.pairwise, variant.name, stored, baseline)
        comparisons.append(
            compare(
                (baseline, {**tables[baseline], **won}),
                (variant.name, {**tables[variant.name], **lost}),
                weights,
                rules,
                seed=run.seed,
                strict=strict,
            )
        )
        compared = {row.metric for row in comparisons[-1].metrics}
        if idle := sorted(name for name in rules if name not in compared and rules[name] != DEFAULT_RULES.get(name)):
            notes.append(f"{variant.name}: no case has {', '.join(idle)} on both sides: its rule says nothing")
        consistencies.append(consistency(rows, baseline, variant.name, similarity))
    demanded = {name: table for name, table in tables.items() if len(variants) == 1 or name != baseline}
    return make_report(
        run,
        cases,
        variants,
        rows,
        comparisons,
        demands(demanded, weights, requirements),
        consistencies,
        [one for variant in variants if (one := steadiness(rows, variant.name, similarity)) is not None],
        made_at=made_at,
        earlier={} if earlier is None else {earlier.variant.name: earlier.run},
        notes=notes,
    )
