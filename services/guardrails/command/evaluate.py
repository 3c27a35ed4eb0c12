"""``penstock guard evaluate``: how good a policy is on labelled lines."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from penstock.cli.cluster import table_console
from penstock.config.policies import STAGES, BannedTopic, Policy, ScannerRule
from rich.console import Console
from rich.progress import track

from services.guardrails.command.evaluation import Section, UsedRule, labels_for, measure
from services.guardrails.command.judged_rows import JudgedRow, Judging
from services.guardrails.command.labelled import TASKS, Labelled, Reading, read_labelled
from services.guardrails.command.lines import writing
from services.guardrails.command.policies import compiled, find_policy
from services.guardrails.command.tables import show
from services.guardrails.command.workers import map_in_order

__all__ = ["evaluate", "topic_rules", "with_task_rules"]

_MOST_TOPICS = 20
_SEED = 7


@click.command()
@click.option(
    "--in", "sources", multiple=True, required=True, type=click.Path(path_type=Path, allow_dash=True),
    help="JSON lines, or a .csv table; repeat it for several files.",
)  # fmt: skip
@click.option(
    "--policy", "name", default="default", show_default=True, help="Name of a policy, or the path of its file."
)
@click.option("--config", type=click.Path(path_type=Path), help="Folder of policies.  [default: the project's]")
@click.option("--task", type=click.Choice(list(TASKS)), help="What the labels speak of.  [default: by the fields]")
@click.option("--stage", type=click.Choice(STAGES), help="Rules that judge.  [default: by the fields and the source]")
@click.option("--label-field", help="Field with the label: 1 or 0, yes or no.")
@click.option("--text-field", help="Field with the text.")
@click.option("--group-field", help="Field to tell figures by.  [default: source, family, category or type]")
@click.option("--score", metavar="RULE", help="Rule that the tables by source and the sweep are about.")
@click.option(
    "--at-fpr", "bound", type=click.FloatRange(0, 1), default=0.01, show_default=True,
    help="Share of false positives at which the recall is told.",
)  # fmt: skip
@click.option(
    "--banned-topic", "banned", multiple=True, metavar="FIELD=VALUE",
    help="Topic to ban, e.g. domain=banking.  [default: each in turn]",
)  # fmt: skip
@click.option(
    "--examples", default=20, show_default=True, type=click.IntRange(1),
    help="Rows of a topic that describe it; they are left out of the evaluation.",
)  # fmt: skip
@click.option("--sweep", "with_sweep", is_flag=True, help="Also print figures at other thresholds.")
@click.option("--limit", type=click.IntRange(1), help="At most so many rows of each task and stage, drawn at random.")
@click.option("--out", "target", type=click.Path(path_type=Path), help="File for what was found in each row.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes that judge.")
def evaluate(
    sources: Sequence[Path],
    name: str,
    config: Path | None,
    task: str | None,
    stage: str | None,
    label_field: str | None,
    text_field: str | None,
    group_field: str | None,
    score: str | None,
    bound: float,
    banned: Sequence[str],
    examples: int,
    with_sweep: bool,
    limit: int | None,
    target: Path | None,
    as_json: bool,
    jobs: int,
) -> None:
    """Measure a policy on labelled lines, without the stack.

    The format is told by the fields: `text, label, source` (injection), `full_text, spans` (pii), `text, label, hate`
    (toxicity), `context, question, response, grounded` (groundedness), `text, intent, domain` (topics). A scanner that
    looks for what the labels say, and that the policy does not use, is tried with its own threshold and said to be
    "not in the policy". Lines that cannot be read are named and left out, and the exit status is 1.
    """
    policy = find_policy(name, config)
    reading = Reading(task, stage, label_field, text_field, group_field)
    rows, unread = [], 0
    for row in read_labelled(sources, reading):
        if isinstance(row, Labelled):
            rows.append(row)
        else:
            unread += 1
            click.echo(": ".join(row), err=True)
    if not rows:
        raise click.ClickException("there is no row to evaluate")
    groups: dict[tuple[str, str], list[Labelled]] = {}
    for row in rows:
        groups.setdefault((row.task, row.stage), []).append(row)
    sections: list[Section] = []
    results: list[Mapping[str, Any]] = []
    for (_, at), group in groups.items():
        group = _drawn(group, limit)
        tried, group = _tried_policy(policy, group, banned, examples)
        used = [
            UsedRule(rule, scanner.name, added=rule.name not in getattr(policy, at))
            for scanner, rule in compiled(tried).stages[at]
        ]
        judging = map_in_order(Judging(tried, at), group, jobs)
        judged = list(_with_progress(judging, len(group), f"{group[0].task}, {at}"))
        try:
            section = measure(group, judged, used, bound=bound, score=score)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        sections.append(section)
        if target is not None:
            results += _results(group, judged, used, section)
    if target is not None:
        with writing(target, *sources) as out:
            out.writelines(msgspec.json.encode(result) + b"\n" for result in results)
    _print(sections, policy, bound, with_sweep=with_sweep, as_json=as_json)
    if unread:
        click.echo(f"{unread} lines could not be read and are left out of the figures", err=True)
        raise SystemExit(1)


def with_task_rules(policy: Policy, task: str, stage: str) -> Policy:
    """``policy``, with a rule in shadow for the task's main scanner at ``stage`` where it has none."""
    rules: dict[str, ScannerRule] = getattr(policy, stage)
    scanner = TASKS[task].scanners[0]
    if any(rule.mode != "off" and (rule.scanner or name) == scanner for name, rule in rules.items()):
        return policy
    name = scanner if scanner not in rules else f"{scanner} (as shipped)"
    added = ScannerRule(action="flag", mode="shadow", scanner=scanner)
    return policy.model_copy(update={stage: {**rules, name: added}})


