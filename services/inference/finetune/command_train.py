"""``penstock finetune train``: from a dataset and a base model to an adapter's folder."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Literal, cast

import click
from penstock.cli.cluster import one_line_errors

from services.inference.finetune.dataset import DatasetError, chosen, read_dataset, split
from services.inference.finetune.encoding import encoded
from services.inference.finetune.options import (
    FOLDER,
    base_option,
    device_option,
    need_engine,
    options_of,
    training_options,
)
from services.inference.finetune.record import (
    TRAINING,
    Loss,
    Options,
    RecordError,
    Trained,
    TrainedOn,
    base_digest,
    write_record,
)
from services.inference.vllm.adapters import digest_of

__all__ = ["train", "trained"]


@click.command()
@click.option("--dataset", type=click.Path(exists=True, path_type=Path), required=True,
              help="Folder that `penstock finetune export` wrote.")  # fmt: skip
@base_option
@click.option("--out", type=FOLDER, required=True, help="Folder of the adapter; it must not be there yet.")
@training_options
@device_option
def train(
    dataset: Path, base: Path, out: Path, base_model: str | None, personal: bool, device: str, **given: Any
) -> None:
    """Train a LoRA adapter: the answers alone are learned, each counts as it was rated, conversations are held out.

    Training ends early where the held-out loss falls no more; its best weights are kept. Nothing is written unless they are
    better than the base.
    """
    need_engine("train")
    trained(dataset, base, out, options_of(given), base_model=base_model, personal=personal, device=device)


def trained(
    dataset: Path, base: Path, out: Path, options: Options, *, base_model: str | None, personal: bool, device: str
) -> Trained:
    """Train an adapter, write its folder whole or not at all, and print how it goes.

    Raises:
        click.ClickException: it cannot be trained.
    """
    # The engine's environment alone has what this needs.
    from jinja2 import TemplateError

    from services.inference.finetune.training import (
        TrainingError,
        device_of,
        enough_memory,
        fit,
        tokenizer_of,
        versions,
    )

    if out.exists() and any(out.iterdir()):
        raise click.ClickException(
            f"{out} holds something already: an adapter's folder is written once; name another --out"
        )
    with one_line_errors(DatasetError, RecordError, TrainingError), enough_memory():
        started = time.monotonic()
        place, data = device_of(device), read_dataset(dataset)
        weights = cast("Literal['rating', 'equal']", options.weights)
        examples, left_out = chosen(data.rows, min_rating=options.min_rating, weights=weights, personal=personal)
        parts = split(examples, share=options.held_out, seed=options.seed)
        tokenizer = tokenizer_of(base)
        learned, too_long = encoded(tokenizer, parts.training, max_tokens=options.max_tokens, refusal=TemplateError)
        held_out, held_too_long = encoded(
            tokenizer, parts.held_out, max_tokens=options.max_tokens, refusal=TemplateError
        )
        for reasons in (too_long, held_too_long):
            left_out = {**left_out, **{why: left_out.get(why, 0) + count for why, count in reasons.items()}}
        _tell(data.version, len(learned), len(held_out), left_out)
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            fitted = fit(base, tokenizer, learned, held_out, options, place, part, _show)
            record = Trained(
                base_model=base_model or base.resolve().name,
                base_sha256=base_digest(base),
                adapter_sha256=digest_of(part),
                dataset=TrainedOn(
                    name=data.name, version=data.version, sha256=data.sha256, rows=len(learned), held_out=len(held_out),
                    left_out=dict(left_out), log=list(data.log),
                ),
                options=options,
                best_step=fitted.best_step,
                losses=fitted.losses,
                parameters=fitted.parameters,
                device=place.name,
                dtype=str(place.dtype).removeprefix("torch."),
                versions=versions(),
                seconds=round(time.monotonic() - started, 1),
            )  # fmt: skip
            write_record(part, TRAINING, record)
            part.chmod(0o755)
            if out.exists():
                out.rmdir()
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    click.echo(
        f"{out}: held-out loss {record.base_loss:.4f} -> {record.loss:.4f} at step {record.best_step}, "
        f"{record.parameters:,} parameters, {record.seconds:.0f} s on {record.device}, sha256 {record.adapter_sha256[:16]}"
    )
    return record


def _tell(version: str, learned: int, held_out: int, left_out: Any) -> None:
    click.echo(f"dataset {version[:16]}: {learned} conversations to learn from, {held_out} held out")
    for why, count in left_out.items():
        click.echo(f"  {count} left out: {why}")


def _show(loss: Loss) -> None:
    trained_on = "" if loss.training is None else f", training {loss.training:.4f}"
    click.echo(f"  step {loss.step} (epoch {loss.epoch:g}): held-out loss {loss.held_out:.4f}{trained_on}")
