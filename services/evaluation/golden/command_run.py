"""``penstock evaluate run``: a golden set through the stream, variants compared, a report, an exit status for CI."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from penstock.bus import Producer
from penstock.cli.cluster import cluster_settings, errors_of_a_check
from penstock.cli.connection import Connection, connect
from penstock.client import Client, RequestNotSent
from penstock.clock import SystemClock
from penstock.config.plane import ConfigPlane
from penstock.config.rubrics import Rubric
from penstock.contracts.envelope import new_id
from penstock.embedding import EmbedderError, EmbeddingSettings, embedder_from_settings
from penstock.settings import load_settings
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.evaluation.evaluators.protocol import Evaluator
from services.evaluation.evaluators.registry import EvaluatorError, all_evaluators
from services.evaluation.golden.answers import Answer, AnswerFile, Run, RunError
from services.evaluation.golden.dataset import Case, Dataset, DatasetError, read_dataset
from services.evaluation.golden.judged import JudgementFile, judge, questions_of
from services.evaluation.golden.metrics import RuleError, rule_of, rules_of
from services.evaluation.golden.outcome import Earlier, Judging, comparable, outcome
from services.evaluation.golden.printing import print_report, write_report
from services.evaluation.golden.replay import NotAnswered, Patience, replay
from services.evaluation.golden.report import Report, ReportError, read_report, stored_answers
from services.evaluation.golden.scoring import metric_names
from services.evaluation.golden.variants import Ask, Configured, Request, Unfit, asks_of, request_of, variants_of

__all__ = ["Settings", "chosen_evaluators", "run"]

_RUNS = Path("evaluation-runs")
_UNUSABLE = (
    DatasetError, EmbedderError, EvaluatorError, NotAnswered, ReportError, RequestNotSent, RuleError, RunError, TimeoutError,
    Unfit,
)  # fmt: skip


class Settings(EmbeddingSettings):
    """What the commands read from the environment beside the addresses of the stack."""

    evaluator_modules: str = Field("", description="Modules with evaluators of the teams' own, separated by commas.")


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command."""

    file: Path
    team: str | None
    key_id: str | None
    routes: tuple[str, ...]
    prompts: tuple[str, ...]
    policies: tuple[str, ...]
    repeats: int
    tags: tuple[str, ...]
    chosen: tuple[str, ...]
    rubrics: tuple[str, ...]
    baseline: Path | None
    baseline_variant: str | None
    fail_if: tuple[str, ...]
    only_fail_if: bool
    required: tuple[str, ...]
    strict: bool
    concurrency: int
    timeout: float
    judge_timeout: float
    seed: int
    out: Path | None
    resume: Path | None
    as_json: bool


@click.command()
@click.option("--dataset", "file", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="Golden set: JSON lines, one case each.")  # fmt: skip
@click.option("--team", help="Team that asks and pays; it must be configured. Not needed with --resume.")
@click.option("--key", "key_id", help="Identity of the team's key that it asks with, never the key.")
@click.option("--route", "routes", multiple=True, help="Route to answer; the first named is the baseline.")
@click.option("--prompt", "prompts", multiple=True, metavar="NAME@LABEL",
              help="Version of a prompt; @LABEL: of each case's own.")  # fmt: skip
@click.option(
    "--policy", "policies", multiple=True, help="Guardrail policy; the team must list it in allowed_policies."
)
@click.option("--repeats", default=1, show_default=True, type=click.IntRange(1, 100), help="Answers to each case.")
@click.option("--tag", "tags", multiple=True, help="Only cases with this tag; repeatable.")
@click.option("--evaluator", "chosen", multiple=True, help="Only this evaluator; repeatable.  [default: all]")
@click.option(
    "--judge", "rubrics", multiple=True, metavar="RUBRIC", help="Have answers judged by a rubric; repeatable."
)
@click.option("--baseline", type=click.Path(dir_okay=False, path_type=Path), metavar="REPORT.JSON",
              help="Compare with the answers of an earlier run.")  # fmt: skip
@click.option("--baseline-variant", help="Variant of the earlier run, where it has several.")
@click.option("--fail-if", "fail_if", multiple=True, metavar="RULE",
              help="Regression: 'answer.groundedness<-0.02', 'cost>+10%'; repeatable.")  # fmt: skip
