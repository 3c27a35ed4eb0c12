"""What a policy is worth on labelled rows: each rule, the policy as a whole, each source. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from penstock.config.policies import ACTIONS
from penstock.measures import Booleans, Counts, Floats, OperatingPoint, area_under_roc, counts, operating_point

from services.guardrails.command.entities import Comparison, compare, is_structured, kinds_of
from services.guardrails.command.judged_rows import JudgedRow
from services.guardrails.command.labelled import TASKS, Labelled, Task
from services.guardrails.command.measures import FEW_ROWS, intervals, percentile, sweep
from services.guardrails.findings import Rule

__all__ = ["Latency", "Measured", "Section", "SourceFigures", "UsedRule", "labels_for", "measure"]

STOPPING = frozenset(ACTIONS[ACTIONS.index("ask_again") :])
"""Actions after which a text does not go on as it is."""
_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True, slots=True)
class UsedRule:
    """A rule that was evaluated. ``added``: the policy has none for this scanner, so it was tried as shipped."""

    rule: Rule
    scanner: str
    added: bool = False


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds a row: CPU time of the thread, and time on the wall."""

    cpu_p50: float
    cpu_p95: float
    wall_p50: float
    wall_p95: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of one rule, or of the policy. ``threshold`` is None where several decide."""

    name: str
    scanner: str
    action: str
    threshold: float | None
    counts: Counts
    auc: float | None
    at_fpr: OperatingPoint | None
    latency: Latency
    errors: int
    note: str = ""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceFigures:
    """One source's rows: as the policy decides, as the main rule does, and as it would at the bounded false positives."""

    source: str
    policy: Counts
    rule: Counts
    at_fpr: Counts | None


@dataclass(frozen=True, slots=True)
class Section:
    """Everything about the rows of one task at one stage."""

    task: str
    stage: str
    rows: int
    positives: int
    policy: tuple[Measured, ...]
    rules: tuple[Measured, ...]
    main: str
    decided_by: str
    sources: tuple[SourceFigures, ...]
    sweep: tuple[tuple[float, Counts], ...]
    entities: Mapping[str, Counts] = field(default_factory=dict)
    entity_kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lossless: int | None = None


def labels_for(row: Labelled, rule: UsedRule | None, task: Task) -> bool:
    """Whether ``rule`` (None: the policy) ought to find something in ``row``."""
    if task.name == "pii" and row.label is None:
        return bool(row.entities)
    if row.label is None:
        names = {topic.name for topic in rule.rule.topics} if rule else set()
        return bool(names & set(row.topics.values()))
    return row.label


def measure(
    rows: Sequence[Labelled],
    judged: Sequence[JudgedRow],
    used: Sequence[UsedRule],
    *,
    bound: float = 0.01,
    score: str | None = None,
) -> Section:
    """Compare what was judged with the labels; ``rows`` are of one task and stage, ``judged`` in the same order.

    ``bound`` is the share of false positives at which the recall is told. ``score`` names the rule that the tables by
    source and the sweep are about; by default the first of the task's scanners.

    Raises:
        ValueError: there is no rule ``score``.
    """
    task = TASKS[rows[0].task]
    order = {scanner: place for place, scanner in enumerate(task.scanners)}
    used = sorted(used, key=lambda one: (order.get(one.scanner, len(order)), one.added))
    if score is not None and score not in {one.rule.name for one in used}:
        raise ValueError(f"no rule {score!r}; there are {', '.join(one.rule.name for one in used)}")
    judging = [one for one in used if one.scanner in order or one.rule.name == score]
    main = next((one for one in used if one.rule.name == (score or judging[0].rule.name)), used[0])
    truth = np.array([labels_for(row, main, task) for row in rows])

    measured = []
    for one in used:
        own = np.array([labels_for(row, one, task) for row in rows]) if one.rule.topics else truth
        measured.append(_measured(one, own, judged, bound, detailed=one in judging))
    whole = [_stops(truth, judged, used, bound), _finds(truth, judged, judging, bound)]
    stops = any(one.rule.action in STOPPING and one.rule.enforced for one in judging)
    decides = _found_by(judged, used, lambda one: _acts(one) and one.rule.action in STOPPING) if stops else (
        _found_by(judged, judging, _acts)
    )  # fmt: skip
    scores = _scores(judged, main.rule.name)
    by_rule = _found_by(judged, [main], lambda one: True)
    point = operating_point(truth, scores, bound)
    groups = np.array([row.source for row in rows])
    sources = tuple(
        SourceFigures(
            str(source),
            counts(truth[inside], decides[inside]),
            counts(truth[inside], by_rule[inside]),
            None if point is None else counts(truth[inside], scores[inside] >= point.threshold),
        )
        for source in sorted(set(groups.tolist()))
        for inside in [groups == source]
    )
    section = Section(
        task.name, rows[0].stage, len(rows), int(truth.sum()), tuple(whole), tuple(measured), main.rule.name,
        "stopped by the policy" if stops else "found by the policy", sources,
        tuple(sweep(truth, scores, _THRESHOLDS)),
    )  # fmt: skip
    return _with_entities(section, rows, judged) if task.name == "pii" else section


