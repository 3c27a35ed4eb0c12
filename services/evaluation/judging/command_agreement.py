"""``penstock evaluate agreement``: whether the models that judge agree with the people who did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import click
import msgspec
from penstock.bus import history
from penstock.cli.cluster import table_console
from penstock.cli.connection import Connection, connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.printable import printable
from penstock.config.plane import ConfigPlane
from penstock.config.rubrics import Rubric
from penstock.contracts.records import Evaluation, Feedback
from rich.markup import escape
from rich.table import Table

from services.evaluation.judging.agreement import Agreement, Interval, Pair, agreement, pairs
from services.evaluation.judging.asking import PAIRWISE

__all__ = ["agreement_command", "by_judge", "verdicts_of"]

_TOPICS = ("evaluations", "feedback")
_ALL = "all judges"


@click.command("agreement")
@click.option("--rubric", required=True, help="Rubric whose judges are compared with people.")
@click.option("--team", help="Only requests of this team.")
@click.option("--since", type=INSTANT, default="30d", show_default=True, help="How far back is looked.")
@click.option(
    "--confidence", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True, help="Of the intervals."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a judge instead of a table.")
def agreement_command(rubric: str, team: str | None, since: datetime, confidence: float, as_json: bool) -> None:
    """Compare what models judged by a rubric with what people said of the same requests on `feedback`: by a label
    answer.RUBRIC that is one of its verdicts, by the answer they chose, or by their rating."""
    run_command(_agreement(rubric, team, since, confidence, as_json))


async def _agreement(name: str, team: str | None, since: datetime, confidence: float, as_json: bool) -> None:
    async with connect() as connection:
        evaluations, feedback = await _read(connection, since, team)
        plane = await ConfigPlane.open(connection.bus, connection.codec)
        try:
            rubric = plane.rubric(name)
        finally:
            await plane.close()
    verdicts = verdicts_of(name, rubric, evaluations)
    if not verdicts:
        raise click.ClickException(
            f"there is no rubric {name!r} and nothing was judged by one; see `penstock config show rubrics`"
        )
    found = by_judge(pairs(evaluations, feedback, name, verdicts), confidence)
    if not found:
        raise click.ClickException(
            f"no request since {since:%Y-%m-%d %H:%M} UTC has both a verdict by {name!r} and a person's word: have people "
            f"label some with `penstock annotations`, or look further back with --since"
        )
    if as_json:
        for judge, one in found.items():
            click.echo(json.dumps({"judge": judge, "rubric": name} | msgspec.to_builtins(one)))
        return
    table = Table("judge", box=None, pad_edge=False, header_style="dim")
    for title in ("pairs", "accuracy", "kappa", "pearson", "spearman", "position consistency"):
        table.add_column(title, justify="right")
    for judge, one in found.items():
        figures = (one.accuracy, one.kappa, one.pearson, one.spearman, one.position_consistency)
        table.add_row(escape(printable(judge)), str(one.pairs), *map(_shown, figures))
    table_console().print(table)
    click.echo(f"intervals hold {confidence:.0%}, by bootstrap over requests; kappa is agreement beyond chance")


async def _read(connection: Connection, since: datetime, team: str | None) -> tuple[list[Evaluation], list[Feedback]]:
    evaluations: list[Evaluation] = []
    feedback: list[Feedback] = []
    async with history(connection.bus, _TOPICS, since_ms=int(since.timestamp() * 1000)) as messages:
        async for message in messages:
            record = connection.codec.readable(message.topic, message.value)
            if record is None or team not in (None, record.tenant_id):
                continue
            if isinstance(record, Evaluation):
                evaluations.append(record)
            elif isinstance(record, Feedback):
                feedback.append(record)
    return evaluations, feedback


def verdicts_of(name: str, rubric: Rubric | None, evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Return the verdicts of a rubric with what they count: as it is configured, and as they were given."""
    verdicts = {
        score.label: score.score for each in evaluations for score in each.scores if score.name == name and score.label
    }
    if rubric is None:
        return verdicts
    if rubric.mode == "pairwise":
        return verdicts | {each.name: each.score for each in PAIRWISE}
    return verdicts | {choice.name: choice.score for choice in rubric.choices}


def by_judge(found: Sequence[Pair], confidence: float) -> Mapping[str, Agreement]:
    """Return the agreement of each model that judged, and of all together where there are several."""
    models = sorted({pair.model for pair in found})
    chosen = {model: [pair for pair in found if pair.model == model] for model in models}
    if len(models) > 1:
        chosen[_ALL] = list(found)
    return {model: agreement(those, confidence=confidence) for model, those in chosen.items()}


def _shown(interval: Interval) -> str:
    if interval.estimate is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.2f}"
    return f"{interval.estimate:.2f} ({interval.low:.2f} to {interval.high:.2f})"
