"""``penstock finetune evaluate``: an adapter beside its base on a golden set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from penstock.cli.cluster import one_line_errors
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.inference.finetune.golden import (
    Asked,
    GoldenError,
    ask,
    asked_of,
    compare,
    figures_of,
    keep_answers,
    platform_command,
)
from services.inference.finetune.options import FOLDER, device_option, golden_options, need_engine
from services.inference.finetune.record import (
    EVALUATION,
    Evaluated,
    RecordError,
    base_digest,
    read_training,
    write_record,
)
from services.inference.vllm.adapters import AdapterError, digest_of

__all__ = ["Asking", "Judging", "answer", "evaluate", "judged"]

_REPORT = "evaluation"


@click.command()
@click.argument("adapter", type=FOLDER)
@click.option("--base", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the base model.")
@click.option("--golden", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Golden set.")
@click.option("--questions", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="What `penstock evaluate cases` prints: answer that, and leave judging to another machine.")  # fmt: skip
@click.option("--answered", is_flag=True, help="Judge the answers that are there; needs no model.")
@golden_options
@device_option
def evaluate(
    adapter: Path, base: Path | None, golden: Path | None, questions: Path | None, answered: bool, device: str, **given: Any
) -> None:  # fmt: skip
    """Ask base and ADAPTER the cases of a golden set, and have `penstock evaluate compare` say what became worse.

    Both answer greedily, without the stream and its evidence. Report and answers are written to ADAPTER/evaluation. Exits 1
    where the adapter is worse than its base beyond noise.

    Where models run without the main environment, as in the image, do one half there and the other elsewhere: --base with
    --questions, then --answered with --golden.
    """
    if (
        answered == (base is not None)
        or (golden is None) == (questions is None)
        or (answered and questions is not None)
    ):
        raise click.UsageError("give --base with --golden or --questions, or --answered with --golden")
    if base is not None:
        need_engine("evaluate")
    asking = Asking(max_tokens=given.pop("max_answer_tokens"), batch_size=given.pop("answer_batch"), device=device)
    with one_line_errors(AdapterError, GoldenError, RecordError):
        if questions is not None and base is not None:
            asked = asked_of(questions.read_text("utf-8"), str(questions))
            answer(adapter, base, asked, asking)
            click.echo(f"answers in {adapter / _REPORT}: judge them with --answered where evaluation is installed")
            return
        assert golden is not None
        judging = Judging(golden, platform_command(given.pop("main_python")), **given)
        if base is not None:
            answer(adapter, base, ask(judging.command, golden), asking)
        if not judged(adapter, judging).ok:
            raise SystemExit(1)


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are answered: most tokens of an answer, how many at once, and where."""

    max_tokens: int
    batch_size: int
    device: str


@dataclass(frozen=True, slots=True)
class Judging:
    """What answers are judged by: the set, the main environment, its evaluators and rules."""

    golden: Path
    command: Sequence[str]
    evaluators: Sequence[str] = ()
    fail_if: Sequence[str] = ()


def answer(adapter: Path, base: Path, asked: Asked, asking: Asking) -> None:
    """Have base and adapter answer, and keep the answers in the adapter's folder.

    Raises:
        RecordError: the adapter is of another base.
        click.ClickException: the models cannot be run.
    """
    # The engine's environment alone has what this needs.
    from services.inference.finetune.generating import Answering
    from services.inference.finetune.training import TrainingError, device_of, enough_memory

    record = read_training(adapter)
    digests = base_digest(base), digest_of(adapter)
    if digests[0] != record.base_sha256:
        raise RecordError(f"{adapter} was trained on another base than {base}: give the folder of {record.base_model}")
    for why, count in asked.left_out.items():
        click.echo(f"{count} cases left out: each {why}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with one_line_errors(TrainingError), enough_memory():
        model = Answering(base, adapter, device_of(asking.device), digests, batch_size=asking.batch_size)
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("answers", total=2 * len(asked.questions))
            before, after = (
                model.answers(
                    asked.questions,
                    adapted=adapted,
                    max_tokens=asking.max_tokens,
                    on_answer=lambda: progress.advance(task),
                )
                for adapted in (False, True)
            )
    keep_answers(adapter / _REPORT, before, after)


def judged(adapter: Path, judging: Judging) -> Evaluated:
    """Have the answers in the adapter's folder judged, keep what came of it there, and print it.

    Raises:
        AdapterError, GoldenError: there are no answers of these weights, or they cannot be judged.
    """
    digest = digest_of(adapter)
    options = [word for name in judging.evaluators for word in ("--evaluator", name)]
    options += [word for rule in judging.fail_if for word in ("--fail-if", rule)]
    found = figures_of(compare(judging.command, judging.golden, adapter / _REPORT, digest, options), digest)
    write_record(adapter, EVALUATION, found)
    click.echo(f"{found.golden}, {found.cases} cases, report in {adapter / _REPORT}")
    for name in sorted(found.figures):
        if name.startswith("golden."):
            metric = name.removeprefix("golden.")
            click.echo(f"  {metric}: {found.figures[f'base.{metric}']:.3f} -> {found.figures[name]:.3f}")
    for problem in found.problems:
        click.echo(f"  worse: {problem}")
    return found
