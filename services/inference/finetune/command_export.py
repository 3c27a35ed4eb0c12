"""``penstock finetune export``: rated conversations as a dataset in a folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from penstock.cli.cluster import one_line_errors
from penstock.cli.instants import INSTANT

from services.inference.finetune.dataset import CONVERSATIONS, DatasetError, read_dataset
from services.inference.finetune.golden import GoldenError, platform_command, said
from services.inference.finetune.options import FOLDER

__all__ = ["export", "exported"]


@click.command()
@click.option("--out", type=FOLDER, required=True, help="Folder of the dataset.")
@click.option("--since", type=INSTANT, help="Feedback of this instant on, or how long ago.  [default: all in the log]")
@click.option("--team", help="Only of this team.")
@click.option("--main-python", type=click.Path(dir_okay=False, path_type=Path), help="Of the main environment.")
def export(out: Path, since: datetime | None, team: str | None, main_python: Path | None) -> None:
    """Write rated conversations as JSON lines and Parquet, with a manifest that names their topic offsets.

    It is `penstock feedback export --format conversations`; the version of the dataset is the SHA-256 of the manifest. Texts
    are as guardrails left them.
    """
    with one_line_errors(DatasetError, GoldenError):
        exported(out, since, team, main_python)


def exported(out: Path, since: datetime | None, team: str | None, main_python: Path | None) -> None:
    """Write the dataset and print what it is.

    Raises:
        GoldenError: the export failed.
        DatasetError: what it wrote cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    arguments = ["feedback", "export", "--format", CONVERSATIONS.partition(".")[0], "--out", str(out / CONVERSATIONS)]
    arguments += ["--parquet", str(out / CONVERSATIONS.replace(".jsonl", ".parquet"))]
    arguments += ["--since", since.isoformat()] if since else []
    arguments += ["--team", team] if team else []
    click.echo(said(platform_command(main_python), arguments), nl=False)
    click.echo(f"version {read_dataset(out).version}")