def _acts(one: UsedRule) -> bool:
    return one.rule.enforced and not one.added


def _scores(judged: Sequence[JudgedRow], name: str) -> Floats:
    """A rule's scores. One that could not judge ranks with the surest where that counts as a find, else with nothing."""
    values = []
    for row in judged:
        failed = any(find.rule == name and find.span.kind == "SCANNER_FAILED" for find in row.found)
        values.append(1.0 if failed else row.scores.get(name, 0.0))
    return np.array(values, dtype=np.float64)


def _found_by(judged: Sequence[JudgedRow], rules: Sequence[UsedRule], which: Callable[[UsedRule], bool]) -> Booleans:
    names = {one.rule.name for one in rules if which(one)}
    return np.array([any(find.rule in names and find.span.kind != "REPAIRED" for find in row.found) for row in judged])


def _latency(judged: Sequence[JudgedRow], name: str) -> Latency:
    cpu = np.array([row.cpu_s.get(name, 0.0) for row in judged]) * 1e3
    wall = np.array([row.wall_s.get(name, 0.0) for row in judged]) * 1e3
    return Latency(percentile(cpu, 0.5), percentile(cpu, 0.95), percentile(wall, 0.5), percentile(wall, 0.95))


def _measured(one: UsedRule, truth: Booleans, judged: Sequence[JudgedRow], bound: float, *, detailed: bool) -> Measured:
    rule = one.rule
    found = _found_by(judged, [one], lambda _: True)
    scores = _scores(judged, rule.name)
    few = detailed and len(judged) <= FEW_ROWS
    note = "not in the policy" if one.added else "" if rule.enforced else "in shadow"
    return Measured(
        rule.name, one.scanner, rule.action, rule.threshold, counts(truth, found), area_under_roc(truth, scores),
        operating_point(truth, scores, bound), _latency(judged, rule.name),
        sum(rule.name in row.errors for row in judged), note,
        intervals(truth, found, scores, bound) if few else {},
    )  # fmt: skip


def _stops(truth: Booleans, judged: Sequence[JudgedRow], used: Sequence[UsedRule], bound: float) -> Measured:
    """What no longer goes on as it is, for whatever reason."""
    stopping = [one for one in used if _acts(one) and one.rule.action in STOPPING]
    found = np.array([row.action in STOPPING for row in judged])
    return _policy("stopped", "block, review, ask again", truth, found, stopping, judged, bound)


def _finds(truth: Booleans, judged: Sequence[JudgedRow], judging: Sequence[UsedRule], bound: float) -> Measured:
    """What the scanners that look for it find, whatever follows."""
    acting = [one for one in judging if _acts(one)]
    found = _found_by(judged, acting, lambda _: True)
    return _policy("found", "any action", truth, found, acting, judged, bound)


def _policy(
    name: str,
    action: str,
    truth: Booleans,
    found: Booleans,
    rules: Sequence[UsedRule],
    judged: Sequence[JudgedRow],
    bound: float,
) -> Measured:
    """Several rules together rank a text by the one whose threshold it is furthest above, as :func:`_beside` puts it."""
    scores = np.zeros(len(judged))
    for one in rules:
        scores = np.maximum(scores, _beside(_scores(judged, one.rule.name), one.rule.threshold))
    few = len(judged) <= FEW_ROWS
    return Measured(
        name, ", ".join(one.rule.name for one in rules), action, None, counts(truth, found),
        area_under_roc(truth, scores), operating_point(truth, scores, bound), _latency(judged, ""),
        sum(bool(row.errors) for row in judged), "" if rules else "no rule of the policy does",
        intervals(truth, found, scores, bound) if few and rules else {},
    )  # fmt: skip


def _beside(scores: Floats, threshold: float) -> Floats:
    """Scores put on one scale: 0.5 at the rule's threshold, linear below and above."""
    below = 0.5 * scores / threshold if threshold > 0 else np.full_like(scores, 0.5)
    above = 0.5 + 0.5 * (scores - threshold) / (1 - threshold) if threshold < 1 else np.full_like(scores, 0.5)
    return np.where(scores >= threshold, above, np.minimum(below, 0.5))


def _with_entities(section: Section, rows: Sequence[Labelled], judged: Sequence[JudgedRow]) -> Section:
    types = sorted({entity.type for row in rows for entity in row.entities})
    comparison = Comparison()
    for row, one in zip(rows, judged, strict=True):
        spans = [find.span for find in one.found if find.scanner == "pii" and find.span.end > find.span.start]
        compare(row.entities, spans, types, comparison)
    by_type = dict(sorted(comparison.by_type.items(), key=lambda item: (not is_structured(item[0]), item[0])))
    totals = {
        "structured types": comparison.total(filter(is_structured, by_type)),
        "persons": comparison.total(["PERSON"]),
        "all": comparison.total(by_type),
    }
    return replace(
        section,
        entities=by_type | totals,
        entity_kinds={type_: kinds_of(type_) for type_ in by_type},
        lossless=sum(bool(row.lossless) for row in judged),
    )
