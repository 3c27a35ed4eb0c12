"""``penstock annotations agreement``: how far annotators agree beyond chance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec
from penstock.cli.cluster import table_console
from penstock.cli.connection import connect, run_command
from penstock.cli.instants import INSTANT
from penstock.cli.printable import printable
from penstock.contracts.records import AnnotationTask, Feedback
from rich.table import Table
from rich.text import Text

from services.evaluation.feedback.agreement import Agreement, Estimate
from services.evaluation.feedback.agreement import agreement as measured
from services.evaluation.feedback.log import Log, Request, feedback_since, newest_of_raters, tasks_since
from services.evaluation.feedback.opinions import VOCABULARY

__all__ = ["agreement", "agreements"]


@click.command()
@click.option("--queue", help="Only what was said for this queue.")
@click.option("--team", help="Only of this team.")
@click.option("--label", "only", help="Only this label, e.g. answer.toxicity, or rating.")
@click.option(
    "--sample", is_flag=True, help="Only tasks that were picked at random: how far raters agree over all traffic."
)
@click.option("--since", type=INSTANT, default="30d", show_default=True, help="First instant, or how long ago.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a label.")
def agreement(
    queue: str | None, team: str | None, only: str | None, sample: bool, since: datetime, as_json: bool
) -> None:
    """Say how far those agree who label the same texts: Krippendorff's alpha and Cohen's kappa with 95 % intervals.

    1 is perfect, 0 is chance. What evaluators were unsure of is harder than the rest: see --sample.
    """
    run_command(_agreement(queue, team, only, sample, since, as_json))


async def _agreement(
    queue: str | None, team: str | None, only: str | None, sample: bool, since: datetime, as_json: bool
) -> None:
    async with connect() as connection:
        log = Log(connection.bus, connection.codec)
        given = await feedback_since(log, since, team=team)
        tasks = await tasks_since(log, since, team=team) if sample else []
    found = agreements(given, queue=queue, sampled=tasks if sample else None)
    found = {name: one for name, one in found.items() if only in (None, name)}
    if as_json:
        for name, one in found.items():
            click.echo(json.dumps(_data(name, one), ensure_ascii=False))
        return
    if not found:
        click.echo("no moderator has labelled anything yet: see `penstock annotations next`")
        return
    for name, one in found.items():
        _print(name, one)


def agreements(
    given: Mapping[Request, Sequence[Feedback]],
    *,
    queue: str | None = None,
    sampled: Iterable[AnnotationTask] | None = None,
) -> dict[str, Agreement]:
    """Return the agreement of moderators by label, and of their ratings under ``rating``.

    Args:
        given: feedback by request.
        queue: only what was said for this queue.
        sampled: tasks of which those of reason ``sample`` count; ``None`` counts all requests.
    """
    wanted = None if sampled is None else {(t.tenant_id, t.request_id) for t in sampled if t.reason == "sample"}
    values: dict[str, dict[str, dict[str, Any]]] = {}
    for (team, request_id), feedback in given.items():
        if wanted is not None and (team, request_id) not in wanted:
            continue
        named = (each for each in feedback if each.source == "moderator" and each.user_id)
        for each in newest_of_raters(each for each in named if queue in (None, each.queue)):
            said: dict[str, Any] = dict(each.labels)
            if each.rating is not None and 0 <= each.rating <= 1:
                said["rating"] = each.rating
            for name, value in said.items():
                values.setdefault(name, {}).setdefault(f"{team}/{request_id}", {})[each.user_id or ""] = value
    return {
        name: measured(by_unit, "interval" if name == "rating" else "nominal")
        for name, by_unit in sorted(values.items())
    }


def _print(name: str, one: Agreement) -> None:
    kind = "ratings, interval" if name == "rating" else "labels, nominal"
    words = VOCABULARY.get(name.partition(".")[2])
    click.echo(f"{printable(name)} ({kind}{', ' + '/'.join(words) if words else ''})")
    click.echo(f"  Krippendorff's alpha {_text(one.alpha)} over {one.alpha.units} texts that several labelled")
    if one.raters:
        table = Table("rater", "labels", "texts shared", "kappa with the others", box=None, pad_edge=True)
        for rater, estimate in one.raters.items():
            table.add_row(
                Text(printable(rater)), str(one.given[rater]), str(estimate.units), _text(estimate)
            )  # fmt: skip
        table_console().print(table)
    for (first, second), estimate in one.pairs.items():
        click.echo(
            f"  Cohen's kappa {printable(first)} and {printable(second)}: {_text(estimate)} over {estimate.units} texts"
        )
    click.echo()


def _text(one: Estimate) -> str:
    if one.value is None:
        return "not defined" if one.units else "nothing shared"
    return f"{one.value:.3f}" + ("" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]")


def _data(name: str, one: Agreement) -> dict[str, Any]:
    return {
        "label": name,
        "alpha": msgspec.to_builtins(one.alpha),
        "raters": {
            rater: {"labels": count} | (msgspec.to_builtins(one.raters[rater]) if rater in one.raters else {})
            for rater, count in one.given.items()
        },
        "pairs": [
            {"raters": list(pair), "kappa": msgspec.to_builtins(estimate)} for pair, estimate in one.pairs.items()
        ],
    }
