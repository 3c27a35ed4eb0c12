"""``penstock retrieval evaluate``: measures of search on a question set, an exit status for CI."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from penstock.bus import Transient
from penstock.cli.cluster import errors_of_a_check
from penstock.embedding import EmbedderError, embedder_from_settings
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.retrieval.adapters import StoreMisfit, StoreUnavailable
from services.retrieval.quality.configurations import METHODS, Configuration, ConfigurationError, configuration_of
from services.retrieval.quality.evaluation import Earlier, Evaluated, Plan, evaluated
from services.retrieval.quality.printing import print_report
from services.retrieval.quality.question_sets import QuestionSet, QuestionSetError, read_question_set
from services.retrieval.quality.ranking import Advance, NotRanked
from services.retrieval.quality.report import Report, Requirement
from services.retrieval.quality.trec_run import run_lines

__all__ = ["evaluate"]

_FILE = click.Path(dir_okay=False, path_type=Path)


class _Unfit(Exception):
    """What was asked for does not fit together; the message says why."""


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command."""

    corpora: tuple[Path, ...]
    queries: tuple[Path, ...]
    qrels: tuple[Path, ...]
    method: str | None
    config: str | None
    others: tuple[str, ...]
    cutoffs: tuple[int, ...]
    index: Path | None
    baseline: Path | None
    baseline_system: str | None
    margin: float
    least: tuple[str, ...]
    run_file: Path | None
    seed: int
    as_json: bool


@click.command()
@click.option("--corpus", "corpora", multiple=True, required=True, type=_FILE,
              help="Documents, JSON lines or a table; repeatable: more documents to get lost among.")  # fmt: skip
@click.option("--queries", multiple=True, required=True, type=_FILE,
              help="Questions, JSON lines or a table of id and text; repeatable.")  # fmt: skip
@click.option("--qrels", multiple=True, type=_FILE,
              help="Which documents answer them: a table of BEIR or TREC. Not needed where questions say it.")  # fmt: skip
@click.option("--method", type=click.Choice(METHODS), help="How to search.  [default: hybrid, or the configuration's]")
@click.option("--config", metavar="FILE", help="Settings to search under: a YAML file, or a route's.")
@click.option("--compare", "others", multiple=True, metavar="FILE|METHOD",
              help="Other settings, or a method under the same; repeatable.")  # fmt: skip
@click.option("--k", "cutoffs", multiple=True, type=click.IntRange(1, 100), default=(1, 5, 10), show_default=True,
              help="Of recall@k; repeatable.")  # fmt: skip
@click.option("--index", type=click.Path(file_okay=False, path_type=Path),
              help="Folder that keeps what was embedded for the next run.  [default: a temporary one]")  # fmt: skip
@click.option("--baseline", type=_FILE, metavar="REPORT.JSON", help="Compare with an earlier report.")
@click.option("--baseline-system", help="System of that report, where it has several.  [default: the first]")
@click.option("--margin", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="A fall below the baseline by less is no regression.")  # fmt: skip
@click.option("--fail-below", "least", multiple=True, metavar="MEASURE=VALUE",
              help="Least mean, such as mrr=0.95; repeatable.")  # fmt: skip
@click.option("--run", "run_file", type=_FILE, help="Write the rankings there as a run file of TREC.")
@click.option("--seed", default=0, show_default=True, help="Of the resampling.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, every question's values included.")
def evaluate(**given: Any) -> None:
    """Measure how well the documents that answer are found: recall@k, MRR, nDCG@10, and the time of a question.

    The documents are chunked, embedded, stored and searched by the service's own code, in a store of its own; no stack is
    needed and none is touched. The embedder is that of the environment (EMBEDDING_*). Differences come with intervals at
    95 % from a paired bootstrap over the questions.

    Exits 0 where all is as required, 1 where a mean is below --fail-below or the whole interval of a measure lies below
    that of --baseline, 2 where it cannot run.
    """
    options = _Options(**given)
    with errors_of_a_check(
        _Unfit, ConfigurationError, EmbedderError, NotRanked, QuestionSetError, StoreMisfit, StoreUnavailable, Transient
    ):
        report = _report(options)
    if options.as_json:
        click.echo(msgspec.json.encode(report))
    else:
        print_report(report)
    if not report.ok:
        raise SystemExit(1)


