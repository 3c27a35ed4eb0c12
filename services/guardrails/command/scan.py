"""``penstock guard scan``: a verdict for each line of a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec
from penstock.config.policies import ACTIONS, STAGES, Policy
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from services.guardrails.command.lines import BadLine, Line, plain, read_lines, writing
from services.guardrails.command.policies import compiled, find_policy
from services.guardrails.command.subject import Subject, subject_of
from services.guardrails.command.workers import map_in_order
from services.guardrails.findings import AnyScanner, Rule
from services.guardrails.screening import Finding, Limits, Screening, screen

__all__ = ["LIMITS", "Screener", "scan", "verdict"]

LIMITS: Mapping[str, Limits] = {"input": Limits(), "output": Limits(), "documents": Limits(4_000_000, 30.0)}
"""As the service's own settings."""

ADDED = (
    "action", "scores", "findings", "masked", "latency_ms", "errors", "would_action", "pseudonyms", "own",
)  # fmt: skip
"""Fields of a verdict. A line's own field of the same name is kept under ``own``."""


@dataclass(frozen=True, slots=True)
class Screener:
    """A policy at a stage. ``reversible`` gives every value that is masked or hashed a pseudonym, so that the text can be
    restored; the actions reported stay the policy's. ``key`` makes the hashes.
    """

    rules: tuple[tuple[AnyScanner, Rule], ...]
    limits: Limits
    key: bytes
    reversible: bool = False

    def screening(self, subject: Subject) -> Screening:
        """What the policy makes of ``subject``."""
        rules = self.rules
        if self.reversible:
            rules = tuple((scanner, _reversible(rule)) for scanner, rule in rules)
        screening = screen(subject.segments, rules, subject.reference, self.limits, time.perf_counter, self.key)
        return self._with_actions(screening) if self.reversible else screening

    def _with_actions(self, screening: Screening) -> Screening:
        actions = {rule.name: rule.action for _, rule in self.rules}
        findings = tuple(
            replace(find, action=actions[find.rule]) if find.action == "pseudonymise" else find
            for find in screening.findings
        )
        enforced = [find.action for find in findings if find.enforced]
        would = screening.would_action
        return replace(
            screening,
            findings=findings,
            action=max(enforced, key=ACTIONS.index, default="allow"),
            would_action=would and max((find.action for find in findings), key=ACTIONS.index, default="allow"),
        )


def _reversible(rule: Rule) -> Rule:
    return replace(rule, action="pseudonymise") if rule.action in ("mask", "hash") else rule


@dataclass(frozen=True, slots=True)
class _Work:
    """Everything a process needs to judge lines."""

    policy: Policy
    stage: str
    text_field: str | None
    pseudonyms: bool
    key: bytes

    def __call__(self) -> Callable[[Line], tuple[Line, bytes | str]]:
        rules = compiled(self.policy).stages[self.stage]
        return partial(_judged, Screener(rules, LIMITS[self.stage], self.key, self.pseudonyms), self)


def _judged(screener: Screener, work: _Work, line: Line) -> tuple[Line, bytes | str]:
    """The line with its verdict, or why there is none."""
    try:
        fields = line.fields()
        subject = subject_of({name: plain(raw) for name, raw in fields.items()}, work.stage, work.text_field)
    except BadLine as error:
        return line, str(error)
    return line, msgspec.json.encode(verdict(fields, subject, screener, work.pseudonyms)) + b"\n"


def verdict(
    fields: Mapping[str, msgspec.Raw], subject: Subject, screener: Screener, pseudonyms: bool = False
) -> dict[str, Any]:
    """The line's own fields with what ``screener`` made of it.

    Scores are by rule, 0 for one that saw nothing. Findings' offsets are code points of the text they stand in, which
    ``message`` numbers where the line is a conversation; ``masked`` has the shape of what was judged.
    """
    screening = screener.screening(subject)
    starts, position = [], 0
    for segment in subject.segments:
        starts.append(position)
        position += len(segment.text) + 1
    result: dict[str, Any] = {name: raw for name, raw in fields.items() if name not in ADDED}
    result["action"] = screening.action
    if screening.would_action is not None:
        result["would_action"] = screening.would_action
    result["scores"] = {
        rule.name: round(min(1.0, max(0.0, screening.scores.get(rule.name, 0.0))), 6) for _, rule in screener.rules
    }
    result["findings"] = [_finding(find, starts, subject.conversation) for find in screening.findings]
    result["masked"] = (
        [
            {"role": segment.role, "content": text}
            for segment, text in zip(subject.segments, screening.texts, strict=True)
        ]
        if subject.conversation
        else screening.texts[0]
    )
    result["latency_ms"] = round(screening.elapsed_s * 1e3, 3)
    if screening.errors:
        result["errors"] = dict(screening.errors)
    if pseudonyms:
        result["pseudonyms"] = dict(screening.pseudonyms)
    if own := {name: raw for name, raw in fields.items() if name in ADDED}:
        result["own"] = own
    return result