def topic_rules(
    rows: Sequence[Labelled], topics: Sequence[tuple[str, str]], examples: int
) -> tuple[dict[str, ScannerRule], list[Labelled]]:
    """A rule for each topic (field, value), described by rows of it drawn at random, and the rows without these.

    Raises:
        click.ClickException: a topic has too few rows to be described and measured.
    """
    rng = random.Random(_SEED)
    rules: dict[str, ScannerRule] = {}
    used: set[int] = set()
    for field, value in topics:
        places = [index for index, row in enumerate(rows) if row.topics.get(field) == value]
        if len(places) <= examples:
            raise click.ClickException(
                f"{field}={value} has {len(places)} rows: too few to describe it by {examples} and measure the rest; "
                "give fewer --examples, or another --banned-topic"
            )
        drawn = rng.sample(places, examples)
        used.update(drawn)
        texts = tuple(rows[index].subject.segments[0].text for index in drawn)
        topic = BannedTopic(name=value, examples=texts)
        rules[f"banned_topics {value}"] = ScannerRule(
            action="flag", mode="shadow", scanner="banned_topics", topics=(topic,)
        )
    return rules, [row for index, row in enumerate(rows) if index not in used]


def _tried_policy(
    policy: Policy, rows: list[Labelled], banned: Sequence[str], examples: int
) -> tuple[Policy, list[Labelled]]:
    """The policy with what must be added to it to judge ``rows``, and the rows left to judge."""
    task, stage = rows[0].task, rows[0].stage
    if task != "topics" or rows[0].label is not None:
        return with_task_rules(policy, task, stage), rows
    own = {
        topic.name
        for rule in getattr(policy, stage).values()
        for topic in rule.topics
        if any(topic.name in row.topics.values() for row in rows)
    }
    if own and not banned:
        return policy, rows
    rules, left = topic_rules(rows, [_field_and_value(one) for one in banned] or _all_topics(rows), examples)
    return policy.model_copy(update={stage: {**getattr(policy, stage), **rules}}), left


def _all_topics(rows: Sequence[Labelled]) -> list[tuple[str, str]]:
    field = next(iter(rows[0].topics), "domain")
    values = sorted({row.topics[field] for row in rows if field in row.topics})
    if len(values) > _MOST_TOPICS:
        raise click.ClickException(
            f"{field} has {len(values)} values: name those to ban with --banned-topic {field}={values[0]}"
        )
    return [(field, value) for value in values]


def _field_and_value(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not FIELD=VALUE, such as domain=banking", param_hint="--banned-topic")
    return field, value


def _drawn(rows: list[Labelled], limit: int | None) -> list[Labelled]:
    if limit is None or len(rows) <= limit:
        return rows
    return [rows[index] for index in sorted(random.Random(_SEED).sample(range(len(rows)), limit))]


def _with_progress(judged: Iterable[JudgedRow], total: int, what: str) -> Iterator[JudgedRow]:
    console = Console(stderr=True)
    return iter(track(judged, what, total=total, console=console, transient=True, disable=not sys.stderr.isatty()))


def _results(
    rows: Sequence[Labelled], judged: Sequence[JudgedRow], used: Sequence[UsedRule], section: Section
) -> Iterator[Mapping[str, Any]]:
    """A line a row for the study of errors: where it stands, what it ought to be, what was said."""
    main = next(one for one in used if one.rule.name == section.main)
    for row, one in zip(rows, judged, strict=True):
        truth = labels_for(row, main, TASKS[row.task])
        found = any(find.rule == section.main for find in one.found)
        yield {
            "row": row.where,
            "source": row.source,
            "stage": row.stage,
            "label": int(truth),
            "outcome": {(1, 1): "hit", (1, 0): "missed", (0, 1): "in excess", (0, 0): "passed"}[int(truth), int(found)],
            "action": one.action,
            "scores": {used_rule.rule.name: round(one.scores.get(used_rule.rule.name, 0.0), 6) for used_rule in used},
            "findings": [
                {"kind": find.span.kind, "start": find.span.start, "end": find.span.end,
                 "score": round(find.span.score, 6), "rule": find.rule}
                for find in one.found
            ],
            "entities": [dataclasses.asdict(entity) for entity in row.entities],
            "errors": one.errors,
            "text": "\n".join(segment.text for segment in row.subject.segments),
        }  # fmt: skip


def _print(sections: Sequence[Section], policy: Policy, bound: float, *, with_sweep: bool, as_json: bool) -> None:
    if as_json:
        document = {
            "policy": {"name": policy.name, "version": policy.version},
            "at_fpr": bound,
            "sections": [_with_ratios(dataclasses.asdict(section), section) for section in sections],
        }
        click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
        return
    console = table_console()
    console.print(f"policy [bold]{policy.name}[/], version {policy.version}\n")
    for section in sections:
        show(console, section, bound, with_sweep=with_sweep)


def _with_ratios(value: Any, source: Any) -> Any:
    """The plain form of an evaluation, with the ratios beside the counts they come from."""
    if isinstance(value, dict):
        inner = {
            name: _with_ratios(
                inner_value, source[name] if isinstance(source, Mapping) else getattr(source, name, None)
            )
            for name, inner_value in value.items()
        }
        if set(inner) == {"tp", "fp", "fn", "tn"}:
            inner |= {name: getattr(source, name) for name in ("precision", "recall", "false_positive_rate", "f1")}
        return inner
    if isinstance(value, list | tuple):
        return [_with_ratios(one, other) for one, other in zip(value, source, strict=True)]
    return value
