"""``penstock finetune run``: from feedback to a registered adapter, and to a share of the traffic, in one go."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from penstock.cli.cluster import one_line_errors
from penstock.cli.instants import INSTANT
from penstock.cli.publishing import EntryRefused

from services.inference.finetune.command_evaluate import Asking, Judging, answer, judged
from services.inference.finetune.command_export import exported
from services.inference.finetune.command_register import registered
from services.inference.finetune.command_route import routed, trial_of
from services.inference.finetune.command_train import trained
from services.inference.finetune.dataset import DatasetError
from services.inference.finetune.golden import GoldenError, ask, platform_command
from services.inference.finetune.options import (
    FOLDER,
    base_option,
    device_option,
    golden_options,
    need_engine,
    options_of,
    publishing_options,
    route_options,
    training_options,
)
from services.inference.finetune.record import RecordError
from services.inference.finetune.registering import NotRegistered, adapter_of, checked_name
from services.inference.vllm.adapters import AdapterError

__all__ = ["run"]


@click.command()
@base_option
@click.option(
    "--golden", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Golden set."
)
@click.option("--name", required=True, help="Name of the adapter; a name keeps its weights.")
@click.option("--out", type=FOLDER, required=True, help="Folder of it all: OUT/dataset and OUT/NAME.")
@click.option(
    "--dataset", type=click.Path(exists=True, path_type=Path), help="Take this dataset instead of exporting one."
)
@click.option("--since", type=INSTANT, help="Feedback of this instant on, or how long ago.  [default: all in the log]")
@click.option("--team", help="Only feedback of this team.")
@click.option("--route", "target", help="Route to try it on.  [default: it is registered alone]")
@training_options
@golden_options
@route_options
@publishing_options
@device_option
def run(
    base: Path, golden: Path, name: str, out: Path, dataset: Path | None, since: datetime | None, team: str | None,
    target: str | None, base_model: str | None, personal: bool, max_answer_tokens: int, answer_batch: int,
    evaluators: Sequence[str], fail_if: Sequence[str], main_python: Path | None, share: float, sticky: str,
    max_error_rate: float, score_losses: Sequence[str], salt: str | None, replace: bool, author: str,
    reason: str, dry_run: bool, device: str, **given: Any,
) -> None:  # fmt: skip
    """Export, train, evaluate, register, and with --route put on trial; exits 1 where the adapter is worse than its base.

    Each step is a command of its own, by which a run that stopped is finished.
    """
    need_engine("run")
    with one_line_errors(NotRegistered):  # what is misspelt is told before an hour of training
        folder = out / checked_name(name)
        canary = trial_of(
            name, share=share, sticky=sticky, max_error_rate=max_error_rate, score_losses=score_losses, salt=salt
        )
    if dataset is None:
        dataset = out / "dataset"
        with one_line_errors(DatasetError, GoldenError):
            exported(dataset, since, team, main_python)
    trained(dataset, base, folder, options_of(given), base_model=base_model, personal=personal, device=device)
    asking = Asking(max_answer_tokens, answer_batch, device)
    with one_line_errors(AdapterError, GoldenError, RecordError):
        judging = Judging(golden, platform_command(main_python), evaluators, fail_if)
        answer(folder, base, ask(judging.command, golden), asking)
        found = judged(folder, judging)
    if not found.ok:
        raise click.ClickException(f"{name} is worse than its base and is not registered; see {folder / 'evaluation'}")
    with one_line_errors(EntryRefused, NotRegistered):
        adapter = adapter_of(folder, name=name)
        registered(adapter, author=author, reason=reason, dry_run=dry_run)
        if target is not None:
            routed(
                target, canary, replace=replace, author=author, reason=reason, dry_run=dry_run,
                unpublished=adapter if dry_run else None,
            )  # fmt: skip