def _finding(find: Finding, starts: list[int], conversation: bool) -> dict[str, Any]:
    base = 0 if find.start == find.end == 0 else starts[find.segment]
    shown: dict[str, Any] = {
        "kind": find.kind,
        "start": find.start - base,
        "end": find.end - base,
        "score": round(find.score, 6),
        "scanner": find.scanner,
        "action": find.action,
    }
    if find.rule != find.scanner:
        shown["rule"] = find.rule
    if not find.enforced:
        shown["enforced"] = False
    if conversation:
        shown["message"] = find.segment
    return shown


@click.command()
@click.option("--policy", "name", required=True, help="Name of a policy, or the path of its file.")
@click.option(
    "--in", "source", required=True, type=click.Path(path_type=Path, allow_dash=True), help="JSON lines; - is stdin."
)
@click.option(
    "--out", "target", required=True, type=click.Path(path_type=Path, allow_dash=True), help="JSON lines; - is stdout."
)
@click.option("--stage", type=click.Choice(STAGES), default="input", show_default=True, help="Rules that judge.")
@click.option("--text-field", help="Field that holds the text.  [default: text, prompt, messages, answer, ...]")
@click.option("--config", type=click.Path(path_type=Path), help="Folder of policies.  [default: the project's]")
@click.option("--pseudonyms", is_flag=True, help="Add what restores the masked text.")
@click.option(
    "--rejects", type=click.Path(path_type=Path), help="File for the lines that cannot be judged, as they are."
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Processes that judge.")
def scan(
    name: str,
    source: Path,
    target: Path,
    stage: str,
    text_field: str | None,
    config: Path | None,
    pseudonyms: bool,
    rejects: Path | None,
    jobs: int,
) -> None:
    """Screen every line of a file by a policy, without the stack.

    A line is an object with the text in `text`, `full_text`, `prompt` or `content`, or with `messages`; an answer's in
    `answer` or `response`, beside `question`, `context` or `passages`, and `system_prompt`. It is written with its own
    fields and `action`, `scores`, `findings`, `masked` and `latency_ms`. A line that cannot be judged is named with its
    number, the others go on, and the exit status is 1.
    """
    work = _Work(find_policy(name, config), stage, text_field, pseudonyms, _fingerprint_key())
    judge = work()  # what is wrong with the policy is said here, before anything is written, once for all processes
    judged_lines = map_in_order(work if jobs > 1 else lambda: judge, read_lines(source), jobs)
    unread = 0
    with writing(target, source) as out:
        kept: BinaryIO | None = None
        try:
            for line, judged in _with_progress(judged_lines, source):
                if isinstance(judged, bytes):
                    out.write(judged)
                    continue
                unread += 1
                click.echo(f"{line.where}: {judged}", err=True)
                if rejects is not None:
                    kept = kept or rejects.open("wb")
                    kept.write(line.raw + b"\n")
        finally:
            if kept is not None:
                kept.close()
    if unread:
        left = f", kept in {rejects}" if rejects else ""
        click.echo(f"{unread} lines could not be judged and were left out{left}; the others were judged", err=True)
        raise SystemExit(1)


def _fingerprint_key() -> bytes:
    """The service's own key where the environment has it, so that hashes agree; else one for this run."""
    return os.environ.get("GUARDRAILS_FINGERPRINT_KEY", "").encode() or os.urandom(32)


def _with_progress(judged: Iterator[tuple[Line, bytes | str]], source: Path) -> Iterator[tuple[Line, bytes | str]]:
    """Pass the lines on, with a bar on standard error where that is a terminal."""
    size = source.stat().st_size if str(source) != "-" and source.is_file() else None
    with Progress(
        TextColumn("judging"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, disable=size is None or not sys.stderr.isatty(),
    ) as progress:  # fmt: skip
        task = progress.add_task("judging", total=size)
        for line, outcome in judged:
            progress.update(task, completed=line.end)
            yield line, outcome
