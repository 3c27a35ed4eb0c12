"""``penstock evaluate cases`` and ``compare``: a golden set that is answered elsewhere, without the stream.

Whoever answers (a model that no route has yet) reads the cases as one simple format and gives the answers back; what an
answer is worth, and what is a regression, is said here alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from penstock.cli.cluster import errors_of_a_check, one_line_errors
from penstock.contracts.envelope import new_id
from penstock.contracts.records import Usage
from penstock.embedding import EmbedderError, embedder_from_settings
from penstock.settings import load_settings

from services.evaluation.evaluators.registry import EvaluatorError, all_evaluators
from services.evaluation.golden.answers import Answer, Run, RunError
from services.evaluation.golden.command_run import Settings, chosen_evaluators
from services.evaluation.golden.dataset import Case, Dataset, DatasetError, read_dataset
from services.evaluation.golden.metrics import RuleError, rule_of, rules_of
from services.evaluation.golden.outcome import outcome
from services.evaluation.golden.printing import print_report, write_report
from services.evaluation.golden.report import Report
from services.evaluation.golden.scoring import metric_names
from services.evaluation.golden.variants import Ask, Unfit, Variant

__all__ = ["Given", "Question", "answers_of", "cases", "compare", "compared", "questions_of"]


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A case as whoever answers sees it: what is asked and how, and nothing of what is right."""

    case: str
    version: str
    messages: list[dict[str, str]]
    sampling: dict[str, Any] = {}


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was given elsewhere, one a line.

    Attributes:
        case: id of the case, as `penstock evaluate cases` prints it.
        version: the case's content hash; an answer to a case that has changed since is refused.
        latency_ms: how long it took.
    """

    case: str
    version: str
    answer: str
    model: str | None = None
    finish_reason: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: float = 0.0


def questions_of(dataset: Dataset) -> tuple[list[Question], dict[str, int]]:
    """Return what can be asked of a bare model, and how many cases cannot, by the reason."""
    asked: list[Question] = []
    left_out: dict[str, int] = {}
    for case in dataset.cases:
        if case.status != "completed":
            why = f"expects {case.status}, which guardrails decide"
        elif case.prompt is not None:
            why = "names a registered prompt, which the stream renders"
        else:
            messages = [{"role": one.role, "content": one.content} for one in case.conversation]
            asked.append(
                Question(
                    case=case.id,
                    version=case.version,
                    messages=messages,
                    sampling=case.sampling.model_dump(mode="json", exclude_defaults=True),
                )
            )
            continue
        left_out[why] = left_out.get(why, 0) + 1
    return asked, left_out


def answers_of(variant: str, path: Path, run: str, cases: Mapping[str, Case]) -> list[Answer]:
    """Read the answers of a variant.

    Raises:
        Unfit: the file cannot be read, a line is no answer, or answers a case that is not in the set, or not any more.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise Unfit(f"{path}: {error.strerror}; give a file with one answer a line") from error
    found: dict[str, Answer] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            one = msgspec.json.decode(line, type=Given)
        except msgspec.MsgspecError as error:
            raise Unfit(
                f'{path}:{number} is no answer ({error}): write {{"case": ..., "version": ..., "answer": ...}}'
            ) from error
        case = cases.get(one.case)
        if case is None or case.version != one.version:
            why = "is not in the set" if case is None else f"is version {case.version} now, not {one.version}"
            raise Unfit(f"{path}:{number}: case {one.case!r} {why}; ask again what `penstock evaluate cases` prints")
        if one.case in found:
            raise Unfit(f"{path}:{number}: case {one.case!r} is answered twice; remove one of the two")
        found[one.case] = Answer(
            case=one.case, case_version=one.version, variant=variant, request_id=Ask(one.case, variant).request_id(run),
            status="completed", question=case.asked, content=one.answer, model=one.model, finish_reason=one.finish_reason,
            usage=Usage(input_tokens=one.input_tokens, output_tokens=one.output_tokens), latency_ms=one.latency_ms,
        )  # fmt: skip
    return list(found.values())


