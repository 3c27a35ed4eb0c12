"""``penstock finetune evaluate``: an adapter beside its base on a golden set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from penstock.cli.cluster import one_line_errors
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.inference.finetune.golden import GoldenError, ask, compare, figures_of, platform_command
from services.inference.finetune.options import FOLDER, base_option, device_option, golden_options, need_engine
from services.inference.finetune.record import (
    EVALUATION,
    Evaluated,
    RecordError,
    base_digest,
    read_training,
    write_record,
)
from services.inference.vllm.adapters import AdapterError, digest_of

__all__ = ["evaluate", "evaluated"]

_REPORT = "evaluation"


@click.command()
@click.argument("adapter", type=FOLDER)
@base_option
@click.option(
    "--golden", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Golden set."
)
@golden_options
@device_option
def evaluate(adapter: Path, base: Path, golden: Path, device: str, **given: Any) -> None:
    """Ask base and ADAPTER the cases of a golden set, and have `penstock evaluate compare` say what became worse.

    Both answer greedily, without the stream and its evidence. Report and answers are written to ADAPTER/evaluation. Exits 1
    where the adapter is worse than its base beyond noise.
    """
    need_engine("evaluate")
    if not evaluated(adapter, base, golden, device, **given).ok:
        raise SystemExit(1)


def evaluated(
    adapter: Path,
    base: Path,
    golden: Path,
    device: str,
    *,
    max_answer_tokens: int,
    answer_batch: int,
    evaluators: Sequence[str],
    fail_if: Sequence[str],
    main_python: Path | None,
) -> Evaluated:
    """Evaluate an adapter, keep what came of it in its folder, and print it.

    Raises:
        click.ClickException: it cannot be evaluated.
    """
    # The engine's environment alone has what this needs.
    from services.inference.finetune.generating import Answering
    from services.inference.finetune.training import TrainingError, device_of

    with one_line_errors(AdapterError, GoldenError, RecordError, TrainingError):
        record, digest = read_training(adapter), digest_of(adapter)
        if base_digest(base) != record.base_sha256:
            raise RecordError(
                f"{adapter} was trained on another base than {base}: give the folder of {record.base_model}"
            )
        command = platform_command(main_python)
        asked = ask(command, golden)
        model = Answering(base, adapter, device_of(device), batch_size=answer_batch)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task("answers", total=2 * len(asked.questions))
            before, after = (
                model.answers(
                    asked.questions,
                    adapted=adapted,
                    max_tokens=max_answer_tokens,
                    on_answer=lambda: progress.advance(task),
                )
                for adapted in (False, True)
            )
        for why, count in asked.left_out.items():
            click.echo(f"{count} cases left out: each {why}")
        options = [word for name in evaluators for word in ("--evaluator", name)]
        options += [word for rule in fail_if for word in ("--fail-if", rule)]
        found = figures_of(compare(command, golden, before, after, adapter / _REPORT, options), asked, digest)
        write_record(adapter, EVALUATION, found)
    click.echo(f"{found.golden}, {found.cases} cases, report in {adapter / _REPORT}")
    for name in sorted(found.figures):
        if name.startswith("golden."):
            metric = name.removeprefix("golden.")
            click.echo(f"  {metric}: {found.figures[f'base.{metric}']:.3f} -> {found.figures[name]:.3f}")
    for problem in found.problems:
        click.echo(f"  worse: {problem}")
    return found
