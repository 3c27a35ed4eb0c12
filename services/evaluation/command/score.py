"""``penstock evaluate score``: one evaluator over lines of a file or a pipe, without the stack."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import click
import msgspec
from penstock.embedding import Embedder, EmbedderError, EmbeddingSettings, embedder_from_settings
from penstock.settings import SettingsError, load_settings
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from services.evaluation.command.score_baselines import Baseline, Skipped, baselines_for
from services.evaluation.command.score_output import output_line, writing
from services.evaluation.command.score_report import show
from services.evaluation.command.score_rows import Reading, Row, read_rows
from services.evaluation.command.score_run import ScoringRun
from services.evaluation.evaluators.protocol import Evaluator, Exchange, Subject
from services.evaluation.evaluators.registry import NAMES, EvaluatorError, named

__all__ = ["score"]

_BATCH = 256


class Settings(EmbeddingSettings):
    """What the command reads from the environment."""

    evaluator_modules: str = ""


@click.command()
@click.option(
    "--evaluator", "name", required=True, metavar="NAME",
    help=f"One of {', '.join(NAMES)}, or one of your own.",
)  # fmt: skip
@click.option(
    "--in", "sources", multiple=True, required=True, type=click.Path(path_type=Path, allow_dash=True),
    help="JSON lines, or a .csv or .tsv table; - reads JSON lines from a pipe; repeat it for several files.",
)  # fmt: skip
@click.option(
    "--out", "target", type=click.Path(path_type=Path, allow_dash=True),
    help="Where every line goes, its fields and its score; - writes to a pipe, and the figures to standard error.",
)  # fmt: skip
@click.option("--text-field", help="Field with the scored text.  [default: by its name]")
@click.option("--label-field", help="Field with the label: 1 or 0, yes or no.  [default: by its name]")
@click.option("--subject", type=click.Choice(["prompt", "answer"]), help="Which text is scored, where both can be.")
@click.option("--by", "fields", multiple=True, metavar="FIELD", help="Figures by a field too, or by named identity.")
@click.option(
    "--baselines/--no-baselines", "with_baselines", default=True, show_default=True,
    help="Run known scorers of the same task beside it, where lines have labels.",
)  # fmt: skip
@click.option("--train", type=click.Path(path_type=Path), help="Labelled lines for the baseline that learns.")
@click.option(
    "--module", "modules", multiple=True, help="Module with evaluators of your own, beside EVALUATOR_MODULES."
)
@click.option("--threshold", type=click.FloatRange(0, 1), help="Score from which it says yes.  [default: its own]")
@click.option("--details", is_flag=True, help="Also write label, version, reason, categories, features and sentences.")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many lines.")
@click.option("--skip-invalid", is_flag=True, help="Leave lines out that cannot be scored instead of ending there.")
@click.option("--json", "json_wanted", is_flag=True, help="Print the figures as JSON.")
def score(
    name: str,
    sources: Sequence[Path],
    target: Path | None,
    text_field: str | None,
    label_field: str | None,
    subject: Subject | None,
    fields: Sequence[str],
    with_baselines: bool,
    train: Path | None,
    modules: Sequence[str],
    threshold: float | None,
    details: bool,
    limit: int | None,
    skip_invalid: bool,
    json_wanted: bool,
) -> None:
    """Score labelled lines with an evaluator, without the stack.

    Fields are told by their names: text (toxicity), question or prompt, answer or response, context or passages, reference,
    label or grounded. Each output line keeps its fields and gets `score`: 1 means toxic, grounded, or what the evaluator's
    page says. With labels, prints AUC, average precision, calibration error and what thresholds are worth; always the
    throughput.
    """
    started = time.perf_counter()
    evaluator, either = _evaluator(name, subject, modules)
    made_s = time.perf_counter() - started
    reading = Reading(name, evaluator.subject, text_field, label_field, either)
    bad = _BadLines(skip_invalid)
    rows = islice(bad.left_out(chain.from_iterable(read_rows(source, reading) for source in sources)), limit)
    first = list(islice(rows, _BATCH))
    if not first:
        raise click.ClickException("there is no line to score")
    labelled = any(row.label is not None for row in first)
    baselines: list[Baseline | Skipped] = []
    if labelled and with_baselines:
        training = _training(train, sources, reading, bad) if train is not None else None
        baselines = baselines_for(name, evaluator.subject, training)
    run = ScoringRun(evaluator, [one for one in baselines if isinstance(one, Baseline)], fields)
    try:
        run.warm_up(first[0].exchange, made_s)
        with writing(target, sources) as write, _progress() as advance:
            for batch in _batches(chain(first, rows)):
                for row, said in zip(batch, run.score(batch), strict=True):
                    write(output_line(row, said, details))
                advance(len(batch))
    except EmbedderError as error:
        raise click.ClickException(str(error)) from error
    report = run.report(threshold, [one for one in baselines if isinstance(one, Skipped)], bad.count)
    aside = str(target) == "-"
    if json_wanted:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode(), err=aside)
    else:
        # Wide enough to cut nothing off in a file or a pipe.
        width = None if (sys.stderr if aside else sys.stdout).isatty() else 160
        show(Console(stderr=aside, highlight=False, width=width), report)
    if run.failures:
        raise click.ClickException(
            f"{name} failed on {run.failures} lines, which have no score; the first: {run.first_failure}"
        )


def _evaluator(name: str, subject: Subject | None, modules: Sequence[str]) -> tuple[Evaluator, bool]:
    """Return the evaluator, and whether the same one scores the other subject too and none was asked for."""
    try:
        settings = load_settings(Settings)
        found = named(name, lambda: _embedder(settings), (*settings.evaluator_modules.split(","), *modules))
    except (SettingsError, EvaluatorError, EmbedderError) as error:
        raise click.ClickException(str(error)) from error
    of = [one for one in found if subject is None or one.subject == subject]
    if not of:
        raise click.BadParameter(f"{name} scores the {found[0].subject} only", param_hint="--subject")
    return of[0], len(of) > 1


def _embedder(settings: Settings) -> Embedder:
    return embedder_from_settings(settings)


def _training(path: Path, sources: Sequence[Path], reading: Reading, bad: _BadLines) -> Iterator[tuple[Exchange, bool]]:
    if any(str(one) != "-" and one.exists() and path.exists() and one.samefile(path) for one in sources):
        raise click.BadParameter(f"{path} is also scored: what has learned its lines knows them", param_hint="--train")
    rows = bad.left_out(read_rows(path, reading))
    return ((row.exchange, row.label) for row in rows if row.label is not None)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    source = iter(rows)
    while batch := list(islice(source, _BATCH)):
        yield batch


class _BadLines:
    """Names lines that cannot be scored, and ends there unless they are to be skipped."""

    def __init__(self, skip: bool) -> None:
        self._skip = skip
        self.count = 0

    def left_out(self, rows: Iterable[Row | tuple[str, str]]) -> Iterator[Row]:
        for row in rows:
            if isinstance(row, Row):
                yield row
                continue
            where, why = row
            if not self._skip:
                raise click.ClickException(f"{where}: {why}; or leave such lines out with --skip-invalid")
            self.count += 1
            click.echo(f"{where}: {why}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """Yield what is told of scored lines: a counter on standard error where that is a terminal."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} lines scored"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scoring", total=None)
        yield lambda count: progress.update(task, advance=count)