@click.command()
@click.option("--dataset", "file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Golden set.")
def cases(file: Path) -> None:
    """Print what a golden set asks of a bare model, one case a line; what is right is not among it.

    The first line names the set and its version. Cases that only the stream can answer are left out and counted.
    """
    with one_line_errors(DatasetError):
        dataset = read_dataset(file)
    asked, left_out = questions_of(dataset)
    head = {"dataset": dataset.name, "version": dataset.version, "cases": len(asked), "left_out": left_out}
    click.echo(msgspec.json.encode(head))
    for question in asked:
        click.echo(msgspec.json.encode(question))
    for why, count in left_out.items():
        click.echo(f"{count} cases left out: each {why}", err=True)


@click.command()
@click.option("--dataset", "file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Golden set.")
@click.option("--answers", "given", multiple=True, required=True, metavar="NAME=FILE",
              help="Answers of a model, JSON lines; the first named is the baseline.")  # fmt: skip
@click.option("--evaluator", "chosen", multiple=True, help="Only this evaluator; repeatable.  [default: all]")
@click.option("--fail-if", "fail_if", multiple=True, metavar="RULE", help="Regression; repeatable.")
@click.option("--only-fail-if", is_flag=True, help="Leave the default regression rules out.")
@click.option(
    "--require", "required", multiple=True, metavar="RULE", help="What a mean must be: 'passed>=0.9'; repeatable."
)
@click.option("--strict", is_flag=True, help="Count as a regression only what is significant after Holm's adjustment.")
@click.option("--seed", default=0, show_default=True, help="Of the resampling.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the reports.")
def compare(file: Path, out: Path, **options: Any) -> None:
    """Compare answers to a golden set that were given elsewhere, as `penstock evaluate run` compares those of routes.

    Exits 0 where nothing became worse, 1 at a regression or a requirement that is not met, 2 where it cannot run.
    """
    with errors_of_a_check(DatasetError, EmbedderError, EvaluatorError, RuleError, RunError, Unfit):
        report = compared(read_dataset(file), **options)
        out.mkdir(parents=True, exist_ok=True)
        write_report(report, out)
    print_report(report, out)
    if not report.ok:
        raise SystemExit(1)


def compared(
    dataset: Dataset,
    given: Sequence[str],
    chosen: Sequence[str],
    fail_if: Sequence[str],
    only_fail_if: bool,
    required: Sequence[str],
    strict: bool,
    seed: int,
) -> Report:
    """Return the report over answers that stand in files, ``NAME=FILE`` each, the first of the baseline.

    Raises:
        Unfit: the files and the set do not fit each other.
    """
    named = [one.partition("=") for one in given]
    if any(not name or not path for name, _, path in named) or len({name for name, _, _ in named}) < len(named):
        raise Unfit("--answers is NAME=FILE, each with a name of its own: --answers base=base.jsonl")
    settings = load_settings(Settings)
    embedder = embedder_from_settings(settings)
    evaluators = chosen_evaluators(all_evaluators(embedder, settings.evaluator_modules.split(",")), chosen)
    names = metric_names(evaluators)
    by_id = {case.id: case for case in dataset.cases}
    run = new_id()
    answers = [answer for name, _, path in named for answer in answers_of(name, Path(path), run, by_id)]
    answered = {answer.case for answer in answers}
    asked = [case for case in dataset.cases if case.id in answered]
    if not asked:
        raise Unfit("the files hold no answer: ask what `penstock evaluate cases` prints")
    planned = Run(
        run=run, started_at=datetime.now(UTC), dataset=dataset.name, dataset_version=dataset.version, team="",
        variants=[Variant(name, route="") for name, _, _ in named], seed=seed,
    )  # fmt: skip
    return outcome(
        planned, asked, answers, evaluators, embedder, rules=rules_of(fail_if, names, only_given=only_fail_if),
        requirements=[rule_of(spec, names) for spec in required], made_at=datetime.now(UTC), strict=strict,
    )  # fmt: skip