@click.option("--only-fail-if", is_flag=True, help="Leave the default regression rules out.")
@click.option(
    "--require", "required", multiple=True, metavar="RULE", help="What a mean must be: 'passed>=0.9'; repeatable."
)
@click.option("--strict", is_flag=True, help="Count as a regression only what is significant after Holm's adjustment.")
@click.option(
    "--concurrency", default=4, show_default=True, type=click.IntRange(1, 256), help="Requests under way at once."
)
@click.option(
    "--timeout", default=120.0, show_default=True, type=click.FloatRange(1), help="Deadline of a request, seconds."
)
@click.option(
    "--judge-timeout", default=600.0, show_default=True, type=click.FloatRange(1), help="Wait for judges, seconds."
)
@click.option("--seed", default=0, show_default=True, help="Of the order of requests and of the resampling.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of the run and its reports.  [default: evaluation-runs/RUN]")  # fmt: skip
@click.option("--resume", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Go on with a run that was broken off: what has an answer is not asked again.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def run(**given: Any) -> None:
    """Ask the cases of a golden set through the stream and compare the ways to answer them.

    An option that is given several times makes variants: --route a --route b compares b with a. Those repeated together
    go together, one variant a time. With one variant and no --baseline, the run fails where a demand is not met.

    Exits 0 where nothing became worse, 1 at a regression or a requirement that is not met, 2 where it cannot run.
    """
    options = _Options(**given)
    with errors_of_a_check(*_UNUSABLE):
        report, folder = asyncio.run(_run(options))
    if options.as_json:
        click.echo(msgspec.json.encode(report))
    else:
        print_report(report, folder)
    if not report.ok:
        raise SystemExit(1)


async def _run(options: _Options) -> tuple[Report, Path]:
    dataset = read_dataset(options.file)
    settings = load_settings(Settings)
    embedder = embedder_from_settings(settings)
    evaluators = chosen_evaluators(all_evaluators(embedder, settings.evaluator_modules.split(",")), options.chosen)
    earlier = _earlier(options)
    names = metric_names(evaluators, options.rubrics)
    rules = rules_of(options.fail_if, names, only_given=options.only_fail_if)
    kept = None if options.resume is None else _resumed(options, dataset)
    planned = _planned(options, dataset) if kept is None else kept.run
    cases = dataset.tagged(planned.tags)
    if not cases:
        raise Unfit(f"no case of {options.file} has the tag {', '.join(planned.tags)}")
    alone = earlier is None and len(planned.variants) == 1
    requirements = [rule_of(spec, names) for spec in options.required or (["passed>=1"] if alone else [])]
    asks = asks_of(cases, planned.variants, planned.repeats, planned.seed)
    judging = Judging()
    if kept is None or kept.missing(asks) or options.rubrics:
        async with connect() as connection:
            plane = await ConfigPlane.open(connection.bus, connection.codec)
            try:
                requests = _requests(planned, cases, asks, plane)
                rubrics = _rubrics(options.rubrics, plane)
                needs = {rubric.name: _needs(rubric, plane) for rubric in rubrics}
            finally:
                await plane.close()
            resumed = kept is not None
            kept = kept or AnswerFile.create(options.out or _RUNS / planned.run, planned)
            click.echo(f"run {planned.run} in {kept.folder}; if it breaks off, --resume {kept.folder}", err=True)
            try:
                await _ask(connection, kept, asks, requests, options, resumed)
            finally:
                kept.close()
            if rubrics:
                by_id = {case.id: case for case in cases}
                judging = await _judged(connection, kept, by_id, earlier, rubrics, needs, options)
    report = await asyncio.to_thread(
        outcome, planned, cases, kept.answers, evaluators, embedder, rules=rules, requirements=requirements,
        made_at=datetime.now(UTC), earlier=earlier, judging=judging, strict=options.strict,
    )  # fmt: skip
    write_report(report, kept.folder)
    return report, kept.folder


def _planned(options: _Options, dataset: Dataset) -> Run:
    if options.team is None:
        raise Unfit("say which team asks and pays: --team")
    return Run(
        run=new_id(),
        started_at=datetime.now(UTC),
        dataset=dataset.name,
        dataset_version=dataset.version,
        team=options.team,
        key_id=options.key_id,
        variants=variants_of(options.routes, options.prompts, options.policies),
        repeats=options.repeats,
        seed=options.seed,
        tags=list(options.tags),
    )


def _resumed(options: _Options, dataset: Dataset) -> AnswerFile:
    assert options.resume is not None
    kept = AnswerFile.open(options.resume)
    if kept.run.dataset_version != dataset.version:
        raise RunError(
            f"{options.resume} asks version {kept.run.dataset_version} of {kept.run.dataset}, and {options.file} is version "
            f"{dataset.version}: give the file as it was, or begin a new run"
        )
    if options.key_id or options.routes or options.prompts or options.policies or options.tags or options.out:
        raise RunError(
            f"{options.resume} says what is asked and where it is kept: leave out what --resume goes on with"
        )
    return kept


def chosen_evaluators(evaluators: Sequence[Evaluator], names: Sequence[str]) -> list[Evaluator]:
    """Return those of ``evaluators`` that are named, all of them where none is.

    Raises:
        Unfit: there is no such evaluator.
    """
    if unknown := sorted(set(names) - {one.name for one in evaluators}):
        known = ", ".join(sorted({one.name for one in evaluators}))
        raise Unfit(f"there is no evaluator {', '.join(unknown)}; there are {known}")
    return [one for one in evaluators if not names or one.name in names]


def _earlier(options: _Options) -> Earlier | None:
    if options.baseline is None:
        if options.baseline_variant is not None:
            raise Unfit("--baseline-variant is one of an earlier run: name its report with --baseline")
        return None
    report = read_report(options.baseline)
    variant, answers = stored_answers(report, options.baseline_variant, "baseline")
    return Earlier(variant, report.run.run, answers)


def _requests(
    planned: Run, cases: Sequence[Case], asks: Sequence[Ask], plane: ConfigPlane
) -> dict[Ask, tuple[Request, str]]:
    """What is sent for each ask. All that does not fit is found before anything is sent."""
    team = plane.team(planned.team)
    if team is None:
        raise Unfit(f"no team {planned.team!r} is configured; see `penstock config show teams`")
    configured = Configured(plane.team, plane.route, plane.prompt, plane.policy)
    made = {
        (case.id, variant.name): (request_of(case, variant, team, configured), case.version)
        for variant in planned.variants
        for case in cases
    }
    return {ask: made[ask.case, ask.variant] for ask in asks}


def _rubrics(names: Sequence[str], plane: ConfigPlane) -> list[Rubric]:
    rubrics = []
    for name in dict.fromkeys(names):
        rubric = plane.rubric(name)
        if rubric is None:
            known = ", ".join(sorted(plane.entries("rubrics"))) or "none"
            raise Unfit(f"no rubric {name!r} is configured; there are {known}")
        rubrics.append(rubric)
    return rubrics


def _needs(rubric: Rubric, plane: ConfigPlane) -> set[str]:
    """Which evidence the rubric's prompt requires, that an answer or a case may lack."""
    prompt = plane.prompt(rubric.prompt, rubric.prompt_label)
    if prompt is None:
        raise Unfit(
            f"rubric {rubric.name!r} names version {rubric.prompt_label!r} of prompt {rubric.prompt!r}, which is not "
            "configured; see `penstock config show prompts`"
        )
    return {name for name in ("passages", "reference") if name in prompt.variables and prompt.variables[name].required}


async def _ask(
    connection: Connection,
    kept: AnswerFile,
    asks: Sequence[Ask],
    requests: Mapping[Ask, tuple[Request, str]],
    options: _Options,
    resumed: bool,
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with Client(
        cluster_settings(), tenant=kept.run.team, transport=connection.bus, codec=connection.codec
    ) as client:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("answers", total=len(asks), completed=len(asks) - len(kept.missing(asks)))
            await replay(
                connection.bus,
                connection.codec,
                client,
                kept,
                asks,
                requests,
                resumed=resumed,
                concurrency=options.concurrency,
                patience=Patience(deadline_s=options.timeout),
                on_answer=lambda _: progress.advance(task),
            )


async def _judged(
    connection: Connection,
    kept: AnswerFile,
    cases: Mapping[str, Case],
    earlier: Earlier | None,
    rubrics: Sequence[Rubric],
    needs: Mapping[str, Set[str]],
    options: _Options,
) -> Judging:
    clock = SystemClock()
    stored: list[Answer] = [*(comparable(earlier, cases) if earlier is not None else []), *kept.answers]
    baseline = earlier.variant.name if earlier is not None else kept.run.variants[0].name
    questions = questions_of(kept.run, cases, stored, baseline, rubrics, clock, needs)
    file = JudgementFile(kept.folder)
    with Console(stderr=True).status(f"{len(questions)} judgements"):
        notes = await judge(
            connection.bus,
            connection.codec,
            Producer(connection.bus.producer(), connection.codec, "client", clock),
            file,
            kept.run,
            questions,
            clock=clock,
            timeout_s=options.judge_timeout,
        )
    asked = {question.task.event_id for question in questions}
    return Judging(
        judgements=[one for one in file.said.values() if one.task in asked],
        pairwise=[rubric.name for rubric in rubrics if rubric.mode == "pairwise"],
        notes=notes,
    )