def _report(options: _Options) -> Report:
    plan = _plan(options)
    questions = read_question_set(options.corpora, options.queries, options.qrels)
    if plan.earlier is not None and plan.earlier.version != questions.version:
        raise _Unfit(
            f"{options.baseline} was made with other questions or judgements: give the files that it was made with, or make "
            "the baseline anew"
        )
    if options.index is not None:
        made = _run(plan, questions, options.index)
    else:
        with tempfile.TemporaryDirectory(prefix="penstock-retrieval-") as folder:
            made = _run(plan, questions, Path(folder))
    if options.run_file is not None:
        lines = run_lines(questions.questions, made.ranked, plan.configurations[0].name)
        try:
            with options.run_file.open("w", encoding="utf-8", errors="replace") as file:
                file.writelines(lines)
        except OSError as error:
            raise _Unfit(f"{options.run_file} cannot be written: {error.strerror}") from error
    return made.report


def _run(plan: Plan, questions: QuestionSet, folder: Path) -> Evaluated:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def watched(what: str, total: int) -> Advance:
            task = progress.add_task(what, total=total)
            return lambda done: progress.advance(task, done)

        return asyncio.run(evaluated(plan, questions, folder, embedder_from_settings, watched))


def _plan(options: _Options) -> Plan:
    if options.baseline is None and options.baseline_system is not None:
        raise _Unfit("--baseline-system is one of an earlier report: name the report with --baseline")
    first = configuration_of(options.config or options.method or "hybrid")
    if options.config is not None and options.method is not None:
        first = first.by(configuration_of(options.method).method)
    # A method beside it is another way to search under the same settings: one index serves both.
    others = [
        first.by(configuration_of(one).method) if one in METHODS else configuration_of(one) for one in options.others
    ]
    configurations = [first, *others]
    _told_apart(configurations)
    cutoffs = sorted(set(options.cutoffs))
    measures = [*(f"recall@{k}" for k in cutoffs), "mrr", "ndcg@10"]
    requirements = [_requirement(one, measures) for one in options.least]
    return Plan(
        configurations=configurations,
        cutoffs=cutoffs,
        requirements=requirements,
        earlier=None if options.baseline is None else _earlier(options.baseline, options.baseline_system),
        margin=options.margin,
        seed=options.seed,
    )


def _told_apart(configurations: Sequence[Configuration]) -> None:
    names = [one.name for one in configurations]
    if len(set(names)) < len(names):
        raise _Unfit(f"two configurations have one name: {', '.join(names)}; give one of them a field `name`")


def _requirement(spec: str, measures: Sequence[str]) -> Requirement:
    measure, _, value = spec.partition("=")
    if measure.strip() not in measures:
        raise _Unfit(f"--fail-below {spec!r}: there is no measure {measure.strip()!r}; there are {', '.join(measures)}")
    try:
        return Requirement(measure.strip(), float(value))
    except ValueError:
        raise _Unfit(f"--fail-below {spec!r}: write the least mean as a number, as in mrr=0.95") from None


def _earlier(path: Path, name: str | None) -> Earlier:
    report = _stored(path)
    found = next((one for one in report.systems if name is None or one.name == name), None)
    if found is None:
        raise _Unfit(f"{path} has no system {name!r}; it has {', '.join(one.name for one in report.systems)}")
    return Earlier(f"{found.name} of {path.name}", found, report.question_set.version)


def _stored(path: Path) -> Report:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except OSError as error:
        raise _Unfit(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise _Unfit(f"{path} is no report of `penstock retrieval evaluate --json`: {error}") from error
